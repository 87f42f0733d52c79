"""Define the record of a run: what was asked, what was found, and on what it rests.

The search writes it, the report reads it, and `run.json` holds it. Every type is frozen; a run that goes on replaces
its record by a new one. msgspec turns it into JSON and checks what it reads.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from nas.arch.space import Encoding, Variant
from nas.arch.spec import ArchSpec
from nas.latency.networks import Measured
from nas.latency.table_file import Fidelity
from nas.runs.target import Target

VERSION = 2


class Trial(msgspec.Struct, frozen=True):
    """A network that a search looked at, with all that was computed of it."""

    encoding: Encoding | None  # None for a network that NetAdapt trimmed: it need not be a member of the space
    spec: ArchSpec
    top1: float  # estimated, percent
    std: float  # standard deviation of `top1`, percentage points
    latency_ms: float  # predicted, normalised
    score: float  # what the strategy maximises: `top1`, or the reward of MnasNet


class LoggedTrial(msgspec.Struct, frozen=True):
    """A trial with its place in the log of a run."""

    target: str  # the name of a target
    stage: str  # the strategy that proposed it, "seed" or "netadapt"; the number of the attempt behind it
    number: int  # within its target
    trial: Trial


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
    fidelity: Fidelity | None  # None: the table was not checked


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
    """The optimum of the models within a predicted latency, those behind it, and a loop of trials beside it."""

    limit_ms: float
    best: Optimum
    runners_up: tuple[Optimum, ...]
    loop: LoopBest


class TargetResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The search for one target, as far as it has come.

    `corrections` are measured over predicted latency, one an attempt. `measured` holds the finalists by the id of
    their spec, so that a run that resumes decides alike.
    """

    target: Target
    space: str
    feasible_ms: tuple[float, float]  # the fastest and the slowest network of the space, measured
    binds: bool  # whether the budget keeps any network of the space out
    variants: tuple[Variant, ...] = ()
    corrections: tuple[float, ...] = ()
    measured: dict[str, Measured] = {}
    optimum: ProvenOptimum | None = None


class NetworkResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A network of a run's comparison. Times are normalised milliseconds except `raw_ms`; accuracies are percent.

    `estimated_top1` speaks for the run's training recipe, the same for all networks; `published_top1` for whatever
    training its authors gave a network.
    """

    name: str
    kind: Literal["found", "published"]
    target: str | None  # the name of the target that a found network is for
    spec: ArchSpec
    measured_ms: float | None  # None: the table is of another device, and holds no measurement of it
    raw_ms: float | None  # None: it was not measured together with the found networks
    quartiles_ms: tuple[float, float] | None
    predicted_ms: float | None  # None: the table lacks rows of it
    macs: int
    params: int
    estimated_top1: float
    estimated_std: float
    extrapolated: bool  # whether the estimator was fitted to nothing like it
    published_top1: float | None
    source: str  # of the published accuracy, or else of the estimate
    breakdown: tuple[tuple[str, float], ...]  # part and its ms by the table; empty where the table lacks rows

    @property
    def found(self) -> bool:
        """Return whether this run found the network."""
        return self.kind == "found"

    @property
    def latency_ms(self) -> float:
        """Return the measured latency, or the predicted one where nothing was measured."""
        latency_ms = self.predicted_ms if self.measured_ms is None else self.measured_ms
        assert latency_ms is not None  # `load_record` refuses a network without either
        return latency_ms


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
    networks: tuple[NetworkResult, ...] = ()
