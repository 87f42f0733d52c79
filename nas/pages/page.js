"use strict";
// What every page's script needs.

/** Return the data that the page was written with. */
function pageData() {
  return JSON.parse(document.getElementById("page-data").textContent);
}

/** Return the value of a colour of the style sheet, as it is in light or dark now: pageColor("ink"). */
function pageColor(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

/** Return an element with attributes and children; texts become text, never markup. */
function element(tag, attributes = {}, ...children) {
  const svg = ["svg", "g", "rect", "path", "text", "line", "circle", "polygon", "title"].includes(tag);
  const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children);
  return made;
}

/** Let the browser save a text as a file. */
function saveFile(name, text, type = "text/plain") {
  const link = element("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
}
