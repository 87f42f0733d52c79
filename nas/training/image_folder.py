"""A folder of images on disk, with a folder for each class."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

from torchvision import datasets
from torchvision.datasets.folder import IMG_EXTENSIONS

from nas.training.image_files import open_rgb


class ImageFolder(datasets.DatasetFolder):
    """The images of one part of a data set. Hidden files and folders, as editors and file managers leave, are skipped.

    Raises OSError where there is no folder of a class.
    """

    def __init__(self, root: Path) -> None:
        self._hidden: list[str] = []
        self._passed_over: Counter[str] = Counter()  # files by their extension
        super().__init__(str(root), open_rgb, is_valid_file=self._is_image, allow_empty=True)

    def find_classes(self, directory: str | Path) -> tuple[list[str], dict[str, int]]:
        """Return the names of the classes, and the label of each."""
        folders = sorted(entry.name for entry in os.scandir(directory) if entry.is_dir())
        self._hidden += [name for name in folders if name.startswith(".")]
        classes = [name for name in folders if not name.startswith(".")]
        if not classes:
            raise FileNotFoundError(f"there is no folder of a class in {directory}")
        return classes, {name: label for label, name in enumerate(classes)}

    @property
    def filled(self) -> set[str]:
        """Return the classes that have an image."""
        return {self.classes[label] for label in set(self.targets)}

    @property
    def notes(self) -> tuple[str, ...]:
        """Return what was passed over, a line for each kind."""
        notes = []
        if self._hidden:
            more = f" and {len(self._hidden) - 1} more" if len(self._hidden) > 1 else ""
            notes.append(f"{self.root}: skipped the hidden folder {self._hidden[0]}{more}")
        if self._passed_over:
            kinds = ", ".join(f"{count} {kind}" for kind, count in self._passed_over.most_common())
            known = " ".join(sorted(IMG_EXTENSIONS))
            notes.append(
                f"{self.root}: passed over files ({kinds}); those that are images need one of the extensions {known}"
            )
        return tuple(notes)

    def _is_image(self, path: str) -> bool:
        parts = os.path.relpath(path, self.root).split(os.sep)
        hidden = next((index for index, part in enumerate(parts) if part.startswith(".")), None)
        if hidden is not None:
            folder = os.sep.join(parts[: hidden + 1])
            if hidden < len(parts) - 1 and folder not in self._hidden:
                self._hidden.append(folder)
            return False
        extension = os.path.splitext(path)[1].lower()
        if extension not in IMG_EXTENSIONS:
            self._passed_over[extension or "without an extension"] += 1
            return False
        return True
