import dataclasses
import json
import re
import subprocess
import sys
from html.parser import HTMLParser

import msgspec
from support.made_up_run import changed, write_run

from nas.report import __main__ as report
from nas.report.page import render_page
from nas.report.page.summary import results
from nas.report.plots.diagram import diagram_data
from nas.report.plots.front import front_data
from nas.report.plots.latency_table import table_data
from nas.report.texts import display_name
from nas.runs.reading import Run, load_run
from nas.runs.record import RunRecord, TargetResult
from nas.runs.target import Target

VOID = {"meta", "br", "input"}


class Structure(HTMLParser):
    """Collect the texts, the addresses, the tables and the data of a page, and fail on tags that do not match."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.addresses: list[str] = []
        self.scripts: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.addresses += [value for key, value in attrs if key in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("script", "style"):
            self.scripts.append(data)
        else:
            self.texts.append(data)

    @property
    def data(self):
        """The data that the page's scripts read."""
        return next(json.loads(script) for script in self.scripts if script.startswith("{"))


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
    return text_of(render_page(load_run(run_dir)))


def section(page: str, start: str, end: str) -> str:
    """Return the markup between two ids of a page, its scripts left out."""
    body = page.partition("<main>")[2].partition("</main>")[0]
    return re.split(f'id="(?:{start}|{end})"', body)[1]


def test_command_writes_the_page_and_names_it(run_dir, capsys):
    report.main([str(run_dir)])
    page = run_dir / "index.html"
    assert capsys.readouterr().out.splitlines()[-1] == str(page)
    structure = parsed(page.read_text(encoding="utf-8"))
    figures = sorted(file.name for file in (run_dir / "figures").iterdir())
    assert [name for name in structure.addresses if not name.startswith("#")] == [f"figures/{name}" for name in figures]
    assert "front.svg" in figures


def test_a_page_is_the_same_whenever_it_is_written(finished_run):
    assert render_page(load_run(finished_run)) == render_page(load_run(finished_run))


def test_a_run_of_one_target_without_rows(tmp_path):
    run_dir = write_run(tmp_path / "run", [Target("small", 20.0)], trials=0)
    report.main([str(run_dir)])
    assert not (run_dir / "figures" / "large.svg").exists()
    text = page_text(run_dir)
    assert "Found Small takes" in text
    assert "Found Large" not in text
    assert "0 networks of mobilenet_v3_small" in text


def test_page_opens_with_the_question_and_the_answer(finished_run):
    run = load_run(finished_run)
    text = page_text(finished_run)
    large, published = run.found("large"), run.record.networks[2]
    slack = 4 - large.measured_ms
    assert (
        "The most accurate Large network within 4 ms was asked for; 30 networks of mobilenet_v3_large, which spans "
        f"0.31 to 17.90 ms, were looked at. Found Large takes {large.measured_ms:.2f} ms at an estimated "
        f"{large.estimated_top1:.1f} ± 0.7 % top-1 on ImageNet, with {slack:.2f} ms ({25 * slack:.1f} %) of the budget "
        f"unused; MobileNetV3-Large takes {published.measured_ms:.2f} ms at {published.estimated_top1:.1f} ± 0.7 %, "
        "estimated for the same training recipe (published: 75.2 %)."
    ) in text
    assert "does not bind" not in text
    headings = ("Found Large takes", "top-1 % est.", "Accuracy against latency", "Where the milliseconds go")
    headings += ("The networks drawn", "Predicted against measured", "The search", "NetAdapt's trajectory")
    places = [
        text.index(heading, text.index("How to train it")) for heading in (*headings, "How it was made", "To go on")
    ]
    assert places == sorted(places)
    for word in ("imagenet-prior", "25 epochs of fine-tuning", "1@192, 1@224, 1.25@224", "torch 2.15.0", "table 41.2"):
        assert word in text


def test_page_says_where_another_skeleton_is_better(finished_run):
    page = render_page(load_run(finished_run))
    assert "Another skeleton is better here: within 4 ms Small reaches" in text_of(page)
    assert "<pre>uv run python -m nas.search --budget-ms 4 --only small</pre>" in page
    run = load_run(finished_run)
    alone = [one for one in run.optima if one.skeleton == "large" and one.latency_ms > 3.9]
    assert "Another skeleton" not in text_of(render_page(replaced(run, optima=tuple(alone))))


def replaced(run: Run, **fields) -> Run:
    """Return a run with fields of its own replaced."""
    return dataclasses.replace(run, **fields)


def test_page_tells_a_budget_that_does_not_bind(edit_run):
    assert "The budget does not bind" in page_text(edit_run(lambda data: data["targets"][0].update(binds=False)))


def test_page_does_not_hide_a_violated_budget(edit_run):
    text = page_text(edit_run(lambda data: data["networks"][1].update(measured_ms=1.5)))
    assert "Found Small takes 1.50 ms at an estimated" in text
    assert ", 0.30 ms over the budget of 1.2 ms" in text


