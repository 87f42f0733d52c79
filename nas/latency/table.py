"""Hold the latency table: the time of each part of a network on one device, from which whole networks are predicted.

A network's latency is the sum over its parts (`nas.arch.parts`). Each part was timed as it stands in a network,
behind a 1x1 convolution and before a pooling. The time of these two, the row of the context, is subtracted. The
pooling behind a block has the block's output, that in its context the block's input: in the sum over a network they
cancel.

The table holds every whole network that was measured, too. What these say about the rows corrects them
(`nas.latency.learning`).
"""

from __future__ import annotations

import json
import math
import reprlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nas.arch.additive import AdditiveModel
from nas.arch.cost import NUM_CLASSES
from nas.arch.parts import BlockPart, ContextPart, HeadPart, NetworkPart, Part, StemPart, context_of, parts_of
from nas.arch.published import published_spec
from nas.arch.skeleton import Variant
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.files import read_text, write_text
from nas.latency.denoising import denoised
from nas.latency.device import Device
from nas.latency.landmarks import tilt_of, without_tilt
from nas.latency.learning import Correction, Evidence, PlacedPart, Prediction, Term, learn
from nas.latency.runtimes import Runtime, make_runtime
from nas.latency.table_file import (
    JSON_VERSION,
    KEYS,
    OLDER_VERSION,
    Fidelity,
    Reference,
    Row,
    RuntimeId,
    WholeNetwork,
    content_hash,
    date,
    noisy_rows,
    older_hash,
    table_file,
    table_text,
)
from nas.latency.timing import Bench, Timing

