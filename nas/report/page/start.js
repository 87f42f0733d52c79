"use strict";
// The order of drawing: what is seen first is drawn first.

/** Wait until the browser has shown what was drawn so far. */
function shown() {
  return new Promise((resolve) => { setTimeout(resolve, 0); });
}

/** Draw all sections. */
async function drawPage() {
  const begun = performance.now();
  startQuestion();
  startShown();
  startBlocks();
  await drawFront();
  document.body.dataset.firstDrawing = Math.round(performance.now()); // ms after the browser began to read the page
  document.body.dataset.frontDrawing = Math.round(performance.now() - begun); // ms
  for (const draw of [startChoices, drawFidelity, drawProgress, drawTrajectories]) {
    await shown();
    await draw();
  }
  document.body.dataset.drawn = "yes";
}

drawPage();
