// What the page calls: mount a viewer, take it away again, and the list of downloads.

import { Viewer } from "./viewer.js"

export { mountDownloads } from "./downloads.js"

const mounted = new WeakMap()

/** Makes a viewer, or tells the one that is there what has changed. */
export function mount(component) {
  const { parentElement, data } = component
  const earlier = mounted.get(parentElement)
  if (earlier && earlier.key === keyOf(data)) {
    earlier.component = component
    return earlier.viewer.update(data, component)
  }
  earlier?.viewer.dispose()
  const viewer = new Viewer(parentElement, data, component)
  mounted.set(parentElement, { key: keyOf(data), viewer, component })
  return viewer.begin()
}

/** A page that was drawn anew takes its last component away when the next one may be there already: that one stays. */
export function unmount(component) {
  const found = mounted.get(component.parentElement)
  if (found?.component !== component) return
  found.viewer.dispose()
  mounted.delete(component.parentElement)
}

/** What cannot change without beginning anew. */
function keyOf(data) {
  return JSON.stringify([data.base, data.scan.shape, data.lang, data.compare?.base])
}
