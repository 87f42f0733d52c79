"use strict";
// The best network within a latency, by dynamic programming over a grid of milliseconds. Pure functions.
//
// A variant's tables are made once. Cell b holds the best score of all networks whose latencies above the fastest, each
// block's rounded to the grid, add up to at most b cells. Rounding changes the sum of a network by half a cell a block
// at most. So the cell that lies by that above a budget bounds the score of every network within it. From there down,
// the first network whose exact sum keeps the budget is the answer. Near the fastest network a millisecond is worth
// most; tables of smaller cells serve there.

const CELLS = 32768;
const FINER = [32, 6, 1]; // times smaller are the cells of each table
const NONE = 255;

/** Return the options of each slot that no other beats in both latency (ms) and score. */
function usefulOptions(data, space, variant) {
  const width = space.widths[variant.width_index];
  const places = slotPlaces(space, width, data.prior.curves);
  return slotBlocks(space, variant).map((blocks, slot) => {
    const options = blocks.map((placed, option) => ({ option, ms: variant.ms[slot][option] * data.ms_unit,
      score: scoreOf(blockFeatures(placed, places[slot], data.prior.curves), data.prior) }));
    options.sort((one, other) => one.ms - other.ms || other.score - one.score);
    let best = -Infinity;
    return options.filter(({ score }) => score > best && ((best = score), true));
  });
}

/** Return the milliseconds and the score of what all networks of a variant share: stem, first block, head. */
function sharedPart(data, space, variant) {
  const smallest = memberSpec(space, variant, null);
  const parts = networkParts(smallest, data.classes);
  const rows = rowsAt(data, variant.resolution);
  const placed = walk(smallest);
  const places = segmentPlaces(placed, data.prior.curves);
  const features = [...skeletonFeatures(smallest, placed, places, data.prior.curves),
    ...blockFeatures(placed[0], places[0], data.prior.curves)];
  const ms = [parts[0], parts[1], parts[parts.length - 1]].reduce((sum, part) => sum + rows.get(part.key), 0);
  return { ms, score: scoreOf(features, data.prior) };
}

/** Return the tables of a variant, from which `solveVariant` reads the best network of every budget. */
function prepareVariant(data, space, variant) {
  const options = usefulOptions(data, space, variant);
  const shared = sharedPart(data, space, variant);
  const prepared = { space, variant, options, shared, fastest: null,
    choices: space.stages.map((stage) => stageOptions(stage)) };
  // What a block takes is counted from the fastest option of its slot, where a block must stand.
  prepared.least = space.slots.map(({ stage, position }, slot) =>
    (position < Math.min(...space.stages[stage].depths) ? options[slot][0].ms : 0));
  prepared.fastest = fastestNetwork(prepared);
  const most = options.reduce((sum, slot, index) => sum + slot[slot.length - 1].ms - prepared.least[index], 0);
  const step = Math.max(most, 1e-6) / (CELLS - 1 - options.length);
  prepared.levels = FINER.map((finer) => prepareLevel(prepared, step / finer));
  return prepared;
}

/** Return a table with cells of `step` milliseconds: best scores, and the option and the depth that each cell takes. */
function prepareLevel({ space, options, least }, step) {
  const rounded = options.map((slot, index) =>
    slot.map(({ ms }) => Math.max(0, Math.round((ms - least[index]) / step))));
  const slack = options.reduce((sum, slot, index) => sum + Math.max(0, ...slot.map(({ ms }, option) =>
    rounded[index][option] - (ms - least[index]) / step)), 0);
  let best = new Float64Array(CELLS);
  const chosen = [];
  const depths = [];
  let slot = 0;
  for (const stage of space.stages) {
    const ends = new Float64Array(CELLS).fill(-Infinity);
    const depthOf = new Uint8Array(CELLS);
    for (let depth = 1; depth <= Math.max(...stage.depths); depth += 1, slot += 1) {
      const { values, choice } = addSlot(best, options[slot], rounded[slot]);
      best = values;
      chosen.push(choice);
      if (!stage.depths.includes(depth)) continue;
      for (let cell = 0; cell < CELLS; cell += 1) {
        if (values[cell] > ends[cell]) {
          ends[cell] = values[cell];
          depthOf[cell] = depth;
        }
      }
    }
    best = ends;
    depths.push(depthOf);
  }
  return { step, slack, rounded, best, chosen, depths };
}

