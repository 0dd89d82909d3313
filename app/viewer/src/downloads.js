// Files of a result: some are there, others are made when somebody asks for them.

import { h, svg } from "./dom.js"
import { postJson } from "./fetching.js"

const POLL_MS = 400

function arrow() {
  return svg("svg", { viewBox: "0 0 24 24", width: 16, height: 16, "aria-hidden": "true" }, svg("path", { d: "M12 4v11M7 11l5 5 5-5M5 20h14", fill: "none", stroke: "currentColor", "stroke-width": 2, "stroke-linecap": "round", "stroke-linejoin": "round" }))
}

/** Draws the list anew when it has changed. */
export function mountDownloads({ parentElement, data }) {
  const stamp = JSON.stringify(data)
  if (parentElement.dataset?.stamp === stamp) return
  const host = parentElement.querySelector?.(".downloads-host") || parentElement
  if (host.dataset) host.dataset.stamp = stamp
  host.replaceChildren(
    h("div", { class: "downloads" }, ...data.files.map((file) => link(file))),
    h("p", { class: "notes" }, data.lead),
    h("div", { class: "downloads" }, ...data.exports.map((file) => maker(file, data.words))),
    h("p", { class: "notes" }, data.note),
  )
}

function link(file) {
  return h("a", { href: file.url, download: "", class: file.main ? "main" : "", "data-file": file.name }, arrow(), file.label)
}

function maker(file, words) {
  const text = h("span", {}, file.label)
  const state = { busy: false, again: false }
  const onclick = async (event) => {
    event.preventDefault()
    if (state.busy) return
    state.busy = true
    element.setAttribute("aria-busy", "true")
    const answer = await made(file, state.again, (share) => (text.textContent = `${words.preparing} ${Math.round(share * 100)} %`))
    state.busy = false
    state.again = answer.state !== "done"
    element.removeAttribute("aria-busy")
    text.textContent = file.label
    if (answer.state === "done") fetchFile(file.url)
    else problem.textContent = [`${file.label}: ${words.failed}.`, answer.message, answer.advice].filter(Boolean).join(" ")
    problem.hidden = answer.state === "done"
  }
  const problem = h("p", { class: "notes", role: "alert", hidden: true })
  const element = h("a", { href: file.url, role: "button", "data-file": file.name, onclick }, arrow(), text)
  return h("span", {}, element, problem)
}

async function made(file, again, onShare) {
  let url = again ? `${file.url}&again=1` : file.url
  for (;;) {
    const answer = await postJson(url).catch(() => ({ state: "failed", message: "" }))
    if (!["queued", "running"].includes(answer.state)) return answer
    onShare(answer.fraction || 0)
    url = file.url
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
}

function fetchFile(url) {
  const link = h("a", { href: url, download: "" })
  document.body.append(link)
  link.click()
  link.remove()
}
