"use strict";
// Networks of a search space: where their blocks stand, how long they take, and how they are changed. Pure functions.

// Where blocks stand ----------------------------------------------------------------------------------

/** Return the space, the width and the depth of each stage of a network; null if it fits no space.
 *
 * A member is a network of the space. Another network fits if its blocks stand as those of the skeleton do, whatever
 * their channels: a trimmed one, or one whose head is wider. It is plain if its stages have a width's channels.
 */
function placeInSpace(data, spec, preferred = 0) {
  const order = [preferred, ...data.spaces.keys()];
  for (const find of [findMember, findAlike]) {
    for (const index of order) {
      const found = find(data.spaces[index], spec);
      if (found) return { space: index, ...found };
    }
  }
  return null;
}

/** Return width and depths of a network of the space, else null. */
function findMember(space, spec) {
  for (const width of space.widths) {
    const alike = width.resolutions.includes(spec.resolution) && spec.norm_eps === space.norm_eps
      && sameFields(spec.stem, width.stem)
      && sameFields(withoutIdleGate(spec.blocks[0]), withoutIdleGate(width.first)) && sameFields(spec.head, width.head);
    const depths = alike && splitStages(space, spec, (stage, position, block, inChannels) => {
      const built = buildBlock(space, width, { stage, position },
        optionOf(block, width.outs[stage + (position ? 1 : 0)]));
      return isOption(space.stages[stage], block, inChannels) && sameFields(withoutIdleGate(block), built);
    });
    if (depths) return { width, depths, member: true, plain: true };
  }
  return null;
}

/** Return the nearest width and the depths of a network whose blocks stand as the space's do, else null. */
function findAlike(space, spec) {
  const first = spec.blocks[0];
  const { first: known, stem } = space.widths[0];
  if (first.op !== known.op || first.stride !== known.stride || spec.stem.stride !== stem.stride) return null;
  const depths = splitStages(space, spec, (stage, position, block, inChannels) =>
    block.op === "mbconv" && !block.activate_output && block.stride === (position ? 1 : space.stages[stage].stride)
      && (!position || block.out === inChannels));
  if (!depths) return null;
  const outs = [first.out];
  depths.reduce((end, depth) => { outs.push(spec.blocks[end + depth - 1].out); return end + depth; }, 1);
  const distance = (width) => outs.reduce((sum, out, i) => sum + Math.abs(Math.log(out / width.outs[i])), 0);
  const width = space.widths.reduce((best, one) => (distance(one) < distance(best) ? one : best));
  return { width, depths, member: false, plain: distance(width) === 0 };
}

/** Return depths of the stages such that `fits(stage, position, block, inChannels)` holds for all blocks, or null. */
function splitStages(space, spec, fits) {
  const placed = walk(spec);
  const split = (stage, start) => {
    if (stage === space.stages.length) return start === placed.length ? [] : null;
    for (const depth of space.stages[stage].depths) {
      const blocks = placed.slice(start, start + depth);
      if (blocks.length === depth
        && blocks.every(({ block, inChannels }, position) => fits(stage, position, block, inChannels))) {
        const rest = split(stage + 1, start + depth);
        if (rest) return [depth, ...rest];
      }
    }
    return null;
  };
  return split(0, 1);
}

/** Return stage and position of each block behind the first. */
function slotsOf(depths) {
  return depths.flatMap((depth, stage) => Array.from({ length: depth }, (_, position) => ({ stage, position })));
}

/** Return whether the objects have the same values. */
function sameFields(one, other) {
  return Object.keys(other).every((key) => one[key] === other[key]);
}

/** Return a block with the default gate if it has no squeeze-and-excitation. */
function withoutIdleGate(block) {
  return block.se ? block : { ...block, gate: "hard_sigmoid" };
}

/** Return the four choices that a block is. */
function optionOf(block, inChannels) {
  return { kernel: block.kernel, expansion: block.expanded / inChannels, se: block.se > 0,
    activation: block.activation };
}

/** Return whether a block is one of the options of a stage. */
function isOption(stage, block, inChannels) {
  const option = optionOf(block, inChannels);
  return stage.kernels.includes(option.kernel) && stage.expansions.includes(option.expansion)
    && stage.se.includes(option.se) && stage.activations.includes(option.activation);
}

