/** When one event brings both bytes and a failure, readers are served before writers are failed. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { duplexPair } from "node:stream"
import * as NodeDuplex from "../../src/adapter/NodeDuplex.ts"
import { utf8 as text } from "../../src/Buffers.ts"
import { Reason, SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import { turns } from "../../src/testing/checks/support.ts"
import { WouldBlock } from "../../src/Transport.ts"
import * as Write from "../../src/Write.ts"
import { ending } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { pairOf, rawClientOf, tcp, withTls } from "../support/transports.ts"
import { start } from "../support/waiting.ts"

const reset = () =>
  new SocketError({ reason: Reason.ConnectionReset(), operation: "socket", transferred: 0, code: "ECONNRESET" })

const large = new Uint8Array(16 * 1024 * 1024)

/** What a reader and a writer of a socket were told, in the order in which they were. */
const told = (socket: StreamSocket.StreamSocket) =>
  Effect.gen(function*() {
    const order: Array<string> = []
    const buffer = new Uint8Array(100)
    const reader = yield* start(
      Effect.tap(Effect.exit(socket.readSome(buffer)), (exit) =>
        Effect.sync(() => {
          order.push(
            `read ${
              Exit.isSuccess(exit) ? Buffer.from(buffer.subarray(0, exit.value)).toString("latin1") : ending(exit)
            }`
          )
        }))
    )
    const writer = yield* start(
      Effect.tap(Effect.exit(Write.writeAll(socket, large)), (exit) =>
        Effect.sync(() => {
          order.push(`write ${Exit.isSuccess(exit) ? "Success" : "failure"}`)
        }))
    )
    return { order, both: Effect.andThen(Fiber.await(reader), Fiber.await(writer)) }
  })

describe("bytes and a failure in one event", () => {
  it.effect("the core serves the reader first", () =>
    Effect.gen(function*() {
      const backing = new FakeBacking()
      const { both, order } = yield* told(StreamSocket.make(backing))
      let isRead = false
      backing.readAnswer = (target) => {
        if (isRead) return reset()
        isRead = true
        target.set(text("last words"))
        return 10
      }
      backing.writeAnswer = () => reset()
      backing.events?.failed(reset())
      yield* both
      assert.deepStrictEqual(order, ["read last words", "write failure"])
    }))

  it.effect("so it does when the writer finds out by its own attempt", () =>
    Effect.gen(function*() {
      const backing = new FakeBacking()
      const { both, order } = yield* told(StreamSocket.make(backing))
      backing.readAnswer = (target) => {
        backing.readAnswer = () => WouldBlock
        target.set(text("last words"))
        return 10
      }
      backing.writeAnswer = () => reset()
      backing.events?.writable()
      backing.events?.failed(reset())
      yield* both
      assert.deepStrictEqual(order, ["read last words", "write failure"])
    }))

  it.live("fromDuplex serves the reader first", () =>
    Effect.gen(function*() {
      const [left, right] = duplexPair()
      const { both, order } = yield* told(yield* NodeDuplex.fromDuplex(left))
      yield* turns()
      right.write("last words")
      left.destroy(new Error("gone"))
      yield* both
      assert.strictEqual(order[0], "read last words")
    }).pipe(Effect.scoped))

  for (const place of tcp) {
    it.live(`a peer that writes and resets: the reader is told first, over ${place.name}`, () =>
      Effect.gen(function*() {
        const [client, server] = yield* rawClientOf(place)
        client.pause()
        const { both, order } = yield* told(server)
        yield* turns()
        client.write("last words")
        // With unread bytes in the kernel this is a reset.
        client.destroy()
        yield* both
        assert.deepStrictEqual(order, ["read last words", "write failure"])
      }).pipe(Effect.scoped, Effect.provide(place.layer)))
  }

  for (const place of withTls) {
    it.live(
      `a peer of ours that writes and goes: the reader is told first, over ${place.name}`,
      () =>
        Effect.gen(function*() {
          const [client, server] = yield* pairOf(place, { linger: "1 second" })
          const { both, order } = yield* told(server)
          yield* turns()
          yield* Write.writeAll(client, text("last words"))
          // Here `abort` in the same turn discards the record, which has not left yet.
          if (place.isUnix && place.name.startsWith("TLS over NodeTransport")) yield* turns()
          yield* start(client.abort)
          yield* both
          assert.deepStrictEqual(order, ["read last words", "write failure"])
        }).pipe(Effect.scoped, Effect.provide(place.layer)),
      30_000
    )
  }
})
