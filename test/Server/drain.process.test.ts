import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scheduler from "effect/Scheduler"
import * as TestClock from "effect/testing/TestClock"
import { utf8 as text } from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Framing from "../../src/Framing.ts"
import type * as Server from "../../src/Server.ts"
import { Reason, SocketError } from "../../src/SocketError.ts"
import type * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as Write from "../../src/Write.ts"
import { ending } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { echo, farewellOf, listening, received, serving } from "../support/server.ts"
import { start, turn, turns } from "../support/waiting.ts"

const it_ = it.layer(Layer.fresh(MemoryTransport.layer))

const none = { finished: 0, total: 0, partial: 0, terminal: 0, aborted: 0 }
const frames = Framing.lengthPrefixed()
const large = new Uint8Array(100_000)

/** Handlers by the rung on which they end, if nothing else ends them. */
const handlers = {
  finished: (_: StreamSocket.StreamSocket, connection: Server.Connection) => connection.draining,
  // In a fiber of its own: the handler does not wait for its next request, so the start of a drain does not end it.
  total: (socket: StreamSocket.StreamSocket) =>
    Effect.flatMap(Effect.forkChild(socket.readSome(new Uint8Array(1))), Fiber.join),
  partial: (socket: StreamSocket.StreamSocket) => Write.writeAll(socket, large),
  terminal: (socket: StreamSocket.StreamSocket) => Framing.send(socket, frames, large),
  aborted: () => Effect.never
} satisfies Record<keyof Server.DrainReport, Server.Handler<unknown, never>>

type Rung = keyof typeof handlers
const rungs = ["finished", "total", "partial", "terminal", "aborted"] as const

/** A server whose connections end on these rungs, in this order, and their clients. */
const ladderOf = (...ends: ReadonlyArray<Rung>) =>
  Effect.gen(function*() {
    const { connect, ...rest } = yield* serving((socket, connection): Effect.Effect<unknown, unknown> => {
      const rung = ends[connection.id - 1]
      return rung === undefined ? Effect.die(`no rung for ${connection.id}`) : handlers[rung](socket, connection)
    })
    const clients = yield* Effect.forEach(ends, () => connect)
    yield* turns()
    return { ...rest, connect, clients }
  })

/** Drains, lets the time pass in steps of 10, and answers when it was over. */
const timed = (drain: Effect.Effect<Server.DrainReport>) =>
  Effect.gen(function*() {
    const draining = yield* start(drain)
    let time = 0
    yield* turns()
    while (draining.pollUnsafe() === undefined) {
      yield* TestClock.adjust(10)
      yield* turns()
      time += 10
    }
    return { time, drained: yield* Fiber.join(draining) }
  })

