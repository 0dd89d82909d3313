// A stage: a canvas with slices and a 3-D picture of one scan.
//
// NiiVue places the slices, turns the camera and draws surfaces. The voxels themselves lie in textures of our own
// (`voxels.js`): a small copy of the scan, which fills the same space, tells NiiVue where everything is, and the slices
// are coloured from the full-resolution HU and labels by the shader in `shader.js`. So a window or a colour costs one
// frame, on a computer without a GPU too.

import { NotThere, fetchBytes } from "./fetching.js"
import { clamp, settled, toMillimetres } from "./geometry.js"
import { Picture } from "./picture.js"
import { SLICE } from "./shader.js"
import { BONE, Solid } from "./solid.js"
import { ACROSS, TYPES, millimetresPerPixel, pixelOf, readTiles, tilesOf, voxelAt } from "./tiles.js"
import { Voxels } from "./voxels.js"

const SLOW = /swiftshader|llvmpipe|softpipe|software|basic render/i
const SMALL = { slow: 64, fast: 160 }
const BONE_HU = { cal_min: 150, cal_max: 650 }

export class Stage {
  constructor(host) {
    this.canvas = document.createElement("canvas")
    this.canvas.setAttribute("aria-hidden", "true")
    host.append(this.canvas)
    this.view = new Picture()
    this.look = { limits: [-140, 260], opacity: 0.45, outline: false }
    this.hidden = new Set()
    this.colours = new Map()
    this.layout = "mpr"
    this.onDrawn = () => {}
    this.pending = 0
    this.alive = true
    this.aborter = new AbortController()
  }

  /** Loads what is needed to move about; resolves as soon as something can be seen. */
  async open(scan, base) {
    this.scan = scan
    this.base = base
    // NiiVue would throw where nobody can catch it.
    if (!document.createElement("canvas").getContext("webgl2")) throw new Error("no WebGL 2")
    await this.view.attachToCanvas(this.canvas, false)
    this.isAttached = true
    this.isSlow = SLOW.test(this.#renderer())
    const side = this.isSlow ? SMALL.slow : SMALL.fast
    await this.view.loadVolumes([{ url: `${base}/small.nii?side=${side}`, name: "small.nii", ...BONE_HU }])
    if (!this.alive) return
    this.voxels = new Voxels(this.view.gl, scan.shape, this.view.volumes[0])
    this.#makeShader()
    this.solid = new Solid(this.view, scan)
    this.setVoxel(scan.shape.map((size) => Math.floor(size / 2)))
    this.#writeTable()
    this.setLayout(this.layout)
  }

  #renderer() {
    const { gl } = this.view
    const about = gl.getExtension("WEBGL_debug_renderer_info")
    return about ? String(gl.getParameter(about.UNMASKED_RENDERER_WEBGL)) : ""
  }

