"""One contract for every runtime: it runs every kind of part as the others do, and its clock goes forward."""

import inspect
import subprocess
import sys
import time
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch

from nas.arch.onnx_graph import part_model
from nas.arch.operations import INPUT
from nas.arch.parts import BlockPart, ContextPart, HeadPart, NetworkPart, Part, StemPart
from nas.arch.published import published_spec
from nas.arch.spec import BlockSpec, HeadSpec, StemSpec
from nas.errors import NasError
from nas.latency.runtimes import RUNTIMES, Profiler, Runtime
from nas.latency.runtimes.base import by_operation, clock_of, sample_images
from nas.latency.runtimes.torch_eager import input_shape, part_module
from nas.latency.timing import TimedRun
from nas.names import resolve

SMALL = published_spec("mobilenet_v3_small")
PARTS: dict[str, Part] = {
    "stem": StemPart(StemSpec(out=8), 32),
    "stem of stride 1": StemPart(StemSpec(out=8, stride=1), 32),
    "block": BlockPart(BlockSpec(kernel=3, expanded=16, out=8, se=8), 8, 8),
    "strided": BlockPart(BlockSpec(kernel=5, expanded=16, out=16, stride=2, activation="hswish"), 8, 9),
    "sigmoid": BlockPart(BlockSpec(kernel=7, expanded=24, out=8, se=8, gate="sigmoid"), 8, 8),
    "sepconv": BlockPart(BlockSpec(op="sepconv", kernel=3, expanded=8, out=8, activation="relu6"), 8, 8),
    "active output": BlockPart(BlockSpec(op="sepconv", kernel=3, expanded=8, out=8, activate_output=True), 8, 8),
    "universal": BlockPart(BlockSpec(op="uib", start_kernel=5, kernel=3, expanded=24, out=16, stride=2), 8, 9),
    "start alone": BlockPart(BlockSpec(op="uib", start_kernel=3, kernel=0, expanded=24, out=8), 8, 8),
    "only 1x1": BlockPart(BlockSpec(op="uib", kernel=0, expanded=24, out=8), 8, 8),
    "fused": BlockPart(BlockSpec(op="fused", kernel=3, expanded=24, out=16, stride=2, activate_output=True), 8, 9),
    "normed head": HeadPart(HeadSpec(conv=16, hidden=8, activation="relu", hidden_norm=True), 8, 4, 10),
    "head": HeadPart(HeadSpec(conv=16, hidden=8), 8, 4, 10),
    "plain head": HeadPart(HeadSpec(conv=0), 8, 4, 10),
    "context": ContextPart(8, 4),
    "network": NetworkPart(SMALL.replace(resolution=32), 10),
}
KINDS = [
    ("onnxruntime", "float32"),
    ("onnxruntime", "int8"),
    ("litert", "float32"),
    ("litert", "int8"),
    ("openvino", "float32"),
    ("openvino", "int8"),
    ("torch", "float32"),
]
INT8_STEP = 1 / 16  # between two values of an output, by the fixed scales of `nas.arch.onnx_int8`
MODULES = {"litert": "ai_edge_litert.interpreter"}  # where a runtime is not the module of its own name


def test_every_runtime_is_held_to_the_contract() -> None:
    assert {name for name, _ in KINDS} == set(RUNTIMES)


@pytest.fixture(scope="module", params=KINDS, ids="-".join)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    return made(*request.param)


def made(name: str, precision: str = "float32", threads: int = 1) -> Any:
    pytest.importorskip(MODULES.get(name, name), reason=f"{name} is not installed")
    return resolve("runtime", name, RUNTIMES)(threads=threads, precision=precision)


@pytest.mark.parametrize("name", PARTS)
def test_runs_every_kind_of_part(runtime: Runtime, name: str) -> None:
    run = runtime.compile(PARTS[name])
    for _ in range(3):
        before = runtime.clock()
        assert run() is None
        assert runtime.clock() >= before


