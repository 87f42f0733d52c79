"use strict";
// The question for a budget: which network is best within it, and how it is searched.

const SAME_BUDGET = 0.005; // relative: budgets are shown rounded

/** Return the most accurate point of each skeleton that is within the limit of a budget, the best skeleton first. */
function rankedAnswers(budget) {
  const limit = budget * runData.front.limitShare;
  const answers = runData.front.lines.map((line) => {
    const within = line.points.filter((point) => point.ms <= limit);
    return { line, point: within.reduce((best, point) => (best && best.top1 >= point.top1 ? best : point), null) };
  });
  return answers.sort((a, b) => (b.point?.top1 ?? -1) - (a.point?.top1 ?? -1));
}

/** Say why a skeleton has no answer. */
function noAnswer(line) {
  if (!line.points.length) return "this run holds no networks to answer from.";
  const fastest = Math.min(...line.points.map((one) => one.ms)) / runData.front.limitShare;
  const among = line.among ? ` of width@pixels ${line.among}, whose rows are known,` : "";
  return `nothing${among} is that fast; there the least budget is ${fixed(fastest, 2)} ms. Search narrower ones:`;
}

/** Return what follows the accuracy of an answer. */
function answerText(line, point) {
  const kind = line.proven ? "a proven optimum, the nearest of some forty" : "the best trial";
  const cost = `${fixed(point.macs / 1e6, 0)} M MACs, ${fixed(point.params / 1e6, 2)} M parameters`;
  const among = line.among
    ? `This run knows rows of width@pixels ${line.among} only. A search measures those that suit the budget, and the `
      + "network, and writes it:"
    : "Search, measure and write it:";
  return ` % top-1 estimated, at ${timeText(point)} ms predicted: ${kind}, ${point.variant}, ${cost}. ${among}`;
}

/** Return a paragraph about the published network that is estimated best within a budget; none where there is none. */
function publishedAnswer(budget) {
  const within = runData.front.networks.filter(({ kind, ms, top1 }) =>
    kind !== "found" && top1 !== null && ms <= budget);
  if (!within.length) return [];
  const best = within.reduce((one, other) => (other.top1 > one.top1 ? other : one));
  const dot = element("span", { class: "dot", style: "background: var(--soft)" });
  return [element("p", {}, dot, `Published: ${best.name}, `, element("strong", {}, estimateText(best)),
    ` % by the same estimate, at ${timeText(best)} ms ${best.measured ? "measured" : "predicted"}.`)];
}

/** Say which network is best for a budget, side by side where there is room, the better one first. */
function showAnswers(budget) {
  document.getElementById("answer").replaceChildren(...rankedAnswers(budget).map(({ line, point }) => {
    const dot = element("span", { class: "dot", style: `background: var(--${line.skeleton})` });
    const command = element("pre", {}, `${line.command[0]}${Number(budget.toPrecision(4))}${line.command[1]}`);
    if (!point) return element("div", {}, element("p", {}, dot, `${line.title}: ${noAnswer(line)}`), command);
    const searched = runData.front.budgets.find((one) => (
      one.skeleton === line.skeleton && Math.abs(one.ms / budget - 1) < SAME_BUDGET
    ));
    return element(
      "div",
      {},
      element("p", {}, dot, `${line.title}: `, element("strong", {}, estimateText(point)), answerText(line, point)),
      command,
      ...(searched ? [element("p", {}, searched.found), element("pre", {}, searched.train)] : []),
    );
  }), ...publishedAnswer(budget));
}

/** Answer for another budget, and move its line. */
function ask(budget) {
  if (!(budget > 0 && Number.isFinite(budget))) return;
  frontState.budget = budget;
  showAnswers(budget);
  if (frontState.limits) {
    const { limits } = frontState;
    Plotly.relayout("front-chart", { shapes: budgetShapes(limits), annotations: frontNotes(limits) });
  }
}

/** Let the controls answer. The slider runs over the logarithm of the milliseconds. */
function startQuestion() {
  const number = document.getElementById("budget");
  const slider = document.getElementById("budget-slider");
  const { left, right } = frontLimits();
  const toSlider = (ms) => (1000 * Math.log(ms / left)) / Math.log(right / left);
  const toMs = (place) => Number((left * (right / left) ** (place / 1000)).toPrecision(3));
  const say = (ms) => slider.setAttribute("aria-valuetext", `${ms} milliseconds`);
  const start = number.valueAsNumber;
  slider.value = toSlider(start);
  say(start);
  number.addEventListener("input", () => {
    const ms = number.valueAsNumber;
    if (!(ms > 0)) return;
    slider.value = toSlider(ms);
    say(ms);
    ask(ms);
  });
  slider.addEventListener("input", () => {
    const ms = toMs(slider.valueAsNumber);
    number.value = ms;
    say(ms);
    ask(ms);
  });
  document.getElementById("question").addEventListener("submit", (event) => event.preventDefault());
  document.getElementById("log").addEventListener("change", (event) => {
    frontState.log = event.target.checked;
    drawFront();
  });
  frontState.budget = start;
  showAnswers(start);
}
