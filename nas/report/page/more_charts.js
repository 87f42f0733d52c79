"use strict";
// Predicted against measured, the progress of the search, and NetAdapt's trajectory.

const POPULATION_COLORS = { random: "small", "near-optimal": "large", found: "good" };

/** Return the trace of a population of measured networks; `y` gives what is drawn of each. */
function populationTrace(group, y, more) {
  return {
    type: "scatter", mode: "markers", name: `${plain(group.title)} (${group.name.length})`,
    x: group.measured, y: group.measured.map((_, i) => y(i)), hoverinfo: "text",
    hovertext: group.name.map((name, i) => [
      `<b>${plain(name)}</b>, ${plain(group.title)}`,
      `${fixed(group.measured[i], 2)} ms measured ± ${fixed(100 * group.error[i], 1)} %`,
      `${fixed(group.predicted[i], 2)} ± ${fixed(group.std[i], 2)} ms predicted`,
      `the prediction is ${fixed(100 * (group.predicted[i] / group.measured[i] - 1), 1)} % off`,
      costText({ px: group.px[i], macs: group.macs[i], params: group.params[i] }),
    ].join("<br>")),
    marker: {
      size: 7, opacity: 0.75, color: pageColor(POPULATION_COLORS[group.population] ?? "soft"),
      symbol: { "near-optimal": "triangle-up", found: "star", published: "diamond" }[group.population] ?? "circle",
    },
    ...more,
  };
}

/** Draw predicted against measured milliseconds, below it how far each prediction is off, both with a band of 5 %. */
function drawFidelity() {
  const groups = runData.fidelity;
  if (!groups.length) return undefined;
  return drawChart("fidelity-chart", () => {
    const all = groups.flatMap((group) => [...group.measured, ...group.predicted]);
    const [low, high] = [Math.min(...all) / 1.1, Math.max(...all) * 1.1];
    const axis = logAxis(low, high, document.getElementById("fidelity-chart").clientWidth - 60);
    const color = pageColor("soft");
    const line = { type: "scatter", mode: "lines", x: [low, high], line: { width: 0 }, hoverinfo: "skip", showlegend: false };
    const band = { fill: "tonexty", fillcolor: translucent(color, 0.18) };
    const middle = { line: { width: 1, color } };
    const below = { yaxis: "y2" };
    return {
      traces: [
        { ...line, y: [low * 0.95, high * 0.95] }, { ...line, y: [low * 1.05, high * 1.05], ...band },
        { ...line, y: [low, high], ...middle },
        { ...line, y: [-5, -5], ...below }, { ...line, y: [5, 5], ...band, ...below },
        { ...line, y: [0, 0], ...middle, ...below },
        ...groups.map((group) => populationTrace(group, (i) => group.predicted[i])),
        ...groups.map((group) => populationTrace(
          group, (i) => 100 * (group.predicted[i] / group.measured[i] - 1), { ...below, showlegend: false },
        )),
      ],
      layout: {
        xaxis: { ...axis, anchor: "y2", title: { text: "measured, ms", standoff: 6 } },
        yaxis: { ...axis, domain: [0.42, 1], title: { text: "predicted, ms" } },
        yaxis2: { ...chartLayout().yaxis, domain: [0, 0.34], title: { text: "prediction off, %" } },
        hovermode: "closest", legend: { orientation: "h", y: -0.12, x: 0 },
      },
    };
  });
}

/** Return the steps of the best top-1 so far of a target's trials within its limit. */
function bestSoFar(trials, number) {
  const { count, limit } = trials.targets[number];
  const [x, y] = [[], []];
  let best = -Infinity;
  for (let trial = 0; trial < count; trial += 1) {
    const row = trials.firsts[number] + trial;
    // Rounding to microseconds may lift a network that uses the limit up over it.
    if (trials.ms(row) > limit + 0.0006 || trials.top1(row) <= best) continue;
    best = trials.top1(row);
    x.push(trial + 1);
    y.push(best);
  }
  if (x.length) {
    x.push(count);
    y.push(best);
  }
  return { x, y };
}

