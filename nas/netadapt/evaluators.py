"""Evaluate NetAdapt's proposals: by an accuracy estimator, or by weights that are trained on images for all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from nas.accuracy import load_estimator
from nas.arch.spec import ArchSpec
from nas.console import Console
from nas.netadapt.long_training import recipe_of, train_seed
from nas.netadapt.narrowing import RandomCuts, cuts_within, with_wider_expansions
from nas.netadapt.request import NetAdaptRequest
from nas.netadapt.seed import Seed

if TYPE_CHECKING:  # these load torch
    from nas.models.mobilenet import MobileNet
    from nas.netadapt.learning import Learned, Question


class KeptAccuracy(NamedTuple):
    """The accuracy of a network that is kept, in percent."""

    accuracy: float  # in the measure by which proposals are compared
    top1: float


class Evaluator(Protocol):
    """Estimate the accuracy of proposals, and carry the weights of the current network along where there are any."""

    source: str  # of the accuracies, for readers

    def estimate(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """Return the accuracy (percent) of proposals: array of shape (n,)."""

    def evaluate_seed(self) -> KeptAccuracy:
        """Return the accuracy of the seed as it is."""

    def keep(self, spec: ArchSpec) -> KeptAccuracy:
        """Make a network the current one, and return its accuracy."""

    def resume(self, step: int, checkpoint: Path) -> None:
        """Go on from the network that `save` wrote after a step, counted from 0 for the seed."""

    def save(self, path: Path) -> None:
        """Write the current network's weights as a checkpoint, if it has any."""


class EstimatorEvaluator:
    """Evaluate proposals by an estimator that needs no data. The seed's weights, if any, are cut along."""

    def __init__(self, name: str, seed: Seed) -> None:
        self._estimator, self._seed, self._model = load_estimator(name), seed, seed.model
        self.source = f"{self._estimator.name}: {self._estimator.training_recipe}"

    def estimate(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        return self._estimator.estimate(specs).top1

    def evaluate_seed(self) -> KeptAccuracy:
        return self._accuracy_of(self._seed.spec)

    def keep(self, spec: ArchSpec) -> KeptAccuracy:
        if self._model is not None:
            from nas.models.inherited_weights import inherit_weights

            self._model = inherit_weights(spec, self._model)
        return self._accuracy_of(spec)

    def _accuracy_of(self, spec: ArchSpec) -> KeptAccuracy:
        top1 = float(self.estimate([spec])[0])
        return KeptAccuracy(top1, top1)

    def resume(self, step: int, checkpoint: Path) -> None:
        if self._model is not None:
            from nas.training.checkpoint import load_model

            self._model = load_model(checkpoint)

    def save(self, path: Path) -> None:
        if self._model is not None:
            names = self._seed.classes or tuple(map(str, range(self._seed.num_classes)))
            _save(path, self._model, names, self._seed.training)


class SupernetEvaluator:
    """Estimate proposals by what random cuts cost on images, and give those that are kept their shared weights.

    The shared weights are trained when the first proposals are estimated: a seed that fits as it is needs none.
    """

    def __init__(
        self, question: Question, cuts: Callable[[], RandomCuts], seed: Seed, folder: Path, console: Console
    ) -> None:
        self._question, self._cuts, self._seed = question, cuts, seed
        self._folder, self._console = folder, console
        self._model = question.model
        self.source = (
            f"{question.steps} steps of random cuts on {question.data.source}, mean probability of the right class"
        )

    @functools.cached_property
    def _learned(self) -> Learned:
        from nas.netadapt.learning import learn

        return learn(self._question, self._cuts(), self._folder, self._console)

    def estimate(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        return self._learned.surrogate.estimate(specs)

    def evaluate_seed(self) -> KeptAccuracy:
        return self._evaluated()

    def keep(self, spec: ArchSpec) -> KeptAccuracy:
        from nas.netadapt.learning import cut_network

        self._model = cut_network(self._learned.supernet, spec, self._question.data, self._question.seed)
        return self._evaluated()

    def _evaluated(self) -> KeptAccuracy:
        from nas.netadapt.learning import evaluate

        evaluation = evaluate(self._model, self._question.data, self._question.recipe.batch_size)
        return KeptAccuracy(evaluation.mean_probability, evaluation.top1)

    def resume(self, step: int, checkpoint: Path) -> None:
        from nas.training.checkpoint import load_model

        self._model = load_model(checkpoint)

    def save(self, path: Path) -> None:
        question = self._question
        training = {**self._seed.training, "source": question.data.source, "recipe": question.recipe.to_dict()}
        _save(path, self._model, self._seed.classes, {**training, "seed": question.seed})


def _save(path: Path, model: MobileNet, classes: tuple[str, ...], training: Mapping[str, Any]) -> None:
    """Write a checkpoint as nas.train does, so that every command can read it.

    `training` says how the weights were trained, as far as it is known. Images are cropped as ImageNet's where it does
    not say.
    """
    from nas.training.checkpoint import save_checkpoint
    from nas.training.disk_images import DISK_CROP

    known = {"crop": DISK_CROP, "init": None, "teacher": None, **training}
    contents = {"spec": model.spec.to_dict(), "classes": list(classes), "resolution": model.spec.resolution}
    save_checkpoint(path, {**known, **contents, "average": model.state_dict()})


def make_evaluator(
    request: NetAdaptRequest, seed: Seed, share: Callable[[], float], out: Path, console: Console
) -> Evaluator:
    """Return the evaluator that a request asks for.

    `share` returns what the budget is of the seed's latency. It is called when the seed was evaluated and measured. On
    images, a seed without weights for their classes is trained first, into a folder of `out`.
    """
    if not request.data:
        return EstimatorEvaluator(request.estimator, seed)
    from nas.models.inherited_weights import classes_of, inherit_weights
    from nas.netadapt.learning import Question, split_data
    from nas.training.images import small_data_warning

    data = split_data(request.data, request.data_dir, request.loaders)
    for note in data.notes:
        console.say(f"note: {note}")
    folder = out / "seed"
    if seed.model is None:
        model = train_seed(request, seed.spec, folder, console)
    elif (classes := classes_of(seed.model)) != seed.num_classes:
        # With an untrained classifier all proposals would be alike.
        init = folder / "first.pt"
        _save(init, seed.model, tuple(map(str, range(classes))), {})
        model = train_seed(request, seed.spec, folder, console, init)
    else:
        model = inherit_weights(seed.spec, seed.model, seed=request.seed)
    recipe = recipe_of(request)
    if warning := small_data_warning(data, recipe):
        console.say(warning)
    question = Question(
        model=model.eval(),
        data=data,
        recipe=recipe,
        steps=request.shared_steps,
        seed=request.seed,
        bf16=request.bf16,
        workers=request.workers,
    )

    def cuts() -> RandomCuts:
        return cuts_within(with_wider_expansions(seed.spec), share(), request.cuts, seed.num_classes)

    return SupernetEvaluator(question, cuts, seed, out / "supernet", console)
