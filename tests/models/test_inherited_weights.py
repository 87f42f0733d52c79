"""Weights of trimmed networks, compared with those of the networks that they were cut from."""

import pytest
import torch
from torch import Tensor, nn

from nas.arch.published import published_spec
from nas.arch.spec import ArchSpec, BlockSpec, HeadSpec, StemSpec, squeezed_channels
from nas.models.inherited_weights import channels_of, inherit_weights
from nas.models.mobilenet import MobileNet, build_model

CHAIN = ArchSpec(
    name="chain",
    resolution=32,
    stem=StemSpec(out=16),
    blocks=(
        BlockSpec(op="sepconv", kernel=3, expanded=16, out=16),
        BlockSpec(kernel=3, expanded=48, out=24, stride=2, se=16),
        BlockSpec(kernel=5, expanded=64, out=24, se=16, activation="hswish"),
        BlockSpec(kernel=5, expanded=96, out=24),
        BlockSpec(kernel=3, expanded=96, out=40, stride=2),
    ),
    head=HeadSpec(conv=64, hidden=32),
)

FIRST = BlockSpec(op="sepconv", kernel=3, expanded=24, out=24)  # wider than that of the chain


def parent(spec: ArchSpec = CHAIN, classes: int = 10) -> MobileNet:
    """Return a network whose batch norm has other statistics and shifts than a new one."""
    torch.manual_seed(0)
    model = build_model(spec, classes)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            for tensor, low in ((module.running_mean, -1), (module.running_var, 0.5), (module.bias, -1)):
                nn.init.uniform_(tensor, low, low + 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)  # larger than at first, so that differences show in the outputs
    return model.eval()


def images() -> Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def assert_same_outputs(one: MobileNet, other: MobileNet) -> None:
    with torch.inference_mode():
        torch.testing.assert_close(one(images()), other.eval()(images()), rtol=1e-3, atol=1e-3)


def layers(block: nn.Module) -> list[nn.Module]:
    """Return the convolutions of a block in order: expand, depthwise, SE's two, project."""
    return [module for module in block.modules() if isinstance(module, nn.Conv2d)]


DEAD = torch.tensor([1, 4, 5, 17, 22, 30, 41, 47])


def kill_expanded(model: MobileNet, index: int, dead: Tensor) -> None:
    """Let expanded channels of a block contribute nothing, batch norm's shift included."""
    expand, depthwise, *squeeze, project = layers(model.features[1 + index])
    with torch.no_grad():
        expand.weight[dead] = 0
        depthwise.weight[dead] = 0
        project.weight[:, dead] = 0
        if squeeze:
            squeeze[0].weight[:, dead] = 0
            squeeze[1].weight[dead] = 0


def kill_squeezed(model: MobileNet, index: int, dead: Tensor) -> None:
    _, _, reduce, excite, _ = layers(model.features[1 + index])
    with torch.no_grad():
        reduce.weight[dead] = 0
        reduce.bias[dead] = 0
        excite.weight[:, dead] = 0


# Cuts of channels that contribute nothing ---------------------------------------------------------------


def test_an_expansion_less_its_dead_channels_computes_the_same() -> None:
    model = parent()
    kill_expanded(model, 1, DEAD)
    kill_squeezed(model, 1, torch.tensor([0, 3, 7, 8, 15]))
    smaller = CHAIN.with_block(1, expanded=40, se=11)
    child = inherit_weights(smaller, model)
    assert child.spec == smaller
    assert_same_outputs(model, child)
    assert channels_of(smaller, model)["block 1 expanded"].tolist() == sorted(set(range(48)) - set(DEAD.tolist()))


def test_a_bottleneck_less_its_dead_channels_computes_the_same() -> None:
    """It has 24 channels, which blocks 1 to 3 write and blocks 2 to 4 read."""
    model = parent()
    dead = torch.tensor([0, 2, 3, 9, 10, 16, 20, 23])
    with torch.no_grad():
        for index in (1, 2, 3):
            block = model.features[1 + index]
            layers(block)[-1].weight[dead] = 0
            norm = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)][-1]
            norm.bias[dead] = norm.running_mean[dead] * norm.weight[dead] / (norm.running_var[dead] + norm.eps) ** 0.5
        for index in (2, 3, 4):
            layers(model.features[1 + index])[0].weight[:, dead] = 0
    smaller = CHAIN
    for index in (1, 2, 3):
        smaller = smaller.with_block(index, out=16)
    assert_same_outputs(model, inherit_weights(smaller, model))


def test_a_head_less_its_dead_channels_computes_the_same() -> None:
    model = parent()
    with torch.no_grad():
        model.features[-1][0].weight[:32] = 0
        model.classifier[0].weight[:, :32] = 0
        model.classifier[0].weight[24:] = 0
        model.classifier[3].weight[:, 24:] = 0
    child = inherit_weights(CHAIN.replace(head=HeadSpec(conv=32, hidden=24)), model)
    assert_same_outputs(model, child)


