"""The parts of every command: its parser, the flags it shares, its console, and how it is run."""
