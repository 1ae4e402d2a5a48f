import { assert, describe, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Acceptor from "../../src/Acceptor.ts"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Metrics from "../../src/Metrics.ts"
import * as Read from "../../src/Read.ts"
import { Reason } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import { Transport } from "../../src/Transport.ts"
import * as Write from "../../src/Write.ts"
import { ending } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { start } from "../support/waiting.ts"

const { block, data, make: scripted, take } = ScriptedStream
const hello = Buffers.utf8("hello")
const target = () => new Uint8Array(5)

/** A registry of the test's own. */
const withRegistry = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => Effect.provideService(effect, Metric.MetricRegistry, new Map()))

const nothing = { completed: 0, total: 0, partial: 0, terminal: 0, torn: 0, read: 0, written: 0 }

const counts = Effect.gen(function*() {
  const count = (metric: Metric.Counter<number>) => Effect.map(Metric.value(metric), (state) => state.count)
  return {
    completed: yield* count(Metrics.operationsCompleted),
    total: yield* count(Metrics.operationsCancelled.total),
    partial: yield* count(Metrics.operationsCancelled.partial),
    terminal: yield* count(Metrics.operationsCancelled.terminal),
    torn: yield* count(Metrics.streamsTorn),
    read: yield* count(Metrics.bytesRead),
    written: yield* count(Metrics.bytesWritten)
  }
})

/** By how much each count moves while an effect runs; what is not named does not move. */
const moves = <A, E, R>(effect: Effect.Effect<A, E, R>, expected: Partial<typeof nothing>) =>
  withRegistry(Effect.provide(
    Effect.gen(function*() {
      const before = yield* counts
      yield* effect
      const after = yield* counts
      const moved = { ...nothing }
      for (const name of Object.keys(nothing) as ReadonlyArray<keyof typeof nothing>) {
        moved[name] = after[name] - before[name]
      }
      assert.deepStrictEqual(moved, { ...nothing, ...expected })
    }),
    Metrics.layer
  ))

