"""Search spaces, one file a skeleton. Each file sets `SPACE`, a table of choices and nothing else."""
