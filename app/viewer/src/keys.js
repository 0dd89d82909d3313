// Shortcuts, while the viewer has the focus. Keys that Streamlit takes for itself (r, c) are left alone.

import { PRESETS } from "./toolbar.js"

const LAYOUTS = ["mpr", "four", "axial", "coronal", "sagittal", "3d"]
/** For the help card: the keys, and the words for what they do. */
export const SHORTCUTS = [
  ["↑ ↓ ← →", "keys.move"],
  ["Page ↑ ↓, wheel", "keys.scroll"],
  ["Ctrl + wheel, + −", "keys.zoom"],
  ["0", "keys.reset"],
  ["1 … 5", "keys.presets"],
  ["V", "keys.layout"],
  ["N  B  P  M", "keys.tools"],
  ["O", "keys.overlay"],
  ["L", "keys.outline"],
  ["[  ]", "keys.opacity"],
  ["J  K", "keys.organs"],
  ["X", "keys.crosshair"],
  ["Delete", "keys.measures"],
  ["S", "keys.screenshot"],
  ["F", "keys.fullscreen"],
  ["Ctrl + Z, Y", "keys.undo"],
  [",  .", "keys.pen"],
  ["H  ?", "keys.help"],
]

export function onKey(event, hands) {
  const field = event.composedPath()[0]
  const isTyping = field.tagName === "INPUT" && field.type !== "range" && field.type !== "checkbox"
  if (isTyping || field.tagName === "SELECT") return
  if (field.tagName === "INPUT" && field.type === "range" && /^(Arrow|Page|Home|End)/.test(event.key)) return
  if ((event.ctrlKey || event.metaKey) && ["z", "y"].includes(event.key.toLowerCase())) {
    hands.undo(event.key.toLowerCase() === "y" || event.shiftKey)
    return done(event)
  }
  if (event.ctrlKey || event.metaKey || event.altKey) return
  if (act(event.key, hands)) done(event)
}

function done(event) {
  event.preventDefault()
  event.stopPropagation()
}

function act(key, hands) {
  const preset = Object.keys(PRESETS)[Number(key) - 1]
  if (preset) return hands.setPreset(preset), true
  const action = {
    ArrowLeft: () => hands.step(-1, 0),
    ArrowRight: () => hands.step(1, 0),
    ArrowUp: () => hands.step(0, -1),
    ArrowDown: () => hands.step(0, 1),
    PageUp: () => hands.scrollActive(1),
    PageDown: () => hands.scrollActive(-1),
    "+": () => hands.zoomActive(1.25),
    "=": () => hands.zoomActive(1.25),
    "-": () => hands.zoomActive(0.8),
    0: () => hands.resetView(),
    v: () => hands.setLayout(LAYOUTS[(LAYOUTS.indexOf(hands.layout()) + 1) % LAYOUTS.length]),
    n: () => hands.setTool("move"),
    b: () => hands.setTool("window"),
    p: () => hands.setTool("pan"),
    m: () => hands.setTool("measure"),
    o: () => hands.toggleOverlay(),
    l: () => hands.toggleOutline(),
    "[": () => hands.opacityBy(-0.05),
    "]": () => hands.opacityBy(0.05),
    ",": () => hands.penBy(-1),
    ".": () => hands.penBy(1),
    j: () => hands.nextOrgan(1),
    k: () => hands.nextOrgan(-1),
    x: () => hands.toggleCrosshair(),
    Delete: () => hands.clearMeasures(),
    Backspace: () => hands.clearMeasures(),
    s: () => hands.screenshot(),
    f: () => hands.fullscreen(),
    h: () => hands.help(),
    "?": () => hands.help(),
    Escape: () => hands.escape(),
  }[key.length === 1 ? key.toLowerCase() : key]
  if (!action) return false
  action()
  return true
}
