/** Durations go by the clock that nobody sets: what the time on the wall does is of no consequence. */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as NodeDuplex from "../../src/adapter/NodeDuplex.ts"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Connector from "../../src/Connector.ts"
import * as Read from "../../src/Read.ts"
import * as Relay from "../../src/Relay.ts"
import * as Server from "../../src/Server.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as Write from "../../src/Write.ts"
import { hour, settableClock } from "../support/clock.ts"
import { ending } from "../support/exits.ts"
import { logs } from "../support/logs.ts"
import { echo, received } from "../support/server.ts"
import { all, pairOf, type Place } from "../support/transports.ts"
import { eventually, start } from "../support/waiting.ts"

const jumps = { "an hour back": -hour, "an hour forward": hour } as const

const serving = (place: Place, limits: Server.Limits) =>
  Effect.gen(function*() {
    const { capture, lines } = logs()
    const server = yield* capture(
      Server.make(echo, { listen: place.address(), limits, shutdown: { deadline: 0 } })
    )
    return { server, lines }
  })

const asks = (server: Server.Server) =>
  Effect.scoped(Effect.gen(function*() {
    const client = yield* StreamSocket.connect(server.addresses[0])
    yield* Write.writeAll(client, text("ping"))
    return yield* received(client, 4)
  }))

describe("the wall clock", () => {
  for (const place of all) {
    for (const [jump, by] of Object.entries(jumps)) {
      for (const action of ["wait", "reset"] as const) {
        it.live(`set ${jump}: acceptRate goes on (${action}), over ${place.name}`, () => {
          const { provide, set } = settableClock()
          return provide(
            Effect.gen(function*() {
              const { server } = yield* serving(place, { acceptRate: { limit: 5, window: "500 millis", action } })
              assert.strictEqual(yield* asks(server), "ping")
              yield* set(by)
              // More than there are at once, and not as fast as they come.
              for (let i = 0; i < 10; i++) {
                yield* Effect.sleep(200)
                const exit = yield* Effect.exit(Effect.timeout(asks(server), "5 seconds"))
                assert.strictEqual(Exit.isSuccess(exit) ? exit.value : Cause.pretty(exit.cause), "ping")
              }
            })
          ).pipe(Effect.scoped, Effect.provide(place.layer))
        }, 30_000)
      }

      it.live(`set ${jump}: the rate is still a limit, over ${place.name}`, () => {
        const { provide, set } = settableClock()
        return provide(
          Effect.gen(function*() {
            const { server } = yield* serving(place, {
              acceptRate: { limit: 3, window: "1 minute", action: "reset" }
            })
            for (let i = 0; i < 3; i++) assert.strictEqual(yield* asks(server), "ping")
            yield* set(by)
            const exit = yield* Effect.exit(Effect.timeout(asks(server), "5 seconds"))
            assert.notStrictEqual(ending(exit), "Success")
          })
        ).pipe(Effect.scoped, Effect.provide(place.layer))
      }, 30_000)

      it.live(`set ${jump}: a busy relay goes on, over ${place.name}`, () => {
        const { provide, set } = settableClock()
        return provide(
          Effect.gen(function*() {
            const [client, left] = yield* pairOf(place)
            const [right, server] = yield* pairOf(place)
            const relaying = yield* start(Relay.relay(left, right, { idle: "1 second" }))
            const target = new Uint8Array(4)
            for (let i = 0; i < 15 && relaying.pollUnsafe() === undefined; i++) {
              yield* Write.writeAll(client, text("ping"))
              yield* Effect.timeoutOption(Read.readExactly(server, target), "2 seconds")
              yield* set(by)
              yield* Effect.sleep(200)
            }
            const ended = relaying.pollUnsafe()
            assert.strictEqual(ended === undefined ? "goes on" : ending(ended), "goes on")
            yield* Fiber.interrupt(relaying)
          })
        ).pipe(Effect.scoped, Effect.provide(place.layer))
      }, 30_000)

      it.live(`set ${jump}: an idle relay times out, and no later, over ${place.name}`, () => {
        const { provide, set } = settableClock()
        return provide(
          Effect.gen(function*() {
            const [, left] = yield* pairOf(place)
            const [right] = yield* pairOf(place)
            const relaying = yield* start(Effect.exit(Relay.relay(left, right, { idle: "300 millis" })))
            yield* Effect.sleep(20)
            yield* set(by)
            const exit = yield* Effect.timeoutOption(Fiber.join(relaying), "5 seconds")
            assert.strictEqual(exit._tag === "Some" ? ending(exit.value) : "it still waits", "TimedOut")
          })
        ).pipe(Effect.scoped, Effect.provide(place.layer))
      }, 30_000)

      it.live(`set ${jump}: the time-out of a duplex stays as it was, over ${place.name}`, () => {
        const { provide, set } = settableClock()
        return provide(
          Effect.gen(function*() {
            const [client, socket] = yield* pairOf(place)
            const duplex = yield* NodeDuplex.toDuplex(socket)
            let timeouts = 0
            duplex.on("timeout", () => timeouts++)
            duplex.resume()
            duplex.setTimeout(1000)
            for (let i = 0; i < 10; i++) {
              yield* Write.writeAll(client, text("ping"))
              while (duplex.bytesRead < 4 * (i + 1)) yield* Effect.sleep(1)
              yield* set(by)
              yield* Effect.sleep(200)
            }
            assert.strictEqual(timeouts, 0)
            yield* eventually("the time-out", () => timeouts > 0)
            assert.strictEqual(timeouts, 1)
          })
        ).pipe(Effect.scoped, Effect.provide(place.layer))
      }, 30_000)

      it.live(`set ${jump}: idle connections of a server end in time, busy ones do not, over ${place.name}`, () => {
        const { provide, set } = settableClock()
        return provide(
          Effect.gen(function*() {
            const { server } = yield* serving(place, { idle: "1 second" })
            const busy = yield* StreamSocket.connect(server.addresses[0])
            const idle = yield* StreamSocket.connect(server.addresses[0])
            const ended = yield* start(Effect.exit(idle.readSome(new Uint8Array(1))))
            for (let i = 0; i < 40; i++) {
              if (i === 10) yield* set(by)
              yield* Write.writeAll(busy, text("ping"))
              assert.strictEqual(yield* received(busy, 4), "ping")
              yield* Effect.sleep(50)
            }
            assert.strictEqual(ending(yield* Fiber.join(ended)), "Done")
          })
        ).pipe(Effect.scoped, Effect.provide(place.layer))
      }, 30_000)

      it.live(`set ${jump}: a connector keeps its time, over ${place.name}`, () => {
        const { provide, set } = settableClock()
        return provide(
          Effect.gen(function*() {
            const { server } = yield* serving(place, {})
            yield* set(by)
            const socket = yield* Connector.connect(server.addresses[0], { timeout: "5 seconds" })
            yield* Write.writeAll(socket, text("ping"))
            assert.strictEqual(yield* received(socket, 4), "ping")
          })
        ).pipe(Effect.scoped, Effect.provide(place.layer))
      }, 30_000)
    }
  }
})
