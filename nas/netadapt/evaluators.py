"""What networks are worth on their way: by an estimator, or by training each proposal a little."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from nas.accuracy import load_estimator
from nas.arch.spec import ArchSpec
from nas.console import Console
from nas.netadapt.long_training import recipe_of, trained_seed
from nas.netadapt.request import Request
from nas.netadapt.seed import Seed

if TYPE_CHECKING:  # these load torch
    from nas.models.mobilenet import MobileNet
    from nas.netadapt.fine_tuning import TunedProposals


class Kept(NamedTuple):
    """A network that is kept, percent."""

    accuracy: float  # what proposals are compared by
    top1: float


class Judge(Protocol):
    """An estimate that follows the network on its way; `weights` are None where there are none."""

    source: str

    def estimate(self, specs: Sequence[ArchSpec]) -> np.ndarray: ...

    def begin(self) -> Kept: ...

    def keep(self, spec: ArchSpec) -> Kept: ...

    def take_up(self, entry: dict[str, Any], checkpoint: Path) -> None: ...

    def save(self, path: Path) -> None: ...

    def close(self) -> None: ...


class Estimated:
    """By an estimator that needs no data. Weights, where the seed has some, are cut along."""

    def __init__(self, name: str, seed: Seed) -> None:
        self._estimator, self._seed, self._model = load_estimator(name), seed, seed.model
        self.source = f"{self._estimator.name}: {self._estimator.training_recipe}"

    def estimate(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        return self._estimator.estimate(specs).top1

    def begin(self) -> Kept:
        return self._kept(self._seed.spec)

    def keep(self, spec: ArchSpec) -> Kept:
        if self._model is not None:
            from nas.netadapt.inherited_weights import inherited

            self._model = inherited(spec, self._model)
        return self._kept(spec)

    def _kept(self, spec: ArchSpec) -> Kept:
        top1 = float(self.estimate([spec])[0])
        return Kept(top1, top1)

    def take_up(self, entry: dict[str, Any], checkpoint: Path) -> None:
        if self._model is not None:
            from nas.training.checkpoint import load_model

            self._model = load_model(checkpoint)

    def save(self, path: Path) -> None:
        if self._model is not None:
            names = self._seed.classes or tuple(map(str, range(self._seed.num_classes)))
            _save(path, self._model, names, {})

    def close(self) -> None:
        pass


class Trained:
    """By training each proposal a little."""

    def __init__(self, proposals: TunedProposals, classes: tuple[str, ...]) -> None:
        self._proposals, self._classes = proposals, classes
        tuning = proposals.tuning
        self.source = f"{tuning.steps} steps on {tuning.source}, mean probability of the right class"

    def estimate(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        return self._proposals.estimate(specs)

    def begin(self) -> Kept:
        return Kept(*self._proposals.judge())

    def keep(self, spec: ArchSpec) -> Kept:
        return Kept(*self._proposals.keep(spec))

    def take_up(self, entry: dict[str, Any], checkpoint: Path) -> None:
        from nas.training.checkpoint import load_model

        self._proposals.model, self._proposals.steps_done = load_model(checkpoint), entry["step"]

    def save(self, path: Path) -> None:
        tuning = self._proposals.tuning
        extra = {"source": tuning.source, "recipe": tuning.recipe.to_dict()}
        _save(path, self._proposals.model, self._classes, extra)

    def close(self) -> None:
        self._proposals.close()


def _save(path: Path, model: MobileNet, classes: tuple[str, ...], extra: dict[str, Any]) -> None:
    """As nas.train saves, so that `load_model`, and this command, read it."""
    from nas.training.checkpoint import save_checkpoint

    contents = {"spec": model.spec.to_dict(), "classes": list(classes), "resolution": model.spec.resolution}
    save_checkpoint(path, {**contents, "average": model.state_dict(), **extra})


def make_judge(request: Request, seed: Seed, out: Path, console: Console) -> Judge:
    if not request.data:
        return Estimated(request.estimator, seed)
    from nas.netadapt.fine_tuning import TunedProposals, Tuning
    from nas.netadapt.inherited_weights import classes_of, inherited

    folder = out / "seed"
    if seed.model is None:
        model = trained_seed(request, seed.spec, folder, console)
    elif (classes := classes_of(seed.model)) != seed.num_classes:
        # With a new classifier, that knows nothing, all proposals would be alike.
        init = folder / "first.pt"
        _save(init, seed.model, tuple(map(str, range(classes))), {})
        model = trained_seed(request, seed.spec, folder, console, init)
    else:
        model = inherited(seed.spec, seed.model, seed=request.seed)
    tuning = Tuning(
        source=request.data,
        data_dir=request.data_dir,
        recipe=recipe_of(request),
        steps=request.proposal_steps,
        seed=request.seed,
    )
    return Trained(TunedProposals(model, tuning, workers=request.workers), seed.classes)
