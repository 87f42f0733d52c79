"use strict";
// The choices of the trials as parallel coordinates: a line a trial, an axis a property.

const SHADES = 8; // of the lines, by accuracy
const choices = { trials: null, property: "kernel", brushes: new Map(), axes: [], rows: [] };

/** Return the axes of the trials: pixels, channels, one property of each stage, milliseconds, top-1. */
function axesOf(trials, property) {
  const stages = trials.properties[property] ?? [];
  const axes = [
    { id: "px", title: "pixels", short: "px", value: trials.px },
    { id: "out", title: "last stage's channels", short: "ch.", value: trials.out },
    ...stages.map((value, number) => ({
      id: `stage ${number + 1}`, title: `stage ${number + 1}: ${property}`, short: `${number + 1}`, value,
    })),
    { id: "ms", title: "milliseconds", short: "ms", value: trials.ms },
    { id: "top-1", title: "top-1, %", short: "%", value: trials.top1 },
  ];
  for (const axis of axes) {
    let [low, high] = [Infinity, -Infinity];
    for (let row = 0; row < trials.count; row += 1) {
      const value = axis.value(row);
      if (value === null || value === undefined) continue;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    Object.assign(axis, low > high ? { low: 0, high: 1, empty: true } : { low, high });
  }
  return axes;
}

/** Return the place of a value on an axis: 0 at its lower end, 1 at its upper one. */
function placeOn(axis, value) {
  return axis.high > axis.low ? (value - axis.low) / (axis.high - axis.low) : 0.5;
}

/** Return whether a trial lies within every brush. */
function isChosen(row) {
  for (const axis of choices.axes) {
    const brush = choices.brushes.get(axis.id);
    if (!brush) continue;
    const value = axis.value(row);
    if (value === null || value === undefined || value < brush.from || value > brush.to) return false;
  }
  return true;
}

/** Return where things stand on the canvas, in CSS pixels. */
function choicesPlaces() {
  const { width, height } = document.getElementById("choices-chart").getBoundingClientRect();
  const side = width < 560 ? 22 : 44;
  const [top, bottom] = [40, height - 24];
  const step = (width - 2 * side) / Math.max(1, choices.axes.length - 1);
  const [x, y] = [(number) => side + number * step, (place) => bottom - place * (bottom - top)];
  return { width, height, top, bottom, step, x, y };
}

/** Draw the lines of some trials, each once, in shades by their accuracy. */
function strokeTrials(context, rows, places, colors, opacity) {
  const accuracy = choices.axes.at(-1);
  const shades = Array.from({ length: colors.length }, () => []);
  for (const row of rows) {
    shades[Math.min(colors.length - 1, Math.floor(placeOn(accuracy, accuracy.value(row)) * colors.length))].push(row);
  }
  context.globalAlpha = opacity;
  shades.forEach((own, shade) => {
    context.strokeStyle = colors[shade];
    context.beginPath();
    for (const row of own) {
      let drawing = false;
      choices.axes.forEach((axis, number) => {
        const value = axis.value(row);
        if (value === null || value === undefined) {
          drawing = false;
          return;
        }
        const [x, y] = [places.x(number), places.y(placeOn(axis, value))];
        if (drawing) context.lineTo(x, y);
        else context.moveTo(x, y);
        drawing = true;
      });
    }
    context.stroke();
  });
  context.globalAlpha = 1;
}

/** Return that many shades from the page's line colour to a colour. */
function shadesTo(color, count) {
  const [from, to] = [channels(pageColor("line")), channels(color)];
  return Array.from({ length: count }, (_, shade) => {
    const share = (shade + 1) / count;
    return `rgb(${from.map((part, index) => Math.round(part + share * (to[index] - part))).join(", ")})`;
  });
}

/** Draw the axes with their names, their ends and their brushes. */
function drawAxes(context, places) {
  context.font = "12px system-ui, sans-serif";
  context.textAlign = "center";
  choices.axes.forEach((axis, number) => {
    const x = places.x(number);
    context.strokeStyle = pageColor("soft");
    context.lineWidth = 1;
    context.beginPath();
    context.moveTo(x, places.top);
    context.lineTo(x, places.bottom);
    context.stroke();
    context.fillStyle = pageColor("ink");
    const long = context.measureText(axis.title).width < places.step - 8;
    context.fillText(long ? axis.title : axis.short, x, 14);
    context.fillStyle = pageColor("soft");
    if (!axis.empty) {
      const digits = { ms: 2, "top-1": 1 }[axis.id] ?? (Number.isInteger(axis.low) && Number.isInteger(axis.high) ? 0 : 1);
      context.fillText(fixed(axis.high, digits), x, 31);
      context.fillText(fixed(axis.low, digits), x, places.bottom + 16);
    }
    const brush = choices.brushes.get(axis.id);
    if (brush) {
      const top = places.y(Math.min(1, placeOn(axis, brush.to)));
      const bottom = places.y(Math.max(0, placeOn(axis, brush.from)));
      context.fillStyle = translucent(pageColor("good"), 0.35);
      context.fillRect(x - 7, top - 2, 14, Math.max(4, bottom - top + 4));
    }
  });
}

/** Draw the canvas as it is to be now. */
function drawChoices() {
  const canvas = document.getElementById("choices-chart");
  const places = choicesPlaces();
  const scale = window.devicePixelRatio || 1;
  canvas.width = Math.round(places.width * scale);
  canvas.height = Math.round(places.height * scale);
  const context = canvas.getContext("2d");
  context.scale(scale, scale);
  const rows = Array.from({ length: choices.trials.count }, (_, row) => row);
  const color = pageColor(choices.trials.skeleton);
  const many = Math.min(1, Math.max(0.08, 8 / Math.sqrt(choices.trials.count)));
  if (choices.brushes.size) {
    strokeTrials(context, rows, places, [pageColor("line")], 0.5 * many);
    const few = Math.min(1, Math.max(0.15, 30 / choices.rows.length));
    strokeTrials(context, choices.rows, places, [pageColor("good")], few);
  } else {
    strokeTrials(context, rows, places, shadesTo(color, SHADES), many);
  }
  drawAxes(context, places);
}

/** Say how many trials are chosen, and which of them is the most accurate. */
function tellChoices() {
  const { trials, rows, brushes } = choices;
  const all = trials.count.toLocaleString("en");
  let text = `${all} networks of ${trials.title}; none is left out.`;
  if (brushes.size) {
    const asked = choices.axes.filter((axis) => brushes.has(axis.id)).map((axis) => {
      const { from, to } = brushes.get(axis.id);
      return `${axis.title} from ${Number(from.toFixed(2))} to ${Number(to.toFixed(2))}`;
    });
    text = `${rows.length.toLocaleString("en")} of ${all} networks of ${trials.title} have ${asked.join(", ")}.`;
  }
  if (rows.length) {
    const best = rows.reduce((one, row) => (trials.top1(row) > trials.top1(one) ? row : one));
    const stages = choices.axes.filter((axis) => !axis.empty && axis.id.startsWith("stage"));
    const values = stages.map((axis) => axis.value(best));
    const found = trials.point(best);
    text += ` The most accurate of them, ${found.name}: ${estimateText(found)} % at ${fixed(found.ms, 2)} ms, `
      + `${costText(found)}; ${choices.property} by stage ${values.map((value) => value ?? "–").join(", ")}.`;
  }
  document.getElementById("choices-text").textContent = text;
}

/** Choose anew after a change of brushes: on the canvas, in the text, in the front. */
function rechoose() {
  const all = Array.from({ length: choices.trials.count }, (_, row) => row);
  choices.rows = choices.brushes.size ? all.filter(isChosen) : all;
  drawChoices();
  tellChoices();
  showBrush();
  return markInFront(choices.brushes.size ? { skeleton: choices.trials.skeleton, rows: choices.rows } : null);
}

/** Return the axis that the controls are about. */
function axisOfControls() {
  const id = document.getElementById("choices-axis").value;
  return choices.axes.find((axis) => axis.id === id);
}

/** Show the brush of the chosen axis in the controls; the ends of the axis where it has none. */
function showBrush() {
  const axis = axisOfControls();
  const brush = choices.brushes.get(axis.id) ?? { from: axis.low, to: axis.high };
  document.getElementById("choices-from").value = Number(brush.from.toFixed(2));
  document.getElementById("choices-to").value = Number(brush.to.toFixed(2));
}

/** Brush an axis; a brush over all of it is none. */
function setBrush(axis, from, to) {
  const [low, high] = [Math.min(from, to), Math.max(from, to)];
  if (low <= axis.low && high >= axis.high) choices.brushes.delete(axis.id);
  else choices.brushes.set(axis.id, { from: low, to: high });
}

/** Take other trials or another property; brushes on axes that are gone go too. */
function replaceAxes() {
  choices.axes = axesOf(choices.trials, choices.property);
  for (const id of [...choices.brushes.keys()]) {
    if (id.startsWith("stage") || !choices.axes.some((axis) => axis.id === id)) choices.brushes.delete(id);
  }
  const select = document.getElementById("choices-axis");
  const before = select.value;
  select.replaceChildren(...choices.axes.map((axis) => element("option", { value: axis.id }, axis.title)));
  select.value = choices.axes.some((axis) => axis.id === before) ? before : "ms";
}

/** Let a mouse or a pen brush the axes of the canvas. A finger scrolls the page. */
function startBrushing(canvas) {
  let axis = null;
  let start = 0;
  const placeOf = (event) => {
    const box = canvas.getBoundingClientRect();
    const places = choicesPlaces();
    const number = Math.round((event.clientX - box.left - places.x(0)) / places.step);
    const place = (places.bottom - (event.clientY - box.top)) / (places.bottom - places.top);
    const nearest = choices.axes[Math.max(0, Math.min(choices.axes.length - 1, number))];
    return { axis: nearest, place: Math.max(0, Math.min(1, place)) };
  };
  const valueAt = (place) => axis.low + place * (axis.high - axis.low);
  canvas.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "touch") return;
    ({ axis, place: start } = placeOf(event));
    canvas.setPointerCapture(event.pointerId);
    document.getElementById("choices-axis").value = axis.id;
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!axis) return;
    const { place } = placeOf(event);
    if (Math.abs(place - start) > 0.01) setBrush(axis, valueAt(start), valueAt(place));
    choices.rows = Array.from({ length: choices.trials.count }, (_, row) => row).filter(isChosen);
    drawChoices();
  });
  canvas.addEventListener("pointerup", (event) => {
    if (!axis) return;
    const { place } = placeOf(event);
    if (Math.abs(place - start) <= 0.01) choices.brushes.delete(axis.id);
    axis = null;
    rechoose();
  });
}

