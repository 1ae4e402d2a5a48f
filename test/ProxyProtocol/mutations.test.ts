/**
 * Any header, in any pieces, with interruptions at any moment: received = sent, and the bytes after it are left. Any bytes at
 * all: a result of its type, never a byte too many consumed, and never more buffered than the limit.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import fc from "fast-check"
import * as Buffers from "../../src/Buffers.ts"
import * as ProxyProtocol from "../../src/ProxyProtocol.ts"
import * as Read from "../../src/Read.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import { assertBytes } from "../support/bytes.ts"
import { ending } from "../support/exits.ts"
import { seed, seeded } from "../support/properties.ts"
import { start } from "../support/waiting.ts"

const { block, data, end } = ScriptedStream

const run = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>): Promise<A> => Effect.runPromise(Effect.scoped(effect))

const port = fc.integer({ min: 0, max: 65_535 })
const ofBytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
const inet4 = fc.tuple(ofBytes(4), port).map(([bytes, port]) =>
  NetAddress.inetAddressUnsafe(NetAddress.ipv4FromBytesUnsafe(bytes), port)
)
// Zeros are frequent: text has a short form for them.
const inet6 = fc.tuple(fc.array(fc.oneof(fc.constant(0), fc.nat(255)), { minLength: 16, maxLength: 16 }), port).map(
  ([bytes, port]) => NetAddress.inetAddressUnsafe(NetAddress.ipv6FromBytesUnsafe(Uint8Array.from(bytes)), port)
)
const path = fc.oneof(
  fc.constant(""),
  fc.string({ unit: "grapheme", minLength: 1, maxLength: 30 }).filter((name) => !name.includes("\0")).chain((name) =>
    fc.constantFrom(`/${name}`, `\0${name}`)
  )
).filter((name) => Buffers.utf8(name).byteLength <= 108).map(NetAddress.unixPathAddress)

const ends = (address: fc.Arbitrary<NetAddress.SocketAddress>, transport: ProxyProtocol.Endpoints["transport"]) =>
  fc.record({ transport: fc.constant(transport), source: address, destination: address })

const text = fc.string({ unit: "binary", maxLength: 40 }).filter((value) => value.isWellFormed())
const value = fc.uint8Array({ maxLength: 40 })
const types = (known: ReadonlyArray<number>) => fc.nat(255).filter((type) => !known.includes(type))
const others = (known: ReadonlyArray<number>) =>
  fc.array(fc.record({ type: types(known), value }), { minLength: 1, maxLength: 4 })

const optional = { requiredKeys: [] }

const ssl: fc.Arbitrary<ProxyProtocol.Ssl> = fc.tuple(
  fc.record({
    secure: fc.boolean(),
    certificateOnConnection: fc.boolean(),
    certificateInSession: fc.boolean(),
    verify: fc.nat(0xffff_ffff)
  }),
  fc.record({
    version: text,
    commonName: text,
    cipher: text,
    signatureAlgorithm: text,
    keyAlgorithm: text,
    group: text,
    signatureScheme: text,
    clientCertificate: value,
    others: others([0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28])
  }, optional)
).map(([fixed, fields]) => Object.assign(fixed, fields))

const fields = fc.record({
  alpn: value.map((bytes) => Buffer.from(bytes).toString("latin1")),
  authority: text,
  uniqueId: fc.uint8Array({ maxLength: 128 }),
  ssl,
  netns: text,
  others: others([1, 2, 3, 4, 5, 0x20, 0x30])
}, optional)

const header1: fc.Arbitrary<ProxyProtocol.Header> = fc.oneof(
  fc.constant({ version: 1, command: "proxy" } as const),
  fc.oneof(ends(inet4, "stream"), ends(inet6, "stream")).map((endpoints) =>
    ({ version: 1, command: "proxy", endpoints }) as const
  )
)

const header2: fc.Arbitrary<ProxyProtocol.Header> = fc.tuple(
  fc.oneof(
    fc.constant({ command: "local" } as const),
    fc.constant({ command: "proxy" } as const),
    fc.constantFrom("stream", "datagram").chain((transport) =>
      fc.oneof(ends(inet4, transport), ends(inet6, transport), ends(path, transport))
    ).map((endpoints) => ({ command: "proxy", endpoints }) as const)
  ),
  fields
).map(([start, fields]) => Object.assign({ version: 2 } as const, start, fields))

const header = fc.oneof({ weight: 1, arbitrary: header1 }, { weight: 3, arbitrary: header2 })

/** The same, wherever the bytes of a field lie. */
const plain = (header: ProxyProtocol.Header): unknown =>
  JSON.parse(JSON.stringify(header, (_, value: unknown) => value instanceof Uint8Array ? [...value] : value))

