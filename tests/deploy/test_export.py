"""Exported files against the trained network."""

import copy
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from support import synthetic
from support.pictures import save_images
from support.saturation import exact, run_int8, saturating

from nas import export, train
from nas.arch.loading import load_spec
from nas.arch.parts import context_of, parts_of
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.cli.entry import run
from nas.deploy.about import KEY
from nas.deploy.export import TOLERANCE, accuracy, export_int8_onnx, export_onnx, export_program
from nas.deploy.onnx_file import OnnxNetwork
from nas.deploy.trained import load_trained
from nas.errors import NasError
from nas.latency.measuring import new_table
from nas.latency.table_file import Row
from nas.models.mobilenet import folded_convolutions
from nas.training.checkpoint import load_checkpoint, save_checkpoint
from nas.training.data import load_data
from nas.training.evaluation import evaluate_model
from nas.training.images import MEAN, STD
from nas.training.recipes import load_recipe
from nas.training.run import Settings
from nas.training.run import train as train_network
from nas.training.tensor_images import TensorImages


@pytest.fixture
def trained(training):
    return load_trained(training)


@pytest.fixture(scope="session")
def exported(training, few):
    """Return the float32 and the int8 file of the training."""
    paths = training / "m.onnx", training / "m.int8.onnx"
    export_onnx(load_trained(training), few.val, paths[0])
    export_int8_onnx(paths[0], few.train, paths[1])
    return paths


@pytest.mark.parametrize("batch", [1, 5])
def test_logits_equal_torch_s_for_any_batch(trained, exported, few, batch):
    ((images, _), *_) = few.val.batches(batch, 32)
    with torch.no_grad():
        expected = trained.model(images).numpy()
    difference = np.abs(OnnxNetwork.load(exported[0]).run(images.numpy()) - expected).max()
    assert difference < TOLERANCE * np.ptp(expected)


def test_large_logits_may_differ_by_more(trained, few, tmp_path):
    """Rounding errors are a share of the logits, which a long training makes large."""
    scaled = copy.deepcopy(trained.model)
    with torch.no_grad():
        scaled.classifier[-1].weight *= 1e4
        scaled.classifier[-1].bias *= 1e4
    assert export_onnx(replace(trained, model=scaled), few.val, tmp_path / "x.onnx") < TOLERANCE / 10
    ((images, _), *_) = few.val.batches(64, 32)
    with torch.no_grad():
        expected = scaled(images).numpy()
    assert np.abs(OnnxNetwork.load(tmp_path / "x.onnx").run(images.numpy()) - expected).max() > TOLERANCE


