"""A whole search, stage by stage: `nas.pipeline.search.search` finds networks and leaves a run's folder behind.

table → where things stand → scales → rows → trials → trimming → finalists measured → comparison → files
"""
