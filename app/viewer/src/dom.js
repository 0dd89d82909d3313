// Elements without a framework: h("button", {title, onclick}, "text"). Text is always text, never HTML.

const SVG = "http://www.w3.org/2000/svg"

export function h(tag, props = {}, ...children) {
  return fill(document.createElement(tag), props, children)
}

export function svg(tag, props = {}, ...children) {
  const element = document.createElementNS(SVG, tag)
  for (const [name, value] of Object.entries(props)) element.setAttribute(name, String(value))
  element.append(...children)
  return element
}

function fill(element, props, children) {
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value)
    else if (name in element && typeof value !== "string") element[name] = value
    else element.setAttribute(name, value === true ? "" : String(value))
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined && child !== false))
  return element
}

const ICONS = {
  mpr: "M3 3h8v8H3zM13 3h8v8h-8zM3 13h8v8H3z",
  four: "M3 3h8v8H3zM13 3h8v8h-8zM3 13h8v8H3zM13 13h8v8h-8z",
  single: "M3 3h18v18H3z",
  cube: "M12 2l9 5v10l-9 5-9-5V7zM3 7l9 5 9-5M12 12v10",
  cross: "M12 2v20M2 12h20",
  contrast: "M12 3a9 9 0 1 0 0 18zM12 3a9 9 0 0 1 0 18",
  hand: "M8 12V6a1.5 1.5 0 0 1 3 0v5V4.5a1.5 1.5 0 0 1 3 0V11V6a1.5 1.5 0 0 1 3 0v8a6 6 0 0 1-6 7h-1c-2 0-3-1-4-2.5L3.5 14A1.5 1.5 0 0 1 6 12.5z",
  ruler: "M3 17L17 3l4 4L7 21zM8 12l2 2M11 9l2 2M14 6l2 2",
  camera: "M4 7h4l2-3h4l2 3h4v13H4zM12 10a4 4 0 1 0 .01 0",
  help: "M12 22a10 10 0 1 0-.01 0M9 9a3 3 0 1 1 4 3c-.7.3-1 .8-1 1.6M12 17.5v.01",
  full: "M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5",
  reset: "M4 4v6h6M4.5 10A8 8 0 1 1 4 14",
  eye: "M2 12s4-7 10-7 10 7 10 7-4 7-10 7S2 12 2 12zM12 9a3 3 0 1 0 .01 0",
  hidden: "M3 3l18 18M5 7.5C3 9.500 2 12 2 12s4 7 10 7c1.700 0 3.200-.5 4.500-1.200M9.500 5.300C10.300 5.100 11.100 5 12 5c6 0 10 7 10 7s-.8 1.500-2.300 3.100",
  solo: "M12 4a8 8 0 1 0 .01 0M12 9a3 3 0 1 0 .01 0",
  target: "M12 5a7 7 0 1 0 .01 0M12 2v5M12 17v5M2 12h5M17 12h5",
  brush: "M20 4L10 14M9 13c-3 0-4 2-4 4 0 1.500-1 2.500-2 3 2 1 7 1 8-3 .5-2-.5-3.500-2-4z",
  eraser: "M4 15l9-10 7 6-8 9H8zM9 10l7 6",
  bucket: "M5 11l7-7 8 8-7 7a2 2 0 0 1-3 0l-5-5a2 2 0 0 1 0-3zM20 15c1.500 2 2 3 2 4a2 2 0 0 1-4 0c0-1 .5-2 2-4z",
  undo: "M9 5L4 10l5 5M4 10h10a6 6 0 0 1 0 12h-3",
  redo: "M15 5l5 5-5 5M20 10H10a6 6 0 0 0 0 12h3",
  outline: "M12 3l8 5v8l-8 5-8-5V8z",
  bone: "M7 4a2.500 2.500 0 0 0-2.500 3.500A2.500 2.500 0 1 0 7.500 10L14 16.500a2.500 2.500 0 1 0 2.500 3 2.500 2.500 0 1 0 3-3.500 2.500 2.500 0 0 0-3-2L10 7.500A2.500 2.500 0 0 0 7 4z",
  flip: "M7 4L3 8l4 4M3 8h14M17 12l4 4-4 4M21 16H7",
  close: "M5 5l14 14M19 5L5 19",
  diff: "M9 4a7 7 0 1 0 .01 0M15 6a7 7 0 1 0 .01 0",
  trash: "M4 7h16M9 7V4h6v3M6 7l1 14h10l1-14",
}

export function icon(name) {
  const path = svg("path", {
    d: ICONS[name],
    fill: "none",
    stroke: "currentColor",
    "stroke-width": 1.8,
    "stroke-linecap": "round",
    "stroke-linejoin": "round",
  })
  return svg("svg", { viewBox: "0 0 24 24", width: 18, height: 18, "aria-hidden": "true" }, path)
}

/** A button that shows an icon and says its name to those who hover or listen. */
export function button(name, label, onclick, props = {}) {
  return h("button", { type: "button", title: label, "aria-label": label, onclick, ...props }, icon(name))
}

export function setPressed(element, pressed) {
  element.setAttribute("aria-pressed", pressed ? "true" : "false")
}
