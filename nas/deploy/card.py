"""Write the model card: a network's spec, training, accuracy and latency, and the code that loads it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.arch.cost import count_cost
from nas.arch.operations import INPUT, OUTPUT, SIGNATURE
from nas.deploy.trained import TrainedNetwork
from nas.models.macs import fvcore_macs

NOTES = {
    ".int8.onnx": "The int8 file for onnxruntime is for any processor, with VNNI and without: its weights are from -64 "
    "to 64, so that sums in 16 bits do not overflow.",
    ".tflite": f"The TFLite files take one image at a time, with the channels last. Their signature is "
    f"`{SIGNATURE}`, its input `{INPUT}` and its output `{OUTPUT}`, both in float32 in the int8 file too. "
    "There hard swish is computed in float32: devices that compute in int8 only do not take a network with it.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportedFile:
    """An exported file with its accuracy and latency, None where they were not measured.

    The accuracy is in percent, on the validation images.
    """

    path: Path
    runtime: str
    precision: str
    top1: float | None = None
    latency_ms: float | None = None

    @property
    def size_mb(self) -> float:
        return self.path.stat().st_size / 1e6


def model_card(
    trained: TrainedNetwork, files: Sequence[ExportedFile], device: str, predicted: Sequence[tuple[str, float]]
) -> str:
    """Return the model card in Markdown.

    `device` is where the files' latency was measured. `predicted` are devices, with the milliseconds that their tables
    predict.
    """
    settings, about = trained.settings, trained.about
    spec, recipe, preparation = settings.spec, settings.recipe, about.preparation
    cost = count_cost(spec.replace(resolution=settings.resolution), len(about.classes))
    crop = "made square" if preparation.crop == 1 else f"the middle {preparation.crop:.1%} of the shorter side"
    lines = [
        f"# {spec.name}",
        "",
        f"{len(spec.blocks)} blocks, {cost.params / 1e6:.2f} M parameters, {cost.macs / 1e6:.1f} M "
        f"multiply-accumulates at {settings.resolution} px; {_checked_macs(trained, cost.macs)}. Its spec is "
        f"`{about.spec_id}`, at the end.",
        "",
        "| file | precision | MB | top-1 % | ms |",
        "|---|---|---|---|---|",
        *(
            f"| `{file.path.name}` | {file.precision} | {file.size_mb:.2f} | {_figure(file.top1)} | "
            f"{_figure(file.latency_ms)} |"
            for file in files
        ),
        "",
        f"Accuracy on the validation images of `{settings.source}`; milliseconds at batch 1, one thread, on {device}.",
        "",
        *(
            line
            for ending, note in NOTES.items()
            if any(file.path.name.endswith(ending) for file in files)
            for line in (note, "")
        ),
        *([f"Predicted for {name}: {ms:.2f} ms" for name, ms in predicted] + [""] if predicted else []),
        "## Training",
        "",
        f"- data: `{settings.source}`, {len(about.classes)} classes: {', '.join(about.classes[:20])}"
        + (", …" if len(about.classes) > 20 else ""),
        f"- recipe: `{recipe.name}` ({recipe.source}), {recipe.length}, batch {recipe.batch_size}, seed "
        f"{settings.seed}",
        *([f"- first weights: `{settings.init}`"] if settings.init else []),
        *([f"- teacher: `{settings.teacher}`"] if settings.teacher else []),
        _kept(trained),
        "",
        "## Use",
        "",
        f"Images are RGB, {crop}, {preparation.resolution} x {preparation.resolution} pixels from 0 to 1, less "
        f"{_triple(preparation.mean)}, divided by {_triple(preparation.std)}.",
        "",
        f"    python -m nas.predict {files[0].path} IMAGE …",
        "",
        "or in Python, without torch",
        "",
        "    from nas.deploy.network import load_network",
        f"    network = load_network({str(files[0].path)!r})",
        '    logits = network.run(network.about.preparation.load("image.jpg")[None])',
        "",
        f"and as a torch module `nas.load_model({str(trained.path)!r})`.",
        "",
        "## Spec",
        "",
        *(f"    {line}" for line in spec.to_json().splitlines()),
        "",
        f"Exported on {datetime.date.today().isoformat()}.",
    ]
    return "\n".join(lines) + "\n"


def _checked_macs(trained: TrainedNetwork, macs: int) -> str:
    """Return what fvcore counts on the built network, beside the multiply-accumulates that the spec gives."""
    counted = fvcore_macs(trained.model, trained.settings.resolution)
    same = "the same" if counted == macs else f"{counted / 1e6:.1f} M"
    return f"fvcore counts {same} on the built network"


def _kept(trained: TrainedNetwork) -> str:
    """Return the line that says which weights the network has."""
    metrics = trained.metrics
    if metrics is None:
        return "- kept: the weights as NetAdapt left them, inherited from its seed; this recipe trained the seed"
    return (
        f"- kept: the averaged weights after epoch {metrics.epoch}, top-1 {metrics.top1:.2f} %, cross-entropy "
        f"{metrics.val_loss:.3f}; the epoch is the best of {trained.settings.recipe.epochs} on the validation images, "
        "so its figures are a little too good for new images"
    )


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _triple(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
