// Bundles src/ into static/, and writes down what came with it under which licence. `make viewer` runs it.
import { build } from "esbuild"
import { copyFile, readFile, readdir, rm, writeFile } from "node:fs/promises"
import { join } from "node:path"

const OUT = "static"
const FONT = "node_modules/@expo-google-fonts/noto-sans-sc/LICENSE_FONT"

async function bundle() {
  const result = await build({
    entryPoints: [
      { in: "src/main.js", out: "viewer" },
      { in: "src/viewer.css", out: "viewer" },
    ],
    bundle: true,
    minify: true,
    format: "esm",
    target: "es2022",
    outdir: OUT,
    legalComments: "none",
    metafile: true,
    logLevel: "warning",
  })
  return Object.keys(result.metafile.inputs)
}

/** Names of the packages from which the bundle took anything. */
function packagesOf(inputs) {
  const names = inputs.map((path) => path.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)/)?.[1])
  return [...new Set(names.filter(Boolean))].sort()
}

async function licenceOf(name) {
  const folder = join("node_modules", name)
  const about = JSON.parse(await readFile(join(folder, "package.json"), "utf8"))
  const files = (await readdir(folder)).filter((file) => /^(licen[cs]e|copying|notice)/i.test(file))
  const texts = await Promise.all(files.map((file) => readFile(join(folder, file), "utf8")))
  const text = texts.join("\n") || MISSING[name] || ""
  if (!text) throw new Error(`${name} brings no licence text: add it to MISSING in build.mjs`)
  return `${name} ${about.version} (${about.license})\n\n${text.trim()}\n`
}

const BSD_2 = (whose) => `${whose}
All rights reserved.

Redistribution and use in source and binary forms, with or without modification, are permitted provided that the
following conditions are met:

1. Redistributions of source code must retain the above copyright notice, this list of conditions and the following
   disclaimer.
2. Redistributions in binary form must reproduce the above copyright notice, this list of conditions and the following
   disclaimer in the documentation and/or other materials provided with the distribution.

THIS SOFTWARE IS PROVIDED BY THE COPYRIGHT HOLDERS AND CONTRIBUTORS "AS IS" AND ANY EXPRESS OR IMPLIED WARRANTIES,
INCLUDING, BUT NOT LIMITED TO, THE IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS FOR A PARTICULAR PURPOSE ARE
DISCLAIMED. IN NO EVENT SHALL THE COPYRIGHT HOLDER OR CONTRIBUTORS BE LIABLE FOR ANY DIRECT, INDIRECT, INCIDENTAL,
SPECIAL, EXEMPLARY, OR CONSEQUENTIAL DAMAGES (INCLUDING, BUT NOT LIMITED TO, PROCUREMENT OF SUBSTITUTE GOODS OR
SERVICES; LOSS OF USE, DATA, OR PROFITS; OR BUSINESS INTERRUPTION) HOWEVER CAUSED AND ON ANY THEORY OF LIABILITY,
WHETHER IN CONTRACT, STRICT LIABILITY, OR TORT (INCLUDING NEGLIGENCE OR OTHERWISE) ARISING IN ANY WAY OUT OF THE USE
OF THIS SOFTWARE, EVEN IF ADVISED OF THE POSSIBILITY OF SUCH DAMAGE.`

// Packages that name their licence and leave its text out.
const MISSING = { "@niivue/niivue": BSD_2("Copyright (c) 2021, NiiVue contributors") }

await rm(OUT, { recursive: true, force: true })
const packages = packagesOf(await bundle())
const texts = await Promise.all(packages.map(licenceOf))
await writeFile(join(OUT, "THIRD_PARTY_LICENSES.txt"), texts.join(`\n${"-".repeat(80)}\n\n`))
await copyFile(FONT, "../../medseg/exports/fonts/OFL.txt")
console.log(`Bundled ${packages.join(", ")}`)