describe("Server.drain", () => {
  it_("the ladder", (it) => {
    it.effect("with no connection it is over at once", () =>
      Effect.gen(function*() {
        const { connect, lines, server } = yield* serving(echo)
        assert.deepStrictEqual(yield* server.drain(), none)
        assert.deepStrictEqual(lines, [])
        assert.strictEqual(yield* server.state, "stopped")
        assert.strictEqual(ending(yield* Effect.exit(connect)), "ConnectionRefused")
      }))

    it.effect("each connection ends on its rung, and each rung counts its own", () =>
      Effect.gen(function*() {
        const { clients, lines, server } = yield* ladderOf(
          ...rungs,
          ...["finished", "partial", "aborted", "total", "total"] as const
        )
        const { drained, time } = yield* timed(server.drain(1000))
        assert.deepStrictEqual(drained, { finished: 2, total: 3, partial: 2, terminal: 1, aborted: 2 })
        assert.strictEqual(time, 1000)
        // What was cut inside is reset, so that nobody takes it for the whole.
        const ends = yield* Effect.forEach(clients.slice(0, 5), farewellOf)
        assert.deepStrictEqual(ends.map((end) => end.split(", ").at(-1)), [
          "Done",
          "Done",
          "ConnectionReset",
          "ConnectionReset",
          "ConnectionReset"
        ])
        assert.deepStrictEqual(lines.map(({ level, text }) => [level, text]), [
          ["Info", "draining 10 connections within 1s"],
          ["Info", "drained: 2 finished, 3 total, 2 partial, 1 terminal, 2 aborted"]
        ])
        assert.deepStrictEqual(yield* server.stopped, drained)
      }))

    const times: ReadonlyArray<readonly [Rung, number]> = [
      ["finished", 0],
      ["total", 600],
      ["partial", 800],
      ["terminal", 900],
      ["aborted", 1000]
    ]
    for (const [rung, expected] of times) {
      it.effect(`a connection that ends on "${rung}" ends it after ${expected} of 1,000`, () =>
        Effect.gen(function*() {
          const { server } = yield* ladderOf(rung)
          const { drained, time } = yield* timed(server.drain(1000))
          assert.deepStrictEqual(drained, { ...none, [rung]: 1 })
          assert.strictEqual(time, expected)
        }))
    }

    it.effect("its parts can be others, or left out", () =>
      Effect.gen(function*() {
        const { server } = yield* ladderOf(...rungs)
        const ladder = { finish: 1, total: 0, partial: 0, terminal: 1 }
        const { drained, time } = yield* timed(server.drain(400, ladder))
        assert.deepStrictEqual(drained, { finished: 1, total: 0, partial: 0, terminal: 3, aborted: 1 })
        assert.strictEqual(time, 400)
      }))

    it.effect("the shutdown of the options has a ladder, too", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving((socket) => socket.readSome(new Uint8Array(1)), {
          shutdown: { deadline: 100, phases: { finish: 0 } }
        })
        yield* connect
        yield* turns()
        assert.deepStrictEqual(yield* timed(server.drain()), { time: 0, drained: { ...none, total: 1 } })
      }))

    it.effect("no time at all aborts at once", () =>
      Effect.gen(function*() {
        const { clients, server } = yield* ladderOf("total", "partial", "aborted")
        assert.deepStrictEqual(yield* server.drain(0), { ...none, aborted: 3 })
        for (const client of clients) assert.include(yield* farewellOf(client), "ConnectionReset")
      }))

    it.effect("without a deadline it waits for ever", () =>
      Effect.gen(function*() {
        const { clients, server } = yield* ladderOf("total")
        const draining = yield* start(server.drain(Duration.infinity))
        yield* TestClock.adjust("3000 days")
        yield* turns()
        assert.isUndefined(draining.pollUnsafe())
        yield* clients[0]?.shutdownWrite ?? Effect.void
        assert.deepStrictEqual(yield* Fiber.join(draining), { ...none, finished: 1 })
      }))
  })

  it_("requests", (it) => {
    it.effect("are made again: a handler that was between two operations is asked at its next", () =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const { connect, server } = yield* serving((socket) =>
          Effect.andThen(Deferred.await(gate), socket.readSome(new Uint8Array(1)))
        )
        yield* connect
        yield* turns()
        const draining = yield* start(server.drain(1000))
        yield* TestClock.adjust(610)
        yield* Deferred.succeed(gate, undefined)
        yield* turns()
        assert.isUndefined(draining.pollUnsafe())
        yield* TestClock.adjust(15)
        assert.deepStrictEqual(yield* Fiber.join(draining), { ...none, total: 1 })
      }))

    it.effect("a message that is half written is finished when the peer reads on", () =>
      Effect.gen(function*() {
        const { clients, server } = yield* ladderOf("terminal")
        const [client] = clients
        if (client === undefined) return assert.fail("no client")
        const draining = yield* start(server.drain(1000))
        yield* TestClock.adjust(700)
        assert.strictEqual((yield* received(client, large.byteLength + 4)).length, large.byteLength + 4)
        assert.strictEqual(yield* farewellOf(client), "Done")
        assert.deepStrictEqual(yield* Fiber.join(draining), { ...none, total: 1 })
      }))

    it.effect("a handler may catch them and say goodbye", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving((socket) =>
          socket.readSome(new Uint8Array(1)).pipe(
            Effect.catchReason("SocketError", "OperationAborted", () => Write.writeAll(socket, text("goodbye")))
          )
        )
        const client = yield* connect
        yield* turns()
        const { drained } = yield* timed(server.drain(1000))
        assert.deepStrictEqual(drained, { ...none, total: 1 })
        assert.strictEqual(yield* farewellOf(client), "goodbye, Done")
      }))

    it.effect("filters of a handler hold for them", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving((socket) =>
          Cancellation.withFilter(socket.readSome(new Uint8Array(1)), Cancellation.allowTerminal)
        )
        yield* connect
        yield* turns()
        assert.deepStrictEqual(yield* timed(server.drain(1000)), { time: 900, drained: { ...none, terminal: 1 } })
      }))

    it.effect("the terminal one makes an abort of a close that waits for the peer", () =>
      Effect.gen(function*() {
        const { listener, server } = yield* listening(() => Effect.void)
        const backing = new FakeBacking()
        backing.releases = ["abort"]
        listener.offer(backing)
        yield* turns()
        assert.deepStrictEqual(yield* timed(server.drain(1000)), { time: 900, drained: { ...none, terminal: 1 } })
        assert.deepStrictEqual(backing.calls, ["close", "abort"])
      }))
  })

  it_("telling", (it) => {
    it.effect("handlers can wait for it, race it, and look", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving((socket, connection) =>
          Effect.gen(function*() {
            const buffer = new Uint8Array(16)
            while (!connection.isDraining) {
              const request = yield* Effect.raceFirst(
                Effect.asSome(socket.readSome(buffer)),
                Effect.as(connection.draining, Option.none<number>())
              )
              if (Option.isSome(request)) yield* Write.writeAll(socket, buffer.subarray(0, request.value))
            }
            yield* Write.writeAll(socket, text(" bye"))
          })
        )
        const clients = yield* Effect.forEach([1, 2, 3], () => connect)
        for (const client of clients) {
          yield* Write.writeAll(client, text("hi"))
          assert.strictEqual(yield* received(client, 2), "hi")
        }
        // The request that came first is answered first.
        yield* Write.writeAll(clients[0] ?? assert.fail(), text("ok"))
        yield* turns()
        assert.deepStrictEqual(yield* server.drain(1000), { ...none, finished: 3 })
        assert.strictEqual(yield* farewellOf(clients[0] ?? assert.fail()), "ok bye, Done")
        assert.strictEqual(yield* farewellOf(clients[1] ?? assert.fail()), " bye, Done")
      }))

    it.effect("a handler that starts to wait later is told at once", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving((_, connection) =>
          Effect.andThen(Effect.sleep(100), connection.draining)
        )
        yield* connect
        yield* turns()
        assert.deepStrictEqual(yield* timed(server.drain(1000)), { time: 100, drained: { ...none, finished: 1 } })
      }))

    /** A server, and what waits in its backlog as its drain begins. */
    const backlogged = (waiting: number, options: Partial<Server.Options> = {}) =>
      Effect.gen(function*() {
        const seen: Array<boolean> = []
        const { listener, server } = yield* listening((socket, connection) =>
          Effect.suspend(() => {
            seen.push(connection.isDraining)
            return Effect.andThen(handlers.finished(socket, connection), Effect.sleep(10))
          }), options)
        const backings = Array.from({ length: waiting }, () => new FakeBacking())
        // Without a word to the loop, as what arrives at the very moment.
        listener.hold(...backings)
        return { backings, seen, server }
      })

    it.effect("connections that wait in the backlog are served like the others, and told at once", () =>
      Effect.gen(function*() {
        const { backings, seen, server } = yield* backlogged(3)
        assert.deepStrictEqual((yield* timed(server.drain(1000))).drained, { ...none, finished: 3 })
        assert.deepStrictEqual(seen, [true, true, true])
        for (const { calls } of backings) assert.deepStrictEqual(calls, ["close"])
        assert.strictEqual((yield* server.health).accepted, 3)
      }))

    it.effect("no more of them than the backlog holds, so that a flood does not keep the drain", () =>
      Effect.gen(function*() {
        const { seen, server } = yield* backlogged(9, { backlog: 4 })
        assert.deepStrictEqual((yield* timed(server.drain(1000))).drained, { ...none, finished: 4 })
        assert.strictEqual(seen.length, 4)
      }))

    it.effect("limits hold for them: no more than there is room for, and those refused are counted", () =>
      Effect.gen(function*() {
        const waiting = yield* backlogged(5, { limits: { connections: 2 } })
        assert.deepStrictEqual((yield* timed(waiting.server.drain(1000))).drained, { ...none, finished: 2 })
        assert.strictEqual((yield* waiting.server.health).accepted, 2)
        const reset = yield* backlogged(5, { limits: { connections: { max: 2, action: "reset" } } })
        assert.deepStrictEqual((yield* timed(reset.server.drain(1000))).drained, { ...none, finished: 2 })
        assert.deepStrictEqual(reset.backings.map(({ calls }) => calls), [
          ["close"],
          ["close"],
          ["abort"],
          ["abort"],
          ["abort"]
        ])
        const rate = yield* backlogged(5, { limits: { acceptRate: { limit: 2, window: "1 hour" } } })
        assert.deepStrictEqual((yield* timed(rate.server.drain(1000))).drained, { ...none, finished: 2 })
        const counts = [yield* reset.server.health, yield* rate.server.health]
        assert.deepStrictEqual(counts.map(({ limited }) => [limited.Connections, limited.AcceptRate]), [[3, 0], [0, 3]])
      }))

    it.effect("one that is left in the backlog fails and harms nobody", () =>
      Effect.gen(function*() {
        const { listener, server } = yield* listening(handlers.finished)
        listener.hold(
          new FakeBacking(),
          new SocketError({ reason: Reason.TooManyOpenFiles(), operation: "accept", transferred: 0 })
        )
        assert.deepStrictEqual(yield* server.drain(1000), { ...none, finished: 1 })
      }))

    it.effect("connections for which there is no room are reset, and the address is free at once", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving(() => Effect.never, { limits: { connections: 1 } })
        yield* connect
        const waiting = [yield* connect, yield* connect]
        yield* turns()
        const draining = yield* start(server.drain(1000))
        for (const client of waiting) assert.strictEqual(yield* farewellOf(client), "ConnectionReset")
        assert.strictEqual(yield* server.state, "draining")
        assert.strictEqual(ending(yield* Effect.exit(connect)), "ConnectionRefused")
        yield* TestClock.adjust(1000)
        assert.deepStrictEqual(yield* Fiber.join(draining), { ...none, aborted: 1 })
      }))
  })

  it_("what has arrived", (it) => {
    const pair = Effect.gen(function*() {
      const rest = yield* serving((socket, connection) =>
        Write.writeAll(socket, text(connection.isDraining ? "late" : "in time"))
      )
      // A turn in which the server takes nothing lies between these two and the drain.
      return { ...rest, clients: [yield* rest.connect, yield* rest.connect] }
    })

    it.effect("is served, and knows that it has to hurry", () =>
      Effect.gen(function*() {
        const { clients, server } = yield* pair
        const drained = yield* server.drain(1000)
        assert.deepStrictEqual(yield* Effect.forEach(clients, farewellOf), ["late, Done", "late, Done"])
        assert.deepStrictEqual(drained, { ...none, finished: 2 })
      }))

    it.effect("is reset where there is no time", () =>
      Effect.gen(function*() {
        const { clients, server } = yield* pair
        assert.deepStrictEqual(yield* server.drain(0), none)
        assert.deepStrictEqual(yield* Effect.forEach(clients, farewellOf), ["ConnectionReset", "ConnectionReset"])
      }))
  })

  it_("twice", (it) => {
    it.effect("shares what runs and what came of it", () =>
      Effect.gen(function*() {
        const { server } = yield* ladderOf("total", "aborted")
        const first = yield* start(server.drain(1000))
        yield* TestClock.adjust(300)
        const second = yield* start(server.drain(10_000))
        yield* TestClock.adjust(699)
        assert.deepStrictEqual([first.pollUnsafe(), second.pollUnsafe()], [undefined, undefined])
        yield* TestClock.adjust(1)
        const drained = { ...none, total: 1, aborted: 1 }
        assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(second), yield* server.drain(0)], [
          drained,
          drained,
          drained
        ])
      }))

    it.effect("an earlier deadline wins", () =>
      Effect.gen(function*() {
        const { server } = yield* ladderOf("aborted")
        const first = yield* start(server.drain("1 hour"))
        yield* TestClock.adjust(1000)
        const second = yield* start(server.drain(500))
        const third = yield* start(server.drain(800))
        yield* TestClock.adjust(499)
        assert.isUndefined(first.pollUnsafe())
        yield* TestClock.adjust(1)
        for (const fiber of [first, second, third]) assert.deepStrictEqual((yield* Fiber.join(fiber)).aborted, 1)
      }))

    it.effect("an interruption of one who waits stops nothing", () =>
      Effect.gen(function*() {
        const { server } = yield* ladderOf("total")
        const waiting = yield* start(server.drain(1000))
        yield* Fiber.interrupt(waiting)
        yield* TestClock.adjust(600)
        assert.deepStrictEqual(yield* server.stopped, { ...none, total: 1 })
      }))

    it.effect("an earlier deadline leaves no timer behind when the drain is over before", () =>
      leavingNothing(Effect.gen(function*() {
        const { server } = yield* ladderOf("aborted", "total")
        yield* start(server.drain("1 hour"))
        yield* start(server.drain("30 minutes"))
        assert.deepStrictEqual(yield* server.drain(0), { ...none, aborted: 2 })
      })).pipe(Effect.provide(MemoryTransport.layer)))

    it.effect("an interruption at its very beginning stops nothing either", () =>
      Effect.gen(function*() {
        for (let ops = 3; ops < 30; ops++) {
          const { server } = yield* ladderOf("aborted")
          const draining = yield* start(Effect.provideService(server.drain(1000), Scheduler.MaxOpsBeforeYield, ops))
          draining.interruptUnsafe()
          if ((yield* server.state) === "listening") continue
          yield* turns()
          yield* TestClock.adjust(1000)
          yield* turns()
          assert.strictEqual(yield* server.state, "stopped", `after ${ops}`)
        }
      }))

    it.effect("the end of the scope brings a long drain to its own deadline", () =>
      Effect.gen(function*() {
        const drained = yield* Effect.scoped(Effect.gen(function*() {
          const { connect, server } = yield* serving(() => Effect.never)
          yield* connect
          yield* turns()
          return yield* start(Effect.forkDetach(server.drain("1 hour"), { startImmediately: true })).pipe(
            Effect.flatMap(Fiber.join)
          )
        }))
        assert.deepStrictEqual(yield* Fiber.join(drained), { ...none, aborted: 1 })
      }))
  })

  it_("handlers that resist", (it) => {
    it.effect("one that does not end is left to itself a second after the deadline, with a warning", () =>
      Effect.gen(function*() {
        const { connect, lines, server } = yield* serving(() => Effect.uninterruptible(Effect.sleep("1 minute")))
        const client = yield* connect
        yield* turns()
        const draining = yield* start(server.drain(1000))
        yield* TestClock.adjust(1000)
        // Its connection is gone at the deadline.
        assert.strictEqual(yield* farewellOf(client), "ConnectionReset")
        yield* TestClock.adjust(999)
        assert.isUndefined(draining.pollUnsafe())
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(yield* Fiber.join(draining), { ...none, aborted: 1 })
        assert.deepStrictEqual(lines.filter(({ level }) => level === "Warn").map(({ text }) => text), [
          "1 of the handlers do not end; the server ends without them"
        ])
        yield* TestClock.adjust("1 minute")
      }))

    it.effect("finalizers that take a while have that second", () =>
      Effect.gen(function*() {
        const { connect, lines, server } = yield* serving(() => Effect.ensuring(Effect.never, Effect.sleep(700)))
        yield* connect
        yield* turns()
        assert.deepStrictEqual(yield* timed(server.drain(1000)), { time: 1700, drained: { ...none, aborted: 1 } })
        assert.isFalse(lines.some(({ level }) => level === "Warn"))
      }))
  })

  it_("races", (it) => {
    /** Turns of the scheduler, as fine as tests can cut. */
    const yields = (count: number) => Effect.forEach(Array.from({ length: count }), () => Effect.yieldNow)

    it.effect("a handler that ends while the drain climbs is counted once, in every order", () =>
      Effect.gen(function*() {
        for (let delay = 0; delay < 12; delay++) {
          const { clients, server } = yield* ladderOf("total", "total", "aborted")
          const draining = yield* start(server.drain(1000))
          yield* TestClock.adjust(599)
          const closing = yield* Effect.forkChild(
            Effect.andThen(yields(delay), Effect.forEach(clients, (client) => client.close))
          )
          yield* TestClock.adjust(1)
          yield* Fiber.join(closing)
          yield* TestClock.adjust(500)
          const drained = yield* Fiber.join(draining)
          assert.strictEqual(Object.values(drained).reduce((sum, count) => sum + count), 3, JSON.stringify(drained))
          assert.deepStrictEqual([drained.partial, drained.terminal, drained.aborted], [0, 0, 1])
        }
      }))

    it.effect("a connection that comes as the drain begins is served or reset, and never forgotten", () =>
      Effect.gen(function*() {
        for (let delay = 0; delay < 12; delay++) {
          let handled = 0
          let ended = 0
          const { connect, server } = yield* serving((socket) =>
            Effect.ensuring(
              Effect.suspend(() => {
                handled++
                return socket.readSome(new Uint8Array(1))
              }),
              Effect.sync(() => ended++)
            )
          )
          const connecting = yield* Effect.forkChild(
            Effect.andThen(yields(delay), Effect.forEach([1, 2], () => Effect.option(connect)))
          )
          yield* yields(4)
          if (delay % 2 === 1) yield* turn
          const draining = yield* start(server.drain(1000))
          const clients = (yield* Fiber.join(connecting)).flatMap((client) => Option.toArray(client))
          yield* TestClock.adjust(1000)
          const drained = yield* Fiber.join(draining)
          assert.deepStrictEqual([drained.total, ended], [handled, handled], `after ${delay} turns`)
          const ends = yield* Effect.forEach(clients, farewellOf)
          assert.deepStrictEqual(
            ends.toSorted(),
            [...ends.keys()].map((i) => i < handled ? "Done" : "ConnectionReset").toSorted(),
            `after ${delay} turns`
          )
        }
      }))

    it.effect("a handler may drain its own server and go on", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving((socket, connection) =>
          Effect.gen(function*() {
            yield* socket.readSome(new Uint8Array(1))
            yield* Effect.forkDetach(connection.server.drain(1000))
            yield* connection.draining
            yield* Write.writeAll(socket, text("done"))
          })
        )
        const client = yield* connect
        yield* Write.writeAll(client, text("x"))
        assert.strictEqual(yield* farewellOf(client), "done, Done")
        assert.deepStrictEqual(yield* server.stopped, { ...none, finished: 1 })
      }))

    it.effect("one that waits for the drain of its own server is interrupted at the deadline", () =>
      Effect.gen(function*() {
        const { connect, server } = yield* serving((_, connection) => connection.server.drain(1000))
        yield* connect
        yield* turns()
        yield* TestClock.adjust(1000)
        assert.deepStrictEqual(yield* server.stopped, { ...none, aborted: 1 })
      }))
  })

  describe("signals of the process", () => {
    it.effect("another one ends a drain at once, where the program handles them", () =>
      Effect.gen(function*() {
        let heard = 0
        const listener = () => void heard++
        process.on("SIGTERM", listener)
        yield* Effect.addFinalizer(() => Effect.sync(() => process.off("SIGTERM", listener)))
        const before = [process.listenerCount("SIGTERM"), process.listenerCount("SIGINT")]
        const serve = yield* start(Effect.scoped(Effect.gen(function*() {
          const { connect, server } = yield* serving(() => Effect.never, { shutdown: { deadline: "1 hour" } })
          yield* connect
          yield* turns()
          return server
        })))
        yield* turns()
        yield* turns()
        assert.isUndefined(serve.pollUnsafe())
        // Nobody else handles SIGINT here: it would still end the process.
        assert.deepStrictEqual(
          [process.listenerCount("SIGTERM"), process.listenerCount("SIGINT")],
          [(before[0] ?? 0) + 1, before[1]]
        )
        process.emit("SIGTERM")
        const server = yield* Fiber.join(serve)
        assert.deepStrictEqual(yield* server.stopped, { ...none, aborted: 1 })
        assert.strictEqual(heard, 1)
        assert.deepStrictEqual([process.listenerCount("SIGTERM"), process.listenerCount("SIGINT")], before)
      }).pipe(Effect.provide(MemoryTransport.layer)))
  })
})
