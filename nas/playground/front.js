"use strict";
// The chart of latency and accuracy: optimal fronts, published networks, the beginning and the network of now.

const FRONT_BUDGETS = 160;
const NARROW = "(max-width: 37.5rem)"; // where the legend needs a row for each of its entries
const LIVE = ["budget", "start", "now"]; // traces that follow every change

/** Return a text as plotly shows it: as text, not as markup. */
function chartText(text) {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
}

/** Return the colour of a skeleton. */
function spaceColor(index) {
  return pageColor(["large", "small", "good", "bad"][index % 4]);
}

/** Return what a point of the chart says on hover. */
function pointText(name, network, more = []) {
  const { time, estimate: guess, cost, spec } = network;
  return [`<b>${chartText(name)}</b>`, `${spec.resolution} px, ${formatCount(cost.macs)} MACs, `
    + `${formatCount(cost.params)} parameters`, `${formatMs(time.ms)} predicted, `
    + (guess.top1 === null ? "no estimate" : `${formatTop1(guess)} estimated`),
  ...more.map(chartText)].join("<br>");
}

/** Return the ticks of the axis of latency: fewer where there is little room. */
function latencyTicks(narrow) {
  return [0.01, 0.1, 1, 10, 100, 1000].flatMap((power) =>
    (narrow ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7]).map((digit) => Number((digit * power).toPrecision(2))));
}

/** Return the traces and the layout of the chart. */
function frontChart(app) {
  const traces = [];
  app.fronts.forEach((front, index) => traces.push(...frontTraces(app, front, index)));
  const published = app.listed.filter((one) => !one.yours);
  traces.push(pointsTrace("published", published.filter((one) => one.network.estimate.top1 !== null), "soft", "circle"));
  const unjudged = published.filter((one) => one.network.estimate.top1 === null && one.ms !== null);
  if (unjudged.length) traces.push(pointsTrace("published, without an estimate", unjudged, "ink", "diamond-open"));
  const own = app.listed.filter((one) => one.yours);
  if (own.length) traces.push(pointsTrace("your networks", own, "good", "diamond"));
  const ranges = chartRanges(app);
  app.ranges = ranges;
  traces.push(...LIVE.map((name) => liveTrace(app, name)));
  const narrow = matchMedia(NARROW).matches;
  const ticks = latencyTicks(narrow);
  return { traces, layout: {
    margin: { l: 56, r: 16, t: 16, b: narrow ? 190 : 90 },
    legend: { orientation: "h", x: 0, y: 0, yref: "container", yanchor: "bottom" },
    hovermode: "closest",
    xaxis: { type: "log", title: { text: "predicted latency, ms" }, range: ranges.x.map(Math.log10),
      tickvals: ticks, ticktext: ticks.map(String) },
    yaxis: { title: { text: "estimated top-1, %" }, range: ranges.y },
  } };
}

/** Return line and band of a skeleton's optimal front; the band is of the skeleton in use only. */
function frontTraces(app, front, index) {
  if (!front) return [];
  const color = spaceColor(index);
  const x = front.map((one) => one.ms);
  const traces = [];
  if (index === app.state.space) {
    traces.push({ x: [...x, ...[...x].reverse()], type: "scatter", mode: "lines", fill: "toself", hoverinfo: "skip",
      y: [...front.map((one) => one.top1 + one.std), ...front.map((one) => one.top1 - one.std).reverse()],
      line: { width: 0 }, fillcolor: color, opacity: 0.15, showlegend: true, name: "± one standard deviation" });
  }
  traces.push({ x, y: front.map((one) => one.top1), type: "scatter", mode: "lines",
    name: `best of ${app.data.spaces[index].name}`, line: { color, width: index === app.state.space ? 3 : 1.5 },
    hovertemplate: "%{x:.3g} ms: %{y:.2f} %<extra></extra>" });
  return traces;
}

/** Return the top-1 (percent) at which a listed network stands: estimated, or as published; null without both. */
function shownTop1({ network, published }) {
  return network.estimate.top1 ?? published[0]?.[0] ?? null;
}

