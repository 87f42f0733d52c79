"""Describe a figure of a report, and save it with its data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from matplotlib.figure import Figure

from nas.files import replacing, write_text
from nas.report.formats import DEFAULT_FORMATS
from nas.report.plots.style import figure_style

if TYPE_CHECKING:
    import pandas as pd

SVG_DPI = 100  # of the images in it, which are most of its bytes
PDF_DPI = 300  # for print


class ReportFigure(NamedTuple):
    """A figure that is not drawn yet, with its words and the numbers that it shows."""

    name: str  # of its files, without a suffix
    heading: str
    caption: str
    draw: Callable[[], Figure]
    table: Callable[[], pd.DataFrame]  # one observation a row, units in the names of columns

    def save(self, folder: Path, formats: Sequence[str] = DEFAULT_FORMATS) -> tuple[Path, ...]:
        """Draw the figure once for each of `FORMATS` that is asked for, and write its data beside it.

        Return the files of the formats in their order, then the CSV. The same figure gives the same bytes. Raises
        NasError where they cannot be written.
        """
        files = []
        with figure_style():
            drawn = self.draw()
            for suffix in formats:
                files.append(self._file(folder, suffix))
                with replacing(files[-1]) as side:
                    drawn.savefig(side, format=suffix, **self._options(suffix))
        data = self._file(folder, "csv")
        write_text(data, self.table().to_csv(index=False, lineterminator="\n", float_format="%.6g"))
        return *files, data

    def _file(self, folder: Path, suffix: str) -> Path:
        return folder / f"{self.name}.{suffix}"  # not with_suffix: "large_1.1ms" has none

    def _options(self, suffix: str) -> dict[str, Any]:
        """Return the resolution of images, and the metadata: what is shown, and neither a date nor a program."""
        match suffix:
            case "png":
                return {"metadata": {"Software": None, "Title": self.heading, "Description": self.caption}}
            case "svg":
                nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
                return {"dpi": SVG_DPI, "metadata": nothing | {"Title": self.heading, "Description": self.caption}}
            case _:
                nothing = dict.fromkeys(("Creator", "Producer", "CreationDate"))
                return {"dpi": PDF_DPI, "metadata": nothing | {"Title": self.heading, "Subject": self.caption}}
