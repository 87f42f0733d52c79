"use strict";
// The page: controls, what they change, and what follows every change.

const SLIDER_STEPS = 1000;
const FIRST_BLOCK = 2; // whose choices are compared when the page opens: the first that can be changed
const HISTORY_MS = 400; // a slider moves faster than browsers let an address change
const SLIDE_MS = 1500; // moves of a slider that follow each other sooner are one step back
const BETTER = 0.05; // points, by which another skeleton must be better to be named

/** Start the page. */
async function startPlayground() {
  document.body.dataset.drawn = "no";
  const data = pageData();
  const app = { data, tables: data.spaces.map(() => null), fronts: data.spaces.map(() => null), drawn: false };
  app.change = (spec, how) => changeNetwork(app, spec, how);
  app.select = (number) => selectBlock(app, number);
  app.listed = data.networks.map((network, index) => listedNetwork(data, network, index));
  fillLists(app);
  app.state = firstState(app);
  restore(app, location.hash);
  addListeners(app);
  render(app);
  drawFront(app); // without the best networks, which take a moment
  await prepareSpace(app, app.state.space);
  drawFront(app);
  for (const index of data.spaces.keys()) await prepareSpace(app, index);
  drawFront(app);
  document.body.dataset.drawn = "yes";
}

/** Return a listed network with its numbers: predicted milliseconds, or measured ones where rows are missing. */
function listedNetwork(data, { name, text, published, yours, measured_ms: measured }, index) {
  const spec = parseSpecText(text, name);
  const network = evaluateNetwork(data, spec);
  const exact = network.time.near || network.time.ms === null ? null : network.time.ms;
  const twice = data.networks.some((other, i) => i !== index && other.name === name);
  const known = published.map(([top1, recipe]) => `published: ${top1} % (${recipe})`);
  const ms = exact ?? measured;
  if (exact === null && measured !== null) known.push(`measured: ${formatMs(measured)}`);
  return { name, spec, yours, index, network, measured, ms, published, hover: pointText(name, network, known),
    label: twice ? `${name}, ${spec.resolution} px` : name };
}

/** Put the networks and the skeletons into their lists. */
function fillLists(app) {
  const groups = new Map([["Your networks", []], ["Published, all can be changed", []], ["Published, only shown", []]]);
  app.listed.forEach((one) => {
    const group = one.yours ? 0 : one.network.place ? 1 : 2;
    [...groups.values()][group].push(element("option", { value: one.index }, one.label));
  });
  const start = document.getElementById("start");
  for (const [label, options] of groups) {
    if (options.length) start.append(element("optgroup", { label }, ...options));
  }
  start.append(element("option", { value: "", hidden: true }, ""));
  document.getElementById("skeleton").append(...app.data.spaces.map((space, index) =>
    element("option", { value: index }, space.name)));
}

/** Return the state of a page that was opened anew: the first of the user's networks, or the skeleton's own. */
function firstState(app) {
  const own = app.listed.find((one) => one.yours && one.network.place);
  const skeleton = app.listed.find((one) => one.name === app.data.spaces[0].name && one.network.place);
  const first = own ?? skeleton ?? app.listed.find((one) => one.network.place) ?? app.listed[0];
  return { start: { name: first.label, spec: first.spec }, spec: first.spec, space: first.network.place?.space ?? 0,
    budget: null, block: FIRST_BLOCK, hswish: 80 };
}

/** Take the state from the address, if it names one. */
function restore(app, fragment) {
  if (fragment.length < 2) return;
  try {
    const found = fragmentState(app.data, fragment);
    app.state = { ...app.state, ...found, hswish: found.hswish ?? app.state.hswish };
    say("");
  } catch (error) {
    say(`The address of this page cannot be read (${error.message}); it shows what it begins with.`);
  }
}

/** Make the tables of a skeleton and its optimal front, a variant at a time, so that the page stays alive. */
async function prepareSpace(app, index) {
  if (app.tables[index]) return;
  const space = app.data.spaces[index];
  const tables = [];
  for (const variant of space.variants) {
    tables.push(prepareVariant(app.data, space, variant));
    await new Promise((resolve) => { setTimeout(resolve, 0); });
  }
  if (app.tables[index]) return;
  app.tables[index] = tables;
  app.fronts[index] = optimalFront(app.data, tables, FRONT_BUDGETS).map((one) => {
    const guess = estimate(one.spec, app.data.prior);
    return { ...one, top1: guess.top1, std: guess.std, cost: totalCost(networkParts(one.spec, app.data.classes)) };
  });
  render(app);
}

