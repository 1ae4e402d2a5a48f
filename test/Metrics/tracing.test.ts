/** Spans of composed operations: only where somebody looks, one each, with the account of the bytes. */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Read from "../../src/Read.ts"
import { Reason } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import * as Write from "../../src/Write.ts"
import { assertBytes } from "../support/bytes.ts"
import { ending, failure, transferOf } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { start } from "../support/waiting.ts"

const { block, data, make: scripted, take } = ScriptedStream
const hello = Buffers.utf8("hello")
const target = () => new Uint8Array(5)

/** A tracer that keeps every span it makes. */
const collecting = () => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return { spans, tracer, traced: Effect.provideService(Tracer.Tracer, tracer) }
}

const attributesOf = (span: Tracer.Span | undefined) => Object.fromEntries(span?.attributes ?? [])

/** What of its end a span shows: still running, or how the effect inside ended. */
const statusOf = (span: Tracer.Span | undefined): string =>
  span?.status._tag === "Ended" ? ending(span.status.exit) : "running"

const unixPeer = { "network.transport": "unix", "network.peer.address": "unix:scripted" }

describe("the end of a span", () => {
  it.effect("of a read at the end of the stream is no failure", () =>
    Effect.gen(function*() {
      const { spans, traced } = collecting()
      const { socket } = yield* scripted({ reads: [ScriptedStream.end] })
      const exit = yield* Effect.exit(traced(Read.readExactly(socket, target())))
      assert.strictEqual(ending(exit), "Done")
      assert.strictEqual(statusOf(spans[0]), "Success")
    }))

  it.effect("of a write that failed in the middle has its bytes", () =>
    Effect.gen(function*() {
      const { spans, traced } = collecting()
      const { socket } = yield* scripted({ writes: [take(2), ScriptedStream.fail(Reason.ConnectionReset())] })
      assert.strictEqual(ending(yield* Effect.exit(traced(Write.writeAll(socket, hello)))), "ConnectionReset")
      const { "effect_asio.total": total, "effect_asio.transferred": transferred } = attributesOf(spans[0])
      assert.deepStrictEqual([transferred, total], [2, 5])
    }))
})
/** The names of all spans that the native tracer makes while an effect runs. */
const nativeSpans = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const names: Array<string> = []
    // The one object that every fiber without a tracer of its own falls back to.
    const native = Tracer.nativeTracer as { span: (options: Parameters<Tracer.Tracer["span"]>[0]) => Tracer.Span }
    const { span } = native
    native.span = (options) => {
      names.push(options.name)
      return span(options)
    }
    yield* Effect.ensuring(effect, Effect.sync(() => void (native.span = span)))
    return names
  })

describe("no span is made", () => {
  const composed = Effect.gen(function*() {
    const { socket } = yield* scripted({ reads: [data("hello\n"), data("hello")], writes: [take(3), take(2)] })
    yield* Write.writeAll(socket, hello)
    yield* Read.readUntil(socket, "\n")
    yield* Read.readExactly(socket, target())
  })

  it.effect("outside of spans, with no tracer of the program's own", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* nativeSpans(composed), [])
    }))

  it.effect("(which the check would see)", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* nativeSpans(Effect.withSpan(composed, "outer")), [
        "outer",
        "effect-asio.writeAll",
        "effect-asio.readUntil",
        "effect-asio.readExactly"
      ])
    }))

  it.effect("where tracing is switched off", () =>
    Effect.gen(function*() {
      const { spans, traced } = collecting()
      yield* composed.pipe(Effect.withTracerEnabled(false), Effect.withSpan("outer"), traced)
      assert.deepStrictEqual(spans.map((span) => span.name), ["outer"])
      spans.length = 0
      yield* traced(Effect.provideService(composed, References.TracerEnabled, false))
      assert.deepStrictEqual(spans, [])
    }))

  it.effect("for operations that are not composed", () =>
    Effect.gen(function*() {
      const { spans, traced } = collecting()
      const { socket } = yield* scripted({ reads: [data("hello")], writes: [take(5)] })
      yield* traced(
        Effect.all([socket.readSome(target()), socket.writeSome(hello), socket.shutdownWrite, socket.close])
      )
      assert.deepStrictEqual(spans, [])
    }))
})

