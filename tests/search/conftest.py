"""The machine that small searches run on, and the data base where workers meet."""

from support.postgresql import postgresql
from support.searching import machine

__all__ = ["machine", "postgresql"]