describe("Metrics.layer", () => {
  const series = Effect.map(
    Metric.snapshot,
    (snapshots) => snapshots.map(({ attributes = {}, id }) => [id, ...Object.values(attributes)].join(" "))
  )

  const all = [
    "effect_asio_bytes_read bytes",
    "effect_asio_bytes_written bytes",
    "effect_asio_operations_cancelled partial",
    "effect_asio_operations_cancelled terminal",
    "effect_asio_operations_cancelled total",
    "effect_asio_operations_completed",
    "effect_asio_server_accept_failures",
    "effect_asio_server_accepted",
    "effect_asio_server_connections",
    "effect_asio_server_drained aborted",
    "effect_asio_server_drained finished",
    "effect_asio_server_drained partial",
    "effect_asio_server_drained terminal",
    "effect_asio_server_drained total",
    "effect_asio_server_failures",
    "effect_asio_server_handshake_failures Gone",
    "effect_asio_server_handshake_failures Malformed",
    "effect_asio_server_handshake_failures Tls",
    "effect_asio_server_handshake_failures Untrusted",
    "effect_asio_server_limited AcceptRate",
    "effect_asio_server_limited BytesInFlight",
    "effect_asio_server_limited Connections",
    "effect_asio_server_limited FirstByte",
    "effect_asio_server_limited Handshake",
    "effect_asio_server_limited Idle",
    "effect_asio_server_limited PerPeer",
    "effect_asio_server_limited Progress",
    "effect_asio_server_pauses AcceptRate",
    "effect_asio_server_pauses BytesInFlight",
    "effect_asio_server_pauses Connections",
    "effect_asio_servers draining",
    "effect_asio_servers listening",
    "effect_asio_servers paused",
    "effect_asio_servers stopped",
    "effect_asio_streams_torn"
  ]
  const gauges = new Set(["effect_asio_server_connections", "effect_asio_servers"])

  it.effect("shows every count to the registry, and removes them when it is released", () =>
    withRegistry(Effect.gen(function*() {
      assert.deepStrictEqual(yield* series, [])
      const scope = yield* Scope.make()
      yield* Layer.buildWithScope(Metrics.layer, scope)
      assert.deepStrictEqual((yield* series).toSorted(), all)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* series, [])
    })))

  it.effect("twice in one registry shows them until the last is released", () =>
    withRegistry(Effect.gen(function*() {
      const scopes = [yield* Scope.make(), yield* Scope.make()] as const
      for (const scope of scopes) yield* Layer.buildWithScope(Layer.fresh(Metrics.layer), scope)
      yield* Scope.close(scopes[1], Exit.void)
      assert.deepStrictEqual((yield* series).toSorted(), all)
      yield* Scope.close(scopes[0], Exit.void)
      assert.deepStrictEqual(yield* series, [])
    })))

  it.effect("shows them as counters that only rise, or as gauges where they are a state, with a description", () =>
    withRegistry(Effect.provide(
      Effect.gen(function*() {
        for (const snapshot of yield* Metric.snapshot) {
          assert.strictEqual(snapshot.type, gauges.has(snapshot.id) ? "Gauge" : "Counter")
          if (snapshot.type === "Counter") assert.isTrue(snapshot.state.incremental)
          assert.isAbove(snapshot.description?.length ?? 0, 10)
        }
      }),
      Metrics.layer
    )))

  it.effect("shows the one count of the process to each registry", () =>
    Effect.gen(function*() {
      const { socket } = yield* scripted({ writes: [take(5)] })
      const first = Context.make(Metric.MetricRegistry, new Map())
      const second = Context.make(Metric.MetricRegistry, new Map())
      const written = (registry: Context.Context<never>) =>
        Effect.map(
          Effect.provideContext(Effect.provide(Metric.value(Metrics.bytesWritten), Metrics.layer), registry),
          (state) => state.count
        )
      const before = yield* written(first)
      yield* Write.writeAll(socket, hello)
      assert.deepStrictEqual([yield* written(first), yield* written(second)], [before + 5, before + 5])
    }))

  it.effect("without it nothing is shown, and what a program adds goes nowhere", () =>
    withRegistry(Effect.gen(function*() {
      const { socket } = yield* scripted({ writes: [take(5)] })
      yield* Write.writeAll(socket, hello)
      assert.strictEqual((yield* Metric.value(Metrics.bytesWritten)).count, 0)
    })))

  it.effect("the counts are not the program's to change", () => moves(Metric.update(Metrics.bytesWritten, 1000), {}))
})

