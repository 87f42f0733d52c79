"""Estimate accuracy on images by training every network for a few epochs at a low resolution.

    estimator = ShortTraining("fashion-mnist-sample", log=Path("estimates.jsonl"))
    estimates = estimator.estimate([spec])

Networks that fall behind are stopped early (Hyperband, arXiv 1603.06560, as Optuna prunes). The log keeps results by
`spec.id`, so that neither a resumed run nor another process on the same log trains a network again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

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
from nas.training.loop import DivergedError, Machine, Training
from nas.training.recipes import load_recipe
from nas.training.trained_on import content_of, counts_of

EPOCHS, RECIPE = 4, "quick"
REDUCTION_FACTOR = 2  # of Hyperband: half of the networks at a rung go on
MAX_RESOLUTION = 64  # pixels; the ranks of networks survive a lower resolution (EcoNAS, arXiv 2001.01233)


class ShortTraining:
    """Estimate validation top-1 on a source's images after `epochs` of the recipe `quick` at `resolution` pixels.

    All networks are trained at that resolution, so that an estimate does not depend on the resolution of the spec.
    `proxy` answers where a rough order is enough. `threads` processor threads are used, by default all; `loaders` are
    those of `load_data`. `say` gets a line for each training that diverges, for images that are fewer than a batch, and
    for those that are passed over or cannot be read. Raises NasError for data that cannot be loaded.
    """

    name = "short-training"

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
        threads: int | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.proxy: Estimator = ImageNetPrior()
        self.data = load_data(source, data_dir, loaders)
        self.resolution = resolution or _training_resolution(self.data)
        self._seed, self._threads, self._say = seed, threads, say
        for note in self.data.notes:
            say(f"note: {note}")
        self._left_out = LeftOut(say)
        self._recipe = load_recipe(RECIPE).replace(epochs=epochs)
        if warning := small_data_warning(self.data, self._recipe):
            say(warning)
        self._log = TrainingLog(log, (_content(self.data), self.resolution, epochs, seed)) if log else None
        self._results: dict[str, ShortTrainingResult] = {}  # by the id of the spec
        self._study = _pruning_study(epochs)
        self._shown = 0  # results that the study has
        self.training_recipe = (
            f"{source}, validation accuracy after {epochs} epochs of recipe {RECIPE} at {self.resolution} px; "
            "for networks stopped earlier, with the gain of other networks from there"
        )

    def estimate(self, specs: Sequence[ArchSpec]) -> Estimates:
        """Return top-1 (percent), one per spec. Trains the networks that have no result yet.

        `std` is that of the finite number of validation images, and of the expected gain of a stopped network. It does
        not cover another seed. A network whose training diverged has top-1 0 and is marked in `diverged`.
        """
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

    def _result_of(self, spec: ArchSpec) -> ShortTrainingResult:
        if spec.id not in self._results:
            self._read_log()
        if spec.id not in self._results:
            self._add(spec.id, self._train(spec))
        return self._results[spec.id]

    def _train(self, spec: ArchSpec) -> ShortTrainingResult:
        """Train a network to the end, or to the epoch at which Hyperband stops it."""
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._show_new_results()
        trial = self._study.ask()
        curve: list[float] = []
        with torch.random.fork_rng(), _torch_threads(self._threads):
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
                    self._left_out(self.data.unreadable)
                    trial.report(metrics.top1, metrics.epoch)
                    if metrics.epoch < self._recipe.epochs and trial.should_prune():
                        break
                result = self._result_from(tuple(curve))
            except DivergedError:
                result = ShortTrainingResult(tuple(curve), 0.0, self._std(0.0), diverged=True)
        self._finish(trial, result)
        return result

    def _show_new_results(self) -> None:
        """Show the pruner, epoch by epoch, the results of other processes and of the run that was interrupted."""
        for result in list(self._results.values())[self._shown :]:
            trial = self._study.ask()
            for epoch, top1 in enumerate(result.curve, start=1):
                trial.report(top1, epoch)
                trial.should_prune()  # records the rungs that the trial reached
            self._finish(trial, result)

    def _finish(self, trial: optuna.Trial, result: ShortTrainingResult) -> None:
        if 0 < len(result.curve) < self._recipe.epochs:
            self._study.tell(trial, state=TrialState.PRUNED)
        else:
            self._study.tell(trial, result.top1)
        self._shown += 1

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


@contextmanager
def _torch_threads(number: int | None) -> Iterator[None]:
    """Run torch with this number of threads in a `with` block. None changes nothing."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
