// A card with the shortcuts.

import { button, h } from "./dom.js"
import { SHORTCUTS } from "./keys.js"

export class HelpCard {
  constructor(words, root) {
    const close = button("close", words["help.close"], () => this.close())
    const rows = SHORTCUTS.flatMap(([keys, key]) => [h("dt", {}, ...keys.split("  ").map((part) => h("kbd", {}, part))), h("dd", {}, words[key])])
    const head = h("header", {}, h("h3", {}, words["help"]), close)
    this.card = h("div", { class: "help", role: "dialog", "aria-label": words["help"], hidden: true }, head, h("p", {}, words["help.mouse"]), h("dl", {}, ...rows))
    this.focus = close
    root.append(this.card)
  }

  toggle() {
    if (!this.card.hidden) return this.close()
    this.card.hidden = false
    this.focus.focus()
    return true
  }

  close() {
    const wasOpen = !this.card.hidden
    this.card.hidden = true
    return wasOpen
  }
}
