/** What a peer has said before it went is passed on, whatever became of the other direction. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import { once } from "node:events"
import * as Net from "node:net"
import * as Acceptor from "../../src/Acceptor.ts"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Read from "../../src/Read.ts"
import * as Relay from "../../src/Relay.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as Write from "../../src/Write.ts"
import { start } from "../support/effects.ts"
import { kernel, pairOf, type Place, rawServer, withTls } from "../support/transports.ts"

const rounds = 10
const large = Buffer.alloc(8 * 1024 * 1024, "x")

/** How a peer goes that has not read everything: the kernel resets its connection, behind what it has written. */
const departures = {
  "ends, and is gone a turn later": (socket: Net.Socket, words: string) =>
    void socket.end(words, () => setImmediate(() => socket.destroy())),
  "is gone at once": (socket: Net.Socket, words: string) => {
    socket.write(words)
    socket.destroy()
  }
} as const

const dial = (address: NetAddress.SocketAddress): Net.Socket =>
  (NetAddress.isUnixPathAddress(address)
    ? Net.connect({ path: address.path, allowHalfOpen: true })
    : Net.connect({ port: address.port, host: "127.0.0.1", allowHalfOpen: true })).on("error", () => {})

/** Everything that a raw socket hears until it is over. */
const heardBy = (socket: Net.Socket): Promise<string> =>
  new Promise((resolve) => {
    const chunks: Array<Buffer> = []
    socket.on("data", (chunk: Buffer) => chunks.push(chunk))
    socket.on("end", () => socket.destroy())
    socket.on("close", () => resolve(Buffer.concat(chunks).toString("latin1")))
  })

/** A forwarder to `upstream`, as the documentation shows one. */
const forwarder = (place: Place, upstream: NetAddress.SocketAddress) =>
  Effect.gen(function*() {
    const acceptor = yield* Acceptor.listen(place.address())
    yield* start(Acceptor.serve(acceptor, (client) =>
      Effect.scoped(Effect.flatMap(
        StreamSocket.connect(upstream),
        (server) => Effect.exit(Relay.relay(client, server, { idle: "5 seconds" }))
      ))))
    return acceptor.address
  })

const count = (answers: ReadonlyArray<string>, wanted: string) => answers.filter((got) => got === wanted).length

describe("Relay.relay passes on what has arrived", () => {
  for (const place of kernel) {
    for (const [manner, depart] of Object.entries(departures)) {
      it.live(`the early answer of a server that ${manner}, over ${place.name}`, () =>
        Effect.gen(function*() {
          const answer = "413 too large\n"
          const upstream = yield* rawServer(place, (socket) => {
            socket.once("data", () => {
              socket.pause()
              depart(socket, answer)
            })
          }, { allowHalfOpen: true })
          const forwarded = yield* forwarder(place, upstream)
          const heard: Array<string> = []
          for (let i = 0; i < rounds; i++) {
            heard.push(
              yield* Effect.promise(() => {
                const socket = dial(forwarded)
                socket.write(large)
                return heardBy(socket)
              })
            )
          }
          assert.strictEqual(count(heard, answer), rounds)
        }).pipe(Effect.scoped, Effect.provide(place.layer)), 60_000)

      it.live(
        `the last words of a client that ${manner} while the server streams, over ${place.name}`,
        () =>
          Effect.gen(function*() {
            const words = "COMMIT\n"
            const heard: Array<Promise<string>> = []
            const upstream = yield* rawServer(place, (socket) => {
              heard.push(heardBy(socket))
              socket.write(large)
            }, { allowHalfOpen: true })
            const forwarded = yield* forwarder(place, upstream)
            for (let i = 0; i < rounds; i++) {
              const socket = dial(forwarded)
              yield* Effect.promise(() => once(socket, "data"))
              socket.pause()
              depart(socket, words)
              yield* Effect.promise(() => once(socket, "close"))
            }
            assert.strictEqual(count(yield* Effect.promise(() => Promise.all(heard)), words), rounds)
          }).pipe(Effect.scoped, Effect.provide(place.layer)),
        60_000
      )
    }
  }

  for (const place of withTls) {
    it.live(
      `words in front of a close that fails the other direction, over ${place.name}`,
      () =>
        Effect.gen(function*() {
          const [client, left] = yield* pairOf(place)
          const [right, server] = yield* pairOf(place)
          yield* start(Effect.andThen(
            Effect.exit(Relay.relay(left, right, { idle: "5 seconds" })),
            Effect.all([left.close, right.close], { concurrency: 2 })
          ))
          // The direction to the server is full, so that it fails in the middle of a write when the server goes.
          yield* start(Effect.ignore(Write.writeAll(client, large)))
          yield* Read.readExactly(server, new Uint8Array(1))
          yield* Write.writeAll(server, text("early answer\n"))
          yield* start(server.close)
          const heard = yield* Effect.exit(Read.readLine(client, { max: 100 }))
          assert.strictEqual(heard._tag === "Success" ? heard.value : String(heard.cause), "early answer")
          yield* client.abort
        }).pipe(Effect.scoped, Effect.provide(place.layer)),
      60_000
    )
  }
})
