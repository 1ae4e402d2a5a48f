/** Faults of handlers, loggers and clocks, and peers at the worst moment: what must not bring a server out of step. */
import { assert, describe, it } from "@effect/vitest"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Metric from "effect/Metric"
import * as TestClock from "effect/testing/TestClock"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as ProxyProtocol from "../../src/ProxyProtocol.ts"
import * as Server from "../../src/Server.ts"
import { Reason, SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import { Transport } from "../../src/Transport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort } from "../support/addresses.ts"
import { FakeBacking, FakeListener } from "../support/fakes.ts"
import { echo, farewellOf, serving } from "../support/server.ts"
import { start, turns } from "../support/waiting.ts"

const it_ = it.layer(Layer.fresh(MemoryTransport.layer))

const none = { finished: 0, total: 0, partial: 0, terminal: 0, aborted: 0 }

describe("a server stays in step", () => {
  it_("with handlers", (it) => {
    const broken: ReadonlyArray<readonly [string, () => Cancellation.Type]> = [
      ["throws", () => {
        throw new Error("in my filter")
      }],
      // A caller in JavaScript.
      ["answers with no type", () => "all" as Cancellation.Type]
    ]
    for (const [what, filter] of broken) {
      it.effect(`whose filter ${what}: a drain asks the others, and ends`, () =>
        Effect.gen(function*() {
          const { connect, lines, server } = yield* serving((socket, { id }) => {
            const reading = socket.readSome(new Uint8Array(1))
            return id === 2 ? Cancellation.withFilter(reading, filter) : reading
          })
          const clients = yield* Effect.forEach([1, 2, 3], () => connect)
          yield* turns()
          const draining = yield* start(server.drain(1000))
          yield* TestClock.adjust(600)
          yield* turns()
          assert.deepStrictEqual((yield* server.connections).map(({ id }) => id), [2])
          yield* TestClock.adjust(400)
          assert.deepStrictEqual(yield* Fiber.join(draining), { ...none, total: 2, aborted: 1 })
          assert.deepStrictEqual(yield* Effect.forEach(clients, farewellOf), ["Done", "ConnectionReset", "Done"])
          assert.deepStrictEqual(
            lines.map(({ level, text }) => `${level} ${text.split("\n")[0]?.split(":")[0]}`),
            [
              "Info draining 3 connections within 1s",
              "Error a filter failed, and its operation was not asked to end Error",
              "Info drained"
            ].map((line, i) => i === 1 && what !== "throws" ? line.replace(/Error$/, "TypeError") : line)
          )
        }))
    }

    it.effect("that are cut inside a message by a limit: the peer does not take it for the whole", () =>
      Effect.gen(function*() {
        for (const answer of ["close", { send: "bye" }] as const) {
          const { connect, server } = yield* serving(
            (socket) => Write.writeAll(socket, new Uint8Array(100_000)),
            { limits: { idle: { within: 1000, action: answer } } }
          )
          const client = yield* connect
          yield* turns()
          yield* TestClock.adjust(1250)
          yield* turns()
          assert.strictEqual((yield* server.health).limited.Idle, 1)
          assert.strictEqual((yield* farewellOf(client)).replaceAll("\0", ""), ", ConnectionReset")
        }
      }))

    it.effect("that fail as a limit ends them: both are reported, even if one report fails", () =>
      Effect.gen(function*() {
        const limits: Array<string> = []
        const { connect } = yield* serving(() => Effect.ensuring(Effect.never, Effect.die("in my finalizer")), {
          limits: { idle: 1000 },
          onError: () => Effect.die("in my report"),
          onLimit: ({ _tag }) => Effect.sync(() => void limits.push(_tag))
        })
        yield* connect
        yield* turns()
        yield* TestClock.adjust(1250)
        yield* turns()
        assert.deepStrictEqual(limits, ["Idle"])
      }))

    it.effect("that fail behind a proxy: their reports carry the client in their annotations, as their own logs do", () =>
      Effect.gen(function*() {
        const { connect, lines } = yield* serving(() => Effect.andThen(Effect.logInfo("served"), Effect.fail("x")), {
          proxyProtocol: { trusted: ProxyProtocol.trustAnyone }
        })
        const client = yield* connect
        yield* Write.writeAll(client, text("PROXY TCP4 198.51.100.1 203.0.113.7 40000 443\r\n"))
        yield* farewellOf(client)
        yield* turns()
        assert.deepStrictEqual(lines.map(({ annotations, level }) => [level, annotations["peer"]]), [
          ["Info", "tcp://198.51.100.1:40000"],
          ["Error", "tcp://198.51.100.1:40000"]
        ])
      }))

    it.effect("that fail: what is told of it lives in the scope of the server, and not in theirs", () =>
      Effect.gen(function*() {
        const ends: Array<string> = []
        yield* Effect.scoped(Effect.gen(function*() {
          const { connect } = yield* serving(
            () => Effect.andThen(Effect.addFinalizer(() => Effect.sync(() => ends.push("handler"))), Effect.fail("x")),
            { onError: () => Effect.addFinalizer(() => Effect.sync(() => ends.push("report"))) }
          )
          assert.strictEqual(yield* farewellOf(yield* connect), "ConnectionReset")
          yield* turns()
          assert.deepStrictEqual(ends, ["handler"])
        }))
        assert.deepStrictEqual(ends, ["handler", "report"])
      }))

    it.effect("that end as the drain gives them up: each is counted once", () =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const freeing = Logger.make<unknown, void>(({ logLevel }) => {
          if (logLevel === "Warn") Deferred.doneUnsafe(gate, Exit.void)
        })
        const server = yield* Effect.provide(
          Server.make(() => Effect.uninterruptible(Deferred.await(gate)), { listen: anyPort }),
          Logger.layer([freeing])
        )
        yield* StreamSocket.connect(server.addresses[0])
        yield* turns()
        const draining = yield* start(server.drain(0))
        yield* TestClock.adjust(1000)
        assert.deepStrictEqual(yield* Fiber.join(draining), { ...none, aborted: 1 })
        assert.strictEqual((yield* server.health).connections, 0)
      }))

    it.effect("that drain it in their first step, while it is still starting: no loop is left", () =>
      Effect.gen(function*() {
        const tooMany = new SocketError({ reason: Reason.TooManyOpenFiles(), operation: "accept", transferred: 0 })
        const [first, second] = [new FakeListener(), new FakeListener()]
        first.hold(tooMany)
        second.hold(new FakeBacking())
        const listeners = [first, second]
        let fibers = 0
        let stopped: number | undefined
        yield* Effect.gen(function*() {
          const before = fibers
          const { server } = yield* serving(
            (_, connection) => Effect.forkDetach(connection.server.drain(1000), { startImmediately: true }),
            { listen: [anyPort, anyPort] }
          )
          assert.strictEqual((yield* server.stopped).finished, 1)
          yield* turns()
          stopped = fibers - before
        }).pipe(
          Effect.provideService(Transport, {
            name: "fake",
            connect: () => Effect.die("not here"),
            listen: () => Effect.sync(() => listeners.shift() ?? new FakeListener())
          }),
          Effect.provideService(Metric.FiberRuntimeMetrics, {
            recordFiberStart: () => void fibers++,
            recordFiberEnd: () => void fibers--
          })
        )
        assert.strictEqual(stopped, 0)
      }))
  })

  it_("with clocks", (it) => {
    it.effect("that somebody sets: no limit is met early, and an earlier deadline stays one", () =>
      Effect.gen(function*() {
        const clock = yield* Clock.Clock
        let set = 0
        // The prototype has everything else.
        const jumping = Object.assign(Object.create(clock), {
          currentTimeMillisUnsafe: () => clock.currentTimeMillisUnsafe() + set
        }) as Clock.Clock
        const { connect, server } = yield* Effect.provideService(
          serving(
            (socket, connection) =>
              connection.id === 1
                ? Effect.flatMap(Effect.forkChild(echo(socket, connection)), Fiber.join)
                : Effect.never,
            {
              limits: { firstByte: "1 hour", idle: "1 hour", handshake: "1 hour" }
            }
          ),
          Clock.Clock,
          jumping
        )
        const clients = [yield* connect, yield* connect]
        yield* turns()
        set = 24 * 3_600_000
        yield* TestClock.adjust("5 minutes")
        yield* turns()
        assert.strictEqual((yield* server.health).connections, 2)
        const draining = yield* start(server.drain("1 hour"))
        set = 48 * 3_600_000
        yield* start(server.drain(1000))
        yield* TestClock.adjust(1000)
        assert.strictEqual((yield* Fiber.join(draining)).aborted, 2)
        for (const client of clients) assert.strictEqual(yield* farewellOf(client), "ConnectionReset")
      }))
  })

  it_("with timers", (it) => {
    it.effect("that are late, as on a busy process: the delays of a ladder do not add up", () =>
      Effect.gen(function*() {
        const clock = yield* Clock.Clock
        // The prototype has everything else.
        const late = Object.assign(Object.create(clock), {
          sleep: (time: Duration.Duration) => clock.sleep(Duration.sum(time, Duration.millis(20)))
        }) as Clock.Clock
        const { connect, server } = yield* Effect.provideService(serving(() => Effect.never), Clock.Clock, late)
        yield* connect
        yield* turns()
        const draining = yield* start(server.drain(1000))
        for (let time = 0; time < 1020; time += 10) {
          assert.isUndefined(draining.pollUnsafe())
          yield* TestClock.adjust(10)
          yield* turns()
        }
        assert.deepStrictEqual(draining.pollUnsafe(), Exit.succeed({ ...none, aborted: 1 }))
      }))
  })

  it_("with peers", (it) => {
    it.effect("that wait for room as a drain begins: they are left to the address, and not taken to be refused", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(() => Effect.never, { limits: { connections: 1 } })
        const clients = yield* Effect.forEach([1, 2, 3], () => connect)
        yield* turns()
        const draining = yield* start(server.drain(1000))
        yield* turns()
        const { accepted, limited } = yield* server.health
        assert.deepStrictEqual([accepted, limited.Connections], [1, 0])
        yield* TestClock.adjust(1000)
        yield* Fiber.join(draining)
        assert.deepStrictEqual(yield* Effect.forEach(clients, farewellOf), clients.map(() => "ConnectionReset"))
      }))

    it.effect("that are refused with bytes one after the other, however many: each has them", () =>
      Effect.gen(function*() {
        const { connect } = yield* serving(() => Effect.never, {
          limits: { connections: { max: 1, action: { send: "busy" } } }
        })
        yield* connect
        for (let i = 0; i < 130; i++) {
          const refused = yield* connect
          assert.strictEqual(yield* farewellOf(refused), "busy, Done")
          yield* refused.close
          yield* turns()
        }
      }))

    it.effect("that send their first byte with the PROXY header: it has been received", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(
          (socket) => Effect.andThen(socket.readSome(new Uint8Array(1)), Effect.never),
          { proxyProtocol: { trusted: ProxyProtocol.trustAnyone }, limits: { firstByte: 2000 } }
        )
        const client = yield* connect
        yield* Write.writeAll(client, text("PROXY TCP4 198.51.100.1 203.0.113.7 40000 443\r\nx"))
        yield* turns()
        yield* TestClock.adjust(5000)
        yield* turns()
        const { connections, limited } = yield* server.health
        assert.deepStrictEqual([connections, limited.FirstByte], [1, 0])
      }))
  })
})
