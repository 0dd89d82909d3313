// One scan in the viewer: its pictures, what is written over them, and the result that is shown with it.

import { h } from "./dom.js"
import { inverted } from "./geometry.js"
import { Overlay, Sliders, describe } from "./overlay.js"
import { Pointer } from "./pointer.js"
import { SolidTools } from "./solidtools.js"
import { Stage } from "./stage.js"

const FIRST_MS = 2000

export class Side {
  /** `source` is what the page says of this scan; `hands` answer what fingers ask for (`hands.js`). */
  constructor(source, number, words, hands) {
    Object.assign(this, { source, number, words, hands })
    this.scan = source.scan
    this.base = source.base
    this.inverse = inverted(source.scan.affine)
    this.pictures = h("div", { class: "pictures" })
    this.first = h("img", { class: "first", src: `${source.base}/first.png`, alt: words["first"] })
    this.host = h("div", { class: "stage" }, this.pictures, this.first)
    if (source.title) this.host.append(h("div", { class: "side-title" }, source.title))
    this.model = () => ({})
  }

  async open(onDrawn) {
    this.stage = new Stage(this.pictures)
    await this.#firstIsSeen()
    if (!this.stage.alive) return
    await this.stage.open(this.scan, this.base)
    if (!this.stage.alive) return
    this.overlay = new Overlay(this.pictures)
    this.sliders = new Sliders(this.pictures, this.words, (axis, value) => this.#slide(axis, value))
    if (this.number === 0) {
      this.tools = new SolidTools(this.words, this.hands)
      this.pictures.append(this.tools.element)
    }
    this.pointer = new Pointer(this.pictures, this.stage, this.hands)
    this.stage.onDrawn = () => {
      this.sliders.place(this.stage)
      this.tools?.place(this.stage.tiles)
      this.redraw()
      onDrawn()
    }
    this.first.remove()
  }

  /** Making the interactive picture keeps a slow browser busy for seconds: the first one is drawn before that. */
  async #firstIsSeen() {
    const drawn = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))
    const patience = new Promise((done) => setTimeout(done, FIRST_MS))
    await Promise.race([this.first.decode().then(drawn, () => {}), patience])
  }

  get isOpen() {
    return Boolean(this.stage?.isOpen)
  }

  #slide(axis, value) {
    const voxel = [...this.stage.voxel]
    voxel[axis] = value
    this.hands.moveTo(this.stage, voxel)
  }

  /** What is written over the pictures, drawn anew without the pictures. */
  redraw() {
    this.overlay?.draw(describe(this.stage, this.model()))
  }

  async loadRun() {
    const { stage, source } = this
    stage.setColours(source.organs)
    stage.solid.clear()
    const labels = source.run ? await stage.fetchLabels(source.run.path) : null
    if (this.#shows(source.run)) stage.setLabels(labels)
  }

  /** Whether that is still the result to be shown: another may have been chosen while its files came. */
  #shows(run) {
    return this.source.run?.path === run?.path
  }

  apply(state) {
    if (!this.isOpen) return
    const { stage } = this
    this.tools?.show(state)
    if (stage.layout !== state.layout) stage.setLayout(state.layout)
    stage.setLook({ limits: state.limits, opacity: state.overlay ? state.opacity : 0, outline: state.outline })
    stage.now(() => {
      stage.solid.showVolume(state.volume)
      stage.solid.setCut(state.cut, state.flip)
      stage.solid.show("bone", state.bones)
    })
  }

  /** Organs are hidden by name: two models give them other values. */
  hide(names) {
    this.stage.setHidden(this.source.organs.filter((organ) => names.has(organ.name)).map((organ) => organ.value))
  }

  async addSurfaces(withBones) {
    if (withBones) await this.stage.addBones()
    const { run, organs } = this.source
    if (!run?.surfaces) return
    for (const organ of organs.filter((one) => one.ml > 0)) {
      if (this.stage.solid.has(organ.value)) continue
      const bytes = await this.stage.fetchSurface(`${run.surfaces}/${organ.value}.mz3`)
      if (!this.#shows(run)) return
      await this.stage.addSurface(organ.value, bytes, [...organ.colour, 255])
    }
  }

  dispose() {
    this.stage?.dispose()
  }
}
