import re
import subprocess
import sys
from html.parser import HTMLParser

import msgspec
from support.made_up_run import changed, write_run

from nas.report import __main__ as report
from nas.report.page import DrawnFigure, render_page
from nas.report.plots.diagram import diagram_data
from nas.report.plots.front import CAPTION, front_data
from nas.report.plots.latency_table import table_data
from nas.runs.reading import load_run
from nas.runs.record import RunRecord, TargetResult
from nas.runs.target import Target

VOID = {"meta", "br", "img"}


class Structure(HTMLParser):
    """Collect the texts and the addresses of a page, and fail on tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for key, value in attrs if key in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def parsed(page: str) -> Structure:
    structure = Structure()
    structure.feed(page)
    structure.close()
    assert not structure.open
    return structure


def text_of(page: str) -> str:
    """Return the text of a page as a browser shows it: white space is one space."""
    return " ".join("".join(parsed(page).texts).split())


def page_text(run_dir) -> str:
    return text_of(render_page(load_run(run_dir), []))


def test_command_draws_everything(run_dir, capsys):
    report.main([str(run_dir)])
    page = run_dir / "index.html"
    assert capsys.readouterr().out == f"{page}\n"
    names = ["breakdown", "front", "large", "latency_table", "small"]
    assert sorted(file.name for file in (run_dir / "figures").iterdir()) == [
        f"{name}.{suffix}" for name in names for suffix in ("png", "svg")
    ]
    structure = parsed(page.read_text())
    assert len(structure.addresses) == 5
    assert all(address.startswith("data:image/svg+xml;base64,") for address in structure.addresses)


def test_a_run_of_one_target_without_rows(tmp_path):
    run_dir = write_run(tmp_path / "run", [Target("small", 20.0)], trials=0)
    report.main([str(run_dir)])
    assert not (run_dir / "figures" / "large.svg").exists()
    assert "Found Small takes" in page_text(run_dir)
    assert "Found Large" not in page_text(run_dir)


def test_page_opens_with_the_result(finished_run):
    run = load_run(finished_run)
    text = page_text(finished_run)
    large, published = run.found("large"), run.record.networks[2]
    slack = 4 - large.measured_ms
    assert (
        f"Found Large takes {large.measured_ms:.2f} ms at an estimated {large.estimated_top1:.1f} ± 0.7 % top-1 on "
        f"ImageNet; MobileNetV3-Large takes {published.measured_ms:.2f} ms at {published.estimated_top1:.1f} ± 0.7 %, "
        f"estimated for the same training recipe (published: 75.2 %). The budget of 4 ms is kept, with {slack:.2f} ms "
        f"({25 * slack:.1f} %) unused."
    ) in text
    assert "does not bind" not in text
    assert text.index("Found Large takes") < text.index("measured, ms") < text.index("How it was made")
    for word in ("imagenet-prior", "25 epochs of fine-tuning", "1@192, 1@224, 1.25@224", "torch 2.15.0", "table 41.2"):
        assert word in text


def test_page_tells_a_budget_that_does_not_bind(edit_run):
    assert "The budget does not bind" in page_text(edit_run(lambda data: data["targets"][0].update(binds=False)))


def test_page_does_not_hide_a_violated_budget(edit_run):
    text = page_text(edit_run(lambda data: data["networks"][1].update(measured_ms=1.5)))
    assert "Found Small takes 1.50 ms at an estimated" in text
    assert "That is 0.30 ms over the budget of 1.2 ms." in text


def test_arguments_that_were_not_given_are_left_out(edit_run):
    text = page_text(edit_run(lambda data: data["arguments"].update(width=[], only=None, resolution=[192, 224])))
    assert "budget ms 4, seed 0, resolution 192, 224" in text


def test_budgets_are_rounded(edit_run):
    text = page_text(edit_run(lambda data: data["targets"][1]["target"].update(budget_ms=1.8588235294117648)))
    assert "The budget of 1.86 ms is kept" in text
    assert "1.858" not in text


def test_table_compares_what_was_measured_together_and_folds_the_rest(finished_run):
    page = render_page(load_run(finished_run), [])
    above, rest = page.split("<details>")
    folded, below = rest.split("</details>")
    for name in ("found Large", "found Small", "MobileNetV3-Large", "MobileNetV3-Small", "OFA cpu 15ms"):
        assert f"<td>{name} <br>" in above
        assert f"<td>{name} <br>" not in folded
    assert "<td>HardCoRe-NAS A <br>" in folded
    assert folded.startswith("<summary>43 more networks")
    assert folded.count("<tr>") == 1 + 43
    assert "<tr>" not in above.split("</tbody>")[1]
    assert "top-1 estimated, %" in above
    assert "top-1 published, %" in above
    assert "<td>" not in below.split('id="made"')[0]
    assert "* Outside" not in page


def test_extrapolated_estimates_are_starred(edit_run):
    text = page_text(edit_run(lambda data: data["networks"][1].update(extrapolated=True)))
    assert text.count("± 0.7*") == 2  # in the sentence and in the table
    assert "* Outside the networks that the estimator was fitted to: its uncertainty is doubled there." in text


def test_nothing_is_folded_where_all_was_measured_together(edit_run):
    def shorten(data):
        data["networks"] = data["networks"][:4]

    assert "<details>" not in render_page(load_run(edit_run(shorten)), [])


def test_page_says_what_to_compare(finished_run):
    figure = DrawnFigure("front", "Accuracy against latency", CAPTION, "<svg/>")
    text = text_of(render_page(load_run(finished_run), [figure]))
    assert "Compare the stars with the grey dots, not with the diamonds: the diamonds' trainings differ" in text
    assert "Compare the networks found with the others' estimates, not with their published accuracies" in text
    assert (
        "Estimated accuracies come from imagenet-prior and all speak for one training recipe: as Once-for-All trains, "
        "25 epochs of fine-tuning."
    ) in text


def test_page_tells_how_good_the_table_is(finished_run, edit_run):
    line = (
        "The latency table against 100 random networks, measured whole on 2026-01-01: mean error 1.9 %, 94 % of them "
        "within 5 % and 100 % within 10 %, Spearman's rank correlation 0.997."
    )
    assert line in page_text(finished_run)

    def check_twice(data):
        (checked,) = data["table"]["fidelity"]
        data["table"]["fidelity"].append(checked | {"population": "near-optimal", "networks": 50, "mape": 0.031})

    text = page_text(edit_run(check_twice))
    assert line in text
    assert "against 50 near-optimal networks, measured whole on 2026-01-01: mean error 3.1 %" in text
    assert "Spearman" not in page_text(edit_run(lambda data: data["table"].update(fidelity=[])))


def test_every_text_of_the_run_is_escaped(edit_run):
    evil = "<script>alert('&amp;')</script>\"'"

    def poison(data):
        for key in ("command", "created", "finished"):
            data[key] = evil
        data["notes"] = [evil]
        data["seconds"] = {evil: 1.0}
        for key in ("arguments", "versions"):
            data[key] = {evil: evil}
        for key in ("table", "estimator", "machine"):
            data[key].update({name: evil for name, value in data[key].items() if isinstance(value, str)})
        data["table"]["fidelity"][0].update(date=evil, population=evil)
        for result in data["targets"]:
            result.update(space=evil, binds=False, measured={evil: next(iter(result["measured"].values()))})
            result["attempts"][0]["spec_id"] = evil
            result["optimum"]["best"]["spec_id"] = result["optimum"]["loop"]["strategy"] = evil
        for network in data["networks"]:
            network["source"] = evil
        data["networks"][2].update(name=evil)

    page = render_page(load_run(edit_run(poison)), [DrawnFigure("front", evil, evil, "<svg/>")])
    assert "<script" not in page
    assert text_of(page).count(evil) >= 20


def test_texts_may_be_in_any_script(edit_run):
    def translate(data):
        data["table"]["device"] = "处理器 <3.0>"
        data["notes"] = ["naïve «ß»"]

    text = page_text(edit_run(translate))
    assert "Networks for 处理器 <3.0>, onnxruntime 1.31.1, 1 thread" in text
    assert "Note: naïve «ß»." in text


def test_a_wrong_folder_is_one_line_and_status_2(tmp_path):
    command = [sys.executable, "-m", "nas.report", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"nas.report: error: {tmp_path}: not a run folder")
    assert done.stderr.count("\n") == 1


def test_reports_need_no_torch_and_help_nothing_heavy():
    code = (
        "import sys, nas.report\n"
        "assert not {'numpy', 'matplotlib', 'pandas'} & set(sys.modules)\n"
        "import nas.report.writing\n"
        "assert 'torch' not in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_run_on_another_devices_table_is_marked_everywhere(edit_run):
    def predicted(run):
        run["table"] |= {"other_device": True, "precision": "int8"}
        run["notes"] = ["latencies are predicted, not measured", "<int8>"]
        for network in run["networks"]:
            if network["kind"] == "found" or not network["name"].startswith("mobilenet_v3"):
                network |= {"measured_ms": None, "raw_ms": None, "quartiles_ms": None}

    run = load_run(edit_run(predicted))
    mark = "1 thread, int8 (predicted, not measured: the table is of another device)"
    figures = [front_data(run), table_data(run)]
    assert all(mark in figure.subtitle for figure in figures)
    assert "on that device" in figures[0].title
    assert "ms predicted" in diagram_data(run, "large").subtitle
    page = render_page(run, [])
    assert mark in page.partition("<h1>")[2].partition("</h1>")[0]
    assert "<strong>Note:</strong> latencies are predicted, not measured." in page
    assert "&lt;int8&gt;" in page
    assert f"is predicted to take {run.found('large').predicted_ms:.2f} ms" in text_of(page)
    assert "measured at another time" not in page
    assert "timed in the same rounds" not in page


def test_page_tells_how_the_run_was_made(finished_run):
    run = load_run(finished_run)
    run = changed(run, arguments={"budget_ms": 4.0, "widths": [0.75, 1.0], "data": None, "resume": False})
    table = re.split('id="(?:made|next)"', render_page(run, []))[1]
    headings = re.findall("<tr><th>(.*?)</th><td>(.*?)</td></tr>", table)
    rows = dict(headings)
    assert len(rows) == len(headings)
    found, (measured,) = run.found("large"), run.result("large").measured.values()
    (attempt,) = run.result("large").attempts
    optimum = run.result("large").optimum
    assert optimum is not None
    behind = ", ".join(
        f"{other.spec_id} with {other.top1:.2f} % at {other.predicted_ms:.3f} ms predicted"
        for other in optimum.runners_up
    )
    assert {key: text for key, text in rows.items() if "Small" not in key} == {
        "command": "python -m nas.search --budget-ms 4",
        "begun": "2026-01-02T03:04:05+00:00",
        "ended": "2026-01-02T03:06:05+00:00",
        "seconds": "table 41.2, search 10.1, measure 4",
        "search for Large": (
            "budget 4 ms, space mobilenet_v3_large, feasible from 0.31 to 17.90 ms, "
            "width@pixels 1@192, 1@224, 1.25@224, 30 networks looked at"
        ),
        "attempts for Large": (
            f"{attempt.spec_id} predicted {attempt.predicted_ms:.3f} ± {0.01 * attempt.predicted_ms:.3f} ms, measured "
            f"{attempt.measured_ms:.3f} ± {0.003 * attempt.measured_ms:.3f} ms"
        ),
        "finalists for Large": (
            f"{found.spec.id} {measured.normalised_ms:.3f} ms ({measured.quartiles_ms[0]:.3f}–"
            f"{measured.quartiles_ms[1]:.3f}, raw {measured.median_ms:.3f}, standard error 0.3 %)"
        ),
        "optimum for Large": (
            f"the best of all networks within 3.950 ms predicted is {found.spec.id} with {optimum.best.top1:.2f} % at "
            f"{optimum.best.predicted_ms:.3f} ms predicted; behind it {behind}; the best of 200 trials of tpe has "
            f"{optimum.loop.top1:.2f} %"
        ),
        "MACs": "; ".join(
            f"found {network.target}: {network.macs:,}, fvcore counts the same on the built network"
            for network in run.record.networks
            if network.found
        ),
        "estimator": "imagenet-prior",
        "training recipe": "as Once-for-All trains, 25 epochs of fine-tuning",
        "latency table": (
            "file latency_tables/example-onnxruntime-t1.json, device Example CPU 3.0, other device no, runtime "
            "onnxruntime 1.31.1, threads 1, precision float32, num classes 1000, rows 4812, reference "
            "mobilenet_v3_large, reference ms 3.71, networks 150"
        ),
        "fidelity of the table": (
            "population random, networks 100, date 2026-01-01, mape 0.0187, bias -0.004, within 5 percent 0.94, "
            "within 10 percent 1, spearman 0.9971, kendall 0.96, noise mape 0.006"
        ),
        "machine": "cpu Example CPU 3.0, cores 2, os Linux",
        "versions": "nas 0.1.0, torch 2.15.0, onnxruntime 1.31.1",
        "arguments": "budget ms 4, widths 0.75, 1, resume no",
        "version of the record": "4",
    }
    assert {key for key in rows if "Small" in key} == {
        f"{what} for Small" for what in ("search", "attempts", "finalists", "optimum")
    }
    # The notes stand at the top of the page, the networks in a table of their own. A new field is to be shown too.
    assert set(RunRecord.__struct_fields__) == {
        *("version", "command", "arguments", "versions", "created", "finished", "seconds", "machine", "table"),
        *("estimator", "notes", "targets", "networks"),
        "compared",  # which the networks hold, too
    }
    assert set(TargetResult.__struct_fields__) == {
        *("target", "space", "feasible_ms", "binds", "variants", "attempts", "measured", "optimum"),
    }


def test_page_says_where_fvcore_counts_otherwise(finished_run):
    run = load_run(finished_run)
    networks = [msgspec.structs.replace(n, fvcore_macs=7000 if n.found else None) for n in run.record.networks]
    assert "fvcore counts 7,000 on the built network" in render_page(changed(run, networks=tuple(networks)), [])


def test_several_budgets_of_a_skeleton_have_names_of_their_own(tmp_path):
    targets = [Target("large", budget_ms, one_of_several=True) for budget_ms in (3, 4)]
    run_dir = write_run(tmp_path / "run", targets)
    text = page_text(run_dir)
    assert "Found Large at 3 ms takes" in text
    assert "Found Large at 4 ms takes" in text
    assert f"python -m nas.train {run_dir / 'large_3ms.json'}" in text
    assert "search for Large at 4 ms" in text
