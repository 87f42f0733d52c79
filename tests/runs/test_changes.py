"""One choice of one block changed."""

from nas.arch.loading import load_spec
from nas.runs.blocks import blocks_text
from nas.runs.changes import changed_choices


def test_every_other_choice_of_a_block_is_a_network_of_its_own() -> None:
    spec = load_spec("mobilenet_v3_large")
    block = spec.blocks[11]  # 3x3, SE, h-swish
    changed = list(changed_choices(spec, 11))
    assert [(one.decision, one.to) for one in changed] == [
        ("SE", "without SE"),
        ("kernel", "5×5"),
        ("kernel", "7×7"),
        ("activation", "ReLU"),
    ]
    assert [one.spec.blocks[11] for one in changed] == [
        block.replace(se=0),
        block.replace(kernel=5),
        block.replace(kernel=7),
        block.replace(activation="relu"),
    ]
    assert all(one.spec.blocks[:11] == spec.blocks[:11] for one in changed)


def test_se_comes_with_as_many_channels_as_in_the_spaces() -> None:
    spec = load_spec("mobilenet_v3_large")
    assert next(changed_choices(spec, 1)).spec.blocks[1].se == 16  # a quarter of 64


def test_a_block_without_an_expansion_is_left_as_it_is() -> None:
    assert not list(changed_choices(load_spec("mobilenet_v3_large"), 0))


def test_blocks_of_mobilenet_v4_are_left_as_they_are_and_written_with_both_kernels() -> None:
    spec = load_spec("mobilenetv4_conv_small")
    assert not list(changed_choices(spec, 0))
    assert not list(changed_choices(spec, 2))
    assert blocks_text(spec).split(";")[:4] == [
        "fused3,32,32,2,0,r",
        "fused3,96,64,2,0,r",
        "5+5,192,96,2,0,r",
        "3,192,96,1,0,r",
    ]
