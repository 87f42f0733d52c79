"use strict";
// The chart of accuracy against latency: fronts, trials, networks, budgets.

const LABEL = 48; // pixels: the names of budgets that are nearer to each other are left out
const NAMED = 4; // more found networks than these are named on hover only
const CELL = 4; // pixels: trials this near to each other are one dot
const frontState = { log: true, budget: null, chosen: null, limits: null, hidden: new Set() };

/** Return the name of a skeleton's line. */
function lineTitle(line) {
  return `${line.title}: ${line.proven ? "proven optima" : "best trials"}`;
}

/** Return what the chart can show or hide: a name, the mark before it, its colour. */
function frontParts() {
  const { lines, networks } = runData.front;
  const has = (kind) => networks.some((network) => network.kind === kind);
  return [
    ...lines.filter((line) => line.points.length).map((line) => ({
      id: `line ${line.skeleton}`, mark: "━", color: line.skeleton, title: lineTitle(line),
    })),
    ...trialsOf.filter((trials) => trials.count).map((trials) => ({
      id: `trials ${trials.skeleton}`, mark: "•", color: trials.skeleton, title: `${trials.title}: trials`,
    })),
    { id: "found", mark: "★", color: "ink", title: "found" },
    ...(has("published") ? [{ id: "published", mark: "◇", color: "ink", title: "published" }] : []),
    ...(has("family") ? [{ id: "family", mark: "◇", color: "soft", title: "Once-for-All" }] : []),
    ...(has("published") || has("family")
      ? [{ id: "estimated", mark: "●", color: "soft", title: "the published, estimated" }] : []),
  ];
}

/** Return the least and the largest of the milliseconds and of the percent that the chart shows. */
function frontLimits() {
  const { lines, networks, budgets } = runData.front;
  const points = [...networks, ...lines.flatMap((line) => line.points)];
  const ms = points.map((point) => point.ms);
  const slowest = Math.max(...ms);
  // A budget far beyond everything would squeeze all else into a corner.
  const right = Math.max(slowest, ...budgets.map((one) => one.ms).filter((one) => one <= 2 * slowest));
  // A published network without an estimate has its published figure only.
  const low = Math.min(...points.map((point) => Math.min(point.top1 ?? point.published, point.published ?? point.top1)));
  const high = Math.max(...points.map((point) => Math.max((point.top1 ?? 0) + (point.std ?? 0), point.published ?? 0)));
  const margin = Math.max(0.06 * (high - low), 0.5);
  return { left: Math.min(...ms) / 1.15, right: right * 1.12, low: low - margin, high: high + margin };
}

/** Return the range of the axis of milliseconds, as plotly wants it. */
function millisecondsRange({ left, right }) {
  return frontState.log ? [Math.log10(left), Math.log10(right)] : [0, right];
}

/** Return a function that gives the place of a network in the chart, in pixels from its lower left corner. */
function placesIn(limits) {
  const box = document.getElementById("front-chart").getBoundingClientRect();
  const [from, to] = millisecondsRange(limits);
  const across = box.width / (to - from);
  const up = box.height / (limits.high - limits.low);
  return (ms, top1) => [((frontState.log ? Math.log10(ms) : ms) - from) * across, (top1 - limits.low) * up];
}

/** Return the places that a mark covers: a trial under it would take the pointer away from it. */
function coveredPlaces(place) {
  const { networks, lines } = runData.front;
  const covered = (points, radius) => points.map((point) => [...place(point.ms, point.top1), radius]);
  const found = networks.filter((network) => network.kind === "found");
  return [...covered(found, 8), ...covered(lines.flatMap((line) => line.points), 4)];
}

/** Return the rows of the trials to draw: of those in one cell of the chart the most accurate. */
function thinned(trials, limits, rows) {
  const place = placesIn(limits);
  const covered = coveredPlaces(place);
  const best = new Map();
  for (const row of rows) {
    const ms = trials.ms(row);
    const top1 = trials.top1(row);
    if (top1 < limits.low || ms < limits.left || ms > limits.right) continue;
    const [x, y] = place(ms, top1);
    const cell = Math.floor(x / CELL) * 100000 + Math.floor(y / CELL);
    const other = best.get(cell);
    if (other === undefined || trials.top1(other) < top1) best.set(cell, row);
  }
  return [...best.values()].filter((row) => {
    const [x, y] = place(trials.ms(row), trials.top1(row));
    return covered.every(([left, bottom, radius]) => Math.hypot(x - left, y - bottom) > radius);
  });
}

/** Return a trace of trials. */
function trialsTrace(trials, rows, more) {
  return {
    type: "scatter", mode: "markers", x: rows.map(trials.ms), y: rows.map(trials.top1),
    hovertext: rows.map((row) => hoverText(trials.point(row))), hoverinfo: "text", ...more,
  };
}

