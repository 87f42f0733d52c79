"""What a run of `nas.search` left in its folder, read and checked.

Every problem is a NasError that names the file and the place in it.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.files import read_text

JSON_VERSION = 1
ROLES = ("large", "small")


def kind_of(role: str) -> str:
    """ "large" or "small"; a role of a search with several budgets is named "large_4ms"."""
    return role.partition("_")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Role:
    """One search, for Large or for Small."""

    space: str
    budget_ms: float
    feasible_ms: tuple[float, float]
    binds: bool  # whether the budget keeps any network of the space out
    variants: tuple[tuple[float, float], ...]  # width, pixels
    spec: ArchSpec  # what was found


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """A network of the comparison. Times are normalised milliseconds, except `raw_ms`; accuracies are percent.

    `estimated_top1` speaks for the run's training effort, the same for all networks; `published_top1` for whatever
    training its authors gave a network.
    """

    name: str
    found: bool
    role: str | None
    spec: ArchSpec
    measured_ms: float | None  # None: the table is of another device, and holds no measurement of it
    raw_ms: float | None  # None for one that was not measured together with what was found
    quartiles_ms: tuple[float, float] | None
    predicted_ms: float | None
    macs: int
    params: int
    estimated_top1: float
    estimated_std: float
    extrapolated: bool  # whether the estimator was fitted to nothing like it
    published_top1: float | None
    source: str  # of the published accuracy, or else of the estimate
    breakdown: tuple[tuple[str, float], ...]  # the table's row and its ms; empty where the table lacks rows

    @property
    def latency_ms(self) -> float:
        """Measured if it was, else predicted."""
        latency_ms = self.predicted_ms if self.measured_ms is None else self.measured_ms
        assert latency_ms is not None  # as it was read
        return latency_ms


@dataclass(frozen=True, slots=True)
class Trial:
    """A network that a search looked at: predicted normalised ms, estimated top-1 in percent."""

    role: str
    latency_ms: float
    top1: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fidelity:
    """How well the latency table predicts random networks, measured whole; errors and shares between 0 and 1."""

    networks: int
    date: str
    mape: float
    within_5_percent: float
    within_10_percent: float
    spearman: float


@dataclass(frozen=True, slots=True)
class TableRow:
    """A row of the latency table; `kernel` is 0 for the head."""

    op: str  # "stem", "head", or a block's
    kernel: int
    se: bool
    macs: int
    ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A run folder. `table` and `estimator` are run.json's objects of these names.

    `fidelity` is None where the table was not checked. `front` are the best of `trials`; these two and `table_rows`
    may be empty.
    """

    path: Path
    command: str
    created: str
    finished: str | None
    arguments: Mapping[str, Any]
    versions: Mapping[str, Any]
    machine: Mapping[str, Any]
    seconds: Mapping[str, Any]
    table: Mapping[str, Any]
    fidelity: Fidelity | None
    estimator: Mapping[str, Any]
    roles: Mapping[str, Role]
    notes: tuple[str, ...]  # what must be known of all figures
    networks: tuple[Network, ...]
    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    table_rows: tuple[TableRow, ...]

    @property
    def other_device(self) -> bool:
        """Whether the table is of another machine than the run's, so that nothing was measured."""
        return bool(self.table.get("other_device"))

    def found(self, role: str) -> Network:
        """The network that was found for a role."""
        return next(network for network in self.networks if network.found and network.role == role)


def load_run(path: Path) -> Run:
    """Reads a run folder. Raises NasError for what is no run, has not got far enough, or is broken."""
    if not path.is_dir():
        raise NasError(f"{path}: no such folder; name the folder that a run of nas.search wrote")
    file = path / "run.json"
    if not file.is_file():
        raise NasError(f"{path}: not a run folder, for it has no run.json; name one that nas.search wrote")
    fields = _Fields(_json(file), str(file))
    fields.check_version()
    try:
        return _run(path, fields)
    except NasError as error:
        if fields.data.get("finished") is not None:
            raise
        advice = "the same nas.search command with --resume continues it"
        raise NasError(f"{path}: this run is not finished; {advice} ({error})") from None


