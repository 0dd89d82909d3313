// What the page calls: mount a viewer, take it away again, and the list of downloads.

import { Viewer } from "./viewer.js"

export { mountDownloads } from "./downloads.js"

const mounted = new WeakMap()

/** Makes a viewer, or tells the one that is there what has changed. */
export function mount(component) {
  const { parentElement, data } = component
  const earlier = mounted.get(parentElement)
  if (earlier && earlier.key === keyOf(data)) return earlier.viewer.update(data, component)
  earlier?.viewer.dispose()
  const viewer = new Viewer(parentElement, data, component)
  mounted.set(parentElement, { key: keyOf(data), viewer })
  return viewer.begin()
}

export function unmount(parentElement) {
  mounted.get(parentElement)?.viewer.dispose()
  mounted.delete(parentElement)
}

/** What cannot change without beginning anew. */
function keyOf(data) {
  return JSON.stringify([data.base, data.scan.shape, data.lang, data.compare?.base])
}
