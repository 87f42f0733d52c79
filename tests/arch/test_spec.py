"""Specs: their JSON, their id, and every way in which a spec's file can be wrong."""

import copy
import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.arch.published import published_names, published_spec
from nas.arch.spec import (
    ACTIVATIONS,
    GATES,
    MAX_CHANNELS,
    OPS,
    ArchSpec,
    BlockSpec,
    HeadSpec,
    StemSpec,
    load_results,
    round_channels,
)
from nas.errors import NasError

CHANNELS = st.integers(1, 2_000)


@st.composite
def specs(draw: st.DrawFn) -> ArchSpec:
    """Draw any network that a spec can express, far beyond the search spaces."""
    stem = StemSpec(
        out=draw(CHANNELS), activation=draw(st.sampled_from(ACTIVATIONS)), stride=draw(st.sampled_from([2, 1]))
    )
    blocks, channels = [], stem.out
    for _ in range(draw(st.integers(1, 6))):
        op = draw(st.sampled_from(OPS))
        kernel = draw(st.sampled_from([0, 3, 5] if op == "uib" else [1, 3, 5, 7]))
        start_kernel = draw(st.sampled_from([3, 5] if kernel else [0, 3, 5])) if op == "uib" else 0
        block = BlockSpec(
            op=op,
            kernel=kernel,
            expanded=channels if op == "sepconv" else draw(CHANNELS),
            out=draw(CHANNELS),
            stride=draw(st.integers(1, 2)) if kernel or start_kernel else 1,
            se=draw(st.sampled_from([0, 8, 64])),
            gate=draw(st.sampled_from(GATES)),
            activation=draw(st.sampled_from(ACTIVATIONS)),
            activate_output=draw(st.booleans()),
            start_kernel=start_kernel,
        )
        blocks.append(block)
        channels = block.out
    hidden = draw(st.sampled_from([0, 1024]))
    head = HeadSpec(
        conv=draw(st.sampled_from([0, 576])),
        hidden=hidden,
        activation=draw(st.sampled_from(ACTIVATIONS)),
        hidden_norm=draw(st.booleans()) if hidden else False,
    )
    return ArchSpec(
        name=draw(st.text('abc@" \\ü', min_size=1)),
        resolution=draw(st.integers(32, 512)),
        stem=stem,
        blocks=tuple(blocks),
        head=head,
        norm_eps=draw(st.floats(1e-6, 1e-2)),
    )


# Valid specs ------------------------------------------------------------------------------------------


@given(specs())
def test_json_gives_the_same_spec_back(spec: ArchSpec) -> None:
    assert ArchSpec.from_json(spec.to_json()) == spec
    assert ArchSpec.from_dict(spec.to_dict()) == spec
    assert ArchSpec.from_json(spec.to_json()).id == spec.id


@given(specs())
def test_json_has_sorted_keys_and_one_line_a_block(spec: ArchSpec) -> None:
    text = spec.to_json({"top1": 75.2})
    data = json.loads(text)
    assert list(data) == sorted(data)
    assert len([line for line in text.splitlines() if '"kernel"' in line]) == len(spec.blocks)
    assert text.endswith("}\n")


def test_a_saved_spec_loads_and_keeps_its_results(tmp_path: Path) -> None:
    spec, path = published_spec("mobilenet_v3_small"), tmp_path / "new folder" / "a.json"
    spec.save(path, {"latency_ms": 1.5, "source": "measured"})
    assert ArchSpec.load(path) == spec
    assert load_results(path) == {"latency_ms": 1.5, "source": "measured"}
    spec.save(path)
    assert load_results(path) == {}
    assert [file.name for file in path.parent.iterdir()] == ["a.json"]


def test_a_mark_in_front_of_the_text_is_skipped(tmp_path: Path) -> None:
    """A byte order mark, which some Windows editors write, is accepted."""
    spec, path = published_spec("mobilenet_v3_small"), tmp_path / "a.json"
    path.write_text(spec.to_json(), encoding="utf-8-sig")
    assert ArchSpec.load(path) == spec


def changes_of_a_block(block: BlockSpec) -> Iterator[dict[str, Any]]:
    """Yield changes of single fields of a block to another valid value."""
    if block.kernel:
        yield {"kernel": block.kernel + 2}
    if block.op == "uib":
        yield {"start_kernel": block.start_kernel + 2 if block.start_kernel else 3}
    if block.op != "sepconv":
        yield {"expanded": block.expanded + 8}
    if block.kernel or block.start_kernel:
        yield {"stride": 3 - block.stride}
    yield {"se": block.se + 8}
    yield {"activation": next(a for a in ACTIVATIONS if a != block.activation)}
    yield {"activate_output": not block.activate_output}
    if block.se:
        yield {"se": 0}
        yield {"gate": next(g for g in GATES if g != block.gate)}


