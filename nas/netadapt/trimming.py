"""Trim a seed to a network that keeps the budget. Each step is on disk before the next one begins."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nas.arch.cost import count_cost
from nas.arch.spec import ArchSpec, load_results
from nas.console import Console
from nas.errors import NasError
from nas.files import write_text
from nas.latency.predictor import LatencyPredictor
from nas.netadapt.algorithm import NetAdaptStep, as_learned, latency_of, trim_until_measured
from nas.netadapt.evaluators import Evaluator, KeptAccuracy
from nas.netadapt.latency_learning import learn_latency
from nas.netadapt.proposals import Rules
from nas.runs.folder import RunFolder, now
from nas.runs.record import Trial
from nas.runs.target import MARGIN
from nas.utf8 import as_utf8

TARGET = "netadapt"  # name of the run's only target in its log
STEPS = "steps"  # folder of the networks on the way
JSON_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRow:
    """A step as the files of a run hold it. Latencies are normalised milliseconds, accuracies are percent."""

    step: int  # 0 for the seed
    cut: str  # "" for the seed
    before_ms: float  # predicted, of the network before
    predicted_ms: float
    measured_ms: float | None  # None where the network was not measured
    now_ms: float  # measured, or predicted and corrected by what was measured last
    accuracy_before: float  # of the network before
    accuracy: float  # in the measure by which proposals are compared
    top1: float
    spec_id: str
    macs: int
    params: int


COLUMNS = tuple(column.name for column in dataclasses.fields(StepRow) if column.name != "now_ms")


@dataclass
class Trimming:
    """A run of NetAdapt on its way: the steps so far, in memory and in the run's folder."""

    budget_ms: float
    measure_every: int  # steps
    rules: Rules
    predictor: LatencyPredictor
    evaluator: Evaluator
    folder: RunFolder
    console: Console
    rows: list[StepRow] = field(default_factory=list)
    steps: list[NetAdaptStep] = field(default_factory=list)
    _last_ms: float = field(default=0.0, init=False)  # predicted, of the last step

    def run(self, seed: ArchSpec) -> bool:
        """Trim the seed until the budget is kept; return whether that was possible.

        A run that was stopped goes on after its last step.
        """
        self._load_steps()
        if not self.steps:
            self._begin(seed)
        if len(self.steps) == 1 and self.rows[0].now_ms <= self.budget_ms:
            self.console.say(f"{seed.name} fits the budget of {self.budget_ms:g} ms as it is, and is copied")
            return True
        steps = trim_until_measured(
            self.steps,
            self.limit_ms,
            predict_ms=self.predictor.predict_ms,
            measure_ms=self._measure_ms if self.measurable else None,
            estimate=self.evaluator.estimate,
            measure_every=self.measure_every,
            rules=self.rules,
        )
        for step in steps:
            self._add(step, self.evaluator.keep(step.spec))
        return self.rows[-1].now_ms <= self.limit_ms

    @property
    def measurable(self) -> bool:
        """Return whether networks can be measured: not with the table of another device."""
        return not self.predictor.table.other_device

    @property
    def limit_ms(self) -> float:
        """Return the latency to trim to. A measurement must keep a margin, since it would not repeat exactly."""
        return (1 - MARGIN) * self.budget_ms if self.measurable else self.budget_ms

    def _measure_ms(self, spec: ArchSpec) -> float:
        """Return the measured latency of a whole network, to the nanosecond."""
        (measured,) = self.predictor.measure([spec], "measuring the whole network")
        return round(measured.normalised_ms, 6)

    def _begin(self, seed: ArchSpec) -> None:
        kept = self.evaluator.evaluate_seed()
        step = NetAdaptStep(seed, float(self.predictor.predict_ms([seed])[0]), kept.accuracy)
        if self.measurable:
            # What the table knows surely is not measured again: a run that was killed here goes the same way.
            known = self.predictor.is_sure(seed)
            measured_ms = float(self.predictor.measured_ms([seed], "")[0]) if known else self._measure_ms(seed)
            step = replace(step, measured_ms=round(measured_ms, 6))
        if latency_of([step]) > self.limit_ms:
            learn_latency(self.predictor, seed, self.limit_ms / latency_of([step]), self.rules.allow)
            step = replace(step, predicted_ms=float(self.predictor.predict_ms([seed])[0]))
        self._add(step, kept)

    def _add(self, step: NetAdaptStep, kept: KeptAccuracy) -> None:
        """Write a step, log it and report it. A step that is written counts as done."""
        cost = count_cost(step.spec, self.predictor.table.num_classes)
        row = StepRow(
            step=len(self.steps),
            cut=step.cut,
            before_ms=self._last_ms if self.steps else step.predicted_ms,
            predicted_ms=step.predicted_ms,
            measured_ms=step.measured_ms,
            now_ms=latency_of(as_learned([*self.steps, step], self.predictor.predict_ms)),
            accuracy_before=self.rows[-1].accuracy if self.rows else kept.accuracy,
            accuracy=kept.accuracy,
            top1=kept.top1,
            spec_id=step.spec.id,
            macs=cost.macs,
            params=cost.params,
        )
        path = self._file_of(row.step)
        path.parent.mkdir(exist_ok=True)
        self.evaluator.save(path.with_suffix(".pt"))
        step.spec.save(path, dataclasses.asdict(row))
        self._append(step, row)
        self._log(step.spec, row)
        self._report(row)

    def _append(self, step: NetAdaptStep, row: StepRow) -> None:
        self.steps.append(step)
        self.rows.append(row)
        # As the next proposals are compared with it: the table has learned from this step where it was measured.
        self._last_ms = float(self.predictor.predict_ms([step.spec])[0])

    def _log(self, spec: ArchSpec, row: StepRow) -> None:
        trial = Trial(encoding=None, spec=spec, top1=row.top1, std=0.0, latency_ms=row.predicted_ms, score=row.accuracy)
        self.folder.log(TARGET, row.cut or "seed", trial)
        self.folder.flush()

    def _report(self, row: StepRow) -> None:
        if row.step == 0:
            self.console.say(f"accuracy: {self.evaluator.source}")
            self.console.say("step  predicted    measured   accuracy  cut")
        measured = "" if row.measured_ms is None else f"{row.measured_ms:.4f} ms"
        self.console.say(
            f"{row.step:4}  {row.predicted_ms:.4f} ms {measured:>11}    {row.accuracy:5.2f} %  {row.cut or 'seed'}"
        )

    def _file_of(self, step: int) -> Path:
        return self.folder.path / STEPS / f"{step:04}.json"

    def _load_steps(self) -> None:
        """Read the steps of a run that was stopped, and let the evaluator go on after them."""
        logged = len(self.folder.trials(TARGET))
        while (path := self._file_of(len(self.steps))).exists():
            spec, row = ArchSpec.load(path), _load_row(path)
            step = NetAdaptStep(spec, row.predicted_ms, row.accuracy, row.cut, measured_ms=row.measured_ms)
            self._append(step, row)
            if len(self.steps) > logged:  # the run was stopped between the file and the log
                self._log(spec, row)
        if self.steps:
            last = len(self.steps) - 1
            self.evaluator.resume(last, self._file_of(last).with_suffix(".pt"))
            self.console.say(f"{last} steps are done")

    def write(self) -> Path:
        """Write `steps.csv`, `trajectory.json` and the last network; return the file of its spec."""
        out, table = self.folder.path, self.predictor.table
        rows: list[dict[str, Any]] = [dataclasses.asdict(row) for row in self.rows]
        self.folder.write_csv("steps.csv", rows, COLUMNS)
        measured_on = {"device": table.device.cpu, "runtime": str(table.runtime)}
        trajectory = {
            "version": JSON_VERSION,
            "budget_ms": self.budget_ms,
            **measured_on,
            "accuracy": self.evaluator.source,
            "networks": [row | {"spec": step.spec.to_dict()} for row, step in zip(rows, self.steps, strict=True)],
        }
        write_text(out / "trajectory.json", json.dumps(as_utf8(trajectory), indent=1, sort_keys=True) + "\n")
        final = out / "final.json"
        self.evaluator.save(final.with_suffix(".pt"))
        self.steps[-1].spec.save(final, {**rows[-1], **measured_on, "budget_ms": self.budget_ms})
        self.folder.update(finished=now())
        return final


def _load_row(path: Path) -> StepRow:
    """Return the row of a step's file. Raises NasError for a file that holds none."""
    try:
        return StepRow(**load_results(path))
    except TypeError as error:
        raise NasError(f"{path}: not a step of nas.netadapt ({error}); start a new run with another --out") from None
