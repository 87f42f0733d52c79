"""Hold what all stages of one search share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from optuna.storages import BaseStorage

from nas.accuracy.estimator import Estimator
from nas.arch.cost import NUM_CLASSES
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.console import Console
from nas.latency.predictor import LatencyPredictor
from nas.latency.table import LatencyTable
from nas.runs.folder import RunFolder
from nas.search.limits import Limit
from nas.search.request import SearchRequest


@dataclass(frozen=True)
class SearchContext:
    """The parts that all stages of one search share.

    `say_once` prints what this process and its workers may say alike. `storage` is that of the workers, open, or None
    without them.
    """

    request: SearchRequest
    predictor: LatencyPredictor
    estimator: Estimator
    folder: RunFolder
    console: Console
    say_once: Callable[[str], None]
    storage: BaseStorage | None = None

    @property
    def table(self) -> LatencyTable:
        """Return the latency table."""
        return self.predictor.table

    @property
    def trains(self) -> bool:
        """Return whether an estimate takes a training."""
        return self.estimator.proxy is not None

    @property
    def looks_at_images(self) -> bool:
        """Return whether estimates speak of images of the user's choice, not of ImageNet."""
        return self.request.data is not None

    @property
    def ranking_estimator(self) -> Estimator:
        """Return an estimator that answers at once: the proxy of one that trains networks."""
        return self.estimator.proxy or self.estimator

    def limits(self, space: SearchSpace) -> tuple[Limit, ...]:
        """Return the limits beside latency, on networks with the table's number of classes."""
        return self.request.limits(space, self.table.num_classes)

    def keeps_limits(self, spec: ArchSpec) -> bool:
        """Return whether a network keeps the limits beside latency."""
        return self.request.keeps_limits(spec, self.table.num_classes)

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what must be known of all figures of the run."""
        runtime, notes = self.table.runtime, []
        if self.table.other_device:
            notes.append(
                f"latencies are predicted, not measured: the table is of another device, {self.table.device.cpu}"
            )
        if runtime.precision != "float32":
            notes.append(f"latencies are those of {runtime.precision}; accuracies are still estimates for float32")
        if self.trains:
            notes.append(
                f"accuracies are those of {self.estimator.training_recipe}; the resolution is not searched, and the "
                "ImageNet prior decides which variants are searched and what is trimmed"
            )
        elif self.looks_at_images:
            notes.append(
                f"accuracies are those of {self.estimator.training_recipe}; estimates compare widths by the ImageNet "
                "prior alone, and the resolution is not searched"
            )
        if self.table.num_classes != NUM_CLASSES:
            notes.append(
                f"latencies, parameters and memory are those of networks with {self.table.num_classes} classes"
            )
        return tuple(notes)