// Changes ---------------------------------------------------------------------------------------------

/** Take another network; `how` is what happens to the page's history, as `remember` says. */
function changeNetwork(app, spec, how = "push") {
  app.state.spec = spec;
  render(app);
  remember(app, how);
}

/** Begin from another network. */
function beginFrom(app, name, spec) {
  const place = placeInSpace(app.data, spec, app.state.space);
  Object.assign(app.state, { start: { name, spec }, spec, space: place?.space ?? app.state.space });
  say("");
  afterSpace(app);
  changeNetwork(app, spec);
}

/** Select a block, whose choices are compared; null for none. */
function selectBlock(app, number) {
  if (app.state.block === number) return;
  app.state.block = number;
  render(app);
  remember(app, "replace");
}

/** Draw the front of a skeleton that was changed to. */
async function afterSpace(app) {
  await prepareSpace(app, app.state.space);
  drawFront(app);
}

/** Change to another skeleton: its best network for the budget, or for the milliseconds of now. */
async function changeSkeleton(app, index) {
  const { ms } = app.now.time;
  app.state.space = index;
  await afterSpace(app);
  const [low, high] = feasibleRange(app.tables[index]);
  app.state.budget = Math.min(high, Math.max(low * 1.0001, app.state.budget ?? ms ?? low));
  solveFor(app, app.state.budget, "push");
}

/** Take the best network within a budget (ms). */
function solveFor(app, budget, how) {
  app.state.budget = budget;
  const found = app.tables[app.state.space] && solveBudget(app.data, app.tables[app.state.space], budget);
  changeNetwork(app, found ? found.spec : app.state.spec, how);
}

/** Return the slider's position as a budget (ms), or a budget as a position. */
function sliderScale(app) {
  const [low, high] = feasibleRange(app.tables[app.state.space]);
  const ratio = Math.max(high / low, 1 + 1e-9);
  return { low, high,
    budgetAt: (position) => Number((low * ratio ** (position / SLIDER_STEPS) * 1.00005).toPrecision(4)),
    positionOf: (budget) => {
      const share = Math.log(budget / low) / Math.log(ratio);
      return Math.round(SLIDER_STEPS * Math.min(1, Math.max(0, share)));
    } };
}

/** Write the state into the address: "push" makes a new entry of the history, "replace" changes the last one.
 *
 * "slide" makes one entry for all moves of the slider that follow each other.
 */
function remember(app, how) {
  clearTimeout(app.remembering);
  const write = (pushes) => {
    const fragment = stateFragment(app.data, app.state);
    if (fragment === location.hash) return;
    history[pushes ? "pushState" : "replaceState"](null, "", fragment);
  };
  const begins = how === "slide" && performance.now() - (app.slid ?? -Infinity) > SLIDE_MS;
  if (how === "slide") app.slid = performance.now();
  if (how === "push" || begins) {
    write(true);
  } else {
    app.remembering = setTimeout(() => write(false), HISTORY_MS);
  }
}

/** Show a message, or none. */
function say(text) {
  document.getElementById("message").textContent = text;
}

// What follows every change -----------------------------------------------------------------------------

/** Show the state. */
function render(app) {
  const { data, state } = app;
  if (app.startText !== specText(state.start.spec)) {
    app.startText = specText(state.start.spec);
    app.startMeasured = app.listed.find((one) => specText(one.spec) === app.startText)?.measured ?? null;
    app.start = evaluateNetwork(data, state.start.spec, state.space, null, app.startMeasured);
  }
  app.now = evaluateNetwork(data, state.spec, state.space, app.start);
  app.changed = specText(state.spec) !== app.startText;
  app.nowName = app.changed ? `${state.start.name}, changed` : state.start.name;
  renderSummary(app);
  renderStart(app);
  renderBudget(app);
  renderEditor(app);
  renderChoices(app);
  renderAblations(app);
  renderKeep(app);
  moveFront(app);
}

