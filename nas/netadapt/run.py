"""Run NetAdapt from a request to the folder of its results."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from nas.accuracy import load_estimator
from nas.console import Console, Silent
from nas.errors import NasError
from nas.files import fingerprint
from nas.latency.predictor import LatencyPredictor, open_table
from nas.netadapt.evaluators import make_evaluator
from nas.netadapt.long_training import recipe_of, train_final
from nas.netadapt.request import NetAdaptRequest
from nas.netadapt.seed import Seed, seed_checkpoint
from nas.netadapt.trimming import Trimming
from nas.runs.folder import RunFolder, new_record, resumes


def trim(
    request: NetAdaptRequest, seed: Seed, out: Path, *, resume: bool = False, console: Console | None = None
) -> Path:
    """Trim a seed until its measured latency keeps the budget; return the file of the last spec, in the folder `out`.

    Raises NasError for mistakes in the request, and for a budget that cannot be reached. The steps that were finished
    by then are kept, and `resume` continues after them.
    """
    console, rules = console or Silent(), request.rules
    if request.data:
        recipe_of(request)  # raises NasError for an unknown recipe before the folder is made
    else:
        load_estimator(request.estimator).estimate([seed.spec])  # and for a network that it cannot judge
    table = open_table(
        request.table,
        request.runtime,
        request.threads,
        console,
        precision=request.precision,
        num_classes=seed.num_classes,
        allow_other_device=True,
    )
    predictor = LatencyPredictor(table, console, request.seed)
    arguments = request.lasting_arguments() | _by_content(request, seed)
    resume = resumes(out, resume, console)
    folder = (
        RunFolder.resume(out, arguments, console)
        if resume
        else RunFolder.begin(out, new_record("python -m nas.netadapt", arguments))
    )
    try:
        evaluator = make_evaluator(request, seed, lambda: request.budget_ms / trimming.rows[0].now_ms, out, console)
        trimming = Trimming(request.budget_ms, request.measure_every, rules, predictor, evaluator, folder, console)
        reached = trimming.run(seed.spec)
        final = trimming.write()
        console.say(f"network: {final}; all networks on the way are in {out}/trajectory.json, their table in steps.csv")
        if not reached:
            raise NasError(
                f"trimming ends at {trimming.rows[-1].now_ms:.4g} ms, above the budget of {request.budget_ms:g} ms: "
                f"no further cut saves time; its networks are kept in {out}. Allow more cuts with --allow, start from "
                "a smaller network or resolution, or raise the budget"
            )
        if request.finish != "none":
            train_final(request, final, out, console)
        return final
    finally:
        folder.close()


def _by_content(request: NetAdaptRequest, seed: Seed) -> dict[str, str]:
    """Return the arguments that name files, each with a fingerprint of what it names: an edited file is noticed."""
    named = {"network": (request.network, seed.spec.id.encode())}
    if (checkpoint := seed_checkpoint(request.network)) is not None:
        named["network"] = request.network, checkpoint.read_bytes()
    if request.weights:
        from nas.training.checkpoint import find_checkpoint

        weights = find_checkpoint(request.weights)
        if weights.is_file():  # not torchvision's
            named["weights"] = request.weights, weights.read_bytes()
    if request.data:
        recipe = recipe_of(dataclasses.replace(request, epochs=None))  # a resumed run may train longer
        from nas.training.trained_on import content_of

        named["recipe"] = request.recipe, json.dumps(recipe.to_dict(), sort_keys=True).encode()
    arguments = {argument: f"{name} ({fingerprint(content)})" for argument, (name, content) in named.items()}
    if request.data and (images := content_of(request.data, seed.classes, seed.training.get("images", ()))):
        arguments["data"] = f"{request.data} ({images})"
    return arguments
