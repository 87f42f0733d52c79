"use strict";
// Networks, their costs, features and estimates, as nas.arch and nas.accuracy compute them. Nothing here touches the
// page. A network is an object with the keys of a spec's JSON; `data` is what nas/playground/data.py writes.

const ACTIVATION_LETTERS = { r: "relu", 6: "relu6", h: "hswish" };
const GATE_LETTERS = { h: "hard_sigmoid", s: "sigmoid" };
const OP_LETTERS = { m: "mbconv", s: "sepconv", u: "uib", f: "fused" };
const FLOAT_BYTES = 4;

// Channels and shapes ---------------------------------------------------------------------------------

/** Return the nearest multiple of 8 that is at least 8 and at least 90 % of `value`. */
function roundChannels(value) {
  const rounded = Math.max(8, Math.floor(Math.trunc(value + 4) / 8) * 8);
  return rounded < 0.9 * value ? rounded + 8 : rounded;
}

/** Return the channels inside squeeze-and-excitation. */
function squeezedChannels(expanded) {
  return roundChannels(Math.floor(expanded / 4));
}

/** Return the side of a feature map after a convolution of that stride. */
function halved(size, stride) {
  return Math.floor((size - 1) / stride) + 1;
}

/** Return each block with the shape of its input, from the stem's output on. */
function walk(spec) {
  let channels = spec.stem.out;
  let size = halved(spec.resolution, spec.stem.stride);
  return spec.blocks.map((block) => {
    const placed = placeBlock(block, channels, size);
    channels = block.out;
    size = placed.outSize;
    return placed;
  });
}

/** Return a block where it stands: with the channels and the side of its input. */
function placeBlock(block, inChannels, inSize) {
  return { block, inChannels, inSize, outSize: halved(inSize, block.stride),
    residual: block.stride === 1 && inChannels === block.out && !block.activate_output };
}

/** Return whether a 1x1 convolution makes the expanded channels of a block. */
function hasExpand(block) {
  return block.op === "mbconv" || block.op === "uib";
}

// Costs -----------------------------------------------------------------------------------------------

/** Return multiply-accumulates, parameters and living elements of a layer; as nas.arch.cost.Layer. */
function layerCost(inChannels, outChannels, kernel, inSize, outSize, { groups = 1, norm = true, held = 0 } = {}) {
  const weights = outChannels * Math.floor(inChannels / groups) * kernel ** 2;
  return { macs: weights * outSize ** 2, params: weights + outChannels * (norm ? 2 : 1),
    activations: inChannels * inSize ** 2 + outChannels * outSize ** 2 + held };
}

/** Return the costs of the layers of one block. */
function blockLayers(placed) {
  const { block, inChannels, inSize, outSize } = placed;
  const { expanded } = block;
  const residual = placed.residual ? inChannels * inSize ** 2 : 0;
  const layers = [];
  let size = inSize;
  let held = 0;
  if (block.start_kernel) {
    const after = block.kernel ? size : outSize;
    layers.push(layerCost(inChannels, inChannels, block.start_kernel, size, after, { groups: inChannels }));
    [size, held] = [after, residual];
  }
  if (hasExpand(block)) {
    layers.push(layerCost(inChannels, expanded, 1, size, size, { held }));
    held = residual;
  }
  if (block.op === "fused") layers.push(layerCost(inChannels, expanded, block.kernel, size, outSize));
  else if (block.kernel) {
    layers.push(layerCost(expanded, expanded, block.kernel, size, outSize, { groups: expanded, held }));
  }
  if (block.se) {
    const held = residual + expanded * outSize ** 2;
    layers.push(layerCost(expanded, block.se, 1, 1, 1, { norm: false, held }));
    layers.push(layerCost(block.se, expanded, 1, 1, 1, { norm: false, held }));
  }
  layers.push(layerCost(expanded, block.out, 1, outSize, outSize, { held: residual }));
  return layers;
}

