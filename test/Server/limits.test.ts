import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Server from "../../src/Server.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort, inet } from "../support/addresses.ts"
import { ending } from "../support/exits.ts"
import { echo, farewellOf, received, serving } from "../support/server.ts"
import { start, turns } from "../support/waiting.ts"

const it_ = it.layer(Layer.fresh(MemoryTransport.layer))

const never: Server.Handler<never, never> = () => Effect.never

/** Lets time pass in small steps, as it does. */
const pass = (millis: number, step = 25) =>
  Effect.forEach(Array.from({ length: millis / step }), () => Effect.andThen(TestClock.adjust(step), turns()))

/** Whether a connection is served now: an echo answers. */
const isServed = (client: StreamSocket.StreamSocket) =>
  Effect.gen(function*() {
    yield* Effect.ignore(Write.writeAll(client, text("?")))
    const answer = yield* start(received(client, 1))
    yield* turns()
    const exit = answer.pollUnsafe()
    yield* Fiber.interrupt(answer)
    return exit !== undefined && Exit.isSuccess(exit)
  })

/** The counts that are not zero. */
const counts = (server: Server.Server) =>
  Effect.map(server.health, ({ limited, pauses }) => {
    const moved = (record: Readonly<Record<string, number>>) =>
      Object.fromEntries(Object.entries(record).filter(([, count]) => count > 0))
    return { limited: moved(limited), pauses: moved(pauses) }
  })

