/** The examples as programs of their own, run as their users run them. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { fileURLToPath } from "node:url"
import { eventually } from "./waiting.ts"

export interface Program {
  /** What it has printed so far, on both outputs. */
  readonly output: () => string
  /** The port that it says to listen on. */
  readonly port: number
  readonly signal: (name: NodeJS.Signals) => void
  /** Ctrl-C; succeeds with the exit code when the program has ended. */
  readonly interrupt: Effect.Effect<number | null>
}

/** Runs an example that listens; it has ended, at the latest, with the scope. */
export const listening = (
  file: string,
  ...args: ReadonlyArray<string>
): Effect.Effect<Program, never, Scope.Scope> =>
  Effect.gen(function*() {
    const path = fileURLToPath(new URL(`../../examples/${file}`, import.meta.url))
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => spawn(process.execPath, [path, ...args], { stdio: ["ignore", "pipe", "pipe"] })),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    )
    let output = ""
    for (const stream of [child.stdout, child.stderr]) {
      stream.setEncoding("utf8").on("data", (text: string) => {
        output += text
      })
    }
    const ended = once(child, "close")
    const address = /^listening on tcp:.*:(\d+)\n/m
    yield* eventually(() => `${file} does not listen: ${output}`, () => address.test(output))
    return {
      output: () => output,
      port: Number(address.exec(output)?.[1]),
      signal: (name) => void child.kill(name),
      interrupt: Effect.promise(async () => {
        child.kill("SIGINT")
        const [code] = await ended
        return code as number | null
      })
    }
  })
