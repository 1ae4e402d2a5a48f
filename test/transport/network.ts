/** Raw peers of `node:net`, and looks into the process and the kernel. */
import { assert } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import * as Net from "node:net"
import { setImmediate } from "node:timers/promises"

export const portOf = (address: NetAddress.SocketAddress): number =>
  NetAddress.isUnixPathAddress(address) ? assert.fail("not an internet address") : address.port

/** How many sockets this process has open; 0 where that cannot be told. */
export const openSockets = (): number => {
  if (process.platform !== "linux") return 0
  let count = 0
  for (const descriptor of readdirSync("/proc/self/fd")) {
    try {
      if (readlinkSync(`/proc/self/fd/${descriptor}`).startsWith("socket:")) count++
    } catch {
      // The descriptor of the listing itself.
    }
  }
  return count
}

/** The kernel's IPv4 connections, line by line, column by column. */
export const tcpTable = (): ReadonlyArray<ReadonlyArray<string>> =>
  readFileSync("/proc/net/tcp", "utf8").split("\n").slice(1).map((line) => line.trim().split(/\s+/))

export const nextTurn = Effect.promise(() => setImmediate())

/** Waits for something that the other end of the event loop has to bring about, at most five seconds. */
export const eventually = (condition: () => boolean, what: string): Effect.Effect<void> =>
  Effect.gen(function*() {
    const start = Date.now()
    while (!condition()) {
      if (Date.now() - start > 5000) assert.fail(`not within 5 seconds: ${what}`)
      yield* nextTurn
    }
  })

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
    yield* eventually(() => fillers.filter((socket) => !socket.connecting).length >= 2, "a full backlog")
    // The last of them is still on its way: so will be everyone else's.
    yield* nextTurn
    return { target: NetAddress.inetAddressFromStringUnsafe(host === "::1" ? `[::1]:${port}` : `${host}:${port}`) }
  })

export const hangingListener = hangingListenerAt("127.0.0.1")