/** Return the costs of the layers of the head, with a classifier for `classes`. */
function headLayers(head, inChannels, size, classes) {
  const layers = [];
  let channels = inChannels;
  if (head.conv) {
    layers.push(layerCost(channels, head.conv, 1, size, size));
    channels = head.conv;
  }
  if (head.hidden) {
    layers.push(layerCost(channels, head.hidden, 1, 1, 1, { norm: head.hidden_norm }));
    channels = head.hidden;
  }
  layers.push(layerCost(channels, classes, 1, 1, 1, { norm: false }));
  return layers;
}

/** Return stem, blocks and head with the keys of their rows and their costs. */
function networkParts(spec, classes) {
  const { stem, head } = spec;
  const stride = stem.stride === 2 ? "" : ` s${stem.stride}`;
  const placed = walk(spec);
  const last = placed[placed.length - 1];
  const activation = head.conv || head.hidden ? ` ${head.activation}` : "";
  const shape = `${last.block.out}x${last.outSize}`;
  const norm = head.hidden_norm ? " hidden-norm" : "";
  return [
    summed("stem", `stem ${spec.resolution} o${stem.out}${stride} ${stem.activation}`,
      [layerCost(3, stem.out, 3, spec.resolution, halved(spec.resolution, stem.stride))]),
    ...placed.map((one, index) => ({ ...summed(`block ${index + 1}`, blockKey(one), blockLayers(one)), placed: one })),
    summed("head", `head ${shape} c${head.conv} h${head.hidden} n${classes}${activation}${norm}`,
      headLayers(head, last.block.out, last.outSize, classes)),
  ];
}

/** Return the key of a block's row in a latency table. */
function blockKey({ block, inChannels, inSize }) {
  const se = block.se ? ` se${block.se}-${block.gate}` : "";
  const after = block.activate_output ? " activate-output" : "";
  const kernels = `${block.start_kernel ? `b${block.start_kernel} ` : ""}k${block.kernel}`;
  return `${block.op} ${inChannels}x${inSize} ${kernels} e${block.expanded} o${block.out} s${block.stride}`
    + `${se} ${block.activation}${after}`;
}

/** Return a part of a network with the sums over its layers. */
function summed(name, key, layers) {
  const sum = (field) => layers.reduce((total, layer) => total + layer[field], 0);
  return { name, key, macs: sum("macs"), params: sum("params"),
    peak: FLOAT_BYTES * Math.max(...layers.map((layer) => layer.activations)) };
}

/** Return multiply-accumulates, parameters and memory (bytes) of a network's parts. */
function totalCost(parts) {
  const sum = (field) => parts.reduce((total, part) => total + part[field], 0);
  const params = sum("params");
  return { macs: sum("macs"), params, memory: FLOAT_BYTES * params + Math.max(...parts.map((part) => part.peak)) };
}

// Features of the ImageNet prior -----------------------------------------------------------------------

/** Return the names of segments with these output strides. */
function segmentNames(strides, curves) {
  const known = strides.map((stride) => Math.min(stride, 32));
  return known.map((stride, index) => {
    if (stride === 16 && known.filter((other) => other === 16).length === 1) return curves.merged;
    const second = index > 0 && known[index - 1] === stride;
    return `s${stride}${stride < 16 ? "" : second ? "b" : "a"}`;
  });
}

/** Return the segment and the position of each block of a network. */
function segmentPlaces(placedBlocks, curves) {
  const segments = [];
  let stride = 2;
  placedBlocks.forEach(({ block, inChannels }, index) => {
    stride *= block.stride;
    if (index === 0 || block.stride === 2 || inChannels !== block.out) segments.push([stride, 0]);
    const last = segments[segments.length - 1];
    last[0] = stride;
    last[1] += 1;
  });
  const names = segmentNames(segments.map((segment) => segment[0]), curves);
  const small = segments[0][0] > 2;
  return segments.flatMap((segment, index) =>
    Array.from({ length: segment[1] }, (_, position) => ({ segment: names[index], position, small })));
}

