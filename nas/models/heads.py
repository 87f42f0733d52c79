"""Use a network as the backbone of torchvision's light heads for segmentation and detection::

    model = nas.segmentation_model(nas.load_spec("reports/20ms/large.json"), num_classes=21)
    model = nas.detection_model(nas.load_spec("mobilenet_v3_large"), num_classes=91)

Both heads are those of the MobileNetV3 paper (arXiv 1905.02244, sections 6.3 and 6.4). For V3-Large the models have the
parameters of torchvision's `lraspp_mobilenet_v3_large` and `ssdlite320_mobilenet_v3_large`, with the same names. The
same weights give the same outputs.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import nn
from torchvision.models import mobilenetv3
from torchvision.models._utils import IntermediateLayerGetter
from torchvision.models.detection._utils import retrieve_out_channels
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import (
    SSDLiteFeatureExtractorMobileNet,
    SSDLiteHead,
    _extra_block,
    _normal_init,
)
from torchvision.models.segmentation import LRASPP

from nas.arch.spec import ArchSpec, BlockSpec, round_channels, squeezed_channels
from nas.errors import NasError
from nas.models.mobilenet import NORM_MOMENTUM, MobileNet, build_features, initialise

DETECTION_SIZE = 320  # pixels, of SSDLite320
DETECTION_NORM_MOMENTUM = 0.03
EXTRA_CHANNELS = (512, 256, 256, 128)  # of the maps behind the network's own


def segmentation_model(spec: ArchSpec, num_classes: int = 21, trained: MobileNet | None = None) -> LRASPP:
    """Return LR-ASPP on a network: images (n, 3, h, w) to {"out": logits (n, classes, h, w)}.

    The last blocks are dilated, so that no stride exceeds 16. The backbone starts with the weights of `trained`, a
    network of this spec, if it is given. Raises NasError for a spec without blocks of strides 8 and 16, and for a
    trained network of another spec.
    """
    low = _low_tap(spec)
    if max(_strides(spec)) < 16:
        raise NasError(f"{spec.name}: its strides are {_listed(spec)}; LR-ASPP needs a map of stride 16 as well")
    features = build_features(spec, partial(nn.BatchNorm2d, eps=spec.norm_eps, momentum=NORM_MOMENTUM), max_stride=16)
    initialise(features)
    _copy_features(spec, features, trained)
    taps = {str(low): "low", str(len(features) - 1): "high"}
    low_channels = spec.blocks[low - 1].out
    return LRASPP(IntermediateLayerGetter(features, taps), low_channels, _out_channels(spec), num_classes)


def detection_model(spec: ArchSpec, num_classes: int = 91, trained: MobileNet | None = None) -> SSD:
    """Return SSDLite at 320 px on a network. It is called as torchvision's detectors; class 0 is the background.

    The backbone starts with the weights of `trained`, a network of this spec, if it is given. Otherwise its channels of
    stride 32 are halved, as in the paper. Raises NasError for a spec whose last blocks are not of stride 32, and for a
    trained network of another spec.
    """
    if trained is None:
        spec = _reduced_tail(spec)
    strides = _strides(spec)
    if max(strides) != 32 or 16 not in strides:
        raise NasError(f"{spec.name}: its strides are {_listed(spec)}; SSDLite taps the last maps of strides 16 and 32")
    norm = partial(nn.BatchNorm2d, eps=spec.norm_eps, momentum=DETECTION_NORM_MOMENTUM)
    features = build_features(spec, norm)
    initialise(features)
    if trained is None:
        _normal_init(features)
    _copy_features(spec, features, trained)
    tapped = strides.index(32)
    backbone = _DetectionBackbone(features, tapped, spec.blocks[tapped - 1], _out_channels(spec), norm)
    anchors = DefaultBoxGenerator([[2, 3] for _ in range(6)], min_ratio=0.2, max_ratio=0.95)
    size = (DETECTION_SIZE, DETECTION_SIZE)
    channels = retrieve_out_channels(backbone, size)
    return SSD(
        backbone,
        anchors,
        size,
        num_classes,
        head=SSDLiteHead(channels, anchors.num_anchors_per_location(), num_classes, norm),
        score_thresh=0.001,
        nms_thresh=0.55,
        detections_per_img=300,
        topk_candidates=300,
        image_mean=[0.5, 0.5, 0.5],  # to [-1, 1]
        image_std=[0.5, 0.5, 0.5],
    )


class _DetectionBackbone(SSDLiteFeatureExtractorMobileNet):
    """The six maps that SSDLite reads.

    The first is the expansion of the first block of stride 32, which still has stride 16; a block without an expansion
    before its stride is tapped at its input. The second is the network's last map. Four more follow it.
    """

    def __init__(
        self, features: nn.Sequential, tapped: int, block_spec: BlockSpec, channels: int, norm: partial[nn.BatchNorm2d]
    ) -> None:
        nn.Module.__init__(self)  # torchvision's constructor accepts its own V3 blocks only
        block = features[tapped]
        layers = getattr(block, "conv", None) or block.block  # V2's and V3's names
        assert isinstance(layers, nn.Sequential)
        expansion = 0
        if block_spec.has_expand and block_spec.kernel:  # else the stride is not behind it
            expansion = 2 if block_spec.start_kernel else 1
        self.features = nn.Sequential(
            nn.Sequential(*features[:tapped], *layers[:expansion]),
            nn.Sequential(layers[expansion:], *features[tapped + 1 :]),
        )
        depths = (channels, *EXTRA_CHANNELS)
        self.extra = nn.ModuleList(
            _extra_block(before, after, norm) for before, after in zip(depths, EXTRA_CHANNELS, strict=False)
        )
        _normal_init(self.extra)


def _strides(spec: ArchSpec) -> list[int]:
    """Return the strides of the outputs of the stem and of each block."""
    strides = [spec.stem.stride]
    for block in spec.blocks:
        strides.append(strides[-1] * block.stride)
    return strides


def _listed(spec: ArchSpec) -> str:
    return ", ".join(map(str, sorted(set(_strides(spec)))))


def _out_channels(spec: ArchSpec) -> int:
    return spec.head.conv or spec.blocks[-1].out


def _low_tap(spec: ArchSpec) -> int:
    """Return the index of the last block of stride 8 among the features.

    In torchvision's own networks it is the first block of stride 8, as torchvision has it.
    """
    strides = _strides(spec)
    if 8 not in strides:
        raise NasError(f"{spec.name}: its strides are {_listed(spec)}; LR-ASPP taps a block of stride 8")
    first = strides.index(8)
    return first if _is_torchvision_network(spec) else first + strides.count(8) - 1


def _is_torchvision_network(spec: ArchSpec) -> bool:
    """Return whether the strides and blocks are those of torchvision's MobileNetV3-Large or -Small."""
    if spec.stem.stride != 2 or any(block.op in ("uib", "fused") for block in spec.blocks):
        return False
    rows = [
        (p.in_channels, b.kernel, b.expanded, b.out, b.se > 0, b.activation == "hswish", b.stride)
        for p in spec.walk()
        for b in [p.block]
    ]
    for name in ("mobilenet_v3_large", "mobilenet_v3_small"):
        theirs, _ = mobilenetv3._mobilenet_v3_conf(name)
        if rows == [
            (c.input_channels, c.kernel, c.expanded_channels, c.out_channels, c.use_se, c.use_hs, c.stride)
            for c in theirs
        ]:
            return True
    return False


