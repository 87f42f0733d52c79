import pytest
import torch
from torchvision.models import MobileNet_V3_Small_Weights

from nas.arch.loading import load_spec
from nas.arch.spec import StemSpec
from nas.errors import NasError
from nas.models.mobilenet import build_model
from nas.training.checkpoint import save_checkpoint
from nas.training.initial import copy_weights, load_weights


def test_matching_layers_are_copied_and_the_others_are_listed(tiny_spec):
    torch.manual_seed(0)
    source, target = build_model(tiny_spec, 3), build_model(tiny_spec.with_block(1, kernel=5), 10)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    layers = copy_weights(target, source.state_dict())
    # The kernel and the classifier differ in shape.
    assert layers.fresh == ("features.2.block.1.0", "classifier.3")
    assert layers.copied == sum(1 for m in target.modules() if list(m.parameters(recurse=False))) - 2
    for name, tensor in target.state_dict().items():
        fresh = name.startswith(layers.fresh)
        assert torch.equal(tensor, before[name] if fresh else source.state_dict()[name])


def test_weights_without_a_matching_layer_are_refused(tiny_spec):
    with pytest.raises(NasError, match="none of these weights fits this network; leave out --init"):
        copy_weights(build_model(tiny_spec, 3), {"conv.weight": torch.zeros(1)})


def test_weights_of_a_checkpoint(tiny_spec, tmp_path):
    model = build_model(tiny_spec, 3)
    save_checkpoint(tmp_path / "x.pt", {"average": model.state_dict()})
    weights = load_weights(str(tmp_path / "x.pt"), model)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    save_checkpoint(tmp_path / "y.pt", {"other": 1})
    with pytest.raises(NasError, match=r"y\.pt: not a checkpoint of nas\.train"):
        load_weights(str(tmp_path / "y.pt"), model)
    with pytest.raises(NasError, match=r"z\.pt: no such file"):
        load_weights(str(tmp_path / "z.pt"), model)


@pytest.mark.parametrize("name", ["mobilenet_v3_small", "mobilenet_v2"])
def test_torchvision_s_weights_are_those_of_the_most_alike_network(name, tmp_path, monkeypatch):
    """They come from torch.hub's folder. Without the file and a network, the error names the file."""
    wanted = []

    def no_network(url, *args, **kwargs):
        wanted.append(url.rpartition("/")[2])
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", no_network)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    spec = load_spec(name).with_block(3, kernel=7)
    with pytest.raises(
        NasError, match=r"cannot be downloaded \(no network\); put the file .* into .*checkpoints"
    ) as error:
        load_weights("torchvision", build_model(spec, 10))
    assert wanted[0].startswith(name)
    assert wanted[0] in str(error.value)


def test_torchvision_has_no_weights_for_a_stem_of_stride_1():
    spec = load_spec("mobilenet_v3_small")
    model = build_model(spec.replace(stem=StemSpec(out=16, stride=1)), 10)
    with pytest.raises(NasError, match=r"its stem has stride 1, and that of all of torchvision's MobileNets has 2"):
        load_weights("torchvision", model)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"<html><body>Sign in to this network</body></html>", "it seems to be a web page; remove it"),
        (b"", "it is empty; remove it"),
        (b"PK\x03\x04 and no more", "it seems to be cut off; remove it"),
        (None, "not torchvision's weights; remove it, and they are downloaded again"),
    ],
)
def test_a_damaged_file_of_torchvision_s_is_named(content, message, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    file = tmp_path / "checkpoints" / MobileNet_V3_Small_Weights.DEFAULT.url.rpartition("/")[2]
    if content is None:
        torch.save([1, 2], file)
    else:
        file.write_bytes(content)
    with pytest.raises(NasError, match=rf"{file.name}: .*{message}"):
        load_weights("torchvision", build_model(load_spec("mobilenet_v3_small"), 10))


def test_torchvision_s_file_is_read_where_it_lies(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    model = build_model(load_spec("mobilenet_v3_small"), 10)
    torch.save(model.state_dict(), tmp_path / "checkpoints" / MobileNet_V3_Small_Weights.DEFAULT.url.rpartition("/")[2])
    assert load_weights("torchvision", model).keys() == model.state_dict().keys()
