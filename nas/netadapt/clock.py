"""What networks take on their way: predicted by a table of their number of classes, and measured whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nas.arch.cost import NUM_CLASSES
from nas.arch.spec import ArchSpec
from nas.console import Console
from nas.errors import NasError
from nas.latency.measuring import new_table
from nas.latency.networks import measure_latency
from nas.latency.predictor import LatencyPredictor, open_table
from nas.latency.table import LatencyTable
from nas.netadapt.request import Request

NAMED_ROWS = 3  # of those that a table lacks, in an error


def open_table_of(request: Request, num_classes: int, console: Console) -> tuple[LatencyTable, Path | None]:
    """The table, and where it is to be saved if it never was. Raises NasError for one of other classes or runtime."""
    path, file = request.table, None
    if path is None and num_classes != NUM_CLASSES:
        runtime = open_table(None, request.runtime, console=console).runtime_here()
        table = new_table(runtime)
        table.num_classes = num_classes
        default = table.default_path()
        file = default.with_name(f"{default.stem}-n{num_classes}{default.suffix}")
        path = str(file) if file.exists() else None
        if path is None:
            return table, file
    table = open_table(path, request.runtime, console=console, allow_other_device=True)
    if table.num_classes != num_classes:
        raise NasError(
            f"{path} is of networks with {table.num_classes} classes, and these have {num_classes}; leave --table out "
            "to measure one"
        )
    return table, file


@dataclass
class Clock:
    """What networks take: predicted by the table, whose missing rows are measured, and measured whole."""

    table: LatencyTable
    file: Path | None
    console: Console
    seed: int
    here: bool = field(init=False)
    prices: LatencyPredictor = field(init=False)

    def __post_init__(self) -> None:
        self.here = not self.table.other_device
        self.prices = LatencyPredictor(
            self.table, self.console, self.seed, file=None if self.file is None else str(self.file)
        )

    def predicted_ms(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """Raises NasError if the table lacks rows and is of another device."""
        parts = self.prices.parts(specs)
        if self.here:
            self.prices.measure(parts, "measuring")
        elif missing := self.table.missing(parts):
            named = "; ".join(part.key for part in missing[:NAMED_ROWS])
            raise NasError(
                f"{self.table.path} is of another device ({self.table.device.cpu}) and lacks {len(missing)} rows that "
                f"trimming asks for: {named}{'; …' if len(missing) > NAMED_ROWS else ''}. Trim on that device, or "
                "leave --table out to measure this one"
            )
        return self.table.predict_ms(specs)

    def measured_ms(self, spec: ArchSpec) -> float | None:
        """Normalised milliseconds, to the nanosecond; None where the table is of another device."""
        if not self.here:
            return None
        with self.console.progress("measuring the whole network") as progress:
            (measured,) = measure_latency([spec], table=self.table, on_progress=lambda share: progress(share, ""))
        return round(measured.normalised_ms, 6)
