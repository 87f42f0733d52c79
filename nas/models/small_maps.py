"""Convolve small maps without the products with padding, for training on small images on a CPU.

On a map smaller than the kernel's reach the outer taps of a convolution read padding only: a 5x5 kernel on a 1x1 map is
its centre, and 24 of 25 products are with zeros. torch computes all of them, forward and backward. Without them the
result is the same.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

POINTWISE_SIDE = 8  # up to this side of the map a product of matrices is no slower than a 1x1 convolution


class SmallMapConv2d(nn.Conv2d):
    """A `Conv2d` on (n, c, h, w) with the same parameters and results, faster on small maps."""

    def forward(self, images: Tensor) -> Tensor:
        side, reach = max(images.shape[2:]), self.kernel_size[0] // 2
        if not reach and side <= POINTWISE_SIDE and self.groups == 1 and self.stride == (1, 1):
            return functional.linear(images.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        if side > reach:
            return super().forward(images)
        unread = reach - side + 1
        weight = self.weight[:, :, unread:-unread, unread:-unread]
        if side == 1 and self.groups == self.in_channels == self.out_channels:
            result = images * weight.reshape(1, -1, 1, 1)
            return result if self.bias is None else result + self.bias.reshape(1, -1, 1, 1)
        return functional.conv2d(images, weight, self.bias, self.stride, side - 1, 1, self.groups)


def use_small_map_convolutions(model: nn.Module) -> None:
    """Turn the model's convolutions into `SmallMapConv2d`. Parameters, names and types of blocks do not change."""
    for module in model.modules():
        if type(module) is nn.Conv2d and _is_same_padded(module):
            module.__class__ = SmallMapConv2d


def _is_same_padded(module: nn.Conv2d) -> bool:
    kernel = module.kernel_size[0]
    return (
        module.kernel_size == (kernel, kernel)
        and kernel % 2 == 1
        and module.padding == (kernel // 2, kernel // 2)
        and module.dilation == (1, 1)
        and module.padding_mode == "zeros"
    )
