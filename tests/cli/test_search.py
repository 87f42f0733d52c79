"""The command from its arguments to its last line, on a machine that is known."""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support import synthetic
from support.pictures import save_images
from support.synthetic import Machine

from nas.arch.loading import load_spec
from nas.latency.table import LatencyTable
from nas.runs.folder import RunFolder
from nas.runs.record import load_record
from nas.runs.target import Target
from nas.search import __main__ as search
from nas.search.request import SearchRequest, targets_of


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    synthetic.empty_folder(monkeypatch, tmp_path)
    return synthetic.install(monkeypatch)


@pytest.fixture
def searched(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command without drawing its report; what it prints."""
    monkeypatch.setattr("nas.report.writing.write_report", lambda path: path / "index.html")

    def call(*arguments: str) -> str:
        few = ["--large-space", "few.py", "--small-space", "few.py", "--runtime", "synthetic", "--trials", "4"]
        search.main([*few, *arguments])
        printed = capsys.readouterr()
        assert printed.err == ""
        return printed.out

    return call


def test_a_search_ends_with_what_was_found_and_where_it_lies(searched: Callable[..., str]) -> None:
    out = searched("--budget-ms", "0.6", "--small-budget-ms", "0.4", "--out", "runs/one")
    lines = out.splitlines()
    record = load_record(Path("runs/one"))
    for network in record.networks:
        shown = [line for line in lines if re.match(rf"\s*{network.name}\s", line)]
        assert len(shown) == (network.raw_ms is not None)
        if shown:
            assert f"{network.measured_ms:.2f}" in shown[0]
            assert f"{network.estimated_top1:.1f}" in shown[0]
    assert any(line.startswith("large: 0.") and "of 0.6 ms" in line for line in lines)
    assert any(line.startswith("small: 0.") and "of 0.4 ms" in line for line in lines)
    for result in record.targets:
        (line,) = (line for line in lines if line.startswith(f"{result.target.name}: proven optimum of the model"))
        assert f"{result.optimum.best.top1:.3f} %" in line
        assert re.search(r"best of \d+ trials of tpe: \d\d\.\d+ %, \d\.\d+ below", line)
        (line,) = (line for line in lines if line.startswith(f"{result.target.name}: nearest published"))
        for near in next(network.nearest for network in record.networks if network.target == result.target.name):
            figures = f"{near.published_top1:.1f} % ({near.left_out_top1:.1f}, {near.recipe_level})"
            assert f"{near.name} at {near.resolution} px {figures}" in line
    large, small = (network.recipe_levels for network in record.networks if network.found)
    for level in large:
        estimates = [level, *(other for other in small if other.recipe_level == level.recipe_level)]
        cells = r"\s+".join(re.escape(f"{one.top1:.1f} ± {one.std:.1f}") for one in estimates)
        assert bool(re.search(cells, out)) >= bool(level.title)
    assert re.search(r"top-1 % est\. by training +epochs +found large +found small", out)
    assert "specs:  runs/one/large.json runs/one/small.json" in lines
    assert f"report: {Path('runs/one/index.html')}" in lines
    assert "train:  python -m nas.train runs/one/small.json" in lines
    assert all(load_spec(f"runs/one/{target}.json").blocks for target in ("large", "small"))
    assert record.command.startswith("python -m nas.search")


def test_another_skeleton_that_is_better_is_named_with_its_command(
    searched: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    few = Path("few.py").read_text(encoding="utf-8")
    poor = few.replace('name="few"', 'name="poor"').replace("widths=(0.75, 1.0)", "widths=(0.75,)")
    Path("poor.py").write_text(poor.replace("kernels=(3, 5)", "kernels=(3,)"), encoding="utf-8")
    given = ["--small-space", "poor.py", "--budget-ms", "0.7", "--small-budget-ms", "0.6", "--out", "run"]
    monkeypatch.setattr("sys.argv", ["nas.search", *given])
    lines = searched(*given).splitlines()
    (line,) = (line for line in lines if "to search there" in line)
    assert re.match(
        r"small: within 0.6 ms Large reaches \d\d\.\d % estimated at 0\.\d\d ms predicted, Small found", line
    )
    assert line.endswith(": python -m nas.search --small-space poor.py --budget-ms 0.6 --only large")


def test_the_report_is_drawn(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The real report reads the run that a search leaves."""
    few = ["--large-space", "few.py", "--runtime", "synthetic", "--trials", "4", "--only", "large"]
    search.main([*few, "--budget-ms", "0.6", "--out", "run"])
    page = Path("run/index.html").read_text(encoding="utf-8")
    assert "<html" in page
    assert list(Path("run/figures").glob("*.png"))
    assert "report: run/index.html" in capsys.readouterr().out


def test_what_is_predicted_only_is_shown_as_such(searched: Callable[..., str]) -> None:
    searched("--budget-ms", "0.6", "--only", "large", "--out", "there")
    (file,) = Path("latency_tables").iterdir()
    table = LatencyTable.load(file)
    dataclasses.replace(table, device=dataclasses.replace(table.device, cpu="Another CPU")).save("other.json")
    elsewhere = ("--budget-ms", "0.6", "--only", "large", "--table", "other.json", "--allow-other-device")
    lines = searched(*elsewhere, "--out", "here").splitlines()
    assert "ms: predicted, not measured, for Another CPU, synthetic 1.0, normalised" in lines
    assert any(line.startswith("note: latencies are predicted, not measured") for line in lines)
    shown = [
        name
        for name in ("found large", "mobilenet_v3_large", "mobilenet_v3_small", "ofa_")
        if any(re.match(rf"\s*{name}", line) for line in lines)
    ]
    assert shown == ["found large", "mobilenet_v3_large", "mobilenet_v3_small"]
    assert any(re.match(r"large: 0\.5\d of 0\.6 ms", line) for line in lines)


def test_folders_are_named_after_the_budget_and_never_taken_twice(searched: Callable[..., str]) -> None:
    for name in ("0.6ms", "0.6ms-2"):
        assert f"report: reports/{name}/index.html" in searched("--budget-ms", "0.6", "--only", "large")
    before = Path("reports/0.6ms-2/trials.csv").read_bytes()
    assert "report: reports/0.6ms-2/" in searched("--budget-ms", "0.6", "--only", "large", "--resume")
    assert Path("reports/0.6ms-2/trials.csv").read_bytes() == before
    assert not Path("reports/0.6ms-3").exists()


def test_every_argument_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, ...]] = []

    def stop(request: SearchRequest, out: Path, *, resume: bool, console: object) -> RunFolder:
        seen.append((request, out, resume))
        raise KeyboardInterrupt

    monkeypatch.setattr("nas.search.run.search", stop)
    arguments = (
        "--budget-ms 7.5 --small-budget-ms 2.5 --only small --large-space a --small-space b --widths 0.5 1 "
        "--resolutions 96 128 --table t.json --runtime r --threads 3 --precision p --allow-other-device "
        "--loaders 0 --minutes 4.5 --teacher t.pt --train-finalists 0 --estimator e --recipe-level l "
        "--strategy s --trials 9 "
        "--objective mnasnet --reward-w -0.15 "
        "--workers 3 --storage sqlite:///x.db --study y "
        "--max-params 3.5M --max-memory-mb 20.5 "
        "--seed 3 --out o --resume"
    )
    for text in (arguments, "--budget-ms 20"):
        with pytest.raises(KeyboardInterrupt):
            search.main(text.split())
    assert seen[0] == (
        SearchRequest(
            targets=targets_of((7.5,), 2.5, "small"),
            large_space="a",
            small_space="b",
            widths=(0.5, 1.0),
            resolutions=(96, 128),
            table="t.json",
            runtime="r",
            threads=3,
            precision="p",
            allow_other_device=True,
            loaders=0,
            minutes=4.5,
            teacher="t.pt",
            finalists=0,
            estimator="e",
            recipe_level="l",
            strategy="s",
            trials=9,
            objective="mnasnet",
            reward_w=-0.15,
            workers=3,
            storage="sqlite:///x.db",
            study="y",
            max_params=3_500_000,
            max_memory_mb=20.5,
            seed=3,
        ),
        Path("o"),
        True,
    )
    assert seen[1] == (SearchRequest(targets=targets_of((20.0,))), Path("reports/20ms"), False), "defaults differ"