describe("limits of connections that come", () => {
  it_("in all", (it) => {
    it.effect("by default the next one waits in the backlog until one has ended", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(echo, { limits: { connections: 2 } })
        const clients = yield* Effect.forEach([1, 2, 3, 4], () => connect)
        const served = Effect.forEach(clients, isServed)
        assert.deepStrictEqual(yield* served, [true, true, false, false])
        assert.strictEqual(yield* server.state, "paused")
        yield* clients[0]?.abort ?? Effect.void
        yield* turns()
        assert.deepStrictEqual(yield* served, [false, true, true, false])
        yield* clients[1]?.close ?? Effect.void
        yield* turns()
        assert.deepStrictEqual(yield* served, [false, false, true, true])
        assert.deepStrictEqual(yield* counts(server), { limited: {}, pauses: { Connections: 3 } })
        yield* clients[2]?.close ?? Effect.void
        yield* turns()
        assert.strictEqual(yield* server.state, "listening")
      }))

    it.effect("holds across addresses, in whatever order they are used", () =>
      Effect.gen(function*() {
        const { server } = yield* serving(echo, { listen: [anyPort, anyPort, anyPort], limits: { connections: 2 } })
        const clients = yield* Effect.forEach([0, 1, 2, 0, 1, 2], (i) =>
          StreamSocket.connect(server.addresses[i] ?? anyPort))
        yield* turns()
        let left = [...clients]
        for (let round = 0; round < 4; round++) {
          assert.strictEqual((yield* server.health).connections, 2)
          const served = yield* Effect.filter(left, isServed)
          assert.strictEqual(served.length, 2)
          yield* Effect.forEach(served.slice(0, 1), (client) =>
            client.close)
          left = left.filter((client) => client.state.socket === "open")
          yield* turns()
        }
      }))

    it.effect("a reset, or a few bytes, are other answers", () =>
      Effect.gen(function*() {
        for (const [answer, end] of [["reset", "ConnectionReset"], [{ send: "busy\n" }, "busy\n, Done"]] as const) {
          const limits: Array<Server.Limit> = []
          const { connect, server } = yield* serving(echo, {
            limits: { connections: { max: 1, action: answer } },
            onLimit: (limit, { id }) => Effect.sync(() => void limits.push(limit, id === 2 ? limit : limit))
          })
          const first = yield* connect
          assert.strictEqual(yield* farewellOf(yield* connect), end)
          yield* turns()
          assert.isTrue(yield* isServed(first))
          assert.deepStrictEqual(limits[0], Server.Limit.Connections({ max: 1 }))
          assert.deepStrictEqual(yield* counts(server), { limited: { Connections: 1 }, pauses: {} })
          yield* first.close
          yield* turns()
          assert.isTrue(yield* isServed(yield* connect))
        }
      }))

    it.effect("a connection that is refused with bytes and does not read them is reset in time", () =>
      Effect.gen(function*() {
        const send = new Uint8Array(100_000)
        const { connect, server } = yield* serving(echo, {
          limits: { connections: { max: 1, action: { send, within: "3 seconds" } } }
        })
        yield* connect
        const refused = yield* connect
        yield* turns()
        yield* TestClock.adjust(2_999)
        const draining = yield* start(server.drain(10_000))
        yield* turns()
        assert.isUndefined(draining.pollUnsafe())
        yield* TestClock.adjust(1)
        yield* turns()
        const end = yield* farewellOf(refused)
        assert.strictEqual(end.replaceAll("\0", ""), ", ConnectionReset")
      }))

    it.effect("of very many that are refused with bytes, only so many are held", () =>
      Effect.gen(function*() {
        const { connect } = yield* serving(echo, {
          limits: { connections: { max: 1, action: { send: new Uint8Array(100_000) } } }
        })
        yield* connect
        const refused = yield* Effect.forEach(Array.from({ length: 130 }), () => connect)
        yield* turns()
        const ends = yield* Effect.forEach(refused.slice(128), farewellOf)
        assert.deepStrictEqual(ends, ["ConnectionReset", "ConnectionReset"])
        assert.strictEqual(yield* refused[127]?.readSome(new Uint8Array(1)) ?? Effect.succeed(0), 1)
      }))
  })

  it_("per peer", (it) => {
    // In this network a client has the address that it connects to.
    const peersOf = (limits: Server.Limits, ...addresses: readonly [string, ...Array<string>]) =>
      Effect.gen(function*() {
        const [first, ...others] = addresses.map((text) => inet(text))
        const { server } = yield* serving(echo, { listen: [first ?? anyPort, ...others], limits })
        const from = (i: number) => StreamSocket.connect(server.addresses[i] ?? anyPort)
        return { server, from }
      })

    it.effect("counts IPv4 addresses, however they are written", () =>
      Effect.gen(function*() {
        const { from, server } = yield* peersOf({ perPeer: 2 }, "10.0.0.1:0", "[::ffff:10.0.0.1]:0", "10.0.0.2:0")
        const first = yield* from(0)
        const clients = [first, yield* from(1), yield* from(2)]
        yield* turns()
        for (const client of clients) assert.isTrue(yield* isServed(client))
        for (const i of [0, 1]) assert.strictEqual(yield* farewellOf(yield* from(i)), "ConnectionReset")
        assert.isTrue(yield* isServed(yield* from(2)))
        assert.deepStrictEqual(yield* counts(server), { limited: { PerPeer: 2 }, pauses: {} })
        yield* first.close
        yield* turns()
        assert.isTrue(yield* isServed(yield* from(1)))
      }))

    it.effect("counts IPv6 networks of 64 bits, or what is asked for", () =>
      Effect.gen(function*() {
        const same = ["[2001:db8::1]:0", "[2001:db8::2]:0", "[2001:db8:0:1::1]:0"] as const
        const served = (ipv6Prefix: number | undefined) =>
          Effect.scoped(Effect.gen(function*() {
            const { from } = yield* peersOf({ perPeer: { max: 1, ipv6Prefix } }, ...same)
            return yield* Effect.forEach(
              [0, 1, 2],
              (i) => Effect.flatMap(from(i), (client) => Effect.andThen(turns(), isServed(client)))
            )
          }))
        assert.deepStrictEqual(yield* served(undefined), [true, false, true])
        assert.deepStrictEqual(yield* served(128), [true, true, true])
        assert.deepStrictEqual(yield* served(63), [true, false, false])
        assert.deepStrictEqual(yield* served(0), [true, false, false])
      }))

    it.effect("says who it was, and can say it to them", () =>
      Effect.gen(function*() {
        const limits: Array<Server.Limit> = []
        const { connect } = yield* serving(echo, {
          limits: { perPeer: { max: 1, action: { send: text("one is enough") } } },
          onLimit: (limit) => Effect.sync(() => void limits.push(limit))
        })
        yield* connect
        assert.strictEqual(yield* farewellOf(yield* connect), "one is enough, Done")
        yield* turns()
        assert.deepStrictEqual(limits, [Server.Limit.PerPeer({ max: 1, peer: "127.0.0.1" })])
      }))
  })

  it_("per time", (it) => {
    const acceptRate = { limit: 2, window: "1 second" } as const

    it.effect("by default they wait: two at once, and one each half second", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(never, { limits: { acceptRate } })
        yield* Effect.forEach([1, 2, 3, 4, 5], () => connect)
        const live = Effect.map(server.health, ({ connections }) => connections)
        yield* turns()
        assert.strictEqual(yield* live, 2)
        assert.strictEqual(yield* server.state, "paused")
        for (const there of [3, 4, 5]) {
          yield* TestClock.adjust(499)
          yield* turns()
          assert.strictEqual(yield* live, there - 1)
          yield* TestClock.adjust(1)
          yield* turns()
          assert.strictEqual(yield* live, there)
        }
        assert.strictEqual(yield* server.state, "listening")
        assert.deepStrictEqual(yield* counts(server), { limited: {}, pauses: { AcceptRate: 3 } })
      }))

    it.effect("a reset is another answer", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(never, {
          limits: { acceptRate: { ...acceptRate, action: "reset" } }
        })
        const clients = yield* Effect.forEach([1, 2, 3, 4], () => connect)
        for (const client of clients.slice(2)) assert.strictEqual(yield* farewellOf(client), "ConnectionReset")
        assert.strictEqual((yield* server.health).connections, 2)
        yield* TestClock.adjust(500)
        yield* connect
        yield* turns()
        assert.strictEqual((yield* server.health).connections, 3)
        assert.deepStrictEqual(yield* counts(server), { limited: { AcceptRate: 2 }, pauses: {} })
      }))

    it.effect("a drain resets the one that is held back", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(echo, { limits: { acceptRate: { limit: 1, window: "1 hour" } } })
        const [, second] = [yield* connect, yield* connect]
        yield* turns()
        assert.deepStrictEqual(Object.values(yield* server.drain()), [0, 0, 0, 0, 1])
        assert.strictEqual(yield* farewellOf(second), "ConnectionReset")
      }))
  })

  it_("bytes in flight", (it) => {
    const flood: Server.Handler<unknown, never> = (socket) =>
      Effect.flatMap(socket.readSome(new Uint8Array(1)), () => Write.writeAll(socket, new Uint8Array(100_000)))

    it.effect("nobody comes while more than that waits to be written", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(flood, { limits: { bytesInFlight: 50_000 } })
        const clients = yield* Effect.forEach([1, 2], () => connect)
        for (const client of clients) yield* Write.writeAll(client, text("x"))
        yield* turns()
        assert.strictEqual((yield* server.health).bytesInFlight, 2 * (100_000 - 65_536))
        yield* pass(100)
        assert.strictEqual(yield* server.state, "paused")
        // The one that accepts already is not called off.
        yield* Effect.forEach([3, 4], () => connect)
        yield* pass(100)
        assert.strictEqual((yield* server.health).connections, 2)
        yield* received(clients[0] ?? (yield* connect), 100_000)
        yield* pass(100)
        assert.strictEqual((yield* server.health).connections, 3)
        assert.strictEqual(yield* server.state, "listening")
        assert.deepStrictEqual((yield* counts(server)).limited, {})
      }))

    it.effect("a reset is another answer", () =>
      Effect.gen(function*() {
        const limits: Array<Server.Limit> = []
        const { connect } = yield* serving(flood, {
          limits: { bytesInFlight: { max: 30_000, action: "reset" } },
          onLimit: (limit) => Effect.sync(() => void limits.push(limit))
        })
        const client = yield* connect
        yield* Write.writeAll(client, text("x"))
        yield* pass(100)
        assert.strictEqual(yield* farewellOf(yield* connect), "ConnectionReset")
        yield* turns()
        assert.deepStrictEqual(limits, [Server.Limit.BytesInFlight({ max: 30_000, bytes: 34_464 })])
        yield* received(client, 100_000)
        yield* pass(100)
        const next = yield* connect
        yield* turns()
        assert.strictEqual(next.state.read, "open")
      }))
  })
})

