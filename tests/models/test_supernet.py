"""Networks that share the weights of one."""

import pytest
import torch
from torch import Tensor, nn

from nas.arch.loading import load_spec
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec
from nas.models.inherited_weights import inherit_weights, sorted_by_norm
from nas.models.mobilenet import MobileNet, build_model
from nas.models.supernet import Supernet

SPEC = ArchSpec(
    name="tiny",
    resolution=32,
    stem=StemSpec(out=16),
    blocks=(
        BlockSpec(kernel=3, expanded=32, out=16, stride=1, activation="relu"),
        BlockSpec(kernel=5, expanded=48, out=24, stride=2, se=16),
        BlockSpec(kernel=3, expanded=48, out=24, stride=1, activation="hswish"),
    ),
    head=HeadSpec(conv=32, hidden=24),
)
CUTS = {
    "nothing": SPEC,
    "expansion and its SE": SPEC.with_block(1, expanded=24, se=8),
    "no SE": SPEC.with_block(1, se=0),
    "kernel": SPEC.with_block(1, kernel=3),
    "activation": SPEC.with_block(2, activation="relu"),
    "bottleneck": SPEC.replace(blocks=(SPEC.blocks[0], *(block.replace(out=16) for block in SPEC.blocks[1:]))),
    "stem": SPEC.replace(stem=StemSpec(out=8), blocks=(SPEC.blocks[0].replace(out=8), *SPEC.blocks[1:])),
    "head": SPEC.replace(head=HeadSpec(conv=16, hidden=8)),
}


@pytest.fixture
def model() -> MobileNet:
    torch.manual_seed(0)
    model = build_model(SPEC, 10, dropout=0.0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, 0, 0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 1.5)  # type: ignore[arg-type]
    return model.eval()


@pytest.fixture
def images() -> Tensor:
    return torch.randn(8, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_channels_are_sorted_and_the_outputs_stay(model: MobileNet, images: Tensor) -> None:
    ordered = sorted_by_norm(model).eval()
    with torch.inference_mode():
        torch.testing.assert_close(ordered(images), model(images), rtol=1e-4, atol=1e-5)
    head = ordered.classifier[0].weight
    assert not torch.equal(head, model.classifier[0].weight)


@pytest.mark.parametrize("cut", CUTS)
def test_a_network_has_the_channels_of_largest_norm(model: MobileNet, images: Tensor, cut: str) -> None:
    network, inherited = Supernet(sorted_by_norm(model)).network(CUTS[cut]), inherit_weights(CUTS[cut], model).eval()
    assert network.spec.id == CUTS[cut].id
    with torch.inference_mode():
        torch.testing.assert_close(network(images), inherited(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cut", CUTS)
def test_logits_are_those_of_the_network_in_training(model: MobileNet, images: Tensor, cut: str) -> None:
    supernet = Supernet(model)
    logits = supernet.logits(CUTS[cut], images)
    torch.testing.assert_close(logits, supernet.network(CUTS[cut]).train()(images), rtol=1e-4, atol=1e-5)


def test_gradients_reach_the_part_that_a_network_has(model: MobileNet, images: Tensor) -> None:
    supernet = Supernet(model)
    supernet.logits(CUTS["expansion and its SE"], images).square().sum().backward()
    expand = supernet.model.features[2].block[0][0].weight.grad
    assert expand is not None
    assert expand[:24].abs().sum() > 0
    assert expand[24:].abs().sum() == 0


def test_a_copy_does_not_change_with_the_supernet(model: MobileNet, images: Tensor) -> None:
    supernet = Supernet(model)
    network = supernet.network(SPEC)
    with torch.inference_mode():
        before = network(images)
    nn.init.zeros_(supernet.model.classifier[-1].weight)
    with torch.inference_mode():
        torch.testing.assert_close(network(images), before)


def test_published_networks_share_their_weights() -> None:
    spec = load_spec("mobilenet_v3_small", resolution=32)
    supernet = Supernet(build_model(spec, 10))
    narrower = spec.with_block(3, expanded=48, se=16)
    supernet.logits(narrower, torch.randn(2, 3, 32, 32)).sum().backward()
    assert supernet.network(narrower).spec.id == narrower.id


def test_cuts_of_universal_and_fused_blocks_are_part_of_the_weights(images: Tensor) -> None:
    spec = load_spec("mobilenetv4_conv_small").replace(resolution=32)
    cut = spec.with_block(2, start_kernel=3, expanded=96).with_block(0, expanded=16)
    torch.manual_seed(0)
    supernet = Supernet(sorted_by_norm(build_model(spec, 10, dropout=0.0)))
    supernet.logits(cut, images).sum().backward()
    assert cut.id == supernet.network(cut).spec.id
    # Batch norm over eight maps of one pixel enlarges the errors of float32.
    torch.testing.assert_close(
        supernet.network(cut).train()(images), supernet.logits(cut, images), rtol=1e-3, atol=1e-4
    )


def test_modules_are_made_for_structures_not_for_widths(model: MobileNet, images: Tensor) -> None:
    """To make one for each random network took longer than its step, and all the memory in the end."""
    supernet = Supernet(model)
    for name in ("nothing", "bottleneck", "stem", "head"):
        supernet.logits(CUTS[name], images)
    (shell,) = supernet._shells.values()
    for cut in CUTS.values():  # in turn, since each tells the modules its channels
        torch.testing.assert_close(
            supernet.logits(cut, images), supernet.network(cut).train()(images), rtol=1e-4, atol=1e-5
        )
    assert len(supernet._shells) == 4, "no SE, another kernel and another activation have their own"
    assert shell is next(iter(supernet._shells.values()))
