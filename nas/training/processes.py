"""The processes that train one network together, as torchrun starts them, or the one that trains alone.

`nas.training.local_processes` has those that a training starts itself on the cores of a CPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

from nas.errors import NasError
from nas.training.images import BatchShare


class Exchange(Protocol):
    """A way in which several processes put together what each of them has. All call the same methods in turn."""

    def sums(self, values: Sequence[float], device: torch.device | str) -> list[float]:
        """Return the sum of each value over all processes."""

    def average(self, tensors: Sequence[Tensor], weight: float) -> None:
        """Replace tensors by their mean over all processes, of which this one weighs `weight`."""

    def gathered(self, value: Any) -> list[Any]:
        """Return the values of all processes in their order. Nobody goes on before all have called this."""

    def synchronised(self, model: nn.Module) -> nn.Module:
        """Return the module to train: the model, or a wrapper that averages gradients in its backward pass."""

    def gradient_average(self, model: nn.Module) -> Callable[[int], None]:
        """Return what averages the model's gradients after a backward pass, weighed by this process's images."""


class TorchDistributed:
    """The process group of torch.distributed. `DistributedDataParallel` averages the gradients, all alike."""

    def sums(self, values: Sequence[float], device: torch.device | str) -> list[float]:
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.all_reduce(tensor)
        return tensor.tolist()

    def average(self, tensors: Sequence[Tensor], weight: float) -> None:
        (total,) = self.sums([weight], tensors[0].device)
        for tensor in tensors:
            tensor *= weight / total
            distributed.all_reduce(tensor)

    def gathered(self, value: Any) -> list[Any]:
        values = [None] * distributed.get_world_size()
        distributed.all_gather_object(values, value)
        return values

    def synchronised(self, model: nn.Module) -> nn.Module:
        return DistributedDataParallel(model, broadcast_buffers=False)

    def gradient_average(self, model: nn.Module) -> Callable[[int], None]:
        return lambda images: None


TORCH_DISTRIBUTED = TorchDistributed()


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of a training: the `rank`-th of `count`, which meet through `exchange`."""

    rank: int = 0
    count: int = 1
    exchange: Exchange = TORCH_DISTRIBUTED

    @property
    def first(self) -> bool:
        """Return whether this process is the one that writes files and prints messages."""
        return self.rank == 0

    @property
    def share(self) -> BatchShare:
        """Return this process's share of every batch."""
        return BatchShare(self.rank, self.count)

    def sums(self, *values: float, device: torch.device | str = "cpu") -> list[float]:
        """Return the sum of each value over all processes."""
        return list(values) if self.count == 1 else self.exchange.sums(values, device)

    def average_statistics(self, model: nn.Module, images: int) -> None:
        """Replace batch norm's running statistics by their mean over all processes, weighed by their images."""
        if self.count > 1:
            self.exchange.average([buffer for buffer in model.buffers() if buffer.is_floating_point()], images)

    def gathered(self, value: Any) -> list[Any]:
        """Return the values of all processes in their order."""
        return [value] if self.count == 1 else self.exchange.gathered(value)

    def wait(self) -> None:
        """Wait until all processes have called this."""
        self.gathered(None)

    def synchronised(self, model: nn.Module) -> nn.Module:
        """Return the module to call in steps: the model, or a wrapper that averages its gradients."""
        return model if self.count == 1 else self.exchange.synchronised(model)

    def gradient_average(self, model: nn.Module) -> Callable[[int], None]:
        """Return the function to call between a backward pass and the optimiser, with the images of this process."""
        return (lambda images: None) if self.count == 1 else self.exchange.gradient_average(model)


SINGLE_PROCESS = Processes()


@contextmanager
def joined_processes() -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that torchrun started, each on a GPU of its own where there are any.

    Without torchrun this process trains alone. Raises NasError where a machine has fewer GPUs than processes, where
    another launcher does not say what torchrun does, and where the processes do not find each other.
    """
    gpus = torch.cuda.device_count()
    count = _environment_number("WORLD_SIZE", least=1, default=1)
    if count == 1:
        yield SINGLE_PROCESS, torch.device("cuda" if gpus else "cpu")
        return
    _environment_number("RANK", most=count - 1)
    _environment_number("MASTER_PORT", most=65535)
    _check_set("MASTER_ADDR")
    # Launchers of one process a machine leave LOCAL_RANK out. Where there is no choice of a GPU, none is needed.
    only = gpus <= 1 or os.environ.get("LOCAL_WORLD_SIZE") == "1"
    local_rank = _environment_number("LOCAL_RANK", default=0 if only else None)
    if gpus and local_rank >= gpus:
        raise NasError(f"this machine has {gpus} GPUs and more processes; start torchrun with --nproc-per-node {gpus}")
    device = torch.device("cuda", local_rank) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    try:
        distributed.init_process_group("nccl" if gpus else "gloo")
    except (RuntimeError, ValueError) as error:  # torch's own for a network, a time that is up, a backend
        line = next(iter(str(error).splitlines()), type(error).__name__)
        raise NasError(
            f"this process cannot join the {count} that train together at "
            f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']} ({line.rstrip('.')}); check MASTER_ADDR, that "
            "MASTER_PORT is free there and can be reached, and that all processes were started"
        ) from None
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size()), device
    finally:
        distributed.destroy_process_group()


def _environment_number(name: str, *, least: int = 0, most: int | None = None, default: int | None = None) -> int:
    """Return a whole number of the environment, where an empty text counts as none. Raises NasError."""
    text = os.environ.get(name, "").strip()
    if not text and default is not None:
        return default
    _check_set(name)
    if not text.isdecimal() or int(text) < least:
        raise NasError(f"{name} is {text!r} in the environment; it must be a whole number of at least {least}")
    if most is not None and int(text) > most:
        raise NasError(f"{name} is {text} in the environment; it must be at most {most}")
    return int(text)


def _check_set(name: str) -> None:
    if not os.environ.get(name, "").strip():
        raise NasError(
            f"WORLD_SIZE is {os.environ['WORLD_SIZE']} in the environment and {name} is not set; "
            "start the training with torchrun, or unset WORLD_SIZE to train in one process"
        )
