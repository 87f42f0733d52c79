"""Read what Linux tells of itself below /proc and /sys. Other systems have no such files."""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/")


def system_text(path: Path) -> str:
    """Return the text of a file without the white space around it; empty where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def system_number(path: Path) -> int:
    """Return the number that a file holds; 0 where there is none."""
    text = system_text(path)
    return int(text) if text.isdecimal() else 0
