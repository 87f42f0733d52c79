"""A machine whose times are known: a program advances its clock by a cost that is computed from the part.

    machine = synthetic.install(monkeypatch)

registers the runtime "synthetic", and lets the timing read the machine's clock.
"""

import dataclasses
import math
import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from nas.arch.cost import count_cost
from nas.arch.parts import BlockPart, ContextPart, HeadPart, NetworkPart, Part, StemPart, parts_of
from nas.arch.published import published_spec
from nas.arch.spec import ArchSpec
from nas.latency import timing
from nas.latency.device import Device
from nas.latency.landmarks import landmarks
from nas.latency.runtimes import RUNTIMES
from nas.latency.runtimes.base import check_precision
from nas.latency.timing import REFERENCE_COPIES, Bench, TimedRun
from nas.search import results
from nas.search.comparison import COMPARED, published_networks

# A space of few choices, whose search takes a second.
SPACE = """
from nas.arch.skeleton import Stage
from nas.arch.space import SearchSpace
from nas.arch.spec import BlockSpec, HeadSpec, StemSpec

few = dict(depths=(1, 2), kernels=(3, 5), expansions=(3, 4), se=(False, True), activations=("relu",))
SPACE = SearchSpace(
    name="few",
    stem=StemSpec(out=16),
    first=BlockSpec(op="sepconv", kernel=3, expanded=16, out=16),
    stages=(
        Stage(out=24, stride=2, **few),
        Stage(out=40, stride=2, **few),
        Stage(out=80, stride=2, **few),
        Stage(out=160, stride=2, **few),
    ),
    head=HeadSpec(conv=960, hidden=256),
    widths=(0.75, 1.0),
    resolutions=(96, 128),
)
"""

FRONT_BUDGETS = 8  # of the whole front that a search leaves behind
MACS_PER_MS = 60e6
LAYER_MS = 0.003  # of calling a layer at all
HSWISH_MS, POOL_MS = 4e-8, 2e-8  # an element


def stairs(channels: int) -> float:
    """Return channels as they cost on a vector unit of 16: padded, and more where the last step is not full."""
    padded = math.ceil(channels / 16) * 16
    return padded if padded == channels else 1.1 * padded


def _layers_ms(layers: Iterable) -> float:
    return sum(
        LAYER_MS
        + stairs(layer.out_channels) * layer.in_channels / layer.groups * (layer.kernel * layer.out_size) ** 2
        / MACS_PER_MS
        for layer in layers
    )  # fmt: skip


def pool_ms(channels: int, size: int) -> float:
    return LAYER_MS + POOL_MS * channels * size**2


def added_ms(part: StemPart | BlockPart | HeadPart) -> float:
    """Return the time of a part inside a network."""
    own = _layers_ms(part.layers())
    if isinstance(part, BlockPart):
        hswish = part.block.activation == "hswish"
        return own + hswish * HSWISH_MS * part.block.expanded * part.in_size**2
    return own


def network_ms(spec: ArchSpec, num_classes: int = 1000) -> float:
    """Return the time of a whole network: the sum over its parts."""
    return sum(added_ms(part) for part in parts_of(spec, num_classes))


def part_ms(part: Part) -> float:
    """Return the time of a part in the graph in which it is timed, its context and its last pooling included."""
    if isinstance(part, NetworkPart):
        return network_ms(part.spec, part.num_classes)
    if isinstance(part, StemPart):
        return added_ms(part) + pool_ms(part.stem.out, part.stem.out_size(part.resolution))
    context = part if isinstance(part, ContextPart) else ContextPart(part.in_channels, part.in_size)
    if isinstance(part, ContextPart):
        return _layers_ms(part.layers()) + pool_ms(part.channels, part.size)
    behind = pool_ms(part.block.out, part.placed.out_size) if isinstance(part, BlockPart) else 0.0
    return _layers_ms(context.layers()) + added_ms(part) + behind