  #makeShader() {
    this.view.quietly(() => this.view.setCustomSliceShader(SLICE))
    const shader = this.view.customSliceShader
    const use = shader.use.bind(shader)
    shader.use = (gl) => {
      use(gl)
      const { uniforms } = shader
      this.voxels.bind(uniforms)
      gl.uniform2f(uniforms.limits, ...this.look.limits)
      gl.uniform1f(uniforms.overlayOpacity, this.look.opacity)
      gl.uniform1f(uniforms.outline, this.look.outline ? 1 : 0)
      gl.uniform1f(uniforms.showDifference, this.voxels.withDifference ? 1 : 0)
    }
  }

  get isOpen() {
    return Boolean(this.solid)
  }

  /** Does something with the picture that is to be seen at once. */
  now(action) {
    action(this)
    this.request()
  }

  // --- voxels

  async loadVolume(onShare) {
    const done = await this.voxels.load(`${this.base}/volume`, () => this.alive, onShare, this.aborter.signal)
    if (done) this.request()
  }

  get labels() {
    return this.voxels.labels
  }

  setLabels(labels) {
    this.now(() => this.voxels.setLabels(labels))
  }

  setDifference(map) {
    this.now(() => this.voxels.setDifference(map))
  }

  refreshLabels(box) {
    this.now(() => this.voxels.refresh(box))
  }

  async fetchLabels(path) {
    const bytes = await fetchBytes(`${this.base}/${path}`, this.aborter.signal)
    const [x, y, z] = this.scan.shape
    if (bytes.length !== x * y * z) throw new Error("mask")
    return bytes
  }

  /** No bytes where the server has none: an organ may be too small for a surface. */
  async fetchSurface(path) {
    try {
      return await fetchBytes(`${this.base}/${path}`, this.aborter.signal)
    } catch (error) {
      if (error instanceof NotThere) return new Uint8Array()
      throw error
    }
  }

  async addSurface(name, bytes, colour) {
    await this.solid.add(name, bytes, colour, !this.hidden.has(name))
    this.request()
  }

  async addBones() {
    if (this.solid.has(BONE)) return
    await this.solid.addBones(await this.fetchSurface("surface/scan/bone.mz3"))
    this.request()
  }

  // --- looks

  #writeTable() {
    this.voxels.setTable(this.colours, this.hidden)
    this.request()
  }

  setColours(organs) {
    this.colours = new Map(organs.map((organ) => [organ.value, organ.colour]))
    this.#writeTable()
  }

  setHidden(hidden) {
    this.hidden = new Set(hidden)
    this.solid.setHidden(this.hidden)
    this.#writeTable()
  }

  setLook(look) {
    this.now(() => Object.assign(this.look, look))
  }

  // --- places

  setVoxel(voxel) {
    this.voxel = settled(voxel, this.scan.shape)
    this.solid.place = this.millimetres()
    this.view.scene.crosshairPos = this.voxel.map((value, axis) => (value + 0.5) / this.scan.shape[axis])
    this.request()
  }

  millimetres(voxel = this.voxel) {
    return toMillimetres(this.scan.affine, voxel)
  }

  setLayout(layout) {
    this.layout = layout
    const box = this.canvas.parentElement.getBoundingClientRect()
    const tiles = tilesOf(layout, box.width >= box.height * 0.95)
    this.view.setCustomLayout(tiles.map(([name, ...position]) => ({ sliceType: TYPES[name], position })))
    this.request()
  }

  resize() {
    this.view.resizeListener()
    this.setLayout(this.layout)
  }

  resetView() {
    this.now(() => {
      this.view.scene.pan2Dxyzmm = [0, 0, 0, 1]
      this.solid.reset()
    })
  }

  /** Zooms so that the place under the finger stays there. */
  zoom(factor, voxel = this.voxel) {
    const pan = this.view.scene.pan2Dxyzmm
    const before = pan[3]
    const after = clamp(before * factor, 0.5, 24)
    const place = this.view.frac2mm(voxel.map((value, axis) => (value + 0.5) / this.scan.shape[axis]))
    this.view.scene.pan2Dxyzmm = [0, 1, 2].map((axis) => pan[axis] + place[axis] * (before - after)).concat(after)
    this.request()
  }

  /** Moves the picture of a tile by pixels. */
  pan(tile, dx, dy) {
    const pan = [...this.view.scene.pan2Dxyzmm]
    ;[dx, dy].forEach((moved, number) => {
      const axis = ACROSS[tile.plane][number]
      pan[axis] += moved * tile.step[number] * this.scan.spacing[axis] * pan[3]
    })
    this.view.scene.pan2Dxyzmm = pan
    this.request()
  }

  tileAt(x, y) {
    return (this.tiles || []).find((t) => x >= t.left && x < t.left + t.width && y >= t.top && y < t.top + t.height) || null
  }

  voxelAt(tile, x, y) {
    return voxelAt(tile, this.voxel, x, y)
  }

  pixelOf(tile, voxel) {
    return pixelOf(tile, voxel)
  }

  millimetresPerPixel(tile) {
    return millimetresPerPixel(tile, this.scan.spacing)
  }

  // --- drawing

  request() {
    if (this.pending || !this.alive) return
    this.pending = requestAnimationFrame(() => {
      this.pending = 0
      this.draw()
    })
  }

  draw() {
    if (!this.alive || !this.isOpen) return
    if (this.view.showVolume) this.solid.cutVolume()
    this.view.drawScene()
    this.tiles = readTiles(this.view, this.scan.shape)
    this.onDrawn()
  }

  /** A bitmap of the canvas as it is now. */
  async bitmap() {
    this.draw()
    return createImageBitmap(this.canvas)
  }

  dispose() {
    this.alive = false
    if (this.solid) this.solid.isAlive = false
    this.aborter.abort()
    cancelAnimationFrame(this.pending)
    this.canvas.remove()
    if (!this.isAttached) return // NiiVue throws where it has no context
    this.view.cleanup()
    this.view.gl.getExtension("WEBGL_lose_context")?.loseContext()
  }
}
