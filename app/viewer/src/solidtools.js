// What the 3-D picture shows, chosen in its own corner.

import { button, h, setPressed } from "./dom.js"

const PLANES = ["", "axial", "coronal", "sagittal"]

export class SolidTools {
  constructor(words, hands) {
    this.bones = button("bone", words["bones"], () => hands.toggleBones())
    this.volume = button("cube", words["volume3d"], () => hands.toggleVolume())
    const options = PLANES.map((plane) => h("option", { value: plane }, plane ? `${words["cut"]}: ${words[`plane.${plane}`]}` : words["cut.none"]))
    this.cut = h("select", { class: "cut", "aria-label": words["cut"], title: words["cut"], onchange: (event) => hands.setCut(event.target.value) }, ...options)
    this.flip = button("flip", words["cut.flip"], () => hands.flipCut())
    this.element = h("div", { class: "solid-tools", role: "group", "aria-label": words["plane.3d"], hidden: true }, this.bones, this.volume, this.cut, this.flip)
  }

  /** In the upper right corner of the 3-D tile; nowhere where there is none. */
  place(tiles) {
    const tile = tiles.find((one) => one.plane === "3d")
    this.element.hidden = !tile
    if (tile) Object.assign(this.element.style, { top: `${tile.top + 8}px`, left: `${tile.left + tile.width - 8}px` })
  }

  show(state) {
    setPressed(this.bones, state.bones)
    setPressed(this.volume, state.volume)
    setPressed(this.flip, state.flip)
    this.cut.value = state.cut
    this.flip.hidden = !state.cut
  }
}
