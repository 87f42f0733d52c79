"use strict";
// What all sections share: the data, numbers and names for readers, the columns of the trials.

document.body.dataset.drawn = "no";
const runData = pageData();

/** Return a text in lines of about 60 characters, for a hover label. */
function wrapped(text) {
  const lines = [""];
  for (const word of String(text).split(/\s+/)) {
    if (lines.at(-1).length + word.length > 60) lines.push("");
    lines[lines.length - 1] += (lines.at(-1) && " ") + word;
  }
  return lines.map(plain).join("<br>");
}

/** Return a number with that many digits behind the point, "–" for an unknown one. */
function fixed(value, digits) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

/** Return an estimate with its deviation: "76.3 ± 0.5*", with a star if it is extrapolated. */
function estimateText(point) {
  return `${fixed(point.top1, 1)} ± ${fixed(point.std, 1)}${point.extrapolated ? "*" : ""}`;
}

/** Return milliseconds with their deviation, where that is known: "5.80 ± 0.09". */
function timeText({ ms, msStd }) {
  const std = msStd === null || msStd === undefined ? "" : ` ± ${fixed(msStd, msStd < 0.01 ? 3 : 2)}`;
  return fixed(ms, 2) + std;
}

/** Return pixels, MACs and parameters of a network. */
function costText(point) {
  return `${point.px} px · ${fixed(point.macs / 1e6, 0)} M MACs · ${fixed(point.params / 1e6, 2)} M parameters`;
}

/** Return the hover label of a network, from whatever is known of it. */
function hoverText(point) {
  const lines = [
    `<b>${plain(point.name)}</b>`,
    ...(point.also ?? []).map((name) => `also ${plain(name)}`),
    `${timeText(point)} ms ${point.measured ? "measured" : "predicted"}`,
    point.top1 === null ? "no estimate of its top-1"
      : `${estimateText(point)} % top-1 ${point.extrapolated ? "extrapolated" : "estimated"}`,
  ];
  if (point.published !== null && point.published !== undefined) lines.push(`${fixed(point.published, 1)} % published`);
  lines.push(plain(costText(point)));
  if (point.variant) lines.push(plain(point.variant));
  if (point.recipe !== false) lines.push(`recipe level: ${wrapped(runData.front.recipe)}`);
  if (point.source) lines.push(`source: ${wrapped(point.source)}`);
  return lines.join("<br>");
}

/** Return the red, green and blue of a colour that is written as #rrggbb. */
function channels(color) {
  return [1, 3, 5].map((start) => parseInt(color.slice(start, start + 2), 16));
}

/** Return a colour, written as #rrggbb, that lets things behind it through. */
function translucent(color, opacity) {
  return `rgba(${channels(color).join(", ")}, ${opacity})`;
}

/** Return an axis of milliseconds on a logarithmic scale, with as many ticks as have room. */
function logAxis(low, high, room) {
  const wanted = [[1, 1.5, 2, 3, 4, 5, 7], [1, 2, 3, 5, 7], [1, 2, 5], [1]];
  const decades = Array.from({ length: 9 }, (_, index) => 10 ** (index - 4));
  const ticks = wanted
    .map((steps) => decades.flatMap((decade) => steps.map((step) => Number((step * decade).toPrecision(2)))))
    .map((values) => values.filter((value) => value >= low && value <= high));
  const tickvals = ticks.find((values) => values.length * 34 <= room) ?? ticks.at(-1);
  return { type: "log", range: [Math.log10(low), Math.log10(high)], tickvals, ticktext: tickvals.map(String) };
}

/** Return a function that gives the value of a packed column in a row. */
function column(packed) {
  if (Array.isArray(packed)) return (row) => packed[row];
  return (row) => packed.values[packed.codes.charCodeAt(row) - 40];
}

/** Return the trials of a skeleton with functions in place of packed columns. */
function readTrials(packed) {
  const stage = column(packed.stage);
  const columns = { std: column(packed.std), px: column(packed.px), out: column(packed.out) };
  const properties = Object.fromEntries(
    Object.entries(packed.properties).map(([name, stages]) => [name, stages.map(column)]),
  );
  const firsts = [];
  packed.targets.reduce((first, target) => (firsts.push(first), first + target.count), 0);
  return {
    skeleton: packed.skeleton, title: packed.title, count: packed.count, targets: packed.targets, firsts, properties,
    ms: (row) => packed.ms[row] / 1000,
    top1: (row) => packed.top1[row] / 100,
    ...columns,
    /** Return a trial as hoverText takes it, with its number in trials.csv. */
    point: (row) => {
      const target = firsts.findLastIndex((first) => first <= row);
      return {
        name: `trial ${row - firsts[target]} of ${packed.targets[target].title}`, ms: packed.ms[row] / 1000,
        top1: packed.top1[row] / 100, std: columns.std(row), px: columns.px(row), macs: packed.macs[row] * 1e5,
        params: packed.params[row] * 1e4, source: `this search, ${stage(row)}`,
      };
    },
  };
}

const trialsOf = runData.trials.map(readTrials);
