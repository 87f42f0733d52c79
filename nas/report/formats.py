"""Name the formats that a figure is written in. This module loads no library, so that `--help` answers at once."""

from __future__ import annotations

FORMATS = ("png", "svg", "pdf")
DEFAULT_FORMATS = ("png", "svg")
