/** `close` right behind a large answer: the peer gets all of it, although it goes on sending. */
import { assert, describe, it } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import type * as Net from "node:net"
import * as Acceptor from "../../src/Acceptor.ts"
import * as NodeDuplex from "../../src/adapter/NodeDuplex.ts"
import * as Server from "../../src/Server.ts"
import type { StreamSocket } from "../../src/StreamSocket.ts"
import * as Write from "../../src/Write.ts"
import { kernel, pairOf, rawClientOf, rawConnect, secured } from "../support/transports.ts"
import { eventually, start } from "../support/waiting.ts"

const size = 3_000_000
const answer = new Uint8Array(size)

interface Heard {
  readonly bytes: number
  readonly error: string | undefined
}

/** A peer that reads slowly, and that sends a byte for every chunk once the other side has begun to close. */
const chatty = (peer: Net.Socket, isClosing: () => boolean): Promise<Heard> =>
  new Promise((resolve) => {
    let bytes = 0
    let error: string | undefined
    peer.on("error", (cause: NodeJS.ErrnoException) => (error = cause.code))
    peer.on("data", (chunk: Buffer) => {
      bytes += chunk.byteLength
      peer.pause()
      if (isClosing()) peer.write("x")
      setTimeout(() => peer.resume(), 1)
    })
    peer.on("end", () => peer.end())
    peer.on("close", () => resolve({ bytes, error }))
  })

const complete: Heard = { bytes: size, error: undefined }

/** The ways to end a connection behind an answer. */
const endings: Readonly<Record<string, (socket: StreamSocket) => Effect.Effect<unknown, unknown>>> = {
  "writeAll, close": (socket) => Effect.andThen(Write.writeAll(socket, answer), socket.close),
  "writeAll, shutdownWrite, close": (socket) =>
    Write.writeAll(socket, answer).pipe(Effect.andThen(socket.shutdownWrite), Effect.andThen(socket.close)),
  "toDuplex, end": (socket) =>
    Effect.scoped(Effect.flatMap(NodeDuplex.toDuplex(socket), (duplex) =>
      Effect.callback<void>((resume) => {
        duplex.once("close", () => resume(Effect.void))
        duplex.end(answer, () => duplex.destroy())
      })))
}