@pytest.mark.parametrize(("name", "precision"), KINDS)
def test_tells_what_a_table_must_know(name: str, precision: str) -> None:
    runtime = made(name, precision, threads=2)
    assert (runtime.name, runtime.precision, runtime.threads) == (name, precision, 2)
    assert runtime.version[0].isdigit()
    plain = resolve("runtime", name, RUNTIMES)()
    assert (plain.precision, plain.threads) == ("float32", 1)
    runtime.compile(PARTS["block"])()


def test_a_precision_that_a_runtime_lacks_is_refused_with_those_it_has() -> None:
    both = "float32, int8"
    for name, known in (("onnxruntime", both), ("litert", both), ("openvino", both), ("torch", "float32")):
        with pytest.raises(NasError, match=rf"{name} has no precision 'int4'; it has {known}$"):
            resolve("runtime", name, RUNTIMES)(precision="int4")


@pytest.mark.parametrize(
    ("name", "install"),
    [
        ("openvino", "uv sync --extra openvino"),
        ("torch", "pip install torch"),
        ("litert", "uv sync --extra litert` or `pip install ai-edge-litert"),
    ],
)
def test_a_runtime_that_is_not_installed_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, name: str, install: str
) -> None:
    monkeypatch.setitem(sys.modules, MODULES.get(name, name), None)
    with pytest.raises(NasError, match=f"runtime {name} is not installed .*{install}") as error:
        resolve("runtime", name, RUNTIMES)()
    assert "\n" not in str(error.value)


def test_threads_that_find_no_memory_are_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on a device of a bundle, which loads files."""
    runtime = made("litert", threads=99)

    def without_memory(model: bytes, threads: int) -> Any:
        raise MemoryError

    monkeypatch.setattr("nas.latency.runtimes.litert.open_interpreter", without_memory)
    for start in (lambda: runtime.compile(PARTS["block"]), lambda: runtime.load(b"")):
        with pytest.raises(NasError, match=r"^no memory is left for another program of 99 threads .* fewer --threads$"):
            start()


def output_of(run: TimedRun) -> np.ndarray:
    """Return what the last iteration of a program computed, out of what its call holds on to."""
    held = inspect.getclosurevars(run).nonlocals
    if "binding" in held:
        return held["binding"].copy_outputs_to_cpu()[0]
    if "request" in held:
        return held["request"].get_output_tensor(0).data.copy()
    if "interpreter" in held:
        interpreter = held["interpreter"]
        return as_onnx(interpreter.get_tensor(interpreter.get_output_details()[0]["index"]))
    with torch.inference_mode():
        return held["module"](held["images"]).numpy()


def as_onnx(output: np.ndarray) -> np.ndarray:
    """Return an output whose channels lie last with its channels in the second place."""
    return output.transpose(0, 3, 1, 2) if output.ndim == 4 else output


def test_programs_that_run_in_turn_keep_their_own_data(runtime: Runtime) -> None:
    """Input and output of each stay as they are, whatever else runs or is allocated."""
    runs = {name: runtime.compile(part) for name, part in PARTS.items()}
    first = {}
    for name, run in runs.items():
        run()
        first[name] = output_of(run)
        assert np.isfinite(first[name]).all()
        assert first[name].std() > 0
        if runtime.precision == "float32":
            wanted = outputs(PARTS[name])
            assert np.abs(first[name] - wanted).max() <= 1e-4 * np.abs(wanted).max()
    for name, run in (*runs.items(), *reversed(runs.items())):
        other = [np.full_like(output, np.nan) for output in first.values()]  # into memory that was given back too early
        run()
        assert (output_of(run) == first[name]).all()
        for before, output in first.items():
            assert before == name or (output_of(runs[before]) == output).all(), f"{name} wrote into {before}"
        assert all(np.isnan(output).all() for output in other)


def test_the_clock_counts_work(runtime: Runtime) -> None:
    """The calling thread's, where the work is done: no other thread of the process has a share in it."""
    run = runtime.compile(NetworkPart(SMALL))
    run()
    process, before = time.process_time(), runtime.clock()
    for _ in range(5):
        run()
    assert runtime.clock() - before > 0.8 * (time.process_time() - process) > 1e-4


