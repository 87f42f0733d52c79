"""Convolve small maps without the products with padding, for training on small images on a CPU.

On a map smaller than the kernel's reach the outer taps of a convolution read padding only: a 5x5 kernel on a 1x1 map is
its centre, and 24 of 25 products are with zeros. torch computes all of them, forward and backward. Without them the
result is the same.

For the gradient of a depthwise convolution's weights oneDNN, which torch calls, has a quick kernel for 3x3 on maps of
some size only. Its other one computes sixteen times what is needed. Here that gradient is computed in other ways where
these are quicker.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

POINTWISE_SIDE = 8  # up to this side of the map a product of matrices is no slower than a 1x1 convolution
PAIRS = 64  # up to so many pairs of a place in the result and one in the input their products are computed
CONVOLVED_SIDE = 8  # up to this side the gradient of weights is computed as a convolution with the result's gradient


class SmallMapConv2d(nn.Conv2d):
    """A `Conv2d` on (n, c, h, w) with the same parameters and results, faster on small maps."""

    def forward(self, images: Tensor) -> Tensor:
        side, reach = max(images.shape[2:]), self.kernel_size[0] // 2
        if not reach and side <= POINTWISE_SIDE and self.groups == 1 and self.stride == (1, 1):
            return functional.linear(images.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias).permute(0, 3, 1, 2)
        if side > reach:
            return self._convolved(images, self.weight, reach)
        unread = reach - side + 1
        weight = self.weight[:, :, unread:-unread, unread:-unread]
        if side == 1 and self.groups == self.in_channels == self.out_channels:
            result = images * weight.reshape(1, -1, 1, 1)
            return result if self.bias is None else result + self.bias.reshape(1, -1, 1, 1)
        return self._convolved(images, weight, side - 1)

    def _convolved(self, images: Tensor, weight: Tensor, padding: int) -> Tensor:
        stride = self.stride[0]
        depthwise = self.groups == self.in_channels == self.out_channels and self.bias is None
        if depthwise and stride > 1 and images.device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # In bfloat16 the gradient with a stride takes twenty times as long.
            with torch.autocast("cpu", enabled=False):
                return functional.conv2d(images.float(), weight, None, self.stride, padding, 1, self.groups)
        # In bfloat16 and on other devices other kernels are at work.
        plain = images.device.type == "cpu" and images.dtype == weight.dtype and not torch.is_autocast_enabled("cpu")
        needed = plain and torch.is_grad_enabled() and weight.requires_grad and stride == self.stride[1]
        if depthwise and needed and _way(images.shape[2:], weight.shape[2], stride, padding):
            return _Depthwise.apply(images, weight, stride, padding)
        return functional.conv2d(images, weight, self.bias, self.stride, padding, 1, self.groups)


def _way(sides: torch.Size, kernel: int, stride: int, padding: int) -> str:
    """Return how the gradient of a depthwise convolution's weights is computed soonest; empty if by torch itself."""
    outputs = [(side + 2 * padding - kernel) // stride + 1 for side in sides]
    if kernel < 3 or (kernel == 3 and (max(sides) > 3 or max(outputs) > 2)):
        return ""
    if sides[0] * sides[1] * outputs[0] * outputs[1] <= PAIRS:
        return "pairs"
    return "convolution" if stride == 1 and max(sides) <= CONVOLVED_SIDE else ""


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution without bias, of images (n, c, h, w) with weights (c, 1, k, k)."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        return functional.conv2d(images, weight, None, stride, padding, 1, len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, None, None]:
        images, weight = ctx.saved_tensors
        stride, padding = ctx.stride, ctx.padding
        of_images = None
        if ctx.needs_input_grad[0]:
            of_images, _, _ = torch.ops.aten.convolution_backward(
                *(gradient, images, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], len(weight)),
                [True, False, False],
            )
        if _way(images.shape[2:], weight.shape[2], stride, padding) == "pairs":
            return of_images, _by_pairs(images, gradient, weight.shape[2], stride, padding), None, None
        return of_images, _by_convolution(images, gradient, padding), None, None


def _by_pairs(images: Tensor, gradient: Tensor, kernel: int, stride: int, padding: int) -> Tensor:
    """Return the gradient of weights: each pair of places adds to the one weight that connects them."""
    channels = images.shape[1]
    x, y = (tensor.permute(0, 2, 3, 1).reshape(len(tensor), -1, channels) for tensor in (images, gradient))
    products = (y[:, :, None] * x[:, None]).sum(0).flatten(0, 1)
    weights = _connecting(tuple(images.shape[2:]), tuple(gradient.shape[2:]), kernel, stride, padding)
    sums = products.new_zeros(kernel * kernel + 1, channels).index_add_(0, weights, products)
    return sums[:-1].t().reshape(channels, 1, kernel, kernel)


@cache
def _connecting(inputs: tuple[int, int], outputs: tuple[int, int], kernel: int, stride: int, padding: int) -> Tensor:
    """Return for each pair of an output and an input which of the k*k weights connects them; k*k if none does."""

    def taps(side: int, out: int) -> Tensor:
        return torch.arange(side) - stride * torch.arange(out)[:, None] + padding  # (out, side)

    rows, columns = (taps(*sides) for sides in zip(inputs, outputs, strict=True))
    rows, columns = rows[:, None, :, None], columns[None, :, None, :]
    inside = (rows >= 0) & (rows < kernel) & (columns >= 0) & (columns < kernel)
    return torch.where(inside, rows * kernel + columns, kernel * kernel).flatten()


def _by_convolution(images: Tensor, gradient: Tensor, padding: int) -> Tensor:
    """Return the gradient of weights at stride 1.

    The images are convolved with the gradient of the result, with each channel of each image by itself: the quick
    kernel for results, not the slow one for weights.
    """
    count, channels = images.shape[:2]
    x, y = (tensor.permute(2, 3, 0, 1).flatten(2) for tensor in (images, gradient))
    convolved = functional.conv2d(
        x.permute(2, 0, 1)[None], y.permute(2, 0, 1)[:, None], padding=padding, groups=count * channels
    )
    return convolved.reshape(count, channels, *convolved.shape[2:]).sum(0)[:, None]


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