def test_arguments_that_were_not_given_are_left_out(edit_run):
    text = page_text(edit_run(lambda data: data["arguments"].update(width=[], only=None, resolution=[192, 224])))
    assert "budget ms 4, seed 0, resolution 192, 224" in text


def test_budgets_are_rounded(edit_run):
    text = page_text(edit_run(lambda data: data["targets"][1]["target"].update(budget_ms=1.8588235294117648)))
    assert "within 1.86 ms was asked for" in text
    assert "1.858" not in text


def rows_of(page: str, table: str) -> list[str]:
    """Return the texts of the rows of the first table of that class."""
    body = page.partition(f'<table class="{table}">')[2].partition("</table>")[0].partition("<tbody>")[2]
    return [" ".join(re.sub("<[^>]*>", " ", row).split()) for row in body.split("</tr>")[:-1]]


def test_table_holds_what_was_measured_together_and_the_details_hold_all(finished_run):
    page = render_page(load_run(finished_run))
    main, details = rows_of(page, "main"), rows_of(page, "compact")
    run = load_run(finished_run)
    rivals = [display_name(run, one.rival) for one in results(run) if one.rival]
    names = ["found Large", "found Small", "MobileNetV3-Small", "MobileNetV3-Large", "OFA cpu 15ms", *rivals]
    assert sorted(next(name for name in names if row.startswith(name)) for row in main) == sorted(set(names))
    assert [row.startswith("found") for row in main] == [True, True, *(False for _ in main[2:])]
    assert f"All {len(details)} networks" in text_of(page)
    assert any(row.startswith("HardCoRe-NAS A") for row in details)
    assert all(any(row.startswith(name) for row in details) for name in names)
    assert "* Outside" not in page


def test_a_published_network_that_is_better_within_the_budget_is_named(edit_run):
    def better(data):
        network = next(network for network in data["networks"] if network["name"] == "mobilenet_v3_small")
        network["estimated_top1"], network["measured_ms"] = 90.0, 1.19
        twin = next(network for network in data["networks"] if network["name"] == "mobilenet_v2")
        twin["estimated_top1"], twin["measured_ms"] = 95.0, 1.21  # over the budget of Small

    run = load_run(edit_run(better))
    of_large, of_small = results(run)
    assert (of_large.rival_name, of_small.rival_name) == ("MobileNetV2", "MobileNetV3-Small")
    text = text_of(render_page(run))
    assert "A published network is estimated better here: MobileNetV3-Small, with 90.0 ± 0.7 % at 1.19 ms." in text


def test_page_says_what_other_trainings_would_reach(finished_run):
    page = render_page(load_run(finished_run))
    large, small = (load_run(finished_run).found(name).recipe_levels for name in ("large", "small"))
    plain, long, taught = rows_of(page, "trainings")
    assert plain.startswith("trained by the recipe plain (this run's estimates) 2 published networks – –")
    assert long.startswith(
        "a long training epochs: 600; teacher: none; arXiv 0000.00001; 3 published networks 600 none"
    )
    assert "75, after the teacher&#39;s a large network" in taught
    assert taught.endswith(f"{large[3].top1:.1f} ± 0.7 {small[3].top1:.1f} ± 0.7")
    body = page.partition('id="trainings"')[2].partition('id="nearest"')[0]
    assert "All 4 trainings that the estimator knows" in body
    assert [row.split()[0] for row in rows_of(body, "compact")] == ["short", "plain", "long", "taught"]


def test_page_names_the_nearest_published_networks(finished_run):
    page = render_page(load_run(finished_run))
    body = page.partition('id="nearest"')[2].partition('id="front"')[0]
    assert body.count("<summary>Near found") == 2
    first, second, third = rows_of(body, "trainings")
    published = load_run(finished_run).found("large").nearest[0].published_top1
    assert first == (
        "MobileNetV3-Large ×0.75 224 px, unheard of · found Large against it: −0.12 ± 0.25 "
        f"{published:.1f} {published + 0.25:.2f} −0.25 −0.50 −0.12 ± 0.25"
    )
    assert second.startswith("OFA cpu 15ms 224 px, trained by the recipe taught")
    assert third.startswith("HardCoRe-NAS A")


def test_a_run_on_another_estimator_speaks_of_no_trainings(edit_run):
    def forget(data):
        for network in data["networks"]:
            network.update(recipe_levels=[], nearest=[])

    page = render_page(load_run(edit_run(forget)))
    for text in ('id="trainings"', 'href="#trainings"', 'id="nearest"', "Near found"):
        assert text not in page
    assert 'id="front"' in page


def test_the_page_says_how_far_predictions_were_off(finished_run):
    run = load_run(finished_run)
    off = 100 * (run.measured.predicted_ms / run.measured.measured_ms - 1).abs()
    assert f"what the others predict is within {off.median():.1f} %, for nine of ten" in text_of(render_page(run))
    few = dataclasses.replace(run, measured=run.measured[:4])
    assert "How sure:" not in text_of(render_page(few))


