"""Define the record of a run: what was asked, what was found, and on what it rests.

The search writes it, the report reads it, and `run.json` holds it. Every type is frozen; a run that goes on replaces
its record by a new one. msgspec turns it into JSON and checks what it reads.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

import msgspec

from nas.arch.encoding import Encoding
from nas.arch.skeleton import Variant
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.files import read_text
from nas.latency.networks import Measured
from nas.latency.table_file import Fidelity
from nas.runs.json_errors import describe
from nas.runs.target import SKELETONS, Target

RECORD = "run.json"
OPTIMA = "optima.jsonl"
VERSION = 4
# The columns of trials.csv and front.csv, and of the other tables of a run, with the types of their cells.
TRIAL_COLUMNS: dict[str, type] = {
    "target": str,
    "stage": str,
    "number": int,
    "spec_id": str,
    "latency_ms": float,
    "top1": float,
    "top1_std": float,
    "macs": int,
    "params": int,
    "peak_activation_bytes": int,
    "resolution": int,
    "blocks": str,  # as `blocks_text` writes them
}
TABLE_COLUMNS: dict[str, type] = {
    "key": str,
    "op": str,  # "stem", "head", or that of a block
    "kernel": int,
    "expanded": int,
    "out": int,
    "stride": int,
    "se": int,
    "activation": str,
    "in_channels": int,
    "in_size": int,
    "macs": int,
    "ms": float,  # corrected by what whole networks say
    "timed_ms": float,  # as it was timed
}
CHANGE_COLUMNS: dict[str, type] = {
    "target": str,
    "block": int,  # from 1
    "decision": str,
    "to": str,
    "resolution": int,
    "blocks": str,
    "top1": float,
}
MEASURED_COLUMNS: dict[str, type] = {
    "spec_id": str,
    "name": str,
    "population": str,  # one of `POPULATIONS`
    "resolution": int,
    "macs": int,
    "params": int,
    "measured_ms": float,
    "measured_error": float,  # relative standard error
    "predicted_ms": float,  # by all other networks
    "predicted_std": float,
}
# Why a network was measured whole. "random" and "near-optimal" were drawn when a table was made or checked; "finalist"
# may be of another run, and "found" and "published" are of this one's comparison or the literature; "anchor" is the
# smallest or the largest network of a variant; "other" is whatever the table does not tell.
POPULATIONS = ("found", "finalist", "published", "near-optimal", "random", "anchor", "other")
NetworkKind = Literal["found", "published"]


class Trial(msgspec.Struct, frozen=True):
    """A network that a search looked at, with all that was computed of it."""

    encoding: Encoding | None  # None for a network that NetAdapt trimmed: it need not be a member of the space
    spec: ArchSpec
    top1: float  # estimated, percent
    std: float  # standard deviation of `top1`, percentage points
    latency_ms: float  # predicted, normalised
    score: float  # what the strategy maximises: `top1`, or the reward of MnasNet
    diverged: bool = False  # its training did, and `top1` says nothing of the network


class LoggedTrial(msgspec.Struct, frozen=True):
    """A trial with its place in the log of a run."""

    target: str  # the name of a target
    stage: str  # the strategy that proposed it, "seed" or "netadapt"; the number of the attempt behind it
    number: int  # within its target
    trial: Trial

    def with_latency(self, latency_ms: float) -> LoggedTrial:
        """Return the same with another predicted latency of the network."""
        return msgspec.structs.replace(self, trial=msgspec.structs.replace(self.trial, latency_ms=latency_ms))


class MachineInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The machine that a run ran on."""

    cpu: str
    cores: int
    os: str


class TableInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The latency table that a run used."""

    file: str
    device: str  # the CPU that it was measured on
    other_device: bool  # True: it is of another machine, and nothing was measured
    runtime: str  # name and version
    threads: int
    precision: str
    num_classes: int
    rows: int
    reference: str  # name of the reference network
    reference_ms: float
    networks: int  # measured whole, that correct the rows
    fidelity: tuple[Fidelity, ...]  # one a population; empty: the table was not checked


class EstimatorInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The accuracy estimator that a run used."""

    name: str
    training_recipe: str  # the training that its estimates speak for