def _reduced_tail(spec: ArchSpec) -> ArchSpec:
    """Return the network with half of the channels from stride 32 on (arXiv 1905.02244, table 6)."""
    blocks = list(spec.blocks)
    strides = _strides(spec)
    for index, block in enumerate(blocks):
        if strides[index + 1] < 32:
            continue
        block = block.replace(out=round_channels(block.out / 2))
        if strides[index] >= 32:  # the expansion of the first such block has stride 16
            expanded = blocks[index - 1].out if block.op == "sepconv" else round_channels(block.expanded / 2)
            se = squeezed_channels(expanded) if block.se == squeezed_channels(block.expanded) else block.se // 2
            block = block.replace(expanded=expanded, se=max(1, se) if block.se else 0)
        blocks[index] = block
    head = spec.head
    return spec.replace(
        blocks=tuple(blocks),
        head=replace(head, conv=round_channels(head.conv / 2) if head.conv else 0),
    )


@torch.no_grad()
def _copy_features(spec: ArchSpec, features: nn.Sequential, trained: MobileNet | None) -> None:
    """Copy the features of a trained network, in their order: dilated blocks can have other names.

    Raises NasError for a trained network of another spec.
    """
    if trained is None:
        return
    if trained.spec.replace(name=spec.name, resolution=spec.resolution) != spec:
        raise NasError(f"the trained network is of another spec ({trained.spec.name}) than {spec.name}")
    pairs = zip(features.state_dict().values(), trained.features.state_dict().values(), strict=True)
    for target, source in pairs:
        target.copy_(source)
