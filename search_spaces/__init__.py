"""Search spaces, one file a skeleton: a table of choices and nothing else. Each file names its `SPACE`."""
