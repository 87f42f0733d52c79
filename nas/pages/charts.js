"use strict";
// Charts by plotly, in the colours of the page, light and dark.

const drawnCharts = new Map(); // id -> a function that draws the chart again

/** Return a text as plotly shows it unchanged: plotly takes `<` and `&` for markup. */
function plain(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

/** Return a logarithmic axis with ticks at 1, 2, 5, 10, …, and at more of them where the values are close together. */
function logAxis(values) {
  const digits = Math.max(...values) / Math.min(...values) > 12 ? [1, 2, 5] : [1, 1.5, 2, 3, 4, 5, 7];
  const exponents = Array.from({ length: 13 }, (_, index) => index - 6);
  const tickvals = exponents.flatMap((exponent) => digits.map((digit) => Number(`${digit}e${exponent}`)));
  return { type: "log", tickmode: "array", tickvals, ticktext: tickvals.map(String) };
}

/** Return the layout that all charts share, in the colours of now. */
function chartLayout(more = {}) {
  const axis = {
    gridcolor: pageColor("line"), zerolinecolor: pageColor("line"), linecolor: pageColor("soft"),
    tickcolor: pageColor("soft"), automargin: true,
  };
  return {
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: "system-ui, sans-serif", size: 13, color: pageColor("ink") },
    margin: { l: 56, r: 16, t: 16, b: 48 },
    hoverlabel: { align: "left", bgcolor: pageColor("card"), bordercolor: pageColor("soft"),
      font: { family: "system-ui, sans-serif", color: pageColor("ink") } },
    legend: { orientation: "h", y: -0.22, x: 0 },
    ...more,
    xaxis: { ...axis, ...more.xaxis },
    yaxis: { ...axis, ...more.yaxis },
  };
}

/** Draw a chart into the element with that id. `make` returns {traces, layout}; it is called again when colours change. */
function drawChart(id, make) {
  const draw = () => {
    const { traces, layout } = make();
    const config = { responsive: true, displaylogo: false, displayModeBar: false };
    return Plotly.react(id, traces, chartLayout(layout), config);
  };
  drawnCharts.set(id, draw);
  return draw();
}

matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => drawnCharts.forEach((draw) => draw()));
