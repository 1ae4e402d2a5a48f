/** `within` bounds the time in which nothing was taken, and not the whole of what is still to be written. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as Socket from "effect/socket/Socket"
import * as TestClock from "effect/testing/TestClock"
import * as EffectSocket from "../../src/adapter/EffectSocket.ts"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as CompletionCondition from "../../src/CompletionCondition.ts"
import * as Framing from "../../src/Framing.ts"
import * as Relay from "../../src/Relay.ts"
import * as Server from "../../src/Server.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import { turns } from "../../src/testing/checks/support.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as Write from "../../src/Write.ts"
import { pattern } from "../support/bytes.ts"
import { transferOf } from "../support/exits.ts"
import { kernel, secured } from "../support/transports.ts"
import { start } from "../support/waiting.ts"

type Stream = StreamSocket.StreamSocket

const size = 400
const message = pattern(size)

/** Reads 10 bytes every 100 milliseconds, as long as somebody lets the time pass. */
const slowly = (socket: Stream, received: { bytes: number }) =>
  Effect.gen(function*() {
    const buffer = new Uint8Array(10)
    while (true) {
      yield* Effect.sleep(100)
      received.bytes += yield* socket.readSome(buffer)
    }
  })

const pass = (millis: number) =>
  Effect.gen(function*() {
    for (let time = 0; time < millis; time += 50) {
      yield* TestClock.adjust(50)
      yield* turns(2)
    }
  })

/** Whole messages, each of which takes far longer than half a second to such a reader. */
const writes: Readonly<Record<string, (socket: Stream) => Effect.Effect<unknown, unknown>>> = {
  writeAll: (socket) => Write.writeAll(socket, message),
  "writeAll of many pieces": (socket) => Write.writeAll(socket, Array.from({ length: 40 }, () => new Uint8Array(10))),
  "writeAll by a condition": (socket) => Write.writeAll(socket, message, CompletionCondition.transferExactly(size)),
  "writeAll, not of ours": (socket) => Write.writeAll({ writeSome: (source) => socket.writeSome(source) }, message),
  "Framing.send": (socket) => Framing.send(socket, Framing.lengthPrefixed(), message),
  "Framing.send, not of ours": (socket) =>
    Framing.send({ writeSome: (source) => socket.writeSome(source) }, Framing.lengthPrefixed(), message)
}

