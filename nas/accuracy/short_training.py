"""Accuracy on one's own images: every network is trained for a few epochs at a low resolution.

    estimator = ShortTraining("fashion-mnist-sample", log=Path("estimates.jsonl"))
    top1, std, extrapolated = estimator.estimate([spec])

Networks that fall behind are stopped early (Hyperband, arXiv 1603.06560, as Optuna prunes). What was trained is
kept in the log by `spec.id`: nothing is trained twice, by a resumed run or by another process on the same log.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import optuna
import torch
from optuna.pruners import HyperbandPruner
from optuna.trial import TrialState

from nas.accuracy.estimator import Estimates, Estimator
from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.errors import NasError
from nas.models.mobilenet import build_model
from nas.training.data import EMBEDDED, EMBEDDED_RESOLUTION, Data, TensorImages, load_data
from nas.training.loop import DivergedError, Machine, Training
from nas.training.recipes import load_recipe

EPOCHS, RECIPE = 4, "quick"
HALVING = 2  # Hyperband's reduction factor: half of those at a rung go on
MOST_RESOLUTION = 64  # pixels; ranks of networks survive a lower resolution (EcoNAS, arXiv 2001.01233)


class Trained(NamedTuple):
    """Validation top-1 (percent) after each epoch; fewer than all epochs where it was stopped, none where taken over.

    `top1` is what counts for the network: the last epoch's, what is expected there of one that was stopped, or 0 of
    one that diverged.
    """

    curve: tuple[float, ...]
    top1: float
    std: float
    diverged: bool = False


class ShortTraining:
    """Validation top-1 on a source's images after `epochs` of the recipe `quick` at `resolution` px.

    All networks are trained at that resolution, so that it says nothing of the one they are made for. Where only a
    rough order is needed (which variants to search, what to trim, what a surrogate starts from), `proxy` answers.
    `threads` of the processor are used, by default all; `say` is told of trainings that diverge. Raises NasError for
    data that cannot be had.
    """

    name = "short-training"

    def __init__(
        self,
        source: str = EMBEDDED,
        data_dir: str | Path | None = None,
        *,
        log: Path | None = None,
        seed: int = 0,
        epochs: int = EPOCHS,
        resolution: int | None = None,
        threads: int | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.proxy: Estimator = ImageNetPrior()
        self.data = load_data(source, data_dir)
        self.resolution = resolution or _proxy_resolution(self.data)
        self._seed, self._threads, self._say = seed, threads, say
        self._recipe = load_recipe(RECIPE).replace(epochs=epochs)
        self._log = log
        self._known: dict[str, Trained] = {}
        self._read = self._lines = 0  # bytes and lines of the log
        self._study = _study(epochs)
        self._shown = 0  # of what is known, in the study
        self.training_recipe = (
            f"{source}, validation accuracy after {epochs} epochs of recipe {RECIPE} at {self.resolution} px; those of "
            "networks stopped earlier are what others gained from there"
        )

    def estimate(self, specs: Sequence[ArchSpec]) -> Estimates:
        """Top-1 in percent, one per spec; trains what is not known yet.

        `std` is that of the finite number of validation images (and of the gain that is expected of networks that
        were stopped); another seed makes a difference beside that. A network whose training diverges has 0.
        """
        found = [self._trained(spec) for spec in specs]
        return Estimates(
            np.array([trained.top1 for trained in found]),
            np.array([trained.std for trained in found]),
            np.zeros(len(found), bool),
        )

    def compile(self, space: SearchSpace) -> Callable[[np.ndarray], np.ndarray]:
        """A function from codes, shape (n, decisions), to top-1 in percent, shape (n,); equal to `estimate`."""
        return lambda codes: self.estimate(space.decode(list(np.asarray(codes)))).top1

    def additive_model(self, space: SearchSpace) -> None:
        """Return None: what a training reaches is no sum over blocks."""

    def take(self, specs: Sequence[ArchSpec], top1: Sequence[float]) -> None:
        """Takes over what other machines have estimated."""
        self._read_log()
        for spec, value in zip(specs, top1, strict=True):
            if spec.id not in self._known:
                self._keep(spec, Trained((), float(value), self._noise(value)))

    # Training ----------------------------------------------------------------------------------------

    def _trained(self, spec: ArchSpec) -> Trained:
        if spec.id not in self._known:
            self._read_log()
        if spec.id not in self._known:
            self._keep(spec, self._train(spec))
        return self._known[spec.id]

    def _train(self, spec: ArchSpec) -> Trained:
        """Up to the epoch at which Hyperband stops it."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._replay()
        trial = self._study.ask()
        curve: list[float] = []
        with torch.random.fork_rng(), _threads(self._threads):
            torch.manual_seed(self._seed)
            model = build_model(spec, len(self.data.classes), self._recipe.dropout)
            training = Training(
                model,
                self.data,
                self._recipe,
                resolution=self.resolution,
                seed=self._seed,
                machine=Machine(device=device, bf16=device == "cuda"),
            )
            try:
                for metrics in training.epochs():
                    curve.append(metrics.top1)
                    trial.report(metrics.top1, metrics.epoch)
                    if metrics.epoch < self._recipe.epochs and trial.should_prune():
                        break
                trained = self._result(tuple(curve))
            except DivergedError:
                trained = Trained(tuple(curve), 0.0, self._noise(0.0), diverged=True)
        self._show(trial, trained)
        return trained

    def _replay(self) -> None:
        """Shows the pruner what was trained since, by others or before a run was resumed, epoch by epoch."""
        for trained in list(self._known.values())[self._shown :]:
            trial = self._study.ask()
            for epoch, top1 in enumerate(trained.curve, start=1):
                trial.report(top1, epoch)
                trial.should_prune()  # notes at which rungs the trial was
            self._show(trial, trained)

    def _show(self, trial: optuna.Trial, trained: Trained) -> None:
        stopped = 0 < len(trained.curve) < self._recipe.epochs
        if stopped:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, trained.top1)
        self._shown += 1

    def _result(self, curve: tuple[float, ...]) -> Trained:
        top1, std = curve[-1], self._noise(curve[-1])
        if len(curve) < self._recipe.epochs:
            whole = (known.curve for known in self._known.values() if len(known.curve) == self._recipe.epochs)
            gains = [other[-1] - other[len(curve) - 1] for other in whole]
            # Who fell behind does not overtake by a guess: the least that others gained is taken for granted.
            top1 += max(0.0, min(gains, default=0.0))
            std = math.hypot(std, float(np.std(gains)) if gains else 0.0)
        return Trained(curve, top1, std)

    def _noise(self, top1: float) -> float:
        share = min(max(top1 / 100, 0.5 / len(self.data.val)), 1 - 0.5 / len(self.data.val))
        return 100 * math.sqrt(share * (1 - share) / len(self.data.val))

    # Log: a line of JSON each -------------------------------------------------------------------------

    def _settings(self) -> list[Any]:
        return [self.data.source, self.resolution, self._recipe.epochs, self._seed]

    def _know(self, spec_id: str, trained: Trained) -> None:
        self._known[spec_id] = trained
        if trained.diverged:
            self._say(f"warning: the training of network {spec_id} diverged; it counts as 0 %")

    def _keep(self, spec: ArchSpec, trained: Trained) -> None:
        self._know(spec.id, trained)
        if self._log is None:
            return
        entry = {"spec_id": spec.id, "settings": self._settings(), **trained._asdict()}
        try:
            self._log.parent.mkdir(parents=True, exist_ok=True)
            with self._log.open("ab+") as file:
                # Behind the half line that a killed process may have left. One write, for others append as well.
                file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
                begin = b"" if file.read(1) in (b"", b"\n") else b"\n"
                file.write(begin + json.dumps(entry).encode() + b"\n")
        except OSError as error:
            raise NasError(f"{self._log}: cannot be written ({error.strerror})") from None

    def _read_log(self) -> None:
        """What was added to the log since it was last read, in order. Raises NasError for a line of another kind."""
        if self._log is None or not self._log.exists():
            return
        try:
            with self._log.open("rb") as file:
                file.seek(self._read)
                text = file.read()
        except OSError as error:
            raise NasError(f"{self._log}: cannot be read ({error.strerror})") from None
        whole = text.rfind(b"\n") + 1
        self._read += whole
        for line in text[:whole].splitlines():
            self._lines += 1
            try:
                entry = json.loads(line)
            except ValueError:  # the half line of a process that was killed
                continue
            try:
                spec_id, settings, trained = _parsed(entry)
            except (KeyError, TypeError, ValueError):
                raise NasError(
                    f"{self._log}: line {self._lines} is no training of this program's; take it out of the file, and "
                    "that network is trained again"
                ) from None
            if settings == self._settings() and spec_id not in self._known:
                self._know(spec_id, trained)


