// The list of organs: shown or hidden, alone, gone to.

import { button, h, icon, setPressed } from "./dom.js"

const FILTER_FROM = 14

export class OrganList {
  /** `hands` answers: setHidden(set), jump(organ). */
  constructor(words, hands) {
    this.words = words
    this.hands = hands
    this.hidden = new Set()
    this.organs = []
    this.rows = h("ul", { class: "organs" })
    this.filter = h("input", { type: "search", placeholder: words["organs.filter"], "aria-label": words["organs.filter"], oninput: () => this.#filter() })
    const all = h("button", { type: "button", class: "text", onclick: () => this.#set(new Set()) }, words["organs.all"])
    const none = h("button", { type: "button", class: "text", onclick: () => this.#set(new Set(this.organs.map((o) => o.value))) }, words["organs.none"])
    const head = h("div", { class: "side-head" }, h("h3", {}, words["organs"]), h("span", { class: "grow" }), all, none)
    this.element = h("section", { class: "side", "aria-label": words["organs"] }, head, this.filter, this.rows)
  }

  show(organs) {
    const same = organs.length === this.organs.length && organs.every((organ, number) => organ.value === this.organs[number].value)
    this.organs = organs
    if (!same) this.hidden = new Set([...this.hidden].filter((value) => organs.some((organ) => organ.value === value)))
    this.filter.hidden = organs.length < FILTER_FROM
    this.rows.replaceChildren(...organs.map((organ) => this.#row(organ)))
    this.element.hidden = organs.length === 0
    this.#mark()
  }

  /** Millilitres by value, while a mask is being corrected. */
  setVolumes(volumes) {
    for (const row of this.rows.children) {
      const ml = volumes[row.dataset.value]
      if (ml !== undefined) row.querySelector(".volume").textContent = volumeText(ml)
    }
  }

  toggle(value) {
    const hidden = new Set(this.hidden)
    if (!hidden.delete(value)) hidden.add(value)
    this.#set(hidden)
  }

  solo(value) {
    const others = this.organs.map((organ) => organ.value).filter((other) => other !== value)
    const alone = others.every((other) => this.hidden.has(other)) && !this.hidden.has(value)
    this.#set(new Set(alone ? [] : others))
  }

  #set(hidden) {
    this.hidden = hidden
    this.#mark()
    this.hands.setHidden(hidden)
  }

  #row(organ) {
    const { words } = this
    const swatch = h("span", { class: "swatch" })
    swatch.style.backgroundColor = `rgb(${organ.colour.join(" ")})`
    const name = h("button", { type: "button", class: "name", title: words["organs.jump"], onclick: () => this.hands.jump(organ) }, swatch, h("span", {}, organ.title))
    const eye = button("eye", `${words["organs.show"]}: ${organ.title}`, () => this.toggle(organ.value), { class: "eye" })
    const solo = button("solo", `${words["organs.solo"]}: ${organ.title}`, () => this.solo(organ.value), { class: "solo" })
    return h("li", { "data-value": String(organ.value), "data-organ": organ.name }, eye, name, h("span", { class: "volume" }, organ.volume), solo)
  }

  #mark() {
    const shown = this.organs.filter((organ) => !this.hidden.has(organ.value))
    for (const row of this.rows.children) {
      const value = Number(row.dataset.value)
      const visible = !this.hidden.has(value)
      row.classList.toggle("off", !visible)
      const eye = row.querySelector(".eye")
      setPressed(eye, visible)
      eye.replaceChildren(icon(visible ? "eye" : "hidden"))
      setPressed(row.querySelector(".solo"), visible && shown.length === 1)
    }
  }

  #filter() {
    const wanted = this.filter.value.trim().toLowerCase()
    for (const [number, row] of [...this.rows.children].entries()) {
      row.hidden = wanted !== "" && !this.organs[number].title.toLowerCase().includes(wanted)
    }
  }
}

/** Three digits that matter, as in the table. */
function volumeText(ml) {
  const digits = ml < 1 ? 2 : ml < 1000 ? 1 : 0
  return ml === 0 ? "–" : ml.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })
}
