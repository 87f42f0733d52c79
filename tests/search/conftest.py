"""The machine that small searches run on."""

from support.searching import machine

__all__ = ["machine"]
