"""The model card: what a network is, what it was trained on, how good and quick it is, how to load it."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nas.arch.cost import count_cost
from nas.deploy.trained import Trained


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """One exported file; what was not measured is None. Accuracy in percent, on the validation images."""

    path: Path
    precision: str
    top1: float | None = None
    latency_ms: float | None = None

    @property
    def size_mb(self) -> float:
        return self.path.stat().st_size / 1e6


def model_card(trained: Trained, files: Sequence[File], device: str, expected: Sequence[tuple[str, float]]) -> str:
    """Markdown. `device` is where the files' latency was measured; `expected` are other devices and what their tables
    predict for it, in milliseconds.
    """
    settings, about = trained.settings, trained.about
    spec, recipe, preparation = settings.spec, settings.recipe, about.preparation
    cost = count_cost(spec.replace(resolution=settings.resolution), len(about.classes))
    crop = "made square" if preparation.crop == 1 else f"the middle {preparation.crop:.1%} of the shorter side"
    lines = [
        f"# {spec.name}",
        "",
        f"{len(spec.blocks)} blocks, {cost.params / 1e6:.2f} M parameters, {cost.macs / 1e6:.1f} M "
        f"multiply-accumulates at {settings.resolution} px; spec `{about.spec_id}`, the rows at the end.",
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
        *([f"Expected on {name}: {ms:.2f} ms" for name, ms in expected] + [""] if expected else []),
        "## Training",
        "",
        f"- data: `{settings.source}`, {len(about.classes)} classes: {', '.join(about.classes[:20])}"
        + (", …" if len(about.classes) > 20 else ""),
        f"- recipe: `{recipe.name}` ({recipe.source}), {recipe.epochs} epochs, batch {recipe.batch_size}, seed "
        f"{settings.seed}",
        *([f"- first weights: `{settings.init}`"] if settings.init else []),
        *([f"- teacher: `{settings.teacher}`"] if settings.teacher else []),
        f"- kept: the averaged weights after epoch {trained.metrics.epoch}, top-1 {trained.metrics.top1:.2f} %, "
        f"cross-entropy {trained.metrics.val_loss:.3f}; the best of {recipe.epochs} epochs on the validation images, "
        "so a little too good for new ones",
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
        "    from nas.deploy.onnx_file import OnnxNetwork",
        f"    network = OnnxNetwork.load({str(files[0].path)!r})",
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


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _triple(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:g}" for value in values)