/** Return the traces of the best so far of a skeleton's targets, and of their proven optima. */
function progressTraces(trials, axis) {
  const dashes = ["solid", "dashdot", "longdash", "dot"];
  const color = pageColor(trials.skeleton);
  return trials.targets.flatMap((target, number) => {
    const drawn = [{
      type: "scatter", mode: "lines", ...bestSoFar(trials, number), name: plain(target.title), yaxis: axis,
      line: { color, shape: "hv", width: 2, dash: dashes[number % dashes.length] },
      hovertemplate: "%{x} trials: %{y:.2f} % so far<extra></extra>",
    }];
    if (target.optimum !== null && target.count) {
      drawn.push({
        type: "scatter", mode: "lines", x: [1, target.count], y: [target.optimum, target.optimum], yaxis: axis,
        name: `${plain(target.title)}: proven optimum within ${fixed(target.limit, 2)} ms`,
        line: { color, width: 1.2, dash: "dash" }, hovertemplate: "proven optimum: %{y:.2f} %<extra></extra>",
      });
    }
    return drawn;
  });
}

/** Draw the best so far against the number of trials, one panel a skeleton. */
function drawProgress() {
  const panels = trialsOf.filter((trials) => trials.count);
  if (!panels.length) return undefined;
  return drawChart("progress-chart", () => {
    const shared = chartLayout().yaxis;
    const height = 1 / panels.length;
    const axes = panels.map((trials, number) => [`yaxis${number ? number + 1 : ""}`, {
      ...shared, title: { text: `${plain(trials.title)}: top-1, %` },
      domain: [1 - (number + 1) * height + (number + 1 < panels.length ? 0.06 : 0), 1 - number * height],
    }]);
    return {
      traces: panels.flatMap((trials, number) => progressTraces(trials, number ? `y${number + 1}` : "y")),
      layout: {
        xaxis: {
          title: { text: "trials", standoff: 6 }, rangemode: "tozero", anchor: `y${panels.length > 1 ? panels.length : ""}`,
        },
        ...Object.fromEntries(axes), hovermode: "closest", legend: { orientation: "h", y: -0.2, x: 0 },
      },
    };
  });
}

/** Return the axes of panels that stand one above the other, by their names in a layout. */
function stackedAxes(titles) {
  const { xaxis, yaxis } = chartLayout();
  const height = 1 / titles.length;
  return Object.fromEntries(titles.flatMap((title, number) => {
    const [name, last] = [number ? number + 1 : "", number + 1 === titles.length];
    const domain = [1 - (number + 1) * height + (last ? 0 : 0.1), 1 - number * height];
    return [
      [`xaxis${name}`, { ...xaxis, anchor: `y${name}`, ...(last && { title: { text: "predicted milliseconds", standoff: 6 } }) }],
      [`yaxis${name}`, { ...yaxis, anchor: `x${name}`, domain, title: { text: `${plain(title)}: top-1, %` } }],
    ];
  }));
}

/** Draw the trajectories of NetAdapt, one panel a skeleton. */
function drawTrajectories() {
  const paths = runData.trajectories;
  if (!paths.length) return undefined;
  const skeletons = [...new Set(paths.map((path) => path.skeleton))];
  return drawChart("trajectory-chart", () => {
    const symbols = ["circle", "square", "triangle-up", "diamond", "x"];
    return {
      traces: paths.map((path, number) => {
        const panel = skeletons.indexOf(path.skeleton);
        return {
          type: "scatter", mode: "lines+markers", x: path.ms, y: path.top1, name: plain(path.title),
          ...(panel ? { xaxis: `x${panel + 1}`, yaxis: `y${panel + 1}` } : {}),
          line: { color: pageColor(path.skeleton), width: 1.5 },
          marker: { size: 6, symbol: symbols[number % symbols.length] },
          hoverinfo: "text", hovertext: path.ms.map((ms, i) => hoverText({
            name: `${path.title}, step ${i + 1}`, ms, top1: path.top1[i], std: path.std[i], px: path.px[i],
            macs: path.macs[i], params: path.params[i], source: "trimmed by NetAdapt in this search",
          })),
        };
      }),
      layout: {
        ...stackedAxes(skeletons.map((skeleton) => trialsOf.find((trials) => trials.skeleton === skeleton).title)),
        hovermode: "closest", legend: { orientation: "h", y: -0.18, x: 0 },
      },
    };
  });
}
