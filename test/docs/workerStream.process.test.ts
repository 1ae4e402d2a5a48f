/** The transport that `src/README.md` shows keeps every promise of the stream contract. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { MessageChannel, Worker } from "node:worker_threads"
import { Buffers, Read, StreamSocket, Write } from "../../src/index.ts"
import type { SocketOptions } from "../../src/Transport.ts"
import { conformance } from "../suites/conformance/bind.ts"
import { makeBacking } from "./workerStream.ts"

const pair = (options?: Pick<SocketOptions, "linger">) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { port1, port2 } = new MessageChannel()
      const open = (port: typeof port1) => StreamSocket.make(makeBacking(port), options)
      return [open(port1), open(port2)] as const
    }),
    ([left, right]) => Effect.andThen(left.close, right.close)
  )

const can = { reset: true, halfClose: true, readAfterWriteFailure: true }

conformance({ name: "streams between worker threads", pair, advance: Effect.sleep, can }, it.live)

/** A stream to a thread that echoes, and exits at the line "exit". */
const echoing = Effect.gen(function*() {
  const { port1, port2 } = new MessageChannel()
  yield* Effect.acquireRelease(
    Effect.sync(() =>
      new Worker(new URL("workerEcho.ts", import.meta.url), { workerData: port2, transferList: [port2] })
    ),
    (worker) => Effect.promise(() => worker.terminate())
  )
  return yield* Effect.acquireRelease(
    Effect.sync(() => StreamSocket.make(makeBacking(port1))),
    (socket) => socket.close
  )
})

describe("a stream to another thread", () => {
  it.live("carries more than its window, and its end", () =>
    Effect.gen(function*() {
      const socket = yield* echoing
      const line = Buffers.utf8(`${"x".repeat(1_000_000)}\n`)
      yield* Effect.forkChild(Write.writeAll(socket, line))
      assert.strictEqual((yield* Read.readLine(socket, { max: 2_000_000 })).length, 1_000_000)
      yield* socket.shutdownWrite
      assert.strictEqual((yield* Read.readAll(socket)).byteLength, 0)
    }))

  it.live("is reset when the thread exits", () =>
    Effect.gen(function*() {
      const socket = yield* echoing
      yield* Write.writeAll(socket, Buffers.utf8("exit\n"))
      const error = yield* Effect.flip(Read.readLine(socket))
      assert.strictEqual(error._tag === "SocketError" ? error.reason._tag : error, "ConnectionReset")
    }))
})
