/** A transport that is told when nobody waits for it any more, and only then. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import * as Acceptor from "../../src/Acceptor.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Read from "../../src/Read.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import { type ListenerBacking, WouldBlock } from "../../src/Transport.ts"
import * as Write from "../../src/Write.ts"
import { failure } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { start } from "../support/waiting.ts"

class Backing extends FakeBacking {
  readonly idled: Array<"read" | "write"> = []
  interestDropped(direction: "read" | "write"): void {
    this.idled.push(direction)
  }
}

const make = Effect.sync(() => {
  const backing = new Backing()
  return { backing, socket: StreamSocket.make(backing) }
})

const memory = () => new Uint8Array(4)

describe("a transport that nobody waits for", () => {
  it.effect("is told when the last one in line is interrupted, and not before", () =>
    Effect.gen(function*() {
      const { backing, socket } = yield* make
      const first = yield* start(socket.readSome(memory()))
      const second = yield* start(Read.readUntil(socket, "\n"))
      const writing = yield* start(Write.writeAll(socket, memory()))
      yield* Fiber.interrupt(first)
      assert.deepStrictEqual(backing.idled, [])
      yield* Fiber.interrupt(second)
      assert.deepStrictEqual(backing.idled, ["read"])
      yield* Fiber.interrupt(writing)
      assert.deepStrictEqual(backing.idled, ["read", "write"])
    }))

  it.effect("is told when a request or a deadline ends the wait", () =>
    Effect.gen(function*() {
      const { backing, socket } = yield* make
      const signal = Cancellation.makeSignal()
      const reading = yield* start(Cancellation.withSignal(socket.readSome(memory()), signal))
      const writing = yield* start(Cancellation.withSignal(socket.writeSome(memory()), signal))
      yield* signal.emit("total")
      yield* Fiber.awaitAll([reading, writing])
      assert.deepStrictEqual(backing.idled.toSorted(), ["read", "write"])
    }))

  it.effect("is told when a write was cut after some bytes", () =>
    Effect.gen(function*() {
      const { backing, socket } = yield* make
      let room = 2
      backing.writeAnswer = () => {
        const taken = room
        room = WouldBlock
        return taken
      }
      const writing = yield* start(Cancellation.partial(Write.writeAll(socket, memory())))
      yield* Fiber.interrupt(writing)
      assert.deepStrictEqual([backing.idled, socket.bytesWritten], [["write"], 2])
    }))

  it.effect("is told when the wait is served by bytes that were put back", () =>
    Effect.gen(function*() {
      const { backing, socket } = yield* make
      const first = yield* start(socket.readSome(memory()))
      const second = yield* start(socket.readSome(memory()))
      yield* Read.unread(socket, memory())
      yield* Fiber.join(first)
      assert.deepStrictEqual(backing.idled, [])
      yield* Read.unread(socket, memory())
      yield* Fiber.join(second)
      assert.deepStrictEqual(backing.idled, ["read"])
    }))

  it.effect("is told when a cut leaves the next one in line what it wants", () =>
    Effect.gen(function*() {
      const { backing, socket } = yield* make
      const pending = [3, WouldBlock]
      backing.readAnswer = () => pending.shift() ?? WouldBlock
      const composed = yield* start(Read.readExactly(socket, memory()))
      const next = yield* start(socket.readSome(memory()))
      yield* Fiber.interrupt(composed)
      assert.strictEqual(yield* Fiber.join(next), 3)
      assert.deepStrictEqual(backing.idled, ["read"])
    }))

  it.effect("is told when a request leaves the next one in line what it wants", () =>
    Effect.gen(function*() {
      const { backing, socket } = yield* make
      const signal = Cancellation.makeSignal()
      const pending = [3, WouldBlock]
      backing.readAnswer = () => pending.shift() ?? WouldBlock
      yield* start(Cancellation.withSignal(Read.readExactly(socket, memory()), signal))
      const next = yield* start(socket.readSome(memory()))
      yield* signal.emit("total")
      assert.strictEqual(yield* Fiber.join(next), 3)
      assert.deepStrictEqual(backing.idled, ["read"])
    }))

  it.effect("is told when a torn stream refuses everybody behind the one that was cut", () =>
    Effect.gen(function*() {
      const { backing, socket } = yield* make
      const room = [2, WouldBlock]
      backing.writeAnswer = () => room.shift() ?? WouldBlock
      const cut = yield* start(Write.writeAll(socket, memory()))
      const next = yield* start(Effect.exit(Write.writeAll(socket, memory())))
      yield* Fiber.interrupt(cut)
      assert.strictEqual(failure(yield* Fiber.join(next)).reason._tag, "Torn")
      assert.deepStrictEqual(backing.idled, ["write"])
    }))

  it.effect("is not told any more once the one who was served has closed the stream", () =>
    Effect.gen(function*() {
      const { backing, socket } = yield* make
      yield* start(Effect.andThen(socket.readSome(memory()), socket.abort))
      yield* Read.unread(socket, memory())
      assert.deepStrictEqual([backing.calls, backing.idled], [["abort"], []])
    }))

  it.effect("is not told of what it has served itself, nor of operations that never waited", () =>
    Effect.gen(function*() {
      const { backing, socket } = yield* make
      const reading = yield* start(socket.readSome(memory()))
      const writing = yield* start(socket.writeSome(memory()))
      backing.readAnswer = () => 1
      backing.writeAnswer = () => 1
      backing.events?.readable()
      backing.events?.writable()
      yield* Fiber.joinAll([reading, writing])
      yield* socket.readSome(memory())
      yield* socket.writeSome(memory())
      yield* socket.close
      assert.deepStrictEqual(backing.idled, [])
    }))

  it.effect("is told of a listener too", () =>
    Effect.gen(function*() {
      let idled = 0
      const backing: ListenerBacking = {
        address: NetAddress.inetAddressFromStringUnsafe("127.0.0.1:1"),
        attach: () => {},
        accept: () => WouldBlock,
        close: () => {},
        interestDropped: () => {
          idled++
        }
      }
      const acceptor = Acceptor.make(backing)
      assert.isTrue(Acceptor.isAcceptor(acceptor))
      const accepting = [yield* start(acceptor.take), yield* start(acceptor.take)] as const
      yield* Fiber.interrupt(accepting[0])
      assert.strictEqual(idled, 0)
      yield* Fiber.interrupt(accepting[1])
      assert.strictEqual(idled, 1)
    }))
})