@given(specs())
def test_id_changes_with_every_part_that_exists(spec: ArchSpec) -> None:
    others = [
        spec.with_block(i, **change) for i, block in enumerate(spec.blocks) for change in changes_of_a_block(block)
    ]
    others.append(spec.replace(resolution=spec.resolution + 1))
    others.append(spec.replace(norm_eps=spec.norm_eps * 1.5))
    others.append(spec.replace(blocks=(*spec.blocks, BlockSpec(kernel=3, expanded=8, out=spec.blocks[-1].out))))
    last = len(spec.blocks) - 1
    others.append(spec.with_block(last, out=spec.blocks[last].out + 8))
    stem_activation = next(a for a in ACTIVATIONS if a != spec.stem.activation)
    others.append(spec.replace(stem=dataclasses.replace(spec.stem, activation=stem_activation)))
    others.append(spec.replace(stem=dataclasses.replace(spec.stem, stride=3 - spec.stem.stride)))
    head, activation = spec.head, next(a for a in ACTIVATIONS if a != spec.head.activation)
    others.append(spec.replace(head=dataclasses.replace(head, conv=head.conv + 8)))
    others.append(spec.replace(head=dataclasses.replace(head, hidden=head.hidden + 8)))
    if head.conv or head.hidden:
        others.append(spec.replace(head=dataclasses.replace(head, activation=activation)))
    if head.hidden:
        others.append(spec.replace(head=dataclasses.replace(head, hidden_norm=not head.hidden_norm)))
    if spec.blocks[0].op != "sepconv":
        others.append(spec.replace(stem=dataclasses.replace(spec.stem, out=spec.stem.out + 8)))
    ids = [other.id for other in others]
    assert spec.id not in ids
    assert len(set(ids)) == len({other.replace(name="x") for other in others})


def test_id_tells_a_sepconv_from_an_mbconv_of_the_same_channels() -> None:
    """The second has one convolution more."""
    block = BlockSpec(op="sepconv", kernel=3, expanded=16, out=16)
    spec = ArchSpec(name="a", resolution=32, stem=StemSpec(out=16), blocks=(block,), head=HeadSpec(conv=0))
    assert spec.with_block(0, op="mbconv").id != spec.id


@given(specs(), st.sampled_from(GATES), st.sampled_from(ACTIVATIONS))
def test_id_ignores_parts_that_do_not_exist(spec: ArchSpec, gate: str, activation: str) -> None:
    other = spec.replace(name="another name")
    for index, block in enumerate(spec.blocks):
        if not block.se:
            other = other.with_block(index, gate=gate)
    if not spec.head.conv and not spec.head.hidden:
        other = other.replace(head=HeadSpec(conv=0, activation=activation))
    assert other.id == spec.id


def test_ids_are_twelve_hexadecimal_digits_that_stay() -> None:
    """Reports and studies hold ids, so that a later version must give the same ones."""
    assert published_spec("mobilenet_v3_large").id == "eccb4d1b2825"
    assert published_spec("mnasnet_a1").id == "a5ea17046a7e"
    assert all(
        len(spec_id) == 12 and int(spec_id, 16) >= 0 for spec_id in (published_spec(n).id for n in published_names())
    )


def test_a_stem_of_stride_2_is_written_without_it_and_one_of_stride_1_with_it() -> None:
    """Files from before stems had a stride are read, written and named alike."""
    spec = published_spec("mobilenet_v3_small")
    data = spec.to_dict()
    assert data["stem"] == {"out": 16, "activation": "hswish"}
    assert ArchSpec.from_dict({**data, "stem": {**data["stem"], "stride": 2}}) == spec
    narrow = spec.replace(stem=dataclasses.replace(spec.stem, stride=1))
    assert narrow.to_dict()["stem"] == {"out": 16, "activation": "hswish", "stride": 1}
    assert narrow.head_input == (96, 14)


