import subprocess
import sys
from html.parser import HTMLParser

import pytest
from support.made_up_run import write_run

from nas.cli import report
from nas.errors import NasError
from nas.report.figures import diagram_figure, front_figure, table_figure
from nas.report.page import render_page
from nas.runs.reading import load_run

VOID = {"meta", "br", "img"}


class Structure(HTMLParser):
    """Fails on tags that do not match; collects texts and every address."""

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


def text_of(run_dir) -> str:
    return "".join(parsed(render_page(load_run(run_dir), {})).texts)


def test_command_draws_everything(run_dir, capsys):
    report.main([str(run_dir)])
    page = run_dir / "index.html"
    assert capsys.readouterr().out == f"{page}\n"
    names = ["breakdown", "front", "large", "latency_table", "small"]
    assert sorted(file.name for file in (run_dir / "figures").iterdir()) == [
        f"{name}.{kind}" for name in names for kind in ("png", "svg")
    ]
    structure = parsed(page.read_text())
    assert len(structure.addresses) == 5
    assert all(address.startswith("data:image/svg+xml;base64,") for address in structure.addresses)


def test_a_run_of_one_role_without_rows(tmp_path):
    run_dir = write_run(tmp_path / "run", {"small": 20.0}, trials=0)
    report.main([str(run_dir)])
    assert not (run_dir / "figures" / "large.svg").exists()
    assert "Found Small takes" in text_of(run_dir)
    assert "Found Large" not in text_of(run_dir)


def test_page_opens_with_the_result(finished_run):
    run = load_run(finished_run)
    text = text_of(finished_run)
    large, published = run.found("large"), run.networks[2]
    slack = 4 - large.measured_ms
    assert (
        f"Found Large takes {large.measured_ms:.2f} ms at an estimated {large.estimated_top1:.1f} ± 0.7 % top-1 on "
        f"ImageNet; MobileNetV3-Large takes {published.measured_ms:.2f} ms at {published.estimated_top1:.1f} ± 0.7 %, "
        f"estimated for the same training effort (published: 75.2 %). The budget of 4 ms is kept, with {slack:.2f} ms "
        f"({25 * slack:.1f} %) unused."
    ) in text
    assert "does not bind" not in text
    assert text.index("Found Large takes") < text.index("measured, ms") < text.index("How it was made")
    for word in ("imagenet-prior", "25 epochs of fine-tuning", "1@192, 1@224, 1.25@224", "torch 2.15.0", "table 41.2"):
        assert word in text


def test_page_tells_a_budget_that_does_not_bind(edit_run):
    assert "The budget does not bind" in text_of(edit_run(lambda data: data["roles"]["large"].update(binds=False)))


def test_page_does_not_hide_a_violated_budget(edit_run):
    text = text_of(edit_run(lambda data: data["networks"][1].update(measured_ms=1.5)))
    assert "Found Small takes 1.50 ms at an estimated" in text
    assert "That is 0.30 ms over the budget of 1.2 ms." in text


def test_arguments_that_were_not_given_are_left_out(edit_run):
    text = text_of(edit_run(lambda data: data["arguments"].update(width=[], only=None, resolution=[192, 224])))
    assert "budget ms 4, seed 0, resolution 192, 224" in text


def test_budgets_are_rounded(edit_run):
    text = text_of(edit_run(lambda data: data["roles"]["small"].update(budget_ms=1.8588235294117648)))
    assert "The budget of 1.86 ms is kept" in text
    assert "1.858" not in text


def test_table_compares_what_was_measured_together_and_folds_the_rest(finished_run):
    page = render_page(load_run(finished_run), {})
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
    text = text_of(edit_run(lambda data: data["networks"][1].update(extrapolated=True)))
    assert text.count("± 0.7*") == 2  # in the sentence and in the table
    assert "* Outside what the estimator was fitted to: its uncertainty is doubled there." in text


def test_nothing_is_folded_where_all_was_measured_together(edit_run):
    def shorten(data):
        data["networks"] = data["networks"][:4]

    assert "<details>" not in render_page(load_run(edit_run(shorten)), {})


def test_page_says_what_to_compare(finished_run):
    page = render_page(load_run(finished_run), {"front": "<svg/>"})
    text = "".join(parsed(page).texts)
    assert "Compare the stars with the grey dots, not with the diamonds: the diamonds' trainings differ" in text
    assert "Compare what was found with the others' estimates, not with what they published" in text


def test_page_tells_how_good_the_table_is(finished_run, edit_run):
    line = (
        "The latency table against 100 random networks, measured whole on 2026-01-01: mean error 1.9 %, 94 % of them "
        "within 5 % and 100 % within 10 %, Spearman's rank correlation 0.997."
    )
    assert line in text_of(finished_run)
    assert "Spearman" not in text_of(edit_run(lambda data: data["table"].update(fidelity=None)))


def test_every_text_of_the_run_is_escaped(edit_run):
    evil = "<script>alert('&amp;')</script>\"'"

    def poison(data):
        for key in ("command", "created", "finished"):
            data[key] = evil
        for key in ("arguments", "versions", "machine", "seconds"):
            data[key] = {evil: evil}
        for key in ("table", "estimator"):
            data[key].update({name: evil for name, value in data[key].items() if isinstance(value, str)})
        data["table"]["fidelity"] |= {"date": evil, evil: [evil]}
        for role in data["roles"].values():
            role.update(space=evil, binds=False)
        for network in data["networks"]:
            network["source"] = evil
        data["networks"][2].update(name=evil)

    page = render_page(load_run(edit_run(poison)), {})
    assert "<script" not in page
    assert parsed(page).texts.count(evil) >= 3


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
    figures = [front_figure(run), table_figure(run)]
    assert all(mark in figure.subtitle for figure in figures)
    assert "on that device" in figures[0].title
    assert "ms predicted" in diagram_figure(run, "large").subtitle
    page = render_page(run, {})
    assert mark in page.partition("<h1>")[2].partition("</h1>")[0]
    assert "<strong>Note:</strong> latencies are predicted, not measured." in page
    assert "&lt;int8&gt;" in page
    assert f"is predicted to take {run.found('large').predicted_ms:.2f} ms" in page
    assert "measured at another time" not in page
    assert "timed in the same rounds" not in page


def test_a_network_has_a_time(edit_run):
    def neither(run):
        run["networks"][0] |= {"measured_ms": None, "predicted_ms": None}

    with pytest.raises(NasError, match="number 1: predicted_ms"):
        load_run(edit_run(neither))
