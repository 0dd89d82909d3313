// What is written over the pictures: letters of the sides, slice numbers, crosshair, scale, measurements, the pen.
// It is described once as lines and words, and drawn as SVG on the page or on a canvas for a screenshot.

import { h, svg } from "./dom.js"
import { AXIS, LETTERS, distanceMm } from "./geometry.js"

const PLANE_COLOURS = { axial: "#f2cc60", coronal: "#6fd08c", sagittal: "#6ab7ff" }
const CROSSING = { axial: ["sagittal", "coronal"], coronal: ["sagittal", "axial"], sagittal: ["coronal", "axial"] }
const WORD = "#f1f5f9"
const MEASURE = "#ffd166"
const GAP = 14
const TITLE_STEP = 8
const LENGTHS_MM = [5, 10, 20, 50, 100, 200]

/** Lines, circles and words for all tiles of a stage. */
export function describe(stage, model) {
  const items = []
  for (const tile of stage.tiles || []) {
    items.push({ kind: "rect", tile })
    if (tile.plane === "3d") {
      items.push(word(tile.left + 10, tile.top + 18, model.words["plane.3d"], "start", PLANE_COLOURS.none))
      continue
    }
    const title = titleOf(stage, tile, model)
    items.push(word(tile.left + 10, tile.top + 18, title, "start", PLANE_COLOURS[tile.plane]), ...letters(tile, title), ...scale(stage, tile))
    if (model.crosshair) items.push(...crosshair(stage, tile))
    items.push(...measures(stage, tile, model))
    if (model.pen && model.pen.tile === tile.plane) items.push(pen(stage, tile, model.pen))
  }
  return items
}

function word(x, y, text, anchor = "middle", colour = WORD, size = 13, letter = false) {
  return { kind: "word", x, y, text, anchor, colour: colour || WORD, size, letter }
}

function titleOf(stage, tile, model) {
  const axis = AXIS[tile.plane]
  return `${model.words[`plane.${tile.plane}`]}  ${stage.voxel[axis] + 1} / ${stage.scan.shape[axis]}`
}

/** Letters of the sides; in a narrow tile the upper one stands below the title. */
function letters(tile, title) {
  const [left, right, top, bottom] = LETTERS[tile.plane]
  const [middleX, middleY] = [tile.left + tile.width / 2, tile.top + tile.height / 2]
  const isNarrow = 20 + title.length * TITLE_STEP > tile.width / 2 - 8
  return [
    word(tile.left + 14, middleY + 5, left, "middle", WORD, 16, true),
    word(tile.left + tile.width - 32, middleY + 5, right, "middle", WORD, 16, true),
    word(middleX, tile.top + (isNarrow ? 40 : 20), top, "middle", WORD, 16, true),
    word(middleX, tile.top + tile.height - 9, bottom, "middle", WORD, 16, true),
  ]
}

function scale(stage, tile) {
  const step = stage.millimetresPerPixel(tile)
  const length = [...LENGTHS_MM].reverse().find((mm) => mm / step < tile.width * 0.3) || LENGTHS_MM[0]
  const pixels = length / step
  const [x, y] = [tile.left + 12, tile.top + tile.height - 12]
  const text = length >= 10 ? `${length / 10} cm` : `${length} mm`
  return [
    { kind: "line", points: [[x, y], [x + pixels, y]], colour: WORD, width: 2 },
    word(x, y - 6, text, "start", WORD, 11),
  ]
}

function crosshair(stage, tile) {
  const [x, y] = stage.pixelOf(tile, stage.voxel)
  const [right, bottom] = [tile.left + tile.width, tile.top + tile.height]
  const [upright, level] = CROSSING[tile.plane].map((plane) => PLANE_COLOURS[plane])
  const lines = []
  const add = (x1, y1, x2, y2, colour) => lines.push({ kind: "line", points: [[x1, y1], [x2, y2]], colour, width: 1, opacity: 0.75 })
  if (x >= tile.left && x <= right) {
    if (y - GAP > tile.top) add(x, tile.top, x, Math.min(y - GAP, bottom), upright)
    if (y + GAP < bottom) add(x, Math.max(y + GAP, tile.top), x, bottom, upright)
  }
  if (y >= tile.top && y <= bottom) {
    if (x - GAP > tile.left) add(tile.left, y, Math.min(x - GAP, right), y, level)
    if (x + GAP < right) add(Math.max(x + GAP, tile.left), y, right, y, level)
  }
  return lines
}

