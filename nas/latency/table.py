"""The latency table: what each part of a network takes on one device, and what whole networks take then.

A network's latency is the sum over its parts (`nas.arch.parts`). Each part was timed as it stands in a network,
behind a 1x1 convolution and before a pooling, whose own time (the row of the context) is taken off. In the
sum over a network the poolings cancel: what a block leaves over, the next one takes off.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nas.arch.additive import AdditiveModel
from nas.arch.cost import NUM_CLASSES
from nas.arch.parts import BlockPart, HeadPart, NetworkPart, Part, StemPart, context_of, parts_of
from nas.arch.published import published_spec
from nas.arch.space import SearchSpace, Variant
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.files import read_text, write_text
from nas.latency.device import Device
from nas.latency.rows import Measurement
from nas.latency.runtimes import RUNTIMES, Runtime
from nas.latency.table_file import (
    JSON_VERSION,
    KEYS,
    Reference,
    Row,
    RuntimeId,
    date,
    noisy_rows,
    rows_hash,
    table_file,
    table_text,
)
from nas.latency.timing import Bench
from nas.names import resolve

TABLES = Path("latency_tables")  # where commands keep them, from the folder they run in
REFERENCE = "mobilenet_v3_large"


@dataclass(eq=False)
class LatencyTable:
    """Rows by the keys of `nas.arch.parts`, for one device, runtime, thread count and precision."""

    device: Device
    runtime: RuntimeId
    reference_ms: float  # the reference's undisturbed time when the table was made
    num_classes: int = NUM_CLASSES
    rows: dict[str, Row] = field(default_factory=dict)
    created: str = field(default_factory=date)
    fidelity: dict[str, Any] | None = None
    calibrations: list[dict[str, Any]] = field(default_factory=list)
    path: Path | None = None
    _prices: dict[Part, float] = field(default_factory=dict, repr=False)

    @property
    def reference(self) -> NetworkPart:
        return NetworkPart(published_spec(REFERENCE))

    def default_path(self, folder: Path = TABLES) -> Path:
        return folder / table_file(self.device, self.runtime)

    # Prediction ---------------------------------------------------------------------------------------

    def predict_ms(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """Predicted latency of each network: array of shape (n,), normalised milliseconds.

        Raises NasError naming the first row that is missing; `nas.latency.measuring.measure_missing` fills rows.
        """
        return np.array([sum(self.part_ms(part) for part in parts_of(spec, self.num_classes)) for spec in specs])

    def breakdown(self, spec: ArchSpec) -> list[tuple[str, float]]:
        """Where a network's milliseconds go: "stem", "block 1", …, "head"."""
        parts = list(parts_of(spec, self.num_classes))
        names = ["stem", *(f"block {number}" for number in range(1, len(parts) - 1)), "head"]
        return [(name, self.part_ms(part)) for name, part in zip(names, parts, strict=True)]

    def part_ms(self, part: Part) -> float:
        """What a part adds to a network, in milliseconds. Raises NasError if it has no row."""
        price = self._prices.get(part)
        if price is None:
            context = context_of(part)
            ratio = self._row(part).ratio - (self._row(context).ratio if context else 0.0)
            price = self._prices[part] = ratio * self.reference_ms
        return price

    def _row(self, part: Part) -> Row:
        row = self.rows.get(part.key)
        if row is None:
            raise self.lacks(part)
        return row

    def lacks(self, part: Part) -> NasError:
        """The error for a part that has no row."""
        return NasError(
            f"{self.path or 'the table'} has no row for {part.key!r}; `python -m nas.measure --space NAME --all` on "
            f"{self.device.cpu} measures every row of a space"
        )

    def missing(self, parts: Iterable[Part]) -> list[Part]:
        """The parts among these, and their contexts, that have no row yet; each once, in order."""
        wanted: dict[str, Part] = {}
        for part in parts:
            for needed in (part, context_of(part)):
                if needed is not None and needed.key not in self.rows:
                    wanted.setdefault(needed.key, needed)
        return list(wanted.values())

    def compile(self, space: SearchSpace) -> AdditiveModel:
        """LatencyPredictor encoded networks of a space by the million. Raises NasError naming a missing row."""
        constants = [
            sum(map(self.part_ms, _fixed_parts(space, variant, self.num_classes))) for variant in space.variants
        ]
        options = [
            np.array(
                [
                    [self.part_ms(BlockPart(*placed)) for placed in space.options(variant, slot)]
                    for variant in space.variants
                ]
            )
            for slot in space.slots
        ]
        return AdditiveModel(space, np.array(constants), options)

    def add(self, measured: Measurement) -> None:
        """Takes the rows of a session, and notes the factor in them."""
        self.rows |= measured.rows
        if measured.factor != 1.0:
            self._note(measured.calibration)
        self._prices.clear()

    @property
    def usual_factor(self) -> float:
        """What rows of blocks were multiplied by so far, on geometric average; 1 where there are none."""
        blocks = sum(not key.startswith("network ") for key in self.rows)
        logs = sum(noted["rows"] * math.log(noted["factor"]) for noted in self.calibrations)
        return math.exp(logs / blocks) if blocks else 1.0

    def _note(self, calibration: dict[str, Any]) -> None:
        last = self.calibrations[-1] if self.calibrations else {}
        if last.get("factor") == calibration["factor"]:
            calibration = calibration | {"rows": last["rows"] + calibration["rows"]}
            self.calibrations.pop()
        self.calibrations.append(calibration)

    def noisy(self) -> list[str]:
        """Keys of the rows of blocks whose times stayed uncertain."""
        return noisy_rows(self.rows)

    def forget(self, keys: Iterable[str]) -> None:
        """Drops rows, so that they are measured again."""
        for key in keys:
            del self.rows[key]
        self._prices.clear()

    def scale_rows(self, keys: Collection[str], factor: float) -> None:
        """Multiplies rows by what whole networks told of them, and notes it (`nas.latency.calibration`)."""
        if factor != 1.0:
            self.rows |= {key: self.rows[key].scaled(factor) for key in keys}
            self._note({"date": date(), "rows": len(keys), "factor": round(factor, 5)})
            self._prices.clear()

    # Device and runtime -------------------------------------------------------------------------------

    @property
    def other_device(self) -> bool:
        """Whether the table is of another machine: then what it lacks cannot be measured here."""
        return Device.this().identity != self.device.identity

    def check_device(self) -> None:
        """Raises NasError unless the table is of this machine."""
        if self.other_device:
            here = Device.this()
            raise NasError(
                f"{self.path or 'the table'} is of another device: {self.device.cpu} "
                f"[{' '.join(self.device.flags)}], this machine is {here.cpu} [{' '.join(here.flags)}]; "
                "measure one here with `python -m nas.measure`, or rest on its predictions with --allow-other-device"
            )

    def runtime_here(self) -> Runtime:
        """The table's runtime on this machine. Raises NasError for another device's, or if it cannot be had here."""
        self.check_device()
        make = resolve("runtime", self.runtime.name, RUNTIMES)
        runtime: Runtime = make(threads=self.runtime.threads, precision=self.runtime.precision)
        return runtime

    @cached_property
    def bench(self) -> Bench:
        """What this machine times programs with for this table. Raises NasError as `runtime_here` does."""
        runtime = self.runtime_here()
        return Bench.of(runtime.clock, runtime.threads, lambda: runtime.compile(self.reference))

    # JSON ---------------------------------------------------------------------------------------------

    def save(self, path: str | Path | None = None) -> Path:
        """Writes the table, one line a row, whole or not at all."""
        self.path = Path(path or self.path or self.default_path())
        # As it will be read, so that a search that goes on and one that is resumed price alike.
        self.reference_ms = round(self.reference_ms, 6)
        self._prices.clear()
        text = table_text(
            created=self.created,
            device=self.device,
            runtime=self.runtime,
            reference=Reference(REFERENCE, self.reference.spec.id, self.reference_ms),
            num_classes=self.num_classes,
            fidelity=self.fidelity,
            calibrations=self.calibrations,
            rows=self.rows,
        )
        write_text(self.path, text)
        return self.path

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Reads a table. Raises NasError if it is damaged, edited or of a newer version."""
        text = read_text(path)
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise NasError(f"{path}: not JSON ({error}); measure it again with `python -m nas.measure`") from None
        try:
            return cls._from_dict(data, Path(path))
        except NasError as error:
            raise NasError(f"{path}: {error}") from None

    @classmethod
    def _from_dict(cls, data: Any, path: Path) -> LatencyTable:
        if not isinstance(data, dict):
            raise NasError("a latency table must be a JSON object")
        version = data.get("version")
        if isinstance(version, bool) or version != JSON_VERSION:
            newer = isinstance(version, int) and version > JSON_VERSION
            raise NasError(
                f"version is {reprlib.repr(version)}; this program reads version {JSON_VERSION}"
                + (": a newer program wrote it, upgrade this one" if newer else "")
            )
        unknown, missing = sorted(set(data) - set(KEYS)), [key for key in KEYS if key not in data]
        if unknown:
            raise NasError(f"unknown key {reprlib.repr(unknown[0])}; known: {', '.join(KEYS)}")
        if missing:
            raise NasError(f"{missing[0]!r} is missing")
        try:
            rows = {key: Row.from_dict(key, value) for key, value in data["rows"].items()}
            table = cls(
                device=Device.from_dict(data["device"]),
                runtime=RuntimeId(**data["runtime"]),
                reference_ms=float(data["reference"]["ms"]),
                num_classes=int(data["num_classes"]),
                rows=rows,
                created=str(data["created"]),
                fidelity=data["fidelity"],
                calibrations=list(data["calibrations"]),
                path=path,
            )
            reference = data["reference"]["spec_id"]
        except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
            if isinstance(error, NasError):
                raise
            raise NasError(f"it is damaged ({type(error).__name__}: {error}); measure it again") from None
        if not (math.isfinite(table.reference_ms) and table.reference_ms > 0):
            raise NasError(f"the reference's time is {table.reference_ms} ms; measure the table again")
        if reference != table.reference.spec.id:
            raise NasError(f"its reference is another network than this program's {REFERENCE}; measure it again")
        if data["hash"] != rows_hash(table.reference_ms, table.rows):
            raise NasError("its rows do not fit its hash: it was edited or cut; measure it again, or restore the file")
        return table


def space_parts(space: SearchSpace, num_classes: int = NUM_CLASSES) -> Iterator[StemPart | BlockPart | HeadPart]:
    """Every part that a network of the space can have, at each of its variants."""
    for variant in space.variants:
        yield from _fixed_parts(space, variant, num_classes)
        for slot in space.slots:
            for placed in space.options(variant, slot):
                yield BlockPart(*placed)


def _fixed_parts(space: SearchSpace, variant: Variant, num_classes: int) -> list[StemPart | BlockPart | HeadPart]:
    """What every network of a variant has: stem, first block, head."""
    parts = list(parts_of(space.smallest(variant), num_classes))
    return [*parts[:2], parts[-1]]