describe("one span is made", () => {
  it.effect("for each composed operation inside a span, as its child", () =>
    Effect.gen(function*() {
      const { spans, traced } = collecting()
      const { readable, socket, writable } = yield* scripted({
        reads: [data("line\n"), data("he"), block, data("llo"), data("all"), ScriptedStream.end],
        writes: [take(3), block, take(2)]
      })
      const fiber = yield* Effect.gen(function*() {
        yield* Write.writeAll(socket, hello)
        yield* Read.readUntil(socket, "\n")
        yield* Read.readExactly(socket, target())
        yield* Read.readAtLeast(socket, target(), 2)
        yield* Read.readAll(socket)
      }).pipe(Effect.withSpan("outer"), traced, start)
      yield* writable
      yield* readable
      yield* Fiber.join(fiber)
      const [outer, ...inner] = spans
      assert.deepStrictEqual(inner.map((span) => span.name), [
        "effect-asio.writeAll",
        "effect-asio.readUntil",
        "effect-asio.readExactly",
        "effect-asio.readAtLeast",
        "effect-asio.readAll"
      ])
      for (const span of inner) {
        assert.deepStrictEqual(Option.getOrUndefined(span.parent), outer)
        assert.strictEqual(statusOf(span), "Success")
      }
      assert.deepStrictEqual(inner.map((span) => span.attributes.get("effect_asio.transferred")), [5, 5, 5, 3, 0])
    }))

  it.effect("under a tracer of the program's own, also without a span around", () =>
    Effect.gen(function*() {
      const { spans, traced } = collecting()
      const { socket } = yield* scripted({ writes: [take(5)] })
      assert.strictEqual(yield* traced(Write.writeAll(socket, hello)), 5)
      assert.deepStrictEqual(spans.map((span) => [span.name, Option.isNone(span.parent)]), [
        ["effect-asio.writeAll", true]
      ])
    }))

  it.effect("each time an effect is run", () =>
    Effect.gen(function*() {
      const { spans, traced } = collecting()
      const { socket } = yield* scripted({ writes: [take(5), take(5)] })
      const write = Write.writeAll(socket, hello)
      yield* traced(Effect.andThen(write, write))
      assert.strictEqual(spans.length, 2)
    }))

  it.effect("for the whole over a stream that is not ours", () =>
    Effect.gen(function*() {
      const { spans, traced } = collecting()
      const { socket } = yield* scripted({ writes: [take(3), take(2)] })
      yield* traced(Write.writeAll({ writeSome: socket.writeSome }, hello))
      assert.deepStrictEqual(spans.map((span) => [span.name, attributesOf(span)]), [
        ["effect-asio.writeAll", { "effect_asio.transferred": 5 }]
      ])
    }))
})

