// HU, labels and colours as textures of our own: full resolution, and a window or a colour costs one frame.

import { fetchSlabs } from "./fetching.js"
import { UNITS } from "./shader.js"

const SLAB_BYTES = 64 << 20

export class Voxels {
  /** `small` is the volume that NiiVue shows: seen until the scan itself has come. */
  constructor(gl, shape, small) {
    this.gl = gl
    this.shape = shape
    this.labels = null
    this.withDifference = false
    this.hu = this.#texture(UNITS.hu, gl.LINEAR)
    gl.texImage3D(gl.TEXTURE_3D, 0, gl.R16F, ...small.hdr.dims.slice(1, 4), 0, gl.RED, gl.FLOAT, Float32Array.from(small.img))
    this.labelTexture = this.#filled(UNITS.labels, null)
    this.difference = this.#filled(UNITS.difference, null)
    this.table = this.#texture(UNITS.table, gl.NEAREST, gl.TEXTURE_2D)
  }

  #texture(unit, filter, target = this.gl.TEXTURE_3D) {
    const gl = this.gl
    const texture = gl.createTexture()
    gl.activeTexture(gl.TEXTURE0 + unit)
    gl.bindTexture(target, texture)
    gl.texParameteri(target, gl.TEXTURE_MIN_FILTER, filter)
    gl.texParameteri(target, gl.TEXTURE_MAG_FILTER, filter)
    for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T]) gl.texParameteri(target, side, gl.CLAMP_TO_EDGE)
    if (target === gl.TEXTURE_3D) gl.texParameteri(target, gl.TEXTURE_WRAP_R, gl.CLAMP_TO_EDGE)
    gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1)
    return texture
  }

  /** A texture of one byte a voxel; a single zero where there are no bytes. */
  #filled(unit, bytes) {
    const gl = this.gl
    const texture = this.#texture(unit, gl.NEAREST)
    const size = bytes === null ? [1, 1, 1] : this.shape
    gl.texStorage3D(gl.TEXTURE_3D, 1, gl.R8, ...size)
    gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, 0, ...size, gl.RED, gl.UNSIGNED_BYTE, bytes ?? new Uint8Array(1))
    return texture
  }

  /** The scan itself, slab by slab, in place of the small copy; false where a graphics card is too small for it. */
  async load(url, isWanted, onShare, signal) {
    const gl = this.gl
    const [x, y, z] = this.shape
    if (Math.max(x, y, z) > gl.getParameter(gl.MAX_3D_TEXTURE_SIZE)) return false
    const texture = this.#texture(UNITS.hu, gl.LINEAR)
    gl.texStorage3D(gl.TEXTURE_3D, 1, gl.R16F, x, y, z)
    const put = (first, bytes) => {
      if (!isWanted()) return
      gl.activeTexture(gl.TEXTURE0 + UNITS.hu)
      gl.bindTexture(gl.TEXTURE_3D, texture)
      gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1)
      const depth = bytes.length / (2 * x * y)
      gl.texSubImage3D(gl.TEXTURE_3D, 0, 0, 0, first, x, y, depth, gl.RED, gl.HALF_FLOAT, new Uint16Array(bytes.buffer))
    }
    const size = { sliceBytes: 2 * x * y, slices: z, slab: Math.max(1, Math.floor(SLAB_BYTES / (2 * x * y))) }
    const count = await fetchSlabs(url, size, put, onShare, signal)
    if (!isWanted()) return false
    if (count !== z) throw new Error("volume")
    gl.deleteTexture(this.hu)
    this.hu = texture
    return true
  }

  /** Labels of the whole scan, first axis fastest; null takes them away. */
  setLabels(labels) {
    this.gl.deleteTexture(this.labelTexture)
    this.labels = labels
    this.labelTexture = this.#filled(UNITS.labels, labels)
  }

  setDifference(map) {
    this.gl.deleteTexture(this.difference)
    this.difference = this.#filled(UNITS.difference, map)
    this.withDifference = map !== null
  }

  /** Sends a part of `labels` that was changed in place. `box` is [[first, last + 1], ...] along the axes. */
  refresh(box) {
    const gl = this.gl
    const [x, y] = this.shape
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
  }

  /** Colours of all labels; those that are hidden let everything through. */
  setTable(colours, hidden) {
    const gl = this.gl
    const table = new Uint8Array(256 * 4)
    for (const [value, colour] of colours) table.set([...colour, hidden.has(value) ? 0 : 255], value * 4)
    gl.activeTexture(gl.TEXTURE0 + UNITS.table)
    gl.bindTexture(gl.TEXTURE_2D, this.table)
    gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA, 256, 1, 0, gl.RGBA, gl.UNSIGNED_BYTE, table)
  }

  /** Makes the textures those that the slice shader reads. */
  bind(uniforms) {
    const gl = this.gl
    const volumes = { hu: this.hu, labels: this.labelTexture, difference: this.difference }
    for (const [name, texture] of Object.entries(volumes)) {
      gl.activeTexture(gl.TEXTURE0 + UNITS[name])
      gl.bindTexture(gl.TEXTURE_3D, texture)
    }
    gl.activeTexture(gl.TEXTURE0 + UNITS.table)
    gl.bindTexture(gl.TEXTURE_2D, this.table)
    for (const [name, unit] of Object.entries(UNITS)) gl.uniform1i(uniforms[name], unit)
  }
}
