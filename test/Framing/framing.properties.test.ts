/**
 * Any messages, any framing, any chunking of the bytes, any moment of an interruption: received = sent. Any bytes at
 * all: a decoder ends, keeps to its limit, and says what is wrong in its type.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import fc from "fast-check"
import * as Buffers from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Framing from "../../src/Framing.ts"
import { Socket } from "../../src/internal/core/Socket.ts"
import * as Read from "../../src/Read.ts"
import { isSocketError } from "../../src/SocketError.ts"
import { make, type ReadStream, type StreamSocket } from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import { ending, transferOf } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { seed, seeded, some } from "../support/properties.ts"
import { start } from "../support/waiting.ts"

const { block, data, end } = ScriptedStream

/** Small, so that limits are met. */
const max = 1000

interface Codec {
  readonly name: string
  readonly framing: Framing.Framing<never, unknown, Framing.ContentError>
  readonly message: fc.Arbitrary<unknown>
}

const codec = <A>(
  name: string,
  framing: Framing.Framing<A, A, Framing.ContentError>,
  message: fc.Arbitrary<A>
): Codec => ({ name, framing, message })

/** Bytes that may be sent. Those that framings give a meaning to are frequent. */
const payload = (framing: Framing.ByteFraming): fc.Arbitrary<Uint8Array> =>
  fc.oneof(
    fc.uint8Array({ maxLength: 40 }),
    fc.array(fc.constantFrom(0, 1, 10, 13, 44, 48, 58, 97, 124, 128, 255), { maxLength: 12 }).map((all) =>
      Uint8Array.from(all)
    ),
    fc.uint8Array({ minLength: 120, maxLength: 300 })
  ).filter((bytes) => Result.isSuccess(framing.enclose(bytes, bytes.byteLength)))

const ofBytes = (name: string, framing: Framing.ByteFraming, message = payload(framing)): Codec => ({
  name,
  framing,
  message
})

const digit = Framing.make({
  max: 12,
  find: (bytes) => {
    if (bytes.byteLength === 0) return undefined
    const length = bytes[0]! - 48
    if (length < 0 || length > 9) return `${bytes[0]} is not a digit`
    return bytes.byteLength < 1 + length ? undefined : { start: 1, end: 1 + length, size: 1 + length }
  },
  enclose: (bytes, length) => [Buffers.utf8(String(length)), ...(ArrayBuffer.isView(bytes) ? [bytes] : bytes)]
})

const prefixed = Framing.lengthPrefixed

const Point = Schema.Struct({
  x: Schema.Int,
  name: Schema.String,
  tags: Schema.Array(Schema.String),
  at: Schema.NullOr(Schema.Boolean)
})

const point = fc.record({
  x: fc.integer(),
  name: fc.string({ unit: "grapheme", maxLength: 20 }),
  tags: fc.array(fc.string({ maxLength: 5 }), { maxLength: 4 }),
  at: fc.option(fc.boolean())
})

const json = fc.jsonValue({ maxDepth: 2 }).map((value): Schema.Json => JSON.parse(JSON.stringify(value)))