/** Return the place of each slot's block at a width; as nas.accuracy.imagenet_prior.slot_places. */
function slotPlaces(space, width, curves) {
  const outs = [width.outs[0]];
  const strides = [2 * width.first.stride];
  const segments = space.stages.map((stage, index) => {
    const out = width.outs[index + 1];
    if (stage.stride === 2 || out !== outs[outs.length - 1]) {
      outs.push(out);
      strides.push(strides[strides.length - 1] * stage.stride);
    }
    return outs.length - 1;
  });
  const names = segmentNames(strides, curves);
  return space.slots.map(({ stage, position }) => {
    const segment = segments[stage];
    const merged = segments.indexOf(segment) !== stage || segment === 0;
    return { segment: names[segment], position: position + (merged ? 1 : 0), small: strides[0] > 2 };
  });
}

/** Return a function of ratios: 0 at 1, concave. */
function powerCurve(ratio, power) {
  return (1 - ratio ** -power) / power;
}

/** Return the value of an expansion: 0 at 0, saturating. */
function expansionCurve(ratio, curves) {
  return ratio / (ratio + curves.expansion_half);
}

/** Return segment, position and weight of each coefficient that counts for a place. */
function featureShares({ segment, position }, curves) {
  if (segment === curves.merged) {
    return position === 0 ? [["s16a", 0, 1]] : curves.deep.map(([name, place]) => [name, place, 0.25]);
  }
  if (segment === "s2" || segment === "s32b") return [[segment, 0, 1]];
  const last = curves.positions - 1;
  return [[segment, Math.min(position, last), curves.deeper_weight ** Math.max(0, position - last)]];
}

/** Return the features of one block, as pairs of name and value. */
function blockFeatures({ block }, place, curves) {
  const features = [];
  for (const [segment, position, weight] of featureShares(place, curves)) {
    const reference = (place.position === 0 ? curves.reference_in : curves.reference_out)[segment];
    const name = `${segment}.${position}`;
    if (!(segment === "s2" && place.position === 0)) {
      features.push([`expansion ${name}`, weight * expansionCurve(block.expanded / reference, curves)]);
    }
    if (block.kernel !== 3) {
      const steps = (block.kernel - 3) / 2;
      features.push([`kernel5 ${name}`, weight * Math.min(1, steps)]);
      if (steps > 1) features.push([`kernel7 ${name}`, weight]);
      if (![3, 5, 7].includes(block.kernel)) features.push([`kernel ${block.kernel}`, 1]);
    }
    if (block.se) {
      features.push([`se ${name}`, weight]);
      if (place.small) features.push(["se small", weight]);
      if (block.gate === "sigmoid") features.push(["sigmoid gate", weight]);
      if (block.activate_output) features.push([`se plain ${segment.replace(/[ab]$/, "")}`, weight]);
    }
    if (block.activation === "hswish") features.push([`hswish ${segment}`, weight]);
  }
  return features;
}

