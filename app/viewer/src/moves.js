// Moving through the scans: the crosshair, slices, organs; two scans move together.

import { AXIS, inverted, toMillimetres } from "./geometry.js"
import { ACROSS } from "./tiles.js"

export class Moves {
  /** `viewer` has sides, data and the plane that keys are for; `onMove(side)` is told where somebody moved. */
  constructor(viewer, onMove) {
    this.viewer = viewer
    this.onMove = onMove
    this.organNumber = null
  }

  moveTo(stage, voxel) {
    stage.setVoxel(voxel)
    const { sides } = this.viewer
    const from = sides.find((side) => side.stage === stage)
    for (const side of sides) if (side !== from && side.isOpen) this.#follow(from, side)
    this.onMove(from)
  }

  /** The same place of the patient in the other scan. */
  #follow(from, side) {
    const { matrix } = this.viewer.data.compare
    const way = from.number === 0 ? matrix : inverted(matrix)
    side.stage.setVoxel(toMillimetres(side.inverse, toMillimetres(way, from.stage.millimetres())))
  }

  scroll(stage, plane, steps) {
    if (!stage?.isOpen || plane === "3d") return
    const voxel = [...stage.voxel]
    voxel[AXIS[plane]] += steps
    this.moveTo(stage, voxel)
  }

  /** By voxels to the right and downwards, as the picture shows it. */
  step(dx, dy) {
    const { stage, activePlane } = this.viewer
    const tile = stage?.tiles?.find((one) => one.plane === activePlane)
    if (!tile) return
    const [u, v] = ACROSS[tile.plane]
    const voxel = [...stage.voxel]
    voxel[u] += dx * Math.sign(tile.step[0])
    voxel[v] += dy * Math.sign(tile.step[1])
    this.moveTo(stage, voxel)
  }

  jump(organ) {
    const { data, flat, stage } = this.viewer
    const middle = data.middles?.[organ.value]
    if (!middle) return
    if (flat) flat.goTo(middle)
    else if (stage?.isOpen) this.moveTo(stage, middle)
  }

  nextOrgan(step) {
    const { organs, middles } = this.viewer.data
    const found = organs.filter((organ) => middles?.[organ.value])
    if (!found.length) return
    const last = this.organNumber ?? (step > 0 ? -1 : 0)
    this.organNumber = (last + step + found.length) % found.length
    this.jump(found[this.organNumber])
  }

  linked(action) {
    for (const side of this.viewer.sides) if (side.isOpen) action(side.stage)
  }
}
