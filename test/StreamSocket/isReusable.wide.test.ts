/** A connection that was idle is looked at before its next use: one call, which reads nothing away and waits for no peer. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Read from "../../src/Read.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as Write from "../../src/Write.ts"
import { received } from "../support/server.ts"
import { pairOf, withTls } from "../support/transports.ts"
import { eventually, start, turns } from "../support/waiting.ts"

const look = StreamSocket.isReusable

/** What has left the peer has arrived after some turns of the event loop; how many, the machine decides. */
const becomesUnusable = (socket: StreamSocket.StreamSocket) =>
  Effect.gen(function*() {
    for (let i = 0; i < 100 && (yield* look(socket)); i++) yield* Effect.sleep(10)
    return !(yield* look(socket))
  })

describe("StreamSocket.isReusable", () => {
  for (const place of withTls) {
    const it_ = (
      name: string,
      test: (
        ours: StreamSocket.StreamSocket,
        peer: StreamSocket.StreamSocket
      ) => Effect.Effect<unknown, unknown>
    ) =>
      it.live(
        `${name}, over ${place.name}`,
        () =>
          Effect.flatMap(pairOf(place), ([ours, peer]) => test(ours, peer)).pipe(
            Effect.scoped,
            Effect.provide(place.layer)
          ),
        30_000
      )

    it_(
      "is true of a new connection, and of one between two exchanges, as often as it is asked",
      (ours, peer) =>
        Effect.gen(function*() {
          for (let i = 0; i < 3; i++) {
            assert.isTrue(yield* look(ours))
            assert.isTrue(yield* look(ours))
            yield* Write.writeAll(ours, text("ping"))
            assert.strictEqual(yield* received(peer, 4), "ping")
            yield* Write.writeAll(peer, text("pong"))
            assert.strictEqual(yield* received(ours, 4), "pong")
          }
          assert.isTrue(yield* look(ours))
          assert.strictEqual(ours.bytesRead, 12)
        })
    )

    it_("is false when the peer has said something, which the next read gets", (ours, peer) =>
      Effect.gen(function*() {
        yield* Write.writeAll(peer, text("421 timeout"))
        assert.isTrue(yield* becomesUnusable(ours))
        assert.strictEqual(yield* received(ours, 11), "421 timeout")
        assert.isTrue(yield* look(ours))
      }))

    it_("is false when the peer has said much", (ours, peer) =>
      Effect.gen(function*() {
        const writing = yield* start(
          Effect.andThen(Write.writeAll(peer, new Uint8Array(1_000_000)), peer.shutdownWrite)
        )
        assert.isTrue(yield* becomesUnusable(ours))
        assert.strictEqual((yield* Read.readAll(ours, { max: 2_000_000 })).byteLength, 1_000_000)
        yield* Fiber.join(writing)
      }))

    it_("is false when the peer has said something and gone", (ours, peer) =>
      Effect.gen(function*() {
        yield* Write.writeAll(peer, text("bye"))
        yield* Effect.forkChild(peer.close)
        assert.isTrue(yield* becomesUnusable(ours))
        assert.strictEqual(yield* received(ours, 3), "bye")
      }))

    for (
      const [how, ends] of [
        ["has closed", (peer) => peer.close],
        ["has ended its direction", (peer) => Effect.ignore(peer.shutdownWrite)],
        ["has reset", (peer) => peer.abort]
      ] as ReadonlyArray<readonly [string, (peer: StreamSocket.StreamSocket) => Effect.Effect<void>]>
    ) {
      it_(`is false when the peer ${how}`, (ours, peer) =>
        Effect.gen(function*() {
          yield* Effect.forkChild(ends(peer))
          assert.isTrue(yield* becomesUnusable(ours))
        }))
    }

    it_("is false after our own end, and while an operation waits", (ours, peer) =>
      Effect.gen(function*() {
        const reading = yield* start(Read.readLine(ours, { max: 100 }))
        assert.isFalse(yield* look(ours))
        // And takes nothing from it.
        yield* Write.writeAll(peer, text("hello\n"))
        assert.strictEqual(yield* Fiber.join(reading), "hello")
        assert.isTrue(yield* look(ours))
        yield* ours.shutdownWrite
        assert.isFalse(yield* look(ours))
        yield* ours.close
        assert.isFalse(yield* look(ours))
      }))

    it_("is false while bytes are in the read buffer", (ours, peer) =>
      Effect.gen(function*() {
        yield* Write.writeAll(peer, text("one\ntwo\n"))
        assert.strictEqual(yield* Read.readLine(ours, { max: 100 }), "one")
        assert.isTrue(yield* becomesUnusable(ours))
        assert.strictEqual(yield* Read.readLine(ours, { max: 100 }), "two")
        assert.isTrue(yield* look(ours))
      }))

    it_("is false when a read begins meanwhile, which gets its bytes", (ours, peer) =>
      Effect.gen(function*() {
        const looking = yield* start(look(ours))
        const reading = yield* start(received(ours, 5))
        assert.isFalse(yield* Fiber.join(looking))
        yield* Write.writeAll(peer, text("hello"))
        assert.strictEqual(yield* Fiber.join(reading), "hello")
      }))

    it_("leaves nothing behind when it is interrupted", (ours, peer) =>
      Effect.gen(function*() {
        const looking = yield* start(look(ours))
        yield* Fiber.interrupt(looking)
        yield* Write.writeAll(peer, text("hello"))
        yield* turns(5)
        assert.strictEqual(yield* received(ours, 5), "hello")
        yield* eventually("its rest", () => ours.bytesRead === 5)
        assert.isTrue(yield* look(ours))
      }))
  }
})