/** Return the features of all but the blocks. */
function skeletonFeatures(spec, placedBlocks, places, curves) {
  const firsts = new Map();
  places.forEach((place, index) => {
    if (place.position === 0) firsts.set(place.segment, placedBlocks[index].block.out);
  });
  const last = spec.blocks[spec.blocks.length - 1];
  const side = Math.floor(2 / spec.stem.stride) * spec.resolution;
  const features = [
    ["level", 1],
    ["resolution", powerCurve(side / 224, curves.resolution_power)],
    ["stem", powerCurve(spec.stem.out / 16, curves.width_power)],
    ["head", Math.log((spec.head.hidden || spec.head.conv || last.out) / curves.reference_head)],
  ];
  if (spec.stem.stride === 1) features.push(["stem stride 1", 1]);
  for (const [segment, out] of firsts) {
    for (const name of segment === curves.merged ? ["s16a", "s16b"] : [segment]) {
      features.push([`width ${name}`, powerCurve(out / curves.reference_out[name], curves.width_power)]);
    }
  }
  if (spec.blocks.some((block) => block.activate_output)) {
    features.push(["plain", 1], ["plain width", Math.log(last.out / 1024)]);
  }
  if (firsts.has(curves.merged)) {
    const value = expansionCurve(curves.merged_expansion, curves);
    curves.main.forEach(([name, place]) => features.push([`expansion ${name}.${place}`, value]));
    curves.deep.forEach(([name, place]) => features.push([`expansion ${name}.${place}`, -0.75 * value]));
  }
  const strides = new Set([...firsts.keys()].map((name) => name.replace(/[sab]/g, "")));
  for (const stride of ["2", "4", "8", "16", "32"]) {
    if (!strides.has(stride)) features.push([`no stride ${stride}`, 1]);
  }
  if (spec.head.hidden) {
    features.push(["hidden layer", 1]);
    if (spec.head.conv) features.push(["head conv", Math.log(spec.head.conv / 960)]);
  }
  for (const part of ["stem", "head"]) {
    if (spec[part].activation === "hswish") features.push([`hswish ${part}`, 1]);
  }
  for (const name of curves.recipe_features) features.push([name, 1]);
  for (const name of curves.recipe_resolution_features) {
    features.push([name, powerCurve(side / 224, curves.resolution_power)]);
  }
  return features;
}

/** Return the features of a network as an array in the order of the prior's, and how many of them are unknown. */
function featureVector(spec, prior) {
  const placed = walk(spec);
  const places = segmentPlaces(placed, prior.curves);
  const features = skeletonFeatures(spec, placed, places, prior.curves);
  placed.forEach((one, index) => features.push(...blockFeatures(one, places[index], prior.curves)));
  const values = new Float64Array(prior.names.length);
  let unknown = 0;
  for (const [name, value] of features) {
    const column = featureColumns(prior).get(name);
    if (column === undefined) unknown += 1;
    else values[column] += value;
  }
  return { values, unknown };
}

const columnsOfPriors = new WeakMap();

/** Return a Map from the name of a feature to its column. */
function featureColumns(prior) {
  if (!columnsOfPriors.has(prior)) {
    columnsOfPriors.set(prior, new Map(prior.names.map((name, column) => [name, column])));
  }
  return columnsOfPriors.get(prior);
}

/** Return the score of some features: their sum, weighted by the prior's coefficients. */
function scoreOf(features, prior) {
  const columns = featureColumns(prior);
  return features.reduce((sum, [name, value]) =>
    sum + (columns.has(name) ? prior.coefficients[columns.get(name)] * value : 0), 0);
}

/** Return top-1 (percent) of a score. */
function linkOf(score, prior) {
  return prior.limit - Math.exp(-score);
}

const NO_ESTIMATE = { score: null, top1: null, std: null, outside: false, error: null, values: null };

/** Return the estimated top-1 (percent) of a network and its standard deviation; as ImageNetPrior.estimate.
 *
 * All is null for a network with blocks that the prior cannot judge.
 */
function estimate(spec, prior) {
  if (!spec.blocks.every((block) => prior.judged_ops.includes(block.op))) return NO_ESTIMATE;
  const { values, unknown } = featureVector(spec, prior);
  let score = 0;
  let outside = unknown > 0;
  values.forEach((value, column) => {
    score += value * prior.coefficients[column];
    if (value !== 0 && !(value >= (prior.low[column] ?? -Infinity) && value <= (prior.high[column] ?? Infinity))) {
      outside = true;
    }
  });
  const error = Math.exp(-score);
  const variance = spread(values, prior) + prior.noise ** 2 + unknown * prior.unknown_std ** 2;
  const std = error * Math.sqrt(variance) * (outside ? prior.outside_factor : 1);
  return { score, top1: prior.limit - error, std, outside, error, values };
}

/** Return the variance of a sum of coefficients, weighted by `values`: values' covariance values. */
function spread(values, prior) {
  const sums = new Float64Array(values.length);
  prior.factor.forEach((row, index) => {
    if (values[index] !== 0) row.forEach((entry, column) => { sums[column] += entry * values[index]; });
  });
  return sums.reduce((total, sum) => total + sum * sum, 0);
}

