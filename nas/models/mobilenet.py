"""Build a spec as a torch module, out of torchvision's own parts::

    model = build_model(load_spec("mobilenet_v3_large"), num_classes=10)

The modules have torchvision's names. The weights of its `mobilenet_v3_large`, `mobilenet_v3_small` and `mobilenet_v2`
load strictly into the specs of these names, and back. The outputs are equal to the last bit.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.models import mobilenetv2, mobilenetv3
from torchvision.ops import Conv2dNormActivation, SqueezeExcitation

from nas.arch.cost import NUM_CLASSES
from nas.arch.spec import ArchSpec, PlacedBlock

ACTIVATIONS = {"relu": nn.ReLU, "relu6": nn.ReLU6, "hswish": nn.Hardswish}
GATES = {"hard_sigmoid": nn.Hardsigmoid, "sigmoid": nn.Sigmoid}
# MobileNetV3's (arXiv 1905.02244, section 6.1.1). It is too slow for the statistics of a short training, which
# nas.training.batchnorm recalibrates before they are used.
NORM_MOMENTUM = 0.01
Norm = partial[nn.BatchNorm2d]


def build_model(spec: ArchSpec, num_classes: int = NUM_CLASSES, dropout: float = 0.2) -> MobileNet:
    """Return the module of a spec, freshly initialised from torch's global random state."""
    return MobileNet(spec, num_classes, dropout)


class MobileNet(nn.Module):
    """Stem, blocks and last 1x1 (`features`), `avgpool`, `classifier`: images (n, 3, h, w) to logits (n, classes).

    `features[1 + i]` is block i of `spec`.
    """

    def __init__(self, spec: ArchSpec, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.spec = spec
        norm = partial(nn.BatchNorm2d, eps=spec.norm_eps, momentum=NORM_MOMENTUM)
        head, channels = spec.head, spec.head.conv or spec.head_input[0]
        self.features = build_features(spec, norm)
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        classifier: list[nn.Module] = []
        if head.hidden:
            classifier.append(nn.Linear(channels, head.hidden, bias=not head.hidden_norm))
            if head.hidden_norm:
                classifier.append(nn.BatchNorm1d(head.hidden, eps=spec.norm_eps, momentum=NORM_MOMENTUM))
            classifier.append(ACTIVATIONS[head.activation](inplace=True))
            channels = head.hidden
        self.classifier = nn.Sequential(
            *classifier, nn.Dropout(p=dropout, inplace=bool(head.hidden)), nn.Linear(channels, num_classes)
        )
        initialise(self)

    def forward(self, images: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.avgpool(self.features(images)), 1))


