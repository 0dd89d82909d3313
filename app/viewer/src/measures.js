// Distances, drawn on the slice on which they were measured.

import { AXIS, distanceMm } from "./geometry.js"

const SHORTEST_MM = 1

export class Measures {
  constructor(spacing) {
    this.spacing = spacing
    this.list = []
    this.current = null
  }

  /** Begins at a place of a plane, on the slice that is shown. */
  begin(plane, voxel, shown) {
    const from = [...voxel]
    from[AXIS[plane]] = shown[AXIS[plane]]
    this.current = { plane, from, to: from }
    this.list.push(this.current)
  }

  reach(voxel) {
    if (!this.current) return
    const axis = AXIS[this.current.plane]
    this.current.to = [...voxel]
    this.current.to[axis] = this.current.from[axis]
  }

  /** Ends it: its length in mm; NaN for a mere click, which is forgotten. */
  end() {
    const done = this.current
    this.current = null
    if (!done) return NaN
    const length = distanceMm(done.from, done.to, this.spacing)
    if (length >= SHORTEST_MM) return length
    this.list.pop()
    return NaN
  }

  clear() {
    this.list = []
    this.current = null
  }
}
