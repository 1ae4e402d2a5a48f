/** A read and a `close` in one turn: what has arrived is read, on every transport. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Read from "../../src/Read.ts"
import type { StreamSocket } from "../../src/StreamSocket.ts"
import { turns } from "../../src/testing/checks/support.ts"
import * as Write from "../../src/Write.ts"
import { ending } from "../support/exits.ts"
import { pairOf, withTls } from "../support/transports.ts"
import { start } from "../support/waiting.ts"

const ends: Readonly<Record<string, (socket: StreamSocket) => Effect.Effect<void>>> = {
  close: (socket) => socket.close,
  abort: (socket) => socket.abort
}

const reads: Readonly<Record<string, (socket: StreamSocket) => Effect.Effect<string, unknown>>> = {
  readSome: (socket) => {
    const buffer = new Uint8Array(100)
    return Effect.map(socket.readSome(buffer), (count) => Buffer.from(buffer.subarray(0, count)).toString("latin1"))
  },
  readLine: (socket) => Effect.map(Read.readLine(socket, { max: 100 }), (line) => `${line}\n`)
}

describe("a read, and the end of the stream in the same turn", () => {
  for (const place of withTls) {
    for (const [end, finish] of Object.entries(ends)) {
      for (const [name, read] of Object.entries(reads)) {
        it.live(`${name}, ${end}: the data that is there, over ${place.name}`, () =>
          Effect.gen(function*() {
            const [client, server] = yield* pairOf(place, { linger: "1 second" })
            yield* Write.writeAll(client, text("hello\n"))
            // The kernel has it, and the transport has had every chance to know.
            yield* turns(5)
            yield* Effect.sleep(50)
            const reading = yield* start(Effect.exit(read(server)))
            yield* start(finish(server))
            const exit = yield* Fiber.join(reading)
            assert.strictEqual(Exit.isSuccess(exit) ? exit.value : ending(exit), "hello\n")
            yield* client.abort
          }).pipe(Effect.scoped, Effect.provide(place.layer)))
      }
    }

    it.live(`without data, both end at once, over ${place.name}`, () =>
      Effect.gen(function*() {
        const [client, server] = yield* pairOf(place, { linger: "1 second" })
        const reading = yield* start(Effect.exit(server.readSome(new Uint8Array(1))))
        yield* start(server.close)
        assert.strictEqual(ending(yield* Fiber.join(reading)), "Closed")
        yield* client.abort
      }).pipe(Effect.scoped, Effect.provide(place.layer)))
  }
})