/** Return the trace of networks that have milliseconds. */
function pointsTrace(name, listed, color, symbol) {
  const shown = listed.filter((one) => one.ms !== null && shownTop1(one) !== null);
  return { type: "scatter", mode: "markers", name, x: shown.map((one) => one.ms),
    y: shown.map(shownTop1), text: shown.map((one) => one.hover),
    customdata: shown.map((one) => one.index), hovertemplate: "%{text}<extra></extra>",
    marker: { color: pageColor(color), symbol, size: 7, opacity: 0.75 } };
}

/** Return the trace of the budget's line, of the beginning or of the network of now. */
function liveTrace(app, name) {
  const { x, y, text } = livePoints(app, name);
  const shared = { type: "scatter", x, y, text, hovertemplate: "%{text}<extra></extra>", name:
    { budget: "budget", start: "begun from", now: "this network" }[name] };
  if (name === "budget") {
    return { ...shared, mode: "lines", hoverinfo: "skip", hovertemplate: null,
      line: { color: pageColor("soft"), width: 1.5, dash: "dot" } };
  }
  const line = { color: pageColor("ink"), width: name === "now" ? 1 : 2 };
  const marker = name === "now" ? { symbol: "star", size: 16, color: pageColor("accent"), line }
    : { symbol: "circle-open", size: 13, color: pageColor("ink"), line };
  return { ...shared, mode: "markers", marker };
}

/** Return the points of a trace that follows every change. */
function livePoints(app, name) {
  if (name === "budget") {
    const { budget } = app.state;
    return { x: budget ? [budget, budget] : [], y: budget ? app.ranges.y : [], text: [] };
  }
  const network = name === "now" ? app.now : app.start;
  const title = name === "now" ? app.nowName : app.state.start.name;
  const listed = network.estimate.top1 === null
    && app.listed.find((one) => specText(one.spec) === specText(network.spec));
  const top1 = listed ? shownTop1(listed) : network.estimate.top1;
  if (network.time.ms === null || top1 === null) return { x: [], y: [], text: [] };
  return { x: [network.time.ms], y: [top1], text: [pointText(title, network)] };
}

/** Return the ranges of both axes that hold all that is drawn. */
function chartRanges(app) {
  const listed = app.listed.filter((one) => one.ms !== null && shownTop1(one) !== null);
  const fronts = app.fronts.flatMap((front) => front ?? []);
  const points = listed.map((one) => [one.ms, shownTop1(one)]);
  points.push(...fronts.map((one) => [one.ms, one.top1]));
  for (const network of [app.now, app.start]) {
    const { time, estimate: guess } = network;
    if (time.ms !== null && guess.top1 !== null) points.push([time.ms, guess.top1]);
  }
  const x = points.map((point) => point[0]).filter((value) => value > 0);
  const y = points.map((point) => point[1]);
  if (!x.length) return { x: [1, 10], y: [50, 80] };
  return { x: [Math.min(...x) * 0.9, Math.max(...x) * 1.12], y: [Math.min(...y) - 1, Math.max(...y) + 2] };
}

/** Move the points that follow every change, at most once a frame. */
function moveFront(app) {
  if (app.moving || !app.drawn) return;
  app.moving = true;
  requestAnimationFrame(() => {
    app.moving = false;
    const total = document.getElementById("front").data.length;
    const points = LIVE.map((name) => livePoints(app, name));
    const pick = (field) => points.map((one) => one[field]);
    Plotly.restyle("front", { x: pick("x"), y: pick("y"), text: pick("text") },
      LIVE.map((_, index) => total - LIVE.length + index));
  });
}

/** Return all optimal fronts as CSV. */
function frontCsv(app) {
  const columns = ["skeleton", "width", "resolution", "predicted_ms", "top1_estimated", "std", "macs", "params",
    "memory_bytes", "blocks", "network"];
  const rows = app.fronts.flatMap((front, index) => (front ?? []).map((one) => {
    const { width_index: width, resolution } = one.variant;
    const space = app.data.spaces[index];
    return [space.name, space.widths[width].label, resolution, one.ms.toFixed(6), one.top1.toFixed(4),
      one.std.toFixed(4), one.cost.macs, one.cost.params, one.cost.memory, one.spec.blocks.length, specText(one.spec)];
  }));
  const quoted = (value) => (/[",\n]/.test(value) ? `"${String(value).replaceAll('"', '""')}"` : String(value));
  return [columns, ...rows].map((row) => `${row.map(quoted).join(",")}\n`).join("");
}
