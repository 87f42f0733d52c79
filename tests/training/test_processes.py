import socket

import pytest
import torch
from torch import distributed

from nas.errors import NasError
from nas.training.processes import SINGLE_PROCESS, Processes, joined_processes

NAMES = ("WORLD_SIZE", "RANK", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
COMPLETE = {"WORLD_SIZE": "2", "RANK": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "29500"}


@pytest.fixture
def launched(monkeypatch):
    """Return a function that sets the environment of a launcher, and the number of GPUs."""
    monkeypatch.setattr(distributed, "init_process_group", lambda backend: None)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)

    def launch(variables: dict[str, str], gpus: int = 0) -> tuple[Processes, torch.device]:
        for name in NAMES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        with joined_processes() as joined:
            return joined

    return launch


@pytest.mark.parametrize("variables", [{}, {"WORLD_SIZE": ""}, {"WORLD_SIZE": " "}, {"WORLD_SIZE": "1"}])
def test_without_a_launcher_this_process_trains_alone(launched, variables):
    assert launched(variables) == (SINGLE_PROCESS, torch.device("cpu"))


@pytest.mark.parametrize(
    ("added", "gpus", "device"),
    [
        ({}, 0, "cpu"),
        ({}, 1, "cuda:0"),
        ({"LOCAL_RANK": ""}, 1, "cuda:0"),
        ({"LOCAL_WORLD_SIZE": "1"}, 4, "cuda:0"),
        ({"LOCAL_RANK": "1"}, 4, "cuda:1"),
    ],
)
def test_launchers_may_leave_out_a_local_rank_that_is_no_choice(launched, added, gpus, device):
    assert launched(COMPLETE | added, gpus) == (Processes(1, 2), torch.device(device))


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        (COMPLETE, "WORLD_SIZE is 2 .* and LOCAL_RANK is not set; start the training with torchrun, or unset"),
        (COMPLETE | {"LOCAL_RANK": "4"}, "this machine has 4 GPUs and more processes"),
        (COMPLETE | {"LOCAL_RANK": "one"}, "LOCAL_RANK is 'one' in the environment; it must be a whole number"),
        (COMPLETE | {"RANK": ""}, "WORLD_SIZE is 2 .* and RANK is not set"),
        (COMPLETE | {"MASTER_ADDR": ""}, "WORLD_SIZE is 2 .* and MASTER_ADDR is not set"),
        (COMPLETE | {"MASTER_PORT": "x"}, "MASTER_PORT is 'x'"),
        (COMPLETE | {"MASTER_PORT": "65536"}, "MASTER_PORT is 65536 in the environment; it must be at most 65535"),
        (COMPLETE | {"RANK": "2"}, "RANK is 2 in the environment; it must be at most 1"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE is '0' in the environment; it must be a whole number of at least 1"),
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE is 'two'"),
        ({"WORLD_SIZE": "2"}, "and RANK is not set"),
    ],
)
def test_launchers_that_say_too_little_are_refused(launched, variables, message):
    with pytest.raises(NasError, match=message):
        launched(variables, gpus=4)


def refused(monkeypatch: pytest.MonkeyPatch, **variables: str) -> str:
    """Return the line with which this process refuses to join the others."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    for name, value in (COMPLETE | variables).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(NasError) as error, joined_processes():
        pass
    return str(error.value)


def test_a_port_in_use_is_an_error_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        line = refused(monkeypatch, RANK="0", MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    assert line.startswith(f"this process cannot join the 2 that train together at 127.0.0.1:{port} (The server socket")
    assert "\n" not in line


@pytest.mark.parametrize(
    "error",
    [
        distributed.DistStoreError("Timed out after 601 seconds waiting for clients. 1/2 clients joined."),
        distributed.DistNetworkError("The client socket has timed out.\nException raised from"),
        RuntimeError("Gloo connectFullMesh failed with connection refused"),
        RuntimeError(),
    ],
)
def test_processes_that_do_not_find_each_other_end_in_one_line(
    monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(backend: str) -> None:
        raise error

    monkeypatch.setattr(distributed, "init_process_group", fail)
    line = refused(monkeypatch)
    assert "\n" not in line
    assert f"localhost:29500 ({str(error)[:20]}" in line
    assert line.endswith("and that all processes were started")
