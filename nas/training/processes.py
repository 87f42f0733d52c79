"""The processes that train one network together, as torchrun starts them, or the one that trains alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import distributed, nn

from nas.errors import NasError
from nas.training.images import BatchShare


@dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of a training: the `rank`-th of `count`."""

    rank: int = 0
    count: int = 1

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
        if self.count == 1:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=device)
        distributed.all_reduce(tensor)
        return tensor.tolist()

    def average_statistics(self, model: nn.Module, images: int) -> None:
        """Replace batch norm's running statistics by their mean over all processes, weighed by their images."""
        if self.count == 1:
            return
        (total,) = self.sums(images, device=next(model.parameters()).device)
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer *= images * self.count / total
                distributed.all_reduce(buffer)
                buffer /= self.count

    def wait(self) -> None:
        """Wait until all processes have called this."""
        if self.count > 1:
            distributed.barrier()


SINGLE_PROCESS = Processes()


@contextmanager
def joined_processes() -> Iterator[tuple[Processes, torch.device]]:
    """Join the processes that torchrun started, each on a GPU of its own where there are any.

    Without torchrun this process trains alone. Raises NasError where a machine has fewer GPUs than processes.
    """
    gpus = torch.cuda.device_count()
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield SINGLE_PROCESS, torch.device("cuda" if gpus else "cpu")
        return
    local_rank = int(os.environ["LOCAL_RANK"])
    if gpus and local_rank >= gpus:
        raise NasError(f"this machine has {gpus} GPUs and more processes; start torchrun with --nproc-per-node {gpus}")
    device = torch.device("cuda", local_rank) if gpus else torch.device("cpu")
    if gpus:
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if gpus else "gloo")
    try:
        yield Processes(distributed.get_rank(), distributed.get_world_size()), device
    finally:
        distributed.destroy_process_group()
