import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"

/** Whether this machine has a Redis server to start. */
export const isInstalled = spawnSync("redis-server", ["--version"]).status === 0

/** The server did not start; `log` is what it printed. */
class NotStarted extends Data.TaggedError("NotStarted")<{ readonly log: string }> {}

/** A server of one's own: on a Unix-domain path, without a port, without files. It ends with the scope. */
export const start: Effect.Effect<{ readonly path: string; readonly pid: number }, NotStarted, Scope.Scope> = Effect
  .gen(function*() {
    const directory = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "effect-asio-redis-"))),
      (directory) => Effect.sync(() => rmSync(directory, { recursive: true }))
    )
    const path = join(directory, "redis.sock")
    const server = yield* Effect.acquireRelease(
      Effect.sync(() => {
        const args = ["--port", "0", "--unixsocket", path, "--save", "", "--appendonly", "no", "--dir", directory]
        const server = spawn("redis-server", args, { stdio: ["ignore", "pipe", "ignore"] })
        // Also when the process of the tests ends without closing its scopes.
        const kill = () => server.kill("SIGKILL")
        process.once("exit", kill)
        server.once("exit", () => process.off("exit", kill))
        return server
      }),
      ended
    )
    yield* ready(server)
    return { path, pid: server.pid! }
  })

const ready = (server: ChildProcess): Effect.Effect<void, NotStarted> =>
  Effect.callback((resume) => {
    const log: Array<string> = []
    const fail = () => resume(Effect.fail(new NotStarted({ log: log.join("\n") })))
    server.once("error", fail)
    server.once("exit", fail)
    createInterface(server.stdout!).on("line", (line) => {
      log.push(line)
      if (/ready to accept connections/i.test(line)) resume(Effect.void)
    })
  })

const ended = (server: ChildProcess): Effect.Effect<void> =>
  Effect.callback((resume) => {
    if (server.exitCode !== null || server.signalCode !== null) return resume(Effect.void)
    server.once("close", () => resume(Effect.void))
    server.kill()
  })
