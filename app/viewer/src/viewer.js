// The viewer as Streamlit mounts it: one per place on the page, kept while the page around it is drawn anew.
// It holds what the visitor has chosen and passes it to the parts; pictures are the business of `stage.js`.

import { h } from "./dom.js"
import { Editing, PENS } from "./editing.js"
import { FlatStage } from "./flat.js"
import { central, isWithin, settled } from "./geometry.js"
import { handsOf } from "./hands.js"
import { HelpCard } from "./help.js"
import { Inspector } from "./inspector.js"
import { onKey } from "./keys.js"
import { Measures } from "./measures.js"
import { Moves } from "./moves.js"
import { OrganList } from "./organs.js"
import { Side } from "./side.js"
import { PRESETS, Toolbar } from "./toolbar.js"

const FIRST = {
  layout: "mpr",
  tool: "move",
  opacity: 0.45,
  outline: false,
  overlay: true,
  crosshair: true,
  bones: false,
  volume: false,
  cut: "",
  flip: false,
  difference: false,
  editing: false,
}

export class Viewer {
  constructor(parent, data, component) {
    Object.assign(this, { parent, data, component, words: data.words })
    this.state = { ...FIRST, limits: [...PRESETS[data.preset]] }
    this.activePlane = "axial"
    this.measures = new Measures(data.scan.spacing)
    this.pen = null
    this.editing = null
    this.shown = {}
    this.moves = new Moves(this, (side) => this.#ask(side, side.stage.voxel))
    this.hands = handsOf(this)
    this.#build()
  }

  #build() {
    const { words, hands } = this
    this.toolbar = new Toolbar(words, hands)
    this.organs = new OrganList(words, { setHidden: (hidden) => this.#hide(hidden), jump: (organ) => this.moves.jump(organ) })
    this.inspector = new Inspector(words["outside"])
    this.message = h("output", { class: "message", role: "status" })
    this.sides = [this.data, this.data.compare].filter(Boolean).map((source, number) => new Side(source, number, words, hands))
    this.sides[0].model = () => ({ words, crosshair: this.state.crosshair, measures: this.measures.list, pen: this.pen })
    if (this.sides[1]) this.sides[1].model = () => ({ words, crosshair: this.state.crosshair, measures: [], pen: null })
    this.editHost = h("div", { class: "edit-host" })
    const work = h("div", { class: "work" }, h("div", { class: "stages" }, ...this.sides.map((side) => side.host)), this.organs.element)
    const foot = h("div", { class: "foot" }, this.inspector.element, h("span", { class: "grow" }), this.message)
    const about = { class: `viewer${this.sides.length > 1 ? " pair" : ""}`, tabIndex: 0, role: "application", "aria-label": words["viewer"], lang: this.data.lang }
    this.root = h("div", about, this.toolbar.element, this.editHost, work, foot)
    this.root.addEventListener("keydown", (event) => onKey(event, hands))
    this.help = new HelpCard(words, this.root)
    this.observer = new ResizeObserver(() => this.sides.forEach((side) => side.isOpen && side.stage.resize()))
    this.link = h("link", { rel: "stylesheet", href: `${this.data.assets}/viewer.css` })
    this.parent.append(this.link, this.root)
  }

  async begin() {
    try {
      await Promise.all(this.sides.map((side) => side.open(() => this.#drawn())))
    } catch (error) {
      if (!this.disposed) this.#flatten(error)
      return
    }
    if (this.disposed) return
    // The pictures' own place: it gives way to the list of organs while the viewer as a whole keeps its size.
    this.sides.forEach((side) => this.observer.observe(side.host))
    if (!this.stage.isSlow && this.sides.length === 1) this.state.layout = "four"
    this.#takeOver(this.data)
    this.#goFirst()
    this.root.dataset.ready = "small"
    const share = (done) => this.say(this.words["loading"].replace("{share}", String(Math.round(done * 100))))
    const isWhole = await this.#tried(async () => {
      for (const side of this.sides) await side.stage.loadVolume(share)
      this.say("")
    })
    if (isWhole) this.root.dataset.ready = "full"
  }

  #flatten(error) {
    console.warn("The interactive view is not available here:", error)
    for (const side of this.sides) side.dispose()
    this.flat = new FlatStage(this.sides[0], this.words)
    this.sides[0].host.replaceChildren(this.flat.element)
    this.root.classList.add("flat")
    this.root.dataset.ready = "flat"
    this.#takeOver(this.data)
  }

  get stage() {
    return this.sides[0].stage
  }

  /** Does what needs the server; says so where it did not work. Tells whether it did. */
  async #tried(action) {
    try {
      await action()
      return !this.disposed
    } catch {
      if (!this.disposed) this.say(this.words["lost"], true)
      return false
    }
  }

  dispose() {
    this.disposed = true
    this.editing?.close()
    this.observer.disconnect()
    for (const side of this.sides) side.dispose()
    this.help.close()
    this.root.remove()
    this.link.remove()
  }

  // --- what the page tells

  update(data, component) {
    this.component = component
    const before = this.data
    this.data = data
    if (JSON.stringify(before) !== JSON.stringify(data) && this.root.dataset.ready) this.#takeOver(data)
  }

  #takeOver(data) {
    const run = data.run ? `${data.run.number}-${data.run.stamp}` : "none"
    this.organs.show(data.organs)
    this.sides.forEach((side, number) => (side.source = number === 0 ? data : data.compare))
    if (this.flat) this.flat.show(data)
    else if (this.shown.run !== run) {
      this.shown.run = run
      if (this.editing) this.#stopEditing()
      for (const side of this.sides) this.#loadRun(side)
    }
    this.#apply()
  }