/** Return by how many points of top-1 one estimate is above another, with the standard deviation of the difference.
 *
 * Errors that both networks share cancel. The chance of a single training is not in it. Both are null where one of the
 * networks has no estimate.
 */
function difference(one, other, prior) {
  if (one.top1 === null || other.top1 === null) return { points: null, std: null };
  const slope = one.values.map((value, column) => one.error * value - other.error * other.values[column]);
  const factor = one.outside || other.outside ? prior.outside_factor : 1;
  return { points: one.top1 - other.top1, std: factor * Math.sqrt(spread(slope, prior)) };
}

// Networks as short texts ------------------------------------------------------------------------------

/** Return the letter that stands for a word. */
function letterOf(letters, word) {
  return Object.keys(letters).find((letter) => letters[letter] === word);
}

/** Return a network, without its name, as a short text; as nas.playground.data.spec_text. */
function specText(spec) {
  const activation = (part) => letterOf(ACTIVATION_LETTERS, part.activation);
  const blocks = spec.blocks.map((block) => {
    const letters = activation(block) + letterOf(GATE_LETTERS, block.gate) + (block.activate_output ? "a" : "");
    const numbers = [block.kernel, block.expanded, block.out, block.stride, block.se];
    const start = block.op === "uib" ? `.${block.start_kernel}` : "";
    return `${letterOf(OP_LETTERS, block.op)}${numbers.join(".")}.${letters}${start}`;
  });
  return [spec.resolution, spec.norm_eps, `${spec.stem.out}.${spec.stem.stride}.${activation(spec.stem)}`,
    blocks.join("_"),
    `${spec.head.conv}.${spec.head.hidden}.${activation(spec.head)}${spec.head.hidden_norm ? "n" : ""}`].join("~");
}

/** Return the network of a short text. Throws an Error for a text that `specText` does not write. */
function parseSpecText(text, name) {
  const [resolution, eps, stem, blocks, head] = text.split("~");
  if (head === undefined) throw new Error("the address names no network");
  const [stemOut, stemStride, stemActivation] = stem.split(".");
  const [conv, hidden, headLetters = ""] = head.split(".");
  return checkedSpec({
    name, resolution: Number(resolution), norm_eps: Number(eps),
    stem: { out: Number(stemOut), stride: Number(stemStride), activation: ACTIVATION_LETTERS[stemActivation] },
    blocks: blocks.split("_").map((block) => {
      const [kernel, expanded, out, stride, se, letters = "", start = "0"] = block.slice(1).split(".");
      return { op: OP_LETTERS[block[0]], kernel: Number(kernel), expanded: Number(expanded), out: Number(out),
        stride: Number(stride), se: Number(se), gate: GATE_LETTERS[letters[1]],
        activation: ACTIVATION_LETTERS[letters[0]], activate_output: letters[2] === "a",
        start_kernel: Number(start) };
    }),
    head: { conv: Number(conv), hidden: Number(hidden), activation: ACTIVATION_LETTERS[headLetters[0]],
      hidden_norm: headLetters[1] === "n" },
  });
}

/** Return the JSON of a spec that `python -m nas.train` reads, one line a block. */
function specJson(spec, results) {
  const { stem, blocks, head, ...others } = spec;
  const without = (part, key, value) => Object.fromEntries(
    Object.entries(part).filter(([name, own]) => name !== key || own !== value));
  const top = { version: 1, blocks: "@", ...others, stem: without(stem, "stride", 2),
    head: without(head, "hidden_norm", false), results }; // blocks first: a name can be "@", too
  const lines = blocks.map((block) => `    ${JSON.stringify(without(block, "start_kernel", 0))}`).join(",\n");
  return `${JSON.stringify(top, null, 2).replace('"@"', () => `[\n${lines}\n  ]`)}\n`;
}

