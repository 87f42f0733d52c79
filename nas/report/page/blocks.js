"use strict";
// The drawn networks: the block that is pointed at, or focused, is described in words.

const STEPS = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 };

/** Let the arrow keys move from block to block; the Tab key comes to each network once. */
function startArrows(boxes) {
  boxes.forEach((box, number) => {
    box.tabIndex = number ? -1 : 0;
    box.addEventListener("keydown", (event) => {
      const next = boxes[number + (STEPS[event.key] ?? 0)];
      if (!(event.key in STEPS) || !next) return;
      event.preventDefault();
      box.tabIndex = -1;
      next.tabIndex = 0;
      next.focus();
    });
  });
}

/** Describe the block that is pointed at or focused. */
function startBlocks() {
  const about = document.getElementById("about-block");
  const describe = (event) => {
    const box = event.target.closest(".box");
    if (box) about.textContent = box.dataset.details;
  };
  for (const chain of document.querySelectorAll(".chain")) {
    startArrows([...chain.querySelectorAll(".box")]);
    // Not pointerover: a page that scrolls to a focused block moves other blocks under a pointer that rests.
    for (const kind of ["pointermove", "focusin", "click"]) chain.addEventListener(kind, describe);
  }
}
