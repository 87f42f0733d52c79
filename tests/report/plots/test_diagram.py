import dataclasses

import msgspec
import pytest
from support.drawn_texts import check_texts
from support.made_up_run import changed

from nas.arch.loading import load_space, load_spec
from nas.arch.skeleton import Variant
from nas.report.plots.diagram import diagram_data, draw


def test_diagram_has_a_box_for_every_layer_of_the_skeleton(run):
    data = diagram_data(run, "large")
    network = run.found("large")
    spec = network.spec
    blocks = [box for box in data.boxes if box.name.isdecimal()]
    assert [box.name for box in data.boxes if not box.name.isdecimal()] == ["stem", "conv", "FC", "FC"]
    assert [(b.kernel, b.inner, b.out, b.stride, b.se, b.activation) for b in blocks] == [
        (b.kernel, b.expanded, b.out, b.stride, b.se, b.activation) for b in spec.blocks
    ]
    assert sum(box.stride == 2 for box in data.boxes) == 5
    assert blocks[-1].size == spec.resolution // 32
    assert sum(box.ms for box in data.boxes if box.ms is not None) == pytest.approx(network.predicted_ms)
    assert f"{network.estimated_top1:.1f} ± 0.7 % top-1 estimated" in data.subtitle


def test_a_stem_of_stride_1_keeps_the_size(run):
    found = run.record.networks[0]
    spec = found.spec.replace(stem=dataclasses.replace(found.spec.stem, stride=1))
    networks = (msgspec.structs.replace(found, spec=spec), *run.record.networks[1:])
    stem, *others = diagram_data(changed(run, networks=networks), "large").boxes
    assert (stem.stride, stem.size) == (1, spec.resolution)
    assert sum(box.stride == 2 for box in others) == 4


def test_diagram_without_a_breakdown_has_no_times(run):
    first, *others = run.record.networks
    networks = (msgspec.structs.replace(first, breakdown=()), *others)
    data = diagram_data(changed(run, networks=networks), "large")
    assert all(box.ms is None for box in data.boxes)


def test_the_deepest_and_widest_network_still_fits(run):
    space = load_space("mobilenet_v3_large").at([Variant(1.4, 288)])
    spec = space.decode([space.build_encoding(lambda decision: len(decision.choices) - 1)])[0]
    breakdown = (("stem", 1.0), *((f"block {n + 1}", 2.5) for n in range(len(spec.blocks))))
    found = msgspec.structs.replace(run.record.networks[0], spec=spec, breakdown=breakdown)
    data = diagram_data(changed(run, networks=(found,)), "large")
    assert len(data.boxes) == 25
    check_texts(draw(data))


def test_universal_and_fused_blocks_say_their_kernels(run):
    found = run.found("large")
    spec = load_spec("mobilenetv4_conv_medium")
    parts = msgspec.structs.replace(found, spec=spec, breakdown=())
    others = tuple(network for network in run.record.networks if network is not found)
    data = diagram_data(changed(run, networks=(parts, *others)), "large")
    labels = {box.name: (box.label, box.kernel) for box in data.boxes}
    assert [labels[name] for name in ("1", "2", "9", "10")] == [
        ("3×3\nfull", 3),
        ("3×3\n5×5", 5),
        ("3×3\n–", 3),
        ("1×1", 1),
    ]
    check_texts(draw(data))
