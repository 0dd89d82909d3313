// The pictures with what is written over them, as a file. It says what it is, and names nobody.

import { describe, paintOn } from "./overlay.js"

const FOOT = 26

export async function saveScreenshot(sides, notice) {
  const shots = await Promise.all(sides.filter((side) => side.stage?.tiles).map(shoot))
  if (!shots.length) return
  const [width, height] = [shots.reduce((sum, shot) => sum + shot.width, 0), Math.max(...shots.map((shot) => shot.height))]
  const sheet = new OffscreenCanvas(width, height + FOOT)
  const context = sheet.getContext("2d")
  context.fillStyle = "#000"
  context.fillRect(0, 0, width, height + FOOT)
  let left = 0
  for (const shot of shots) {
    context.drawImage(shot, left, 0)
    left += shot.width
  }
  context.fillStyle = "#cbd5e1"
  context.font = "13px system-ui, sans-serif"
  context.fillText(notice, 10, height + 18)
  save(await sheet.convertToBlob({ type: "image/png" }))
}

async function shoot(side) {
  const bitmap = await side.stage.bitmap()
  const canvas = new OffscreenCanvas(bitmap.width, bitmap.height)
  const context = canvas.getContext("2d")
  context.drawImage(bitmap, 0, 0)
  paintOn(context, describe(side.stage, side.model()), bitmap.width / side.stage.canvas.clientWidth)
  return canvas
}

function save(blob) {
  const link = document.createElement("a")
  link.href = URL.createObjectURL(blob)
  link.download = `medseg_view_${Date.now().toString(36)}.png`
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000)
}