TABLES = Path("latency_tables")  # where commands keep tables, from the folder they run in
REFERENCE = "mobilenet_v3_large"
LARGE_SESSION = 150  # rows; those of a variant are more, those that a step of trimming asks for fewer
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
    networks: dict[str, WholeNetwork] = field(default_factory=dict)
    created: str = field(default_factory=date)
    fidelity: tuple[Fidelity, ...] = ()  # one a population; empty: it was not checked
    settled: bool = False  # True once the table was saved: from then on `reference_ms` stays
    _part_ms: dict[Part, float] = field(default_factory=dict, init=False, repr=False)
    _correction: Correction | None = field(default=None, init=False, repr=False)
    _large_sessions: _LargeSessions | None = field(default=None, init=False, repr=False)

    @cached_property
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
        """Return the milliseconds that a part adds to a network, corrected; or those of a network measured whole.

        Raises NasError if it has no row.
        """
        known = self._part_ms.get(part)
        if known is None:
            if isinstance(part, NetworkPart):
                ratio = self.measurement(part).ratio
            elif isinstance(part, ContextPart):
                ratio = self._row(part).ratio
            else:
                ratio = self.correction.ratio(self._term(part))
            known = self._part_ms[part] = ratio * self.reference_ms
        return known

    def timed_ms(self, part: PlacedPart) -> float:
        """Return the milliseconds of a part as it was timed, before other rows and networks corrected it."""
        context = context_of(part)
        return (self._row(part).timed - (self._row(context).timed if context else 0.0)) * self.reference_ms

    def predict(self, spec: ArchSpec) -> Prediction:
        """Return the predicted latency of a network with its standard deviation, both in normalised milliseconds.

        Raises NasError that names a missing row.
        """
        # The deviation is the regression's. The time is the sum of rows, none of which is taken for nearly free.
        return Prediction(self._network_ms(spec), self._in_ms(self.correction.predict(self._terms(spec))).std)

    def predict_held_out(self, spec: ArchSpec) -> Prediction:
        """Return what `predict` would, had this network itself never been measured."""
        key, correction = NetworkPart(spec, self.num_classes).key, self.correction
        for number, one in enumerate(correction.evidence):
            if one.key == key:
                time, deviation = correction.rows_held_out(number), correction.held_out(number).std
                return self._in_ms(Prediction(time, deviation))
        return self.predict(spec)

    def _row_ms(self, part: PlacedPart) -> float:
        return self._term(part).ratio * self.reference_ms

    def _in_ms(self, prediction: Prediction) -> Prediction:
        return Prediction(prediction.time * self.reference_ms, prediction.std * self.reference_ms)

    def _terms(self, spec: ArchSpec) -> list[Term]:
        return [self._term(part) for part in parts_of(spec, self.num_classes)]

    def _term(self, part: PlacedPart) -> Term:
        context, row = context_of(part), self._row(part)
        session = self._teaching_session(part, row)
        return Term(part, row.ratio - (self._row(context).ratio if context else 0.0), session)

    def _teaching_session(self, part: PlacedPart, row: Row) -> int:
        """Return the session whose coefficient a row has: its own, or for a row that trimming asked for a like one.

        Too few networks speak of a session of few rows. Without a coefficient they would differ from the rows that
        they replace by what that session was off.
        """
        if self._large_sessions is None:
            self._large_sessions = _LargeSessions.of(self.rows)
        large = self._large_sessions
        return row.session if row.session in large.numbers else large.by_size.get(_size_in(part.key), 0)

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
                if needed is not None and not self.knows(needed):
                    wanted.setdefault(needed.key, needed)
        return list(wanted.values())

    def compile(self, space: SearchSpace, *, learned: bool = True) -> AdditiveModel:
        """Return the predictions for a space as an additive model, or without `learned` the sums of rows.

        Raises NasError that names a missing row.
        """
        ms = self.part_ms if learned else self._row_ms
        try:
            constants = [sum(map(ms, _fixed_parts(space, variant, self.num_classes))) for variant in space.variants]
            options = [
                np.array(
                    [[ms(BlockPart(*placed)) for placed in space.options(variant, slot)] for variant in space.variants]
                )
                for slot in space.slots
            ]
        except NasError:
            parts = space_parts(space, self.num_classes)
            raise self._lacks(parts, space.name, 'fill_space(space, "rows")') from None
        return AdditiveModel(space, np.array(constants), options)

    # Measurements -------------------------------------------------------------------------------------

    def add(self, timings: Mapping[Part, Timing]) -> None:
        """Add what one session measured: rows, and whole networks, from which the table learns."""
        session = 1 + self._last_session
        ratios = denoised(timings)
        for part, timing in timings.items():
            if not isinstance(part, NetworkPart):
                self.rows[part.key] = Row.of(timing, session, ratios[part])
        self._part_ms.clear()  # the reference time may be another one now
        networks = {part: timing for part, timing in timings.items() if isinstance(part, NetworkPart)}
        self.remember(self.without_tilt(networks))

    def without_tilt(self, timings: Mapping[NetworkPart, Timing]) -> dict[NetworkPart, Timing]:
        """Return the timings of one session as they would be at the speed at which the table was made."""
        tilt = tilt_of(self.networks, {network.key: timing for network, timing in timings.items()})
        return {network: without_tilt(timing, tilt) for network, timing in timings.items()}

    def remember(self, timings: Mapping[NetworkPart, Timing]) -> None:
        """Keep measurements of whole networks, each combined with what was known of it, and learn from them.

        Nothing is learned while only rows are added, so that a step of trimming compares predictions of one kind.
        """
        session = self._last_session
        for network, timing in timings.items():
            if network.key != self.reference.key:
                new = WholeNetwork.of(network.spec.to_dict(), timing.ratio, timing.error, session)
                known = self.networks.get(network.key)
                self.networks[network.key] = known.merged(new) if known else new
        if timings:
            self._learn_anew()

    @property
    def _last_session(self) -> int:
        """Return the number of the last session that timed rows; 0 where there are none."""
        return max((row.session for row in self.rows.values()), default=0)

    def knows(self, part: Part) -> bool:
        """Return whether a part has a row, or a network was measured whole."""
        if isinstance(part, NetworkPart):
            return part.key in self.networks or part.key == self.reference.key
        return part.key in self.rows

    def measurement(self, network: NetworkPart) -> WholeNetwork:
        """Return what is known of a network that was measured whole. Raises NasError if none was.

        The reference network takes the reference time by definition.
        """
        if network.key == self.reference.key:
            # As if measured with the last of the others, so that rows that were timed since teach nothing.
            session = max((other.session for other in self.networks.values()), default=0)
            return WholeNetwork(network.spec.to_dict(), 1.0, 0.0, session)
        if network.key not in self.networks:
            raise self._lacks([network], "a measured network", "measured_ms([spec], 'network')")
        return self.networks[network.key]

    @property
    def correction(self) -> Correction:
        """Return the correction of rows that the networks give whose rows are all known."""
        if self._correction is None:
            self._correction = learn([evidence for key in self._learnable() if (evidence := self._evidence_of(key))])
        return self._correction

    def _learnable(self) -> Iterator[str]:
        if self.reference.num_classes == self.num_classes:
            yield self.reference.key
        yield from sorted(self.networks)  # in the order of the file, so that a table that was read learns alike

    def _evidence_of(self, key: str) -> Evidence | None:
        """Return a measured network with the times of its parts; None if it was measured before one of its rows.

        So it does not depend on rows that were timed since what the table has learned.
        """
        if key == self.reference.key:
            network = self.reference
        else:
            network = NetworkPart(ArchSpec.from_dict(self.networks[key].spec), self.num_classes)
        measured, parts = self.measurement(network), list(parts_of(network.spec, self.num_classes))
        if self.missing(parts) or max(self._row(part).session for part in parts) > measured.session:
            return None
        return Evidence(key, list(map(self._term, parts)), measured.ratio, measured.error)

    def _learn_anew(self) -> None:
        self._correction = None
        self._large_sessions = None
        self._part_ms.clear()

    @property
    def contradicting(self) -> list[ArchSpec]:
        """Return the measured networks whose times contradict their rows: the table does not learn from them.

        The reference network is not among them, for its time is one by definition.
        """
        keys = [key for key in self.correction.contradicting if key in self.networks]
        return [ArchSpec.from_dict(self.networks[key].spec) for key in keys]

    def noisy(self) -> list[str]:
        """Return the keys of the rows of blocks whose times are uncertain by more than `NOISY`."""
        return noisy_rows(self.rows)

    def forget(self, keys: Iterable[str]) -> None:
        """Drop rows or networks, so that they are measured again."""
        for key in keys:
            (self.rows if key in self.rows else self.networks).pop(key)
        self._learn_anew()

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
            networks=self.networks,
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
        if version == OLDER_VERSION and not isinstance(version, bool):
            data = _from_older(data)
        elif isinstance(version, bool) or version != JSON_VERSION:
            newer = isinstance(version, int) and version > JSON_VERSION
            raise NasError(
                f"version is {reprlib.repr(version)}; this program reads versions {OLDER_VERSION} and {JSON_VERSION}"
                + (": a newer program wrote it, upgrade this one" if newer else f"; {AGAIN}")
            )
        unknown, missing = sorted(set(data) - set(KEYS)), [key for key in KEYS if key not in data]
        if unknown:
            raise NasError(f"unknown key {reprlib.repr(unknown[0])}; known: {', '.join(KEYS)}")
        if missing:
            raise NasError(f"{missing[0]!r} is missing")
        try:
            rows = {key: Row.from_dict(key, value) for key, value in data["rows"].items()}
            networks = {key: WholeNetwork.from_dict(key, value) for key, value in data["networks"].items()}
            for network in networks.values():
                ArchSpec.from_dict(network.spec)
            table = cls(
                device=Device.from_dict(data["device"]),
                runtime=RuntimeId(**data["runtime"]),
                reference_ms=float(data["reference"]["ms"]),
                num_classes=int(data["num_classes"]),
                rows=rows,
                networks=networks,
                created=str(data["created"]),
                fidelity=tuple(Fidelity.from_dict(one) for one in data["fidelity"]),
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
        if data["hash"] != content_hash(table.reference_ms, table.rows, table.networks):
            raise NasError(
                f"its rows or networks do not fit its hash: it was edited or cut; restore the file, or {AGAIN}"
            )
        return table


class _LargeSessions(NamedTuple):
    """The sessions of many rows: their numbers, and that of the most rows by the side of their maps."""

    numbers: set[int]
    by_size: dict[str, int]

    @classmethod
    def of(cls, rows: Mapping[str, Row]) -> _LargeSessions:
        counts = Counter(row.session for row in rows.values())
        numbers = {session for session, number in counts.items() if number >= LARGE_SESSION}
        by_size: dict[str, Counter[int]] = {}
        for key, row in rows.items():
            if row.session in numbers:
                by_size.setdefault(_size_in(key), Counter())[row.session] += 1
        return cls(numbers, {size: sessions.most_common(1)[0][0] for size, sessions in by_size.items()})


def _size_in(key: str) -> str:
    """Return the side of the map that the key of a row names."""
    return key.split()[1].partition("x")[2]


def _from_older(data: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a table of `OLDER_VERSION` in today's form.

    Its rows are taken as they are, its networks are measured again.
    Raises NasError if the rows do not fit their hash.
    """
    try:
        if data["hash"] != older_hash(float(data["reference"]["ms"]), data["rows"]):
            raise NasError(f"its rows do not fit its hash: it was edited or cut; restore the file, or {AGAIN}")
        rows = {key: Row.from_dict(key, row) for key, row in data["rows"].items() if not key.startswith("network ")}
        new = {key: data[key] for key in KEYS if key in data}
        hashed = content_hash(float(data["reference"]["ms"]), rows, {})
    except (LookupError, TypeError, AttributeError, ValueError, OverflowError) as error:
        if isinstance(error, NasError):
            raise
        raise NasError(f"it is damaged ({type(error).__name__}: {error}); {AGAIN}") from None
    rows_now = {key: row.to_dict() for key, row in rows.items()}
    return new | {"version": JSON_VERSION, "fidelity": [], "networks": {}, "rows": rows_now, "hash": hashed}


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