describe("limits of connections that are there", () => {
  /** What ended each connection. */
  const recorded = () => {
    const limits: Array<Server.Limit> = []
    return { limits, onLimit: (limit: Server.Limit) => Effect.sync(() => void limits.push(limit)) }
  }

  it_("the first byte", (it) => {
    it.effect("who sends nothing is reset, never early and late by a quarter at most", () =>
      Effect.gen(function*() {
        const { limits, onLimit } = recorded()
        const { connect } = yield* serving(echo, { limits: { firstByte: "2 seconds" }, onLimit })
        yield* TestClock.adjust(130)
        const [silent, busy] = [yield* connect, yield* connect]
        yield* Write.writeAll(busy, text("x"))
        yield* pass(2_000)
        assert.deepStrictEqual(limits, [])
        yield* pass(500)
        assert.strictEqual(yield* farewellOf(silent), "ConnectionReset")
        assert.strictEqual(limits.length, 1)
        assert.isTrue(Server.Limit.$is("FirstByte")(limits[0]))
        yield* pass(5_000)
        assert.isTrue(yield* isServed(busy).pipe(Effect.andThen(isServed(busy))))
      }))

    it.effect("says what was set", () =>
      Effect.gen(function*() {
        const { connect, lines } = yield* serving(echo, {
          limits: { firstByte: { within: "2 seconds", action: { send: "bye" } } }
        })
        const client = yield* connect
        yield* pass(2_500)
        assert.strictEqual(yield* farewellOf(client), "bye, Done")
        yield* turns()
        assert.deepStrictEqual(lines.map(({ level, text }) => [level, text.replace(/:\d+ /, " ")]), [
          ["Debug", "the connection from tcp://127.0.0.1 ended: it sent nothing within 2s"]
        ])
      }))
  })

  it_("idle time", (it) => {
    it.effect("a connection in which nothing moves is closed; bytes either way keep it", () =>
      Effect.gen(function*() {
        const { limits, onLimit } = recorded()
        const ticker: Server.Handler<unknown, never> = (socket, { id }) =>
          id === 1
            ? Effect.forever(Effect.andThen(Effect.sleep(900), Write.writeAll(socket, text("."))))
            : echo(socket, undefined as never)
        const { connect, server } = yield* serving(ticker, { limits: { idle: "1 second" }, onLimit })
        const [fed, feeding, idle] = [yield* connect, yield* connect, yield* connect]
        yield* turns()
        for (let i = 0; i < 5; i++) {
          yield* pass(900)
          yield* Write.writeAll(feeding, text("x"))
        }
        assert.strictEqual(yield* farewellOf(idle), "Done")
        assert.strictEqual(limits.length, 1)
        assert.strictEqual((yield* server.health).connections, 2)
        yield* fed.close
        yield* pass(1_250)
        yield* turns()
        assert.strictEqual((yield* server.health).connections, 0)
        assert.strictEqual(yield* farewellOf(feeding), "xxxxx, Done")
        assert.isTrue(limits.every(Server.Limit.$is("Idle")))
      }))

    it.effect("the handler is interrupted, and its finalizers run before the connection ends", () =>
      Effect.gen(function*() {
        const ended: Array<string> = []
        const { connect } = yield* serving((socket) =>
          Effect.never.pipe(
            Effect.onExit((exit) => Effect.sync(() => void ended.push(ending(exit)))),
            Effect.ensuring(Effect.ignore(Write.writeAll(socket, text("so long"))))
          ), { limits: { idle: 1000 } })
        const client = yield* connect
        yield* pass(1_250)
        assert.strictEqual(yield* farewellOf(client), "so long, Done")
        assert.deepStrictEqual(ended, ["Interrupt"])
      }))

    it.effect("a handler that does not end is left without its connection a second later", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(
          () => Effect.uninterruptible(Effect.sleep("10 seconds")),
          { limits: { idle: 1000 }, shutdown: { deadline: 0 } }
        )
        const client = yield* connect
        yield* turns()
        const exit = yield* start(farewellOf(client))
        yield* pass(1_975)
        assert.isUndefined(exit.pollUnsafe())
        yield* pass(25)
        assert.strictEqual(yield* Fiber.join(exit), "ConnectionReset")
        assert.strictEqual((yield* server.health).connections, 1)
        yield* pass(8_000)
        assert.strictEqual((yield* server.health).connections, 0)
      }))

    it.effect("costs no timer where no limit needs it", () =>
      Effect.gen(function*() {
        const clock = yield* Clock.Clock
        let sleeps = 0
        const counting = Object.assign(Object.create(clock), {
          sleep: (time: Duration.Duration) =>
            Effect.suspend(() => {
              sleeps++
              return clock.sleep(time)
            })
        }) as Clock.Clock
        const sleepsWith = (limits: Server.Limits) =>
          Effect.scoped(Effect.gen(function*() {
            sleeps = 0
            const { connect } = yield* serving(echo, { limits })
            yield* connect
            yield* turns()
            return sleeps
          })).pipe(Effect.provideService(Clock.Clock, counting))
        assert.strictEqual(yield* sleepsWith({ idle: "1 second" }), 1)
        assert.strictEqual(yield* sleepsWith({ connections: 5, perPeer: 5 }), 0)
      }))
  })

  it_("progress", (it) => {
    const flood: Server.Handler<unknown, never> = (socket) => Write.writeAll(socket, new Uint8Array(1_000_000))

    it.effect("who never reads is reset; who reads fast enough gets everything", () =>
      Effect.gen(function*() {
        const { limits, onLimit } = recorded()
        const { connect, server } = yield* serving(flood, {
          limits: { progress: { bytes: 100_000, per: "1 second" } },
          onLimit
        })
        const [stuck, reader] = [yield* connect, yield* connect]
        yield* turns()
        const reading = yield* start(
          Effect.forEach(
            Array.from({ length: 20 }),
            () => Effect.andThen(Effect.sleep(300), received(reader, 50_000)),
            { discard: true }
          )
        )
        yield* pass(1_000)
        assert.strictEqual((yield* server.health).connections, 2)
        yield* pass(250)
        assert.strictEqual((yield* server.health).connections, 1)
        assert.strictEqual((yield* farewellOf(stuck)).replaceAll("\0", ""), ", ConnectionReset")
        const [limit] = limits
        assert.isTrue(limit !== undefined && Server.Limit.$is("Progress")(limit) && limit.taken === 0)
        yield* pass(6_000)
        yield* Fiber.join(reading)
        assert.strictEqual(yield* farewellOf(reader), "Done")
        assert.deepStrictEqual(yield* counts(server), { limited: { Progress: 1 }, pauses: {} })
      }))

    it.effect("one byte a second is not enough", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(flood, { limits: { progress: { bytes: 100, per: "5 seconds" } } })
        const client = yield* connect
        yield* turns()
        yield* start(Effect.forever(Effect.andThen(Effect.sleep(1000), received(client, 1))))
        yield* pass(7_500)
        assert.deepStrictEqual(yield* counts(server), { limited: { Progress: 1 }, pauses: {} })
      }))

    it.effect("a handler that does not write is not slow, however long it takes", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(echo, { limits: { progress: { bytes: 100, per: "1 second" } } })
        const client = yield* connect
        yield* pass(10_000, 100)
        assert.isTrue(yield* isServed(client))
        assert.deepStrictEqual(yield* counts(server), { limited: {}, pauses: {} })
      }))

    it.effect("no policy of the handler makes the end wait for the peer", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(
          (socket, connection) => Cancellation.total(flood(socket, connection)),
          { limits: { progress: { bytes: 100, per: "1 second" } } }
        )
        yield* connect
        yield* pass(1_250)
        yield* turns()
        assert.strictEqual((yield* server.health).connections, 0)
      }))
  })

  it_("abuse", (it) => {
    it.effect("whatever peers do, the others are served", () =>
      Effect.gen(function*() {
        const flood: Server.Handler<unknown, never> = (socket, connection) =>
          Effect.gen(function*() {
            const buffer = new Uint8Array(1)
            while (true) {
              yield* socket.readSome(buffer)
              yield* Write.writeAll(socket, buffer[0] === 33 ? new Uint8Array(1_000_000) : text("?"))
              void connection
            }
          })
        const { connect, lines, server } = yield* serving(flood, {
          limits: {
            firstByte: "2 seconds",
            idle: "3 seconds",
            progress: { bytes: 1000, per: "1 second" },
            connections: { max: 200, action: "reset" }
          }
        })
        const good = yield* connect
        const silent = yield* Effect.forEach(Array.from({ length: 20 }), () => connect)
        const slow = yield* Effect.forEach(Array.from({ length: 20 }), () => connect)
        const deaf = yield* Effect.forEach(Array.from({ length: 20 }), () => connect)
        for (const client of deaf) yield* Write.writeAll(client, text("!"))
        for (let second = 0; second < 10; second++) {
          for (const client of slow) yield* Effect.ignore(Write.writeAll(client, text("x")))
          yield* Effect.forEach(Array.from({ length: 200 }), () => Effect.flatMap(connect, (client) => client.abort))
          yield* turns()
          assert.isTrue(yield* isServed(good))
          yield* pass(1_000, 100)
        }
        assert.deepStrictEqual(yield* Effect.forEach(silent, farewellOf), silent.map(() => "ConnectionReset"))
        for (const client of deaf) assert.include(yield* farewellOf(client), "ConnectionReset")
        const { connections, limited } = yield* server.health
        assert.strictEqual(connections, 21)
        assert.deepStrictEqual([limited.FirstByte, limited.Progress, limited.Idle], [20, 20, 0])
        assert.isTrue(lines.every(({ level }) => level === "Debug"))
      }))
  })
})
