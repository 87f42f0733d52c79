"""Search strategies: each proposes the next network from the finished trials."""

# A new strategy is a file of this folder and a line here.
STRATEGIES = {
    "exact": "nas.search.strategies.exact:EXACT",
    "evolution": "nas.search.strategies.evolution:EVOLUTION",
    "once-for-all": "nas.search.strategies.evolution:ONCE_FOR_ALL",
    "surrogate": "nas.search.strategies.surrogate:SURROGATE",
    "tpe": "nas.search.strategies.tpe:TPE",
    "nsga2": "nas.search.strategies.nsga2:NSGA2",
    "random": "nas.search.strategies.random_search:RANDOM",
}
