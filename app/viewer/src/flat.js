// Without WebGL: three planes drawn by the server, a slider for each. Slower, and the same pictures.

import { h } from "./dom.js"
import { AXIS, PLANES } from "./geometry.js"

export class FlatStage {
  constructor(side, words) {
    this.side = side
    this.words = words
    this.voxel = side.scan.shape.map((size) => Math.floor(size / 2))
    this.state = null
    this.hidden = new Set()
    this.pictures = new Map(PLANES.map((plane) => [plane, this.#plane(plane)]))
    const note = h("p", { class: "flat-note", role: "status" }, words["flat"])
    this.element = h("div", { class: "flat-stage" }, note, h("div", { class: "flat-planes" }, ...[...this.pictures.values()].map((one) => one.element)))
  }

  #plane(plane) {
    const axis = AXIS[plane]
    const label = this.words["slider"].replace("{plane}", this.words[`plane.${plane}`])
    const image = h("img", { alt: this.words[`plane.${plane}`] })
    const oninput = (event) => {
      this.voxel[axis] = Number(event.target.value) - 1
      this.#draw()
    }
    const input = h("input", { type: "range", min: "1", max: String(this.side.scan.shape[axis]), "aria-label": label, oninput })
    return { element: h("figure", {}, image, input), image, input }
  }

  show(data) {
    this.data = data
    const middle = Object.values(data.middles || {})[0]
    if (middle) this.voxel = [...middle]
    this.#draw()
  }

  goTo(voxel) {
    this.voxel = [...voxel]
    this.#draw()
  }

  apply(state, hidden) {
    this.state = state
    this.hidden = hidden
    this.#draw()
  }

  #draw() {
    if (!this.state) return
    const [low, high] = this.state.limits
    const run = this.data?.run ? `&run=${this.data.run.number}` : ""
    const opacity = this.state.overlay ? this.state.opacity : 0
    for (const [plane, { image, input }] of this.pictures) {
      const index = this.voxel[AXIS[plane]]
      input.value = String(index + 1)
      image.src = `${this.side.base}/slice.png?plane=${plane}&index=${index}&low=${low}&high=${high}&opacity=${opacity}&hide=${[...this.hidden].join(",")}${run}`
    }
  }
}
