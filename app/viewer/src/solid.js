// The 3-D picture: surfaces of organs and bones, the scan itself as a cloud, and a cut through the crosshair.

import { NVMesh } from "@niivue/niivue"
import { AXIS, clamp } from "./geometry.js"
import { SURFACE } from "./shader.js"

export const BONE = "bone"
const BONE_COLOUR = [232, 222, 196, 255]
const NO_CUT = [0, 0, 0, 1]
const NO_CLIP = [0, 0, 0, 2]
const FROM = { azimuth: 200, elevation: 12 }
const EMPTY_BYTES = 200

export class Solid {
  constructor(view, scan) {
    this.view = view
    this.scan = scan
    this.cut = { plane: "", flip: false }
    this.surfaces = new Map()
    this.without = new Set()
    this.place = [0, 0, 0]
    this.isAlive = true
    this.#makeShader()
    this.reset()
  }

  #makeShader() {
    this.shader = this.view.setCustomMeshShader(SURFACE, "organs")
    const { shader } = this.view.meshShaders[this.shader]
    const use = shader.use.bind(shader)
    shader.use = (gl) => {
      use(gl)
      gl.uniform4f(shader.uniforms.cut, ...this.#cutPlane())
    }
  }

  reset() {
    this.view.scene.renderAzimuth = FROM.azimuth
    this.view.scene.renderElevation = FROM.elevation
    this.view.scene.volScaleMultiplier = 1
  }

  turn(dx, dy) {
    const { scene } = this.view
    scene.renderAzimuth = (scene.renderAzimuth - dx * 0.6 + 720) % 360
    scene.renderElevation = clamp(scene.renderElevation + dy * 0.6, -90, 90)
  }

  zoom(factor) {
    this.view.scene.volScaleMultiplier = clamp(this.view.scene.volScaleMultiplier * factor, 0.5, 6)
  }

  showVolume(shown) {
    this.view.showVolume = shown
    this.#aim()
  }

  /** Organs alone fill the picture; with bones or the scan around them all of it is seen. */
  #aim() {
    const organs = [...this.surfaces].filter(([name]) => name !== BONE).map(([, mesh]) => mesh)
    const isAlone = organs.length > 0 && !this.view.showVolume && !this.surfaces.get(BONE)?.visible
    this.view.focus = isAlone ? boxAround(organs) : null
  }

  setCut(plane, flip) {
    this.cut = { plane, flip }
  }

  /** From the front, from above, from the patient's left: the side that is looked at is taken off. */
  get #sign() {
    return (this.cut.plane === "sagittal" ? -1 : 1) * (this.cut.flip ? -1 : 1)
  }

  /** Surfaces beyond a plane through the crosshair are not drawn: normal and limit, RAS mm. */
  #cutPlane() {
    if (!this.cut.plane) return NO_CUT
    const axis = AXIS[this.cut.plane]
    const column = [0, 1, 2].map((row) => this.scan.affine[row][axis])
    const length = Math.hypot(...column)
    const normal = column.map((value) => (this.#sign * value) / length)
    return [...normal, normal.reduce((sum, value, row) => sum + value * this.place[row], 0)]
  }

  /** The same for the cloud, where NiiVue keeps what lies before the plane: in shares of the volume. */
  cutVolume() {
    const { scene } = this.view
    const plane = [...NO_CLIP]
    if (this.cut.plane) {
      const axis = AXIS[this.cut.plane]
      plane[axis] = -this.#sign
      plane[3] = this.#sign * (scene.crosshairPos[axis] - 0.5)
    }
    scene.clipPlanes = [plane]
    scene.clipPlaneDepthAziElevs = [[this.cut.plane ? 0 : 2, 0, 0]]
  }

  /** Whether a surface is there, or known to be none: it need not be asked for. */
  has(name) {
    return this.surfaces.has(name) || this.without.has(name)
  }

  /** Adds a surface under a name: the value of an organ, or BONE. An organ may have none. */
  async add(name, bytes, colour, shown) {
    if (bytes.length < EMPTY_BYTES) this.without.add(name)
    if (this.has(name)) return
    const mesh = await NVMesh.readMesh(bytes.buffer, `${name}.mz3`, this.view.gl, 1, new Uint8Array(colour), shown)
    if (!this.isAlive || this.surfaces.has(name)) return
    mesh.meshShaderIndex = this.shader
    this.surfaces.set(name, mesh)
    this.view.quietly(() => this.view.addMesh(mesh))
    this.#aim()
  }

  addBones(bytes) {
    return this.add(BONE, bytes, BONE_COLOUR, true)
  }

  show(name, shown) {
    const mesh = this.surfaces.get(name)
    if (mesh) mesh.visible = shown
    this.#aim()
  }

  setHidden(hidden) {
    for (const name of this.surfaces.keys()) if (name !== BONE) this.show(name, !hidden.has(name))
  }

  clear() {
    for (const [name, mesh] of [...this.surfaces]) {
      if (name === BONE) continue
      this.view.quietly(() => this.view.removeMesh(mesh))
      this.surfaces.delete(name)
    }
    for (const name of [...this.without]) if (name !== BONE) this.without.delete(name)
    this.#aim()
  }
}

function boxAround(meshes) {
  const low = [0, 1, 2].map((axis) => Math.min(...meshes.map((mesh) => mesh.extentsMin[axis])))
  const high = [0, 1, 2].map((axis) => Math.max(...meshes.map((mesh) => mesh.extentsMax[axis])))
  return { middle: low.map((value, axis) => (value + high[axis]) / 2), radius: Math.hypot(...low.map((value, axis) => high[axis] - value)) / 2 }
}