def test_what_only_mobilenet_v4_has_is_written_only_where_it_is() -> None:
    """Files from before there were such blocks and heads are read, written and named alike."""
    spec = published_spec("mobilenet_v3_small")
    assert "start_kernel" not in spec.to_json()
    assert "hidden_norm" not in spec.to_json()
    data = spec.to_dict()
    blocks = [{**block, "start_kernel": 0} for block in data["blocks"]]
    again = ArchSpec.from_dict({**data, "blocks": blocks, "head": {**data["head"], "hidden_norm": False}})
    assert (again, again.id) == (spec, spec.id)
    medium = published_spec("mobilenetv4_conv_medium").to_dict()
    assert [block.get("start_kernel") for block in medium["blocks"][:3]] == [None, 3, 3]
    assert medium["head"] == {"conv": 960, "hidden": 1280, "activation": "relu", "hidden_norm": True}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"start_kernel": 3}, "start_kernel is 3; only a uib has one"),
        ({"op": "fused", "start_kernel": 3}, "start_kernel is 3; only a uib has one"),
        ({"op": "fused", "kernel": 0}, "kernel is 0; it must be a whole number from 1 to 15"),
        ({"op": "uib"}, "it is an mbconv, so name it that"),
        ({"op": "uib", "start_kernel": 4}, "start_kernel is 4; it must be odd"),
        ({"op": "uib", "start_kernel": 17}, "start_kernel is 17; it must be a whole number from 0 to 15"),
        ({"op": "uib", "start_kernel": None}, "start_kernel is None"),
        ({"op": "uib", "kernel": 0, "stride": 2}, "the block has nothing to stride"),
    ],
)
def test_a_block_of_mobilenet_v4_that_cannot_be_is_one_clear_line(change: dict[str, Any], message: str) -> None:
    block = BlockSpec(kernel=3, expanded=48, out=16)
    with pytest.raises(NasError, match=message):
        block.replace(**change)


def test_kernels_have_words_and_a_largest() -> None:
    plain = BlockSpec(kernel=3, expanded=48, out=16)
    blocks = [plain, plain.replace(op="fused"), plain.replace(op="uib", start_kernel=5)]
    blocks += [blocks[-1].replace(kernel=0), blocks[-1].replace(kernel=0, start_kernel=0)]
    assert [(block.kernels_text, block.largest_kernel) for block in blocks] == [
        ("3×3", 3),
        ("full 3×3", 3),
        ("5×5 before 3×3", 5),
        ("5×5 before", 5),
        ("1×1", 1),
    ]
    assert [block.has_expand for block in blocks] == [True, False, True, True, True]


def test_the_stride_of_a_universal_block_is_taken_once() -> None:
    one = BlockSpec(op="uib", kernel=5, start_kernel=3, expanded=48, out=24, stride=2)
    spec = published_spec("mobilenet_v2").replace(resolution=64, blocks=(one, one.replace(kernel=0)))
    assert [placed.out_size for placed in spec.walk()] == [16, 8]
    assert not any(placed.has_residual for placed in spec.walk())
    flat = one.replace(kernel=0, start_kernel=0, stride=1)
    assert flat.has_residual(24)


@given(specs())
def test_walk_follows_shapes(spec: ArchSpec) -> None:
    size, channels = (spec.resolution + 1) // 2 if spec.stem.stride == 2 else spec.resolution, spec.stem.out
    for placed, block in zip(spec.walk(), spec.blocks, strict=True):
        assert placed == (block, channels, size)
        size, channels = (size + 1) // 2 if block.stride == 2 else size, block.out
        assert placed.out_size == size
        assert placed.has_residual == (
            block.stride == 1 and placed.in_channels == block.out and not block.activate_output
        )
    assert spec.head_input == (channels, size)


@given(st.floats(0.1, 5_000))
def test_channels_round_to_the_nearest_multiple_but_never_far_down(value: float) -> None:
    rounded = round_channels(value)
    assert rounded % 8 == 0
    assert rounded >= max(8, 0.9 * value)
    assert rounded == 8 or abs(rounded - value) <= 4 or (rounded - 8 < 0.9 * value and rounded - value <= 8)


@pytest.mark.parametrize(("value", "rounded"), [(1, 8), (11, 16), (12, 16), (16.8, 16), (18, 24), (34, 32), (17.9, 24)])
def test_channels_round_as_published(value: float, rounded: int) -> None:
    assert round_channels(value) == rounded


# Invalid specs ----------------------------------------------------------------------------------------


def set_at(*keys: Any) -> Callable[[Any], Callable[[dict[str, Any]], None]]:
    """`set_at("head", "conv")(7)` changes a spec's dict there."""

    def with_value(value: Any) -> Callable[[dict[str, Any]], None]:
        def change(data: dict[str, Any]) -> None:
            *way, last = keys
            target: Any = data
            for key in way:
                target = target[key]
            target[last] = value

        return change

    return with_value