describe("a span", () => {
  it.effect("names the peer", () =>
    Effect.gen(function*() {
      const { spans, traced } = collecting()
      const { socket } = yield* scripted({ writes: [take(5)] })
      yield* traced(Write.writeAll(socket, hello))
      assert.deepStrictEqual(attributesOf(spans[0]), {
        ...unixPeer,
        "network.peer.address": NetAddress.formatUnixPath(NetAddress.unixPathAddress("scripted")),
        "effect_asio.transferred": 5
      })
      const backing = new FakeBacking()
      backing.writeAnswer = (source) => source.remaining
      yield* traced(Write.writeAll(StreamSocket.make(backing), hello))
      assert.deepStrictEqual(attributesOf(spans[1]), {
        "network.transport": "tcp",
        "network.peer.address": "127.0.0.1",
        "network.peer.port": 2,
        "effect_asio.transferred": 5
      })
    }))

  it.effect("of an interrupted write has its account, and the interruption as its status", () =>
    Effect.gen(function*() {
      for (const policy of [Cancellation.terminal, Cancellation.partial]) {
        const { spans, traced } = collecting()
        const { socket, written } = yield* scripted({ writes: [take(3), block] })
        const cursor = Buffers.cursor(hello)
        const fiber = yield* start(traced(policy(Write.writeAll(socket, cursor))))
        assert.strictEqual(statusOf(spans[0]), "running")
        yield* Fiber.interrupt(fiber)
        const guarantee = policy === Cancellation.terminal ? "terminal" : "partial"
        // Exactly as without a span.
        assert.deepStrictEqual(transferOf(yield* Fiber.await(fiber)), { transferred: 3, total: 5, guarantee })
        assert.strictEqual(socket.state.write, policy === Cancellation.terminal ? "torn" : "open")
        assert.strictEqual(cursor.transferred, 3)
        assertBytes(yield* written, "hel")
        assert.strictEqual(statusOf(spans[0]), "Interrupt")
        const { "effect_asio.guarantee": told, "effect_asio.total": total, "effect_asio.transferred": transferred } =
          attributesOf(spans[0])
        assert.deepStrictEqual([told, transferred, total], [guarantee, 3, 5])
        assert.strictEqual(spans.length, 1)
      }
    }))

  it.effect("of a write that finishes under the total policy ends with the write", () =>
    Effect.gen(function*() {
      const { spans, traced } = collecting()
      const { socket, writable } = yield* scripted({ writes: [take(3), block, take(2)] })
      const fiber = yield* start(traced(Cancellation.total(Write.writeAll(socket, hello))))
      fiber.interruptUnsafe()
      yield* Effect.yieldNow
      assert.strictEqual(statusOf(spans[0]), "running")
      yield* writable
      assert.strictEqual(statusOf(spans[0]), "Interrupt")
      assert.strictEqual(spans[0]?.attributes.get("effect_asio.guarantee"), "total")
      assert.strictEqual(spans[0]?.attributes.get("effect_asio.transferred"), 5)
      assert.strictEqual(transferOf(yield* Fiber.await(fiber)).guarantee, "total")
    }))

  it.effect("of a write that a request or a deadline ended has its account, and the failure as its status", () =>
    Effect.gen(function*() {
      const { spans, traced } = collecting()
      const signal = Cancellation.makeSignal()
      const { socket } = yield* scripted({ writes: [take(3), block] })
      const fiber = yield* start(traced(Cancellation.withSignal(Write.writeAll(socket, hello), signal)))
      yield* signal.emit("partial")
      assert.strictEqual(failure(yield* Fiber.await(fiber)).transferred, 3)
      assert.strictEqual(statusOf(spans[0]), "OperationAborted")
      assert.strictEqual(spans[0]?.attributes.get("effect_asio.guarantee"), "partial")
      assert.deepStrictEqual(
        [spans[0]?.attributes.get("effect_asio.transferred"), spans[0]?.attributes.get("effect_asio.total")],
        [3, 5]
      )
    }))

  it.effect("of a read that was interrupted says that it was, and that nothing happened", () =>
    Effect.gen(function*() {
      const { spans, traced } = collecting()
      const { readable, socket } = yield* scripted({ reads: [data("he"), block, data("llo")] })
      const fiber = yield* start(traced(Read.readExactly(socket, target())))
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(statusOf(spans[0]), "Interrupt")
      assert.strictEqual(spans[0]?.attributes.get("effect_asio.guarantee"), "total")
      assert.strictEqual(spans[0]?.attributes.get("effect_asio.transferred"), 0)
      yield* readable
      const into = target()
      yield* Read.readExactly(socket, into)
      assertBytes(into, hello)
    }))

  it.effect("of an operation that fails ends with the failure", () =>
    Effect.gen(function*() {
      const { spans, traced } = collecting()
      const { socket } = yield* scripted({
        reads: [data("he"), ScriptedStream.end],
        writes: [take(3), ScriptedStream.fail(Reason.ConnectionReset())]
      })
      yield* traced(Effect.exit(Write.writeAll(socket, hello)))
      yield* traced(Effect.exit(Read.readUntil(socket, "\n")))
      yield* traced(Effect.exit(Write.writeAll(socket, hello)))
      assert.deepStrictEqual(spans.map(statusOf), ["ConnectionReset", "UnexpectedEof", "ConnectionReset"])
    }))

  it.effect("of a wrong argument ends with the defect", () =>
    Effect.gen(function*() {
      const { spans, traced } = collecting()
      const [socket] = yield* MemoryTransport.pair()
      const exit = yield* traced(Effect.exit(Write.writeAll(socket, hello, () => -1)))
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      assert.deepStrictEqual(spans.map(statusOf), ["Die"])
    }))

  it.effect("in short turns: no count is lost between a write and its span", () =>
    Effect.gen(function*() {
      const { spans, traced } = collecting()
      const [here, there] = yield* MemoryTransport.pair({ capacity: 64, chunk: 3 })
      const message = Uint8Array.from({ length: 1000 }, (_, index) => index)
      const writing = yield* start(traced(Write.writeAll(here, message)))
      const read = yield* Read.readExactly(there, new Uint8Array(1000))
      assert.deepStrictEqual([yield* Fiber.join(writing), read], [1000, 1000])
      assert.strictEqual(spans[0]?.attributes.get("effect_asio.transferred"), 1000)
    }))
})
