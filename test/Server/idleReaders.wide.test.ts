/** Between two requests a connection may go at once; while a request is worked on, it is not idle. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Framing from "../../src/Framing.ts"
import * as Read from "../../src/Read.ts"
import * as Server from "../../src/Server.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import { eventually, turns } from "../../src/testing/checks/support.ts"
import * as Write from "../../src/Write.ts"
import { localhost } from "../support/certificates.ts"
import { ending } from "../support/exits.ts"
import { all, kernel, type Place, rawConnect } from "../support/transports.ts"
import { start } from "../support/waiting.ts"

const lines = Framing.lines()

/** The simplest server there is: a loop over requests. */
const looping = (socket: StreamSocket.StreamSocket) =>
  Effect.gen(function*() {
    while (true) yield* Framing.send(socket, lines, yield* Framing.receive(socket, lines))
  })

const make = (place: Place, handler: Server.Handler<unknown, never>, options?: Partial<Server.Options>) =>
  Server.make(handler, { listen: place.address(), shutdown: { deadline: 0 }, ...options })

const ask = (client: StreamSocket.StreamSocket, line: string) =>
  Effect.andThen(Write.writeAll(client, text(`${line}\n`)), Read.readLine(client, { max: 100 }))

const deadline = 10_000

describe("a drain", () => {
  for (const place of all) {
    it.live(
      `ends idle clients of a loop over Framing.receive at its start, over ${place.name}`,
      () =>
        Effect.gen(function*() {
          const server = yield* make(place, looping)
          const client = yield* StreamSocket.connect(server.addresses[0])
          assert.strictEqual(yield* ask(client, "hello"), "hello")
          const before = performance.now()
          const drained = yield* server.drain(deadline)
          // A tenth of the deadline is plenty.
          assert.isBelow(performance.now() - before, deadline / 10)
          assert.strictEqual(drained.aborted + drained.partial + drained.terminal, 0)
          assert.strictEqual(ending(yield* Effect.exit(client.readSome(new Uint8Array(1)))), "Done")
        }).pipe(Effect.scoped, Effect.provide(place.layer)),
      60_000
    )

    it.live(
      `ends a client that has never sent anything at its start, over ${place.name}`,
      () =>
        Effect.gen(function*() {
          const server = yield* make(place, looping)
          yield* StreamSocket.connect(server.addresses[0])
          yield* eventually("its connection", () => Effect.runSync(server.health).connections === 1)
          const before = performance.now()
          yield* server.drain(deadline)
          assert.isBelow(performance.now() - before, deadline / 10)
        }).pipe(Effect.scoped, Effect.provide(place.layer)),
      60_000
    )

    it.live(`leaves a request that is worked on its time, over ${place.name}`, () =>
      Effect.gen(function*() {
        const server = yield* make(place, (socket) =>
          Effect.gen(function*() {
            while (true) {
              const request = yield* Framing.receive(socket, lines)
              yield* Effect.sleep(1000)
              yield* Framing.send(socket, lines, request)
            }
          }))
        const client = yield* StreamSocket.connect(server.addresses[0])
        const asking = yield* start(ask(client, "hello"))
        yield* eventually("its request", () => Effect.runSync(server.connections)[0]?.bytesRead === 6)
        const before = performance.now()
        const drained = yield* server.drain(deadline)
        assert.strictEqual(yield* Fiber.join(asking), "hello")
        assert.isBelow(performance.now() - before, 1000 + deadline / 10)
        assert.strictEqual(drained.aborted + drained.partial + drained.terminal, 0)
      }).pipe(Effect.scoped, Effect.provide(place.layer)), 60_000)
  }

  for (const place of kernel) {
    it.live(
      `ends a TLS client that has not sent the first byte of its handshake at its start, over ${place.name}`,
      () =>
        Effect.gen(function*() {
          const server = yield* make(place, looping, { tls: localhost })
          const raw = yield* rawConnect(server.addresses[0])
          raw.resume()
          yield* eventually("its connection", () => Effect.runSync(server.health).connections === 1)
          yield* turns(5)
          const before = performance.now()
          yield* server.drain(deadline)
          assert.isBelow(performance.now() - before, deadline / 10)
        }).pipe(Effect.scoped, Effect.provide(place.layer)),
      60_000
    )
  }
})

describe("limits.idle", () => {
  for (const place of all) {
    it.live(`does not run while the handler works on a request, over ${place.name}`, () =>
      Effect.gen(function*() {
        const server = yield* make(place, (socket) =>
          Effect.gen(function*() {
            while (true) {
              const request = yield* Framing.receive(socket, lines)
              yield* Effect.sleep(1200)
              yield* Framing.send(socket, lines, request)
            }
          }), { limits: { idle: 300 } })
        const client = yield* StreamSocket.connect(server.addresses[0])
        const exit = yield* Effect.exit(ask(client, "hello"))
        assert.strictEqual(Exit.isSuccess(exit) ? exit.value : ending(exit), "hello")
        // And between two requests it does.
        assert.strictEqual(ending(yield* Effect.exit(client.readSome(new Uint8Array(1)))), "Done")
        assert.strictEqual((yield* server.health).limited.Idle, 1)
      }).pipe(Effect.scoped, Effect.timeout("20 seconds"), Effect.provide(place.layer)), 60_000)
  }
})
