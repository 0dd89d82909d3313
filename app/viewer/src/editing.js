// Correcting a mask: pen, eraser and fill on the full-resolution voxels, with undo; saved as a version of its own.

import { button, h, setPressed } from "./dom.js"
import { postJson } from "./fetching.js"
import { AXIS } from "./geometry.js"
import { drawPiece } from "./strokes.js"

export const PENS = ["paint", "erase", "fill"]
// As many strokes as the server can take back (`app/drafts.py`).
const MAX_STEPS = 100
const round = (value) => Math.round(value * 1000) / 1000

export class Editing {
  /** `hands` answers: setTool(tool), setVolumes(volumes), say(text, isError), saved(run), close(), labelsChanged(). */
  constructor(words, stage, url, organs, hands) {
    Object.assign(this, { words, stage, url, organs, hands })
    this.value = organs[0]?.value || 0
    this.radius = 4
    this.ball = false
    this.protect = true
    this.stroke = null
    this.isOpen = false
    this.isSaving = false
    this.isClosed = false
    this.queue = Promise.resolve()
    this.element = this.#build()
  }

  #build() {
    const { words } = this
    this.organ = h(
      "select",
      { "aria-label": words["edit.organ"], onchange: (event) => (this.value = Number(event.target.value)) },
      ...this.organs.map((organ) => h("option", { value: String(organ.value) }, organ.title)),
    )
    this.pens = new Map(
      PENS.map((tool) => [tool, button({ paint: "brush", erase: "eraser", fill: "bucket" }[tool], words[`edit.${tool}`], () => this.hands.setTool(tool))]),
    )
    this.size = h("input", { type: "range", min: "1", max: "30", step: "0.5", value: String(this.radius), "aria-label": words["edit.size"], oninput: (e) => this.#setSize(Number(e.target.value)) })
    this.sizeText = h("output", { class: "number" }, this.#sizeWords())
    this.ballBox = this.#check("edit.ball", false, (on) => (this.ball = on))
    this.protectBox = this.#check("edit.protect", true, (on) => (this.protect = on))
    this.undoButton = button("undo", words["edit.undo"], () => this.ask("undo"))
    this.redoButton = button("redo", words["edit.redo"], () => this.ask("redo"))
    this.saveButton = h("button", { type: "button", class: "primary", onclick: () => this.save() }, words["edit.save"])
    const discard = h("button", { type: "button", class: "text", onclick: () => this.ask("discard") }, words["edit.discard"])
    const close = h("button", { type: "button", class: "text", onclick: () => this.hands.close() }, words["edit.close"])
    this.#steps(0, 0)
    return h(
      "div",
      { class: "bar edit", role: "toolbar", "aria-label": words["edit"], "aria-busy": "true" },
      this.organ,
      h("div", { class: "group" }, ...this.pens.values()),
      h("label", { class: "slider" }, words["edit.size"], this.size, this.sizeText),
      this.ballBox,
      this.protectBox,
      h("div", { class: "group" }, this.undoButton, this.redoButton),
      h("span", { class: "grow" }),
      discard,
      close,
      this.saveButton,
    )
  }

  #check(key, on, change) {
    const box = h("input", { type: "checkbox", checked: on, onchange: (event) => change(event.target.checked) })
    return h("label", { class: "check" }, box, this.words[key])
  }

  #setSize(radius) {
    this.radius = radius
    this.sizeText.textContent = this.#sizeWords()
  }

