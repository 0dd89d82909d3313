// Where the planes lie on the canvas, in CSS pixels, and which voxels they show there.

import { SLICE_TYPE } from "@niivue/niivue"
import { PLANES } from "./geometry.js"

export const TYPES = { axial: SLICE_TYPE.AXIAL, coronal: SLICE_TYPE.CORONAL, sagittal: SLICE_TYPE.SAGITTAL, "3d": SLICE_TYPE.RENDER }
/** The axes to the right and downwards. */
export const ACROSS = { axial: [0, 1], coronal: [0, 2], sagittal: [1, 2] }
const GAP = 0.003
const SPLIT = 0.58
const UPPER = 0.56

/** Name and place (left, top, width, height as shares) of every tile of a layout. */
export function tilesOf(layout, wide) {
  const half = 0.5 - GAP / 2
  const far = 0.5 + GAP / 2
  if (layout === "four") {
    return [["axial", 0, 0, half, half], ["coronal", far, 0, half, half], ["sagittal", 0, far, half, half], ["3d", far, far, half, half]]
  }
  if (layout === "mpr" && wide) {
    const rest = 1 - SPLIT - GAP
    return [["axial", 0, 0, SPLIT, 1], ["coronal", SPLIT + GAP, 0, rest, half], ["sagittal", SPLIT + GAP, far, rest, half]]
  }
  if (layout === "mpr") {
    const below = [UPPER + GAP, half, 1 - UPPER - GAP]
    return [["axial", 0, 0, 1, UPPER], ["coronal", 0, ...below], ["sagittal", far, ...below]]
  }
  return [[layout, 0, 0, 1, 1]]
}

/** What NiiVue has drawn. */
export function readTiles(view, shape) {
  const ratio = view.uiData.dpr || 1
  return view.screenSlices.map((slice, number) => {
    const plane = PLANES.find((name) => TYPES[name] === slice.axCorSag)
    const [left, top, width, height] = slice.leftTopWidthHeight.map((value) => Math.abs(value) / ratio)
    const corner = slice.leftTopWidthHeight[2] < 0 ? left - width : left
    const tile = { plane: plane || "3d", left: corner, top, width, height }
    return plane ? { ...tile, ...mapping(view, tile, number, ratio, shape) } : tile
  })
}

/** Voxels are linear in pixels: first voxel and voxels per pixel, to the right and downwards. */
function mapping(view, tile, number, ratio, shape) {
  const at = (x, y) => {
    const frac = view.screenXY2TextureFrac((tile.left + x) * ratio, (tile.top + y) * ratio, number, false)
    return [0, 1, 2].map((axis) => frac[axis] * shape[axis] - 0.5)
  }
  const [w, h] = [tile.width, tile.height]
  const [near, right, below] = [at(w / 4, h / 4), at((3 * w) / 4, h / 4), at(w / 4, (3 * h) / 4)]
  const [u, v] = ACROSS[tile.plane]
  const step = [(right[u] - near[u]) / (w / 2), (below[v] - near[v]) / (h / 2)]
  return { step, first: [near[u] - (step[0] * w) / 4, near[v] - (step[1] * h) / 4] }
}

/** The voxel under a pixel of a tile, not rounded; along the third axis it is that of `voxel`. */
export function voxelAt(tile, voxel, x, y) {
  const found = [...voxel]
  const [u, v] = ACROSS[tile.plane]
  found[u] = tile.first[0] + (x - tile.left) * tile.step[0]
  found[v] = tile.first[1] + (y - tile.top) * tile.step[1]
  return found
}

export function pixelOf(tile, voxel) {
  const [u, v] = ACROSS[tile.plane]
  return [tile.left + (voxel[u] - tile.first[0]) / tile.step[0], tile.top + (voxel[v] - tile.first[1]) / tile.step[1]]
}

export function millimetresPerPixel(tile, spacing) {
  return Math.abs(tile.step[0]) * spacing[ACROSS[tile.plane][0]]
}
