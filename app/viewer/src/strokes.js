// The pen on the voxels, by the same rule as the server's (`app/drafts.py`): a voxel is touched when its centre lies
// within the pen's radius of the line. The picture changes at once; what counts is what the server did.

import { AXIS, clamp } from "./geometry.js"

/** Changes `labels` in place along one piece of a stroke; returns the box that was touched, or null. */
export function drawPiece(labels, shape, spacing, stroke, from, to) {
  const axis = AXIS[stroke.plane]
  const points = [from, to].map((point) => [...point])
  if (!stroke.ball) for (const point of points) point[axis] = stroke.slice
  const box = boxOf(shape, spacing, stroke, points)
  if (box.some(([first, end]) => first >= end)) return null
  const [start, end] = points.map((point) => point.map((value, a) => value * spacing[a]))
  const along = end.map((value, a) => value - start[a])
  const length = along.reduce((sum, value) => sum + value * value, 0)
  const limit = stroke.radius * stroke.radius
  let changed = false
  for (let k = box[2][0]; k < box[2][1]; k += 1) {
    for (let j = box[1][0]; j < box[1][1]; j += 1) {
      let place = box[0][0] + shape[0] * (j + shape[1] * k)
      for (let i = box[0][0]; i < box[0][1]; i += 1, place += 1) {
        if (!mayChange(labels[place], stroke)) continue
        const off = [i * spacing[0] - start[0], j * spacing[1] - start[1], k * spacing[2] - start[2]]
        const share = length > 0 ? clamp((off[0] * along[0] + off[1] * along[1] + off[2] * along[2]) / length, 0, 1) : 0
        const away = (off[0] - share * along[0]) ** 2 + (off[1] - share * along[1]) ** 2 + (off[2] - share * along[2]) ** 2
        if (away <= limit) {
          labels[place] = stroke.erase ? 0 : stroke.value
          changed = true
        }
      }
    }
  }
  return changed ? box : null
}

function mayChange(label, stroke) {
  if (stroke.erase) return label === stroke.value
  return stroke.protect ? label === 0 : label !== stroke.value
}

function boxOf(shape, spacing, stroke, points) {
  const axis = AXIS[stroke.plane]
  return [0, 1, 2].map((a) => {
    if (a === axis && !stroke.ball) return stroke.slice >= 0 && stroke.slice < shape[a] ? [stroke.slice, stroke.slice + 1] : [0, 0]
    const reach = Math.ceil(stroke.radius / spacing[a]) + 1
    const low = Math.floor(Math.min(points[0][a], points[1][a])) - reach
    const high = Math.ceil(Math.max(points[0][a], points[1][a])) + reach
    return [clamp(low, 0, shape[a]), clamp(high + 1, 0, shape[a])]
  })
}