@dataclass
class Machine:
    """A machine: its disturbances, and the names of the programs that ran.

    `noise` is the standard deviation of a run's time, relative; a share of `outliers` runs takes five times as
    long; `speed(now)` (seconds) divides every time; `whole(spec)` multiplies a whole network's, which the sum over
    its parts knows nothing of.
    """

    noise: float = 0.0
    outliers: float = 0.0
    speed: Callable[[float], float] = lambda now: 1.0
    whole: Callable[[ArchSpec], float] = lambda spec: 1.0
    now: float = 0.0  # seconds
    compiled: list[str] = field(default_factory=list)
    ran: list[str] = field(default_factory=list)
    rng: random.Random = field(default_factory=lambda: random.Random(0))

    def program(self, name: str, ms: float, noise: float = 0.0) -> TimedRun:
        """Return a program of `ms` milliseconds at speed 1."""

        def run() -> None:
            self.ran.append(name)
            disturbed = abs(1 + self.rng.gauss(0, noise or self.noise))
            if self.rng.random() < self.outliers:
                disturbed *= 5
            self.now += ms / 1000 * disturbed / self.speed(self.now)

        return run


class SyntheticRuntime:
    """A `nas.latency.runtimes.Runtime` on a `Machine`."""

    name = "synthetic"
    version = "1.0"

    def __init__(self, threads: int = 1, precision: str = "float32", machine: Machine | None = None) -> None:
        self.threads = threads
        self.precision = check_precision(self.name, precision, ("float32", "int8"))
        self.machine = machine or Machine()

    def clock(self) -> float:
        return self.machine.now

    def compile(self, part: Part) -> TimedRun:
        self.machine.compiled.append(part.key)
        extra = self.machine.whole(part.spec) if isinstance(part, NetworkPart) else 1.0
        return self.machine.program(part.key, part_ms(part) * extra)


def apart_from_landmarks(factor: Callable[[ArchSpec], float]) -> Callable[[ArchSpec], float]:
    """Return `Machine.whole` that leaves the reference network and the landmarks as they are.

    Landmarks that are off from one session to the next would tell a tilt.
    """
    plain = {published_spec("mobilenet_v3_large").id, *(spec.id for spec in landmarks())}
    return lambda spec: 1.0 if spec.id in plain else factor(spec)


def bench(machine: Machine, reference_ms: float = 2.0) -> Bench:
    """Return a bench for programs that are no parts; its reference network runs as "reference"."""
    return Bench(
        SyntheticRuntime(machine=machine).clock, [machine.program("reference", reference_ms)] * REFERENCE_COPIES, []
    )


def install(monkeypatch: pytest.MonkeyPatch, machine: Machine | None = None) -> Machine:
    """Make `--runtime synthetic` run on the machine, for the time of a test."""
    machine = machine or Machine()
    monkeypatch.setitem(RUNTIMES, "synthetic", f"{__name__}:made_runtime")
    monkeypatch.setattr(
        sys.modules[__name__], "made_runtime", partial(SyntheticRuntime, machine=machine), raising=False
    )
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: machine.now))
    monkeypatch.setattr(timing, "allowed_cores", lambda: [])  # the tests share the cores
    # Tests of searches build no networks: fvcore takes a second for each.
    monkeypatch.setattr(results, "fvcore_macs_of", lambda spec, num_classes: count_cost(spec, num_classes).macs)
    monkeypatch.setattr("nas.search.whole_front.BUDGETS", FRONT_BUDGETS)  # each takes some hundredths of a second
    return machine


def become(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> Device:
    """Make this machine another device for the time of a test, and return it."""
    other = dataclasses.replace(Device.this(), **changes)
    monkeypatch.setattr(Device, "this", lambda: other)
    return other


def empty_folder(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Go to `path`, where there is only the space of few choices, and compare few published networks."""
    (path / "few.py").write_text(SPACE, encoding="utf-8")
    monkeypatch.chdir(path)
    known = published_networks()
    some = [result for result in known if result.spec.name in COMPARED]
    some += [result for result in known if result.spec.name.startswith("ofa_")][:3]
    monkeypatch.setattr("nas.search.run.published_networks", lambda: some)