/** Show the figures of the network, and by what they differ from those of the beginning. */
function renderSummary(app) {
  const { now, start, state } = app;
  const name = document.getElementById("summary-name");
  name.replaceChildren(app.changed ? "This network " : state.start.name,
    element("small", {}, app.changed ? `against ${state.start.name}` : ""));
  const show = (id, text, value, digits, better, unit) => {
    document.getElementById(`now-${id}`).textContent = text;
    const delta = document.getElementById(`delta-${id}`);
    delta.replaceChildren(...(app.changed ? [deltaElement(value, digits, better, unit)] : []));
  };
  const { time, cost, estimate: guess } = now;
  show("ms", `${time.near ? "≈ " : ""}${formatMs(time.ms)}`, timeDifference(now, start), 2, -1);
  show("top1", formatTop1(guess), top1Difference(now, start), 2, 1);
  show("macs", formatCount(cost.macs), (cost.macs - start.cost.macs) / 1e6, 1, 0);
  show("params", formatCount(cost.params), (cost.params - start.cost.params) / 1e6, 2, 0);
  show("memory", `${(cost.memory / 1e6).toFixed(1)} MB`, (cost.memory - start.cost.memory) / 1e6, 1, 0);
  document.getElementById("remarks").textContent = remarks(app).join(" ");
}

/** Return what must be said of the figures. */
function remarks(app) {
  const { time, estimate: guess, parts } = app.now;
  const words = [];
  if (time.missing) {
    words.push(`Its latency is unknown: the table has no row for ${time.missing} of its ${parts.length} parts.`);
  } else if (time.near) {
    const scaled = app.start.parts.some((part) => part.scaled)
      ? `, scaled so that ${app.state.start.name} takes the ${formatMs(app.startMeasured)} measured` : "";
    words.push(`≈: ${time.near} of its ${parts.length} parts have no row of their own; their times are those of blocks `
      + `like them${scaled}.`);
  }
  if (guess.top1 === null) words.push("The estimator cannot judge its universal or fused blocks.");
  if (guess.outside) words.push("The estimator was fitted to no such network; its deviation is doubled.");
  return words;
}

/** Show which network it began from. */
function renderStart(app) {
  const { state } = app;
  const text = specText(state.start.spec);
  const listed = app.listed.find((one) => one.label === state.start.name && specText(one.spec) === text);
  const select = document.getElementById("start");
  const other = select.lastElementChild;
  other.hidden = Boolean(listed);
  other.textContent = listed ? "" : state.start.name;
  select.value = listed ? String(listed.index) : "";
  for (const id of ["reset", "compare"]) document.getElementById(id).disabled = !app.changed;
  document.getElementById("skeleton").value = String(state.space);
}

/** Say which widths and resolutions of a space the table knows, and how it comes to know more. */
function knownVariants({ name, variants, unknown_variants: unknown }) {
  if (!unknown) return "";
  const known = variants.map((variant) => variant.name).join(", ");
  return `Of ${name} the table knows width@pixels ${known}; ${unknown} others may hold better networks for this budget. `
    + "A search for the budget measures those that suit it; "
    + `python -m nas.measure --space ${name} --widths 1 --resolutions 224 measures one.`;
}

/** Show the budget and its best network. */
function renderBudget(app) {
  const { state } = app;
  document.getElementById("known").textContent = knownVariants(app.data.spaces[state.space]);
  const ready = Boolean(app.tables[state.space]);
  for (const id of ["slider", "budget"]) document.getElementById(id).disabled = !ready;
  const take = document.getElementById("take");
  take.hidden = true;
  const note = document.getElementById("solution");
  if (!ready) {
    note.textContent = "Preparing the solver …";
    return;
  }
  const scale = sliderScale(app);
  const slider = document.getElementById("slider");
  const input = document.getElementById("budget");
  const budget = state.budget ?? app.now.time.ms ?? scale.low;
  slider.value = String(scale.positionOf(budget));
  slider.setAttribute("aria-valuetext", `${budget.toPrecision(3)} ms`);
  if (document.activeElement !== input) input.value = String(Number(budget.toPrecision(4)));
  const found = solveBudget(app.data, app.tables[state.space], budget);
  const name = app.data.spaces[state.space].name;
  if (!found) {
    note.textContent = `No network of ${name} takes ${formatBudget(budget)} or less at the widths and resolutions that the `
      + `table knows; the fastest takes ${formatMs(scale.low)}.`;
    return;
  }
  const isNow = specText(found.spec) === specText(state.spec);
  const gap = found.gap < 0.0005 ? "the proven optimum" : `at most ${found.gap.toFixed(3)} points below the optimum`;
  const { std } = estimate(found.spec, app.data.prior);
  note.textContent = `${isNow ? "This is the best" : "The best"} of ${name} within ${formatBudget(budget)}: `
    + `${formatMs(found.ms)}, ${found.top1.toFixed(2)} ± ${std.toFixed(2)} % (${gap}).`
    + betterSkeleton(app, budget, found.top1);
  take.hidden = isNow;
}