const codecs: ReadonlyArray<Codec> = [
  ofBytes("lengthPrefixed, 1 byte", prefixed({ width: 1, max: 255 }), fc.uint8Array({ maxLength: 255 })),
  ofBytes(
    "lengthPrefixed, 1 byte, counted",
    prefixed({ width: 1, includesHeader: true }),
    fc.uint8Array({ maxLength: 254 })
  ),
  ofBytes("lengthPrefixed, 2 bytes, little", prefixed({ width: 2, endian: "little", max })),
  ofBytes("lengthPrefixed, 4 bytes", prefixed({ max })),
  ofBytes("lengthPrefixed, 4 bytes, little, counted", prefixed({ endian: "little", includesHeader: true, max })),
  ofBytes("lengthPrefixed, 8 bytes", prefixed({ width: 8, max })),
  ofBytes("lengthPrefixed, varint", prefixed({ width: "varint", max })),
  ofBytes("delimited by one byte", Framing.delimited("|", { max })),
  ofBytes("delimited by two", Framing.delimited("||", { max })),
  ofBytes("delimited by what overlaps itself", Framing.delimited(Uint8Array.of(0, 1, 0), { max })),
  ofBytes("lines, LF", Framing.lines({ max })),
  ofBytes("lines, CRLF", Framing.lines({ ending: "\r\n", max })),
  ofBytes("fixed, 1 byte", Framing.fixed(1), fc.uint8Array({ minLength: 1, maxLength: 1 })),
  ofBytes("fixed, 7 bytes", Framing.fixed(7), fc.uint8Array({ minLength: 7, maxLength: 7 })),
  ofBytes("netstring", Framing.netstring({ max })),
  ofBytes("one of the caller's own", digit, fc.uint8Array({ maxLength: 9 })),
  codec("text in netstrings", Framing.text(Framing.netstring({ max })), fc.string({ unit: "binary", maxLength: 60 })),
  codec("ndjson", Framing.json(Framing.lines({ max: 100_000 })), json),
  codec("a schema as ndjson", Framing.schema(Framing.lines({ max: 100_000 }), Point), point),
  // Effect has no encoder for msgpack; this is its compact binary encoding.
  codec("a schema in binary", Framing.schemaBinary(prefixed({ width: "varint", max: 100_000 }), Point), point),
  codec(
    "map",
    Framing.map(Framing.text(prefixed({ width: 2, max })), { encode: String, decode: Number }),
    fc.integer()
  )
]

const frameOf = ({ framing }: Codec, message: unknown): Uint8Array => {
  const content = Result.getOrThrow(framing.encode(message as never))
  return Buffers.concat(Result.getOrThrow(framing.enclose(content, Buffers.byteLength(content))))
}

const send = (stream: StreamSocket, { framing }: Codec, message: unknown) =>
  Framing.send(stream, framing, message as never)

const kinds: ReadonlyArray<readonly [string, (socket: StreamSocket) => ReadStream]> = [
  ["a socket", (socket) => socket],
  ["a plain stream", ({ readSome }) => ({ readSome })]
]

const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>): Promise<A> => Effect.runPromise(Effect.scoped(effect))

/** Sizes of the pieces in which the bytes come, used over and over; a wait comes before those marked. */
const pieces = fc.oneof(
  { weight: 1, arbitrary: fc.constant([{ size: 1, waits: true }]) },
  {
    weight: 4,
    arbitrary: fc.array(
      fc.record({
        size: fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 200 })),
        waits: fc.boolean()
      }),
      { minLength: 1, maxLength: 10 }
    )
  }
)

const stepsOf = (
  wire: Uint8Array,
  pieces: ReadonlyArray<{ readonly size: number; readonly waits: boolean }>
): ReadonlyArray<ScriptedStream.ReadStep> => {
  const steps: Array<ScriptedStream.ReadStep> = []
  for (let at = 0, i = 0; at < wire.byteLength; i++) {
    const { size, waits } = pieces[i % pieces.length]!
    if (waits) steps.push(block)
    steps.push(data(wire.subarray(at, at + size)))
    at += size
  }
  return [...steps, block, end]
}

/** What a fiber ends with; at each wait it is interrupted or gets more, as `cuts` says. */
const driven = <A, E>(
  effect: Effect.Effect<A, E>,
  readable: Effect.Effect<void>,
  cuts: () => boolean
): Effect.Effect<Exit.Exit<A, E>> =>
  Effect.gen(function*() {
    const fiber = yield* start(effect)
    // A function of the caller's own is asked a moment later.
    yield* Effect.yieldNow
    while (fiber.pollUnsafe() === undefined) {
      if (cuts()) yield* Fiber.interrupt(fiber)
      yield* readable
      yield* Effect.yieldNow
    }
    return yield* Fiber.await(fiber)
  })

const cycle = (values: ReadonlyArray<boolean>): () => boolean => {
  let turn = 0
  return () => values[turn++ % values.length]!
}

const moments = fc.array(fc.boolean(), { minLength: 1, maxLength: 8 })