def _run(path: Path, fields: _Fields) -> Run:
    table = fields.object("table")
    texts, numbers = ("device", "runtime", "precision"), ("threads", "classes", "rows")
    for key, kind in (*((key, str) for key in texts), *((key, int) for key in numbers)):
        table.get(key, kind)
    table.optional("other_device", bool)
    estimator = fields.object("estimator")
    for key in ("name", "effort"):
        estimator.get(key, str)
    roles = fields.object("roles")
    unknown = [role for role in roles.data if kind_of(role) not in ROLES]
    if unknown:
        raise NasError(f"{fields.where}: roles has {_short(unknown[0])}; known are large, small, large_4ms and so on")
    run = Run(
        path=path,
        command=fields.get("command", str),
        created=fields.get("created", str),
        finished=fields.optional("finished", str),
        arguments=fields.get("arguments", dict),
        versions=fields.get("versions", dict),
        machine=fields.get("machine", dict),
        seconds=fields.get("seconds", dict),
        table=table.data,
        fidelity=_fidelity(table.object("fidelity")) if table.data.get("fidelity") is not None else None,
        estimator=estimator.data,
        roles={role: _role(roles.object(role), path / f"{role}.json") for role in roles.data},
        notes=tuple(map(str, fields.optional("notes", list) or ())),
        networks=tuple(_network(network) for network in fields.objects("networks")),
        trials=tuple(_trials(path / "trials.csv")),
        front=tuple(_trials(path / "front.csv")),
        table_rows=tuple(_table_rows(path / "table_rows.csv")),
    )
    if not run.roles:
        raise NasError(f"{fields.where}: roles is empty; it must hold large, small or both")
    for role in run.roles:
        if not any(network.found and network.role == role for network in run.networks):
            raise NasError(f"{fields.where}: networks has none with kind 'found' and role {role!r}")
    return run


def _role(fields: _Fields, spec_file: Path) -> Role:
    low, high = fields.pair("feasible_ms")
    return Role(
        space=fields.get("space", str),
        budget_ms=fields.number("budget_ms"),
        feasible_ms=(low, high),
        binds=fields.get("binds", bool),
        variants=tuple(fields.pairs("variants")),
        spec=ArchSpec.load(spec_file),
    )


def _fidelity(fields: _Fields) -> Fidelity:
    return Fidelity(
        networks=fields.get("networks", int),
        date=fields.get("date", str),
        mape=fields.number("mape"),
        within_5_percent=fields.number("within_5_percent"),
        within_10_percent=fields.number("within_10_percent"),
        spearman=fields.number("spearman"),
    )


def _network(fields: _Fields) -> Network:
    try:
        spec = ArchSpec.from_dict(fields.get("spec", dict))
    except NasError as error:
        raise NasError(f"{fields.where}: spec: {error}") from None
    breakdown = fields.optional("breakdown", list) or []
    for row in breakdown:
        if not (isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) and _is_number(row[1])):
            raise NasError(f"{fields.where}: breakdown has {row!r}; each row must be a name and its milliseconds")
    measured_ms = fields.optional_number("measured_ms")
    if measured_ms is None:
        fields.number("predicted_ms")
    is_published = fields.one_of("top1_source", ("estimated", "published")) == "published"
    return Network(
        name=fields.get("name", str),
        found=fields.one_of("kind", ("found", "published")) == "found",
        role=fields.optional("role", str),
        spec=spec,
        measured_ms=measured_ms,
        raw_ms=fields.optional_number("raw_ms"),
        quartiles_ms=fields.pair("quartiles_ms") if fields.data.get("quartiles_ms") is not None else None,
        predicted_ms=fields.optional_number("predicted_ms"),
        macs=fields.get("macs", int),
        params=fields.get("params", int),
        estimated_top1=fields.number("estimated_top1"),
        estimated_std=fields.number("estimated_std"),
        extrapolated=fields.get("extrapolated", bool),
        published_top1=fields.number("top1") if is_published else None,
        source=fields.get("source", str),
        breakdown=tuple((name, float(ms)) for name, ms in breakdown),
    )