def removed(*keys: Any) -> Callable[[dict[str, Any]], None]:
    def change(data: dict[str, Any]) -> None:
        *way, last = keys
        target: Any = data
        for key in way:
            target = target[key]
        del target[last]

    return change


DATA = published_spec("mobilenet_v3_small").to_dict()
DATA["blocks"] = list(DATA["blocks"])
NOT_CHANNELS = [0, -8, True, 16.0, "16", None, [], MAX_CHANNELS + 1, 10**4000, float("nan")]
WRONG = [
    *((set_at("blocks", 3, "out")(value), "block 3: out is") for value in NOT_CHANNELS),
    *((set_at("blocks", 3, "expanded")(value), "block 3: expanded is") for value in NOT_CHANNELS),
    *((set_at("stem", "out")(value), "stem: out is") for value in NOT_CHANNELS),
    *((set_at("blocks", 3, "se")(value), "block 3: se is") for value in NOT_CHANNELS[1:]),
    *((set_at("head", "conv")(value), "head: conv is") for value in NOT_CHANNELS[1:]),
    *((set_at("head", "hidden")(value), "head: hidden is") for value in NOT_CHANNELS[1:]),
    *((set_at("blocks", 2, "kernel")(value), "block 2: kernel is") for value in (0, -3, 17, 3.0, True)),
    (set_at("blocks", 2, "kernel")(4), "block 2: kernel is 4; it must be odd"),
    *((set_at("blocks", 2, "stride")(value), "block 2: stride is") for value in (0, 3, False, 1.0)),
    *((set_at("blocks", 2, "op")(value), "mbconv, sepconv, uib, fused") for value in ("conv", None, ["mbconv"], 1)),
    *((set_at("head", "hidden_norm")(value), "hidden_norm is") for value in (0, 1, "true", None)),
    *((set_at("blocks", 2, "activation")(value), "relu, relu6, hswish") for value in ("swish", "", {}, None)),
    *((set_at("head", "activation")(value), "relu, relu6, hswish") for value in ("swish", 0)),
    (set_at("blocks", 2, "gate")("tanh"), "hard_sigmoid, sigmoid"),
    *((set_at("blocks", 2, "activate_output")(value), "true or false") for value in (0, 1, "true", None)),
    *((set_at("resolution")(value), "resolution is") for value in (31, 0, -224, True, 224.0, "224", None, 2_049)),
    *((set_at("norm_eps")(value), "norm_eps is") for value in (float("nan"), 0.0, -1e-3, 1.0, 1, "1e-3", None)),
    (set_at("norm_eps")(float("inf")), "norm_eps is inf"),
    *((set_at("name")(value), "name is") for value in ("", None, 3, "two\nlines", "\ud800", ["a"])),
    *((set_at("blocks")(value), "blocks must be a list") for value in ({}, None, "mbconv", 3)),
    (set_at("blocks")([]), "there are 0 blocks"),
    (set_at("blocks")(DATA["blocks"] * 30), "there are 330 blocks"),
    *((set_at("blocks", 4)(value), "block 4 must be a JSON object") for value in ([], None, "mbconv")),
    *((set_at("stem")(value), "stem must be a JSON object") for value in ([], None, 16)),
    *((set_at("head")(value), "head must be a JSON object") for value in ([], None, 16)),
    (set_at("blocks", 0, "expanded")(24), "block 0: a sepconv has no expansion"),
    (set_at("blocks", 1, "op")("sepconv"), "block 1: a sepconv has no expansion"),
    *((removed(key), f"{key!r} is missing") for key in ("name", "resolution", "stem", "blocks", "head")),
    *((removed("blocks", 1, key), f"block 1: {key!r} is missing") for key in ("kernel", "expanded", "out")),
    (removed("stem", "out"), "stem: 'out' is missing"),
    (removed("head", "conv"), "head: 'conv' is missing"),
    (set_at("width")(1.0), "spec: unknown key 'width'; known: name, resolution"),
    (set_at("x" * 5_000)(1), "spec: unknown key 'xxx"),
    (set_at("blocks", 1, "ratio")(6), "block 1: unknown key 'ratio'"),
    (set_at("stem", "kernel")(3), "stem: unknown key 'kernel'"),
    *((set_at("stem", "stride")(value), "stem: stride is") for value in (0, 3, "2", None, True)),
    (set_at("head")({"conv": 8, "hidden_norm": True}), "head: hidden_norm is true; a head without a hidden layer"),
    (set_at("head", "classes")(10), "head: unknown key 'classes'"),
    (set_at("version")(2), "a newer program wrote it"),
    *((set_at("version")(value), "version is") for value in (0, "1", None, True, [], {})),
    (removed("version"), "version is None"),
]