const pieces = fc.oneof(
  fc.constant([1]),
  fc.array(fc.oneof(fc.integer({ min: 1, max: 4 }), fc.integer({ min: 1, max: 200 })), { minLength: 1, maxLength: 10 })
)

const stepsOf = (wire: Uint8Array, pieces: ReadonlyArray<number>): ReadonlyArray<ScriptedStream.ReadStep> => {
  const steps: Array<ScriptedStream.ReadStep> = []
  for (let at = 0, i = 0; at < wire.byteLength; i++) {
    const size = pieces[i % pieces.length]!
    steps.push(block, data(wire.subarray(at, at + size)))
    at += size
  }
  return [...steps, block, end]
}

/** The result of a receive. At each wait more bytes arrive; if `cuts` says so, it is interrupted before that. */
const received = (
  receive: Effect.Effect<ProxyProtocol.Header, unknown>,
  readable: Effect.Effect<void>,
  cuts: ReadonlyArray<boolean>
): Effect.Effect<Exit.Exit<ProxyProtocol.Header, unknown>> =>
  Effect.gen(function*() {
    for (let turn = 0;; turn++) {
      const fiber = yield* start(receive)
      if (fiber.pollUnsafe() === undefined) {
        if (cuts[turn % cuts.length]) yield* Fiber.interrupt(fiber)
        yield* readable
      }
      const exit = fiber.pollUnsafe() ?? (yield* Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber)))
      if (ending(exit) !== "Interrupt") return exit
    }
  })

const cuts = fc.array(fc.boolean(), { minLength: 1, maxLength: 6 })

const trusted = ProxyProtocol.trustAnyone

const restOf = (socket: Parameters<typeof Read.readAll>[0], readable: Effect.Effect<void>) =>
  Effect.gen(function*() {
    const fiber = yield* start(Read.readAll(socket))
    while (fiber.pollUnsafe() === undefined) {
      yield* readable
      yield* Effect.yieldNow
    }
    return yield* Fiber.join(fiber)
  })

/** Where the first header ends by its own length, found without the code under test. */
const sizeOf = (wire: Uint8Array): number => wire[0] === 0x50 ? wire.indexOf(10) + 1 : 16 + wire[14]! * 256 + wire[15]!

type Change = (bytes: Array<number>) => void

/** Bytes changed, left out, put in or swapped; lengths and types are favourite places. */
const changes: fc.Arbitrary<ReadonlyArray<Change>> = fc.array(
  fc.tuple(
    fc.oneof(fc.nat(30), fc.nat(400)),
    fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 10, 13, 32, 48, 255)),
    fc.constantFrom("set", "flip", "remove", "insert", "cut")
  ).map(([at, byte, kind]): Change => (bytes) => {
    if (at >= bytes.length) return
    if (kind === "set") bytes[at] = byte
    else if (kind === "flip") bytes[at] = bytes[at]! ^ (1 << byte % 8)
    else if (kind === "remove") bytes.splice(at, 1)
    else if (kind === "insert") bytes.splice(at, 0, byte)
    else bytes.length = at
  }),
  { minLength: 1, maxLength: 4 }
)

