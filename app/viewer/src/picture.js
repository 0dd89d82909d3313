// NiiVue with slices that fill their tiles, no hands of its own, and no volume that nobody asked for.

import { Niivue, SHOW_RENDER } from "@niivue/niivue"

const OPTIONS = {
  interactive: false,
  dragAndDropEnabled: false,
  isRadiologicalConvention: true,
  sagittalNoseLeft: true,
  multiplanarShowRender: SHOW_RENDER.NEVER,
  crosshairWidth: 0,
  isOrientationTextVisible: false,
  meshThicknessOn2D: 0,
  backColor: [0, 0, 0, 1],
  clipPlaneColor: [0, 0, 0, 0],
  loadingText: "",
  logLevel: "error",
  isAntiAlias: false,
}

export class Picture extends Niivue {
  tileAspect = 0
  showVolume = false
  focus = null
  isQuiet = false

  constructor() {
    super(OPTIONS)
  }

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

  /** Turns and scales around `focus` ({ middle, radius }, RAS mm), where something is looked at alone. */
  setPivot3D() {
    super.setPivot3D()
    if (!this.focus) return
    this.pivot3D = this.focus.middle
    this.furthestFromPivot = this.focus.radius
  }

  drawImage3D(...all) {
    if (!this.showVolume) return
    super.drawImage3D(...all)
    // The scan is a cloud: what lies in it is seen.
    this.gl.clear(this.gl.DEPTH_BUFFER_BIT)
  }
}