/** Return a sentence about another skeleton that has a better network within a budget (ms), if there is one. */
function betterSkeleton(app, budget, top1) {
  const others = app.tables.map((tables, index) => (tables && index !== app.state.space
    ? { index, top1: solveBudget(app.data, tables, budget)?.top1 ?? 0 } : { index, top1: 0 }));
  const best = others.reduce((one, other) => (other.top1 > one.top1 ? other : one));
  const { name } = app.data.spaces[best.index];
  return best.top1 > top1 + BETTER ? ` ${name} reaches ${best.top1.toFixed(2)} % within it.` : "";
}

/** Return a budget as text. */
function formatBudget(ms) {
  return `${Number(ms.toPrecision(4))} ms`;
}

/** Show the table of ablations, and why there are none. */
function renderAblations(app) {
  const { now, state } = app;
  const channels = [...new Set(now.spec.blocks.slice(1).map((block) => block.out))].sort((a, b) => a - b);
  const hswishFrom = nearest(channels.length ? channels : [state.hswish], state.hswish);
  fill("hswish", channels.map((count) => [count, String(count)]), hswishFrom);
  const holder = document.getElementById("ablation-rows");
  const focused = holder.contains(document.activeElement) ? document.activeElement.id : "";
  const place = now.place;
  const note = document.getElementById("fixed-note");
  note.hidden = Boolean(place);
  if (!place) {
    note.textContent = "Its blocks do not stand as those of a skeleton here do, so that none of them can be changed. "
      + "Choose another network, or move the budget.";
    holder.replaceChildren(element("p", { class: "soft" }, "There is nothing to change in this network."));
    return;
  }
  const space = app.data.spaces[place.space];
  const before = specText(now.spec);
  const rows = ablations(hswishFrom).map(({ id, name, change }) => {
    const spec = ablate(space, now.spec, place, change);
    return choiceRow(app, name, specText(spec) === before ? null : spec, `ablation-${id}`);
  });
  holder.replaceChildren(choiceTable("Change", rows));
  if (focused) (document.getElementById(focused) ?? holder).focus();
}

/** Show how the network is kept and trained. */
function renderKeep(app) {
  const input = document.getElementById("name");
  if (!input.dataset.typed) input.value = app.changed ? changedName(app) : app.state.start.name;
  document.getElementById("command").textContent = `uv run python -m nas.train ${fileName()}`;
}

/** Return a name for a changed network: its skeleton and its milliseconds, so that two files seldom have the same. */
function changedName({ data, state, now }) {
  const of = data.spaces[state.space].name.replace("mobilenet_v3_", "");
  return now.time.ms === null ? `${state.start.name}-changed` : `${of}-${Number(now.time.ms.toPrecision(4))}ms`;
}

/** Return the name of the network, a text of one line. */
function givenName() {
  return document.getElementById("name").value.replace(/\p{C}/gu, "").trim() || "playground";
}

/** Return the name of the network's file. */
function fileName() {
  return `${givenName().replace(/[^A-Za-z0-9_.@]+/g, "-").replace(/^[-.]+/, "") || "network"}.json`;
}

/** Return the network's spec as JSON, with what the page says of it. */
function savedJson(app) {
  const { time, estimate: guess, spec } = app.now;
  const results = { predicted_ms: time.ms, approximated_parts: time.near, device: app.data.device,
    runtime: app.data.runtime, estimated_top1: guess.top1, estimated_std: guess.std, source: "nas.playground" };
  return specJson({ ...spec, name: givenName() }, results);
}

