// The viewer as Streamlit mounts it: one per place on the page, kept while the page around it is drawn anew.
// It holds what the visitor has chosen and passes it to the parts; pictures are the business of `stage.js`.

import { h } from "./dom.js"
import { Editing } from "./editing.js"
import { askJson } from "./fetching.js"
import { FlatStage } from "./flat.js"
import { AXIS, distanceMm, inverted, settled, toMillimetres } from "./geometry.js"
import { HelpCard } from "./help.js"
import { onKey } from "./keys.js"
import { OrganList } from "./organs.js"
import { Overlay, Sliders, describe } from "./overlay.js"
import { Pointer } from "./pointer.js"
import { saveScreenshot } from "./screenshot.js"
import { Stage } from "./stage.js"
import { PRESETS, Toolbar } from "./toolbar.js"

export { mountDownloads } from "./downloads.js"

const mounted = new WeakMap()

export function mount(component) {
  const { parentElement, data } = component
  const earlier = mounted.get(parentElement)
  if (earlier && earlier.key === keyOf(data)) return earlier.viewer.update(data, component)
  earlier?.viewer.dispose()
  const viewer = new Viewer(parentElement, data, component)
  mounted.set(parentElement, { key: keyOf(data), viewer })
  return viewer.begin()
}

export function unmount(parentElement) {
  mounted.get(parentElement)?.viewer.dispose()
  mounted.delete(parentElement)
}

/** What cannot change without beginning anew. */
function keyOf(data) {
  return JSON.stringify([data.base, data.scan.shape, data.lang, data.compare?.base])
}