/** Make the controls and draw for the first time. */
function startChoices() {
  const canvas = document.getElementById("choices-chart");
  const known = trialsOf.filter((trials) => trials.count);
  if (!canvas || !known.length) return;
  choices.trials = known[0];
  const skeleton = document.getElementById("choices-skeleton");
  skeleton.append(...known.map((trials, number) => element("option", { value: number }, trials.title)));
  const property = document.getElementById("choices-property");
  property.append(...Object.keys(known[0].properties).map((name) => element("option", { value: name }, name)));
  property.value = choices.property;
  replaceAxes();
  skeleton.addEventListener("change", () => {
    choices.trials = known[Number(skeleton.value)];
    choices.brushes.clear();
    replaceAxes();
    rechoose();
  });
  property.addEventListener("change", () => {
    choices.property = property.value;
    replaceAxes();
    rechoose();
  });
  document.getElementById("choices-axis").addEventListener("change", showBrush);
  for (const id of ["choices-from", "choices-to"]) {
    document.getElementById(id).addEventListener("change", () => {
      const axis = axisOfControls();
      const [from, to] = ["choices-from", "choices-to"].map((end) => document.getElementById(end).valueAsNumber);
      setBrush(axis, Number.isNaN(from) ? axis.low : from, Number.isNaN(to) ? axis.high : to);
      rechoose();
    });
  }
  document.getElementById("choices-clear").addEventListener("click", () => {
    choices.brushes.clear();
    rechoose();
  });
  document.getElementById("choices-form").addEventListener("submit", (event) => event.preventDefault());
  startBrushing(canvas);
  choices.rows = Array.from({ length: choices.trials.count }, (_, row) => row);
  drawChoices();
  tellChoices();
  showBrush();
  new ResizeObserver(() => drawChoices()).observe(canvas);
  drawnCharts.set("choices-chart", drawChoices); // drawn again when light and dark change
}