def test_a_network_of_several_names_stands_in_the_table_once(edit_run):
    def repeat(data):
        twin = next(network for network in data["networks"] if network["name"] == "mobilenet_v3_large")
        for name, top1 in (("tf_large", 75.5), ("lcnet", None)):
            data["networks"].append(twin | {"name": name, "published_top1": top1})

    page = render_page(load_run(edit_run(repeat)))
    for table in ("main", "compact"):
        (row,) = [row for row in rows_of(page, table) if "MobileNetV3-Large" in row]
        assert row.startswith("MobileNetV3-Large also tf_large (75.5 % published), lcnet 224")
        assert not any(row.startswith(("tf_large", "lcnet")) for row in rows_of(page, table))
    names = [network["name"] for network in parsed(page).data["front"]["networks"]]
    assert "tf_large" not in names
    assert len(names) == len(rows_of(page, "compact"))


def test_extrapolated_estimates_are_starred(edit_run):
    text = page_text(edit_run(lambda data: data["networks"][1].update(extrapolated=True)))
    assert text.count("± 0.7*") == 3  # in the sentence and in both tables
    assert "* Outside the networks that the estimator was fitted to: its uncertainty is doubled there." in text


def test_page_says_what_to_compare(finished_run):
    text = page_text(finished_run)
    assert "compare stars and lines with the grey dots" in text
    assert "Compare the networks found with the others' estimates, not with their published accuracies" in text
    assert (
        "Estimated top-1 comes from imagenet-prior and speaks for one training recipe: as Once-for-All trains, "
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

    page = render_page(load_run(edit_run(poison)))
    structure = parsed(page)
    assert "".join(structure.texts).count(evil) >= 20
    assert "alert(" not in "".join(script for script in structure.scripts if not script.startswith("{"))
    assert page.count("<script>alert") == 0
    assert evil in [network["name"] for network in structure.data["front"]["networks"]]


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
    page = render_page(run)
    assert mark in page.partition("<h1>")[2].partition("</h1>")[0]
    assert "<strong>Note:</strong> latencies are predicted, not measured." in page
    assert "&lt;int8&gt;" in page
    assert f"is predicted to take {run.found('large').predicted_ms:.2f} ms" in text_of(page)
    assert "† Predicted by a table of another device (Example CPU 3.0): nothing was measured here." in text_of(page)
    assert "the whole network, measured on" not in text_of(page)


def test_page_tells_how_the_run_was_made(finished_run):
    run = load_run(finished_run)
    run = changed(run, arguments={"budget_ms": 4.0, "widths": [0.75, 1.0], "data": None, "resume": False})
    table = section(render_page(run), "made", "next")
    headings = re.findall('<tr><th scope="row">(.*?)</th><td>(.*?)</td></tr>', table)
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
    assert "fvcore counts 7,000 on the built network" in render_page(changed(run, networks=tuple(networks)))


def test_several_budgets_of_a_skeleton_have_names_of_their_own(tmp_path):
    targets = [Target("large", budget_ms, one_of_several=True) for budget_ms in (3, 4)]
    run_dir = write_run(tmp_path / "run", targets)
    text = page_text(run_dir)
    assert "Found Large at 3 ms takes" in text
    assert "Found Large at 4 ms takes" in text
    assert f"python -m nas.train {run_dir / 'large_3ms.json'}" in text
    assert "search for Large at 4 ms" in text


def test_page_ends_with_the_commands_to_go_on(finished_run):
    page = render_page(load_run(finished_run))
    commands = re.findall("<pre>(.*?)</pre>", page.partition('id="next"')[2])
    assert commands == [
        f"uv run python -m nas.train {finished_run / 'large.json'}",
        f"uv run python -m nas.export {finished_run / 'large.json'}",
        f"uv run python -m nas.train {finished_run / 'small.json'}",
        f"uv run python -m nas.export {finished_run / 'small.json'}",
        "uv run python -m nas.playground --table latency_tables/example-onnxruntime-t1.json "
        f"--spec {finished_run} --open",
        "uv run python -m nas.measure --check",
        f"uv run python -m nas.report {finished_run}",
    ]


def test_page_tells_what_a_choice_is_worth_or_who_answers(finished_run):
    text = page_text(finished_run)
    assert "What a choice is worth The difference that one changed choice of one block makes" in text
    assert "and says how sure a difference is: uv run python -m nas.play" in text
    run = load_run(finished_run)
    bare = replaced(run, table_rows=run.table_rows[:0], trials=run.trials[:0])
    assert "In found Large The run holds no row with one choice of a block changed." in text_of(render_page(bare))


def test_page_of_many_budgets_is_folded(tmp_path):
    targets = [Target("large", budget_ms, one_of_several=True) for budget_ms in (2.0, 3.0, 4.0, 5.0, 6.0)]
    page = render_page(load_run(write_run(tmp_path / "run", targets)))
    assert "<summary>What was asked and found, budget by budget</summary>" in page
    assert "<details open>" not in page
