"""Write one HTML page of a run: everything is inside and nothing is loaded, so that it can be sent as it is.

A section of the page has a module here, which collects its data from the run, and mostly a script, which draws them.
The text is in `page.html.j2`, the style sheet in `page.css`.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import quote

from nas.pages.document import render_document
from nas.report.page.blocks import compare_blocks
from nas.report.page.fidelity import certainty_text, fidelity_data
from nas.report.page.front import front_data, front_lines
from nas.report.page.made import made_rows, next_commands, playground_command
from nas.report.page.networks import all_rows, main_rows
from nas.report.page.summary import results
from nas.report.page.trainings import nearest_networks, training_rows
from nas.report.page.trajectory import trajectories
from nas.report.page.trials import trials_data
from nas.report.texts import budget_text, device_text, images_text, title_of, with_uv
from nas.runs.reading import Run

FIGURES = "figures"  # the folder of a run that holds its figures
SCRIPTS = ("facts.js", "question.js", "front.js", "choices.js", "more_charts.js", "blocks.js", "start.js")


def render_page(run: Run) -> str:
    """Return the page of a run. It names the figures that lie in the run's folder by now."""
    lines, trimmed = front_lines(run), trajectories(run)
    found = results(run)
    return render_document(
        Path(__file__).parent,
        "page.html.j2",
        styles=["page.css"],
        scripts=SCRIPTS,
        charts=True,
        data={
            "front": front_data(run, lines),
            "trials": trials_data(run),
            "fidelity": fidelity_data(run),
            "trajectories": trimmed,
        },
        title=f"Networks for {device_text(run)}",
        record=run.record,
        table=run.table,
        estimator=run.estimator,
        images=images_text(run),
        results=found,
        main=main_rows(run, found),
        certainty=certainty_text(run),
        trainings=training_rows(found),
        nearest=nearest_networks(run, found),
        all_networks=all_rows(run),
        lines=lines,
        first_budget=budget_text(found[0].search.target.budget_ms),
        comparisons=compare_blocks(run),
        measured=len(run.measured),
        trimmed=trimmed,
        trials=len(run.trials),
        figures=_figures(run),
        made=list(made_rows(run)),
        commands=next_commands(run),
        playground=playground_command(run),
        budget_text=budget_text,
        title_of=title_of,
        with_uv=with_uv,
    )


def _figures(run: Run) -> list[tuple[str, str]]:
    """Return the name and the address of each figure in the folder of the run."""
    folder = run.path / FIGURES
    files = sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []
    return [(name, quote(f"{FIGURES}/{name}")) for name in files]
