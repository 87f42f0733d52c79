"""Train whole networks: a seed without weights before it is trimmed, and the final network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.arch.spec import ArchSpec
from nas.console import Console
from nas.netadapt.request import NetAdaptRequest

if TYPE_CHECKING:  # these load torch
    from nas.models.mobilenet import MobileNet
    from nas.training.recipes import Recipe


def recipe_of(request: NetAdaptRequest) -> Recipe:
    """Return the recipe of a request. Raises NasError if it cannot be loaded."""
    from nas.training.recipes import load_recipe

    recipe = load_recipe(request.recipe)
    return recipe.replace(epochs=request.epochs) if request.epochs else recipe


def train_seed(
    request: NetAdaptRequest, spec: ArchSpec, out: Path, console: Console, init: Path | None = None
) -> MobileNet:
    """Return the seed, trained on the request's images into the folder `out`.

    `init` is a checkpoint to start from, of a seed that has weights for other classes.
    """
    from nas.training.checkpoint import load_model

    recipe = recipe_of(request)
    has = "no weights" if init is None else f"weights for other classes than those of {request.data}"
    console.say(f"{spec.name} has {has}: training it for {recipe.length}, into {out}")
    _train(request, spec, recipe, out, None if init is None else str(init), console)
    return load_model(out / "best.pt")


def train_final(request: NetAdaptRequest, final: Path, out: Path, console: Console) -> None:
    """Train the final network as `--finish` says: from its weights, or from scratch as in the paper.

    `final` is the file of its spec, beside which its weights are.
    """
    init = str(final.with_suffix(".pt")) if request.finish == "fine-tune" else None
    _train(request, ArchSpec.load(final), recipe_of(request), out / request.finish, init, console)


def _train(
    request: NetAdaptRequest, spec: ArchSpec, recipe: Recipe, out: Path, init: str | None, console: Console
) -> None:
    from nas.training.cores import train_shown
    from nas.training.data import load_data
    from nas.training.loop import Machine
    from nas.training.run import Settings, best_epoch

    assert request.data is not None
    data = load_data(request.data, request.data_dir, request.loaders)
    settings = Settings(
        spec=spec, source=request.data, recipe=recipe, resolution=spec.resolution, seed=request.seed, init=init
    )
    rows = train_shown(settings, data, out, console, f"training {spec.name}", machine=Machine())
    console.say(f"{spec.name}: {best_epoch(rows).top1:.2f} % on the validation images of {data.source}, in {out}")
