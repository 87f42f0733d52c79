"use strict";
// The blocks of the network with their controls, and what each choice of one block would change.

const ACTIVATION_NAMES = { relu: "ReLU", relu6: "ReLU6", hswish: "h-swish" };

// Numbers ---------------------------------------------------------------------------------------------

/** Return milliseconds as text. */
function formatMs(ms) {
  return ms === null ? "unknown" : `${ms.toFixed(ms < 1 ? 3 : 2)} ms`;
}

/** Return a count as text, in millions or thousands. */
function formatCount(count) {
  const [value, unit] = count < 1e6 ? [count / 1e3, "k"] : [count / 1e6, "M"];
  return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${unit}`;
}

/** Return an estimate as text. */
function formatTop1({ top1, std }) {
  if (top1 === null) return "no estimate";
  return `${top1.toFixed(1)} ± ${std.toFixed(1)} %`;
}

/** Return a difference as text, with its sign. */
function formatSigned(value, digits) {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return "±0";
  return `${value > 0 ? "+" : "−"}${text}`;
}

/** Return an element that shows a difference; `better` is the sign that is good, 0 for none. */
function deltaElement(value, digits, better, unit = "") {
  const text = value === null ? "–" : formatSigned(value, digits);
  const good = value !== null && text !== "±0" && better !== 0 ? Math.sign(value) === better : null;
  return element("span", { class: good === null ? "delta" : good ? "delta good" : "delta bad" },
    unit ? `${text} ${unit}` : text);
}

/** Return the difference of two networks' milliseconds; null where one is unknown. */
function timeDifference(one, other) {
  return one.time.ms === null || other.time.ms === null ? null : one.time.ms - other.time.ms;
}

/** Return the difference of two networks' estimates (points); null where one has none. */
function top1Difference({ estimate: one }, { estimate: other }) {
  return one.top1 === null || other.top1 === null ? null : one.top1 - other.top1;
}

// The blocks ------------------------------------------------------------------------------------------

/** Show the parts of the network; controls stay where only their values change. */
function renderEditor(app) {
  const { now, state } = app;
  const place = now.place && now.place.space === state.space ? now.place : null;
  const signature = JSON.stringify([state.space, place && place.depths, now.spec.blocks.length]);
  const stages = document.getElementById("stages");
  if (stages.dataset.signature !== signature) {
    const focused = document.activeElement && stages.contains(document.activeElement) ? document.activeElement.id : "";
    document.getElementById("choices-place").append(document.getElementById("choices"));
    stages.replaceChildren(...editorRows(app, place));
    stages.dataset.signature = signature;
    if (focused) document.getElementById(focused)?.focus();
  }
  const most = Math.max(...now.parts.map((part) => part.ms ?? 0));
  now.parts.forEach((part, index) => updateRow(app, place, part, index, most));
  place?.depths.forEach((depth, stage) => { document.getElementById(`depth-${stage}`).value = String(depth); });
  renderVariant(app, place);
  placeChoices(app);
}

/** Return the rows of the editor: stem and first block, each stage with its depth and its blocks, head. */
function editorRows(app, place) {
  const { blocks } = app.now.spec;
  const head = fixedRow("head", blocks.length + 1);
  if (!place) return [fixedRow("stem", 0), ...blocks.map((_, i) => fixedRow(`block ${i + 1}`, i + 1)), head];
  const space = app.data.spaces[place.space];
  const rows = [fixedRow("stem", 0), fixedRow("block 1", 1)];
  let index = 1;
  place.depths.forEach((depth, stage) => {
    const select = element("select", { id: `depth-${stage}` },
      ...space.stages[stage].depths.map((one) => element("option", { value: one }, String(one))));
    select.addEventListener("change", () => app.change(
      withDepth(space, app.now.spec, app.now.place, stage, Number(select.value))));
    const heading = element("div", { class: "stage-head" }, element("strong", {}, `Stage ${stage + 1}`),
      element("span", { class: "soft", id: `stage-${stage}` }),
      element("label", {}, `Depth of stage ${stage + 1} `, select, element("span", { class: "soft" }, " blocks")));
    const group = element("div", { class: "stage" }, heading);
    for (let position = 0; position < depth; position += 1, index += 1) {
      group.append(blockRow(app, space.stages[stage], index));
    }
    rows.push(group);
  });
  return [...rows, head];
}

/** Return the row of a part that the page does not change. */
function fixedRow(name, index) {
  return element("div", { class: "part fixed", id: `part-${index}` }, nameCell(name, index),
    element("span", { class: "what", id: `what-${index}` }), timeCell(index));
}

/** Return name and shape of a part. */
function nameCell(name, index) {
  return element("span", { class: "part-name" }, element("span", {}, name[0].toUpperCase() + name.slice(1)),
    element("small", { id: `shape-${index}` }));
}

/** Return the cell for the milliseconds and costs of a part. */
function timeCell(index) {
  return element("span", { class: "time" },
    element("span", { class: "bar", "aria-hidden": "true" }, element("span", { id: `bar-${index}` })),
    element("span", { id: `ms-${index}`, class: "number" }), element("small", { id: `cost-${index}` }));
}

/** Return the row of a block: four controls and a button that compares its choices. */
function blockRow(app, stage, index) {
  const number = index + 1;
  const control = (name, title, input) => {
    input.id = `${name}-${index}`;
    input.addEventListener("change", () => app.change(withChoice(app.now.spec, index, readChoice(name, input))));
    return element("label", { class: `choice ${name}` }, element("span", { class: "label" }, `${title} `,
      element("span", { class: "hidden" }, `of block ${number}`)), input);
  };
  const compare = element("button", { type: "button", class: "compare", id: `compare-${index}`,
    "aria-label": `Compare the choices of block ${number}` }, "Compare");
  compare.addEventListener("click", () => app.select(app.state.block === number && !isWide() ? null : number));
  const row = element("div", { class: "part", id: `part-${index + 1}`, role: "group", "aria-label": `Block ${number}` },
    nameCell(`block ${number}`, index + 1),
    control("kernel", "Kernel", element("select")), control("expanded", "Expansion", element("select")),
    control("se", "SE", element("input", { type: "checkbox", disabled: stage.se.length < 2 })),
    control("activation", "Activation", element("select")),
    timeCell(index + 1), compare);
  for (const event of ["focusin", "click"]) {
    row.addEventListener(event, () => { if (isWide()) app.select(number); });
  }
  return row;
}

/** Return the change that a control asks for. */
function readChoice(name, input) {
  if (name === "se") return { se: input.checked };
  return { [name]: name === "activation" ? input.value : Number(input.value) };
}

/** Show the values of one part. */
function updateRow(app, place, part, index, most) {
  const set = (id, text) => { document.getElementById(`${id}-${index}`).textContent = text; };
  set("ms", part.ms === null ? "no row" : `${part.near ? "≈ " : ""}${part.ms.toFixed(3)} ms`);
  set("cost", `${formatCount(part.macs)} MACs, ${formatCount(part.params)} params`);
  document.getElementById(`bar-${index}`).style.width = `${most && part.ms ? (100 * part.ms) / most : 0}%`;
  const { spec } = app.now;
  if (!part.placed) {
    set("shape", index === 0 ? `${spec.resolution} px, 3 → ${spec.stem.out}` : headShape(part));
    set("what", index === 0 ? `3×3, stride ${spec.stem.stride}, ${ACTIVATION_NAMES[spec.stem.activation]}`
      : headText(spec.head, app.data.classes));
    return;
  }
  const { block, inChannels, inSize } = part.placed;
  set("shape", `${inSize} px, ${inChannels} → ${block.out}${block.stride > 1 ? ", stride 2" : ""}`);
  if (!place || index === 1) {
    set("what", blockText(part.placed));
    return;
  }
  updateControls(app, place, part.placed, index - 1);
}

/** Show the values of a block's controls. */
function updateControls(app, place, { block, inChannels }, index) {
  const stageIndex = slotsOf(place.depths)[index - 1].stage;
  const stage = app.data.spaces[place.space].stages[stageIndex];
  const with_ = (known, value) => (known.includes(value) ? known : [...known, value].sort((a, b) => a - b));
  fill(`kernel-${index}`, with_(stage.kernels, block.kernel).map((k) => [k, `${k}×${k}`]), block.kernel);
  fill(`expanded-${index}`, with_(stage.expansions.map((e) => e * inChannels), block.expanded).map((channels) =>
    [channels, `${Number((channels / inChannels).toFixed(1))}× (${channels})`]), block.expanded);
  const activations = [...new Set([...stage.activations, block.activation])];
  fill(`activation-${index}`, activations.map((one) => [one, ACTIVATION_NAMES[one]]), block.activation);
  document.getElementById(`se-${index}`).checked = block.se > 0;
  document.getElementById(`part-${index + 1}`).classList.toggle("selected", app.state.block === index + 1);
  document.getElementById(`compare-${index}`).setAttribute("aria-expanded", String(app.state.block === index + 1));
  if (!slotsOf(place.depths)[index - 1].position) {
    const expected = place.width.outs[stageIndex + 1];
    document.getElementById(`stage-${stageIndex}`).textContent = `${block.out} channels`
      + (block.out === expected ? "" : ` (${expected} in the space at width ${place.width.label})`);
  }
}

/** Give a select these options, pairs of value and text, and its value. */
function fill(id, options, value) {
  const select = document.getElementById(id);
  const signature = JSON.stringify(options);
  if (select.dataset.options !== signature) {
    select.replaceChildren(...options.map(([one, text]) => element("option", { value: one }, text)));
    select.dataset.options = signature;
    select.disabled = options.length < 2;
  }
  select.value = String(value);
}

/** Return the kernels of a block in words; as BlockSpec.kernels_text. */
function kernelsText(block) {
  const [inner, start] = [block.kernel, block.start_kernel].map((kernel) => (kernel ? `${kernel}×${kernel}` : ""));
  if (block.op === "fused") return `full ${inner}`;
  return start ? `${start} before ${inner}`.trim() : inner || "1×1";
}

/** Return a block in words. */
function blockText({ block, inChannels }) {
  const words = [kernelsText(block)];
  words.push(block.op === "sepconv" ? "no expansion"
    : `${Number((block.expanded / inChannels).toFixed(2))}× (${block.expanded})`);
  if (block.se) words.push(`SE ${block.se}`);
  words.push(ACTIVATION_NAMES[block.activation]);
  return words.join(", ");
}

/** Return the input of a head in words. */
function headShape(part) {
  const [channels, size] = part.key.split(" ")[1].split("x");
  return `${size} px, ${channels} channels`;
}

/** Return a head in words. */
function headText(head, classes) {
  return [head.conv && `1×1 to ${head.conv}`, head.hidden && `hidden layer of ${head.hidden}`, `${classes} classes`]
    .filter(Boolean).join(", ");
}

/** Show the width and resolution, with a choice for what is none of the known variants. */
function renderVariant(app, place) {
  const select = document.getElementById("variant");
  const space = app.data.spaces[app.state.space];
  const options = space.variants.map((variant, index) =>
    [String(index), `width ${space.widths[variant.width_index].label}, ${variant.resolution} px`]);
  const { spec } = app.now;
  const now = place?.plain ? space.variants.findIndex((one) =>
    space.widths[one.width_index] === place.width && one.resolution === spec.resolution) : -1;
  if (now < 0) options.push(["", `as it is, ${spec.resolution} px`]);
  fill("variant", options, now < 0 ? "" : now);
  select.disabled = !place || options.length < 2;
  document.getElementById("snap").hidden = !place || place.member || !space.variants.length;
}

// What each choice of a block changes ---------------------------------------------------------------------

/** Return whether the page has room for two columns. */
function isWide() {
  return matchMedia("(min-width: 62rem)").matches;
}

/** Put the table of choices beside the blocks, or on a narrow page below its block. */
function placeChoices(app) {
  const panel = document.getElementById("choices");
  const row = !isWide() && app.state.block ? document.getElementById(`part-${app.state.block}`) : null;
  const parent = row && row.classList.contains("fixed") ? null : row;
  if (parent) {
    if (parent.nextElementSibling !== panel) parent.after(panel);
  } else if (panel.parentElement.id !== "choices-place") {
    document.getElementById("choices-place").append(panel);
  }
}

/** Show what each other choice of the selected block would change. */
function renderChoices(app) {
  const { now, state } = app;
  const panel = document.getElementById("choices");
  const index = state.block ? state.block - 1 : 0;
  const place = now.place && now.place.space === state.space ? now.place : null;
  panel.hidden = !place;
  if (!place) return;
  if (!(index >= 1 && index < now.spec.blocks.length)) {
    panel.replaceChildren(element("p", { class: "soft" },
      "Compare a block: here stands what each of its choices would change, in milliseconds and points of top-1."));
    return;
  }
  const focused = panel.contains(document.activeElement) ? document.activeElement.id : "";
  const rows = blockChoices(app, place, index).map(([text, spec], number) =>
    choiceRow(app, text, spec, `use-${number}`));
  panel.replaceChildren(
    element("h3", {}, `Block ${index + 1}: what each choice would change`),
    choiceTable("Choice", rows),
    element("p", { class: "soft" }, "± is what the estimator's fit leaves open of the difference."));
  if (focused) (document.getElementById(focused) ?? panel).focus();
}

/** Return the choices of a block as texts, each with the network that it makes; null for the one that it has. */
function blockChoices(app, place, index) {
  const space = app.data.spaces[place.space];
  const slot = slotsOf(place.depths)[index - 1];
  const stage = space.stages[slot.stage];
  const { spec } = app.now;
  const { block, inChannels } = walk(spec)[index];
  const choice = (text, has, changes) => [text, has ? null : withChoice(spec, index, changes)];
  return [
    ...stage.kernels.map((kernel) => choice(`Kernel ${kernel}×${kernel}`, block.kernel === kernel, { kernel })),
    ...stage.expansions.map((e) => choice(`Expansion ${e}× (${e * inChannels})`, block.expanded === e * inChannels,
      { expanded: e * inChannels })),
    ...stage.se.map((se) => choice(se ? "With SE" : "Without SE", block.se > 0 === se, { se })),
    ...stage.activations.map((activation) => choice(ACTIVATION_NAMES[activation], block.activation === activation,
      { activation })),
    ...stage.depths.map((depth) => [`Stage ${slot.stage + 1} with ${depth} block${depth > 1 ? "s" : ""}`,
      depth === place.depths[slot.stage] ? null : withDepth(space, spec, place, slot.stage, depth)]),
  ];
}

/** Return a table of networks with what they would change. */
function choiceTable(head, rows) {
  return element("table", { class: "choices-table" },
    element("thead", {}, element("tr", {}, element("th", { scope: "col" }, head),
      element("th", { scope: "col", class: "number" }, "ms"),
      element("th", { scope: "col", class: "number" }, "points"), element("td", {}))),
    element("tbody", {}, ...rows));
}

/** Return a row of such a table: differences of milliseconds and points, and a button; `spec` is null for now's. */
function choiceRow(app, text, spec, id) {
  const head = element("th", { scope: "row" }, text);
  const number = (...children) => element("td", { class: "number" }, ...children);
  if (!spec) return element("tr", { class: "found" }, head, number("now"), number("now"), element("td", {}));
  const network = evaluateNetwork(app.data, spec, app.state.space, app.start);
  const { points, std } = difference(network.estimate, app.now.estimate, app.data.prior);
  const use = element("button", { type: "button", id, "aria-label": `Use: ${text}` }, "Use");
  use.addEventListener("click", () => app.change(spec));
  return element("tr", {}, head,
    number(network.time.near ? "≈ " : "", deltaElement(timeDifference(network, app.now), 3, -1)),
    number(deltaElement(points, 2, 1), element("small", {}, std === null ? "" : ` ± ${std.toFixed(2)}`)),
    element("td", {}, use));
}