/** Return the block that an option puts into a slot. */
function buildBlock(space, width, { stage, position }, { kernel, expansion, se, activation }) {
  const expanded = expansion * width.outs[stage + (position ? 1 : 0)];
  return { op: "mbconv", kernel, expanded, out: width.outs[stage + 1],
    stride: position ? 1 : space.stages[stage].stride, se: se ? squeezedChannels(expanded) : 0,
    gate: "hard_sigmoid", activation, activate_output: false, start_kernel: 0 };
}

/** Return the options of a stage's block, the last decision running fastest. */
function stageOptions(stage) {
  return stage.kernels.flatMap((kernel) => stage.expansions.flatMap((expansion) => stage.se.flatMap((se) =>
    stage.activations.map((activation) => ({ kernel, expansion, se, activation })))));
}

/** Return the blocks of every option of every slot of a variant, where they stand. */
function slotBlocks(space, variant) {
  const width = space.widths[variant.width_index];
  let size = halved(halved(variant.resolution, width.stem.stride), width.first.stride);
  return space.slots.map(({ stage, position }) => {
    const inSize = size;
    if (!position) size = halved(size, space.stages[stage].stride);
    return stageOptions(space.stages[stage]).map((option) =>
      placeBlock(buildBlock(space, width, { stage, position }, option), width.outs[stage + (position ? 1 : 0)],
        position ? size : inSize));
  });
}

// Latency ---------------------------------------------------------------------------------------------

/** Return a Map from the key of a row to its milliseconds, of all rows known at a resolution. */
function rowsAt(data, resolution) {
  data.row_maps ??= new Map();
  if (!data.row_maps.has(resolution)) {
    const rows = new Map(Object.entries(data.rows));
    for (const space of data.spaces) {
      for (const variant of space.variants.filter((one) => one.resolution === resolution)) {
        slotBlocks(space, variant).forEach((blocks, slot) => blocks.forEach((placed, option) =>
          rows.set(blockKey(placed), variant.ms[slot][option] * data.ms_unit)));
      }
    }
    data.row_maps.set(resolution, rows);
  }
  return data.row_maps.get(resolution);
}

/** Return the milliseconds of each part of a network, and of what they are: a row, or an approximation near rows.
 *
 * `place` is where its blocks stand. `anchor` is a network whose rows are known: what its parts differ by from their
 * approximations corrects those of the same shape. A part without both has null.
 */
function partTimes(data, spec, place, anchor = null) {
  const parts = networkParts(spec, data.classes);
  const rows = rowsAt(data, spec.resolution);
  const slots = place && slotsOf(place.depths);
  return parts.map((part, index) => {
    if (rows.has(part.key)) return { ...part, ms: rows.get(part.key), near: false };
    const near = place && nearMs(data, spec, place, parts, index, slots);
    const known = anchor && near !== null && anchorOffset(data, part, slots[index - 2], anchor);
    return { ...part, ms: near === null ? null : Math.max(0, near + (known || 0)), near: near !== null };
  });
}

/** Return the sum of parts' milliseconds; the number of those approximated, and of those without any. */
function totalTime(parts) {
  const missing = parts.filter((part) => part.ms === null).length;
  return { ms: missing ? null : parts.reduce((sum, part) => sum + part.ms, 0), missing,
    near: parts.filter((part) => part.near).length };
}

/** Scale the approximated parts of a network so that all add up to `measured` milliseconds, if that is plausible. */
function scaleNear(parts, measured) {
  const near = parts.filter((part) => part.near);
  const sum = near.reduce((total, part) => total + part.ms, 0);
  const factor = (sum + measured - totalTime(parts).ms) / sum;
  if (near.length && !totalTime(parts).missing && factor > 0.5 && factor < 2) {
    near.forEach((part) => Object.assign(part, { ms: factor * part.ms, scaled: true }));
  }
}

/** Return the milliseconds of a part without a row, from the rows of the nearest width; null if there are none. */
function nearMs(data, spec, place, parts, index, slots) {
  const variant = nearestVariant(data.spaces[place.space], place.width, spec.resolution);
  if (!variant) return null;
  const part = parts[index];
  if (index >= 2 && index < parts.length - 1) return nearBlockMs(data, place.space, variant, slots[index - 2], part);
  const like = networkParts(memberSpec(data.spaces[place.space], variant, null), data.classes);
  const same = like[index < 2 ? index : like.length - 1];
  return rowsAt(data, spec.resolution).get(same.key) * part.macs / same.macs;
}

/** Return the variant of a resolution (pixels) that is nearest in width; undefined if there is none. */
function nearestVariant(space, width, resolution) {
  const distance = (variant) => Math.abs(Math.log(space.widths[variant.width_index].width / width.width));
  return space.variants.filter((variant) => variant.resolution === resolution)
    .sort((one, other) => distance(one) - distance(other))[0];
}