describe("Framing, any", () => {
  for (const one of codecs) {
    const messages = fc.array(one.message, { maxLength: 8 })

    for (const [kind, streamOf] of kinds) {
      it(`${one.name}, ${kind}: received = sent, however the bytes come and whenever a receive is interrupted`, () =>
        fc.assert(
          fc.asyncProperty(messages, pieces, moments, (messages, pieces, cuts) =>
            run(Effect.gen(function*() {
              const wire = Buffers.concat(messages.map((message) => frameOf(one, message)))
              const { readable, socket } = yield* ScriptedStream.make({ reads: stepsOf(wire, pieces) })
              const stream = streamOf(socket)
              const received: Array<unknown> = []
              const next = cycle(cuts)
              for (;;) {
                const exit = yield* driven(Framing.receive(stream, one.framing), readable, next)
                if (Exit.isSuccess(exit)) received.push(exit.value)
                else if (ending(exit) !== "Interrupt") {
                  assert.strictEqual(ending(exit), "Done")
                  break
                }
              }
              assert.deepStrictEqual(received, messages)
            }))),
          seeded({ numRuns: 30 })
        ))
    }

    it(`${one.name}: received = sent as a stream that is run again after each interruption`, () =>
      fc.assert(
        fc.asyncProperty(messages, pieces, moments, (messages, pieces, cuts) =>
          run(Effect.gen(function*() {
            const wire = Buffers.concat(messages.map((message) => frameOf(one, message)))
            const { readable, socket } = yield* ScriptedStream.make({ reads: stepsOf(wire, pieces) })
            const received: Array<unknown> = []
            const drain = Stream.runForEach(
              Framing.stream(socket, one.framing),
              (message) => Effect.sync(() => void received.push(message))
            )
            const next = cycle(cuts)
            let exit = yield* driven(drain, readable, next)
            while (ending(exit) === "Interrupt") exit = yield* driven(drain, readable, next)
            assert.strictEqual(ending(exit), "Success")
            assert.deepStrictEqual(received, messages)
          }))),
        seeded({ numRuns: 20 })
      ))

    it(`${one.name}: received = sent over a slow connection, whenever a send or a receive is interrupted`, () =>
      fc.assert(
        fc.asyncProperty(
          messages,
          fc.record({
            capacity: fc.integer({ min: 1, max: 80 }),
            chunk: fc.integer({ min: 1, max: 40 }),
            seed: fc.nat()
          }),
          fc.array(fc.nat(6), { minLength: 1, maxLength: 6 }),
          fc.constantFrom("partial", "total"),
          (messages, network, patience, policy) =>
            run(Effect.gen(function*() {
              const [left, right] = yield* MemoryTransport.pair(network)
              let turn = 0
              /** Interrupts an effect after a while; later when it was to no avail. */
              const impatient = <A, E>(effect: Effect.Effect<A, E>, attempt: number): Effect.Effect<Exit.Exit<A, E>> =>
                Effect.gen(function*() {
                  const fiber = yield* start(effect)
                  const turns = patience[turn++ % patience.length]! + attempt
                  for (let i = 0; i < turns; i++) yield* Effect.yieldNow
                  yield* Fiber.interrupt(fiber)
                  return yield* Fiber.await(fiber)
                })
              const under = policy === "partial" ? Cancellation.partial : Cancellation.total()
              const sending = Effect.gen(function*() {
                for (const message of messages) {
                  for (let attempt = 0;; attempt++) {
                    const exit = yield* impatient(under(send(left, one, message)), attempt)
                    if (Exit.isSuccess(exit)) break
                    const { guarantee, total, transferred } = transferOf(exit)
                    assert.strictEqual(guarantee, "total")
                    // All or nothing.
                    if (transferred > 0) {
                      assert.strictEqual(transferred, total)
                      break
                    }
                  }
                }
                yield* left.shutdownWrite
              })
              const sender = yield* start(sending)
              const received: Array<unknown> = []
              for (let attempt = 0;; attempt++) {
                const exit = yield* impatient(Framing.receive(right, one.framing), attempt)
                if (Exit.isSuccess(exit)) {
                  received.push(exit.value)
                  attempt = 0
                } else if (ending(exit) !== "Interrupt") {
                  assert.strictEqual(ending(exit), "Done")
                  break
                }
              }
              yield* Fiber.join(sender)
              assert.deepStrictEqual(received, messages)
            }))
        ),
        seeded({ numRuns: 20 })
      ))

    it(`${one.name}: a send that is torn leaves the messages before it, and no more`, () =>
      fc.assert(
        fc.asyncProperty(
          fc.array(one.message, { minLength: 1, maxLength: 5 }),
          fc.nat(600),
          (messages, room) =>
            run(Effect.gen(function*() {
              const [left, right] = yield* MemoryTransport.pair({ capacity: room + 1 })
              const frames = messages.map((message) => frameOf(one, message).byteLength)
              const fiber = yield* start(Effect.forEach(messages, (message) => send(left, one, message)))
              yield* Fiber.interrupt(fiber)
              const exit = yield* Fiber.await(fiber)
              const whole = frames.findIndex((_, i) =>
                frames.slice(0, i + 1).reduce((sum, size) => sum + size, 0) > left.bytesWritten
              )
              const complete = whole === -1 ? messages : messages.slice(0, whole)
              const isCut = left.bytesWritten > frames.slice(0, complete.length).reduce((sum, size) => sum + size, 0)
              assert.strictEqual(left.state.write, isCut ? "torn" : "open")
              if (isCut) assert.strictEqual(transferOf(exit).guarantee, "terminal")
              yield* left.close
              const received: Array<unknown> = []
              const end = yield* Effect.exit(
                Effect.forever(
                  Effect.map(Framing.receive(right, one.framing), (message) => void received.push(message))
                )
              )
              assert.strictEqual(ending(end), isCut ? "ConnectionReset" : "Done")
              assert.deepStrictEqual(received, complete)
            }))
        ),
        seeded({ numRuns: 20 })
      ))

    it(`${one.name}: every truncation of a valid stream ends with what is whole, and says how it ended`, () =>
      fc.assert(
        fc.asyncProperty(
          fc.array(one.message, { minLength: 1, maxLength: 3 }),
          (messages) =>
            run(Effect.gen(function*() {
              const frames = messages.map((message) => frameOf(one, message))
              const wire = Buffers.concat(frames)
              const ends: Array<number> = []
              for (const frame of frames) ends.push((ends.at(-1) ?? 0) + frame.byteLength)
              for (let cut = 0; cut <= wire.byteLength; cut += cut < 64 ? 1 : 17) {
                const { socket } = source(wire.subarray(0, cut), [7])
                const exits = yield* feed(one, socket, cut)
                const whole = ends.filter((at) => at <= cut)
                assert.deepStrictEqual(
                  exits.slice(0, -1).map((exit) => Exit.isSuccess(exit) ? exit.value : exit),
                  messages.slice(0, whole.length)
                )
                const rest = cut - (whole.at(-1) ?? 0)
                assert.strictEqual(ending(exits.at(-1)!), rest === 0 ? "Done" : "UnexpectedEof")
                assert.strictEqual((yield* Read.readAll(socket)).byteLength, rest)
              }
            }))
        ),
        seeded({ numRuns: 8 })
      ))

    it(`${one.name}: a valid stream with a byte that is wrong ends, with an error that has a type`, () =>
      fc.assert(
        fc.asyncProperty(messages, fc.nat(), fc.integer({ min: 1, max: 255 }), (messages, place, by) =>
          run(Effect.gen(function*() {
            const wire = Buffers.concat(messages.map((message) =>
              frameOf(one, message)
            ))
            if (wire.byteLength > 0) {
              wire[place % wire.byteLength]! ^= by
            }
            const { socket } = source(wire, [1, 5, 100])
            for (const exit of yield* feed(one, socket, wire.byteLength)) {
              typed(exit)
            }
          }))),
        seeded({ numRuns: 30 })
      ))

    for (const [kind, streamOf] of kinds) {
      // The decoder is the same for both; the plain stream gets a part of it.
      const part = kind === "a socket" ? 1 : 0.1
      it(`${one.name}, ${kind}: ${some(1_000_000 * part)} random bytes neither hang it nor take it over its limit`, () =>
        Effect.runPromise(Effect.gen(function*() {
          const random = MemoryTransport.random(seed)
          // Any bytes, and then such as make a header now and then.
          for (
            const [count, byte] of [
              [some(900_000 * part), () => Math.floor(random() * 256)],
              [some(100_000 * part), () => frequent[Math.floor(random() * frequent.length)]!]
            ] as const
          ) {
            const { socket, stream } = source(
              Uint8Array.from({ length: count }, byte),
              [16_384, 1000, 1, 300],
              streamOf
            )
            // One at a time and many at a time, in turn.
            const receives = [
              Effect.exit(Framing.receive(stream, one.framing)),
              Effect.exit(Stream.runDrain(Framing.stream(stream, one.framing)))
            ]
            // A message, its header, what is skipped, and what comes behind them; twice, because memory grows by doubling.
            const bound = 2 * (one.framing.max + 16 + 200 + 16_384)
            let isOver = false
            for (let looks = 0; !isOver; looks++) {
              assert.isAtMost(looks, count + 1, `SEED=${seed}: it goes round in circles`)
              const exit = yield* receives[looks % 2]!
              typed(exit)
              if (socket instanceof Socket && kind === "a socket") {
                assert.isAtMost(socket.readHalf.readBuffer().bytes().buffer.byteLength, bound, `SEED=${seed}`)
              }
              isOver = socket.state.read === "ended" &&
                (looks % 2 === 1 && Exit.isSuccess(exit) || ["Done", "UnexpectedEof"].includes(ending(exit)))
              // Framing that is bad stays bad: somebody has to skip it.
              if (!isOver && isSocketError(errorOf(exit))) {
                isOver = Exit.isFailure(yield* Effect.exit(Read.discard(stream, 1 + Math.floor(random() * 200))))
              }
            }
            assert.strictEqual(socket.bytesRead, count)
          }
        })))
    }
  }
})

