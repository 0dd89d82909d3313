// HU and organ under the cursor, asked of the full-resolution volume on the server, one question at a time.

import { h } from "./dom.js"
import { askJson } from "./fetching.js"
import { toMillimetres } from "./geometry.js"

export class Inspector {
  /** `outside` is what is said of a place beyond the scan. */
  constructor(outside) {
    this.outside = outside
    this.element = h("output", { class: "place" })
    this.question = null
    this.isAsking = false
  }

  /** The answer to the last question counts; those between are not asked. */
  ask(side, voxel, isDraft) {
    this.question = { side, voxel, isDraft }
    this.element.dataset.state = "asking"
    if (!this.isAsking) this.#answer()
  }

  /** Nothing is there: no value of the nearest voxel is passed off as one of this place. */
  leaveScan() {
    this.question = null
    this.element.dataset.state = "outside"
    this.#clear()
  }

  #clear() {
    this.element.replaceChildren(h("span", { class: "where" }, this.outside))
    for (const name of ["hu", "organ", "voxel"]) delete this.element.dataset[name]
  }

  async #answer() {
    this.isAsking = true
    while (this.question) {
      const { side, voxel, isDraft } = this.question
      this.question = null
      const place = toMillimetres(side.scan.affine, voxel)
      const number = side.source.run?.number
      const run = number ? `&run=${number}${isDraft ? "&draft=1" : ""}` : ""
      const [x, y, z] = place
      try {
        const answer = await askJson(`${side.base}/at?x=${x}&y=${y}&z=${z}${run}`)
        if (this.question || this.element.dataset.state === "outside") continue
        this.#tell(answer, side.source.organs, place)
      } catch {
        this.element.textContent = ""
        this.element.dataset.state = "lost"
      }
    }
    this.isAsking = false
  }

  #tell(answer, organs, place) {
    if (!answer.inside) return this.leaveScan()
    const organ = organs.find((one) => one.value === answer.organ)
    const where = place.map((value, axis) => `${"LPIRAS"[value < 0 ? axis : axis + 3]} ${Math.abs(value).toFixed(1)}`)
    const parts = [["hu", `${answer.hu} HU`.replace("-", "−")], ["organ", organ?.title], ["where", `${where.join("  ")} mm`]]
    this.element.replaceChildren(...parts.filter(([, text]) => text).map(([kind, text]) => h("span", { class: kind }, text)))
    Object.assign(this.element.dataset, { state: "told", hu: answer.hu, organ: organ?.name || "", voxel: answer.voxel.join(",") })
    return undefined
  }
}
