"""Trims a network to a latency budget on this CPU: NetAdapt, as MobileNetV3 uses it.

    python -m nas.netadapt mobilenet_v3_large --budget-ms 3
    python -m nas.netadapt mobilenet_v3_small --budget-ms 0.4 --data fashion-mnist-sample

Without --data the ImageNet prior judges what is cut: two minutes. With --data each proposal inherits the network's
weights, is trained for a few steps, and is judged on images: a quarter of an hour for MobileNetV3-Small at 32 px.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from nas.cli import Parser, RichConsole, natural_int, positive_float, positive_int, run
from nas.errors import NasError
from nas.files import write_text
from nas.registry import load_estimator, load_spec
from nas.spec import ArchSpec, load_results

if TYPE_CHECKING:  # these load torch, or take a while
    import numpy as np

    from nas.latency.table import LatencyTable
    from nas.models.mobilenet import MobileNet
    from nas.pipeline import Prices
    from nas.run import RunFolder
    from nas.strategies.netadapt import Rules, Step
    from nas.training.proposals import TunedProposals
    from nas.training.recipes import Recipe

STEPS = "steps"  # folder of the networks on the way
COLUMNS = (
    *("step", "cut", "before_ms", "predicted_ms", "measured_ms", "accuracy_before", "accuracy", "top1", "spec_id"),
    *("macs", "params"),
)
NAMED_ROWS = 3  # of those that a table lacks, in an error


def main(argv: list[str] | None = None) -> None:
    arguments = _parser().parse_args(argv)
    from nas.run import RunFolder
    from nas.strategies.netadapt import Rules

    console = RichConsole()
    rules = Rules(
        share=arguments.step, metric=arguments.metric, allow=tuple(arguments.allow), one_each=bool(arguments.data)
    )
    seed = _load_seed(arguments)
    table, file = _open_table(arguments, seed.num_classes, console)
    out = _folder(arguments, seed.spec)
    folder = RunFolder(out, _lasting(arguments), resume=arguments.resume)
    folder.manifest["command"] = folder.manifest["command"].replace("nas.search", "nas.netadapt", 1)
    folder.save()
    clock = _Clock(table, file, console, arguments.seed)
    judge = _judge(arguments, seed, out, console)
    try:
        trimming = _Trimming(arguments.budget_ms, arguments.measure_every, rules, clock, judge, folder, console)
        reached = trimming.go(seed.spec)
    finally:
        judge.close()
    final = trimming.write()
    console.say(f"network: {final}, and every one on the way in {out}/trajectory.json, as a table in {out}/steps.csv")
    if not reached:
        raise NasError(
            f"trimming ends at {trimming.entries[-1]['now_ms']:.4g} ms, above the budget of {arguments.budget_ms:g} "
            f"ms: nothing that is left to cut saves time; its networks are kept in {out}. Allow more with --allow, "
            "start from a smaller network or resolution, or raise the budget"
        )
    if arguments.finish != "none":
        _finish(arguments, seed, final, out, console)


def _parser() -> Parser:
    parser = Parser("python -m nas.netadapt", description=__doc__.splitlines()[0])
    parser.add_argument(
        "network", metavar="SEED", help="a published network by name, a spec's file, or a checkpoint of nas.train"
    )
    parser.add_argument("--budget-ms", type=positive_float, required=True, metavar="MS")
    parser.add_argument(
        "--weights", metavar="FILE", help="of the seed: a state dict or checkpoint, or DEFAULT for torchvision's"
    )
    parser.add_argument("--data", metavar="SOURCE", help="judge by training on these images, as in nas.train")
    parser.add_argument("--data-dir", metavar="DIR", type=Path, help="where torchvision's sets lie or are put")
    parser.add_argument("--resolution", type=positive_int, metavar="N", help="pixels (default: 32 on embedded images)")
    parser.add_argument("--proposal-steps", type=positive_int, default=10, metavar="T", help="batches (default: 10)")
    parser.add_argument("--recipe", default="quick", metavar="NAME", help="by name (quick), or a path to a .toml file")
    parser.add_argument("--epochs", type=positive_int, metavar="N", help="of a seed without weights, and of --finish")
    parser.add_argument(
        "--finish",
        choices=("none", "fine-tune", "scratch"),
        default="none",
        help="train what is left, with its weights or from scratch as in the paper",
    )
    parser.add_argument(
        "--step", type=positive_float, default=0.01, metavar="SHARE", help="least saving of a step (default: 0.01)"
    )
    parser.add_argument("--metric", default="ratio", metavar="NAME", help="ratio (to the time saved) or accuracy")
    parser.add_argument(
        "--allow",
        nargs="+",
        default=[],
        metavar="CUT",
        help="beyond expansions and bottlenecks: se, kernel, activation, resolution, head",
    )
    parser.add_argument("--table", metavar="FILE", help="latency table (default: this device's in latency_tables/)")
    parser.add_argument("--runtime", default="onnxruntime", metavar="NAME")
    parser.add_argument("--estimator", default="imagenet-prior", metavar="NAME", help="without --data")
    parser.add_argument("--measure-every", type=positive_int, default=5, metavar="K", help="steps (default: 5)")
    parser.add_argument("--workers", type=positive_int, default=1, metavar="N", help="processes that train proposals")
    parser.add_argument("--seed", type=natural_int, default=0, metavar="N")
    parser.add_argument("--out", metavar="DIR", help="folder of the run (default: reports/<seed>-<budget>ms)")
    parser.add_argument("--resume", action="store_true", help="continue the run in that folder")
    return parser


def _lasting(arguments: argparse.Namespace) -> dict[str, Any]:
    """The arguments that a resumed run must share."""
    passing = ("out", "resume", "workers", "finish", "epochs")
    known = {key: value for key, value in vars(arguments).items() if key not in passing}
    return known | {"data_dir": None if arguments.data_dir is None else str(arguments.data_dir)}


def _folder(arguments: argparse.Namespace, spec: ArchSpec) -> Path:
    from nas.run import last_folder, unused_folder

    if arguments.out:
        return Path(arguments.out)
    default = Path("reports") / f"{spec.name}-{arguments.budget_ms:g}ms"
    return last_folder(default) if arguments.resume else unused_folder(default)


# The seed ---------------------------------------------------------------------------------------------


class _Seed(NamedTuple):
    spec: ArchSpec
    model: MobileNet | None  # with weights; None where there are none
    classes: tuple[str, ...]  # empty for ImageNet's

    @property
    def num_classes(self) -> int:
        from nas.cost import NUM_CLASSES

        return len(self.classes) or NUM_CLASSES


def _load_seed(arguments: argparse.Namespace) -> _Seed:
    """The network to start from, at the resolution of its images. Raises NasError for what does not fit together."""
    name, resolution = arguments.network, arguments.resolution
    model: MobileNet | None = None
    classes: tuple[str, ...] = ()
    if name.endswith(".pt"):
        if arguments.weights:
            raise NasError(f"{name}: a checkpoint has weights of its own; leave --weights out")
        from nas.training.checkpoint import load_checkpoint, load_model

        model, contents = load_model(name), load_checkpoint(name)
        classes = tuple(contents["classes"])
        spec = model.spec.replace(resolution=resolution or contents.get("resolution", model.spec.resolution))
    else:
        spec = load_spec(name, resolution=resolution)
        if arguments.weights:
            model = _with_weights(spec, arguments.weights)
    if arguments.data:
        from nas.training.data import EMBEDDED, EMBEDDED_RESOLUTION, load_data

        classes = load_data(arguments.data, arguments.data_dir).classes
        if arguments.data == EMBEDDED and not resolution and not name.endswith(".pt"):
            spec = spec.replace(resolution=EMBEDDED_RESOLUTION)
    if model is not None:
        model.spec = spec
    return _Seed(spec, model, classes)


def _with_weights(spec: ArchSpec, source: str) -> MobileNet:
    """The seed with torchvision's published weights, or those of a file. Raises NasError if they are not its own."""
    import torch

    from nas.models.mobilenet import build_model
    from nas.training.initial import TORCHVISION, load_weights

    weights: Any
    if source == "DEFAULT":
        weights = load_weights(TORCHVISION, build_model(spec))
    else:
        try:
            weights = torch.load(source, map_location="cpu", weights_only=True)
        except FileNotFoundError:
            raise NasError(f"{source}: no such file") from None
        except Exception as error:  # the unpickler's own, and whatever it stumbles over
            raise NasError(f"{source}: not a file of weights ({str(error).splitlines()[0]})") from None
        weights = weights.get("average", weights) if isinstance(weights, dict) else {}
    tensors = [value for value in weights.values() if isinstance(value, torch.Tensor)]
    if not tensors or len(tensors) < len(weights) or not tensors[-1].ndim:
        raise NasError(f"{source}: not a file of weights; a state dict of the seed is wanted, or a checkpoint")
    model = build_model(spec, len(tensors[-1]))  # the last one is the classifier's
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        raise NasError(f"{source}: not the weights of {spec.name}: {_first_mismatch(str(error))}") from None
    return model.eval()


