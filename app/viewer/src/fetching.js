// What comes from the server: always with the visitor's cookie, never from a cache.

const OPTIONS = { credentials: "same-origin", cache: "no-store" }

/** The server answered that there is no such thing. */
export class NotThere extends Error {}

function check(answer) {
  if (answer.status === 404) throw new NotThere("404")
  if (!answer.ok) throw new Error(`${answer.status}`)
}

export async function fetchBytes(url, signal) {
  for (let tries = 0; tries < 40; tries += 1) {
    const answer = await fetch(url, { ...OPTIONS, signal })
    if (answer.status === 202) continue // being made; the server has waited already
    check(answer)
    return new Uint8Array(await answer.arrayBuffer())
  }
  throw new Error("timeout")
}

/**
 * Fetches a volume slab by slab: `onSlab(first, bytes)` for every `slab` slices, `onShare` while they come.
 * Slabs are large: handing a texture many small pieces takes far longer than the fetching.
 */
export async function fetchSlabs(url, { sliceBytes, slices, slab }, onSlab, onShare, signal) {
  const answer = await fetch(url, { ...OPTIONS, signal })
  check(answer)
  const reader = answer.body.getReader()
  let first = 0
  let buffer = new Uint8Array(sliceBytes * Math.min(slab, slices))
  let filled = 0
  for (;;) {
    const { done, value } = await reader.read()
    if (done) break
    for (let offset = 0; offset < value.length; ) {
      const taken = Math.min(buffer.length - filled, value.length - offset)
      if (taken === 0) throw new Error("too long")
      buffer.set(value.subarray(offset, offset + taken), filled)
      filled += taken
      offset += taken
      if (filled === buffer.length) {
        onSlab(first, buffer)
        first += filled / sliceBytes
        buffer = new Uint8Array(sliceBytes * Math.min(slab, slices - first))
        filled = 0
      }
    }
    onShare((first + filled / sliceBytes) / slices)
  }
  return first
}

export async function askJson(url, signal) {
  const answer = await fetch(url, { ...OPTIONS, signal })
  check(answer)
  return answer.json()
}

export async function postJson(url, body = {}) {
  const answer = await fetch(url, {
    ...OPTIONS,
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  })
  let content = {}
  try {
    content = await answer.json()
  } catch {
    content = {}
  }
  return { ok: answer.ok, status: answer.status, ...content }
}
