// The row of tools over the pictures.

import { button, h, setPressed } from "./dom.js"

export const PRESETS = {
  head_neck: [-140, 260],
  brain: [0, 80],
  soft_tissue: [-135, 215],
  bone: [-500, 1500],
  lung: [-1350, 150],
}
const LAYOUTS = { mpr: "mpr", four: "four", axial: "single", coronal: "single", sagittal: "single", "3d": "cube" }
const TOOLS = { move: "cross", window: "contrast", pan: "hand", measure: "ruler" }

export class Toolbar {
  /** `hands` answers every button by name. */
  constructor(words, hands) {
    this.words = words
    this.hands = hands
    this.layout = h("select", { class: "layout", "aria-label": words["layout"], title: words["layout"], onchange: (e) => hands.setLayout(e.target.value) }, ...Object.keys(LAYOUTS).map((name) => h("option", { value: name }, words[`layout.${name}`])))
    this.presets = new Map(Object.keys(PRESETS).map((name) => [name, h("button", { type: "button", class: "text preset", onclick: () => hands.setPreset(name) }, words[`preset.${name}`])]))
    this.level = this.#number("window.level", -1024, 3071, () => this.#typed())
    this.width = this.#number("window.width", 1, 4096, () => this.#typed())
    this.tools = new Map(Object.entries(TOOLS).map(([name, icon]) => [name, button(icon, words[`tool.${name}`], () => hands.setTool(name))]))
    this.opacity = h("input", { type: "range", min: "0", max: "100", step: "5", value: "45", "aria-label": words["opacity"], title: words["opacity"], oninput: (e) => hands.setOpacity(Number(e.target.value) / 100) })
    this.outline = button("outline", words["outline"], () => hands.toggleOutline())
    this.difference = button("diff", words["difference"], () => hands.toggleDifference())
    this.correct = h("button", { type: "button", class: "text", onclick: () => hands.toggleEditing() }, words["edit"])
    this.element = h(
      "div",
      { class: "bar", role: "toolbar", "aria-label": words["toolbar"] },
      this.layout,
      h("div", { class: "group presets", role: "group", "aria-label": words["window"] }, ...this.presets.values()),
      h("div", { class: "group numbers" }, this.level.label, this.width.label),
      h("div", { class: "group", role: "group", "aria-label": words["tools"] }, ...this.tools.values()),
      (this.overlayGroup = h("div", { class: "group overlay-tools" }, h("label", { class: "slider", title: words["opacity"] }, this.opacity), this.outline, this.difference)),
      h("span", { class: "grow" }),
      this.correct,
      h(
        "div",
        { class: "group" },
        button("reset", words["reset"], () => hands.resetView()),
        button("camera", words["screenshot"], () => hands.screenshot()),
        (this.full = button("full", words["fullscreen"], () => hands.fullscreen())),
        button("help", words["help"], () => hands.help()),
      ),
    )
  }

  #number(key, low, high, change) {
    const input = h("input", { type: "number", min: String(low), max: String(high), step: "1", "aria-label": this.words[key], onchange: change })
    return { input, label: h("label", { class: "number", title: this.words[key] }, this.words[`${key}.short`], input) }
  }

  #typed() {
    const [level, width] = [Number(this.level.input.value), Math.max(1, Number(this.width.input.value))]
    if (Number.isFinite(level) && Number.isFinite(width)) this.hands.setWindow(level - width / 2, level + width / 2)
  }

  show(state) {
    this.layout.value = state.layout
    for (const [name, element] of this.presets) setPressed(element, PRESETS[name].every((value, index) => Math.round(state.limits[index]) === value))
    const [low, high] = state.limits
    this.level.input.value = String(Math.round((low + high) / 2))
    this.width.input.value = String(Math.round(high - low))
    for (const [name, element] of this.tools) setPressed(element, name === state.tool)
    this.opacity.value = String(Math.round(state.opacity * 100))
    setPressed(this.outline, state.outline)
    setPressed(this.difference, state.difference)
    setPressed(this.correct, state.editing)
    this.overlayGroup.hidden = !state.hasOrgans
    this.difference.hidden = !state.canCompare
    this.correct.hidden = !state.canEdit
  }
}
