// Hands: everything that a button, a key or a finger may ask of the viewer, by name.

import { PRESETS } from "./toolbar.js"
import { saveScreenshot } from "./screenshot.js"

export function handsOf(viewer) {
  const set = (values) => viewer.set(values)
  const flip = (name) => () => set({ [name]: !viewer.state[name] })
  return {
    setLayout: (layout) => set({ layout }),
    layout: () => viewer.state.layout,
    setPreset: (name) => set({ limits: [...PRESETS[name]] }),
    setWindow: (low, high) => set({ limits: [low, high] }),
    windowBy: (dx, dy) => set({ limits: moved(viewer.state.limits, dx, dy) }),
    setTool: (tool) => set({ tool }),
    tool: () => viewer.state.tool,
    setOpacity: (opacity) => set({ opacity }),
    opacityBy: (step) => set({ opacity: Math.min(1, Math.max(0, viewer.state.opacity + step)) }),
    toggleOutline: flip("outline"),
    toggleOverlay: flip("overlay"),
    toggleCrosshair: flip("crosshair"),
    toggleBones: flip("bones"),
    toggleVolume: flip("volume"),
    setCut: (cut) => set({ cut }),
    flipCut: flip("flip"),
    toggleDifference: () => viewer.toggleDifference(),
    toggleEditing: () => viewer.toggleEditing(),
    undo: (again) => viewer.editing?.ask(again ? "redo" : "undo"),
    penBy: (step) => viewer.editing?.biggerBy(step),
    resetView: () => viewer.sides.forEach((side) => side.stage?.resetView()),
    screenshot: () => saveScreenshot(viewer.sides, viewer.words["notice"]),
    fullscreen: () => viewer.toggleFullscreen(),
    help: () => viewer.help.toggle(),
    escape: () => viewer.help.close() || (viewer.editing && set({ tool: "move" })),
    moveTo: (stage, voxel) => viewer.moves.moveTo(stage, voxel),
    step: (dx, dy) => viewer.moves.step(dx, dy),
    scroll: (stage, tile, steps) => viewer.moves.scroll(stage, tile.plane, steps),
    scrollActive: (steps) => viewer.moves.scroll(viewer.stage, viewer.activePlane, steps),
    zoomBy: (stage, factor, voxel) => viewer.moves.linked((other) => other.zoom(factor, other === stage ? voxel : other.voxel)),
    zoomActive: (factor) => viewer.moves.linked((other) => other.zoom(factor)),
    panBy: (stage, tile, dx, dy) => viewer.moves.linked((other) => other.pan(sameTile(other, tile), dx, dy)),
    enlarge: (tile) => viewer.enlarge(tile),
    focus: (tile) => viewer.focus(tile),
    hover: (stage, tile, x, y) => viewer.hover(stage, tile, x, y),
    leave: () => viewer.leave(),
    nextOrgan: (step) => viewer.moves.nextOrgan(step),
    measureFrom: (stage, tile, voxel) => stage === viewer.stage && viewer.measure((measures) => measures.begin(tile.plane, voxel, stage.voxel)),
    measureTo: (voxel) => viewer.measure((measures) => measures.reach(voxel)),
    measureDone: () => viewer.measure((measures) => measures.end()),
    clearMeasures: () => viewer.measure((measures) => measures.clear()),
    penDown: (stage, tile, voxel, tool) => stage === viewer.stage && viewer.editing?.penDown(tile, voxel, tool),
    penMove: (stage, tile, voxel, x, y) => viewer.penMove(tile, voxel, x, y),
    penUp: () => viewer.editing?.penUp(),
  }
}

/** Sideways the window's width, up and down its level: slowly where it is narrow. */
function moved([low, high], dx, dy) {
  const width = Math.max(1, high - low + dx * Math.max(1, (high - low) / 250))
  const level = (low + high) / 2 + dy * Math.max(0.5, (high - low) / 400)
  return [level - width / 2, level + width / 2]
}

function sameTile(stage, tile) {
  return stage.tiles.find((one) => one.plane === tile.plane) || tile
}
