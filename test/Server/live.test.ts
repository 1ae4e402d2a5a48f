/** Servers over the sockets of the kernel, in this process: what they leave behind, and what raw peers can do to them. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { once } from "node:events"
import * as Net from "node:net"
import * as Cancellation from "../../src/Cancellation.ts"
import type * as Server from "../../src/Server.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort, portOf } from "../support/addresses.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { echo, received, serving } from "../support/server.ts"
import { eventually, start } from "../support/waiting.ts"

const transports = [
  { name: "node", layer: NodeTransport.layer },
  ...EpollTransport.isSupported() ? [{ name: "epoll", layer: Layer.orDie(EpollTransport.layer) }] : []
]

const text = (value: string) => Buffer.from(value)

/** Looks again until the server has no more than so many connections. */
const atMost = (server: Server.Server, count: number): Effect.Effect<void> =>
  Effect.flatMap(
    server.health,
    ({ connections }) => connections <= count ? Effect.void : Effect.andThen(Effect.sleep(1), atMost(server, count))
  )

for (const { layer, name } of transports) {
  describe(`a server over ${name}`, () => {
    const everything: Server.Limits = {
      connections: 1000,
      perPeer: 1000,
      acceptRate: { limit: 100_000, window: "1 second" },
      bytesInFlight: 1_000_000_000,
      firstByte: "1 minute",
      idle: "1 minute",
      progress: { bytes: 1, per: "1 minute" }
    }

    const ends: ReadonlyArray<readonly [string, (server: Server.Server) => Effect.Effect<unknown>]> = [
      ["a drain", (server) => server.drain(200)],
      ["a drain without time", (server) => server.drain(0)],
      ["the end of its scope", () => Effect.void]
    ]
    for (const [what, end] of ends) {
      it.live(`leaves nothing after ${what}: no descriptor, timer or fiber`, () =>
        leavingNothing(Effect.gen(function*() {
          const { connect, server } = yield* serving(
            (socket, connection) =>
              connection.id % 3 === 0
                ? Write.writeAll(socket, new Uint8Array(20_000_000))
                : connection.id % 3 === 1
                ? echo(socket, connection)
                : Cancellation.total(Effect.andThen(socket.readSome(new Uint8Array(1)), Effect.never)),
            { listen: [anyPort, anyPort], limits: everything }
          )
          const clients = yield* Effect.forEach(Array.from({ length: 9 }), () => connect)
          for (const client of clients) yield* Write.writeAll(client, text("hello"))
          yield* received(clients[0] ?? assert.fail(), 5)
          yield* end(server)
        })).pipe(Effect.provide(layer)))
    }

    it.live("connects in a row that are reset at once do not keep it from serving others", () =>
      Effect.gen(function*() {
        const { connect, lines, server } = yield* serving(echo)
        const port = portOf(server.addresses[0])
        const good = yield* connect
        const rush = yield* start(Effect.promise(async () => {
          for (let i = 0; i < 1000; i++) {
            const socket = Net.connect(port, "127.0.0.1").on("error", () => {})
            await once(socket, "connect")
            socket.resetAndDestroy()
          }
        }))
        let answers = 0
        while (rush.pollUnsafe() === undefined) {
          yield* Write.writeAll(good, text("ping"))
          assert.strictEqual(yield* received(good, 4), "ping")
          answers++
        }
        yield* Fiber.join(rush)
        assert.isAbove(answers, 10)
        yield* atMost(server, 1)
        assert.deepStrictEqual(lines, [])
      }).pipe(Effect.provide(layer)))

    it.live("peers beyond the limit wait in the backlog and are served when there is room", () =>
      Effect.gen(function*() {
        const { server } = yield* serving(echo, { limits: { connections: 2 } })
        const peers = Array.from({ length: 6 }, (_, i) => {
          const peer = { text: "", socket: Net.connect(portOf(server.addresses[0]), "127.0.0.1").on("error", () => {}) }
          peer.socket.on("data", (chunk: Buffer) => (peer.text += chunk.toString("latin1")))
          peer.socket.write(`${i}`)
          return peer
        })
        yield* Effect.addFinalizer(() => Effect.sync(() => peers.forEach(({ socket }) => socket.destroy())))
        for (let left = peers; left.length > 0;) {
          yield* eventually("an answer", () => left.some(({ text }) => text !== ""))
          assert.isAtMost((yield* server.health).connections, 2)
          for (const { socket, text } of left) if (text !== "") socket.destroy()
          left = left.filter(({ text }) => text === "")
        }
      }).pipe(Effect.provide(layer)))

    it.live("an idle connection is closed, over a clock that runs", () =>
      Effect.gen(function*() {
        const { server } = yield* serving(echo, { limits: { idle: 50 } })
        const client = yield* StreamSocket.connect(server.addresses[0])
        yield* Write.writeAll(client, text("x"))
        yield* received(client, 1)
        assert.strictEqual(yield* Effect.orDie(Effect.ignore(client.readSome(new Uint8Array(1)))), undefined)
        assert.strictEqual(client.state.read, "ended")
        assert.strictEqual((yield* server.health).limited.Idle, 1)
      }).pipe(Effect.provide(layer)))
  })
}
