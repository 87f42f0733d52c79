"""Estimate accuracy on images by training every network for a few epochs at a low resolution.

    estimator = ShortTraining("fashion-mnist-sample", log=Path("estimates.jsonl"))
    estimates = estimator.estimate([spec])

Networks that fall behind are stopped early (Hyperband, arXiv 1603.06560, as Optuna prunes). The log keeps results by
`spec.id`, so that neither a resumed run nor another process on the same log trains a network again.

Several networks are trained side by side, a core each. What comes of them is the same as if they were trained one after
the other: whether a network is stopped is decided when all before it have come as far, and results are kept in order.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import optuna
import torch
from optuna.pruners import HyperbandPruner
from optuna.trial import TrialState

from nas.accuracy.estimator import Estimates, Estimator
from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.accuracy.training_log import ShortTrainingResult, TrainingLog
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.models.mobilenet import build_model
from nas.quiet import quiet_optuna
from nas.training.data import EMBEDDED, EMBEDDED_RESOLUTION, FOLDER, load_data
from nas.training.images import Data, LeftOut, small_data_warning
from nas.training.loop import DivergedError, Machine, Training, TrainingStep
from nas.training.recipes import Recipe, load_recipe
from nas.training.side_by_side import Ended, SideBySide, networks_at_a_time
from nas.training.trained_on import content_of, counts_of

EPOCHS, RECIPE = 4, "quick"
REDUCTION_FACTOR = 2  # of Hyperband: half of the networks at a rung go on
MAX_RESOLUTION = 64  # pixels; the ranks of networks survive a lower resolution (EcoNAS, arXiv 2001.01233)
# Networks that a search may begin before it knows their results. It is no number of cores, so that a search finds the
# same on every machine.
TOGETHER = 8


class _Epoch(NamedTuple):
    """The result of an epoch of a training: top-1 (percent), and the images that could not be read so far, and why."""

    top1: float
    unreadable: dict[str, str]
    unreadable_val: dict[str, str]


class _Diverged(NamedTuple):
    """The end of a training that diverged, in place of the result of an epoch."""


@dataclass
class _Begun:
    """A network whose result is not known yet."""

    spec_id: str
    trial: optuna.Trial
    curve: list[float] = field(default_factory=list)  # top-1 (percent) of the epochs after which it was let go on
    told: deque[_Epoch | _Diverged] = field(default_factory=deque)  # what comes after these
    over: bool = False
    diverged: bool = False


class ShortTraining:
    """Estimate validation top-1 on a source's images after `epochs` of the recipe `quick` at `resolution` pixels.

    All networks are trained at that resolution, so that an estimate does not depend on the resolution of the spec.
    `proxy` answers where a rough order is enough. As many networks are trained `at_a_time` as there are cores, on a GPU
    one, each by `threads` processor threads; `loaders` are those of `load_data`. `say` gets a line for each training
    that diverges, for images that are fewer than a batch, and for those that are passed over or cannot be read. Raises
    NasError for data that cannot be loaded.
    """

    name, together = "short-training", TOGETHER
    most_at_a_time = staticmethod(networks_at_a_time)

    def __init__(
        self,
        source: str = EMBEDDED,
        data_dir: str | Path | None = None,
        *,
        loaders: int | None = None,
        log: Path | None = None,
        seed: int = 0,
        epochs: int = EPOCHS,
        resolution: int | None = None,
        at_a_time: int | None = None,
        threads: int = 1,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.proxy: Estimator = ImageNetPrior()
        self.data = load_data(source, data_dir, loaders)
        self.resolution = resolution or _training_resolution(self.data)
        self._seed, self._say = seed, say
        self._pool = SideBySide(self.data, at_a_time, threads=threads)
        self._begun: dict[int, _Begun] = {}  # by the number of the job, in order
        for note in self.data.notes:
            say(f"note: {note}")
        self._left_out = LeftOut(say)
        self._recipe = load_recipe(RECIPE).replace(epochs=epochs)
        if warning := small_data_warning(self.data, self._recipe):
            say(warning)
        self._log = TrainingLog(log, (_content(self.data), self.resolution, epochs, seed)) if log else None
        self._results: dict[str, ShortTrainingResult] = {}  # by the id of the spec
        self._study = _pruning_study(epochs)
        self._shown: set[str] = set()  # the specs whose results the study has
        self.training_recipe = (
            f"{source}, validation accuracy after {epochs} epochs of recipe {RECIPE} at {self.resolution} px; "
            "for networks stopped earlier, with the gain of other networks from there"
        )

    def estimate(self, specs: Sequence[ArchSpec]) -> Estimates:
        """Return top-1 (percent), one per spec. Trains the networks that have no result yet.

        `std` is that of the finite number of validation images, and of the expected gain of a stopped network. It does
        not cover another seed. A network whose training diverged has top-1 0 and is marked in `diverged`.
        """
        self.begin(specs)
        results = [self._result_of(spec) for spec in specs]
        return Estimates(
            np.array([result.top1 for result in results]),
            np.array([result.std for result in results]),
            np.zeros(len(results), bool),
            np.array([result.diverged for result in results], bool),
        )

    def compile(self, space: SearchSpace) -> Callable[[np.ndarray], np.ndarray]:
        """Return a function from encodings, shape (n, decisions), to the top-1 of `estimate` (percent), shape (n,)."""
        return lambda encodings: self.estimate(space.decode(np.asarray(encodings))).top1

    def additive_model(self, space: SearchSpace) -> None:
        """Return None: the accuracy after a training is no sum over blocks."""

    def add_estimates(self, specs: Sequence[ArchSpec], estimates: Estimates) -> None:
        """Add the estimates of other machines, so that these networks are not trained here."""
        self._read_log()
        for spec, top1, std, diverged in zip(specs, estimates.top1, estimates.std, estimates.diverged, strict=True):
            if spec.id not in self._results:
                self._add(spec.id, ShortTrainingResult((), float(top1), float(std), diverged=bool(diverged)))

    # Training ----------------------------------------------------------------------------------------

    def begin(self, specs: Sequence[ArchSpec]) -> None:
        """Let networks that have no result yet be trained, in this order, while others are waited for."""
        if any(spec.id not in self._results for spec in specs):
            self._read_log()
        for spec in specs:
            if spec.id not in self._results and all(spec.id != begun.spec_id for begun in self._begun.values()):
                self._show_new_results()
                number = self._pool.begin(_trained, spec, self._recipe, self.resolution, self._seed)
                self._begun[number] = _Begun(spec.id, self._study.ask())

    def close(self) -> None:
        """End all processes. Networks whose result is not known are forgotten."""
        self._pool.close()
        self._begun.clear()

    def _result_of(self, spec: ArchSpec) -> ShortTrainingResult:
        """Return the result of a network that was begun, or has one."""
        try:
            while spec.id not in self._results:
                number, told = self._pool.next_value()
                if number in self._begun and not isinstance(told, Ended):
                    self._begun[number].told.append(told)
                    self._let_go_on()
                    self._add_known()
        except BaseException:
            self.close()
            raise
        return self._results[spec.id]

    def _let_go_on(self) -> None:
        """Take epochs in the order of the networks: one counts when all networks before have come as far, or are over.

        Until then the training goes on, perhaps for nothing. So each is stopped where it would be if networks were
        trained one after the other.
        """
        reached = self._recipe.epochs
        for number, begun in self._begun.items():
            while not begun.over and begun.told and len(begun.curve) < reached:
                told = begun.told.popleft()
                if isinstance(told, _Diverged):
                    begun.over = begun.diverged = True
                else:
                    self._count(begun, told)
                    if begun.over:
                        self._pool.stop(number)
            if not begun.over:
                reached = min(reached, len(begun.curve))

    def _count(self, begun: _Begun, epoch: _Epoch) -> None:
        """Show an epoch to the pruner, which may end the training."""
        begun.curve.append(epoch.top1)
        self._left_out(epoch.unreadable)
        self.data.val.unreadable.update(epoch.unreadable_val)  # of another process, perhaps
        begun.trial.report(epoch.top1, len(begun.curve))
        begun.over = len(begun.curve) == self._recipe.epochs or begun.trial.should_prune()

    def _add_known(self) -> None:
        """Add the results of the first networks that are over."""
        while self._begun:
            number, first = next(iter(self._begun.items()))
            if not first.over:
                return
            curve = tuple(first.curve)
            if first.diverged:
                result = ShortTrainingResult(curve, 0.0, self._std(0.0), diverged=True)
            else:
                result = self._result_from(curve)
            self._finish(first.trial, first.spec_id, result)
            del self._begun[number]
            self._add(first.spec_id, result)

    def _show_new_results(self) -> None:
        """Show the pruner, epoch by epoch, the results of other processes and of the run that was interrupted."""
        for spec_id in [spec_id for spec_id in self._results if spec_id not in self._shown]:
            result, trial = self._results[spec_id], self._study.ask()
            for epoch, top1 in enumerate(result.curve, start=1):
                trial.report(top1, epoch)
                trial.should_prune()  # records the rungs that the trial reached
            self._finish(trial, spec_id, result)

    def _finish(self, trial: optuna.Trial, spec_id: str, result: ShortTrainingResult) -> None:
        if 0 < len(result.curve) < self._recipe.epochs:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, result.top1)
        self._shown.add(spec_id)

    def _result_from(self, curve: tuple[float, ...]) -> ShortTrainingResult:
        top1, std = curve[-1], self._std(curve[-1])
        if len(curve) < self._recipe.epochs:
            complete = [other.curve for other in self._results.values() if len(other.curve) == self._recipe.epochs]
            gains = [other[-1] - other[len(curve) - 1] for other in complete]
            # The least gain of the others: a guess must not let a stopped network overtake them.
            top1 += max(0.0, min(gains, default=0.0))
            std = math.hypot(std, float(np.std(gains)) if gains else 0.0)
        return ShortTrainingResult(curve, top1, std)

    def _std(self, top1: float) -> float:
        """Return the standard deviation (percentage points) of a top-1 over the validation images that were read."""
        count = max(1, len(self.data.val) - len(self.data.val.unreadable))
        share = min(max(top1 / 100, 0.5 / count), 1 - 0.5 / count)
        return 100 * math.sqrt(share * (1 - share) / count)

    # Results ------------------------------------------------------------------------------------------

    def _add(self, spec_id: str, result: ShortTrainingResult) -> None:
        self._remember(spec_id, result)
        if self._log is not None:
            self._log.append(spec_id, result)

    def _remember(self, spec_id: str, result: ShortTrainingResult) -> None:
        self._results[spec_id] = result
        if result.diverged:
            self._say(f"warning: the training of network {spec_id} diverged; it counts as 0 %")

    def _read_log(self) -> None:
        if self._log is not None:
            for spec_id, result in self._log.read_new():
                if spec_id not in self._results:
                    self._remember(spec_id, result)


def images_content(source: str, data_dir: str | Path | None) -> str:
    """Return what says whether images are the same: the fingerprint of a folder's, or the name of a data set."""
    return _content(load_data(source, data_dir)) if source.startswith(FOLDER) else source


