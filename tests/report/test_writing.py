"""The files of a report, and what is written for which arguments."""

import shutil
from pathlib import Path

import pytest
from support.made_up_table import made_up_table

from nas.arch.loading import load_space
from nas.errors import NasError
from nas.report import __main__ as report
from nas.report.plots import FIGURES
from nas.report.writing import write_asked, write_report


@pytest.fixture(autouse=True)
def _few_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Draw the figure only that is drawn fastest."""
    monkeypatch.setattr("nas.report.writing.FIGURES", {"breakdown": FIGURES["breakdown"]})


def figures_of(folder: Path) -> list[str]:
    return sorted(file.name for file in (folder / "figures").iterdir())


def test_the_command_writes_figures_their_numbers_and_the_page(run_dir, capsys):
    report.main([str(run_dir)])
    assert capsys.readouterr().out == f"{run_dir / 'index.html'}\n"
    assert figures_of(run_dir) == ["breakdown.csv", "breakdown.png", "breakdown.svg"]


@pytest.mark.parametrize("flags", [["--format", "pdf,svg"], ["--format", "pdf", "--format", "svg,pdf"]])
def test_formats_are_chosen(run_dir, flags):
    report.main([str(run_dir), *flags])
    assert figures_of(run_dir) == ["breakdown.csv", "breakdown.pdf", "breakdown.svg"]


def test_the_page_names_the_figures_beside_it(run_dir):
    page = write_report(run_dir, ["pdf"]).read_text(encoding="utf-8")
    assert "figures/breakdown.pdf" in page
    assert "figures/breakdown.csv" in page


def test_arguments_that_name_nothing_to_write(run_dir, tmp_path):
    table = tmp_path / "table.json"
    made_up_table(table, [load_space("mobilenet_v3_small").at([(0.35, 96)])])
    for arguments, message in (
        ([run_dir, table], r"run is a run and .*table\.json a latency table; compare runs, or two tables"),
        ([table], r"table\.json is a latency table; name a second one to compare it with"),
        ([table] * 3, "3 latency tables are named; compare two at a time"),
        ([table, table], "are the same table; name those of two devices or runtimes"),
        ([table, tmp_path / "none.json"], r"none\.json: no such file"),
        ([run_dir, run_dir], "are the same run; name each once"),
        ([run_dir, run_dir.parent / "run" / ".." / "run"], "are the same run"),
        ([run_dir, tmp_path / "none"], "none: no such folder; name the folder that a run of nas.search wrote"),
        ([run_dir / "run.json"], r"run\.json is the record of a run; name its folder, .*run"),
        ([run_dir / "large.json", table], "large.json"),
    ):
        with pytest.raises(NasError, match=message):
            write_asked(arguments, tmp_path / "out" if len(arguments) > 1 else None)
        assert not (tmp_path / "out").exists()


def test_the_report_of_one_run_has_no_other_folder(run_dir, tmp_path):
    with pytest.raises(NasError, match="--out names the folder of a comparison; the report of one run goes into"):
        write_asked([run_dir], tmp_path / "out")


def test_the_page_of_a_run_is_not_overwritten_by_a_comparison(run_dir, finished_run):
    with pytest.raises(NasError, match="holds a run, whose page would be overwritten; name another folder with --out"):
        write_asked([run_dir, finished_run], run_dir)


def test_a_run_of_another_version_is_refused_in_a_comparison(run_dir, finished_run, tmp_path):
    other = Path(shutil.copytree(finished_run, tmp_path / "older"))
    record = other / "run.json"
    text = record.read_text(encoding="utf-8")
    record.write_text(text.replace('"version": ', '"version": -', 1), encoding="utf-8")
    with pytest.raises(NasError, match=r"older.run\.json: its version is -\d+; an older program wrote it"):
        write_asked([run_dir, other], tmp_path / "out")
