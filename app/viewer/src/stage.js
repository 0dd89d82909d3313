// The one file that knows NiiVue. A stage is a canvas with slices and a 3-D picture of one scan.
//
// NiiVue places the slices, turns the camera and draws surfaces. The voxels themselves lie in textures of our own:
// a small copy of the scan, which fills the same space, tells NiiVue where everything is, and the slices are coloured
// from the full-resolution HU and labels by the shader in `shader.js`. So a window or a colour costs one frame, on a
// computer without a GPU too.

import { NVMesh, Niivue, SHOW_RENDER, SLICE_TYPE } from "@niivue/niivue"
import { fetchBytes, fetchSlabs } from "./fetching.js"
import { AXIS, PLANES, clamp, multiplied, settled, toMillimetres } from "./geometry.js"
import { SLICE, SURFACE, UNITS } from "./shader.js"

const TYPES = { axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL, sagittal: SLICE_TYPE.SAGITTAL, "3d": SLICE_TYPE.RENDER }
const ACROSS = { axial: [0, 1], coronal: [0, 2], sagittal: [1, 2] }
const BONE_COLOUR = [232, 222, 196, 255]
const SLOW = /swiftshader|llvmpipe|softpipe|software|basic render/i
const NO_CUT = [0, 0, 0, 1]
const SLAB_BYTES = 64 << 20

/** NiiVue with slices that fill their tiles, and no hands of its own. */
class Picture extends Niivue {
  tileAspect = 0
  showVolume = false
  isQuiet = false

  registerInteractions() {}

  /** NiiVue computes the whole volume anew whenever anything is added. That is for the volume alone to ask. */
  updateGLVolume() {
    if (!this.isQuiet) super.updateGLVolume()
  }

  quietly(action) {
    this.isQuiet = true
    const result = action()
    this.isQuiet = false
    return result
  }

  draw2D(place, plane, millimetres = NaN) {
    this.tileAspect = place[2] / place[3]
    this.draw2DMain(place.slice(), plane, millimetres)
    this.tileAspect = 0
  }

  screenFieldOfViewExtendedVox(plane = 0) {
    const field = super.screenFieldOfViewExtendedVox(plane)
    if (!(this.tileAspect > 0)) return field
    const wide = field.fovMM[0] / field.fovMM[1] < this.tileAspect
    const axis = wide ? 0 : 1
    const wanted = wide ? field.fovMM[1] * this.tileAspect : field.fovMM[0] / this.tileAspect
    const more = (wanted - field.fovMM[axis]) / 2
    field.mnMM[axis] -= more
    field.mxMM[axis] += more
    field.fovMM[axis] = wanted
    return field
  }

  drawImage3D(...all) {
    if (this.showVolume) super.drawImage3D(...all)
  }
}

export class Stage {
  constructor(host) {
    this.canvas = document.createElement("canvas")
    this.canvas.setAttribute("aria-hidden", "true")
    host.append(this.canvas)
    this.view = new Picture({
      interactive: false,
      dragAndDropEnabled: false,
      isRadiologicalConvention: true,
      sagittalNoseLeft: true,
      multiplanarShowRender: SHOW_RENDER.NEVER,
      crosshairWidth: 0,
      isOrientationTextVisible: false,
      meshThicknessOn2D: 0,
      backColor: [0, 0, 0, 1],
      clipPlaneColor: [0.5, 0.5, 0.5, -0.35],
      loadingText: "",
      logLevel: "error",
      isAntiAlias: false,
    })
    this.limits = [-140, 260]
    this.opacity = 0.45
    this.outline = false
    this.hidden = new Set()
    this.colours = new Map()
    this.layout = "mpr"
    this.cut = { plane: "", flip: false }
    this.surfaces = new Map()
    this.withDifference = false
    this.onDrawn = () => {}
    this.pending = 0
    this.alive = true
    this.aborter = new AbortController()
  }