def _first_mismatch(text: str) -> str:
    """The first of torch's lines about what does not fit."""
    lines = [line.strip() for line in text.splitlines()[1:]] or [text]
    return lines[0][:200]


# Latency ----------------------------------------------------------------------------------------------


def _open_table(
    arguments: argparse.Namespace, num_classes: int, console: RichConsole
) -> tuple[LatencyTable, Path | None]:
    """The table, and where it is to be saved if it never was. Raises NasError for one of other classes."""
    from nas.cost import NUM_CLASSES
    from nas.latency.building import new_table
    from nas.latency.device import Device
    from nas.latency.table import LatencyTable
    from nas.pipeline import open_table

    path, file = arguments.table, None
    if path is None and num_classes != NUM_CLASSES:
        runtime = open_table(None, arguments.runtime, console=console).runtime_here()
        table = new_table(runtime)
        table.num_classes = num_classes
        default = table.default_path()
        file = default.with_name(f"{default.stem}-n{num_classes}{default.suffix}")
        path = str(file) if file.exists() else None
        if path is None:
            return table, file
    if path is not None:
        table = LatencyTable.load(path)
    if path is None or table.device.identity == Device.this().identity:
        table = open_table(path, arguments.runtime, console=console)
    if table.num_classes != num_classes:
        raise NasError(
            f"{path} is of networks with {table.num_classes} classes, and these have {num_classes}; leave --table out "
            "to measure one"
        )
    return table, file