def test_a_budget_that_does_not_bind_is_reported(searched: Callable[..., str]) -> None:
    out = searched("--budget-ms", "99", "--only", "large")
    assert re.search(r"large: \d.* of 99 ms; the budget does not bind", out)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[Any, str]]:
    """Runs the command up to its search; the request and what was printed."""

    def call(*arguments: str) -> tuple[Any, str]:
        seen = []

        def stop(request: SearchRequest, *others: object, **more: object) -> RunFolder:
            seen.append(request)
            raise KeyboardInterrupt

        monkeypatch.setattr("nas.search.run.search", stop)
        with pytest.raises(KeyboardInterrupt):
            search.main(list(arguments))
        return seen[0], capsys.readouterr().out

    return call


IMAGES = "mobilenet_v3_small_images"


def test_small_images_have_a_space_of_their_own(asked: Callable[..., tuple[Any, str]]) -> None:
    request, printed = asked("--budget-ms", "1", "--data", "fashion-mnist-sample")
    assert printed.startswith(f"small images, 28 px: searching {IMAGES}, as Small alone")
    assert printed.count("\n") == 1
    assert request.images_side == 28
    assert request.targets == (Target("small", 1.0),)
    assert request.space("small").name == IMAGES
    assert {variant.resolution for variant in request.space("small").variants} == {32}
    request.check()
    request, _ = asked("--front", "--data", "fashion-mnist-sample")
    assert request.skeletons == ("small",)
    for given, skeletons in ((["--only", "large"], ("large",)), (["--small-budget-ms", "0.5"], ("large", "small"))):
        request, _ = asked("--budget-ms", "1", "--data", "fashion-mnist-sample", *given)
        assert request.skeletons == skeletons
        assert {request.space(skeleton).name for skeleton in skeletons} == {IMAGES}


