/** No duration goes by the wall clock: who reads it says next to it why, in a comment with the words "wall clock". */
import { assert, it } from "@effect/vitest"
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"

const root = join(import.meta.dirname, "../..")

// Also what is handed to libraries: Effect's rate limiter goes by milliseconds of the wall clock.
const readsIt = /currentTimeMillis|currentTimeNanos|Date\.now|new Date\(\)|DateTime\.now|RateLimiter\.make/

const sources = readdirSync(join(root, "src"), { recursive: true, encoding: "utf8" }).filter((name) =>
  name.endsWith(".ts")
)

it("every use of the wall clock in src says why", () => {
  const silent = sources.flatMap((name) => {
    const lines = readFileSync(join(root, "src", name), "utf8").split("\n")
    return lines.flatMap((line, i) => {
      if (/^\s*(\*|\/\/|\/\*)/.test(line) || !readsIt.test(line)) return []
      const near = lines.slice(Math.max(0, i - 3), i + 1).join("\n")
      return /wall clock/.test(near) ? [] : [`src/${name}:${i + 1}: ${line.trim()}`]
    })
  })
  assert.deepStrictEqual(silent, [])
})
