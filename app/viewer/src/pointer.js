// Mouse, pen and fingers over a stage. One finger or button does what the chosen tool does; the wheel scrolls
// slices, the right button sets the window, the middle one moves the picture, two fingers zoom and move it.

const DOUBLE_MS = 350

export class Pointer {
  /** `hands` answers: tool(), scroll, moveTo, windowBy, measure*, pen*, hover, leave, enlarge. */
  constructor(host, stage, hands) {
    this.host = host
    this.stage = stage
    this.hands = hands
    this.fingers = new Map()
    this.drag = null
    this.lastTap = 0
    this.wheelRest = 0
    for (const [type, handler] of Object.entries({
      pointerdown: this.#down,
      pointermove: this.#move,
      pointerup: this.#up,
      pointercancel: this.#up,
      pointerleave: () => hands.leave(stage),
    })) host.addEventListener(type, handler.bind(this))
    host.addEventListener("wheel", this.#wheel.bind(this), { passive: false })
    host.addEventListener("contextmenu", (event) => event.preventDefault())
  }

  #place(event) {
    const box = this.host.getBoundingClientRect()
    return [event.clientX - box.left, event.clientY - box.top]
  }

  #down(event) {
    if (event.target.closest?.("input, button, select")) return
    const [x, y] = this.#place(event)
    const tile = this.stage.tileAt(x, y)
    if (!tile) return
    this.hands.focus(tile)
    this.host.setPointerCapture(event.pointerId)
    this.fingers.set(event.pointerId, [x, y])
    if (this.fingers.size === 2) {
      this.#cancel()
      this.drag = { kind: "pinch", tile, ...this.#pinch() }
      return
    }
    const now = performance.now()
    const isDouble = event.button === 0 && now - this.lastTap < DOUBLE_MS && this.hands.tool() === "move"
    this.lastTap = event.button === 0 ? now : 0
    if (isDouble) {
      this.hands.enlarge(tile)
      return
    }
    this.drag = { kind: this.#kind(event, tile), tile, x, y, startX: x, startY: y }
    this.#start(event)
  }

  #kind(event, tile) {
    if (tile.plane === "3d") return "turn"
    if (event.button === 2) return "window"
    if (event.button === 1 || event.shiftKey) return "pan"
    return this.hands.tool()
  }

  #start(event) {
    const { kind, tile, x, y } = this.drag
    const voxel = tile.plane === "3d" ? null : this.stage.voxelAt(tile, x, y)
    if (kind === "move") this.hands.moveTo(this.stage, voxel)
    else if (kind === "measure") this.hands.measureFrom(this.stage, tile, voxel)
    else if (kind === "paint" || kind === "erase" || kind === "fill") this.hands.penDown(this.stage, tile, voxel, kind)
    event.preventDefault()
  }

  #move(event) {
    const [x, y] = this.#place(event)
    if (this.fingers.has(event.pointerId)) this.fingers.set(event.pointerId, [x, y])
    if (!this.drag) {
      const tile = this.stage.tileAt(x, y)
      if (tile) this.hands.hover(this.stage, tile, x, y)
      return
    }
    if (this.drag.kind === "pinch") this.#pinched()
    else this.#dragged(x, y)
  }

  #dragged(x, y) {
    const drag = this.drag
    const [dx, dy] = [x - drag.x, y - drag.y]
    const voxel = drag.tile.plane === "3d" ? null : this.stage.voxelAt(drag.tile, x, y)
    if (drag.kind === "turn") this.stage.now((stage) => stage.solid.turn(dx, dy))
    else if (drag.kind === "window") this.hands.windowBy(dx, dy)
    else if (drag.kind === "pan") this.hands.panBy(this.stage, drag.tile, dx, dy)
    else if (drag.kind === "move") this.hands.moveTo(this.stage, voxel)
    else if (drag.kind === "measure") this.hands.measureTo(voxel)
    else this.hands.penMove(this.stage, drag.tile, voxel, x, y)
    Object.assign(drag, { x, y })
  }

  #pinch() {
    const [[ax, ay], [bx, by]] = [...this.fingers.values()]
    return { span: Math.hypot(ax - bx, ay - by), x: (ax + bx) / 2, y: (ay + by) / 2 }
  }

  #pinched() {
    const now = this.#pinch()
    const { tile } = this.drag
    if (tile.plane === "3d") this.stage.now((stage) => stage.solid.zoom(now.span / this.drag.span))
    else {
      this.hands.zoomBy(this.stage, now.span / this.drag.span, this.stage.voxelAt(tile, now.x, now.y))
      this.hands.panBy(this.stage, tile, now.x - this.drag.x, now.y - this.drag.y)
    }
    Object.assign(this.drag, now)
  }

  #up(event) {
    this.fingers.delete(event.pointerId)
    if (!this.drag) return
    const { kind } = this.drag
    this.drag = null
    if (kind === "measure") this.hands.measureDone()
    if (kind === "paint" || kind === "erase" || kind === "fill") this.hands.penUp()
  }

  #cancel() {
    if (this.drag?.kind === "measure") this.hands.measureDone()
    if (this.drag?.kind === "paint" || this.drag?.kind === "erase") this.hands.penUp()
  }

  #wheel(event) {
    const [x, y] = this.#place(event)
    const tile = this.stage.tileAt(x, y)
    if (!tile) return
    event.preventDefault()
    if (tile.plane === "3d") return this.stage.now((stage) => stage.solid.zoom(event.deltaY < 0 ? 1.1 : 1 / 1.1))
    if (event.ctrlKey || event.metaKey) return this.hands.zoomBy(this.stage, Math.exp(-event.deltaY / 400), this.stage.voxelAt(tile, x, y))
    // Touch pads send many small steps, wheels few large ones.
    this.wheelRest += event.deltaMode === 0 ? event.deltaY / 60 : event.deltaY
    const steps = Math.trunc(this.wheelRest)
    if (steps === 0 && Math.abs(event.deltaY) < 40) return undefined
    this.wheelRest -= steps
    return this.hands.scroll(this.stage, tile, -(steps || Math.sign(event.deltaY)))
  }
}