def test_a_cut_of_live_channels_changes_the_outputs() -> None:
    """The tests above can therefore fail."""
    model = parent()
    child = inherit_weights(CHAIN.with_block(1, expanded=40, se=11), model)
    with torch.inference_mode():
        assert (model(images()) - child.eval()(images())).abs().max() > 0.1


UNIVERSAL = ArchSpec(
    name="universal",
    resolution=32,
    stem=StemSpec(out=16, activation="relu"),
    blocks=(
        BlockSpec(op="fused", kernel=3, expanded=48, out=24, stride=2),
        BlockSpec(op="uib", start_kernel=5, kernel=3, expanded=48, out=24),
        BlockSpec(op="uib", kernel=0, expanded=48, out=24),
        BlockSpec(op="uib", start_kernel=3, kernel=0, expanded=96, out=40, stride=2),
    ),
    head=HeadSpec(conv=64, hidden=32, activation="relu", hidden_norm=True),
)


@pytest.mark.parametrize("index", [0, 1, 2])
def test_an_expansion_of_a_universal_or_fused_block_less_its_dead_channels_computes_the_same(index: int) -> None:
    model = parent(UNIVERSAL)
    first, *_, project = layers(model.features[1 + index])[1 if index == 1 else 0 :]  # behind a depthwise convolution
    with torch.no_grad():
        first.weight[DEAD] = 0
        project.weight[:, DEAD] = 0
        if index == 1:
            layers(model.features[2])[2].weight[DEAD] = 0
    child = inherit_weights(UNIVERSAL.with_block(index, expanded=40), model)
    assert_same_outputs(model, child)


def test_a_bottleneck_before_a_depthwise_convolution_less_its_dead_channels_computes_the_same() -> None:
    """It has 24 channels, which blocks 0 to 2 write, and on which blocks 1 and 3 begin with a depthwise convolution."""
    model = parent(UNIVERSAL)
    dead = torch.tensor([0, 2, 3, 9, 10, 16, 20, 23])
    with torch.no_grad():
        for index in (0, 1, 2):
            block = model.features[1 + index]
            layers(block)[-1].weight[dead] = 0
            norm = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)][-1]
            norm.bias[dead] = norm.running_mean[dead] * norm.weight[dead] / (norm.running_var[dead] + norm.eps) ** 0.5
        for index, reads in ((1, 1), (2, 0), (3, 1)):
            layers(model.features[1 + index])[reads].weight[:, dead] = 0
        for index in (1, 3):
            layers(model.features[1 + index])[0].weight[dead] = 0
    smaller = UNIVERSAL
    for index in (0, 1, 2):
        smaller = smaller.with_block(index, out=16)
    assert_same_outputs(model, inherit_weights(smaller, model))


def test_a_hidden_layer_with_batch_norm_less_its_dead_channels_computes_the_same() -> None:
    model = parent(UNIVERSAL)
    with torch.no_grad():
        model.classifier[0].weight[24:] = 0
        model.classifier[4].weight[:, 24:] = 0
    head = HeadSpec(conv=64, hidden=24, activation="relu", hidden_norm=True)
    assert_same_outputs(model, inherit_weights(UNIVERSAL.replace(head=head), model))


@pytest.mark.parametrize(
    "name",
    ["mobilenet_v3_small", "mobilenet_v2@0.5", "mobilenet_v1@0.25", "mnasnet_a1@0.5", "mobilenetv4_conv_small_050"],
)
def test_without_a_cut_the_network_stays_the_same(name: str) -> None:
    spec = published_spec(name).replace(resolution=32)
    model = parent(spec)
    child = inherit_weights(spec.replace(name="copy"), model, seed=5)
    for (key, one), (other_key, other) in zip(model.state_dict().items(), child.state_dict().items(), strict=True):
        assert key == other_key
        assert torch.equal(one, other)


def test_a_stem_of_stride_1_is_inherited_like_any_other() -> None:
    spec = CHAIN.replace(stem=StemSpec(out=16, stride=1))
    model = parent(spec)
    child = inherit_weights(spec.with_block(1, expanded=40, se=11), model)
    assert child.spec.stem.stride == child.features[0][0].stride[0] == 1
    assert torch.equal(model.features[0][0].weight, child.features[0][0].weight)


# Channels that are kept --------------------------------------------------------------------------------


def test_channels_with_the_largest_norm_over_all_tied_layers_are_kept() -> None:
    """A channel that is small in one layer and large in the others is kept, one that is large in a single layer not."""
    model = parent()
    expand, depthwise, reduce, excite, project = layers(model.features[2])
    with torch.no_grad():
        for layer in (expand, depthwise, project, reduce, excite):
            layer.weight.fill_(0.01)
        for dimension, layer in ((1, project), (0, excite), (1, reduce), (0, depthwise)):
            layer.weight.select(dimension, 7).fill_(1.0)
        expand.weight[3] = 0.5
    kept = channels_of(CHAIN.with_block(1, expanded=8, se=16), model)["block 1 expanded"].tolist()
    assert {3, 7} <= set(kept)
    only = channels_of(CHAIN.with_block(1, expanded=1, se=16), model)["block 1 expanded"].tolist()
    assert only == [7]