/** Return the milliseconds of a block between the slot's rows of other expansions, as a function of their MACs. */
function nearBlockMs(data, spaceIndex, variant, { stage, position }, part) {
  const space = data.spaces[spaceIndex];
  const slot = space.slots.findIndex((one) => one.stage === stage && one.position === position);
  const { block } = part.placed;
  variant.blocks ??= slotBlocks(space, variant);
  const points = variant.blocks[slot].flatMap((placed, option) => {
    const same = placed.block.kernel === block.kernel && placed.block.activation === block.activation
      && placed.block.se > 0 === block.se > 0;
    return same ? [[blockLayers(placed).reduce((sum, layer) => sum + layer.macs, 0),
      variant.ms[slot][option] * data.ms_unit]] : [];
  });
  return interpolate(points, part.macs);
}

/** Return the value at `x` of the line through the two points around it, or through the nearest two; null for none.
 *
 * Below all points it is at least proportional to `x`, since the line of two points can fall too steeply.
 */
function interpolate(points, x) {
  if (points.length < 2) return points.length ? points[0][1] * x / points[0][0] : null;
  const sorted = [...points].sort((one, other) => one[0] - other[0]);
  const after = sorted.findIndex((point) => point[0] >= x);
  const end = after < 0 ? sorted.length - 1 : Math.max(1, after);
  const [[x0, y0], [x1, y1]] = [sorted[end - 1], sorted[end]];
  const value = x1 === x0 ? y0 : y0 + (y1 - y0) * (x - x0) / (x1 - x0);
  return x < x0 ? Math.max(value, y0 * x / x0) : value;
}

/** Return by how much the anchor's part in the same place exceeds its approximation; 0 if the shapes differ. */
function anchorOffset(data, part, slot, anchor) {
  if (!anchor.place) return 0;
  const { parts } = anchor;
  if (!slot) { // stem, first block, head: of which only the very same one is known
    const same = parts.find((one) => one.key === part.key && one.scaled);
    return same ? same.ms - nearMs(data, anchor.spec, anchor.place, parts, parts.indexOf(same),
      slotsOf(anchor.place.depths)) : 0;
  }
  const index = slotsOf(anchor.place.depths).findIndex((one) =>
    one.stage === slot.stage && one.position === slot.position);
  const known = parts[index + 2];
  if (index < 0 || known.ms === null || (known.near && !known.scaled)) return 0;
  const { placed } = part;
  const same = known.placed.inChannels === placed.inChannels && known.placed.inSize === placed.inSize
    && known.placed.block.out === placed.block.out;
  const near = same && nearMs(data, anchor.spec, anchor.place, parts, index + 2, slotsOf(anchor.place.depths));
  return same && near !== null ? known.ms - near : 0;
}

// Changes ---------------------------------------------------------------------------------------------

/** Return the network that options put together; the smallest without any. `options` has null for an absent block. */
function memberSpec(space, variant, options) {
  const width = space.widths[variant.width_index];
  const blocks = [{ ...width.first }];
  space.slots.forEach((slot, index) => {
    const stage = space.stages[slot.stage];
    const option = options ? options[index]
      : slot.position < stage.depths[0] ? stageOptions(stage)[0] : null;
    if (option) blocks.push(buildBlock(space, width, slot, option));
  });
  return { name: `${space.name}@${width.label}`, resolution: variant.resolution, norm_eps: space.norm_eps,
    stem: { ...width.stem }, blocks, head: { ...width.head } };
}

/** Return the network with choices of one block changed. A changed expansion gives SE its usual channels. */
function withChoice(spec, index, changes) {
  const { se, ...others } = changes;
  const before = spec.blocks[index];
  const block = { ...before, ...others };
  const wanted = se ?? before.se > 0;
  if (wanted !== before.se > 0 || block.expanded !== before.expanded) {
    block.se = wanted ? squeezedChannels(block.expanded) : 0;
  }
  return { ...spec, blocks: spec.blocks.map((one, i) => (i === index ? block : one)) };
}

