// Planes, and the way between voxels and millimetres. Voxels are those of the canonical array (right, front, head).

export const PLANES = ["axial", "coronal", "sagittal"]
export const AXIS = { axial: 2, coronal: 1, sagittal: 0 }
/** Letters left, right, top and bottom of a picture: the patient's right is on the left, the nose looks left. */
export const LETTERS = { axial: "RLAP", coronal: "RLSI", sagittal: "APSI" }

export function toMillimetres(affine, voxel) {
  return [0, 1, 2].map((row) => affine[row][0] * voxel[0] + affine[row][1] * voxel[1] + affine[row][2] * voxel[2] + affine[row][3])
}

/** The inverse of an affine, 4x4 as rows. */
export function inverted(affine) {
  const [a, b, c] = [0, 1, 2].map((row) => affine[row].slice(0, 3))
  const cross = (u, v) => [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]]
  const det = a[0] * cross(b, c)[0] + a[1] * cross(b, c)[1] + a[2] * cross(b, c)[2]
  const columns = [cross(b, c), cross(c, a), cross(a, b)].map((column) => column.map((value) => value / det))
  const rows = [0, 1, 2].map((row) => columns.map((column) => column[row]))
  const shift = [0, 1, 2].map((row) => -rows[row].reduce((sum, value, axis) => sum + value * affine[axis][3], 0))
  return [...rows.map((row, index) => [...row, shift[index]]), [0, 0, 0, 1]]
}

export function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high)
}

/** The nearest voxel within the volume. */
export function settled(voxel, shape) {
  return voxel.map((value, axis) => clamp(Math.round(value), 0, shape[axis] - 1))
}

/** Whether a place lies in a voxel of the volume. */
export function isWithin(voxel, shape) {
  return voxel.every((value, axis) => Math.round(value) >= 0 && Math.round(value) < shape[axis])
}

export function distanceMm(a, b, spacing) {
  return Math.hypot(...[0, 1, 2].map((axis) => (a[axis] - b[axis]) * spacing[axis]))
}

/** The point that lies most central. */
export function central(points, spacing) {
  const middle = [0, 1, 2].map((axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length)
  const off = (point) => distanceMm(point, middle, spacing)
  return [...points].sort((a, b) => off(a) - off(b))[0]
}