describe("the counts", () => {
  it.effect("of operations that complete at once", () =>
    Effect.gen(function*() {
      const { socket } = yield* scripted({
        reads: [data("hello"), data("hello\n"), data("abc"), ScriptedStream.end],
        writes: [take(3), take(5)]
      })
      yield* moves(socket.writeSome(hello), { completed: 1, written: 3 })
      yield* moves(Write.writeAll(socket, hello), { completed: 1, written: 5 })
      yield* moves(socket.readSome(target()), { completed: 1, read: 5 })
      yield* moves(Read.readUntil(socket, "\n"), { completed: 1, read: 6 })
      yield* moves(Read.readAll(socket), { completed: 1, read: 3 })
      yield* moves(socket.shutdownWrite, { completed: 1 })
    }))

  it.effect("of operations that wait first: each is one, whatever it is composed of", () =>
    Effect.gen(function*() {
      const { readable, socket, writable } = yield* scripted({
        reads: [block, data("he"), block, data("llo")],
        writes: [take(1), block, take(2), block, take(2)]
      })
      yield* moves(
        Effect.gen(function*() {
          const write = yield* start(Write.writeAll(socket, hello))
          const read = yield* start(Read.readExactly(socket, target()))
          for (const ready of [readable, writable, readable, writable]) yield* ready
          yield* Fiber.join(write)
          yield* Fiber.join(read)
        }),
        { completed: 2, read: 5, written: 5 }
      )
    }))

  it.effect("of a write that fits at once behind a condition, and of one in parts without waiting", () =>
    Effect.gen(function*() {
      const { socket } = yield* scripted({ writes: [take(2), take(2), take(1), take(4)] })
      yield* moves(Write.writeAll(socket, hello), { completed: 1, written: 5 })
      const counting = yield* start(Write.writeAll(socket, hello, (transferred) => 4 - transferred))
      yield* moves(Fiber.join(counting), { completed: 1, written: 4 })
    }))

  it.effect("of connections: connect and accept count, one each", () =>
    Effect.gen(function*() {
      const acceptor = yield* Acceptor.listen("localhost:0")
      yield* moves(
        Effect.gen(function*() {
          const accepting = yield* start(acceptor.accept)
          yield* StreamSocket.connect(acceptor.address)
          yield* Fiber.join(accepting)
        }),
        { completed: 2 }
      )
    }).pipe(Effect.provide(MemoryTransport.layer)))

  it.effect("of operations that fail: none, and no end of stream either", () =>
    Effect.gen(function*() {
      const { socket } = yield* scripted({
        reads: [ScriptedStream.end],
        writes: [take(3), ScriptedStream.fail(Reason.ConnectionReset())]
      })
      yield* moves(Effect.exit(Write.writeAll(socket, hello)), { written: 3 })
      yield* moves(Effect.exit(socket.readSome(target())), {})
      yield* moves(Effect.andThen(socket.close, Effect.exit(socket.writeSome(hello))), {})
    }))

  type Way = (
    effect: Effect.Effect<unknown, unknown>,
    type: Cancellation.Type
  ) => Effect.Effect<Exit.Exit<unknown, unknown>>

  const ways: Readonly<Record<"interruption" | "request" | "deadline", Way>> = {
    interruption: (effect, type) =>
      Effect.gen(function*() {
        const policy = { terminal: Cancellation.terminal, partial: Cancellation.partial, total: Cancellation.total() }
        const fiber = yield* start(policy[type](effect))
        yield* Fiber.interrupt(fiber)
        return yield* Fiber.await(fiber)
      }),
    request: (effect, type) =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        // Twice in its region, and asked twice.
        const fiber = yield* start(
          effect.pipe(Cancellation.withSignal(signal), Cancellation.withSignal(Cancellation.makeSignal()))
        )
        yield* signal.emit(type)
        yield* signal.emit(type)
        return yield* Fiber.await(fiber)
      }),
    deadline: (effect, type) =>
      Effect.gen(function*() {
        const fiber = yield* start(
          effect.pipe(Cancellation.cancelAfter("1 second", type), Cancellation.cancelAfter("1 second", type))
        )
        yield* TestClock.adjust("1 second")
        return yield* Fiber.await(fiber)
      })
  }

  for (const [by, way] of Object.entries(ways)) {
    describe(`of what an ${by} cuts`.replace("an request", "a request").replace("an deadline", "a deadline"), () => {
      const cut = (effect: Effect.Effect<unknown, unknown>, type: Cancellation.Type) =>
        Effect.map(way(effect, type), (exit) => {
          assert.strictEqual(ending(exit), by === "interruption" ? "Interrupt" : "OperationAborted")
        })

      it.effect("a read is total, once", () =>
        Effect.gen(function*() {
          const { socket } = yield* scripted({ reads: [block] })
          yield* moves(cut(socket.readSome(target()), "terminal"), { total: 1 })
          yield* moves(cut(Read.readExactly(socket, target()), "terminal"), { total: 1 })
        }))

      it.effect("a write that has taken nothing is total, once", () =>
        Effect.gen(function*() {
          const { socket } = yield* scripted({ writes: [block] })
          yield* moves(cut(socket.writeSome(hello), "terminal"), { total: 1 })
          yield* moves(cut(Write.writeAll(socket, hello), "terminal"), { total: 1 })
        }))

      it.effect("a write in the middle of its bytes is partial, once, and tears nothing", () =>
        Effect.gen(function*() {
          const { socket } = yield* scripted({ writes: [take(3), block] })
          yield* moves(cut(Write.writeAll(socket, hello), "partial"), { partial: 1, written: 3 })
        }))

      it.effect("a write in the middle of its bytes is terminal, once, and its stream torn, once", () =>
        Effect.gen(function*() {
          const { socket } = yield* scripted({ writes: [take(3), block] })
          yield* moves(cut(Write.writeAll(socket, hello), "terminal"), { terminal: 1, torn: 1, written: 3 })
          yield* moves(Effect.exit(Write.writeAll(socket, hello)), {})
        }))

      it.effect("an accept and a connect are total, once", () =>
        Effect.gen(function*() {
          const acceptor = yield* Acceptor.listen("localhost:0")
          yield* moves(cut(Effect.scoped(acceptor.accept), "partial"), { total: 1 })
          const silent = Layer.succeed(Transport, {
            name: "silent",
            connect: () => Effect.never,
            listen: () => Effect.die("not here")
          })
          yield* moves(
            cut(Effect.provide(Effect.scoped(StreamSocket.connect(acceptor.address)), silent), "partial"),
            { total: 1 }
          )
        }).pipe(Effect.provide(MemoryTransport.layer)))
    })
  }

  it.effect("of operations that refuse a request: none", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const { socket, writable } = yield* scripted({ writes: [take(3), block, take(2)] })
      const fiber = yield* start(Cancellation.withSignal(Write.writeAll(socket, hello), signal))
      yield* moves(signal.emit("total"), {})
      yield* moves(Effect.andThen(writable, Fiber.join(fiber)), { completed: 1, written: 2 })
    }))

  it.effect("of a write that finishes under the total policy: once, however it ends", () =>
    Effect.gen(function*() {
      const finishing = (options: { readonly within?: number }, ...then: ReadonlyArray<ScriptedStream.WriteStep>) =>
        Effect.gen(function*() {
          const signal = Cancellation.makeSignal()
          const stream = yield* scripted({ writes: [take(3), block, ...then] })
          const fiber = yield* start(
            Write.writeAll(stream.socket, hello).pipe(Cancellation.total(options), Cancellation.withSignal(signal))
          )
          fiber.interruptUnsafe()
          return { ...stream, signal, ended: Fiber.await(fiber) }
        })
      const done = yield* finishing({}, take(2))
      // It completed; that the interruption then proceeded cuts nothing.
      yield* moves(Effect.andThen(done.writable, done.ended), { completed: 1, written: 2 })
      const asked = yield* finishing({})
      yield* moves(Effect.andThen(asked.signal.emit("partial"), asked.ended), { partial: 1 })
      const late = yield* finishing({ within: 1000 })
      yield* Effect.yieldNow
      yield* moves(Effect.andThen(TestClock.adjust(1000), late.ended), { terminal: 1, torn: 1 })
      const failed = yield* finishing({}, ScriptedStream.fail(Reason.ConnectionReset()))
      yield* moves(Effect.andThen(failed.writable, failed.ended), {})
    }))

  it.effect("of a line that a close ends: none is cancelled", () =>
    Effect.gen(function*() {
      const { socket } = yield* scripted({ reads: [block], writes: [take(3), block] })
      const fibers = [
        yield* start(socket.readSome(target())),
        yield* start(Write.writeAll(socket, hello)),
        yield* start(socket.writeSome(hello))
      ]
      yield* moves(Effect.andThen(socket.close, Fiber.awaitAll(fibers)), {})
    }))

  it.effect("leave out a close, also one that a terminal request makes an abort", () =>
    Effect.gen(function*() {
      const signal = Cancellation.makeSignal()
      const backing = new FakeBacking()
      backing.releases = ["abort"]
      const fiber = yield* start(Cancellation.withSignal(StreamSocket.make(backing).close, signal))
      yield* moves(signal.emit("total"), {})
      yield* moves(Effect.andThen(signal.emit("terminal"), Fiber.join(fiber)), {})
    }))
})