def test_blocks_that_are_not_cut_stay_bit_for_bit() -> None:
    model = parent()
    child = inherit_weights(CHAIN.with_block(3, expanded=48), model)
    for index in (0, 1, 2, 4, 5):  # stem, and blocks 0, 1, 3 and 4 but the one that is cut
        if index != 4:
            before, after = model.features[index].state_dict(), child.features[index].state_dict()
            assert all(torch.equal(before[key], after[key]) for key in before)
    assert torch.equal(model.classifier[3].weight, child.classifier[3].weight)
    # The cut block is sliced as a whole: rows, statistics, columns.
    kept = channels_of(child.spec, model)["block 3 expanded"]
    before, after = model.features[4], child.features[4]
    assert torch.equal(layers(before)[0].weight[kept], layers(after)[0].weight)
    assert torch.equal(layers(before)[2].weight[:, kept], layers(after)[2].weight)
    norms = [[m for m in block.modules() if isinstance(m, nn.BatchNorm2d)] for block in (before, after)]
    for one, other in zip(*norms, strict=True):
        same = one.num_features == other.num_features
        assert torch.equal(one.running_var if same else one.running_var[kept], other.running_var)


@pytest.mark.parametrize(
    "wider",
    [
        CHAIN.with_block(1, expanded=64, se=16),
        CHAIN.with_block(2, expanded=200, se=40),
        CHAIN.replace(stem=StemSpec(out=24), blocks=(FIRST, *CHAIN.blocks[1:4], CHAIN.blocks[4].replace(out=56))),
        CHAIN.with_block(1, out=40, se=16).with_block(2, out=40, se=16).with_block(3, out=40),
        CHAIN.replace(head=HeadSpec(conv=200, hidden=48)),
        CHAIN.with_block(2, expanded=40, se=16).with_block(3, expanded=128),
    ],
    ids=["expansion", "three times", "stem and bottlenecks", "residuals", "head", "narrower elsewhere"],
)
def test_a_wider_network_begins_with_the_function_of_the_narrower_one(
    wider: ArchSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    narrower = parent()
    if wider.blocks[2].expanded < 64:
        narrower = inherit_weights(CHAIN.with_block(2, expanded=40, se=16), narrower).eval()
    noisy = inherit_weights(wider, narrower)
    monkeypatch.setattr("nas.models.inherited_weights.NOISE", 0.0)
    plain = inherit_weights(wider, narrower)
    with torch.inference_mode():
        before, after, with_noise = (model.double().eval()(images().double()) for model in (narrower, plain, noisy))
    spread = before.std(0).mean()  # over images
    assert (after - before).abs().max() < 1e-3 * spread  # thirds are rounded
    assert 1e-5 < (with_noise - before).std() / before.std() < 0.2


@pytest.mark.parametrize("out", [8, 24])
def test_a_network_that_lacks_a_residual_takes_what_fits(out: int) -> None:
    """The stem and the first block of the chain are tied by one."""
    model = parent()
    spec = CHAIN.with_block(0, out=out)
    child, kept = inherit_weights(spec, model), channels_of(spec, model)["stem"][:out]
    project, before = (layers(network.features[1])[-1].weight for network in (child, model))
    assert torch.equal(project[:16], before[kept[:16]])
    assert torch.equal(child.features[0][0].weight, model.features[0][0].weight)


def test_channels_that_are_there_twice_differ_a_little() -> None:
    model = parent()
    wider = CHAIN.with_block(1, expanded=64, se=16)
    child = inherit_weights(wider, model, seed=1)
    one, other = layers(model.features[2]), layers(child.features[2])
    twice = channels_of(wider, model)["block 1 expanded"][48:]
    assert len(set(twice.tolist())) == 16
    assert torch.equal(one[0].weight, other[0].weight[:48])
    ratio = other[0].weight[48:] / one[0].weight[twice]
    assert 0.05 < ratio.std() < 0.2
    assert abs(ratio.mean() - 1) < 0.05
    again = inherit_weights(wider, model, seed=1)
    assert torch.equal(layers(again.features[2])[0].weight, other[0].weight)
    torch.manual_seed(7)
    before = torch.random.get_rng_state()
    inherit_weights(wider, model)
    assert torch.equal(torch.random.get_rng_state(), before), "the global generator is left alone"


def test_a_larger_kernel_computes_the_same() -> None:
    model = parent()
    assert_same_outputs(model, inherit_weights(CHAIN.with_block(1, kernel=7).with_block(4, kernel=5), model))


def test_se_can_be_removed_and_kernels_can_shrink() -> None:
    model = parent()
    child = inherit_weights(CHAIN.with_block(2, kernel=3, se=0), model)
    one, other = layers(model.features[3]), layers(child.features[3])
    assert torch.equal(one[1].weight[:, :, 1:4, 1:4], other[1].weight)
    assert torch.equal(one[-1].weight, other[-1].weight)
    assert squeezed_channels(64) == CHAIN.blocks[2].se
