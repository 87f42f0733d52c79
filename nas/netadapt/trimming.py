"""The way from a seed to a network that keeps the budget, step by step, each on disk before the next begins."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nas.arch.cost import count_cost
from nas.arch.spec import ArchSpec, load_results
from nas.console import Console
from nas.files import write_text
from nas.latency.predictor import NOISE
from nas.netadapt.algorithm import Rules, Step, next_step
from nas.netadapt.clock import Clock
from nas.netadapt.evaluators import Judge, Kept
from nas.runs.folder import RunFolder, now

STEPS = "steps"  # folder of the networks on the way
COLUMNS = (
    *("step", "cut", "before_ms", "predicted_ms", "measured_ms", "accuracy_before", "accuracy", "top1", "spec_id"),
    *("macs", "params"),
)


@dataclass
class Trimming:
    """The way from a seed to a network whose measured latency keeps the budget, each step on disk."""

    budget_ms: float
    measure_every: int
    rules: Rules
    clock: Clock
    judge: Judge
    folder: RunFolder
    console: Console
    entries: list[dict[str, Any]] = field(default_factory=list)  # one a step, as steps/NNNN.json has it
    steps: list[Step] = field(default_factory=list)

    def go(self, seed: ArchSpec) -> bool:
        """Steps until the budget holds; False if it cannot be reached.

        Measured whole every few steps, so that the table's predictions are put right on the way: what the whole
        network took, over its prediction, is taken off the budget that predictions must keep.
        """
        self._take_up()
        if not self.steps:
            kept = self.judge.begin()
            latency_ms = float(self.clock.predicted_ms([seed])[0])
            self._add(Step(seed, latency_ms, kept.accuracy, ""), kept, kept.accuracy)
        if self._fits(self.budget_ms) and len(self.steps) == 1:
            self.console.say(f"{seed.name} fits the budget of {self.budget_ms:g} ms as it is, and is copied")
            return True
        while not self._fits(self.limit_ms):
            step = next_step(
                self.steps,
                self.limit_ms / self.correction,
                price=self.clock.predicted_ms,
                estimate=self.judge.estimate,
                rules=self.rules,
            )
            if step is None:
                return False
            before = step.top1 - step.gained
            self._add(step, self.judge.keep(step.spec), before)
        return True

    @property
    def limit_ms(self) -> float:
        """What a measurement must keep: a little less than the budget, since it would not repeat to the last digit."""
        return (1 - NOISE) * self.budget_ms if self.clock.here else self.budget_ms

    @property
    def correction(self) -> float:
        """Measured over predicted latency, where it was measured last."""
        known = [entry for entry in self.entries if entry["measured_ms"] is not None]
        return known[-1]["measured_ms"] / known[-1]["predicted_ms"] if known else 1.0

    def _fits(self, limit_ms: float) -> bool:
        """Whether the last network, measured where that is possible, keeps the limit."""
        last = self.entries[-1]
        if last["measured_ms"] is None and self.clock.here:
            return False
        return last["now_ms"] <= limit_ms

    def _add(self, step: Step, kept: Kept, accuracy_before: float) -> None:
        """Measures the network if it is time to, writes it, logs it, says it. What is written counts as done."""
        number, cost = len(self.steps), count_cost(step.spec, self.clock.table.num_classes)
        due = number % self.measure_every == 0 or step.latency_ms * self.correction <= self.limit_ms
        measured_ms = self.clock.measured_ms(step.spec) if due else None
        entry = {
            "step": number,
            "cut": step.cut,
            "before_ms": self.steps[-1].latency_ms if self.steps else step.latency_ms,
            "predicted_ms": step.latency_ms,
            "measured_ms": measured_ms,
            "now_ms": step.latency_ms * self.correction if measured_ms is None else measured_ms,
            "accuracy_before": accuracy_before,
            "accuracy": kept.accuracy,
            "top1": kept.top1,
            "spec_id": step.spec.id,
            "macs": cost.macs,
            "params": cost.params,
        }
        path = self.folder.path / STEPS / f"{number:04}.json"
        path.parent.mkdir(exist_ok=True)
        self.judge.save(path.with_suffix(".pt"))
        step.spec.save(path, entry)
        self._know(step, entry)
        self._log(step.spec, entry)
        self._say(entry)

    def _know(self, step: Step, entry: dict[str, Any]) -> None:
        self.steps.append(step)
        self.entries.append(entry)

    def _log(self, spec: ArchSpec, entry: dict[str, Any]) -> None:
        self.folder.log("netadapt", entry["cut"] or "seed", spec, entry["predicted_ms"], entry["top1"], 0.0)
        self.folder.flush()

    def _say(self, entry: dict[str, Any]) -> None:
        if entry["step"] == 0:
            self.console.say(f"accuracy: {self.judge.source}")
            self.console.say("step  predicted    measured   accuracy  cut")
        measured = "" if entry["measured_ms"] is None else f"{entry['measured_ms']:.4f} ms"
        self.console.say(
            f"{entry['step']:4}  {entry['predicted_ms']:.4f} ms {measured:>11}    {entry['accuracy']:5.2f} %"
            f"  {entry['cut'] or 'seed'}"
        )

    def _take_up(self) -> None:
        """The steps of a run that was stopped."""
        logged = len(self.folder.trials("netadapt"))
        while (path := self.folder.path / STEPS / f"{len(self.steps):04}.json").exists():
            entry, spec = load_results(path), ArchSpec.load(path)
            self._know(Step(spec, entry["predicted_ms"], entry["accuracy"], entry["cut"]), entry)
            if len(self.steps) > logged:  # it was stopped between the two
                self._log(spec, entry)
        if self.steps:
            self.judge.take_up(self.entries[-1], path.with_name(f"{len(self.steps) - 1:04}.pt"))
            self.console.say(f"{len(self.steps) - 1} steps are done")

    def write(self) -> Path:
        """steps.csv, trajectory.json and the last network; gives the path of its spec."""
        out = self.folder.path
        self.folder.write_csv("steps.csv", self.entries, COLUMNS)
        networks = [
            {**entry, "spec": step.spec.to_dict()} for entry, step in zip(self.entries, self.steps, strict=True)
        ]
        table = {"device": self.clock.table.device.cpu, "runtime": str(self.clock.table.runtime)}
        family = {"version": 1, "budget_ms": self.budget_ms, **table, "accuracy": self.judge.source}
        write_text(
            out / "trajectory.json", json.dumps(family | {"networks": networks}, indent=1, sort_keys=True) + "\n"
        )
        final = out / "final.json"
        self.judge.save(final.with_suffix(".pt"))
        self.steps[-1].spec.save(final, {**self.entries[-1], **table, "budget_ms": self.budget_ms})
        self.folder.manifest["finished"] = now()
        self.folder.save()
        return final