def test_without_a_picture_to_compare_nothing_is_written(trained, few, tmp_path, monkeypatch):
    monkeypatch.setattr(TensorImages, "batches", lambda *arguments: iter(()))
    with pytest.raises(NasError, match="none of the images to validate on can be read"):
        export_onnx(trained, few.val, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_file_describes_itself(trained, exported):
    for path in exported:
        about = OnnxNetwork.load(path).about
        assert about == trained.about
        assert about.classes[:2] == ("T-shirt/top", "Trouser")
        assert (about.preparation.resolution, about.preparation.crop) == (32, 1.0)
        assert (about.preparation.mean, about.preparation.std) == (MEAN, STD)
    onnx.checker.check_model(onnx.load(exported[0]), full_check=True)


def test_int8_is_small_and_nearly_as_good(trained, exported, few):
    float32, int8 = map(OnnxNetwork.load, exported)
    top1 = accuracy(float32, few.val)
    assert top1 == evaluate_model(trained.model, few.val.batches(100, 32)).top1 == trained.metrics.top1 > 50
    whole = load_data(few.source).val
    assert accuracy(int8, whole) > accuracy(float32, whole) - 1
    # All weights are in int8; with them come zero points, a vector a layer.
    constants = onnx.load(exported[1]).graph.initializer
    weights = [i for i in constants if i.data_type == onnx.TensorProto.INT8 and len(i.dims) > 1]
    expected = sum(weight.size for weight, _ in folded_convolutions(trained.model))
    assert sum(int(np.prod(weight.dims)) for weight in weights) == expected


def test_int8_is_as_good_on_processors_without_vnni(exported, few):
    """There onnxruntime adds each two products in 16 bits; full weights overflow them, and lose points."""
    model = onnx.load(exported[1])
    ((images, labels), *_) = few.val.batches(100, 32)
    logits = run_int8(model, images.numpy(), saturating)
    np.testing.assert_array_equal(logits, run_int8(model, images.numpy(), exact))
    assert np.ptp(logits - OnnxNetwork.load(exported[1]).run(images.numpy())) < 0.1 * np.ptp(logits)
    float32 = OnnxNetwork.load(exported[0]).run(images.numpy())
    truth = labels.numpy()
    right = [np.sum(outputs.argmax(1) == truth) for outputs in (logits, float32)]
    assert len(truth) == 100
    assert abs(right[0] - right[1]) <= 1
    for tensor in model.graph.initializer:  # weights of the full range overflow
        if tensor.data_type == onnx.TensorProto.INT8:
            full = 2 * np.clip(onnx.numpy_helper.to_array(tensor), -63, 63)
            tensor.CopyFrom(onnx.numpy_helper.from_array(full, tensor.name))
    assert np.ptp(run_int8(model, images.numpy(), saturating) - run_int8(model, images.numpy(), exact)) > 0.1


def test_a_network_that_differs_is_not_written(trained, few, tmp_path, monkeypatch):
    wrong = [(weight, bias + 0.01) for weight, bias in folded_convolutions(trained.model)]
    monkeypatch.setattr("nas.deploy.export.folded_convolutions", lambda model: wrong)
    with pytest.raises(NasError, match=r"x\.onnx: onnxruntime's logits differ from torch's by .*; nothing was written"):
        export_onnx(trained, few.val, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_program_of_torch_takes_any_batch(trained, few, tmp_path):
    export_program(trained, tmp_path / "x.pt2")
    module = torch.export.load(tmp_path / "x.pt2").module()
    for batch in (1, 4):
        ((images, _), *_) = few.val.batches(batch, 32)
        with torch.no_grad():
            torch.testing.assert_close(module(images), trained.model(images))


# The command ----------------------------------------------------------------------------------------------


@pytest.fixture
def on_few(few, monkeypatch):
    monkeypatch.setattr("nas.training.data.load_data", lambda source, folder, loaders: few)


def test_the_command_writes_and_prints_all(training, on_few, tmp_path, capsys):
    export.main([str(training), "--out", str(tmp_path / "net.onnx"), "--torch-export"])
    names = ["net.int8.onnx", "net.md", "net.onnx", "net.pt2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == names
    out = capsys.readouterr().out
    assert "on validation images its logits differ from torch's by" in out
    rows = [line.split() for line in out.splitlines() if line.startswith("net.")]
    assert [row[1] for row in rows] == ["float32", "int8"]
    assert float(rows[0][3]) == pytest.approx(load_trained(training).metrics.top1, abs=0.006)
    assert all(0 < float(row[4]) < 100 for row in rows)
    card = (tmp_path / "net.md").read_text()
    for text in (
        "# tiny net",
        "fashion-mnist-sample",
        "recipe: `quick`",
        "net.int8.onnx",
        "The int8 file for onnxruntime is for any processor",
        "T-shirt/top",
        "nas.predict",
        "M multiply-accumulates at 32 px; fvcore counts the same on the built network",
    ):
        assert text in card
    # The Python code that the card shows can be run.
    lines = [line.strip() for line in card.splitlines() if line.startswith("    network = ")]
    scope: dict = {}
    exec("from nas.deploy.network import load_network\n" + lines[0], scope)
    assert scope["network"].about.name == "tiny net"


def test_images_that_cannot_be_read_are_named_and_not_counted(training, few, monkeypatch, tmp_path, capsys):
    for part in ("train", "val"):
        for label in range(10):
            save_images(tmp_path / part / str(label), 2, 20 * label)
    broken = tmp_path / "val" / "7" / "1.png"
    broken.write_bytes(b"no image")
    val = load_data(f"imagefolder:{tmp_path}").val
    monkeypatch.setattr("nas.training.data.load_data", lambda source, folder, loaders: replace(few, val=val))
    export.main([str(training), "--out", str(tmp_path / "net.onnx")])
    out = "".join(capsys.readouterr().out.split())
    assert out.count(f"leftout{broken}:".replace(" ", "")) == 1
    assert "top-1onthe19validationimages" in out


def test_a_spec_names_the_training_beside_it(training, on_few, monkeypatch, tmp_path):
    spec = training.parent / "tiny.json"
    load_trained(training).settings.spec.save(spec)
    seen = []
    monkeypatch.setattr("nas.deploy.export.export_onnx", lambda trained, images, path: seen.append(path) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export.main([str(spec)])
    assert seen == [training / "model.onnx"]


@pytest.mark.parametrize(
    ("checkpoint", "file"), [("best.pt", "model.onnx"), ("final.pt", "model.onnx"), ("small.pt", "small.onnx")]
)
def test_each_network_of_a_search_has_a_file_of_its_own(training, on_few, monkeypatch, tmp_path, checkpoint, file):
    shutil.copy(training / "best.pt", tmp_path / checkpoint)
    seen = []
    monkeypatch.setattr("nas.deploy.export.export_onnx", lambda trained, images, path: seen.append(path) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export.main([str(tmp_path / checkpoint)])
    assert seen == [tmp_path / file]


def test_mistakes_are_named(training, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    load_trained(training).settings.spec.save("other.json")
    for arguments, message in (
        (["other.json"], "other.json: is not trained yet; run `python -m nas.train other.json` first"),
        (["nothing.json"], "nothing.json: no such file"),
        ([str(tmp_path)], "best.pt: no such file"),
        (["x.pt"], "x.pt: no such file"),
    ):
        with pytest.raises(NasError, match=message):
            export.main(arguments)
    for name in ("other-a", "other-b"):
        Path(name).mkdir()
        Path(name, "best.pt").touch()
    with pytest.raises(
        NasError, match=r"other\.json: is trained more than once \(other-a, other-b\); name one of these"
    ):
        export.main(["other.json"])


def test_a_spec_of_ones_own_is_found_where_it_was_trained(trained, few, monkeypatch, tmp_path, capsys):
    """`nas.train net.json` and then `nas.export net.json` work outside the folder of a search."""
    monkeypatch.chdir(tmp_path)
    spec = trained.settings.spec
    spec.save("net.json")
    monkeypatch.setattr("nas.training.data.load_data", lambda source, folder, loaders: few)
    train.main(["net.json", "--epochs", "1"])
    export.main(["net.json"])
    folder = Path("reports/tiny-net-fashion-mnist-sample")
    assert {path.name for path in folder.iterdir()} > {"best.pt", "model.onnx", "model.int8.onnx", "model.md"}
    spec.with_block(0, expanded=24).save("net.json")
    with pytest.raises(NasError, match=r"best\.pt: is of another network \(tiny net, id .*\) than net\.json \(id .*\)"):
        export.main(["net.json"])


def test_classes_that_have_changed_since_are_named(training, few, monkeypatch, tmp_path):
    other = replace(few, classes=("Hat", *few.classes[1:]))
    monkeypatch.setattr("nas.training.data.load_data", lambda source, folder, loaders: other)
    with pytest.raises(
        NasError, match=r"fashion-mnist-sample has the classes Hat, Trouser, .*… \(10\) now, and"
    ) as error:
        export.main([str(training), "--out", str(tmp_path / "net.onnx")])
    assert "was trained on T-shirt/top, Trouser" in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["net", "best.pt", "net.md"])
def test_a_name_without_the_suffix_onnx_is_refused(training, tmp_path, name):
    with pytest.raises(NasError, match=rf"--out is .*{name}; name a file that ends in \.onnx"):
        export.main([str(training), "--out", str(tmp_path / name)])


def test_the_card_names_the_classes_of_a_table_that_has_others(trained, monkeypatch, tmp_path):
    spec = trained.settings.spec.replace(resolution=32)
    monkeypatch.setattr("nas.latency.table.TABLES", tmp_path)
    for classes in (10, 1000):
        table = new_table(synthetic.SyntheticRuntime())
        table.num_classes, table.reference_ms = classes, 2.0
        parts = list(parts_of(spec, classes))
        contexts = [part for part in map(context_of, parts) if part is not None]
        table.rows = {part.key: Row(0.5, 0.5, (0.4, 0.6), 9, 0.01) for part in parts}
        table.rows |= {part.key: Row(0.1, 0.1, (0.1, 0.1), 9, 0.01) for part in contexts}
        table.save(tmp_path / f"{classes}.json")
    (own, own_ms), (other, other_ms) = export._predicted_ms(trained)
    assert own_ms == other_ms == table.predict_ms([spec])[0] > 0
    assert "classes" not in own
    assert other == f"{own}, with 1,000 classes"


def test_a_full_disk_is_an_error_of_one_line(trained, tmp_path):
    resource = pytest.importorskip("resource", reason="no limit on the size of files here")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, limits[1]))
    try:
        with pytest.raises(NasError, match=r"x\.pt2: cannot be written \("):
            export_program(trained, tmp_path / "x.pt2")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_an_older_version_is_refused(training, tmp_path):
    contents = load_checkpoint(training / "best.pt")
    del contents["crop"], contents["version"]
    save_checkpoint(tmp_path / "x.pt", contents)
    with pytest.raises(NasError, match=r"x\.pt: not a checkpoint of nas\.train that can be deployed \('crop'\)"):
        load_trained(tmp_path / "x.pt")


# In a process without torch -------------------------------------------------------------------------------


def test_predicts_without_torch(exported, pictures, few):
    code = (
        "import sys; sys.modules['torch'] = None; from nas import predict\n"
        "predict.main(sys.argv[1:]); print('torchvision' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(exported[0]), "--top", "1", *map(str, pictures)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    *lines, loaded = done.stdout.splitlines()
    assert loaded == "False"
    names = [line.rpartition(": ")[2].rpartition(" ")[0] for line in lines]
    truth = [few.classes[label] for label in few.val.labels[: len(pictures)]]
    assert sum(a == b for a, b in zip(names, truth, strict=True)) > len(pictures) / 2


def test_a_checkpoint_predicts_the_same(exported, training, pictures, capsys):
    from nas import predict

    texts = []
    for model in (exported[0], training, training / "best.pt"):
        predict.main([str(model), str(pictures[0]), str(pictures[1])])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1] == texts[2]
    assert texts[0].count("%") == 6


def test_images_that_cannot_be_read_do_not_stop_the_others(exported, pictures, tmp_path, capsys, monkeypatch):
    from nas import predict

    def errors_of(*images):
        monkeypatch.setattr(sys, "argv", ["/x/nas/predict.py", str(exported[0]), *map(str, images)])
        with pytest.raises(SystemExit) as error:
            run("predict", predict.main)
        assert error.value.code == 2
        captured = capsys.readouterr()
        assert captured.out.startswith(f"{pictures[0]}: ")
        return captured.err.splitlines()

    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    (line,) = errors_of(broken, pictures[0])
    assert line.startswith(f"nas.predict: error: {broken}: this image cannot be read (cannot identify image file")
    first, second, last = errors_of(broken, "nothing.png", pictures[0])
    assert first.startswith(f"{broken}: this image cannot be read")
    assert second == "nothing.png: no such file"
    assert last == "nas.predict: error: 2 of 3 images cannot be read; they are named above"


def test_files_that_are_no_networks_are_refused(exported, tmp_path):
    path = tmp_path / "x.onnx"
    with pytest.raises(NasError, match=r"x\.onnx: no such file"):
        OnnxNetwork.load(path)
    path.write_bytes(exported[0].read_bytes()[:5000])
    with pytest.raises(NasError, match=r"x\.onnx: onnxruntime cannot load it"):
        OnnxNetwork.load(path)
    model = onnx.load(exported[0])
    for props, message in (
        ({}, "it does not name its classes, nor how images are prepared for it; only files that nas.export wrote do"),
        ({KEY: "{"}, "its description of classes and images cannot be read"),
        ({KEY: json.dumps({"name": "x"})}, "its description of classes and images cannot be read"),
    ):
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, props)
        onnx.save(model, path)
        with pytest.raises(NasError, match=message):
            OnnxNetwork.load(path)


def test_a_folder_of_a_network_without_weights_says_what_comes_first(tmp_path: Path) -> None:
    load_spec("mobilenet_v3_small").save(tmp_path / "final.json")
    with pytest.raises(NasError) as error:
        load_trained(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: its network has no weights; train it with `python -m nas.train {tmp_path / 'final.json'}` first"
    )


def test_universal_and_fused_blocks_train_and_are_exported_in_both_precisions(few, tmp_path):
    """Batch norm behind the hidden layer is folded too. An image that fills no batch is left out of the training."""
    spec = ArchSpec(
        name="tiny universal",
        resolution=32,
        stem=StemSpec(out=8, activation="relu"),
        blocks=(
            BlockSpec(op="fused", kernel=3, expanded=16, out=8, stride=2, activate_output=True),
            BlockSpec(op="uib", start_kernel=3, kernel=3, expanded=24, out=16, stride=2),
            BlockSpec(op="uib", kernel=0, expanded=32, out=16),
            BlockSpec(op="uib", start_kernel=5, kernel=0, expanded=32, out=16),
        ),
        head=HeadSpec(conv=32, hidden=32, activation="relu", hidden_norm=True),
        norm_eps=1e-5,
    )
    recipe = load_recipe("quick").replace(epochs=3, batch_size=32, learning_rate=0.02)
    some = replace(few, train=TensorImages(few.train.images[:1025], few.train.labels[:1025]))
    train_network(Settings(spec=spec, source=few.source, recipe=recipe, resolution=32), some, tmp_path)
    network = load_trained(tmp_path)
    assert network.metrics.top1 > 30
    assert export_onnx(network, few.val, tmp_path / "u.onnx") < TOLERANCE
    export_int8_onnx(tmp_path / "u.onnx", few.train, tmp_path / "u.int8.onnx")
    float32, int8 = (accuracy(OnnxNetwork.load(tmp_path / name), few.val) for name in ("u.onnx", "u.int8.onnx"))
    assert float32 == network.metrics.top1
    assert abs(int8 - float32) < 4