  #sizeWords() {
    return `${(2 * this.radius).toFixed(0)} mm`
  }

  biggerBy(step) {
    this.#setSize(Math.min(30, Math.max(1, this.radius + step)))
    this.size.value = String(this.radius)
  }

  get colour() {
    const organ = this.organs.find((one) => one.value === this.value)
    return organ ? `rgb(${organ.colour.join(" ")})` : "#fff"
  }

  markTool(tool) {
    for (const [name, element] of this.pens) setPressed(element, name === tool)
  }

  /** Shows the draft, which may hold strokes of an earlier visit. */
  async open() {
    await this.#showDraft()
    await this.ask("open")
    this.isOpen = true
    this.element.setAttribute("aria-busy", "false")
  }

  /** From now on the viewer shows the saved result: what the server still answers is not to be seen. */
  close() {
    this.isClosed = true
  }

  async #showDraft() {
    if (this.isClosed) return
    const labels = await this.stage.fetchLabels(`${this.url}/mask?draft=1`)
    if (!this.isClosed) this.stage.setLabels(labels)
  }

  penDown(tile, voxel, tool) {
    if (!this.isOpen || this.isSaving) return undefined
    if (tool === "fill") return this.#fill(tile, voxel)
    const start = voxel.map(round)
    const slice = Math.floor(start[AXIS[tile.plane]] + 0.5)
    const { value, radius, ball, protect } = this
    this.stroke = { op: tool, plane: tile.plane, points: [start], slice, value, radius, ball, protect, erase: tool === "erase" }
    return this.#piece(start, start)
  }

  penMove(voxel) {
    if (!this.stroke) return
    const next = voxel.map(round)
    const last = this.stroke.points.at(-1)
    if (Math.hypot(...next.map((value, axis) => value - last[axis])) < 0.25) return
    this.stroke.points.push(next)
    this.#piece(last, next)
  }

  penUp() {
    const { stroke } = this
    this.stroke = null
    if (stroke) this.#send({ op: stroke.op, value: stroke.value, plane: stroke.plane, points: stroke.points, radius_mm: stroke.radius, ball: stroke.ball, protect: stroke.protect })
  }

  #piece(from, to) {
    const { labels, scan } = this.stage
    const box = drawPiece(labels, scan.shape, scan.spacing, this.stroke, from, to)
    if (box) this.stage.refreshLabels(box)
  }

  #fill(tile, voxel) {
    const { value, protect } = this
    this.#send({ op: "fill", value, plane: tile.plane, points: [voxel.map(round)], protect }, true)
  }

  ask(op) {
    return this.isSaving ? this.queue : this.#send({ op }, op !== "open")
  }

  /** Strokes are sent one after the other; `reload` fetches what came of it. */
  #send(order, reload = false) {
    this.queue = this.queue.then(async () => {
      const answer = await postJson(`${this.stage.base}/${this.url}/edit`, order)
      if (!answer.ok) return this.#refused(answer)
      if (this.isClosed) return undefined
      const isOurs = this.#isOurs(order, answer)
      this.#tell(answer)
      return reload || !isOurs ? this.#showDraft() : undefined
    }).catch(() => this.#refused({}))
    return this.queue
  }

  /** In another tab the same draft may have been drawn on, or saved: the server then counts other strokes than ours. */
  #isOurs(order, answer) {
    return order.op === "open" || answer.undo === Math.min(this.undo + (answer.voxels > 0 ? 1 : 0), MAX_STEPS)
  }

  #tell(answer) {
    this.#steps(answer.undo, answer.redo)
    this.hands.setVolumes(answer.volumes)
    this.hands.labelsChanged()
    this.hands.say("")
  }

  async #refused(answer) {
    this.hands.say(this.words[answer.reason] || this.words["edit.lost"], true)
    // The picture must never show a stroke that was not done.
    try {
      await this.#showDraft()
    } catch {
      this.hands.say(this.words["lost"], true)
    }
  }

  #steps(undo, redo) {
    this.undo = undo
    this.undoButton.disabled = !undo
    this.redoButton.disabled = !redo
  }

  /** From now on no stroke is taken, unless saving fails: the version would lack it. */
  save() {
    this.penUp()
    this.#setSaving(true)
    this.queue = this.queue.then(async () => {
      const answer = await postJson(`${this.stage.base}/${this.url}/edit`, { op: "save" }).catch(() => ({ ok: false, reason: "lost" }))
      if (answer.ok) return this.hands.saved(answer.run)
      this.#setSaving(false)
      return this.#refused(answer)
    })
    return this.queue
  }

  #setSaving(on) {
    this.isSaving = on
    this.saveButton.disabled = on
    this.element.setAttribute("aria-busy", String(on))
  }
}