class Viewer {
  constructor(parent, data, component) {
    Object.assign(this, { parent, data, component, words: data.words })
    this.state = {
      layout: "mpr",
      limits: [...PRESETS[data.preset]],
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
    this.measures = []
    this.activePlane = "axial"
    this.pen = null
    this.editing = null
    this.loaded = {}
    this.#build()
  }

  // --- building

  #build() {
    this.toolbar = new Toolbar(this.words, this.#hands())
    this.organs = new OrganList(this.words, { setHidden: (hidden) => this.#hide(hidden), jump: (organ) => this.jump(organ) })
    this.status = h("output", { class: "place" })
    this.message = h("output", { class: "message", role: "status" })
    this.sides = [this.data, this.data.compare].filter(Boolean).map((side, number) => this.#side(side, number))
    this.editHost = h("div", { class: "edit-host" })
    this.root = h(
      "div",
      { class: `viewer${this.sides.length > 1 ? " pair" : ""}`, tabIndex: 0, role: "application", "aria-label": this.words["viewer"], lang: this.data.lang },
      this.toolbar.element,
      this.editHost,
      h("div", { class: "work" }, h("div", { class: "stages" }, ...this.sides.map((side) => side.host)), this.organs.element),
      h("div", { class: "foot" }, this.status, h("span", { class: "grow" }), this.message),
    )
    this.root.addEventListener("keydown", (event) => onKey(event, this.#hands()))
    this.help = new HelpCard(this.words, this.root)
    this.observer = new ResizeObserver(() => this.#resize())
    this.link = h("link", { rel: "stylesheet", href: `${this.data.assets}/viewer.css` })
    this.parent.append(this.link, this.root)
  }

  #side(side, number) {
    const pictures = h("div", { class: "pictures" })
    const first = h("img", { class: "first", src: `${side.base}/first.png`, alt: this.words["first"] })
    const host = h("div", { class: "stage" }, pictures, first)
    if (side.title) host.append(h("div", { class: "side-title" }, side.title))
    const inverse = inverted(side.scan.affine)
    return { ...side, number, host, pictures, first, inverse }
  }

  async begin() {
    try {
      await Promise.all(this.sides.map((side) => this.#open(side)))
    } catch (error) {
      if (!this.disposed) this.#flat(error)
      return
    }
    if (this.disposed) return
    this.observer.observe(this.root)
    if (!this.stage.isSlow && this.sides.length === 1) this.state.layout = "four"
    this.#apply()
    this.#takeOver(this.data)
    this.#goFirst()
    this.root.dataset.ready = "small"
    try {
      for (const side of this.sides) await side.stage.loadVolume((share) => this.#loading(share))
    } catch {
      if (!this.disposed) this.say(this.words["lost"], true)
      return
    }
    this.#loading(null)
    this.root.dataset.ready = "full"
  }

  async #open(side) {
    side.stage = new Stage(side.pictures)
    await side.stage.open(side.scan, side.base)
    if (this.disposed) return
    side.overlay = new Overlay(side.pictures)
    side.sliders = new Sliders(side.pictures, this.words, (axis, value) => this.#slide(side, axis, value))
    side.pointer = new Pointer(side.pictures, side.stage, this.#hands())
    side.stage.onDrawn = () => this.#drawn(side)
    side.first.remove()
  }

  #flat(error) {
    console.warn("The interactive view is not available here:", error)
    for (const side of this.sides) side.stage?.dispose()
    this.flat = new FlatStage(this.sides[0], this.words)
    this.sides[0].host.replaceChildren(this.flat.element)
    this.root.classList.add("flat")
    this.root.dataset.ready = "flat"
    this.#takeOver(this.data)
    this.#apply()
  }

  get stage() {
    return this.sides[0].stage
  }

  dispose() {
    this.disposed = true
    this.observer.disconnect()
    for (const side of this.sides) side.stage?.dispose()
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
    this.sides[0].organs = data.organs
    if (this.flat) {
      this.flat.show(data)
      this.#apply()
      return
    }
    if (this.loaded.run !== run) {
      this.loaded.run = run
      if (this.editing) this.#stopEditing()
      for (const side of this.sides) this.#loadRun(side)
    }
    this.#apply()
  }

  async #loadRun(side) {
    const source = side.number === 0 ? this.data : this.data.compare
    side.stage.setColours(source.organs)
    side.stage.clearSurfaces()
    if (!source.run) return side.stage.setLabels(null)
    try {
      side.stage.setLabels(await side.stage.fetchLabels(source.run.path))
      if (side.number === 0) this.#goFirst()
      if (this.#isSolid()) await this.#addSurfaces(side)
    } catch {
      if (!this.disposed) this.say(this.words["lost"], true)
    }
    return undefined
  }

  /** Opens on what was found, once for each result. */
  #goFirst() {
    const middles = Object.values(this.data.middles || {})
    const key = JSON.stringify(middles)
    if (this.loaded.place === key) return
    this.loaded.place = key
    const shape = this.data.scan.shape
    this.moveTo(this.stage, middles.length ? central(middles, this.data.scan.spacing) : shape.map((size) => Math.floor(size / 2)))
  }

  // --- hands: everything that a button, a key or a finger may ask for

  #hands() {
    if (this.hands) return this.hands
    const change = (values) => () => this.#set(values(this.state))
    this.hands = {
      setLayout: (layout) => this.#set({ layout }),
      layout: () => this.state.layout,
      setPreset: (name) => this.#set({ limits: [...PRESETS[name]] }),
      setWindow: (low, high) => this.#set({ limits: [low, high] }),
      windowBy: (dx, dy) => this.#windowBy(dx, dy),
      setTool: (tool) => this.#set({ tool }),
      tool: () => this.state.tool,
      setOpacity: (opacity) => this.#set({ opacity }),
      opacityBy: (step) => this.#set({ opacity: Math.min(1, Math.max(0, this.state.opacity + step)) }),
      toggleOutline: change((state) => ({ outline: !state.outline })),
      toggleOverlay: change((state) => ({ overlay: !state.overlay })),
      toggleCrosshair: change((state) => ({ crosshair: !state.crosshair })),
      toggleBones: change((state) => ({ bones: !state.bones })),
      toggleVolume: change((state) => ({ volume: !state.volume })),
      setCut: (cut) => this.#set({ cut }),
      flipCut: change((state) => ({ flip: !state.flip })),
      toggleDifference: () => this.#toggleDifference(),
      toggleEditing: () => (this.editing ? this.#stopEditing() : this.#startEditing()),
      undo: (again) => this.editing?.ask(again ? "redo" : "undo"),
      resetView: () => this.sides.forEach((side) => side.stage?.resetView()),
      screenshot: () => saveScreenshot(this.sides, (side) => this.#model(side), this.data.words["notice"]),
      fullscreen: () => this.#fullscreen(),
      help: () => this.help.toggle(),
      escape: () => this.help.close() || (this.editing && this.#set({ tool: "move" })),
      moveTo: (stage, voxel) => this.moveTo(stage, voxel),
      step: (dx, dy) => this.#step(dx, dy),
      scroll: (stage, tile, steps) => this.#scroll(stage, tile.plane, steps),
      scrollActive: (steps) => this.#scroll(this.stage, this.activePlane, steps),
      zoomBy: (stage, factor, voxel) => this.#linked(stage, (other) => other.zoom(factor, other === stage ? voxel : other.voxel)),
      zoomActive: (factor) => this.#linked(this.stage, (other) => other.zoom(factor)),
      panBy: (stage, tile, dx, dy) => this.#linked(stage, (other) => other.pan(other === stage ? tile : other.tiles.find((t) => t.plane === tile.plane) || tile, dx, dy)),
      enlarge: (tile) => this.#enlarge(tile),
      focus: (tile) => this.#focus(tile),
      hover: (stage, tile, x, y) => this.#hover(stage, tile, x, y),
      leave: () => this.#leave(),
      nextOrgan: (step) => this.#nextOrgan(step),
      measureFrom: (stage, tile, voxel) => this.#measureFrom(stage, tile, voxel),
      measureTo: (voxel) => this.#measureTo(voxel),
      measureDone: () => this.#measureDone(),
      clearMeasures: () => this.#clearMeasures(),
      penDown: (stage, tile, voxel, tool) => stage === this.stage && this.editing?.penDown(tile, voxel, tool),
      penMove: (stage, tile, voxel, x, y) => this.#penMove(tile, voxel, x, y),
      penUp: () => this.editing?.penUp(),
    }
    return this.hands
  }

  #set(values) {
    Object.assign(this.state, values)
    this.#apply()
  }

  #apply() {
    const { state } = this
    this.toolbar.show({ ...state, hasOrgans: this.data.organs.length > 0, canCompare: Boolean(this.data.compare?.difference), canEdit: Boolean(this.data.run?.editable) && !this.flat })
    this.editing?.markTool(state.tool)
    if (this.flat) return this.flat.apply(state, this.organs.hidden)
    for (const side of this.sides) {
      if (!side.stage?.tableTexture) continue
      const { stage } = side
      if (stage.layout !== state.layout) stage.setLayout(state.layout)
      stage.setWindow(...state.limits)
      stage.setOpacity(state.overlay ? state.opacity : 0)
      stage.setOutline(state.outline)
      stage.setVolumeShown(state.volume)
      stage.setCut(state.cut, state.flip)
      stage.showSurface("bone", state.bones)
      if (this.#isSolid()) this.#addSurfaces(side)
    }
    this.root.dataset.tool = state.tool
    return undefined
  }

  #isSolid() {
    return this.state.layout === "four" || this.state.layout === "3d"
  }

  async #addSurfaces(side) {
    const { stage } = side
    if (this.state.bones) await stage.addBones().catch(() => this.say(this.words["lost"], true))
    const source = side.number === 0 ? this.data : this.data.compare
    if (!source.run?.surfaces) return
    this.#solidNote(true)
    for (const organ of source.organs.filter((one) => one.ml > 0)) {
      try {
        await stage.addSurface(organ.value, `${source.run.surfaces}/${organ.value}.mz3`, [...organ.colour, 255])
      } catch {
        break
      }
    }
    this.#solidNote(false)
  }

  #solidNote(on) {
    if (on !== this.noting) this.say(on ? this.words["surfaces"] : "")
    this.noting = on
  }

  #hide(hidden) {
    if (this.flat) return this.flat.apply(this.state, hidden)
    for (const side of this.sides) {
      const names = new Set(this.data.organs.filter((organ) => hidden.has(organ.value)).map((organ) => organ.name))
      const organs = side.number === 0 ? this.data.organs : this.data.compare.organs
      side.stage.setHidden(organs.filter((organ) => names.has(organ.name)).map((organ) => organ.value))
    }
    return undefined
  }

  #windowBy(dx, dy) {
    const [low, high] = this.state.limits
    const width = Math.max(1, high - low + dx * Math.max(1, (high - low) / 250))
    const level = (low + high) / 2 + dy * Math.max(0.5, (high - low) / 400)
    this.#set({ limits: [level - width / 2, level + width / 2] })
  }

  // --- moving

  moveTo(stage, voxel) {
    stage.setVoxel(voxel)
    for (const side of this.sides) if (side.stage !== stage) this.#follow(stage, side)
    this.#ask(stage)
  }

  /** The same place of the patient in the other scan. */
  #follow(stage, side) {
    const from = this.sides.find((one) => one.stage === stage)
    const matrix = from.number === 0 ? this.data.compare.matrix : inverted(this.data.compare.matrix)
    const place = toMillimetres(matrix, stage.millimetres())
    side.stage.setVoxel(toMillimetres(side.inverse, place))
  }

  #slide(side, axis, value) {
    const voxel = [...side.stage.voxel]
    voxel[axis] = value
    this.moveTo(side.stage, voxel)
  }

  #scroll(stage, plane, steps) {
    if (!stage || plane === "3d") return
    const voxel = [...stage.voxel]
    voxel[AXIS[plane]] += steps
    this.moveTo(stage, voxel)
  }

  #step(dx, dy) {
    const tile = this.stage?.tiles?.find((one) => one.plane === this.activePlane)
    if (!tile) return
    const [u, v] = { axial: [0, 1], coronal: [0, 2], sagittal: [1, 2] }[tile.plane]
    const voxel = [...this.stage.voxel]
    voxel[u] += dx * Math.sign(tile.step[0])
    voxel[v] += dy * Math.sign(tile.step[1])
    this.moveTo(this.stage, voxel)
  }

