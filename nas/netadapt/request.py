"""Hold the arguments of a run of NetAdapt."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nas.accuracy import ESTIMATORS, ON_IMAGES
from nas.errors import NasError
from nas.names import resolve
from nas.netadapt.proposals import STEP_SHARE, Rules

SHARED_STEPS = 600  # those of `benchmarks/netadapt_truth.py`
# The best networks of Channel-Bench-Macro have a narrow stem and last convolution (benchmarks/netadapt_truth.py).
ALLOWED_ON_IMAGES = ("stem", "head")


@dataclass(frozen=True, kw_only=True)
class NetAdaptRequest:
    """The arguments of `python -m nas.netadapt`. Raises NasError for those that do not go together."""

    network: str  # the seed: a published network by name, a spec's file, a checkpoint, or its run's folder
    budget_ms: float
    weights: str | None = None  # of the seed: a file, its run's folder, or DEFAULT for torchvision's
    data: str | None = None  # images on which cuts are trained and judged; None: the estimator evaluates
    data_dir: Path | None = None
    loaders: int | None = None  # processes that read images from disk, at most; None: as suits the machine
    resolution: int | None = None  # pixels; None: the network's own, and 32 on the embedded images
    shared_steps: int = SHARED_STEPS  # batches on which the weights are trained that all cuts share
    bf16: bool = False  # compute that training in bfloat16
    recipe: str = "quick"  # by name, or a file
    epochs: int | None = None  # None: the recipe's
    finish: str = "none"  # or "fine-tune", or "scratch": how the final network is trained
    step: float = STEP_SHARE  # share of the seed's latency that a step saves at least
    metric: str = "ratio"
    allow: tuple[str, ...] | None = None  # cuts beside the paper's; None: ALLOWED_ON_IMAGES with data, else none
    table: str | None = None
    runtime: str = "onnxruntime"
    threads: int = 1  # of the runtime
    precision: str = "float32"
    estimator: str = "imagenet-prior"
    measure_every: int = 5  # steps
    workers: int | None = None  # processes that judge networks; by default one a core, on a GPU one
    seed: int = 0

    def __post_init__(self) -> None:
        of_training = {
            f"--finish {self.finish}": self.finish != "none",
            "--shared-steps": self.shared_steps != SHARED_STEPS,
            "--bf16": self.bf16,
            "--recipe": self.recipe != NetAdaptRequest.recipe,
            "--epochs": self.epochs is not None,
        }
        given = [flag for flag, differs in of_training.items() if differs]
        if given and not self.data:
            need = "needs" if len(given) == 1 else "need"
            raise NasError(f"{' and '.join(given)} {need} images to train on; name them with --data")
        if self.estimator in ON_IMAGES:
            raise NasError(
                f"--estimator {self.estimator} is for searches; name the images with --data alone, and cuts are "
                "judged by weights that are trained for all of them"
            )
        resolve("estimator", self.estimator, ESTIMATORS)

    @property
    def rules(self) -> Rules:
        """Return the rules for proposals. Raises NasError for impossible values."""
        return Rules(step_share=self.step, metric=self.metric, allow=self.cuts)

    @property
    def cuts(self) -> tuple[str, ...]:
        """Return what may be cut beside the paper's expansions and bottlenecks."""
        if self.allow is None:
            return ALLOWED_ON_IMAGES if self.data else ()
        return self.allow

    def lasting_arguments(self) -> dict[str, Any]:
        """Return the arguments that a run keeps when it resumes."""
        changeable = ("loaders", "workers", "finish", "epochs")
        lasting = {key: value for key, value in asdict(self).items() if key not in changeable}
        return lasting | {"data_dir": None if self.data_dir is None else str(self.data_dir)}