function measures(stage, tile, model) {
  const axis = AXIS[tile.plane]
  const shown = model.measures.filter((m) => m.plane === tile.plane && Math.round(m.from[axis]) === stage.voxel[axis])
  return shown.flatMap((measure) => {
    const [from, to] = [stage.pixelOf(tile, measure.from), stage.pixelOf(tile, measure.to)]
    const millimetres = distanceMm(measure.from, measure.to, stage.scan.spacing)
    const ends = [from, to].map(([x, y]) => ({ kind: "circle", x, y, radius: 3.5, colour: MEASURE, filled: true }))
    const text = `${millimetres.toFixed(1)} mm`
    const side = to[0] + 90 > tile.left + tile.width ? "end" : "start"
    const x = to[0] + (side === "end" ? -8 : 8)
    return [{ kind: "line", points: [from, to], colour: MEASURE, width: 2 }, ...ends, word(x, to[1] - 8, text, side, MEASURE, 14)]
  })
}

function pen(stage, tile, pen) {
  const radius = pen.radiusMm / stage.millimetresPerPixel(tile)
  return { kind: "circle", x: pen.x, y: pen.y, radius, colour: pen.colour, filled: false }
}

/** The SVG over a canvas, redrawn with every frame. */
export class Overlay {
  constructor(host) {
    this.element = svg("svg", { class: "overlay", "aria-hidden": "true" })
    host.append(this.element)
  }

  draw(items) {
    this.element.replaceChildren(...items.map(toSvg))
  }
}

function toSvg(item) {
  if (item.kind === "rect") {
    const { left, top, width, height, plane } = item.tile
    return svg("rect", { x: left + 0.5, y: top + 0.5, width: width - 1, height: height - 1, class: "tile", "data-plane": plane })
  }
  if (item.kind === "line") {
    const [[x1, y1], [x2, y2]] = item.points
    return svg("line", { x1, y1, x2, y2, stroke: item.colour, "stroke-width": item.width, "stroke-opacity": item.opacity ?? 1 })
  }
  if (item.kind === "circle") {
    const { x, y, radius, colour, filled } = item
    return svg("circle", { cx: x, cy: y, r: radius, stroke: colour, fill: filled ? colour : "none", "stroke-width": 1.5 })
  }
  const { x, y, text, anchor, colour, size, letter } = item
  return svg("text", { x, y, fill: colour, "text-anchor": anchor, "font-size": size, class: letter ? "letter" : "word" }, text)
}

/** The same on a canvas; `ratio` is its pixels per CSS pixel. */
export function paintOn(context, items, ratio) {
  context.save()
  context.scale(ratio, ratio)
  context.lineJoin = "round"
  for (const item of items) paintItem(context, item)
  context.restore()
}

function paintItem(context, item) {
  context.globalAlpha = item.opacity ?? 1
  context.strokeStyle = context.fillStyle = item.colour || "#475569"
  context.lineWidth = item.width || 1.5
  if (item.kind === "line") {
    context.beginPath()
    context.moveTo(...item.points[0])
    context.lineTo(...item.points[1])
    context.stroke()
  } else if (item.kind === "circle") {
    context.beginPath()
    context.arc(item.x, item.y, item.radius, 0, 2 * Math.PI)
    if (item.filled) context.fill()
    else context.stroke()
  } else if (item.kind === "word") {
    context.font = `600 ${item.size}px system-ui, sans-serif`
    context.textAlign = item.anchor === "middle" ? "center" : item.anchor
    context.strokeStyle = "#000"
    context.lineWidth = 3
    context.strokeText(item.text, item.x, item.y)
    context.fillText(item.text, item.x, item.y)
  }
}

/** A slider at the side of every plane: slices for fingers, keyboards and screen readers. */
export class Sliders {
  constructor(host, words, onMove) {
    this.host = h("div", { class: "sliders" })
    this.words = words
    this.onMove = onMove
    this.inputs = new Map()
    host.append(this.host)
  }

  place(stage) {
    const planes = (stage.tiles || []).filter((tile) => tile.plane !== "3d")
    for (const [plane, input] of this.inputs) if (!planes.some((tile) => tile.plane === plane)) this.#remove(plane, input)
    for (const tile of planes) this.#placeOne(stage, tile)
  }

  #remove(plane, input) {
    input.remove()
    this.inputs.delete(plane)
  }

  #placeOne(stage, tile) {
    const axis = AXIS[tile.plane]
    let input = this.inputs.get(tile.plane)
    if (!input) {
      const label = this.words["slider"].replace("{plane}", this.words[`plane.${tile.plane}`])
      const oninput = (event) => this.onMove(axis, Number(event.target.value) - 1)
      input = h("input", { type: "range", min: "1", step: "1", "aria-label": label, title: label, class: "slice", "data-plane": tile.plane, oninput })
      this.inputs.set(tile.plane, input)
      this.host.append(input)
    }
    input.max = String(stage.scan.shape[axis])
    input.value = String(stage.voxel[axis] + 1)
    input.disabled = stage.scan.shape[axis] < 2
    const length = Math.max(60, tile.height - 72)
    Object.assign(input.style, { left: `${tile.left + tile.width - 22}px`, top: `${tile.top + 36}px`, height: `${length}px` })
  }
}