def test_more_threads_are_timed_by_the_clock_on_the_wall() -> None:
    assert clock_of(2) is time.perf_counter
    if sys.platform != "win32":
        assert clock_of(1) is time.thread_time


def test_a_profile_names_operations_and_their_time(runtime: Runtime) -> None:
    if runtime.name == "litert":  # which tells nothing of its operations
        assert not isinstance(runtime, Profiler)
        return
    assert isinstance(runtime, Profiler)
    profile = runtime.profile(NetworkPart(published_spec("mobilenet_v3_large"), 10))
    assert 3 < len(profile) == len(dict(profile))
    assert "conv" in profile[0][0].lower()
    times = [milliseconds for _, milliseconds in profile]
    assert times == sorted(times, reverse=True)
    assert 0 < sum(times) < 1000


def test_a_profile_sums_the_medians_of_places() -> None:
    rows = [("Conv", "1", ms) for ms in (1.0, 9.0, 2.0)] + [("Conv", "2", 3.0), ("Add", "3", 7.0)]
    assert by_operation(rows) == [("Add", 7.0), ("Conv", 5.0)]


# Outputs ----------------------------------------------------------------------------------------------


def images_of(part: Part) -> np.ndarray:
    return sample_images(input_shape(part))


def outputs(part: Part, precision: str = "float32") -> np.ndarray:
    """Return what onnxruntime computes."""
    graph = part_model(part, precision).SerializeToString()
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    result: np.ndarray = session.run(None, {INPUT: images_of(part)})[0]
    return result


@pytest.mark.parametrize("name", PARTS)
def test_torchs_modules_compute_what_the_graphs_do(name: str) -> None:
    part = PARTS[name]
    state = torch.get_rng_state()
    with torch.inference_mode():
        got = part_module(part)(torch.from_numpy(images_of(part))).numpy()
    wanted = outputs(part)
    assert got.shape == wanted.shape
    assert np.abs(got - wanted).max() <= 1e-4 * np.abs(wanted).max()
    assert torch.equal(torch.get_rng_state(), state), "other code counts on torch's random numbers"


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("name", PARTS)
def test_openvino_computes_what_onnxruntime_does(name: str, precision: str) -> None:
    """In int8 both have the same scales, and differ by a step of the output where they round."""
    part = PARTS[name]
    request = made("openvino", precision).request(part)
    request.infer()
    wanted = outputs(part, precision)
    allowed = 1e-4 * np.abs(wanted).max() if precision == "float32" else INT8_STEP
    assert np.abs(request.get_output_tensor(0).data - wanted).max() <= allowed


def test_torch_leaves_the_threads_of_others_alone() -> None:
    before = torch.get_num_threads()
    made("torch", threads=3).compile(PARTS["block"])()
    assert torch.get_num_threads() == before


def test_measuring_with_onnxruntime_never_loads_torch() -> None:
    """It does not load OpenVINO either: a device may have neither."""
    code = (
        "import sys\n"
        "for name in ('torch', 'torchvision', 'openvino', 'ai_edge_litert'): sys.modules[name] = None\n"
        "from nas.latency.measuring import measure_missing, new_table\n"
        "from nas.latency.runtimes.onnx_runtime import OnnxRuntime\n"
        "from nas.arch.parts import ContextPart\n"
        "for precision in ('float32', 'int8'):\n"
        "    table = new_table(OnnxRuntime(precision=precision))\n"
        "    assert measure_missing(table, [ContextPart(8, 4)]) == 1\n"
        "    assert table.runtime.precision == precision\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
