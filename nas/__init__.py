"""Hardware-aware architecture search and NetAdapt around MobileNetV3, for CPUs.

Names are handed on when first used (PEP 562), so that `import nas` loads neither torch nor a runtime.
"""

from __future__ import annotations

import importlib
from typing import Any

_PUBLIC = {
    "ArchSpec": "nas.arch.spec",
    "BlockSpec": "nas.arch.spec",
    "HeadSpec": "nas.arch.spec",
    "StemSpec": "nas.arch.spec",
    "NasError": "nas.errors",
    "SearchSpace": "nas.arch.space",
    "Stage": "nas.arch.skeleton",
    "load_spec": "nas.arch.loading",
    "load_space": "nas.arch.loading",
    "load_estimator": "nas.accuracy",
    "published_results": "nas.arch.published",
    "count_cost": "nas.arch.cost",
    "build_model": "nas.models.mobilenet",
    "segmentation_model": "nas.models.heads",
    "detection_model": "nas.models.heads",
    "load_model": "nas.training.checkpoint",
    "LatencyTable": "nas.latency.table",
    "LatencyPredictor": "nas.latency.predictor",
    "measure_latency": "nas.latency.networks",
    "load_run": "nas.runs.reading",
    "AdditiveSampler": "nas.search.sampler",
    "LinearLimit": "nas.search.sampler",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