  /** Loads what is needed to move about; resolves as soon as something can be seen. */
  async open(scan, base) {
    this.scan = scan
    this.base = base
    await this.view.attachToCanvas(this.canvas, false)
    this.gl = this.view.gl
    this.isSlow = SLOW.test(this.#renderer())
    await this.view.loadVolumes([{ url: `${base}/small.nii?side=${this.isSlow ? 64 : 160}`, name: "small.nii", cal_min: 120, cal_max: 1200 }])
    if (!this.alive) return
    this.#makeTextures()
    this.#makeShaders()
    this.voxel = scan.shape.map((size) => Math.floor(size / 2))
    this.view.scene.renderAzimuth = 200
    this.view.scene.renderElevation = 12
    this.setLayout(this.layout)
  }

  #renderer() {
    const about = this.gl.getExtension("WEBGL_debug_renderer_info")
    return about ? String(this.gl.getParameter(about.UNMASKED_RENDERER_WEBGL)) : ""
  }

  // --- voxels

  #texture(unit, filter, wrap3d = true) {
    const gl = this.gl
    const target = wrap3d ? gl.TEXTURE_3D : gl.TEXTURE_2D
    const texture = gl.createTexture()
    gl.activeTexture(gl.TEXTURE0 + unit)
    gl.bindTexture(target, texture)
    gl.texParameteri(target, gl.TEXTURE_MIN_FILTER, filter)
    gl.texParameteri(target, gl.TEXTURE_MAG_FILTER, filter)
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) {
      if (wrap3d || side !== gl.TEXTURE_WRAP_R) gl.texParameteri(target, side, gl.CLAMP_TO_EDGE)
    }
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1)
    return texture
  }

  #makeTextures() {
    const gl = this.gl
    const small = this.view.volumes[0]
    const dims = small.hdr.dims.slice(1, 4)
    this.huTexture = this.#texture(UNITS.hu, gl.LINEAR)
    gl.texImage3D(gl.TEXTURE_3D, 0, gl.R16F, ...dims, 0, gl.RED, gl.FLOAT, Float32Array.from(small.img))
    this.labelTexture = this.#emptyLabels(UNITS.labels)
    this.differenceTexture = this.#emptyLabels(UNITS.difference)
    this.tableTexture = this.#texture(UNITS.table, gl.NEAREST, false)
    this.#writeTable()
  }

  #emptyLabels(unit) {
    const gl = this.gl
    const texture = this.#texture(unit, gl.NEAREST)
    gl.texImage3D(gl.TEXTURE_3D, 0, gl.R8, 1, 1, 1, 0, gl.RED, gl.UNSIGNED_BYTE, new Uint8Array(1))
    return texture
  }

  /** The scan itself, slab by slab, in place of the small copy. */
  async loadVolume(onProgress) {
    const gl = this.gl
    const [x, y, z] = this.scan.shape
    if (Math.max(x, y, z) > gl.getParameter(gl.MAX_3D_TEXTURE_SIZE)) return
    const texture = this.#texture(UNITS.hu, gl.LINEAR)
    gl.texStorage3D(gl.TEXTURE_3D, 1, gl.R16F, x, y, z)
    const put = (first, bytes) => {
      if (!this.alive) return
      gl.activeTexture(gl.TEXTURE0 + UNITS.hu)
      gl.bindTexture(gl.TEXTURE_3D, texture)
      gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1)
      const depth = bytes.length / (2 * x * y)
      gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, first, x, y, depth, gl.RED, gl.HALF_FLOAT, new Uint16Array(bytes.buffer))
    }
    const size = { sliceBytes: 2 * x * y, slices: z, slab: Math.max(1, Math.floor(SLAB_BYTES / (2 * x * y))) }
    const count = await fetchSlabs(`${this.base}/volume`, size, put, onProgress, this.aborter.signal)
    if (!this.alive) return
    if (count !== z) throw new Error("volume")
    gl.deleteTexture(this.huTexture)
    this.huTexture = texture
    this.request()
  }

  /** Labels of the whole scan, first axis fastest; null takes them away. */
  setLabels(labels) {
    const gl = this.gl
    gl.deleteTexture(this.labelTexture)
    this.labels = labels
    if (labels === null) {
      this.labelTexture = this.#emptyLabels(UNITS.labels)
    } else {
      this.labelTexture = this.#filled(UNITS.labels, labels)
    }
    this.request()
  }

  setDifference(map) {
    this.gl.deleteTexture(this.differenceTexture)
    this.differenceTexture = map === null ? this.#emptyLabels(UNITS.difference) : this.#filled(UNITS.difference, map)
    this.withDifference = map !== null
    this.request()
  }

  #filled(unit, bytes) {
    const gl = this.gl
    const texture = this.#texture(unit, gl.NEAREST)
    gl.texStorage3D(gl.TEXTURE_3D, 1, gl.R8, ...this.scan.shape)
    gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, 0, ...this.scan.shape, gl.RED, gl.UNSIGNED_BYTE, bytes)
    return texture
  }

  /** Sends a part of `labels` that was changed in place. `box` is [[first, last + 1], ...] along the axes. */
  refreshLabels(box) {
    const gl = this.gl
    const [x, y] = this.scan.shape
    gl.activeTexture(gl.TEXTURE0 + UNITS.labels)
    gl.bindTexture(gl.TEXTURE_3D, this.labelTexture)
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1)
    gl.pixelStorei(gl.UNPACK_ROW_LENGTH, x)
    gl.pixelStorei(gl.UNPACK_IMAGE_HEIGHT, y)
    const start = box[0][0] + x * (box[1][0] + y * box[2][0])
    const sizes = box.map(([first, end]) => end - first)
    gl.texSubImage3D(gl.TEXTURE_3D, 0, box[0][0], box[1][0], box[2][0], ...sizes, gl.RED, gl.UNSIGNED_BYTE, this.labels, start)
    gl.pixelStorei(gl.UNPACK_ROW_LENGTH, 0)
    gl.pixelStorei(gl.UNPACK_IMAGE_HEIGHT, 0)
    this.request()
  }

  async fetchLabels(path) {
    const bytes = await fetchBytes(`${this.base}/${path}`, this.aborter.signal)
    const [x, y, z] = this.scan.shape
    if (bytes.length !== x * y * z) throw new Error("mask")
    return bytes
  }

  labelOf(voxel) {
    if (!this.labels) return 0
    const [x, y] = this.scan.shape
    return this.labels[voxel[0] + x * (voxel[1] + y * voxel[2])]
  }

  // --- looks

  #makeShaders() {
    const gl = this.gl
    this.view.quietly(() => this.view.setCustomSliceShader(SLICE))
    const slice = this.view.customSliceShader
    const useSlice = slice.use.bind(slice)
    slice.use = (context) => {
      useSlice(context)
      this.#bind()
      gl.uniform1i(slice.uniforms.hu, UNITS.hu)
      gl.uniform1i(slice.uniforms.labels, UNITS.labels)
      gl.uniform1i(slice.uniforms.table, UNITS.table)
      gl.uniform1i(slice.uniforms.difference, UNITS.difference)
      gl.uniform2f(slice.uniforms.limits, ...this.limits)
      gl.uniform1f(slice.uniforms.overlayOpacity, this.opacity)
      gl.uniform1f(slice.uniforms.outline, this.outline ? 1 : 0)
      gl.uniform1f(slice.uniforms.showDifference, this.withDifference ? 1 : 0)
    }
    this.surfaceShader = this.view.setCustomMeshShader(SURFACE, "organs")
    const surface = this.view.meshShaders[this.surfaceShader].shader
    const useSurface = surface.use.bind(surface)
    surface.use = (context) => {
      useSurface(context)
      gl.uniform4f(surface.uniforms.cut, ...this.#cutPlane())
    }
  }

  #bind() {
    const gl = this.gl
    for (const [name, texture] of [["hu", this.huTexture], ["labels", this.labelTexture], ["difference", this.differenceTexture]]) {
      gl.activeTexture(gl.TEXTURE0 + UNITS[name])
      gl.bindTexture(gl.TEXTURE_3D, texture)
    }
    gl.activeTexture(gl.TEXTURE0 + UNITS.table)
    gl.bindTexture(gl.TEXTURE_2D, this.tableTexture)
  }

  #writeTable() {
    const gl = this.gl
    const table = new Uint8Array(256 * 4)
    for (const [value, colour] of this.colours) table.set([...colour, this.hidden.has(value) ? 0 : 255], value * 4)
    gl.activeTexture(gl.TEXTURE0 + UNITS.table)
    gl.bindTexture(gl.TEXTURE_2D, this.tableTexture)
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, table)
  }

  setColours(organs) {
    this.colours = new Map(organs.map((organ) => [organ.value, organ.colour]))
    if (this.tableTexture) this.#writeTable()
    this.request()
  }

  setHidden(hidden) {
    this.hidden = new Set(hidden)
    if (this.tableTexture) this.#writeTable()
    for (const [name, mesh] of this.surfaces) if (typeof name === "number") mesh.visible = !this.hidden.has(name)
    this.request()
  }

  setWindow(low, high) {
    this.limits = [low, Math.max(high, low + 1)]
    this.request()
  }

  setOpacity(opacity) {
    this.opacity = opacity
    this.request()
  }

  setOutline(outline) {
    this.outline = outline
    this.request()
  }

  // --- places

  setVoxel(voxel) {
    this.voxel = settled(voxel, this.scan.shape)
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
    this.view.scene.pan2Dxyzmm = [0, 0, 0, 1]
    this.view.scene.volScaleMultiplier = 1
    this.request()
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

  get zoomed() {
    return this.view.scene.pan2Dxyzmm[3]
  }

  // --- the 3-D picture

  turn(dx, dy) {
    const scene = this.view.scene
    this.view.scene.renderAzimuth = (scene.renderAzimuth - dx * 0.6 + 720) % 360
    this.view.scene.renderElevation = clamp(scene.renderElevation + dy * 0.6, -90, 90)
    this.request()
  }

  zoom3d(factor) {
    this.view.scene.volScaleMultiplier = clamp(this.view.scene.volScaleMultiplier * factor, 0.5, 6)
    this.request()
  }

  setCut(plane, flip) {
    this.cut = { plane, flip }
    this.request()
  }

  setVolumeShown(shown) {
    this.view.showVolume = shown
    this.request()
  }

  /** What lies before the plane through the crosshair is not drawn: normal and limit, RAS mm. */
  #cutPlane() {
    if (!this.cut.plane) return NO_CUT
    const axis = AXIS[this.cut.plane]
    const column = [0, 1, 2].map((row) => this.scan.affine[row][axis])
    const length = Math.hypot(...column)
    // From the front, from above, from the patient's left: the side that is looked at is taken off.
    const sign = (this.cut.plane === "sagittal" ? -1 : 1) * (this.cut.flip ? -1 : 1)
    const normal = column.map((value) => (sign * value) / length)
    const place = this.millimetres()
    return [...normal, normal.reduce((sum, value, row) => sum + value * place[row], 0)]
  }

  #cutVolume() {
    const plane = [0, 0, 0, 2]
    if (this.cut.plane) {
      const axis = AXIS[this.cut.plane]
      const sign = (this.cut.plane === "sagittal" ? -1 : 1) * (this.cut.flip ? -1 : 1)
      plane[axis] = sign
      plane[3] = -sign * (this.view.scene.crosshairPos[axis] - 0.5)
    }
    this.view.scene.clipPlanes = [plane]
    this.view.scene.clipPlaneDepthAziElevs = [[this.cut.plane ? 0 : 2, 0, 0]]
  }

  async addSurface(name, path, colour) {
    if (this.surfaces.has(name)) return
    const bytes = await fetchBytes(`${this.base}/${path}`, this.aborter.signal)
    if (!this.alive || this.surfaces.has(name) || bytes.length < 200) return
    const mesh = await NVMesh.readMesh(bytes.buffer, `${name}.mz3`, this.gl, 1, new Uint8Array(colour), !this.hidden.has(name))
    mesh.meshShaderIndex = this.surfaceShader
    this.surfaces.set(name, mesh)
    this.view.quietly(() => this.view.addMesh(mesh))
    this.request()
  }

  addBones() {
    return this.addSurface("bone", "surface/scan/bone.mz3", BONE_COLOUR)
  }

  showSurface(name, shown) {
    const mesh = this.surfaces.get(name)
    if (mesh) mesh.visible = shown
    this.request()
  }

  clearSurfaces() {
    for (const [name, mesh] of [...this.surfaces]) {
      if (name === "bone") continue
      this.view.quietly(() => this.view.removeMesh(mesh))
      this.surfaces.delete(name)
    }
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
    if (!this.alive || !this.tableTexture) return
    if (this.view.showVolume) this.#cutVolume()
    this.view.drawScene()
    this.tiles = this.#readTiles()
    this.onDrawn()
  }

  /** Where planes lie on the canvas, in CSS pixels, and which voxels they show there. */
  #readTiles() {
    const ratio = this.view.uiData.dpr || 1
    return this.view.screenSlices.map((slice, number) => {
      const plane = PLANES.find((name) => TYPES[name] === slice.axCorSag)
      const [left, top, width, height] = slice.leftTopWidthHeight.map((value) => Math.abs(value) / ratio)
      const corner = slice.leftTopWidthHeight[2] < 0 ? left - width : left
      const tile = { plane: plane || "3d", left: corner, top, width, height }
      return plane ? { ...tile, ...this.#mapping(tile, number, ratio) } : tile
    })
  }

  /** Voxels are linear in pixels: first voxel and voxels per pixel, to the right and downwards. */
  #mapping(tile, number, ratio) {
    const at = (x, y) => {
      const frac = this.view.screenXY2TextureFrac((tile.left + x) * ratio, (tile.top + y) * ratio, number, false)
      return [0, 1, 2].map((axis) => frac[axis] * this.scan.shape[axis] - 0.5)
    }
    const [w, h] = [tile.width, tile.height]
    const [near, right, below] = [at(w / 4, h / 4), at((3 * w) / 4, h / 4), at(w / 4, (3 * h) / 4)]
    const [u, v] = ACROSS[tile.plane]
    const step = [(right[u] - near[u]) / (w / 2), (below[v] - near[v]) / (h / 2)]
    return { step, first: [near[u] - (step[0] * w) / 4, near[v] - (step[1] * h) / 4] }
  }

  tileAt(x, y) {
    return (this.tiles || []).find((t) => x >= t.left && x < t.left + t.width && y >= t.top && y < t.top + t.height) || null
  }

  /** The voxel under a pixel of a tile, not rounded. */
  voxelAt(tile, x, y) {
    const voxel = [...this.voxel]
    const [u, v] = ACROSS[tile.plane]
    voxel[u] = tile.first[0] + (x - tile.left) * tile.step[0]
    voxel[v] = tile.first[1] + (y - tile.top) * tile.step[1]
    return voxel
  }

  pixelOf(tile, voxel) {
    const [u, v] = ACROSS[tile.plane]
    return [tile.left + (voxel[u] - tile.first[0]) / tile.step[0], tile.top + (voxel[v] - tile.first[1]) / tile.step[1]]
  }

  millimetresPerPixel(tile) {
    return Math.abs(tile.step[0]) * this.scan.spacing[ACROSS[tile.plane][0]]
  }

  /** A bitmap of the canvas as it is now. */
  async bitmap() {
    this.draw()
    return createImageBitmap(this.canvas)
  }

  /** This scan's place in another scan whose places are `matrix` times ours. */
  placeIn(other, matrix) {
    return toMillimetres(multiplied(other.inverse, matrix), this.millimetres())
  }

  dispose() {
    this.alive = false
    this.aborter.abort()
    cancelAnimationFrame(this.pending)
    this.view.cleanup()
    this.gl?.getExtension("WEBGL_lose_context")?.loseContext()
    this.canvas.remove()
  }
}

/** Name and place (left, top, width, height as shares) of every tile of a layout. */
function tilesOf(layout, wide) {
  const gap = 0.003
  const half = 0.5 - gap / 2
  const far = 0.5 + gap / 2
  if (layout === "four") {
    return [["axial", 0, 0, half, half], ["coronal", far, 0, half, half], ["sagittal", 0, far, half, half], ["3d", far, far, half, half]]
  }
  if (layout === "mpr" && wide) {
    const split = 0.58
    const rest = 1 - split - gap
    return [["axial", 0, 0, split, 1], ["coronal", split + gap, 0, rest, half], ["sagittal", split + gap, far, rest, half]]
  }
  if (layout === "mpr") return [["axial", 0, 0, 1, 0.56], ["coronal", 0, 0.56 + gap, half, 0.44 - gap], ["sagittal", far, 0.56 + gap, half, 0.44 - gap]]
  return [[layout, 0, 0, 1, 1]]
}
