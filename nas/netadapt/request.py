"""What somebody wants trimmed, and how."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas.accuracy import ESTIMATORS, TRAINING
from nas.errors import NasError
from nas.names import resolve
from nas.netadapt.algorithm import Rules


@dataclass(frozen=True, kw_only=True)
class Request:
    """The arguments of `python -m nas.netadapt`. Raises NasError for those that do not go together."""

    network: str  # a published network by name, a spec's file, or a checkpoint of nas.train
    budget_ms: float
    weights: str | None = None  # of the network: a file, or DEFAULT for torchvision's
    data: str | None = None  # images that proposals are trained and judged on; the estimator judges without
    data_dir: Path | None = None
    resolution: int | None = None  # pixels; the network's own by default, on the embedded images theirs
    proposal_steps: int = 10  # batches
    recipe: str = "quick"  # by name, or a file
    epochs: int | None = None  # the recipe's own by default
    finish: str = "none"  # or "fine-tune", or "scratch": a long training of what is left
    step: float = 0.01  # share of the latency that a step saves at least
    metric: str = "ratio"
    allow: tuple[str, ...] = ()
    table: str | None = None
    runtime: str = "onnxruntime"
    estimator: str = "imagenet-prior"
    measure_every: int = 5  # steps
    workers: int = 1  # processes that train proposals
    seed: int = 0

    def __post_init__(self) -> None:
        if self.finish != "none" and not self.data:
            raise NasError(f"--finish {self.finish} needs images to train on; name them with --data")
        if self.estimator == TRAINING:
            raise NasError(
                f"--estimator {TRAINING} would train every proposal from nothing; name the images with --data, "
                "and each is trained on from the weights that it inherits"
            )
        resolve("estimator", self.estimator, ESTIMATORS)

    @property
    def rules(self) -> Rules:
        """Raises NasError for impossible values."""
        return Rules(share=self.step, metric=self.metric, allow=self.allow, one_each=bool(self.data))

    def lasting(self) -> dict[str, Any]:
        """The arguments that a resumed run must share."""
        known = {key: value for key, value in asdict(self).items() if key not in ("workers", "finish", "epochs")}
        return known | {"data_dir": None if self.data_dir is None else str(self.data_dir)}