def test_spaces_that_are_named_are_taken_for_small_images_too(asked: Callable[..., tuple[Any, str]]) -> None:
    request, printed = asked("--budget-ms", "1", "--data", "fashion-mnist-sample", "--small-space", IMAGES)
    assert printed == ""
    assert (request.large_space, request.small_space) == ("mobilenet_v3_large", IMAGES)
    variants = {skeleton: request.space(skeleton).variants[0] for skeleton in ("large", "small")}
    assert variants == {"large": (0.35, 224), "small": (0.35, 32)}


def test_the_space_for_small_images_is_recommended_where_others_are_named(
    asked: Callable[..., tuple[Any, str]],
) -> None:
    named = ("--budget-ms", "1", "--data", "fashion-mnist-sample", "--large-space", "mobilenet_v3_small")
    request, printed = asked(*named)
    assert printed.startswith(f"note: {IMAGES} is made for images of 28 px;")
    assert printed.count("\n") == 1
    assert (request.large_space, request.small_space) == ("mobilenet_v3_small", "mobilenet_v3_small")
    assert asked(*named, "--resolutions", "160")[1] == ""


@pytest.mark.parametrize(
    ("side", "resolutions", "resolution"),
    [
        (40, [], 48),
        (96, [], 96),
        (97, [], None),
        (40, ["--resolutions", "64"], 64),
        (40, ["--resolutions", "160"], None),
        (200, ["--resolutions", "64"], 64),
    ],
)
def test_small_is_what_the_images_are_or_what_is_asked_for(
    asked: Callable[..., tuple[Any, str]], side: int, resolutions: list[str], resolution: int | None
) -> None:
    for part in ("train", "val"):
        save_images(Path("images") / part / "cat", 2, 0, size=(side, side + 10))
    request, printed = asked("--budget-ms", "1", "--data", "imagefolder:images", *resolutions)
    assert (request.small_space, bool(printed)) == (IMAGES if resolution else "mobilenet_v3_small", bool(resolution))
    if resolution:
        assert {variant.resolution for variant in request.space("small").variants} == {resolution}