describe("ProxyProtocol, any", () => {
  it("header: received = sent, in any pieces, with interruptions at any moment, and the rest is left", () =>
    fc.assert(
      fc.asyncProperty(header, fc.boolean(), value, pieces, cuts, (header, checksum, rest, pieces, cuts) =>
        run(Effect.gen(function*() {
          const bytes = ProxyProtocol.encode(header, { checksum })
          assert.strictEqual(sizeOf(bytes), bytes.byteLength)
          const wire = Buffers.concat([bytes, rest])
          const { readable, socket } = yield* ScriptedStream.make({ reads: stepsOf(wire, pieces) })
          const exit = yield* received(ProxyProtocol.receive(socket, { trusted }), readable, cuts)
          assert.strictEqual(ending(exit), "Success")
          if (Exit.isSuccess(exit)) {
            assert.deepStrictEqual(plain(exit.value), plain(header))
          }
          assertBytes(yield* restOf(socket, readable), rest)
        }))),
      seeded({ numRuns: 300 })
    ))

  it("header: arrives over a slow connection, sent and received at once", () =>
    fc.assert(
      fc.asyncProperty(
        header,
        fc.record({
          capacity: fc.integer({ min: 1, max: 80 }),
          chunk: fc.integer({ min: 1, max: 40 }),
          seed: fc.nat()
        }),
        (header, network) =>
          run(Effect.gen(function*() {
            const [left, right] = yield* MemoryTransport.pair(network)
            const sender = yield* start(Effect.andThen(ProxyProtocol.send(left, header), left.shutdownWrite))
            assert.deepStrictEqual(plain(yield* ProxyProtocol.receive(right, { trusted })), plain(header))
            yield* Fiber.join(sender)
            assertBytes(yield* Read.readAll(right), "")
          }))
      ),
      seeded({ numRuns: 100 })
    ))

  it("header with a checksum: not one changed bit behind the fixed part gets through", () =>
    fc.assert(
      fc.asyncProperty(header2, fc.nat(), (header, at) =>
        run(Effect.gen(function*() {
          const bytes = ProxyProtocol.encode(header, { checksum: true })
          const bit = 16 * 8 + at % ((bytes.byteLength - 16) * 8)
          // If its type is changed, there is no checksum.
          fc.pre(bit >> 3 !== 16 + [0, 12, 36, 216][bytes[13]! >> 4]!)
          bytes[bit >> 3]! ^= 1 << (bit & 7)
          const { socket } = yield* ScriptedStream.make({ reads: [data(bytes)] })
          const exit = yield* Effect.exit(ProxyProtocol.receive(socket, { trusted }))
          // What is in the block of LOCAL is never an error; here nothing of it is believed.
          if (header.command === "local" && Exit.isSuccess(exit)) {
            assert.deepStrictEqual(exit.value, { version: 2, command: "local" })
          } else assert.strictEqual(ending(exit), "Framing")
          yield* socket.abort
        }))),
      seeded({ numRuns: 200 })
    ))

  for (const required of [true, false]) {
    it(`mutated header, ${required ? "required" : "optional"}: an answer in its type, and never a byte too much`, () => {
      const outcomes = new Map<string, number>()
      return fc.assert(
        fc.asyncProperty(
          header,
          fc.boolean(),
          changes,
          value,
          pieces,
          (header, checksum, changes, rest, pieces) =>
            run(Effect.gen(function*() {
              const bytes = [...ProxyProtocol.encode(header, { checksum })]
              for (const change of changes) change(bytes)
              const wire = Uint8Array.from([...bytes, ...rest])
              const { readable, socket } = yield* ScriptedStream.make({ reads: stepsOf(wire, pieces) })
              const fiber = yield* start(
                Effect.exit(ProxyProtocol.receiveOption(socket, { trusted, required, max: 600 }))
              )
              while (fiber.pollUnsafe() === undefined) {
                yield* readable
                yield* Effect.yieldNow
              }
              const exit = yield* Fiber.join(fiber)
              const outcome = Exit.isSuccess(exit) ? exit.value._tag : ending(exit)
              outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1)
              assert.include(["Some", "None", "Done", "Framing", "LimitExceeded", "UnexpectedEof"], outcome)
              if (required) assert.notStrictEqual(outcome, "None")
              const size = Exit.isSuccess(exit) && Option.isSome(exit.value) ? sizeOf(wire) : 0
              assertBytes(yield* restOf(socket, readable), wire.subarray(size))
            }))
        ),
        seeded({ numRuns: 500 })
      ).then(() => {
        // All kinds of results have occurred; otherwise this shows nothing.
        for (const outcome of ["Some", "Framing", "LimitExceeded", "UnexpectedEof"]) {
          assert.isAbove(
            outcomes.get(outcome) ?? 0,
            0,
            `${outcome}, of ${JSON.stringify([...outcomes])} (seed ${seed})`
          )
        }
      })
    })
  }

  it("bytes: any that follow a signature get an answer, within the limit", () =>
    fc.assert(
      fc.asyncProperty(
        fc.constantFrom("PROXY ", "PROXY TCP4 ", "PROXY UNKNOWN", "\r\n\r\n\0\r\nQUIT\n", "\r\n\r\n\0\r\nQUIT\n!"),
        fc.uint8Array({ maxLength: 300 }),
        (signature, bytes) =>
          run(Effect.gen(function*() {
            const wire = Buffers.concat([Buffers.utf8(signature), bytes])
            const { socket } = yield* ScriptedStream.make({ reads: [data(wire), end] })
            const exit = yield* Effect.exit(ProxyProtocol.receive(socket, { trusted }))
            assert.include(["Success", "Framing", "LimitExceeded", "UnexpectedEof"], ending(exit))
            assertBytes(yield* Read.readAll(socket), wire.subarray(Exit.isSuccess(exit) ? sizeOf(wire) : 0))
          }))
      ),
      seeded({ numRuns: 500 })
    ))
})
