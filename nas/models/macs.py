"""Count multiply-accumulates on a built network, to check the arithmetic of `nas.arch.cost`."""

from __future__ import annotations

import copy
import warnings

import torch
from torch import nn


def fvcore_macs(model: nn.Module, resolution: int) -> int:
    """Return the multiply-accumulates of all convolutions and linear layers, counted by fvcore.

    fvcore runs a copy of the network on one RGB image of side `resolution` (pixels). The network itself does not
    change.
    """
    model = copy.deepcopy(model).eval()
    weight = next(model.parameters())
    images = torch.zeros(1, 3, resolution, resolution, dtype=weight.dtype, device=weight.device)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # torch deprecates what fvcore uses, when it is imported and when it traces
        from fvcore.nn import FlopCountAnalysis

        analysis = FlopCountAnalysis(model, images)
        counts = analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).by_operator()
    return int(counts["conv"] + counts["linear"])
