"use strict";
// Predicted against measured, the progress of the search, and NetAdapt's trajectory.

const POPULATION_COLORS = { random: "small", "near-optimal": "large", found: "good" };

/** Draw measured against predicted milliseconds, with a band of 5 %. */
function drawFidelity() {
  const groups = runData.fidelity;
  if (!groups.length) return undefined;
  return drawChart("fidelity-chart", () => {
    const all = groups.flatMap((group) => [...group.measured, ...group.predicted]);
    const [low, high] = [Math.min(...all) / 1.1, Math.max(...all) * 1.1];
    const room = document.getElementById("fidelity-chart").clientWidth - 60;
    const band = { type: "scatter", mode: "lines", hoverinfo: "skip", showlegend: false, line: { width: 0 }, x: [low, high] };
    const color = pageColor("soft");
    return {
      traces: [
        { ...band, y: [low * 0.95, high * 0.95] },
        { ...band, y: [low * 1.05, high * 1.05], fill: "tonexty", fillcolor: translucent(color, 0.18) },
        { ...band, y: [low, high], line: { width: 1, color } },
        ...groups.map((group) => ({
          type: "scatter", mode: "markers", name: `${plain(group.title)} (${group.name.length})`,
          x: group.measured, y: group.predicted, hoverinfo: "text", hovertext: group.name.map((name, i) => [
            `<b>${plain(name)}</b>, ${plain(group.title)}`,
            `${fixed(group.measured[i], 2)} ms measured ± ${fixed(100 * group.error[i], 1)} %`,
            `${fixed(group.predicted[i], 2)} ± ${fixed(group.std[i], 2)} ms predicted`,
            `prediction off by ${fixed(100 * (group.predicted[i] / group.measured[i] - 1), 1)} %`,
            costText({ px: group.px[i], macs: group.macs[i], params: group.params[i] }),
          ].join("<br>")),
          marker: {
            size: 7, opacity: 0.75, color: pageColor(POPULATION_COLORS[group.population] ?? "soft"),
            symbol: { "near-optimal": "triangle-up", found: "star", published: "diamond" }[group.population] ?? "circle",
          },
        })),
      ],
      layout: {
        xaxis: { ...logAxis(low, high, room), title: { text: "measured, ms", standoff: 6 } },
        yaxis: { ...logAxis(low, high, room), title: { text: "predicted, ms" } },
        hovermode: "closest", legend: { orientation: "h", y: -0.14, x: 0 },
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

/** Draw the best so far against the number of trials, and the proven optimum. */
function drawProgress() {
  if (!trialsOf.some((trials) => trials.count)) return undefined;
  return drawChart("progress-chart", () => {
    const dashes = ["solid", "dash", "dot", "dashdot", "longdash"];
    const traces = trialsOf.flatMap((trials) => trials.targets.flatMap((target, number) => {
      const color = pageColor(trials.skeleton);
      const drawn = [{
        type: "scatter", mode: "lines", ...bestSoFar(trials, number), name: plain(target.title),
        line: { color, shape: "hv", width: 2, dash: dashes[number % dashes.length] },
        hovertemplate: "trial %{x}: %{y:.2f} % so far<extra></extra>",
      }];
      if (target.optimum !== null && target.count) {
        drawn.push({
          type: "scatter", mode: "lines", x: [1, target.count], y: [target.optimum, target.optimum],
          name: `${plain(target.title)}: proven optimum within ${fixed(target.limit, 2)} ms`,
          line: { color, width: 1.2, dash: "dash" }, hovertemplate: "proven optimum: %{y:.2f} %<extra></extra>",
        });
      }
      return drawn;
    }));
    return {
      traces,
      layout: { xaxis: { title: { text: "trials" }, rangemode: "tozero" }, yaxis: { title: { text: "best top-1 so far, %" } }, hovermode: "closest" },
    };
  });
}

/** Draw the trajectories of NetAdapt. */
function drawTrajectories() {
  const paths = runData.trajectories;
  if (!paths.length) return undefined;
  return drawChart("trajectory-chart", () => {
    const symbols = ["circle", "square", "triangle-up", "diamond", "x"];
    return {
      traces: paths.map((path, number) => ({
        type: "scatter", mode: "lines+markers", x: path.ms, y: path.top1, name: plain(path.title),
        line: { color: pageColor(path.skeleton), width: 1.5 }, marker: { size: 6, symbol: symbols[number % symbols.length] },
        hoverinfo: "text", hovertext: path.ms.map((ms, i) => hoverText({
          name: `${path.title}, step ${i + 1}`, ms, top1: path.top1[i], std: path.std[i], px: path.px[i],
          macs: path.macs[i], params: path.params[i], source: "trimmed by NetAdapt in this search",
        })),
      })),
      layout: {
        xaxis: { title: { text: "predicted milliseconds" } }, yaxis: { title: { text: "estimated top-1, %" } },
        hovermode: "closest",
      },
    };
  });
}
