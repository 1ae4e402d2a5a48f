import * as Effect from "effect/Effect"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as Net from "node:net"
import { inet } from "./addresses.ts"
import { eventually, turn } from "./waiting.ts"

/** A listener in another process that never accepts and whose backlog is full: connecting to it waits. */
export const hangingListenerAt = (
  host: "127.0.0.1" | "::1"
): Effect.Effect<{ readonly target: NetAddress.InetAddress }, never, Scope.Scope> =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, [
          "-e",
          `const server = require("node:net").createServer()
          server.listen({ port: 0, host: "${host}", backlog: 1 }, () => {
            require("node:fs").writeSync(1, String(server.address().port))
            Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0)
          })`
        ], { stdio: ["ignore", "pipe", "inherit"] })
      ),
      (child) =>
        Effect.promise(async () => {
          child.kill("SIGKILL")
          await once(child, "close")
        })
    )
    const port = Number(String(yield* Effect.promise(async () => (await once(child.stdout, "data"))[0])))
    const fillers = yield* Effect.acquireRelease(
      Effect.sync(() => Array.from({ length: 4 }, () => Net.connect(port, host).on("error", () => {}))),
      (sockets) => Effect.sync(() => sockets.forEach((socket) => socket.destroy()))
    )
    yield* eventually("a full backlog", () => fillers.filter((socket) => !socket.connecting).length >= 2)
    // The last of them is still on its way: so will be everyone else's.
    yield* turn
    return { target: inet(host === "::1" ? `[::1]:${port}` : `${host}:${port}`) }
  })

export const hangingListener = hangingListenerAt("127.0.0.1")

/**
 * A listener in another process on a Unix-domain path, whose backlog is full. `resume` lets it accept from then on.
 */
export const fullBacklogAt = (
  path: string
): Effect.Effect<{ readonly resume: () => void }, never, Scope.Scope> =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() =>
        spawn(process.execPath, [
          "-e",
          `const server = require("node:net").createServer((socket) => socket.on("error", () => {}))
          server.listen({ path: process.argv[1], backlog: 1 }, () => {
            require("node:fs").writeSync(1, "listens")
            require("node:fs").readSync(0, new Uint8Array(1))
          })`,
          path
        ], { stdio: ["pipe", "pipe", "inherit"] })
      ),
      (child) =>
        Effect.promise(async () => {
          child.kill("SIGKILL")
          await once(child, "close")
        })
    )
    child.stdin.on("error", () => {})
    yield* Effect.promise(() => once(child.stdout, "data"))
    const refused: Array<string | undefined> = []
    yield* Effect.acquireRelease(
      Effect.sync(() =>
        Array.from({ length: 8 }, () =>
          Net.connect(path).on("error", (cause: NodeJS.ErrnoException) => refused.push(cause.code)))
      ),
      (sockets) =>
        Effect.sync(() => sockets.forEach((socket) => socket.destroy()))
    )
    yield* eventually("a full backlog", () => refused.includes("EAGAIN"))
    return { resume: () => void child.stdin.write("x") }
  })
