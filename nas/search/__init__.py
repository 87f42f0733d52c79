"""The search: `nas.search.run.search` finds networks and leaves the folder of a run behind."""
