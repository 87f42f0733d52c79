"use strict";
// Two latency tables: the networks on both devices, and the kinds of blocks.

const tablesData = pageData();
const SOURCES = {
  published: { words: "published", symbol: "diamond", color: "ink" },
  measured: { words: "measured on both", symbol: "square", color: "run2" },
  member: { words: "random, of the search spaces", symbol: "circle", color: "run0" },
};

/** Return a share as a difference in percent with its sign: "+12.3 %". */
function difference(relative) {
  const percent = 100 * (relative - 1);
  return `${percent < 0 ? "−" : "+"}${Math.abs(percent).toFixed(1)} %`;
}

/** Return the words of a network. */
function networkText([name, px, , measured, ms1, ms2, , , rank1, rank2, relative]) {
  const known = measured ? "measured" : "predicted";
  return [
    `<b>${plain(name)}</b>, ${px} px`,
    ...[[ms1, rank1], [ms2, rank2]].map(
      ([ms, rank], place) => `${plain(tablesData.devices[place])}: ${ms.toFixed(2)} ms ${known}, rank ${rank}`,
    ),
    `${difference(relative)} on the second`,
  ].join("<br>");
}

/** Return the times of the networks on both devices, as shares of the reference network's. */
function networkShares() {
  return tablesData.networks.flatMap((one) => [one[6], one[7]]);
}

/** Return the traces of the networks: one for each source, measured or predicted. */
function networkTraces() {
  const shares = networkShares();
  const ends = [Math.min(...shares) / 1.2, Math.max(...shares) * 1.2];
  const traces = [{ type: "scatter", mode: "lines", x: ends, y: ends, hoverinfo: "skip", showlegend: false,
    line: { color: pageColor("soft"), width: 1 } }];
  for (const source of ["member", "measured", "published"]) {
    for (const measured of [false, true]) {
      const chosen = tablesData.networks.filter((one) => one[2] === source && one[3] === measured);
      if (!chosen.length) continue;
      const { words, symbol, color } = SOURCES[source];
      traces.push({
        type: "scatter", mode: "markers", hoverinfo: "text", text: chosen.map(networkText),
        name: source === "measured" ? words : `${words}, ${measured ? "measured" : "predicted"}`,
        x: chosen.map((one) => one[6]), y: chosen.map((one) => one[7]),
        marker: { symbol: measured ? symbol : `${symbol}-open`, size: 8, color: pageColor(color) },
      });
    }
  }
  return traces;
}

/** Return the traces of the kinds of blocks: medians with their quartiles. */
function kindTraces() {
  const kinds = tablesData.kinds;
  const percents = (place) => kinds.map((kind) => 100 * (kind[place] - 1));
  const [low, median, high] = [3, 4, 5].map(percents);
  return [{
    type: "scatter", mode: "markers", hoverinfo: "text", showlegend: false,
    x: median, y: kinds.map(kindName),
    text: kinds.map((kind) => `${plain(kindName(kind))}: ${kind[2]} blocks<br>${difference(kind[4])}, quartiles `
      + `${difference(kind[3])} to ${difference(kind[5])}`),
    marker: { size: 10, color: pageColor("accent") },
    error_x: { type: "data", symmetric: false, color: pageColor("soft"), thickness: 2, width: 0,
      array: high.map((value, index) => value - median[index]),
      arrayminus: low.map((value, index) => median[index] - value) },
  }];
}

/** Return the name of a kind where its decision does not stand beside it. */
function kindName([decision, name]) {
  if (decision === "kernel") return `kernel ${name}`;
  return decision === "map" ? `map of ${name}` : name;
}

document.body.dataset.drawn = "no";
const [here, there] = tablesData.devices.map(plain);
Promise.all([
  drawChart("networks", () => ({
    traces: networkTraces(),
    layout: {
      height: 560, hovermode: "closest",
      xaxis: { ...logAxis(networkShares()), title: { text: `${here}<br>(reference network: 1)` } },
      yaxis: { ...logAxis(networkShares()), title: { text: `${there}<br>(reference network: 1)` } },
    },
  })),
  drawChart("kinds", () => ({
    traces: kindTraces(),
    layout: {
      height: 80 + 26 * tablesData.kinds.length, hovermode: "closest",
      xaxis: { title: { text: `% longer than expected on<br>${there}` }, zeroline: true, zerolinecolor: pageColor("soft") },
      yaxis: { autorange: "reversed", automargin: true },
    },
  })),
]).then(() => { document.body.dataset.drawn = "yes"; });
