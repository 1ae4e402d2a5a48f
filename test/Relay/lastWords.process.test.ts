/** What a peer has said before it went is passed on, whatever became of the other direction. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import { spawn } from "node:child_process"
import { once } from "node:events"
import * as Net from "node:net"
import * as Acceptor from "../../src/Acceptor.ts"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Read from "../../src/Read.ts"
import * as Relay from "../../src/Relay.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as Write from "../../src/Write.ts"
import { kernel, pairOf, type Place, rawServer, withTls } from "../support/transports.ts"
import { start } from "../support/waiting.ts"

const rounds = 10
const large = Buffer.alloc(8 * 1024 * 1024, "x")

/**
 * How a peer goes that has not read everything: the kernel resets its connection, behind what it has written. Such peers
 * run in a process of their own, so that no turn of ours comes between.
 */
const departures = {
  "ends, and is gone a turn later": "socket.end(words, () => setImmediate(() => socket.destroy()))",
  "is gone at once": "socket.write(words); socket.destroy()"
} as const

const inAProcess = (script: string) =>
  Effect.acquireRelease(
    Effect.sync(() => spawn(process.execPath, ["-e", script], { stdio: ["pipe", "pipe", "inherit"] })),
    (child) =>
      Effect.promise(async () => {
        child.kill("SIGKILL")
        if (child.exitCode === null && child.signalCode === null) await once(child, "close")
      })
  )

/** A server that answers with `words` to the first bytes of each connection, and departs. Gives its address. */
const hastyServer = (place: Place, depart: string, words: string) =>
  Effect.gen(function*() {
    const address = place.address()
    const at = NetAddress.isUnixPathAddress(address) ? { path: address.path } : { port: 0, host: "127.0.0.1" }
    const child = yield* inAProcess(`
      const words = ${JSON.stringify(words)}
      const server = require("node:net").createServer({ allowHalfOpen: true }, (socket) => {
        socket.on("error", () => {})
        socket.once("data", () => { socket.pause(); ${depart} })
      }).listen(${JSON.stringify(at)}, () => console.log(JSON.stringify(server.address())))
    `)
    const [line] = yield* Effect.promise(() => once(child.stdout, "data"))
    const bound: unknown = JSON.parse(String(line))
    return typeof bound === "object" && bound !== null && "port" in bound
      ? NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${Number(bound.port)}`)
      : address
  })

/** Clients, one after the other, that say `words` when they have heard something, and depart. */
const hastyClients = (address: NetAddress.SocketAddress, depart: string, words: string) =>
  Effect.gen(function*() {
    const at = NetAddress.isUnixPathAddress(address)
      ? { path: address.path }
      : { port: address.port, host: "127.0.0.1" }
    const child = yield* inAProcess(`
      const words = ${JSON.stringify(words)}
      const next = (left) => {
        if (left === 0) return
        const socket = require("node:net").connect(${JSON.stringify(at)})
        socket.on("error", () => {})
        socket.once("data", () => { socket.pause(); ${depart} })
        socket.once("close", () => next(left - 1))
      }
      next(${rounds})
    `)
    yield* Effect.promise(() => once(child, "close"))
  })

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

/**
 * A write to a connection that is reset by then makes `node:net` destroy the socket, with what it had not read. The relay
 * reads before it writes, but the reset may come in between: some rounds are lost on a busy machine, most are not.
 */
const leastOf = (place: Place): number => place.name.startsWith("NodeTransport") ? rounds / 2 : rounds

describe("Relay.relay passes on what has arrived", () => {
  for (const place of kernel) {
    for (const [manner, depart] of Object.entries(departures)) {
      it.live(`the early answer of a server that ${manner}, over ${place.name}`, () =>
        Effect.gen(function*() {
          const answer = "413 too large\n"
          const upstream = yield* hastyServer(place, depart, answer)
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
          assert.isAtLeast(count(heard, answer), leastOf(place))
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
            yield* hastyClients(forwarded, depart, words)
            assert.strictEqual(heard.length, rounds)
            assert.isAtLeast(count(yield* Effect.promise(() => Promise.all(heard)), words), leastOf(place))
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