def build_features(spec: ArchSpec, norm: Norm, max_stride: int | None = None) -> nn.Sequential:
    """Return the stem, the blocks and the last 1x1 of a spec, not initialised yet.

    Beyond `max_stride` maps keep their size, and the convolutions of more than a pixel are dilated instead
    (arXiv 1706.05587).
    """
    stem, head = spec.stem, spec.head
    layers: list[nn.Module] = [
        Conv2dNormActivation(
            3, stem.out, stride=stem.stride, norm_layer=norm, activation_layer=ACTIVATIONS[stem.activation]
        )
    ]
    stride = stem.stride
    for placed in spec.walk():
        stride *= placed.block.stride
        layers.append(_block(placed, norm, max(1, stride // max_stride) if max_stride else 1))
    if head.conv:
        layers.append(
            Conv2dNormActivation(
                spec.head_input[0], head.conv, 1, norm_layer=norm, activation_layer=ACTIVATIONS[head.activation]
            )
        )
    return nn.Sequential(*layers)


def initialise(model: nn.Module) -> None:
    """Initialise a model as torchvision's MobileNets. Batch norm starts at 1 and 0 by itself."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0, 0.01)
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def _block(placed: PlacedBlock, norm: Norm, dilation: int) -> nn.Module:
    """Return torchvision's block if it can express this one, else an `InvertedResidual` of this module."""
    block, in_channels = placed.block, placed.in_channels
    # Neither of torchvision's blocks has an expand convolution where the channels stay the same.
    expands_as_torchvision = (block.op == "mbconv") == (block.expanded != in_channels)
    if block.op in ("mbconv", "sepconv") and expands_as_torchvision and not block.activate_output:
        if block.activation == "relu6":
            if block.kernel == 3 and not block.se and dilation == 1:
                return mobilenetv2.InvertedResidual(
                    in_channels, block.out, block.stride, block.expanded / in_channels, norm
                )
        elif all(channels % 8 == 0 for channels in (in_channels, block.expanded, block.out)):
            config = mobilenetv3.InvertedResidualConfig(
                input_channels=in_channels,
                kernel=block.kernel,
                expanded_channels=block.expanded,
                out_channels=block.out,
                use_se=block.se > 0,
                activation="HS" if block.activation == "hswish" else "RE",
                stride=block.stride,
                dilation=dilation,
                width_mult=1.0,  # which rounds the channels to multiples of 8
            )
            # By default the block would compute the squeezed channels; the spec names them.
            return mobilenetv3.InvertedResidual(config, norm, lambda expanded, _: _squeeze(placed))
    return InvertedResidual(placed, norm, dilation)


def _squeeze(placed: PlacedBlock) -> SqueezeExcitation:
    block = placed.block
    return SqueezeExcitation(block.expanded, block.se, scale_activation=GATES[block.gate])


class InvertedResidual(nn.Module):
    """MBConv for any block: (depthwise, BN,) 1x1, BN, AF, depthwise, BN, AF, SE, 1x1, BN (, AF) (+ input).

    Modules are named as in torchvision's V3. With a dilation the map keeps its size. What comes before the stride, and
    so on a map that was not to be smaller, is dilated by less.
    """

    def __init__(self, placed: PlacedBlock, norm: Norm, dilation: int = 1) -> None:
        super().__init__()
        block = placed.block
        activation = ACTIVATIONS[block.activation]
        stride = block.stride if dilation == 1 else 1
        layers: list[nn.Module] = []
        if block.start_kernel:
            layers.append(
                Conv2dNormActivation(
                    placed.in_channels,
                    placed.in_channels,
                    block.start_kernel,
                    1 if block.kernel else stride,
                    groups=placed.in_channels,
                    dilation=max(1, dilation // block.stride) if block.kernel else dilation,
                    norm_layer=norm,
                    activation_layer=None,
                )
            )
        if block.has_expand:
            layers.append(
                Conv2dNormActivation(
                    placed.in_channels, block.expanded, 1, norm_layer=norm, activation_layer=activation
                )
            )
        if block.kernel:
            fused = block.op == "fused"
            layers.append(
                Conv2dNormActivation(
                    placed.in_channels if fused else block.expanded,
                    block.expanded,
                    block.kernel,
                    stride,
                    groups=1 if fused else block.expanded,
                    dilation=dilation,
                    norm_layer=norm,
                    activation_layer=activation,
                )
            )
        if block.se:
            layers.append(_squeeze(placed))
        layers.append(
            Conv2dNormActivation(
                block.expanded,
                block.out,
                1,
                norm_layer=norm,
                activation_layer=activation if block.activate_output else None,
            )
        )
        self.block = nn.Sequential(*layers)
        self.use_res_connect = placed.has_residual

    def forward(self, images: Tensor) -> Tensor:
        result = self.block(images)
        return result + images if self.use_res_connect else result


@torch.no_grad()
def folded_convolutions(model: nn.Module) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return weight and bias (float32) of every convolution and linear layer, with batch norm folded in.

    They are in the order of `nas.arch.cost.network_layers`, in which the layers run and their modules are listed.
    """
    folded: list[tuple[Tensor, Tensor]] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            weight = module.weight.double()
            folded.append((weight, weight.new_zeros(len(weight)) if module.bias is None else module.bias.double()))
        elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            weight, bias = folded[-1]  # of the convolution in front of it
            scale = module.weight.double() / (module.running_var.double() + module.eps).sqrt()
            bias = (bias - module.running_mean.double()) * scale + module.bias.double()
            folded[-1] = weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), bias
    return [(weight.float().cpu().numpy(), bias.float().cpu().numpy()) for weight, bias in folded]