/** Draw the chart. */
function drawFront(app) {
  const drawing = drawChart("front", () => frontChart(app));
  if (!app.drawn) {
    app.drawn = true;
    document.getElementById("front").on("plotly_click", ({ points }) => {
      const listed = app.listed[points[0].customdata];
      if (listed) beginFrom(app, listed.label, listed.spec);
    });
  }
  return drawing;
}

// Controls --------------------------------------------------------------------------------------------

/** Let every control change the state. */
function addListeners(app) {
  const on = (id, event, action) => document.getElementById(id).addEventListener(event, action);
  on("start", "change", ({ target }) => {
    const listed = app.listed[Number(target.value)];
    beginFrom(app, listed.label, listed.spec);
  });
  on("load", "change", ({ target }) => loadFile(app, target));
  on("reset", "click", () => app.change(app.state.start.spec));
  on("compare", "click", () => beginFrom(app, document.getElementById("name").value, app.state.spec));
  on("skeleton", "change", ({ target }) => changeSkeleton(app, Number(target.value)));
  on("slider", "input", ({ target }) => solveFor(app, sliderScale(app).budgetAt(Number(target.value)), "slide"));
  on("budget", "change", ({ target }) => {
    const budget = positive(target.value);
    if (budget) solveFor(app, budget, "push");
    else target.value = String(Number((app.state.budget ?? 1).toPrecision(4)));
  });
  on("take", "click", () => solveFor(app, app.state.budget ?? app.now.time.ms, "push"));
  on("variant", "change", ({ target }) => {
    const space = app.data.spaces[app.state.space];
    const variant = space.variants[Number(target.value)];
    if (target.value !== "") app.change(withVariant(space, app.now.spec, app.now.place, variant));
  });
  on("snap", "click", () => snapToSpace(app));
  on("hswish", "change", ({ target }) => {
    app.state.hswish = Number(target.value);
    render(app);
    remember(app, "push");
  });
  on("name", "input", ({ target }) => {
    target.dataset.typed = target.value ? "yes" : "";
    renderKeep(app);
  });
  on("save", "click", () => saveFile(fileName(), savedJson(app), "application/json"));
  on("copy-command", "click", () => copyText(document.getElementById("command").textContent));
  on("copy-link", "click", () => {
    clearTimeout(app.remembering);
    history.replaceState(null, "", stateFragment(app.data, app.state));
    copyText(location.href);
  });
  on("save-csv", "click", () => saveFile("fronts.csv", frontCsv(app), "text/csv"));
  on("save-svg", "click", saveSvg);
  addEventListener("popstate", () => {
    const before = app.state.space;
    app.state = { ...app.state, ...firstState(app) };
    restore(app, location.hash);
    if (before !== app.state.space) afterSpace(app);
    render(app);
  });
  matchMedia("(min-width: 62rem)").addEventListener("change", () => render(app));
  matchMedia(NARROW).addEventListener("change", () => drawFront(app));
}

/** Take the nearest network that is of the space. */
function snapToSpace(app) {
  const { place, spec } = app.now;
  const space = app.data.spaces[place.space];
  const variant = nearestVariant(space, place.width, spec.resolution)
    ?? space.variants.reduce((best, one) =>
      (Math.abs(one.resolution - spec.resolution) < Math.abs(best.resolution - spec.resolution) ? one : best));
  app.change(withVariant(space, spec, place, variant, true));
}

/** Begin from the spec in a file. */
async function loadFile(app, input) {
  const [file] = input.files;
  if (!file) return;
  try {
    const spec = parseSpecJson(await file.text());
    beginFrom(app, spec.name, spec);
  } catch (error) {
    say(`${file.name}: ${error.message}`);
  }
  input.value = ""; // so that the same file can be chosen again after it was mended
}

/** Save the chart as SVG. */
async function saveSvg() {
  const chart = document.getElementById("front");
  const address = await Plotly.toImage(chart, { format: "svg", width: chart.clientWidth, height: chart.clientHeight });
  saveFile("fronts.svg", decodeURIComponent(address.slice(address.indexOf(",") + 1)), "image/svg+xml");
}

/** Copy a text, and say so. */
async function copyText(text) {
  const told = document.getElementById("copied");
  try {
    await navigator.clipboard.writeText(text);
    told.textContent = "Copied.";
  } catch {
    told.textContent = "This browser does not let a page copy; select the text and copy it yourself.";
  }
}

startPlayground();