class _Fields:
    """A JSON object whose fields are asked for by kind; `where` is the place that errors name."""

    def __init__(self, data: Any, where: str) -> None:
        if not isinstance(data, dict):
            raise NasError(f"{where}: must be a JSON object")
        self.data: dict[str, Any] = data
        self.where = where

    def get(self, key: str, kind: type) -> Any:
        if key not in self.data:
            raise NasError(f"{self.where}: {key!r} is missing")
        value = self.data[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise NasError(f"{self.where}: {key} is {_short(value)}; it must be {_KINDS[kind]}")
        return value

    def optional(self, key: str, kind: type) -> Any:
        return None if self.data.get(key) is None else self.get(key, kind)

    def number(self, key: str) -> float:
        value = self.data.get(key)
        if not _is_number(value):
            self.get(key, float)  # raises, unless it is a NaN or infinite
            raise NasError(f"{self.where}: {key} is {value}; it must be a finite number")
        return float(self.data[key])

    def optional_number(self, key: str) -> float | None:
        return None if self.data.get(key) is None else self.number(key)

    def pair(self, key: str) -> tuple[float, float]:
        return self._pair(key, self.get(key, list))

    def pairs(self, key: str) -> list[tuple[float, float]]:
        return [self._pair(f"{key}, number {n}", item) for n, item in enumerate(self.get(key, list), 1)]

    def _pair(self, name: str, value: Any) -> tuple[float, float]:
        if not (isinstance(value, list) and len(value) == 2 and all(_is_number(number) for number in value)):
            raise NasError(f"{self.where}: {name} is {_short(value)}; it must be two numbers")
        return float(value[0]), float(value[1])

    def one_of(self, key: str, known: tuple[str, ...]) -> str:
        value: str = self.get(key, str)
        if value not in known:
            raise NasError(f"{self.where}: {key} is {value!r}; it must be one of {', '.join(known)}")
        return value

    def object(self, key: str) -> _Fields:
        return _Fields(self.get(key, dict), f"{self.where}: {key}")

    def objects(self, key: str) -> list[_Fields]:
        return [_Fields(item, f"{self.where}: {key}, number {n}") for n, item in enumerate(self.get(key, list), 1)]

    def check_version(self) -> None:
        version = self.get("version", int)
        if version != JSON_VERSION:
            advice = ": a newer program wrote it, upgrade this one" if version > JSON_VERSION else ""
            raise NasError(f"{self.where}: version is {version}; this program reads version {JSON_VERSION}{advice}")


_KINDS: dict[type, str] = {
    str: "a text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    dict: "an object",
    list: "a list",
}


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < float("inf")


def _json(file: Path) -> Any:
    try:
        return json.loads(read_text(file))
    except (json.JSONDecodeError, RecursionError) as error:
        raise NasError(f"{file}: not JSON: {error}") from None


def _trials(file: Path) -> Iterator[Trial]:
    for row in _csv(file, ("role", "latency_ms", "top1")):
        yield Trial(row.get("role"), row.number("latency_ms"), row.number("top1"))


def _table_rows(file: Path) -> Iterator[TableRow]:
    for row in _csv(file, ("op", "kernel", "se", "macs", "ms")):
        kernel, se = (int(row.number(key)) if row.get(key) else 0 for key in ("kernel", "se"))
        yield TableRow(row.get("op"), kernel, se > 0, int(row.number("macs")), row.number("ms"))


class _Cells:
    """A row of a CSV file; `where` is the place that errors name."""

    def __init__(self, cells: Mapping[str, str | None], where: str) -> None:
        self._cells = cells
        self._where = where

    def get(self, column: str) -> str:
        cell = self._cells[column]
        if cell is None:
            raise NasError(f"{self._where}: the row ends before its {column}")
        return cell

    def number(self, column: str) -> float:
        text = self.get(column)
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not _is_number(value):
            raise NasError(f"{self._where}: {column} is {_short(text)}; it must be a finite number")
        return value


def _csv(file: Path, columns: tuple[str, ...]) -> Iterator[_Cells]:
    """The rows of a CSV file that has at least these columns."""
    if not file.is_file():
        raise NasError(f"{file}: no such file; a run folder holds it even where it has no rows")
    reader = csv.DictReader(read_text(file).splitlines(), strict=True)
    try:
        missing = [column for column in columns if column not in (reader.fieldnames or ())]
        if missing:
            raise NasError(f"{file}: the column {missing[0]!r} is missing")
        for row in reader:
            yield _Cells(row, f"{file}: line {reader.line_num}")
    except csv.Error as error:
        raise NasError(f"{file}: not a CSV file ({error})") from None
