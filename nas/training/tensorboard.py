"""Write metrics for TensorBoard, if its package is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from nas.errors import NasError
from nas.training.loop import Metrics
from nas.utf8 import as_utf8

FOLDER = "tensorboard"


def tensorboard_writer(folder: Path, finished: int) -> Callable[[Metrics], None]:
    """Return a function that writes an epoch's metrics into `folder`.

    TensorBoard then ignores what the folder holds of epochs after `finished`. Raises NasError without the package, and
    for a folder whose name is not UTF-8.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise NasError(
            "--tensorboard needs the package tensorboard; install it with `uv sync --extra tensorboard` or "
            "`pip install tensorboard`"
        ) from None
    if as_utf8(str(folder)) != str(folder):  # TensorBoard cannot open a file there
        raise NasError(f"{folder}: --tensorboard needs a folder whose name is UTF-8; name one with --out")
    writer = SummaryWriter(str(folder / FOLDER), purge_step=finished + 1)

    def write(metrics: Metrics) -> None:
        for name, value in metrics._asdict().items():
            if name != "epoch":
                writer.add_scalar(name, value, metrics.epoch)
        writer.flush()

    return write
