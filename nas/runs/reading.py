"""Read the folder of a finished run, for reports and for analysis.

Its trials and its networks are pandas data frames::

    run = nas.load_run("reports/20ms")
    run.trials.groupby(["target", "stage"]).top1.agg(["size", "max"])
    run.networks.sort_values("latency_ms")[["name", "latency_ms", "estimated_top1", "published_top1"]]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

import msgspec
import numpy as np
import pandas as pd

from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.files import read_text
from nas.runs.optima import load_optima
from nas.runs.record import (
    CHANGE_COLUMNS,
    MEASURED_COLUMNS,
    OPTIMA,
    RECORD,
    TABLE_COLUMNS,
    TRIAL_COLUMNS,
    EstimatorInfo,
    NetworkResult,
    OptimalNetwork,
    RunRecord,
    TableInfo,
    TargetResult,
    load_record,
)

# Of table_rows.csv: a stem has no input channels, a head has no kernel.
_MAY_BE_BLANK = ("kernel", "expanded", "out", "stride", "se", "activation", "in_channels", "in_size")
_WHOLE_BELOW = 2.0**53  # where floats hold all whole numbers


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Run:
    """A finished run of `nas.search`.

    `trials` holds the networks that were looked at, with predicted normalised milliseconds and estimated top-1 in
    percent; `front` the best of them. `table_rows` holds the rows of the latency table that served the run; a column
    that does not apply to a row is NA there. `measured` holds the networks that the table knows as measured whole,
    each beside what all others predict for it. `changes` holds the estimated top-1 (percent) of the found networks with
    one choice of one block changed. `optima` holds the proven optima of many budgets, by skeleton and
    latency. All of them may be empty.
    """

    path: Path
    record: RunRecord
    trials: pd.DataFrame
    front: pd.DataFrame
    table_rows: pd.DataFrame
    measured: pd.DataFrame
    changes: pd.DataFrame
    optima: tuple[OptimalNetwork, ...]

    @property
    def networks(self) -> pd.DataFrame:
        """Return the networks of the comparison, one a row.

        Times are normalised milliseconds except `raw_ms`; accuracies are percent. An unknown number is NaN.
        """
        return pd.DataFrame([_network_row(network) for network in self.record.networks])

    @property
    def recipe_levels(self) -> pd.DataFrame:
        """Return the estimated top-1 (percent) of the found networks by recipe level; empty for other estimators."""
        rows = [(n.target, level) for n in self.record.networks for level in n.recipe_levels]
        return pd.DataFrame([{"target": target} | msgspec.structs.asdict(level) for target, level in rows])

    @property
    def nearest(self) -> pd.DataFrame:
        """Return the published networks nearest to the found ones, with residuals; empty for other estimators.

        Accuracies are percent, residuals points: published less estimated.
        """
        rows = [(n.target, near) for n in self.record.networks for near in n.nearest]
        return pd.DataFrame(
            [
                {"target": target}
                | msgspec.structs.asdict(near)
                | {"residual": near.residual, "left_out_residual": near.left_out_residual}
                for target, near in rows
            ]
        )

    @property
    def table(self) -> TableInfo:
        """Return the latency table of the run."""
        assert self.record.table is not None  # as `load_run` checked
        return self.record.table

    @property
    def estimator(self) -> EstimatorInfo:
        """Return the accuracy estimator of the run."""
        assert self.record.estimator is not None  # as `load_run` checked
        return self.record.estimator

    def result(self, target: str) -> TargetResult:
        """Return the search for the target of that name."""
        return next(result for result in self.record.targets if result.target.name == target)

    def found(self, target: str) -> NetworkResult:
        """Return the network that was found for the target of that name."""
        return next(network for network in self.record.networks if network.found and network.target == target)


def load_run(path: str | Path) -> Run:
    """Read the folder of a finished run.

    Raises NasError, which names the file and the place in it, for a folder that holds no run, a run that is not
    finished, and a damaged one.
    """
    path = Path(path)
    if not path.is_dir():
        raise NasError(f"{path}: no such folder; name the folder that a run of nas.search wrote")
    if not (path / RECORD).is_file():
        raise NasError(f"{path}: not a run folder, for it has no {RECORD}; name one that nas.search wrote")
    record = load_record(path)
    if record.finished is None:
        raise NasError(f"{path}: this run is not finished; the same command with --resume continues it")
    _check_complete(path, record)
    return Run(
        path=path,
        record=record,
        trials=_read_csv(path / "trials.csv", TRIAL_COLUMNS),
        front=_read_csv(path / "front.csv", TRIAL_COLUMNS),
        table_rows=_read_csv(path / "table_rows.csv", TABLE_COLUMNS, _MAY_BE_BLANK),
        measured=_read_csv(path / "measured.csv", MEASURED_COLUMNS),
        changes=_read_csv(path / "changes.csv", CHANGE_COLUMNS),
        optima=load_optima(path / OPTIMA),
    )


def _check_complete(path: Path, record: RunRecord) -> None:
    """Raise NasError for a finished search without its table, estimator, targets, or found networks."""
    file, remedy = path / RECORD, "name the folder of a run of nas.search"
    for field in ("table", "estimator", "machine"):
        if getattr(record, field) is None:
            raise NasError(f"{file}: {field} is null; {remedy}")
    if not record.targets:
        raise NasError(f"{file}: targets is empty; {remedy}")
    for result in record.targets:
        name = result.target.name
        network = next((n for n in record.networks if n.found and n.target == name), None)
        if network is None:
            raise NasError(f"{file}: networks holds none of kind 'found' for the target {name!r}; {remedy}")
        spec_file = path / f"{name}.json"
        if ArchSpec.load(spec_file).id != network.spec.id:
            raise NasError(f"{spec_file}: not the network that {file} records ({network.spec.id}); restore the file")


def _network_row(network: NetworkResult) -> dict[str, object]:
    low_ms, high_ms = network.quartiles_ms or (None, None)
    return {
        "name": network.name,
        "kind": network.kind,
        "target": network.target,
        "spec_id": network.spec.id,
        "resolution": network.spec.resolution,
        "latency_ms": network.latency_ms,
        "measured_ms": _number(network.measured_ms),
        "lower_quartile_ms": _number(low_ms),
        "upper_quartile_ms": _number(high_ms),
        "raw_ms": _number(network.raw_ms),
        "predicted_ms": _number(network.predicted_ms),
        "macs": network.macs,
        "fvcore_macs": network.fvcore_macs,
        "params": network.params,
        "estimated_top1": _number(network.estimated_top1),
        "estimated_std": _number(network.estimated_std),
        "extrapolated": network.extrapolated,
        "published_top1": _number(network.published_top1),
        "source": network.source,
    }


def _number(value: float | None) -> float:
    """Return NaN for None, so that a column of unknown numbers is one of numbers."""
    return np.nan if value is None else value


def _read_csv(file: Path, columns: Mapping[str, type], may_be_blank: Iterable[str] = ()) -> pd.DataFrame:
    """Return the columns of a CSV file, checked, without its empty lines.

    Raises NasError, which names the line, for a cell that is missing or no finite number.
    """
    try:
        # Without a header, so that a row of too many cells is refused and the index counts lines.
        cells = pd.read_csv(StringIO(read_text(file)), header=None, dtype=str, na_filter=False, skip_blank_lines=False)
    except pd.errors.EmptyDataError:
        cells = pd.DataFrame([[""]])
    except pd.errors.ParserError as error:
        reason = str(error).strip().removeprefix("Error tokenizing data. C error: ")
        raise NasError(f"{file}: not a CSV file ({reason})") from None
    header = cells.iloc[0].tolist()
    for name in columns:
        if name not in header:
            raise NasError(f"{file}: the column {name!r} is missing")
    rows = cells.iloc[1:]
    rows = rows[(rows != "").any(axis=1)]
    frame = {}
    for name, cell_type in columns.items():
        column = rows[header.index(name)]
        if name not in may_be_blank and (column == "").any():
            raise NasError(f"{file}: line {column.index[column == ''][0] + 1}: the row has no {name}")
        if cell_type is not str:
            column = _numbers(column, name, cell_type, file)
        if cell_type is int:
            column = column.astype("Int64") if name in may_be_blank else column.astype("int64")
        frame[name] = column
    return pd.DataFrame(frame).reset_index(drop=True)


def _numbers(column: pd.Series, name: str, number_type: type, file: Path) -> pd.Series:
    """Return a column of texts as numbers; NaN for a blank. Raises NasError for a cell that is no such number."""
    numbers = pd.to_numeric(column.where(column != ""), errors="coerce").astype(float)
    right = np.isfinite(numbers)
    if number_type is int:
        right &= (numbers % 1 == 0) & (numbers.abs() < _WHOLE_BELOW)
    wrong = (column != "") & ~right
    if wrong.any():
        line = column.index[wrong][0]
        words = "a whole number" if number_type is int else "a finite number"
        raise NasError(f"{file}: line {line + 1}: {name} is {_short(column[line])}; it must be {words}")
    return numbers


def _short(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 40 else shown[:37] + "..."
