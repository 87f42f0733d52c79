"use strict";
// What a person has done, as the fragment of the page's address, so that a link or a reload brings it back.

/** Return the fragment of a state: the networks of beginning and of now, the skeleton, the budget, the block. */
function stateFragment(data, state) {
  const words = new URLSearchParams();
  words.set("skeleton", data.spaces[state.space].name);
  if (state.budget) words.set("budget", String(state.budget));
  if (state.block) words.set("block", String(state.block));
  words.set("hswish", String(state.hswish));
  words.set("from", state.start.name);
  words.set("start", specText(state.start.spec));
  if (specText(state.spec) !== specText(state.start.spec)) words.set("net", specText(state.spec));
  return `#${words}`;
}

/** Return the state of a fragment. Throws an Error for one that names no network. */
function fragmentState(data, fragment) {
  const words = new URLSearchParams(fragment.replace(/^#/, ""));
  const name = words.get("from") || "a network";
  const start = { name, spec: parseSpecText(words.get("start") ?? "", name) };
  const spec = words.has("net") ? parseSpecText(words.get("net"), name) : start.spec;
  const space = Math.max(0, data.spaces.findIndex((one) => one.name === words.get("skeleton")));
  return { start, spec, space, budget: positive(words.get("budget")), block: positive(words.get("block")),
    hswish: positive(words.get("hswish")) };
}

/** Return a number above 0, or null for any other text. */
function positive(text) {
  const value = Number(text);
  return Number.isFinite(value) && value > 0 ? value : null;
}
