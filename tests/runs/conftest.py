"""Run folders to read and to break."""

from support.made_up_run import edit_run, finished_run, run_dir

__all__ = ["edit_run", "finished_run", "run_dir"]