// ---- internal

const frequent = [0, 0, 0, 1, 2, 3, 5, 8, 10, 13, 34, 44, 48, 49, 50, 53, 57, 58, 91, 93, 97, 123, 124, 125, 128, 255]

/** A stream that has all of its bytes at once, and gives them in pieces of these sizes. */
const source = (
  wire: Uint8Array,
  sizes: ReadonlyArray<number>,
  streamOf: (socket: StreamSocket) => ReadStream = (socket) => socket
) => {
  const backing = new FakeBacking()
  let at = 0
  let turn = 0
  backing.readAnswer = (target) => {
    const size = Math.min(sizes[turn++ % sizes.length]!, target.byteLength, wire.byteLength - at)
    target.set(wire.subarray(at, at + size))
    at += size
    return size
  }
  const socket = make(backing)
  return { socket, stream: streamOf(socket) }
}

/** Receives until there is nothing more to be received, from a stream that has so many bytes. */
const feed = ({ framing }: Codec, stream: ReadStream, count: number) =>
  Effect.gen(function*() {
    const exits: Array<Exit.Exit<unknown, unknown>> = []
    for (;;) {
      const exit = yield* Effect.exit(Framing.receive(stream, framing))
      exits.push(exit)
      // Each takes a byte at least, but for the last.
      assert.isAtMost(exits.length, count + 1, "it goes round in circles")
      if (isSocketError(errorOf(exit)) || ending(exit) === "Done") return exits
    }
  })

const errorOf = (exit: Exit.Exit<unknown, unknown>): unknown =>
  Exit.isFailure(exit) && exit.cause.reasons.length === 1 && Cause.isFailReason(exit.cause.reasons[0]!)
    ? exit.cause.reasons[0].error
    : undefined

const typed = (exit: Exit.Exit<unknown, unknown>): void => {
  if (Exit.isSuccess(exit)) return
  const error = errorOf(exit)
  if (Cause.isDone(error) || error instanceof Framing.ContentError) return
  if (isSocketError(error) && ["Framing", "LimitExceeded", "UnexpectedEof"].includes(error.reason._tag)) return
  assert.fail(`SEED=${seed}: an error without a type: ${Cause.pretty(exit.cause)}`)
}