describe("Cancellation.total({ within })", () => {
  for (const [name, write] of Object.entries(writes)) {
    it.effect(`${name} goes on as long as bytes flow`, () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 16, linger: 0 })
        const received = { bytes: 0 }
        yield* start(slowly(right, received))
        const fiber = yield* start(Cancellation.total({ within: 500 })(write(left)))
        yield* pass(500)
        fiber.interruptUnsafe()
        yield* pass(10_000)
        const exit = yield* Fiber.await(fiber)
        const { guarantee, total, transferred } = transferOf(exit)
        assert.deepStrictEqual([guarantee, transferred], ["total", total])
        assert.isAtLeast(received.bytes, size)
        assert.strictEqual(left.state.write, "open")
      }).pipe(Effect.scoped))

    it.effect(`${name} ends when nothing was taken for that time`, () =>
      Effect.gen(function*() {
        const [left, right] = yield* MemoryTransport.pair({ capacity: 16, linger: 0 })
        const received = { bytes: 0 }
        const reader = yield* start(slowly(right, received))
        const fiber = yield* start(Cancellation.total({ within: 500 })(write(left)))
        yield* pass(500)
        fiber.interruptUnsafe()
        yield* pass(1500)
        assert.strictEqual(fiber.pollUnsafe(), undefined)
        yield* Fiber.interrupt(reader)
        yield* pass(400)
        assert.strictEqual(fiber.pollUnsafe(), undefined)
        yield* pass(300)
        const ended = fiber.pollUnsafe()
        if (ended === undefined) return assert.fail("it still waits")
        const { guarantee, transferred } = transferOf(ended)
        assert.strictEqual(guarantee, "terminal")
        assert.isAbove(transferred, 200)
      }).pipe(Effect.scoped))
  }

  it.effect("atMost bounds the whole, even if bytes flow", () =>
    Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair({ capacity: 16, linger: 0 })
      yield* start(slowly(right, { bytes: 0 }))
      const fiber = yield* start(Cancellation.total({ within: 500, atMost: 1000 })(Write.writeAll(left, message)))
      yield* pass(500)
      fiber.interruptUnsafe()
      yield* pass(900)
      assert.strictEqual(fiber.pollUnsafe(), undefined)
      yield* pass(200)
      const ended = fiber.pollUnsafe()
      if (ended === undefined) return assert.fail("it still waits")
      const { guarantee, transferred } = transferOf(ended)
      assert.strictEqual(guarantee, "terminal")
      assert.isAbove(transferred, 100)
      assert.strictEqual(left.state.write, "torn")
    }).pipe(Effect.scoped))

  it.effect("Relay.copy goes on as long as bytes flow", () =>
    Effect.gen(function*() {
      const [client, from] = yield* MemoryTransport.pair({ linger: 0 })
      const [to, server] = yield* MemoryTransport.pair({ capacity: 16, linger: 0 })
      const received = { bytes: 0 }
      yield* Write.writeAll(client, message)
      yield* start(slowly(server, received))
      const fiber = yield* start(Cancellation.total({ within: 500 })(Relay.copy(from, to)))
      yield* pass(500)
      fiber.interruptUnsafe()
      yield* pass(10_000)
      const { guarantee, total, transferred } = transferOf(yield* Fiber.await(fiber))
      assert.deepStrictEqual([transferred, total], [size, size])
      assert.notStrictEqual(guarantee, "terminal")
      assert.strictEqual(to.state.write, "open")
    }).pipe(Effect.scoped))
})

describe("the default bound of adapters", () => {
  it.effect("one interrupted caller of a shared Socket does not end the connection of the others", () =>
    Effect.gen(function*() {
      const [left, right] = yield* MemoryTransport.pair({ capacity: 16, linger: 0 })
      const received = { bytes: 0 }
      yield* start(slowly(right, received))
      const socket: Socket.Socket = EffectSocket.toSocket(left)
      const reader = yield* socket.reader
      const writer = yield* socket.writer
      const reading = yield* start(Effect.exit(reader.pull))
      // By default it has 2 seconds.
      const one = yield* start(writer.write(message))
      const other = yield* start(writer.write(text("the other caller's words")))
      yield* pass(200)
      one.interruptUnsafe()
      yield* pass(10_000)
      assert.strictEqual(received.bytes, size + 24)
      const exit = other.pollUnsafe()
      assert.strictEqual(exit?._tag, "Success")
      assert.strictEqual(left.state.write, "open")
      assert.strictEqual(reading.pollUnsafe(), undefined)
    }).pipe(Effect.scoped))

  for (const place of [...kernel, ...kernel.map(secured)]) {
    it.live(
      `a reject message is sent as long as its client takes it, over ${place.name}`,
      () =>
        Effect.gen(function*() {
          const send = new Uint8Array(24 * 1024 * 1024)
          const server = yield* Server.make(() => Effect.never, {
            listen: place.address(),
            limits: { connections: { max: 1, action: { send, within: 400 } } },
            shutdown: { deadline: 0 }
          })
          yield* StreamSocket.connect(server.addresses[0])
          const refused = yield* StreamSocket.connect(server.addresses[0])
          const buffer = new Uint8Array(256 * 1024)
          let bytes = 0
          while (bytes < send.byteLength) {
            const exit = yield* Effect.exit(refused.readSome(buffer))
            if (Exit.isFailure(exit)) break
            bytes += exit.value
            if (Math.floor(bytes / 2_000_000) !== Math.floor((bytes - exit.value) / 2_000_000)) yield* Effect.sleep(100)
          }
          assert.strictEqual(bytes, send.byteLength)
        }).pipe(Effect.scoped, Effect.provide(place.layer)),
      60_000
    )
  }
})
