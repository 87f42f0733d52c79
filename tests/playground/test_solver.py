"""The solver of the page, beside the integer program of a search."""

import numpy as np
import pytest
from support.browser import OpenPage

from nas.accuracy.imagenet_prior import ImageNetPrior
from nas.arch.space import SearchSpace
from nas.arch.spec import ArchSpec
from nas.latency.table import LatencyTable
from nas.search.limits import Limit
from nas.search.solver import solve

BUDGETS = 12
MOST = 0.05  # points

SOLVE = """([index, budgets]) => {
  const data = pageData();
  const space = data.spaces[index];
  const tables = space.variants.map((variant) => prepareVariant(data, space, variant));
  const range = feasibleRange(tables);
  const solved = (budget) => {
    const found = solveBudget(data, tables, budget);
    return found && { json: specJson(found.spec), ms: found.ms, top1: found.top1, gap: found.gap };
  };
  const all = budgets ?? Array.from({ length: 12 }, (_, i) => range[0] * 1.001 * (range[1] / range[0]) ** (i / 11));
  return { range, budgets: all, solved: all.map(solved),
    gaps: Array.from({ length: 200 }, (_, i) => range[0] * 1.0001 * (range[1] / range[0]) ** (i / 199))
      .map((budget) => solveBudget(data, tables, budget).gap) };
}"""


def optimum(space: SearchSpace, table: LatencyTable, budget_ms: float) -> float:
    """Return the top-1 (percent) of the proven optimum over all variants."""
    prior = ImageNetPrior()
    score, limit = prior.additive_model(space), Limit("latency", budget_ms, table.compile(space))
    found = [solve(score, [limit], variant, gap=1e-5) for variant in range(len(space.variants))]
    return float(prior.link(max(solution.score for solution in found if solution)))


@pytest.mark.parametrize("index", [0, 1])
def test_the_best_network_within_a_budget_is_the_optimum_up_to_the_gap(
    functions: OpenPage, table: LatencyTable, spaces: list[SearchSpace], index: int
) -> None:
    found = functions.page.evaluate(SOLVE, [index, None])
    assert len(found["budgets"]) == BUDGETS
    for budget, one in zip(found["budgets"], found["solved"], strict=True):
        spec = ArchSpec.from_json(one["json"])
        assert spaces[index].contains(spec)
        assert table.predict_ms([spec])[0] <= budget + 1e-6
        assert one["ms"] == pytest.approx(table.predict_ms([spec])[0], abs=1e-6)
        assert one["top1"] == pytest.approx(ImageNetPrior().estimate([spec]).top1[0], abs=1e-6)
        best = optimum(spaces[index], table, budget)
        assert one["top1"] > best - MOST
        assert one["top1"] + one["gap"] > best - 1e-4, "the bound holds"
    assert max(found["gaps"]) <= MOST


def test_no_network_is_faster_than_the_fastest(
    functions: OpenPage, table: LatencyTable, spaces: list[SearchSpace]
) -> None:
    low, high = functions.page.evaluate(SOLVE, [0, []])["range"]
    latency = table.compile(spaces[0])
    limits = Limit("latency", low, latency)
    assert low == pytest.approx(limits.least().min(), abs=1e-6)
    too_fast, fastest, all_of_it = functions.page.evaluate(SOLVE, [0, [0.999 * low, 1.000001 * low, 10 * high]])[
        "solved"
    ]
    assert too_fast is None
    assert fastest["ms"] == pytest.approx(low, abs=1e-6)
    score = ImageNetPrior().additive_model(spaces[0])
    best = max(
        score.constants[row]
        + sum(
            max(np.cumsum([score.options[slot][row].max() for slot in slots])[np.array(stage.depths) - 1])
            for stage, slots in zip(spaces[0].stages, np.arange(20).reshape(5, 4), strict=True)
        )
        for row in range(2)
    )
    assert all_of_it["top1"] == pytest.approx(ImageNetPrior().link(best), abs=1e-6)


def test_scores_and_latencies_of_options_are_pythons(
    functions: OpenPage, table: LatencyTable, spaces: list[SearchSpace]
) -> None:
    """Also where two stages have come to have the same channels."""
    for index, space in enumerate(spaces):
        latency, score = table.compile(space), ImageNetPrior().additive_model(space)
        found = functions.page.evaluate(
            """(index) => {
            const data = pageData();
            const space = data.spaces[index];
            return space.variants.map((variant) =>
              ({ ...sharedPart(data, space, variant), options: usefulOptions(data, space, variant) }));
        }""",
            index,
        )
        for row, variant in enumerate(found):
            assert variant["ms"] == pytest.approx(latency.constants[row], abs=1e-6)
            assert variant["score"] == pytest.approx(score.constants[row], abs=1e-9)
            for slot, options in enumerate(variant["options"]):
                for option in options:
                    assert option["ms"] == pytest.approx(latency.options[slot][row][option["option"]], abs=1e-7)
                    assert option["score"] == pytest.approx(score.options[slot][row][option["option"]], abs=1e-9)
                best = score.options[slot][row].max()
                assert options[-1]["score"] == pytest.approx(best, abs=1e-9)