/** Return the best scores with one block more, and the option that each cell takes; NONE where none fits. */
function addSlot(before, options, cells) {
  const values = new Float64Array(CELLS).fill(-Infinity);
  const choice = new Uint8Array(CELLS).fill(NONE);
  options.forEach(({ score }, index) => {
    const shift = cells[index];
    for (let cell = shift; cell < CELLS; cell += 1) {
      const value = before[cell - shift] + score;
      if (value > values[cell]) {
        values[cell] = value;
        choice[cell] = index;
      }
    }
  });
  return { values, choice };
}

/** Return the best network of a variant within a budget (ms), and a bound of the score of all; null if none fits. */
function solveVariant(prepared, budgetMs) {
  const { fastest, levels, shared } = prepared;
  if (fastest.ms > budgetMs) return null;
  const cellOf = ({ step, slack }) => Math.floor((budgetMs - fastest.ms) / step + slack + 1e-6);
  const level = levels.find((one) => cellOf(one) < CELLS) ?? levels[levels.length - 1];
  const highest = Math.min(CELLS - 1, cellOf(level));
  const bound = level.best[highest] + shared.score;
  for (let cell = highest; cell >= 0 && level.best[cell] > -Infinity; cell -= 1) {
    const found = readBack(prepared, level, cell);
    if (found.ms <= budgetMs) return { ...found, bound };
  }
  return { ...fastest, bound }; // it can share its cell with a better network that is over the budget
}

/** Return the fastest network of a variant: the option of each slot, milliseconds, score. */
function fastestNetwork({ space, options, shared, choices }) {
  let { ms, score } = shared;
  const found = space.slots.map(({ stage, position }, slot) => {
    if (position >= Math.min(...space.stages[stage].depths)) return null;
    ms += options[slot][0].ms;
    score += options[slot][0].score;
    return choices[stage][options[slot][0].option];
  });
  return { options: found, ms, score };
}

/** Return the network that a cell stands for: the option of each slot, exact milliseconds, score. */
function readBack({ space, options, shared, choices }, { rounded, chosen, depths }, cell) {
  const found = new Array(space.slots.length).fill(null);
  let { ms, score } = shared;
  let rest = cell;
  for (let stage = space.stages.length - 1, end = found.length; stage >= 0; stage -= 1) {
    const first = end - Math.max(...space.stages[stage].depths);
    for (let slot = first + depths[stage][rest] - 1; slot >= first; slot -= 1) {
      const index = chosen[slot][rest];
      const option = options[slot][index];
      found[slot] = choices[stage][option.option];
      ms += option.ms;
      score += option.score;
      rest -= rounded[slot][index];
    }
    end = first;
  }
  return { options: found, ms, score };
}

/** Return the best network of several variants within a budget (ms), with its gap to the optimum (points of top-1).
 *
 * Null if none fits.
 */
function solveBudget(data, tables, budgetMs) {
  let found = null;
  let bound = -Infinity;
  for (const table of tables) {
    const one = solveVariant(table, budgetMs);
    if (one) bound = Math.max(bound, one.bound);
    if (one && (!found || one.score > found.score)) found = { ...one, table };
  }
  if (!found) return null;
  const top1 = linkOf(found.score, data.prior);
  return { spec: memberSpec(found.table.space, found.table.variant, found.options), ms: found.ms, top1,
    variant: found.table.variant,
    gap: Math.max(0, linkOf(bound, data.prior) - top1) };
}

/** Return the latencies (ms) of the fastest network of some tables, and of their best. */
function feasibleRange(tables) {
  const best = tables.map((table) => readBack(table, table.levels[FINER.length - 1], CELLS - 1))
    .reduce((one, other) => (other.score > one.score ? other : one));
  return [Math.min(...tables.map((table) => table.fastest.ms)), best.ms];
}

/** Return the optimal networks of `count` budgets between the fastest and the best, each once. */
function optimalFront(data, tables, count) {
  const [low, high] = feasibleRange(tables);
  const front = [];
  for (let index = 0; index < count; index += 1) {
    const budget = index === count - 1 ? high * (1 + 1e-9) : low * (1 + 1e-9) * (high / low) ** (index / (count - 1));
    const found = solveBudget(data, tables, budget);
    if (found && (!front.length || found.top1 > front[front.length - 1].top1)) front.push(found);
  }
  return front;
}