def images_side(source: str, data_dir: str | Path | None) -> int | None:
    """Return the shorter side of the largest of some training images (pixels), or None if none can be read."""
    return load_data(source, data_dir).train.side


def _content(data: Data) -> str:
    return content_of(data.source, data.classes, counts_of(data)) or data.source


def _pruning_study(epochs: int) -> optuna.Study:
    """Return a study for the pruner: one objective, a trial a network. Nothing is sampled from it."""
    pruner = HyperbandPruner(min_resource=1, max_resource=epochs, reduction_factor=REDUCTION_FACTOR)
    sampler = optuna.samplers.RandomSampler(seed=0)
    with quiet_optuna():
        return optuna.create_study(direction="maximize", pruner=pruner, sampler=sampler, study_name=ShortTraining.name)


def _training_resolution(data: Data) -> int:
    """Return the resolution (pixels) of the images, up to a limit and at least what five halvings need."""
    return min(MAX_RESOLUTION, max(EMBEDDED_RESOLUTION, data.train.side or MAX_RESOLUTION))


def _trained(
    data: Data, stopped: Callable[[], bool], spec: ArchSpec, recipe: Recipe, resolution: int, seed: int
) -> Iterator[_Epoch | _Diverged]:
    """Train a network and yield what each epoch tells. It is a job of `SideBySide`."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model(spec, len(data.classes), recipe.dropout)
    machine = Machine(device=device, bf16=device == "cuda")
    training = Training(model, data, recipe, resolution=resolution, seed=seed, machine=machine)

    def look(step: TrainingStep) -> None:
        if stopped():
            raise _StoppedError

    try:
        for metrics in training.epochs(look):
            yield _Epoch(metrics.top1, data.unreadable, data.val.unreadable)
    except DivergedError:
        yield _Diverged()
    except _StoppedError:
        pass


class _StoppedError(Exception):
    """Nobody wants more of this training."""
