// What the page calls: mount a viewer, take it away again, and the list of downloads.

import { Viewer } from "./viewer.js"

export { mountDownloads } from "./downloads.js"

const mounted = new WeakMap()

/** Makes a viewer, or tells the one that is there what has changed. */
export function mount(component) {
  const { parentElement, data } = component
  const earlier = mounted.get(parentElement)
  if (earlier && earlier.key === keyOf(data) && parentElement.contains(earlier.viewer.root)) {
    earlier.holders.add(component)
    return earlier.viewer.update(data, component)
  }
  earlier?.viewer.dispose()
  const viewer = new Viewer(parentElement, data, component)
  mounted.set(parentElement, { key: keyOf(data), viewer, holders: new Set([component]) })
  return viewer.begin()
}

/**
 * The viewer goes with the last component that holds it. A page that is drawn anew mounts the next component before
 * or after it takes the one before away, in any order.
 */
export function unmount(component) {
  const found = mounted.get(component.parentElement)
  if (!found?.holders.delete(component) || found.holders.size > 0) return
  found.viewer.dispose()
  mounted.delete(component.parentElement)
}

/** What cannot change without beginning anew; a difference names both results that are compared. */
function keyOf(data) {
  return JSON.stringify([data.base, data.scan.shape, data.lang, data.compare?.difference])
}