  jump(organ) {
    const middle = this.data.middles?.[organ.value]
    if (middle && this.stage) this.moveTo(this.stage, middle)
    else if (middle) this.flat?.goTo(middle)
  }

  #nextOrgan(step) {
    const found = this.data.organs.filter((organ) => this.data.middles?.[organ.value])
    if (!found.length) return
    this.organNumber = ((this.organNumber ?? (step > 0 ? -1 : 0)) + step + found.length) % found.length
    this.jump(found[this.organNumber])
  }

  #linked(stage, action) {
    for (const side of this.sides) if (side.stage) action(side.stage)
  }

  #enlarge(tile) {
    const back = this.layoutBefore || "mpr"
    if (this.state.layout === tile.plane) return this.#set({ layout: back })
    this.layoutBefore = this.state.layout
    return this.#set({ layout: tile.plane })
  }

  #focus(tile) {
    if (tile.plane !== "3d") this.activePlane = tile.plane
    this.root.focus({ preventScroll: true })
  }

  async #fullscreen() {
    if (document.fullscreenElement) await document.exitFullscreen()
    else await this.root.requestFullscreen?.()
  }

  // --- values under the cursor

  #hover(stage, tile, x, y) {
    if (this.#isPen() && tile.plane !== "3d") {
      this.pen = { tile: tile.plane, x, y, radiusMm: this.editing.radius, colour: this.editing.colour }
      this.#redraw(this.sides[0])
    }
    if (tile.plane !== "3d") this.#ask(stage, settled(stage.voxelAt(tile, x, y), stage.scan.shape))
  }

  #isPen() {
    return this.editing && ["paint", "erase", "fill"].includes(this.state.tool)
  }

  #leave() {
    this.pen = null
    if (!this.stage?.voxel) return
    this.#redraw(this.sides[0])
    this.#ask(this.stage)
  }

  /** HU and organ come from the full-resolution volume, asked at most once at a time. */
  #ask(stage, voxel = stage.voxel) {
    this.question = { stage, voxel }
    if (!this.asking) this.#answer()
  }

  async #answer() {
    this.asking = true
    while (this.question && !this.disposed) {
      const { stage, voxel } = this.question
      this.question = null
      const side = this.sides.find((one) => one.stage === stage)
      const source = side.number === 0 ? this.data : this.data.compare
      const [x, y, z] = toMillimetres(side.scan.affine, voxel)
      const run = source.run?.number ? `&run=${source.run.number}${this.editing ? "&draft=1" : ""}` : ""
      try {
        this.#tell(await askJson(`${side.base}/at?x=${x}&y=${y}&z=${z}${run}`), source, [x, y, z])
      } catch {
        this.status.textContent = ""
      }
    }
    this.asking = false
  }

  #tell(answer, source, place) {
    if (!answer.inside) return
    const organ = source.organs.find((one) => one.value === answer.organ)
    const [x, y, z] = place.map((value) => Math.abs(value).toFixed(1))
    const sides = [place[0] < 0 ? "L" : "R", place[1] < 0 ? "P" : "A", place[2] < 0 ? "I" : "S"]
    const words = [`${answer.hu} HU`, organ ? organ.title : "", `${sides[0]} ${x}  ${sides[1]} ${y}  ${sides[2]} ${z} mm`]
    this.status.replaceChildren(...words.filter(Boolean).map((text, number) => h("span", { class: ["hu", organ ? "organ" : "where", "where"][number] }, text)))
    Object.assign(this.status.dataset, { hu: answer.hu, organ: organ?.name || "", voxel: answer.voxel.join(",") })
  }

  // --- measuring

  #measureFrom(stage, tile, voxel) {
    this.measuring = { plane: tile.plane, from: this.#onSlice(stage, tile, voxel), to: this.#onSlice(stage, tile, voxel) }
    this.measures.push(this.measuring)
  }

  #onSlice(stage, tile, voxel) {
    const place = [...voxel]
    place[AXIS[tile.plane]] = stage.voxel[AXIS[tile.plane]]
    return place
  }

  #measureTo(voxel) {
    if (!this.measuring) return
    const axis = AXIS[this.measuring.plane]
    this.measuring.to = [...voxel]
    this.measuring.to[axis] = this.measuring.from[axis]
    this.#redraw(this.sides[0])
  }

  #measureDone() {
    const { measuring } = this
    this.measuring = null
    if (!measuring) return
    if (distanceMm(measuring.from, measuring.to, this.data.scan.spacing) < 1) this.measures.pop()
    this.root.dataset.measure = this.measures.length ? distanceMm(measuring.from, measuring.to, this.data.scan.spacing).toFixed(2) : ""
    this.#redraw(this.sides[0])
  }

  #clearMeasures() {
    this.measures = []
    this.#redraw(this.sides[0])
  }

  // --- correcting

  #startEditing() {
    if (!this.data.run?.editable) return
    const organs = this.data.organs
    this.editing = new Editing(this.words, this.stage, this.data.run.base, organs, {
      setTool: (tool) => this.#set({ tool }),
      setVolumes: (volumes) => this.organs.setVolumes(Object.fromEntries(Object.entries(volumes).map(([value, ml]) => [value, volumeText(ml)]))),
      say: (text, isError) => this.say(text, isError),
      saved: (run) => this.component.setTriggerValue("saved", run),
      close: () => this.#stopEditing(),
      labelsChanged: () => this.#ask(this.stage),
    })
    this.editHost.replaceChildren(this.editing.element)
    this.#set({ editing: true, tool: "paint", overlay: true })
    this.editing.open().catch(() => this.say(this.words["lost"], true))
  }

  #stopEditing() {
    this.editing = null
    this.pen = null
    this.editHost.replaceChildren()
    this.#set({ editing: false, tool: "move" })
    this.organs.show(this.data.organs)
    this.#loadRun(this.sides[0])
  }

  #penMove(tile, voxel, x, y) {
    if (!this.editing) return
    this.pen = { tile: tile.plane, x, y, radiusMm: this.editing.radius, colour: this.editing.colour }
    this.editing.penMove(voxel)
    this.#redraw(this.sides[0])
  }

  // --- comparing

  async #toggleDifference() {
    const on = !this.state.difference
    this.#set({ difference: on })
    try {
      this.stage.setDifference(on ? await this.stage.fetchLabels(this.data.compare.difference) : null)
    } catch {
      this.#set({ difference: false })
      this.say(this.words["lost"], true)
    }
  }

  // --- drawing

  #model(side) {
    return { words: this.words, crosshair: this.state.crosshair, measures: side.number === 0 ? this.measures : [], pen: side.number === 0 ? this.pen : null }
  }

  #drawn(side) {
    side.sliders.place(side.stage)
    this.#redraw(side)
    this.root.dataset.voxel = this.stage.voxel.join(",")
    this.root.dataset.frames = String(Number(this.root.dataset.frames || 0) + 1)
  }

  #redraw(side) {
    if (side.overlay) side.overlay.draw(describe(side.stage, this.#model(side)))
  }

  #resize() {
    for (const side of this.sides) if (side.stage?.tableTexture) side.stage.resize()
  }

  #loading(share) {
    this.say(share === null ? "" : this.words["loading"].replace("{share}", String(Math.round(share * 100))))
  }

  say(text, isError = false) {
    this.message.textContent = text
    this.message.classList.toggle("error", isError)
  }
}

/** The organ that lies most central. */
function central(points, spacing) {
  const middle = [0, 1, 2].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length)
  const off = (point) => distanceMm(point, middle, spacing)
  return [...points].sort((a, b) => off(a) - off(b))[0]
}

/** Three digits that matter, as in the table. */
function volumeText(ml) {
  const digits = ml < 1 ? 2 : ml < 1000 ? 1 : 0
  return ml === 0 ? "–" : ml.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })
}
