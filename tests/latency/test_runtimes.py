"""One contract for every runtime that is installed: it runs every kind of part, and its clock goes forward."""

import pytest

from nas.latency.runtimes import Runtime
from nas.parts import BlockPart, ContextPart, HeadPart, NetworkPart, Part, StemPart
from nas.published import published_spec
from nas.registry import RUNTIMES, resolve
from nas.spec import BlockSpec, HeadSpec, StemSpec

PARTS: dict[str, Part] = {
    "stem": StemPart(StemSpec(out=8), 32),
    "block": BlockPart(BlockSpec(kernel=3, expanded=16, out=8, se=8), 8, 8),
    "strided": BlockPart(BlockSpec(kernel=5, expanded=16, out=16, stride=2, activation="hswish"), 8, 9),
    "sepconv": BlockPart(BlockSpec(op="sepconv", kernel=3, expanded=8, out=8, activation="relu6"), 8, 8),
    "head": HeadPart(HeadSpec(conv=16, hidden=8), 8, 4, 10),
    "context": ContextPart(8, 4),
    "network": NetworkPart(published_spec("mobilenet_v3_small").replace(resolution=32), 10),
}


@pytest.fixture(scope="module", params=RUNTIMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    try:
        made: Runtime = resolve("runtime", request.param, RUNTIMES)(threads=1)
    except ImportError:
        pytest.skip(f"{request.param} is not installed")
    assert made.name == request.param
    return made


@pytest.mark.parametrize("name", PARTS)
def test_runs_every_kind_of_part(runtime: Runtime, name: str) -> None:
    run = runtime.compile(PARTS[name])
    for _ in range(3):
        before = runtime.clock()
        assert run() is None
        assert runtime.clock() >= before


def test_tells_what_a_table_must_know(runtime: Runtime) -> None:
    assert runtime.version
    assert runtime.version[0].isdigit()
    assert (runtime.threads, runtime.precision) == (1, "float32")
    assert resolve("runtime", runtime.name, RUNTIMES)(threads=2).threads == 2


def test_several_programs_run_in_turn(runtime: Runtime) -> None:
    """As they do while they are timed: each keeps its own data."""
    runs = [runtime.compile(part) for part in PARTS.values()]
    for run in (*runs, *reversed(runs)):
        run()


def test_the_clock_counts_work(runtime: Runtime) -> None:
    run = runtime.compile(NetworkPart(published_spec("mobilenet_v3_small")))
    run()
    before = runtime.clock()
    run()
    assert 1e-5 < runtime.clock() - before < 60
