"""Hold the latency table: the time of each part of a network on one device, from which whole networks are predicted.

A network's latency is the sum over its parts (`nas.arch.parts`). Each part was timed as it stands in a network,
behind a 1x1 convolution and before a pooling. The time of these two, the row of the context, is subtracted. The
pooling behind a block has the block's output, that in its context the block's input: in the sum over a network they
cancel.
"""

from __future__ import annotations

import json
import math
import reprlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nas.arch.additive import AdditiveModel
from nas.arch.cost import NUM_CLASSES
from nas.arch.parts import BlockPart, HeadPart, NetworkPart, Part, StemPart, context_of, parts_of
from nas.arch.published import published_spec
from nas.arch.skeleton import Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.files import read_text, write_text
from nas.latency.device import Device
from nas.latency.rows import Measurement
from nas.latency.runtimes import Runtime, make_runtime
from nas.latency.table_file import (
    JSON_VERSION,
    KEYS,
    Calibration,
    Fidelity,
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

TABLES = Path("latency_tables")  # where commands keep tables, from the folder they run in
REFERENCE = "mobilenet_v3_large"
AGAIN = "remove it and measure it again with `python -m nas.measure`"  # while it is there, that command refuses it too


@dataclass(eq=False)
class LatencyTable:
    """Rows of one device, runtime, thread count and precision, by the keys of `nas.arch.parts`."""

    device: Device
    runtime: RuntimeId
    reference_ms: float  # the reference network's undisturbed time when the table was made
    path: Path  # the file that it is, or will be, saved to
    num_classes: int = NUM_CLASSES
    rows: dict[str, Row] = field(default_factory=dict)
    created: str = field(default_factory=date)
    fidelity: Fidelity | None = None  # None: it was not checked
    calibrations: list[Calibration] = field(default_factory=list)
    settled: bool = False  # True once the table was saved: from then on `reference_ms` stays
    _part_ms: dict[Part, float] = field(default_factory=dict, init=False, repr=False)

    @property
    def reference(self) -> NetworkPart:
        """Return the reference network."""
        return NetworkPart(published_spec(REFERENCE))

    # Prediction ---------------------------------------------------------------------------------------

    def predict_ms(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """Return the predicted latency of each network: array of shape (n,), normalised milliseconds.

        Raises NasError that names the first network without all rows, and what measures them.
        """
        return np.array([self._network_ms(spec) for spec in specs])

    def _network_ms(self, spec: ArchSpec) -> float:
        return sum(milliseconds for _, milliseconds in self.breakdown(spec))

    def breakdown(self, spec: ArchSpec) -> list[tuple[str, float]]:
        """Return the milliseconds of each part of a network: "stem", "block 1", …, "head".

        Raises NasError as `predict_ms` does.
        """
        parts = list(parts_of(spec, self.num_classes))
        names = ["stem", *(f"block {number}" for number in range(1, len(parts) - 1)), "head"]
        try:
            return [(name, self.part_ms(part)) for name, part in zip(names, parts, strict=True)]
        except NasError:
            raise self._lacks(parts, spec.name, "predict_ms([spec])") from None

    def part_ms(self, part: Part) -> float:
        """Return the milliseconds that a part adds to a network. Raises NasError if it has no row."""
        known = self._part_ms.get(part)
        if known is None:
            context = context_of(part)
            ratio = self._row(part).ratio - (self._row(context).ratio if context else 0.0)
            known = self._part_ms[part] = ratio * self.reference_ms
        return known

    def _row(self, part: Part) -> Row:
        row = self.rows.get(part.key)
        if row is None:
            raise self._lacks([part], "a part", 'fill([part], "rows")')
        return row

    def _lacks(self, parts: Iterable[Part], of: str, call: str) -> NasError:
        """Return the error about missing rows, with the call of a `LatencyPredictor` that measures them."""
        missing = self.missing(parts)
        return NasError(
            f"{self.path} lacks {len(missing)} of the rows of {of}, such as {missing[0].key!r}; on {self.device.cpu} "
            f"`nas.LatencyPredictor(table).{call}` in Python measures and saves them"
        )

    def missing(self, parts: Iterable[Part]) -> list[Part]:
        """Return those of the parts and their contexts that have no row yet, each once, in order."""
        wanted: dict[str, Part] = {}
        for part in parts:
            for needed in (part, context_of(part)):
                if needed is not None and needed.key not in self.rows:
                    wanted.setdefault(needed.key, needed)
        return list(wanted.values())

    def compile(self, space: SearchSpace) -> AdditiveModel:
        """Return the predictions for a space as an additive model. Raises NasError that names a missing row."""
        try:
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
        except NasError:
            parts = space_parts(space, self.num_classes)
            raise self._lacks(parts, space.name, 'fill_space(space, "rows")') from None
        return AdditiveModel(space, np.array(constants), options)

    def add(self, measured: Measurement) -> None:
        """Add the rows of a session, and note the factor in them."""
        self.rows |= measured.rows
        if measured.factor != 1.0:
            self._note(measured.calibration)
        self._part_ms.clear()

    @property
    def usual_factor(self) -> float:
        """Return the geometric mean of the factors in rows of blocks; 1 where there are no rows."""
        blocks = sum(not key.startswith("network ") for key in self.rows)
        logs = sum(noted.rows * math.log(noted.factor) for noted in self.calibrations)
        return math.exp(logs / blocks) if blocks else 1.0

    def _note(self, calibration: Calibration) -> None:
        """Note a factor; rows of the same factor as the last ones are added to these."""
        if self.calibrations and self.calibrations[-1].factor == calibration.factor:
            calibration = replace(calibration, rows=self.calibrations.pop().rows + calibration.rows)
        self.calibrations.append(calibration)

    def noisy(self) -> list[str]:
        """Return the keys of the rows of blocks whose times are uncertain by more than `NOISY`."""
        return noisy_rows(self.rows)

    def forget(self, keys: Iterable[str]) -> None:
        """Drop rows, so that they are measured again."""
        for key in keys:
            del self.rows[key]
        self._part_ms.clear()

    def scale_rows(self, keys: Collection[str], factor: float) -> None:
        """Multiply rows by the factor that whole networks gave, and note it (`nas.latency.fidelity.check`)."""
        if factor != 1.0:
            self.rows |= {key: self.rows[key].scaled(factor) for key in keys}
            self._note(Calibration(date(), len(keys), round(factor, 5)))
            self._part_ms.clear()

    # Device and runtime -------------------------------------------------------------------------------

    @property
    def other_device(self) -> bool:
        """Return whether the table is of another machine: then missing rows cannot be measured here."""
        return Device.this().identity != self.device.identity

    def check_device(self) -> None:
        """Raise NasError unless the table is of this machine."""
        if self.other_device:
            here = Device.this()
            raise NasError(
                f"{self.path} is of another device: {self.device.cpu} "
                f"[{' '.join(self.device.flags)}], this machine is {here.cpu} [{' '.join(here.flags)}]; measure a "
                "table here with `python -m nas.measure`, or use its predictions with --allow-other-device"
            )

    def runtime_here(self) -> Runtime:
        """Return the table's runtime on this machine.

        Raises NasError if the table is of another device, or if the runtime is not installed here.
        """
        self.check_device()
        return make_runtime(self.runtime.name, self.runtime.threads, self.runtime.precision)

    @cached_property
    def bench(self) -> Bench:
        """Return the means of timing programs for this table. Raises NasError as `runtime_here` does."""
        runtime = self.runtime_here()
        return Bench.of(runtime.clock, runtime.threads, lambda: runtime.compile(self.reference))

    # JSON ---------------------------------------------------------------------------------------------

    def save(self, path: str | Path | None = None) -> Path:
        """Write the table whole or not at all, one line a row. From then on its reference time is settled."""
        self.path, self.settled = Path(path or self.path), True
        # As it will be read, so that a search that goes on and one that is resumed predict alike.
        self.reference_ms = round(self.reference_ms, 6)
        self._part_ms.clear()
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
        """Read a table. Raises NasError if it is damaged, edited or of a newer version."""
        text = read_text(path)
        try:
            data = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise NasError(f"{path}: not JSON ({error}); {AGAIN}") from None
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
                + (": a newer program wrote it, upgrade this one" if newer else f"; {AGAIN}")
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
                fidelity=None if data["fidelity"] is None else Fidelity.from_dict(data["fidelity"]),
                calibrations=[Calibration(**calibration) for calibration in data["calibrations"]],
                path=path,
                settled=True,
            )
            reference = data["reference"]["spec_id"]
        except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
            if isinstance(error, NasError):
                raise
            raise NasError(f"it is damaged ({type(error).__name__}: {error}); {AGAIN}") from None
        if not (math.isfinite(table.reference_ms) and table.reference_ms > 0):
            raise NasError(f"the reference's time is {table.reference_ms} ms; {AGAIN}")
        if reference != table.reference.spec.id:
            raise NasError(f"its reference is another network than this program's {REFERENCE}; {AGAIN}")
        if data["hash"] != rows_hash(table.reference_ms, table.rows):
            raise NasError(f"its rows do not fit its hash: it was edited or cut; restore the file, or {AGAIN}")
        return table


def default_path(device: Device, runtime: RuntimeId, num_classes: int = NUM_CLASSES) -> Path:
    """Return where a device's table is kept unless the user names a file."""
    return TABLES / table_file(device, runtime, num_classes)


def space_parts(space: SearchSpace, num_classes: int = NUM_CLASSES) -> Iterator[StemPart | BlockPart | HeadPart]:
    """Yield every part that a network of the space can have, at each of its variants."""
    for variant in space.variants:
        yield from _fixed_parts(space, variant, num_classes)
        for slot in space.slots:
            for placed in space.options(variant, slot):
                yield BlockPart(*placed)


def _fixed_parts(space: SearchSpace, variant: Variant, num_classes: int) -> list[StemPart | BlockPart | HeadPart]:
    """Return the parts that every network of a variant has: stem, first block, head."""
    parts = list(parts_of(space.smallest(variant), num_classes))
    return [*parts[:2], parts[-1]]