def _study(epochs: int) -> optuna.Study:
    """For the pruner: one objective, a trial a network. It samples nothing."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    pruner = HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=HALVING)
    sampler = optuna.samplers.RandomSampler(seed=0)
    return optuna.create_study(direction="maximize", pruner=pruner, sampler=sampler, study_name=ShortTraining.name)


def _parsed(entry: Any) -> tuple[str, list[Any], Trained]:
    """A network's id, settings and training. Raises KeyError, TypeError or ValueError for what is none."""
    curve, top1, std = tuple(map(float, entry["curve"])), float(entry["top1"]), float(entry["std"])
    spec_id, diverged = entry["spec_id"], entry["diverged"]
    if not (isinstance(spec_id, str) and isinstance(diverged, bool) and all(map(math.isfinite, (*curve, top1, std)))):
        raise ValueError
    return spec_id, list(entry["settings"]), Trained(curve, top1, std, diverged)


def _proxy_resolution(data: Data) -> int:
    """Of images in memory their own, up to a limit; at least what five halvings need."""
    if not isinstance(data.train, TensorImages):
        return MOST_RESOLUTION
    return min(MOST_RESOLUTION, max(EMBEDDED_RESOLUTION, data.train.images.shape[-1]))


@contextmanager
def _threads(number: int | None) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
