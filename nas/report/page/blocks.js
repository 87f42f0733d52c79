"use strict";
// The drawn networks: what is pointed at, or focused, is described in words.

/** Describe the block that is pointed at or focused. */
function startBlocks() {
  const about = document.getElementById("about-block");
  const describe = (event) => {
    const box = event.target.closest(".box");
    if (box) about.textContent = box.dataset.details;
  };
  for (const chain of document.querySelectorAll(".chain")) {
    for (const kind of ["pointerover", "focusin", "click"]) chain.addEventListener(kind, describe);
  }
}
