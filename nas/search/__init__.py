"""A whole search, stage by stage: `nas.search.run.search` finds networks and leaves a run's folder behind.

table → where things stand → variants → rows → trials → trimming → finalists measured → comparison → files
"""
