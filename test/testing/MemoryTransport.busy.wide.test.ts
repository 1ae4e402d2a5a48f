/** A connection in memory that is never at rest leaves the event loop its turns: timers fire, and time-outs end it. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { join } from "node:path"

/** What a script prints; in a process of its own, which can be killed when nothing else ends it. */
const printed = (scene: string) =>
  Effect.promise(async () => {
    const child = spawn(process.execPath, [join(import.meta.dirname, "memory-busy.ts"), scene], {
      stdio: ["ignore", "pipe", "inherit"]
    })
    let output = ""
    child.stdout.on("data", (chunk) => (output += String(chunk)))
    const giveUp = setTimeout(() => child.kill("SIGKILL"), 10_000)
    const [, signal] = await once(child, "close")
    clearTimeout(giveUp)
    return signal === null ? output : "it never ended"
  })

describe("fibers that are never at rest, in memory", () => {
  for (const scene of ["echo", "oneWay", "small", "relay", "tls"]) {
    it.live(`a time-out ends them: ${scene}`, () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* printed(scene), "timed out\ntimers fired meanwhile\n")
      }), 30_000)
  }
})
