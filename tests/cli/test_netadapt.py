"""The command on a synthetic machine: where it ends, the files that it leaves, and how it resumes."""

import csv
import dataclasses
import itertools
import json
import os
import re
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support import synthetic
from support.synthetic import Machine, network_ms

from nas import export, predict, train
from nas.arch.cost import count_cost
from nas.arch.parts import NetworkPart
from nas.arch.published import published_spec
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec, load_results
from nas.errors import NasError
from nas.latency.landmarks import landmarks
from nas.latency.predictor import LatencyPredictor
from nas.latency.table import LatencyTable
from nas.models.mobilenet import build_model
from nas.netadapt import __main__ as netadapt
from nas.netadapt import evaluators, learning
from nas.netadapt import run as netadapt_run
from nas.netadapt.evaluators import SupernetEvaluator
from nas.netadapt.latency_learning import NETWORKS
from nas.netadapt.long_training import recipe_of
from nas.netadapt.request import NetAdaptRequest
from nas.netadapt.seed import Seed
from nas.netadapt.trimming import Trimming
from nas.runs.folder import RunFolder
from nas.runs.record import load_record
from nas.training import held_out, recipes
from nas.training.checkpoint import load_checkpoint, load_model, save_checkpoint
from nas.training.data import EMBEDDED, load_data
from nas.training.images import Data
from nas.training.loop import Training
from nas.training.tensor_images import TensorImages

SPEC = ArchSpec(
    name="chain",
    resolution=96,
    stem=StemSpec(out=16),
    blocks=(
        BlockSpec(op="sepconv", kernel=3, expanded=16, out=16),
        BlockSpec(kernel=3, expanded=72, out=24, stride=2),
        BlockSpec(kernel=5, expanded=96, out=24, se=24, activation="hswish"),
        BlockSpec(kernel=3, expanded=96, out=40, stride=2),
    ),
    head=HeadSpec(conv=64, hidden=32),
)
RECIPES = Path(recipes.__path__[0])
ON_IMAGES = SPEC.replace(resolution=32)
Call = Callable[..., str]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    synthetic.empty_folder(monkeypatch, tmp_path)
    SPEC.save("chain.json")
    monkeypatch.setattr("nas.training.side_by_side.usable_cores", lambda: 1)  # processes start slowly
    return synthetic.install(monkeypatch)


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    """Return a function that runs the command and returns its output."""

    def called(*arguments: str, share: float = 0.8, network: str = "chain.json") -> str:
        full_ms = full(network) if "--data" not in arguments else network_ms(ON_IMAGES, 10)
        budget = ["--budget-ms", str(share * full_ms), "--runtime", "synthetic"]
        netadapt.main([network, *budget, *arguments])
        return capsys.readouterr().out

    return called


def full(network: str) -> float:
    return network_ms(SPEC if network.startswith("chain") else published_spec(network))