class Optimum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A network by the models: percent, predicted milliseconds."""

    spec_id: str
    top1: float
    predicted_ms: float


class LoopBest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The best that a loop of trials found."""

    strategy: str
    trials: int
    top1: float  # percent


class ProvenOptimum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The models' optimum within a predicted latency, its runners-up, and the best that a loop of trials found."""

    limit_ms: float
    best: Optimum
    runners_up: tuple[Optimum, ...]
    loop: LoopBest


class Attempt(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An attempt at a target: its best finalist, as predicted without its own measurement, and as measured."""

    limit_ms: float  # on predicted latency
    trims: bool  # whether networks above the limit were trimmed down to it, too
    spec_id: str
    predicted_ms: float
    predicted_std: float
    measured_ms: float
    measured_error: float  # relative standard error

    @property
    def difference(self) -> float:
        """Return how much longer the network takes than predicted, relative."""
        return self.measured_ms / self.predicted_ms - 1


class TargetResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The search for one target, as far as it has come.

    `measured` holds the finalists by the id of their spec. A resumed run reuses these measurements.
    """

    target: Target
    space: str
    feasible_ms: tuple[float, float]  # the fastest and the slowest network of the space, measured
    binds: bool  # whether the budget keeps any network of the space out
    variants: tuple[Variant, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    measured: dict[str, Measured] = {}
    optimum: ProvenOptimum | None = None


class LevelEstimate(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The estimate of a network for one training that the estimator knows.

    `title`, `epochs`, `teacher` and `training_source` are for readers who compare the training with theirs. They are
    empty where nothing is told of it.
    """

    recipe_level: str
    description: str
    title: str
    epochs: str
    teacher: str
    training_source: str
    networks: int  # published networks that were trained so, on which the estimate rests
    of_run: bool  # whether all other estimates of the run are for this level
    top1: float  # percent
    std: float  # percentage points


class NearNetwork(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A published network near one that was found, as evidence for its estimate. Accuracies are percent.

    `estimated_top1` is for the training of the publication; `left_out_top1` is that of a fit without the
    network in any training.
    """

    name: str
    resolution: int  # pixels
    recipe_level: str
    published_top1: float
    estimated_top1: float
    left_out_top1: float
    difference: float  # percentage points by which the found network is estimated better, both trained for the run
    difference_std: float
    source: str

    @property
    def residual(self) -> float:
        """Return by how many points the network was published better than it is estimated."""
        return self.published_top1 - self.estimated_top1

    @property
    def left_out_residual(self) -> float:
        """Return by how many points the network was published better than a fit without it estimates."""
        return self.published_top1 - self.left_out_top1


class NetworkResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A network of a run's comparison. Times are normalised milliseconds except `raw_ms`; accuracies are percent.

    `estimated_top1` speaks for the run's training recipe, the same for all networks; `published_top1` for whatever
    training its authors gave a network.
    """

    name: str
    kind: NetworkKind
    target: str | None  # the name of the target that a found network is for
    spec: ArchSpec
    measured_ms: float | None  # None: the table is of another device, and holds no measurement of it
    raw_ms: float | None  # None: it was not measured together with the found networks
    quartiles_ms: tuple[float, float] | None
    measured_error: float | None  # relative standard error of `measured_ms`
    predicted_ms: float | None  # by all other networks; None: the table lacks rows of it
    predicted_std: float | None
    macs: int
    fvcore_macs: int | None  # counted on the built network; None: it was not built
    params: int
    estimated_top1: float | None  # None: a published network that the estimator cannot judge
    estimated_std: float | None
    extrapolated: bool  # whether the estimator was fitted to nothing like it
    published_top1: float | None
    source: str  # of the published accuracy, or else of the estimate
    breakdown: tuple[tuple[str, float], ...]  # part and its ms by the table; empty where the table lacks rows
    # Of a found network whose estimator is fitted to published results; else empty.
    recipe_levels: tuple[LevelEstimate, ...] = ()  # the least accurate first
    nearest: tuple[NearNetwork, ...] = ()  # the nearest first

    @property
    def found(self) -> bool:
        """Return whether this run found the network."""
        return self.kind == "found"

    @property
    def estimate(self) -> tuple[float, float] | None:
        """Return the estimated top-1 and its standard deviation, or None where there is no estimate."""
        if self.estimated_top1 is None or self.estimated_std is None:
            return None
        return self.estimated_top1, self.estimated_std

    @property
    def own_estimate(self) -> tuple[float, float]:
        """Return the estimated top-1 and its standard deviation of a network that has them, as every found one has."""
        assert self.estimate is not None  # `load_record` refuses a found network without
        return self.estimate

    @property
    def latency_ms(self) -> float:
        """Return the measured latency, or the predicted one where nothing was measured."""
        latency_ms = self.predicted_ms if self.measured_ms is None else self.measured_ms
        assert latency_ms is not None  # `load_record` refuses a network without either
        return latency_ms


class OptimalNetwork(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A proven optimum of the models: no network of its skeleton that is predicted as fast is estimated better.

    It is proven to a hundredth of a point, among the variants of which the table has every row.
    The file `OPTIMA` of a run holds one a line, sorted by skeleton and latency. Times are predicted normalised
    milliseconds, accuracies estimated percent.
    """

    skeleton: Literal["large", "small"]
    variant: Variant
    limit_ms: float  # within which it was found
    latency_ms: float
    latency_std: float | None  # None: unknown
    top1: float
    top1_std: float
    extrapolated: bool  # whether the estimator was fitted to nothing like it
    macs: int
    params: int
    spec: ArchSpec


class RunRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A run of `nas.search` or `nas.netadapt`."""

    version: int = VERSION
    command: str
    arguments: dict[str, Any]
    versions: dict[str, str]  # of the packages that a result depends on
    created: str
    finished: str | None = None
    seconds: dict[str, float] = {}  # by stage, resumed runs included
    machine: MachineInfo | None = None
    table: TableInfo | None = None
    estimator: EstimatorInfo | None = None
    notes: tuple[str, ...] = ()  # what must be known of all figures
    targets: tuple[TargetResult, ...] = ()
    compared: dict[str, Measured] = {}  # by the id of a spec: what was measured beside the found networks, and these
    networks: tuple[NetworkResult, ...] = ()


# Reading ----------------------------------------------------------------------------------------------

_RUN_AGAIN = "start a new run with another --out"


class _Version(msgspec.Struct):
    """The field of a record that is read before all others."""

    version: int


def load_record(path: Path) -> RunRecord:
    """Read the record of the run in a folder.

    The run need not be finished. Raises NasError, which names the file and the place in it, for a record that is
    missing, of another version, not of the types above, or holds a number that is not finite.
    """
    file = path / RECORD
    text = read_text(file)
    try:
        version = msgspec.json.decode(text, type=_Version).version
        if version > VERSION:
            raise NasError(f"{file}: its version is {version}; a newer program wrote it, so upgrade this one")
        if version < VERSION:
            raise NasError(f"{file}: its version is {version}; an older program wrote it, so {_RUN_AGAIN}")
        record = msgspec.json.decode(text, type=RunRecord)
        problem = _contradiction(record)
    except (msgspec.MsgspecError, UnicodeEncodeError, RecursionError) as error:
        problem = describe(error, text, choices={"kind": get_args(NetworkKind)})
    if problem:
        raise NasError(f"{file}: {problem}; restore the file, or {_RUN_AGAIN}")
    return record


def _contradiction(record: RunRecord) -> str | None:
    """Return the first problem that the types do not express."""
    for number, result in enumerate(record.targets):
        skeleton = result.target.skeleton
        if skeleton not in SKELETONS:
            place = f"targets[{number}].target.skeleton"
            return f"{place} is {skeleton!r}; it must be one of {', '.join(SKELETONS)}"
    names = [result.target.name for result in record.targets]
    for number, network in enumerate(record.networks):
        if network.measured_ms is None and network.predicted_ms is None:
            return f"networks[{number}].predicted_ms is null; it must be a number where measured_ms is null"
        figures = {"estimated_top1": network.estimated_top1, "estimated_std": network.estimated_std}
        unknown = [name for name, figure in figures.items() if figure is None]
        if unknown and (network.found or len(unknown) == 1):
            return f"networks[{number}].{unknown[0]} is null; it must be a number"
        if network.found and network.target not in names:
            target = "null" if network.target is None else repr(network.target)
            return f"networks[{number}].target is {target}; it must be the name of a target ({', '.join(names)})"
    return None