/** Return the traces of the trials: pale clouds, and what is chosen among them. */
function cloudTraces(limits) {
  return trialsOf.flatMap((trials) => {
    const color = pageColor(trials.skeleton);
    const all = thinned(trials, limits, Array.from({ length: trials.count }, (_, row) => row));
    const traces = [trialsTrace(trials, all, {
      name: `${trials.title}: trials`, marker: { size: 5, color, opacity: frontState.chosen ? 0.1 : 0.28 },
    })];
    if (frontState.hidden.has(`trials ${trials.skeleton}`)) traces.length = 0;
    if (frontState.chosen?.skeleton === trials.skeleton) {
      traces.push(trialsTrace(trials, thinned(trials, limits, frontState.chosen.rows), {
        name: `${trials.title}: chosen trials`, marker: { size: 6, color: pageColor("good"), opacity: 0.9 },
      }));
    }
    return traces;
  });
}

/** Return the traces of a skeleton's front: a stepped line and the band of its estimates. */
function lineTraces(line, limits) {
  if (!line.points.length || frontState.hidden.has(`line ${line.skeleton}`)) return [];
  const color = pageColor(line.skeleton);
  const last = line.points.at(-1);
  const ms = [...line.points.map((point) => point.ms), Math.max(limits.right, last.ms)];
  const values = (of) => [...line.points.map(of), of(last)];
  const steps = { type: "scatter", mode: "lines", x: ms, hoverinfo: "skip" };
  const edge = { ...steps, line: { width: 0, shape: "hv", color } };
  const [name, source] = line.proven
    ? ["proven optimum", "an integer program over the table's rows"] : ["best trial", "this search"];
  return [
    { ...edge, y: values((point) => point.top1 - point.std) },
    { ...edge, y: values((point) => point.top1 + point.std), fill: "tonexty", fillcolor: translucent(color, 0.14) },
    { ...steps, y: values((point) => point.top1), name: lineTitle(line), line: { color, width: 2, shape: "hv" } },
    {
      type: "scatter", mode: "markers", x: ms.slice(0, -1), y: values((point) => point.top1).slice(0, -1),
      marker: { color, size: 7 }, hoverinfo: "text",
      hovertext: line.points.map((point) => hoverText({ ...point, name: `${line.title}: ${name}`, source })),
    },
  ];
}

/** Return the traces of the published networks: diamonds as published, dots as estimated. */
function publishedTraces() {
  const traces = [];
  for (const [kind, title, size] of [["family", "Once-for-All", 6], ["published", "published", 9]]) {
    const own = runData.front.networks.filter((network) => network.kind === kind);
    const estimated = own.filter((network) => network.top1 !== null);
    const known = own.filter((network) => network.published !== null);
    const line = { color: pageColor(kind === "family" ? "soft" : "ink"), width: kind === "family" ? 1 : 1.5 };
    if (known.length && !frontState.hidden.has(kind)) {
      traces.push({
        type: "scatter", mode: "markers", x: known.map((n) => n.ms), y: known.map((n) => n.published),
        name: `${title}, as published`, marker: { symbol: "diamond-open", size, line, color: line.color },
        hovertext: known.map(hoverText), hoverinfo: "text",
      });
    }
    if (estimated.length && !frontState.hidden.has("estimated")) {
      traces.push({
        type: "scatter", x: estimated.map((n) => n.ms), y: estimated.map((n) => n.top1),
        name: `${title}, estimated`, marker: { size: kind === "family" ? 5 : 8, color: pageColor("soft") },
        hovertext: estimated.map(hoverText), hoverinfo: "text", mode: "markers",
      });
    }
  }
  return traces;
}

/** Return the traces of the found networks. */
function foundTraces() {
  const found = runData.front.networks.filter((network) => network.kind === "found");
  const colors = found.map((network) => pageColor(network.skeleton));
  const points = {
    type: "scatter", mode: "markers", x: found.map((n) => n.ms), y: found.map((n) => n.top1),
    hovertext: found.map(hoverText), hoverinfo: "text",
  };
  return [
    {
      ...points, name: "found",
      error_y: { type: "data", array: found.map((n) => n.std), color: pageColor("soft"), thickness: 1.5, width: 5 },
      marker: { symbol: "star", size: 17, color: colors, line: { width: 1, color: pageColor("page") } },
    },
    // Of marks at one place plotly takes the smallest for what is pointed at, and of equal ones the last.
    { ...points, marker: { size: 5, opacity: 0 }, showlegend: false },
  ];
}

/** Return the lines of the budgets, the shade over what breaks them, and the line of the question. */
function budgetShapes(limits) {
  const upright = { yref: "paper", y0: 0, y1: 1 };
  const lineAt = (ms, line) => ({ ...upright, type: "line", x0: ms, x1: ms, layer: "below", line });
  const shapes = runData.front.budgets.flatMap((budget) => {
    const color = pageColor(budget.skeleton);
    const shade = { fillcolor: color, opacity: 0.05, line: { width: 0 }, layer: "below" };
    return [
      { ...upright, type: "rect", x0: budget.ms, x1: Math.max(limits.right, budget.ms), ...shade },
      lineAt(budget.ms, { color, width: 1.5, dash: "dash" }),
    ];
  });
  return [lineAt(frontState.budget ?? limits.right, { color: pageColor("ink"), width: 1.5, dash: "dot" }), ...shapes];
}