def rows(folder: str) -> list[dict[str, str]]:
    with Path(folder, "steps.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def logged_ids(folder: str) -> list[str]:
    """Return the ids of the networks in the log of a run."""
    run = RunFolder.resume(Path(folder), load_record(Path(folder)).arguments)
    ids = [logged.trial.spec.id for logged in run.trials("netadapt")]
    run.close()
    return ids


def step_files(folder: str) -> dict[str, Any]:
    return {path.name: json.loads(path.read_text()) for path in sorted(Path(folder, "steps").glob("*.json"))}


def made_checkpoint() -> None:
    torch.manual_seed(0)
    model = build_model(SPEC, 10)
    classes = list(load_data(EMBEDDED).classes)
    contents = {"spec": ON_IMAGES.to_dict(), "classes": classes, "resolution": 32}
    save_checkpoint("chain.pt", {**contents, "average": model.state_dict()})


ON_DATA = ("--data", EMBEDDED, "--shared-steps", "2", "--step", "0.03")
TRAINED = (*ON_DATA, "--out", "run")


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Train and evaluate on few images, so that neither a training nor a proposal takes long."""
    whole = load_data(EMBEDDED)
    train, val = (
        TensorImages(part.images[:count], part.labels[:count]) for part, count in ((whole.train, 600), (whole.val, 200))
    )
    few = Data(whole.source, whole.classes, train, val)
    monkeypatch.setattr("nas.training.data.load_data", lambda source, data_dir, loaders=None: few)
    monkeypatch.setattr(held_out, "HELD_OUT_IMAGES", 200)
    monkeypatch.setattr(learning, "CALIBRATION_IMAGES", 128)
    monkeypatch.setattr(learning, "LEAST_JUDGED", 8)
    monkeypatch.setattr(learning, "JUDGED_PER_PLACE", 1)
    monkeypatch.setattr(evaluators, "recipe_of", lambda request: recipe_of(request).replace(batch_size=32))
    learning.split_data.cache_clear()
    yield
    learning.split_data.cache_clear()


# The files of a run -----------------------------------------------------------------------------------


def test_a_run_by_the_prior(call: Call) -> None:
    out = call("--out", "run", "--measure-every", "2")
    budget_ms = 0.8 * network_ms(SPEC)
    final, results = ArchSpec.load("run/final.json"), load_results("run/final.json")
    assert network_ms(final) <= budget_ms
    assert results["measured_ms"] == pytest.approx(network_ms(final), rel=1e-3)
    table = rows("run")
    assert [int(row["step"]) for row in table] == list(range(len(table)))
    assert len(table) > 5
    assert table[0]["cut"] == ""
    assert table[1]["cut"] == "wider and faster: block 2: expanded 72 to 80"
    for before, after in itertools.pairwise(table):
        learned = 1e-3 if before["measured_ms"] else 1e-12  # by the table, from the measurement of that step
        assert float(after["before_ms"]) == pytest.approx(float(before["predicted_ms"]), rel=learned)
        assert float(after["predicted_ms"]) < float(before["predicted_ms"])
        assert float(after["accuracy_before"]) == pytest.approx(float(before["accuracy"]))
        assert f"  {after['cut']}" in out
    for row in table[:-1]:
        assert bool(row["measured_ms"]) == (int(row["step"]) % 2 == 0)
        if row["measured_ms"]:
            assert float(row["measured_ms"]) == pytest.approx(float(row["predicted_ms"]), rel=0.01)
    family = json.loads(Path("run/trajectory.json").read_text())["networks"]
    specs = [ArchSpec.from_dict(network["spec"]) for network in family]
    assert [spec.id for spec in specs] == [row["spec_id"] for row in table]
    assert (specs[0], specs[-1]) == (SPEC, final)
    assert logged_ids("run") == [row["spec_id"] for row in table]
    record = load_record(Path("run"))
    assert "python -m nas.netadapt" in record.command
    assert record.finished


def test_a_network_that_the_prior_cannot_judge_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    out = tmp_path / "run"
    with pytest.raises(NasError, match=r"mobilenetv4_conv_small: imagenet-prior has no estimate of it, .* --data$"):
        netadapt.main(["mobilenetv4_conv_small", "--budget-ms", "1", "--out", str(out)])
    assert not out.exists()


def test_measurements_above_predictions_lower_the_limit_of_predictions(call: Call, machine: Machine) -> None:
    reference = published_spec("mobilenet_v3_large").id
    machine.whole = lambda spec: 1.0 if spec.id == reference else 1.1
    call("--out", "run")
    final = ArchSpec.load("run/final.json")
    assert 0.9 * 0.8 * network_ms(SPEC) < 1.1 * network_ms(final) <= 0.8 * network_ms(SPEC)


def test_a_seed_that_fits_is_copied(call: Call, machine: Machine) -> None:
    out = call("--out", "run", share=1.1)
    known = {NetworkPart(spec).key for spec in (SPEC, published_spec("mobilenet_v3_large"), *landmarks())}
    assert {name for name in machine.ran if name.startswith("network")} == known, "no random cuts are measured"
    assert "chain fits the budget of" in out
    assert ArchSpec.load("run/final.json") == SPEC
    assert len(rows("run")) == 1


def test_weights_go_along(call: Call) -> None:
    torch.manual_seed(0)
    model = build_model(SPEC, 1000)
    torch.save(model.state_dict(), "weights.pth")
    call("--weights", "weights.pth", "--out", "run")
    trimmed = load_model("run/final.pt")
    assert trimmed.spec == ArchSpec.load("run/final.json")
    assert torch.equal(trimmed.features[0][0].weight, model.features[0][0].weight)


def test_torchvisions_weights_from_a_file(call: Call) -> None:
    from torchvision.models import mobilenet_v3_small

    torch.manual_seed(0)
    torch.save(mobilenet_v3_small().state_dict(), "small.pth")
    call("--weights", "small.pth", "--out", "run", network="mobilenet_v3_small", share=0.97)
    assert load_model("run/final.pt").spec == ArchSpec.load("run/final.json")
    assert len(rows("run")) > 1


def test_a_run_on_images(call: Call, few_images: None) -> None:
    made_checkpoint()
    out = call(*TRAINED, network="chain.pt", share=0.9)
    assert "accuracy: 2 steps of random cuts on fashion-mnist-sample" in out
    final = ArchSpec.load("run/final.json")
    assert network_ms(final, 10) <= 0.9 * network_ms(ON_IMAGES, 10)
    assert LatencyTable.load(next(Path("latency_tables").glob("*-n10.json"))).num_classes == 10
    table = rows("run")
    for number, row in enumerate(table):
        model = load_model(f"run/steps/{number:04}.pt")
        assert model.spec.id == row["spec_id"]
        assert 0 < float(row["top1"]) < 100
    for before, after in itertools.pairwise(table):  # in one measure: the evaluated accuracy, not the estimated one
        assert after["accuracy_before"] == before["accuracy"]
    places = [row["cut"].partition(" to ")[0] for row in table[2:]]
    assert len(set(places)) > 1


def test_a_seed_without_weights_is_trained_first_and_the_final_network_at_last(call: Call, few_images: None) -> None:
    training = ("--epochs", "1", "--finish", "fine-tune")
    out = call(*TRAINED, *training, share=0.95)
    assert "chain has no weights: training it for 1 epoch, into run/seed" in out
    assert load_model("run/seed/best.pt").spec == ON_IMAGES
    assert load_model("run/fine-tune/best.pt").spec.id == ArchSpec.load("run/final.json").id


def test_weights_for_other_classes_are_trained_on_those_of_the_images_first(call: Call, few_images: None) -> None:
    """With an untrained classifier the first cuts would be chosen by chance."""
    torch.manual_seed(0)
    torch.save(build_model(SPEC, 1000).state_dict(), "weights.pth")
    out = call(*TRAINED, "--weights", "weights.pth", "--epochs", "1", share=0.95)
    assert "chain has weights for other classes than those of fashion-mnist-sample: training it for 1 epoch," in out
    trained = load_checkpoint("run/seed/best.pt")
    assert (trained["init"], len(trained["classes"])) == ("run/seed/first.pt", 10)
    first = load_model("run/steps/0000.pt")
    assert torch.equal(first.classifier[3].weight, load_model("run/seed/best.pt").classifier[3].weight)


def test_weights_bring_their_classes_along(call: Call) -> None:
    """The latency is that of a network with as many classes, and its weights name them."""
    made_checkpoint()
    call("--weights", "chain.pt", "--out", "run", share=0.97)
    names = list(load_data(EMBEDDED).classes)
    assert load_checkpoint("run/final.pt")["classes"] == names
    assert LatencyTable.load(next(Path("latency_tables").iterdir())).num_classes == 10
    torch.save(build_model(SPEC, 7).state_dict(), "seven.pth")
    call("--weights", "seven.pth", "--out", "seven", share=0.97)
    assert load_checkpoint("seven/final.pt")["classes"] == list("0123456")


def test_a_folder_named_as_a_published_network_does_not_hide_it(call: Call) -> None:
    Path("mobilenet_v3_small").mkdir()
    call("--out", "run", network="mobilenet_v3_small", share=0.97)
    assert ArchSpec.load("run/final.json").name == "mobilenet_v3_small"


# Handed on --------------------------------------------------------------------------------------------


@pytest.fixture
def picture() -> str:
    Image.fromarray(np.arange(28 * 28, dtype=np.uint8).reshape(28, 28)).save("picture.png")
    return "picture.png"


@pytest.mark.parametrize("name", ["run", "run/final.json", "run/final.pt"])
def test_what_a_run_on_images_leaves_goes_into_the_next_command(
    call: Call, few_images: None, picture: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    made_checkpoint()
    call(*TRAINED, network="chain.pt", share=0.97)
    export.main([name])
    files = {path.name for path in Path("run").iterdir()}
    assert files > {"model.onnx", "model.int8.onnx", "model.md"}
    assert "the weights as NetAdapt left them" in Path("run/model.md").read_text()
    capsys.readouterr()
    for model in (name, "run/model.onnx"):
        predict.main([model, picture])
    by_checkpoint, by_onnx = capsys.readouterr().out.splitlines()
    assert by_checkpoint == by_onnx
    train.main(["run/final.json", "--init", name, "--epochs", "1", "--out", "trained"])
    assert re.search(r"took the weights of (\d+) of \1 layers\n", capsys.readouterr().out)
    export.main(["trained"])
    predict.main(["trained", picture])


def test_a_network_trimmed_without_images_says_which_training_comes_first(
    call: Call, few_images: None, picture: str, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(build_model(SPEC, 1000).state_dict(), "weights.pth")
    call("--weights", "weights.pth", "--out", "run", share=0.97)
    predict.main(["run", picture])
    assert capsys.readouterr().out.startswith("picture.png: ")
    with pytest.raises(NasError, match=r"run/final\.pt: does not say on which images it was trained") as error:
        export.main(["run"])
    assert not Path("run/model.onnx").exists()
    (advice,) = re.findall(r"`python -m nas\.train (.*?)`", str(error.value))
    train.main([*advice.split(), "--epochs", "1", "--out", "trained"])
    assert "new are classifier.3" in capsys.readouterr().out
    export.main(["trained"])


# Stopped and resumed ----------------------------------------------------------------------------------


def killed(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, after: int, work: Callable[[], Any]) -> None:
    """Run `work` in a process that is killed in the call number `after` (from 0) of `where.name`, by SIGKILL."""
    child = os.fork()
    if child:
        _, status = os.waitpid(child, 0)
        assert os.WTERMSIG(status) == signal.SIGKILL
        return
    try:
        calls, real = iter(range(after, -1, -1)), getattr(where, name)

        def dies(*arguments: Any, **options: Any) -> Any:
            if not next(calls):
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments, **options)

        monkeypatch.setattr(where, name, dies)
        work()
    finally:
        os._exit(1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("name", "after"), [("_add", 2), ("_log", 2), ("_log", 0), ("_add", 4)])
def test_a_killed_run_goes_the_same_way(call: Call, monkeypatch: pytest.MonkeyPatch, name: str, after: int) -> None:
    call("--out", "whole")
    for file in Path("latency_tables").iterdir():
        file.unlink()
    killed(monkeypatch, Trimming, name, after, lambda: call("--out", "run"))
    assert 0 < len(step_files("run")) + (name == "_log") < len(step_files("whole"))
    call("--out", "run", "--resume")
    assert step_files("run") == step_files("whole")
    assert rows("run") == rows("whole")
    assert Path("run/trajectory.json").read_text() == Path("whole/trajectory.json").read_text()
    assert logged_ids("run") == [row["spec_id"] for row in rows("whole")]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_run_killed_before_its_first_step_goes_the_same_way(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    """While networks that are cut at random are measured."""
    call("--out", "whole")
    for file in Path("latency_tables").iterdir():
        file.unlink()
    killed(monkeypatch, LatencyPredictor, "measure", 0, lambda: call("--out", "run"))
    assert not step_files("run")
    call("--out", "run", "--resume")
    assert step_files("run") == step_files("whole")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("where", "name", "after"),
    [(Training, "_step", 1), (learning, "_evaluate", 2), (SupernetEvaluator, "estimate", None)],
    ids=["in the training of cuts", "in their judging", "in a step"],
)
def test_a_killed_run_on_images_goes_the_same_way(
    call: Call, monkeypatch: pytest.MonkeyPatch, few_images: None, where: Any, name: str, after: int | None
) -> None:
    made_checkpoint()
    call(*ON_DATA, "--out", "whole", network="chain.pt", share=0.9)
    steps = len(step_files("whole"))
    assert steps > 2
    for file in Path("latency_tables").iterdir():  # which has learned from that run
        file.unlink()

    def begun() -> None:
        call(*ON_DATA, "--out", "run", network="chain.pt", share=0.9)

    killed(monkeypatch, where, name, steps - 2 if after is None else after, begun)
    assert 0 < len(step_files("run")) < steps
    call(*ON_DATA, "--out", "run", "--resume", network="chain.pt", share=0.9)
    assert step_files("run") == step_files("whole")
    weights, again = (load_model(f"{folder}/final.pt").state_dict() for folder in ("whole", "run"))
    assert all(torch.equal(weights[name], again[name]) for name in weights)


def test_a_job_that_is_started_again_continues(call: Call) -> None:
    assert "run holds no run to resume; a new one begins there\n" in call("--out", "run", "--resume")
    assert "holds no run" not in call("--out", "run", "--resume")


def test_a_run_resumes_with_its_own_arguments_only(call: Call) -> None:
    call("--out", "run")
    with pytest.raises(NasError, match="was begun with --metric ratio, not with --metric accuracy"):
        call("--out", "run", "--resume", "--metric", "accuracy")
    call("--out", "run", "--resume", "--loaders", "0")  # it changes no result
    with pytest.raises(NasError, match="already holds a run"):
        call("--out", "run")


def test_a_run_does_not_resume_on_edited_files(call: Call) -> None:
    """Networks of two seeds, or proposals of two recipes, would mix in it."""
    call("--out", "run")
    SPEC.with_block(1, expanded=64).save("chain.json")
    with pytest.raises(NasError, match=r"begun with --network chain\.json \(\w+\), not with --network chain\.json \("):
        call("--out", "run", "--resume")
    SPEC.save("chain.json")
    call("--out", "run", "--resume")

    weights = build_model(SPEC, 1000).state_dict()
    torch.save(weights, "weights.pth")
    call("--out", "weighted", "--weights", "weights.pth")
    torch.save({key: 2 * value for key, value in weights.items()}, "weights.pth")
    with pytest.raises(NasError, match=r"begun with --weights weights\.pth \(\w+\), not with --weights weights\.pth"):
        call("--out", "weighted", "--resume", "--weights", "weights.pth")


def test_a_recipe_is_compared_by_its_content() -> None:
    request = NetAdaptRequest(network="chain.json", budget_ms=1.0, data=EMBEDDED, recipe="mine.toml")
    seed = Seed(SPEC, None, ())
    text = (RECIPES / "quick.toml").read_text(encoding="utf-8")
    Path("mine.toml").write_text(text, encoding="utf-8")
    before = netadapt_run._by_content(request, seed)["recipe"]
    assert netadapt_run._by_content(dataclasses.replace(request, epochs=3), seed)["recipe"] == before
    Path("mine.toml").write_text(text.replace("batch_size = 128", "batch_size = 7"), encoding="utf-8")
    assert netadapt_run._by_content(request, seed)["recipe"] != before


# Bad input --------------------------------------------------------------------------------------------


def test_a_budget_that_trimming_cannot_reach(call: Call) -> None:
    with pytest.raises(NasError, match=r"trimming ends at 0\.\d+ ms, above the budget of .* kept in run") as error:
        call("--out", "run", share=0.05)
    assert "\n" not in str(error.value)
    last = ArchSpec.load("run/final.json")
    assert network_ms(last) < 0.5 * network_ms(SPEC)
    assert json.loads(Path("run/trajectory.json").read_text())["networks"][-1]["spec_id"] == last.id


def test_a_training_at_the_end_needs_images(call: Call) -> None:
    with pytest.raises(NasError, match="--finish scratch needs images to train on; name them with --data"):
        call("--finish", "scratch", "--out", "run")
    assert not Path("run").exists(), "the mistake is found before anything is trimmed"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--bf16"], "--bf16 needs"),
        (["--shared-steps", "7"], "--shared-steps needs"),
        (["--epochs", "2", "--recipe", "mobilenet-v3"], "--recipe and --epochs need"),
    ],
)
def test_flags_of_a_training_need_images(call: Call, flags: list[str], words: str) -> None:
    with pytest.raises(NasError, match=f"^{words} images to train on; name them with --data$"):
        call(*flags, "--out", "run")
    assert not Path("run").exists()


def test_weights_of_another_network_are_refused(call: Call) -> None:
    torch.save(build_model(SPEC.with_block(2, expanded=48, se=16), 1000).state_dict(), "weights.pth")
    with pytest.raises(NasError, match=r"weights.pth: not the weights of chain: size mismatch for features.3"):
        call("--weights", "weights.pth", "--out", "run")
    torch.save({"a": 1}, "other.pth")
    Path("empty.pth").touch()
    for name in ("other.pth", "empty.pth"):
        with pytest.raises(NasError, match=f"{name}: not a file of weights"):
            call("--weights", name, "--out", "run")
    with pytest.raises(NasError, match=r"chain\.json: is a spec without weights beside it; name a checkpoint"):
        call("--weights", "chain.json", "--out", "run")
    with pytest.raises(NasError, match=r"nowhere.pth: no such file"):
        call("--weights", "nowhere.pth", "--out", "run")
    assert not Path("run").exists()


def foreign(table: Path) -> None:
    """Write the table as `foreign.json`, as if it had been measured on another machine."""
    loaded = LatencyTable.load(table)
    device = loaded.device
    loaded.device = type(device).from_dict(device.to_dict() | {"cpu": "Another CPU"})
    loaded.save("foreign.json")


def test_predictions_hold_where_networks_take_longer_than_their_rows(call: Call, machine: Machine) -> None:
    """As small images do, by the bytes of their weights. The table learns it before the first cut."""

    def true_ms(spec: ArchSpec) -> float:
        return 1.2 * network_ms(spec) + 0.1e-6 * count_cost(spec).params

    machine.whole = synthetic.apart_from_landmarks(lambda spec: true_ms(spec) / network_ms(spec))
    call("--out", "run", "--allow", "head", "--measure-every", "100")
    networks = json.loads(Path("run/trajectory.json").read_text())["networks"]
    errors = [one["predicted_ms"] / true_ms(ArchSpec.from_dict(one["spec"])) - 1 for one in networks]
    assert len(errors) > 5
    assert max(map(abs, errors)) < 0.05
    assert len([name for name in set(machine.ran) if name.startswith("network")]) > NETWORKS


def test_another_devices_table(call: Call, machine: Machine) -> None:
    """Trimming uses its rows and measures nothing. The error names a row that it lacks."""
    call("--out", "here")
    foreign(next(Path("latency_tables").glob("*.json")))
    machine.ran.clear()
    call("--out", "there", "--table", "foreign.json")
    assert not machine.ran
    assert all(not row["measured_ms"] for row in rows("there"))
    assert [row["cut"] for row in rows("there")][:4] == [row["cut"] for row in rows("here")][:4]
    with pytest.raises(
        NasError, match=r"is of another device \(Another CPU\) and lacks \d+ rows .* mbconv \d+x24 k5 e"
    ):
        call("--out", "deeper", "--table", "foreign.json", share=0.4)
    with pytest.raises(NasError, match=r"foreign.json is of synthetic 1\.0, .*; ask for that with --runtime synthetic"):
        netadapt.main(["chain.json", "--budget-ms", "0.1", "--table", "foreign.json", "--out", "deeper"])
    made_checkpoint()
    with pytest.raises(NasError, match=r"foreign.json is of networks with 1000 classes, and these have 10"):
        call(*TRAINED, "--table", "foreign.json", network="chain.pt")