@pytest.mark.parametrize(("change", "message"), WRONG)
def test_a_wrong_spec_is_one_clear_line(change: Callable[[dict[str, Any]], None], message: str, tmp_path: Path) -> None:
    data = copy.deepcopy(DATA)
    change(data)
    path = tmp_path / "bad.json"
    path.write_text(json.dumps(data))
    with pytest.raises(NasError) as caught:
        ArchSpec.load(path)
    text = str(caught.value)
    assert message in text
    assert text.startswith(f"{path}: ")
    assert "\n" not in text
    assert len(text) - len(str(path)) < 250


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not JSON"),
        (b"name: mobilenet", "not JSON"),
        (DATA.__repr__().encode(), "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b'{"version":' * 100_000, "not JSON"),
        (b'{"version": ' + b"1" * 5_000 + b"}", "not JSON"),
        (b"\x89PNG\r\n\x1a\n\x00\xff\xfe", "not a text file"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'"mobilenet_v3_large"', "must be a JSON object"),
        (b"NaN", "must be a JSON object"),
        (b"{}", "version is None"),
    ],
)
@pytest.mark.parametrize("load", [ArchSpec.load, load_results])
def test_a_file_that_is_no_spec_is_one_clear_line(
    content: bytes, message: str, load: Callable[[Path], Any], tmp_path: Path
) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(content)
    if load is load_results and message.startswith(("must", "version")):
        assert load(path) == {}
        return
    with pytest.raises(NasError) as caught:
        load(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
PLACES = [
    ("name",), ("resolution",), ("stem",), ("stem", "out"), ("stem", "activation"), ("blocks",), ("blocks", 0),
    *(("blocks", 5, key) for key in DATA["blocks"][5]), ("head",), ("head", "conv"), ("head", "hidden"),
    ("head", "activation"), ("norm_eps",), ("version",), ("another",), ("blocks", 2, "another"),
]  # fmt: skip


@settings(max_examples=200)
@given(st.sampled_from(PLACES), JSON)
def test_any_value_is_a_spec_or_one_clear_line(place: tuple[Any, ...], value: Any) -> None:
    data = copy.deepcopy(DATA)
    set_at(*place)(value)(data)
    message = ""
    try:
        spec = ArchSpec.from_json(json.dumps(data))
    except NasError as error:
        message = str(error)
    else:
        assert ArchSpec.from_json(spec.to_json()) == spec
        assert len(spec.id) == 12
    assert "\n" not in message
    assert len(message) < 300


def test_a_deep_value_is_cut_in_the_error() -> None:
    with pytest.raises(NasError, match=r"^name is \[\[.*\.\.\.; it must be a text") as error:
        ArchSpec.from_dict({**DATA, "name": [[["0123456789"] * 6] * 6] * 6})
    assert len(str(error.value)) < 200


@given(st.text() | JSON.map(json.dumps))
def test_any_text_is_one_clear_line(text: str) -> None:
    with pytest.raises(NasError):
        ArchSpec.from_json(text)


@pytest.mark.parametrize("load", [ArchSpec.load, load_results])
def test_no_file_a_folder_and_no_permission(load: Callable[[Path], Any], tmp_path: Path) -> None:
    with pytest.raises(NasError, match=r"^\S*none\.json: no such file$"):
        load(tmp_path / "none.json")
    with pytest.raises(NasError, match="cannot be read"):
        load(tmp_path)
    with pytest.raises(NasError, match="cannot be read"):
        load(tmp_path / ("x" * 5_000))
    published_spec("mobilenet_v3_small").save(tmp_path / "a.json")
    with pytest.raises(NasError, match="cannot be read"):
        load(tmp_path / "a.json" / "b.json")


def test_python_callers_get_the_same_errors() -> None:
    spec = published_spec("mobilenet_v3_small")
    with pytest.raises(NasError, match="resolution is 16"):
        spec.replace(resolution=16)
    with pytest.raises(NasError, match="block 0: a sepconv"):
        spec.replace(stem=StemSpec(out=24))
    with pytest.raises(NasError, match="kernel is 6"):
        spec.with_block(3, kernel=6)


def test_blocks_are_a_tuple() -> None:
    """A spec has a hash, which a list has not."""
    spec = published_spec("mobilenet_v3_small")
    with pytest.raises(NasError, match=r"^blocks is a list; it must be a tuple$"):
        spec.replace(blocks=list(spec.blocks))