/** Return the network with another depth of a stage: without its last blocks, or with more like its last. */
function withDepth(space, spec, place, stage, depth) {
  const start = 1 + place.depths.slice(0, stage).reduce((sum, one) => sum + one, 0);
  const now = place.depths[stage];
  const blocks = spec.blocks.slice(start, start + Math.min(now, depth));
  while (blocks.length < depth) {
    const last = blocks[blocks.length - 1];
    const inChannels = walk(spec)[start + blocks.length - 1]?.inChannels ?? last.out;
    const expanded = blocks.length > 1 ? last.expanded
      : last.out * nearest(space.stages[stage].expansions, last.expanded / inChannels);
    blocks.push({ ...last, stride: 1, expanded, se: last.se ? squeezedChannels(expanded) : 0 });
  }
  return { ...spec, blocks: [...spec.blocks.slice(0, start), ...blocks, ...spec.blocks.slice(start + now)] };
}

/** Return the number of a list that is nearest to a value. */
function nearest(numbers, value) {
  return numbers.reduce((best, one) => (Math.abs(one - value) < Math.abs(best - value) ? one : best));
}

/** Return the network at another variant. At another width each block keeps its ratio of expansion.
 *
 * With `snap` each block becomes the nearest option of the space, and the network a member of it.
 */
function withVariant(space, spec, place, variant, snap = false) {
  const width = space.widths[variant.width_index];
  if (width === place.width && place.plain && !snap) return { ...spec, resolution: variant.resolution };
  const placed = walk(spec);
  const blocks = slotsOf(place.depths).map((slot, index) => {
    const { block, inChannels } = placed[index + 1];
    const stage = space.stages[slot.stage];
    const at = width.outs[slot.stage + (slot.position ? 1 : 0)];
    const ratio = block.expanded / inChannels;
    const option = { kernel: block.kernel, expansion: ratio, se: block.se > 0, activation: block.activation };
    if (snap) {
      Object.assign(option, { kernel: nearest(stage.kernels, block.kernel), expansion: nearest(stage.expansions, ratio),
        se: stage.se.includes(option.se) ? option.se : stage.se[0],
        activation: stage.activations.includes(option.activation) ? option.activation : stage.activations[0] });
    }
    const built = buildBlock(space, width, slot, option);
    const expanded = stage.expansions.includes(option.expansion) ? built.expanded : roundChannels(ratio * at);
    return { ...built, expanded, se: option.se ? squeezedChannels(expanded) : 0 };
  });
  return { ...memberSpec(space, variant, null), blocks: [{ ...width.first }, ...blocks] };
}

/** Return the name of each ablation and a function that makes it of one block, as in the MobileNetV3 paper. */
function ablations(hswishFrom) {
  return [
    { id: "hswish", name: `h-swish from ${hswishFrom} channels on, ReLU before`,
      change: (block) => ({ activation: block.out >= hswishFrom ? "hswish" : "relu" }) },
    { id: "relu", name: "ReLU everywhere", change: () => ({ activation: "relu" }) },
    { id: "hswish-all", name: "h-swish everywhere", change: () => ({ activation: "hswish" }) },
    { id: "se", name: "SE everywhere", change: () => ({ se: true }) },
    { id: "no-se", name: "SE nowhere", change: () => ({ se: false }) },
    ...[3, 5, 7].map((kernel) => ({ id: `kernel-${kernel}`, name: `all kernels ${kernel}×${kernel}`,
      change: () => ({ kernel }) })),
    { id: "minimalistic", name: "minimalistic: kernels 3×3, no SE, ReLU",
      change: () => ({ kernel: 3, se: false, activation: "relu" }) },
  ];
}

/** Return the network with a change made in every block of its stages. What a stage cannot choose stays as it is. */
function ablate(space, spec, place, change) {
  return slotsOf(place.depths).reduce((changed, { stage }, index) => {
    const { kernels, se, activations } = space.stages[stage];
    const known = { kernel: kernels, se, activation: activations };
    const possible = Object.entries(change(spec.blocks[index + 1]))
      .filter(([name, value]) => known[name].includes(value));
    return withChoice(changed, index + 1, Object.fromEntries(possible));
  }, spec);
}

// Networks with all their numbers ----------------------------------------------------------------------

/** Return a network with where it stands, its parts, milliseconds, costs and estimate.
 *
 * `anchor` is another such, from which it was made. `measured` are the milliseconds of the whole network, if known:
 * parts without a row are scaled to them.
 */
function evaluateNetwork(data, spec, preferred = 0, anchor = null, measured = null) {
  const place = placeInSpace(data, spec, preferred);
  const parts = partTimes(data, spec, place, anchor);
  if (measured !== null) scaleNear(parts, measured);
  return { spec, place, parts, time: totalTime(parts), cost: totalCost(parts), estimate: estimate(spec, data.prior) };
}