/** Return the place of milliseconds on the axis, as notes take it. */
function onAxis(ms) {
  return frontState.log ? Math.log10(ms) : ms;
}

/** Return the names of the budgets above the chart. */
function budgetNotes(limits) {
  const several = runData.front.budgets.length > 2;
  const middle = Math.sqrt(limits.left * limits.right);
  const place = placesIn(limits);
  let last = -Infinity;
  const budgets = several ? [...runData.front.budgets].sort((a, b) => a.ms - b.ms) : runData.front.budgets;
  const named = budgets.filter((budget) => {
    const [x] = place(Math.min(budget.ms, limits.right), limits.low);
    if (several && x - last < LABEL) return false;
    last = x;
    return true;
  });
  return named.map((budget, number) => ({
    x: onAxis(Math.min(budget.ms, limits.right)), xanchor: budget.ms > middle ? "right" : "left",
    y: 1, yref: "paper", yanchor: "bottom", yshift: several ? 0 : 16 * (number % 2), showarrow: false,
    text: several ? `${Number(budget.ms.toPrecision(3))} ms` : plain(budget.title),
    font: { color: pageColor(budget.skeleton), size: 12 },
  }));
}

/** Return the names of the found networks and of the published ones of their size, below the front. */
function nameNotes(limits) {
  const place = placesIn(limits);
  const narrow = document.getElementById("front-chart").clientWidth < 560;
  const aside = narrow ? 20 : 48;
  const { width } = document.getElementById("front-chart").getBoundingClientRect();
  const few = runData.front.networks.filter((network) => network.kind === "found").length <= NAMED;
  const shows = { found: few && !frontState.hidden.has("found"), published: !narrow && !frontState.hidden.has("estimated") };
  const named = runData.front.networks.filter((one) => (one.kind === "found" ? shows.found : one.named && shows.published));
  const taken = [];
  return named.map((network) => {
    const [x, y] = place(network.ms, network.top1);
    let down = 34;
    while (taken.some(([left, bottom]) => Math.abs(left - x) < 170 && Math.abs(bottom - (y - down)) < 17)) down += 6;
    taken.push([x, y - down]);
    const color = pageColor(network.skeleton ?? "soft");
    const atEdge = x + aside + 160 > width;
    return {
      x: onAxis(network.ms), y: network.top1, ax: atEdge ? Math.max(10, width - x - 70) : aside, ay: down + (atEdge ? 50 : 0),
      xanchor: atEdge ? "right" : "left", text: plain(network.name),
      font: { color, size: 12 }, arrowcolor: color, arrowwidth: 1, arrowhead: 0, standoff: 6,
    };
  });
}

/** Return what is written into the chart: names of budgets and networks, and the answers to the question. */
function frontNotes(limits) {
  const answers = rankedAnswers(frontState.budget).filter(({ point }) => point).map(({ line, point }, number) => ({
    x: onAxis(point.ms), y: point.top1, ax: number ? 0 : -30, ay: number ? 36 : -34,
    text: `<b>${fixed(point.top1, 1)}</b>`, bgcolor: pageColor("page"), arrowcolor: pageColor(line.skeleton),
    font: { color: pageColor(line.skeleton) },
  }));
  return [...budgetNotes(limits), ...nameNotes(limits), ...answers];
}

/** Draw the chart. */
function drawFront() {
  return drawChart("front-chart", () => {
    const limits = frontLimits();
    frontState.limits = limits;
    const width = document.getElementById("front-chart").clientWidth;
    return {
      traces: [
        ...cloudTraces(limits),
        ...runData.front.lines.flatMap((line) => lineTraces(line, limits)),
        ...publishedTraces(),
        ...(frontState.hidden.has("found") ? [] : foundTraces()),
      ],
      layout: {
        xaxis: {
          ...(frontState.log ? logAxis(limits.left, limits.right, width - 60) : { range: [0, limits.right] }),
          title: { text: "milliseconds", standoff: 6 },
        },
        yaxis: { range: [limits.low, limits.high], title: { text: `${plain(runData.front.images)} top-1, %` } },
        hovermode: "closest", hoverdistance: 12, margin: { l: 48, r: 12, t: 40, b: 48 },
        showlegend: false,
        shapes: budgetShapes(limits), annotations: frontNotes(limits),
      },
    };
  });
}

/** Choose trials of a skeleton by their rows, null for all of them, and mark them in the chart. */
function markInFront(chosen) {
  frontState.chosen = chosen;
  return drawFront();
}

/** Make a box to tick for each part of the chart. */
function startShown() {
  document.getElementById("shown").append(...frontParts().map((part) => {
    const box = element("input", { type: "checkbox", checked: true });
    box.addEventListener("change", () => {
      if (box.checked) frontState.hidden.delete(part.id);
      else frontState.hidden.add(part.id);
      drawFront();
    });
    const look = { class: "mark", style: `color: var(--${part.color})`, "aria-hidden": "true" };
    return element("label", { class: "tick" }, box, element("span", look, part.mark), part.title);
  }));
}