describe("close behind a large answer, to a peer that still sends", () => {
  for (const place of kernel) {
    for (const [name, finish] of Object.entries(endings)) {
      // Over `node:net` it does not hold every time; see closeUnread.red.test.ts.
      if (name === "toDuplex, end" && place.name.startsWith("NodeTransport")) continue
      it.live(`${name}: the peer gets all of it, over ${place.name}`, () =>
        Effect.gen(function*() {
          const [peer, socket] = yield* rawClientOf(place, { socket: { linger: "20 seconds" } })
          const heard = chatty(peer, () => socket.state.socket !== "open")
          yield* start(finish(socket))
          assert.deepStrictEqual(yield* Effect.promise(() => heard), complete)
        }).pipe(Effect.scoped, Effect.provide(place.layer)), 60_000)
    }

    it.live(
      `the end of a handler of Acceptor.serve: the peer gets all of it, over ${place.name}`,
      () =>
        Effect.gen(function*() {
          const acceptor = yield* Acceptor.listen(place.address(), { linger: "20 seconds" })
          let socket: StreamSocket | undefined
          yield* start(Acceptor.serve(acceptor, (accepted) => {
            socket = accepted
            return Write.writeAll(accepted, answer)
          }))
          const peer = yield* rawConnect(acceptor.address)
          const heard = chatty(peer, () => socket !== undefined && socket.state.socket !== "open")
          assert.deepStrictEqual(yield* Effect.promise(() => heard), complete)
        }).pipe(Effect.scoped, Effect.provide(place.layer)),
      60_000
    )

    it.live(
      `the end of a handler of a server: the peer gets all of it, over ${place.name}`,
      () =>
        Effect.gen(function*() {
          let socket: StreamSocket | undefined
          const server = yield* Server.make((accepted) => {
            socket = accepted
            return Write.writeAll(accepted, answer)
          }, {
            listen: place.address(),
            linger: "20 seconds",
            shutdown: { deadline: 0 }
          })
          const peer = yield* rawConnect(server.addresses[0])
          const heard = chatty(peer, () => socket !== undefined && socket.state.socket !== "open")
          assert.deepStrictEqual(yield* Effect.promise(() => heard), complete)
        }).pipe(Effect.scoped, Effect.provide(place.layer)),
      60_000
    )

    it.live(
      `the descriptor is released at once when the peer has everything, over ${place.name}`,
      () =>
        Effect.gen(function*() {
          const [peer, socket] = yield* rawClientOf(place, { socket: { linger: "20 seconds" } })
          const heard = chatty(peer, () => socket.state.socket !== "open")
          yield* Write.writeAll(socket, answer)
          yield* socket.close
          assert.deepStrictEqual(yield* Effect.promise(() => heard), complete)
        }).pipe(Effect.scoped, Effect.timeout("15 seconds"), Effect.provide(place.layer)),
      60_000
    )
  }

  for (const place of kernel) {
    it.live(
      `a peer that has everything, sends nothing and does not end costs no time, over ${place.name}`,
      () =>
        Effect.gen(function*() {
          const [peer, socket] = yield* rawClientOf(place, {
            socket: { linger: "20 seconds" },
            client: { allowHalfOpen: true }
          })
          let bytes = 0
          peer.on("data", (chunk: Buffer) => (bytes += chunk.byteLength))
          yield* Write.writeAll(socket, new Uint8Array(10_000))
          yield* eventually("the answer", () => bytes === 10_000)
          const [took] = yield* Effect.timed(socket.close)
          assert.isBelow(Duration.toMillis(took), 5000)
          yield* eventually("the end", () => peer.readableEnded)
        }).pipe(Effect.scoped, Effect.provide(place.layer)),
      30_000
    )

    it.live(
      `a silent peer that reads only after the linger time gets all of it, over ${place.name}`,
      () =>
        Effect.gen(function*() {
          const [peer, socket] = yield* rawClientOf(place, { socket: { linger: 300, sliceSize: 16_384 } })
          // Less than the kernel takes of a peer that does not read.
          const taken = new Uint8Array(100_000)
          yield* Write.writeAll(socket, taken)
          yield* socket.close
          assert.strictEqual(socket.state.socket, "closed")
          const heard = chatty(peer, () => false)
          assert.deepStrictEqual(yield* Effect.promise(() => heard), { bytes: taken.byteLength, error: undefined })
        }).pipe(Effect.scoped, Effect.provide(place.layer)),
      30_000
    )
  }

  for (const place of kernel.map(secured)) {
    it.live(
      `a silent peer of ours that reads only after the linger time gets all of it, over ${place.name}`,
      () =>
        Effect.gen(function*() {
          const [client, server] = yield* pairOf(place, { linger: 300 })
          yield* Write.writeAll(server, answer.subarray(0, 100_000))
          yield* server.close
          const buffer = new Uint8Array(16_384)
          let bytes = 0
          while (bytes < 100_000) bytes += yield* client.readSome(buffer)
          assert.strictEqual(bytes, 100_000)
        }).pipe(Effect.scoped, Effect.provide(place.layer)),
      30_000
    )

    it.live(`a peer of ours gets all of it, over ${place.name}`, () =>
      Effect.gen(function*() {
        const [client, server] = yield* pairOf(place, { linger: "20 seconds" })
        const answering = yield* start(Effect.andThen(Write.writeAll(server, answer), server.close))
        const buffer = new Uint8Array(16_384)
        let bytes = 0
        while (bytes < size) {
          bytes += yield* client.readSome(buffer)
          if (server.state.socket !== "open") yield* Write.writeAll(client, new Uint8Array(1))
          yield* Effect.sleep(1)
        }
        yield* client.close
        yield* Fiber.join(answering)
        assert.strictEqual(bytes, size)
      }).pipe(Effect.scoped, Effect.provide(place.layer)), 60_000)
  }
})
