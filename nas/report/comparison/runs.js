"use strict";
// The fronts of several runs: one chart for each group of runs whose accuracies compare.

const DASHES = ["solid", "dash", "dot", "dashdot", "longdash", "longdashdot"];

/** Return millions as people write them. */
function millions(value) {
  return `${(value / 1e6).toPrecision(3)} M`;
}

/** Return the words of a point of a front. */
function frontText(run, [ms, top1, std, skeleton, id, variant, macs, params]) {
  const what = run.proven ? "proven optimum" : "best trial";
  return [
    `<b>${plain(run.short)}</b>: ${what}, ${skeleton}${variant ? ` ${variant}` : ""}`,
    `${ms.toFixed(2)} ms predicted`,
    `${top1.toFixed(1)} ± ${std.toFixed(1)} % top-1 estimated`,
    `${millions(macs)} MACs, ${millions(params)} parameters`,
    `spec ${id}`,
  ].join("<br>");
}

/** Return the words of a network that was found or published. */
function networkText(run, one) {
  return [
    `<b>${plain(run.short)}</b>: ${plain(one.name)}, ${one.px} px`,
    `${one.ms.toFixed(2)} ms ${one.measured ? "measured" : "predicted"}`,
    `${one.top1.toFixed(1)} ± ${one.std.toFixed(1)} % top-1 estimated`,
    `${millions(one.macs)} MACs, ${millions(one.params)} parameters`,
  ].join("<br>");
}

/** Return a colour of six hexadecimal digits with an opacity. */
function pale(color, opacity) {
  const parts = [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));
  return `rgba(${parts.join(",")},${opacity})`;
}

/** Return the corners of a band around a stepped line, forth above it and back below it. */
function band(front) {
  const above = { x: [], y: [] };
  const below = { x: [], y: [] };
  front.forEach(([ms, top1, std], index) => {
    const end = front[index + 1]?.[0] ?? ms;
    above.x.push(ms, end);
    above.y.push(top1 + std, top1 + std);
    below.x.unshift(end, ms);
    below.y.unshift(top1 - std, top1 - std);
  });
  return { x: [...above.x, ...below.x], y: [...above.y, ...below.y] };
}

/** Return the traces of a run: band, line, found and published networks. */
function runTraces(run) {
  const color = pageColor(`run${run.style}`);
  const group = { legendgroup: run.short };
  const name = [run.short + (run.proven ? "" : " (best trials)"), ...run.device].map(plain).join("<br>");
  const marks = (networks, more) => ({
    ...group, type: "scatter", mode: "markers", showlegend: false, hoverinfo: "text",
    x: networks.map((one) => one.ms), y: networks.map((one) => one.top1),
    text: networks.map((one) => networkText(run, one)), ...more,
  });
  return [
    { ...group, ...band(run.front), type: "scatter", mode: "lines", line: { width: 0 }, fill: "toself",
      fillcolor: pale(color, 0.13), hoverinfo: "skip", showlegend: false },
    { ...group, type: "scatter", mode: "lines", name, hoverinfo: "text",
      line: { shape: "hv", color, width: 2.5, dash: DASHES[run.style] },
      x: run.front.map((one) => one[0]), y: run.front.map((one) => one[1]),
      text: run.front.map((one) => frontText(run, one)) },
    marks(run.published, { marker: { symbol: "diamond-open", size: 9, color: pageColor("soft"), line: { width: 2 } } }),
    marks(run.found, {
      marker: { symbol: "star", size: 15, color, line: { color: pageColor("page"), width: 1 } },
      error_y: { type: "data", array: run.found.map((one) => one.std), color, thickness: 1.5 },
    }),
  ];
}

/** Return the latencies of everything that a chart shows. */
function latencies(runs) {
  return runs.flatMap((run) => [...run.front.map((one) => one[0]), ...run.found.map((one) => one.ms)]);
}

/** Return the lowest accuracy that a chart shows: fronts begin far below the networks that were found. */
function lowest(runs) {
  const known = runs.flatMap((run) => [...run.found, ...run.published]).map((one) => one.top1);
  const least = Math.min(...known);
  const fronts = runs.flatMap((run) => run.front.map((one) => one[1]));
  return Math.max(Math.min(least, ...fronts) - 1, least - Math.max(0.4 * (Math.max(...known) - least), 1) - 1);
}

/** Return the highest accuracy that a chart shows. */
function highest(runs) {
  const networks = runs.flatMap((run) => [...run.found, ...run.published].map((one) => one.top1 + one.std));
  return Math.max(...networks, ...runs.flatMap((run) => run.front.map((one) => one[1] + one[2]))) + 0.5;
}

document.body.dataset.drawn = "no";
Promise.all(
  pageData().groups.map((group, index) =>
    drawChart(`fronts-${index}`, () => ({
      traces: group.runs.flatMap(runTraces),
      layout: {
        height: 520,
        hovermode: "closest",
        xaxis: { ...logAxis(latencies(group.runs)), title: { text: "latency, ms" } },
        yaxis: { title: { text: `${plain(group.images)} top-1, %` }, range: [lowest(group.runs), highest(group.runs)] },
      },
    })),
  ),
).then(() => { document.body.dataset.drawn = "yes"; });