@dataclass
class _Clock:
    """What networks take: predicted by the table, whose missing rows are measured, and measured whole."""

    table: LatencyTable
    file: Path | None
    console: RichConsole
    seed: int
    here: bool = field(init=False)
    prices: Prices = field(init=False)

    def __post_init__(self) -> None:
        from nas.latency.device import Device
        from nas.pipeline import Prices

        self.here = self.table.device.identity == Device.this().identity
        self.prices = Prices(self.table, self.console, self.seed, file=None if self.file is None else str(self.file))

    def predicted_ms(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        """Raises NasError if the table lacks rows and is of another device."""
        from nas.parts import parts_of

        parts = [part for spec in specs for part in parts_of(spec, self.table.num_classes)]
        if self.here:
            self.prices.measure(parts, "measuring")
        elif missing := self.table.missing(parts):
            named = "; ".join(part.key for part in missing[:NAMED_ROWS])
            raise NasError(
                f"{self.table.path} is of another device ({self.table.device.cpu}) and lacks {len(missing)} rows that "
                f"trimming asks for: {named}{'; …' if len(missing) > NAMED_ROWS else ''}. Trim on that device, or "
                "leave --table out to measure this one"
            )
        return self.table.predict_ms(specs)

    def measured_ms(self, spec: ArchSpec) -> float | None:
        """Normalised milliseconds, to the nanosecond; None where the table is of another device."""
        if not self.here:
            return None
        from nas.latency.networks import measure_latency

        with self.console.progress("measuring the whole network") as progress:
            (measured,) = measure_latency([spec], table=self.table, on_progress=lambda share: progress(share, ""))
        return round(measured.normalised_ms, 6)


# Accuracy ---------------------------------------------------------------------------------------------


class _Kept(NamedTuple):
    """A network that is kept, percent."""

    accuracy: float  # what proposals are compared by
    top1: float


class _Judge(Protocol):
    """An estimate that follows the network on its way; `weights` are None where there are none."""

    source: str

    def estimate(self, specs: Sequence[ArchSpec]) -> np.ndarray: ...

    def begin(self) -> _Kept: ...

    def keep(self, spec: ArchSpec) -> _Kept: ...

    def take_up(self, entry: dict[str, Any], checkpoint: Path) -> None: ...

    def save(self, path: Path) -> None: ...

    def close(self) -> None: ...


class _Estimated:
    """By an estimator that needs no data. Weights, where the seed has some, are cut along."""

    def __init__(self, name: str, seed: _Seed) -> None:
        self._estimator, self._seed, self._model = load_estimator(name), seed, seed.model
        self.source = f"{self._estimator.name}: {self._estimator.effort}"

    def estimate(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        return self._estimator.estimate(specs).top1

    def begin(self) -> _Kept:
        return self._kept(self._seed.spec)

    def keep(self, spec: ArchSpec) -> _Kept:
        if self._model is not None:
            from nas.training.inherit import inherited

            self._model = inherited(spec, self._model)
        return self._kept(spec)

    def _kept(self, spec: ArchSpec) -> _Kept:
        top1 = float(self.estimate([spec])[0])
        return _Kept(top1, top1)

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


class _Trained:
    """By training each proposal a little."""

    def __init__(self, proposals: TunedProposals, classes: tuple[str, ...]) -> None:
        self._proposals, self._classes = proposals, classes
        tuning = proposals.tuning
        self.source = f"{tuning.steps} steps on {tuning.source}, mean probability of the right class"

    def estimate(self, specs: Sequence[ArchSpec]) -> np.ndarray:
        return self._proposals.estimate(specs)

    def begin(self) -> _Kept:
        return _Kept(*self._proposals.judge())

    def keep(self, spec: ArchSpec) -> _Kept:
        return _Kept(*self._proposals.keep(spec))

    def take_up(self, entry: dict[str, Any], checkpoint: Path) -> None:
        from nas.training.checkpoint import load_model

        self._proposals.model, self._proposals.steps_done = load_model(checkpoint), entry["step"]

    def save(self, path: Path) -> None:
        tuning = self._proposals.tuning
        extra = {"source": tuning.source, "recipe": tuning.recipe.to_dict()}
        _save(path, self._proposals.model, self._classes, extra)

    def close(self) -> None:
        self._proposals.__exit__()


def _save(path: Path, model: MobileNet, classes: tuple[str, ...], extra: dict[str, Any]) -> None:
    """As nas.train saves, so that `load_model`, and this command, read it."""
    from nas.training.checkpoint import save_checkpoint

    contents = {"spec": model.spec.to_dict(), "classes": list(classes), "resolution": model.spec.resolution}
    save_checkpoint(path, {**contents, "average": model.state_dict(), **extra})


def _judge(arguments: argparse.Namespace, seed: _Seed, out: Path, console: RichConsole) -> _Judge:
    if not arguments.data:
        return _Estimated(arguments.estimator, seed)
    from nas.training.inherit import inherited
    from nas.training.proposals import TunedProposals, Tuning

    recipe = _recipe(arguments)
    if seed.model is not None:
        model = inherited(seed.spec, seed.model, num_classes=seed.num_classes, seed=arguments.seed)
    else:
        model = _trained_seed(arguments, seed, recipe, out / "seed", console)
    tuning = Tuning(
        source=arguments.data,
        data_dir=arguments.data_dir,
        recipe=recipe,
        steps=arguments.proposal_steps,
        seed=arguments.seed,
    )
    return _Trained(TunedProposals(model, tuning, workers=arguments.workers), seed.classes)


def _recipe(arguments: argparse.Namespace) -> Recipe:
    from nas.training.recipes import load_recipe

    recipe = load_recipe(arguments.recipe)
    return recipe.replace(epochs=arguments.epochs) if arguments.epochs else recipe


def _trained_seed(
    arguments: argparse.Namespace, seed: _Seed, recipe: Recipe, out: Path, console: RichConsole
) -> MobileNet:
    """A seed without weights is trained first."""
    from nas.training.checkpoint import load_model

    console.say(f"{seed.spec.name} has no weights: training it for {recipe.epochs} epochs, into {out}")
    _train(arguments, seed.spec, recipe, out, None, console)
    return load_model(out / "best.pt")


def _train(
    arguments: argparse.Namespace, spec: ArchSpec, recipe: Recipe, out: Path, init: str | None, console: RichConsole
) -> None:
    from nas.training.data import load_data
    from nas.training.run import LAST, Settings, best_epoch, train

    data = load_data(arguments.data, arguments.data_dir)
    settings = Settings(
        spec=spec, source=arguments.data, recipe=recipe, resolution=spec.resolution, seed=arguments.seed, init=init
    )
    with console.progress(f"training {spec.name}") as progress:
        rows = train(
            settings,
            data,
            out,
            resume=(out / LAST).exists(),
            on_step=lambda s: progress((s.epoch - 1 + s.step / s.steps) / s.epochs, f"epoch {s.epoch}/{s.epochs}"),
        )
    console.say(f"{spec.name}: {best_epoch(rows).top1:.2f} % on the validation images of {data.source}, in {out}")


def _finish(arguments: argparse.Namespace, seed: _Seed, final: Path, out: Path, console: RichConsole) -> None:
    """Long-term training of what is left."""
    if not arguments.data:
        raise NasError(f"--finish {arguments.finish} needs images to train on; name them with --data")
    init = str(final.with_suffix(".pt")) if arguments.finish == "fine-tune" else None
    _train(arguments, ArchSpec.load(final), _recipe(arguments), out / arguments.finish, init, console)


# Step by step -----------------------------------------------------------------------------------------


@dataclass
class _Trimming:
    """The way from a seed to a network whose measured latency keeps the budget, each step on disk."""

    budget_ms: float
    measure_every: int
    rules: Rules
    clock: _Clock
    judge: _Judge
    folder: RunFolder
    console: RichConsole
    entries: list[dict[str, Any]] = field(default_factory=list)  # one a step, as steps/NNNN.json has it
    steps: list[Step] = field(default_factory=list)

    def go(self, seed: ArchSpec) -> bool:
        """Steps until the budget holds; False if it cannot be reached.

        Measured whole every few steps, so that the table's predictions are put right on the way: what the whole
        network took, over its prediction, is taken off the budget that predictions must keep.
        """
        from nas.strategies.netadapt import Step, next_step

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
        from nas.pipeline import NOISE

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

    def _add(self, step: Step, kept: _Kept, accuracy_before: float) -> None:
        """Measures the network if it is time to, writes it, logs it, says it. What is written counts as done."""
        from nas.cost import count_cost

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
        from nas.strategies.netadapt import Step

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
        from nas.run import now

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


if __name__ == "__main__":
    run(main)
