"""Hold the arguments of a run of NetAdapt."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas.accuracy import ESTIMATORS, ON_IMAGES
from nas.errors import NasError
from nas.names import resolve
from nas.netadapt.proposals import STEP_SHARE, Rules


@dataclass(frozen=True, kw_only=True)
class NetAdaptRequest:
    """The arguments of `python -m nas.netadapt`. Raises NasError for those that do not go together."""

    network: str  # the seed: a published network by name, a spec's file, a checkpoint, or its run's folder
    budget_ms: float
    weights: str | None = None  # of the seed: a file, its run's folder, or DEFAULT for torchvision's
    data: str | None = None  # images on which proposals are trained and evaluated; None: the estimator evaluates
    data_dir: Path | None = None
    loaders: int | None = None  # processes that read images from disk, at most; None: as suits the machine
    resolution: int | None = None  # pixels; None: the network's own, and 32 on the embedded images
    proposal_steps: int = 10  # batches on which each proposal is trained
    recipe: str = "quick"  # by name, or a file
    epochs: int | None = None  # None: the recipe's
    finish: str = "none"  # or "fine-tune", or "scratch": how the final network is trained
    step: float = STEP_SHARE  # share of the seed's latency that a step saves at least
    metric: str = "ratio"
    allow: tuple[str, ...] = ()
    table: str | None = None
    runtime: str = "onnxruntime"
    estimator: str = "imagenet-prior"
    measure_every: int = 5  # steps
    workers: int | None = None  # processes that train proposals; by default one a core, on a GPU one
    seed: int = 0

    def __post_init__(self) -> None:
        if self.finish != "none" and not self.data:
            raise NasError(f"--finish {self.finish} needs images to train on; name them with --data")
        if self.estimator in ON_IMAGES:
            raise NasError(
                f"--estimator {self.estimator} is for searches; name the images with --data alone, and each proposal "
                "is trained from the weights that it inherits"
            )
        resolve("estimator", self.estimator, ESTIMATORS)

    @property
    def rules(self) -> Rules:
        """Return the rules for proposals. Raises NasError for impossible values."""
        return Rules(step_share=self.step, metric=self.metric, allow=self.allow, one_per_place=bool(self.data))

    def lasting_arguments(self) -> dict[str, Any]:
        """Return the arguments that a run keeps when it resumes."""
        changeable = ("loaders", "workers", "finish", "epochs")
        lasting = {key: value for key, value in asdict(self).items() if key not in changeable}
        return lasting | {"data_dir": None if self.data_dir is None else str(self.data_dir)}