  async #loadRun(side) {
    const isThere = await this.#tried(() => side.loadRun())
    if (this.disposed) return
    if (side.number === 0) this.#goFirst()
    if (side.number === 0 && isThere) this.root.dataset.run = side.source.run ? String(side.source.run.number) : ""
    if (this.#isSolid()) this.#addSurfaces(side)
  }

  /** Opens on what was found, once for each result. */
  #goFirst() {
    const middles = Object.values(this.data.middles || {})
    const key = JSON.stringify(middles)
    if (this.shown.place === key) return
    this.shown.place = key
    const { shape, spacing } = this.data.scan
    this.moves.moveTo(this.stage, middles.length ? central(middles, spacing) : shape.map((size) => Math.floor(size / 2)))
  }

  // --- what the visitor chooses

  set(values) {
    Object.assign(this.state, values)
    this.#apply()
  }

  #apply() {
    const { state, data } = this
    const offers = { hasOrgans: data.organs.length > 0, canCompare: Boolean(data.compare?.difference), canEdit: Boolean(data.run?.editable) && !this.flat }
    this.toolbar.show({ ...state, ...offers })
    this.editing?.markTool(state.tool)
    this.root.dataset.tool = state.tool
    if (this.flat) return this.flat.apply(state, this.organs.hidden)
    for (const side of this.sides) {
      side.apply(state)
      if (this.#isSolid()) this.#addSurfaces(side)
    }
    return undefined
  }

  #isSolid() {
    return this.state.layout === "four" || this.state.layout === "3d"
  }

  async #addSurfaces(side) {
    if (!side.isOpen) return
    const missing = side.source.run?.surfaces && side.stage.solid.surfaces.size === 0
    if (missing) this.say(this.words["surfaces"])
    if ((await this.#tried(() => side.addSurfaces(this.state.bones))) && missing) this.say("")
  }

  #hide(hidden) {
    if (this.flat) return this.flat.apply(this.state, hidden)
    const names = new Set(this.data.organs.filter((organ) => hidden.has(organ.value)).map((organ) => organ.name))
    for (const side of this.sides) if (side.isOpen) side.hide(names)
    return undefined
  }

  async toggleFullscreen() {
    if (document.fullscreenElement) await document.exitFullscreen()
    else await this.root.requestFullscreen?.()
  }

  // --- planes

  enlarge(tile) {
    if (this.state.layout === tile.plane) return this.set({ layout: this.layoutBefore || "mpr" })
    this.layoutBefore = this.state.layout
    return this.set({ layout: tile.plane })
  }

  focus(tile) {
    if (tile.plane !== "3d") this.activePlane = tile.plane
    this.root.focus({ preventScroll: true })
  }

  // --- under the cursor

  hover(stage, tile, x, y) {
    if (tile.plane === "3d") return
    if (this.editing && PENS.includes(this.state.tool)) this.#showPen(tile, x, y)
    const place = stage.voxelAt(tile, x, y)
    if (isWithin(place, stage.scan.shape)) this.#ask(this.sides.find((side) => side.stage === stage), settled(place, stage.scan.shape))
    else this.inspector.leaveScan()
  }

  #showPen(tile, x, y) {
    this.pen = { tile: tile.plane, x, y, radiusMm: this.editing.radius, colour: this.editing.colour }
    this.sides[0].redraw()
  }

  leave() {
    this.pen = null
    if (!this.sides[0].isOpen) return
    this.sides[0].redraw()
    this.#ask(this.sides[0], this.stage.voxel)
  }

  #ask(side, voxel) {
    this.inspector.ask(side, voxel, Boolean(this.editing) && side.number === 0)
  }

  measure(action) {
    const length = action(this.measures)
    if (length > 0) this.root.dataset.measure = length.toFixed(2)
    if (this.sides[0].isOpen) this.sides[0].redraw()
  }

  // --- correcting

  toggleEditing() {
    if (this.editing) return this.#stopEditing()
    if (!this.data.run?.editable || this.flat) return undefined
    this.editing = new Editing(this.words, this.stage, this.data.run.base, this.data.organs, {
      setTool: (tool) => this.set({ tool }),
      setVolumes: (volumes) => this.organs.setVolumes(volumes),
      say: (text, isError) => this.say(text, isError),
      saved: (run) => this.component.setTriggerValue("saved", run),
      close: () => this.#stopEditing(),
      labelsChanged: () => this.#ask(this.sides[0], this.stage.voxel),
    })
    this.editHost.replaceChildren(this.editing.element)
    this.set({ editing: true, tool: "paint", overlay: true })
    return this.#tried(() => this.editing.open())
  }

  #stopEditing() {
    this.editing?.close()
    this.editing = null
    this.pen = null
    this.editHost.replaceChildren()
    this.set({ editing: false, tool: "move" })
    this.organs.show(this.data.organs)
    this.#loadRun(this.sides[0])
  }

  penMove(tile, voxel, x, y) {
    if (!this.editing) return
    this.editing.penMove(voxel)
    this.#showPen(tile, x, y)
  }

  // --- comparing

  async toggleDifference() {
    const on = !this.state.difference
    this.set({ difference: on })
    const done = await this.#tried(async () => {
      this.stage.setDifference(on ? await this.stage.fetchLabels(this.data.compare.difference) : null)
    })
    if (!done) this.set({ difference: false })
  }

  // --- telling

  #drawn() {
    // Of two sides either may be drawn first.
    if (this.sides[0].isOpen) this.root.dataset.voxel = this.stage.voxel.join(",")
    this.root.dataset.frames = String(Number(this.root.dataset.frames || 0) + 1)
  }

  say(text, isError = false) {
    this.message.textContent = text
    this.message.classList.toggle("error", isError)
  }
}