/** Return the network of a spec's JSON. Throws an Error that names what is wrong. */
function parseSpecJson(text) {
  let data;
  try {
    data = JSON.parse(text);
  } catch (error) {
    throw new Error(`not JSON: ${error.message}`);
  }
  if (data === null || typeof data !== "object" || !Array.isArray(data.blocks)) {
    throw new Error("it holds no spec: an object with blocks, as nas.search writes");
  }
  if (data.version !== 1) throw new Error(`its version is ${data.version}; this page reads version 1`);
  const block = { op: "mbconv", stride: 1, se: 0, gate: "hard_sigmoid", activation: "relu", activate_output: false,
    start_kernel: 0 };
  return checkedSpec({
    name: data.name, resolution: data.resolution, norm_eps: data.norm_eps ?? 1e-3,
    stem: { activation: "hswish", stride: 2, ...data.stem },
    blocks: data.blocks.map((one) => ({ ...block, ...one })),
    head: { hidden: 0, activation: "hswish", hidden_norm: false, ...data.head },
  });
}

/** Return a network whose values are checked. Throws an Error that names the first that is impossible. */
function checkedSpec(spec) {
  const integer = (where, value, low, high) => {
    if (!Number.isInteger(value) || value < low || value > high) {
      throw new Error(`${where} is ${value}; it must be a whole number from ${low} to ${high}`);
    }
  };
  const oneOf = (where, value, known) => {
    if (!Object.values(known).includes(value)) {
      throw new Error(`${where} is ${value}; it must be one of ${Object.values(known).join(", ")}`);
    }
  };
  if (typeof spec.name !== "string" || !spec.name || /\p{C}/u.test(spec.name)) {
    throw new Error("its name must be a text of one line");
  }
  integer("the resolution", spec.resolution, 32, 2048);
  if (!(spec.norm_eps > 0 && spec.norm_eps < 1)) throw new Error("norm_eps must be between 0 and 1");
  integer("the stem's out", spec.stem.out, 1, 65536);
  integer("the stem's stride", spec.stem.stride, 1, 2);
  oneOf("the stem's activation", spec.stem.activation, ACTIVATION_LETTERS);
  integer("the number of blocks", spec.blocks.length, 1, 256);
  walk(spec).forEach(({ block, inChannels }, index) => {
    const where = `block ${index + 1}: `;
    oneOf(`${where}op`, block.op, OP_LETTERS);
    const universal = block.op === "uib";
    const kernels = [["kernel", universal], ["start_kernel", true]];
    for (const [field, mayBeAbsent] of kernels) {
      const value = block[field];
      integer(where + field, value, mayBeAbsent ? 0 : 1, 15);
      if (value && value % 2 === 0) throw new Error(`${where}${field} is ${value}; it must be odd`);
    }
    if (block.start_kernel && !universal) throw new Error(`${where}only a uib has a start_kernel`);
    if (universal && block.kernel && !block.start_kernel) throw new Error(`${where}such a uib is an mbconv`);
    if (block.stride === 2 && !block.kernel && !block.start_kernel) throw new Error(`${where}nothing in it has a stride`);
    for (const field of ["expanded", "out"]) integer(where + field, block[field], 1, 65536);
    integer(`${where}stride`, block.stride, 1, 2);
    integer(`${where}se`, block.se, 0, 65536);
    oneOf(`${where}gate`, block.gate, GATE_LETTERS);
    oneOf(`${where}activation`, block.activation, ACTIVATION_LETTERS);
    if (block.op === "sepconv" && block.expanded !== inChannels) {
      throw new Error(`${where}a sepconv has no expansion, so expanded must be ${inChannels}`);
    }
  });
  for (const field of ["conv", "hidden"]) integer(`the head's ${field}`, spec.head[field], 0, 65536);
  oneOf("the head's activation", spec.head.activation, ACTIVATION_LETTERS);
  if (spec.head.hidden_norm && !spec.head.hidden) throw new Error("the head has no hidden layer to normalise");
  return spec;
}
