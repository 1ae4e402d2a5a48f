/**
 * Handshakes and records that were changed on their way to a server, by a seed. In every case the server ends, with a typed
 * error or with all that was sent; nothing is thrown, and no resource is left. `RUNS=<factor>` multiplies the number of
 * cases, and `SEED=<seed>` runs one of them.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, type Fiber } from "effect"
import { Read, type StreamSocket, Tls, Write } from "../../src/index.ts"
import { MemoryTransport } from "../../src/testing/index.ts"
import { localhost } from "../support/certificates.ts"
import { ending, failure } from "../support/exits.ts"
import { leavingNothing } from "../support/leftovers.ts"
import { some } from "../support/properties.ts"
import { trusting } from "../support/tls.ts"
import { exitOf, start } from "../support/waiting.ts"

const count = some(1500)
const seeds = process.env["SEED"] === undefined
  ? Array.from({ length: count }, (_, i) => i + 1)
  : [Number(process.env["SEED"])]

type Random = (least: number, most: number) => number

const dice = (seed: number): Random => {
  const next = MemoryTransport.random(seed)
  return (least, most) => least + Math.floor(next() * (most - least + 1))
}

/** One to four changes: a bit, a byte or a length is changed; a piece is removed, doubled or inserted; or the rest is cut off. */
const mutated = (random: Random, original: Uint8Array): Uint8Array => {
  let bytes = Buffer.from(original)
  for (let left = random(1, 4); left > 0 && bytes.byteLength > 0; left--) {
    const at = random(0, bytes.byteLength - 1)
    const to = Math.min(bytes.byteLength, at + random(1, 40))
    switch (random(0, 6)) {
      case 0:
        bytes[at] = (bytes[at] ?? 0) ^ (1 << random(0, 7))
        break
      case 1:
        bytes[at] = random(0, 255)
        break
      case 2:
        // The header of the record.
        bytes[random(0, Math.min(4, bytes.byteLength - 1))] = random(0, 255)
        break
      case 3:
        bytes = Buffer.concat([bytes.subarray(0, at), bytes.subarray(to)])
        break
      case 4:
        bytes = Buffer.concat([bytes.subarray(0, to), bytes.subarray(at)])
        break
      case 5:
        bytes = Buffer.concat([bytes.subarray(0, at), Buffer.alloc(random(1, 60), random(0, 255)), bytes.subarray(at)])
        break
      case 6:
        bytes = bytes.subarray(0, at)
    }
  }
  return bytes
}

/** A server that writes a greeting and reads to the end. */
const serve = (socket: StreamSocket.StreamSocket, options: Tls.ServerOptions) =>
  Effect.gen(function*() {
    const server = yield* Tls.server(socket, options)
    yield* Write.writeAll(server, new Uint8Array(100))
    return yield* Read.readAll(server)
  })

const allowed = new Set(["Tls", "ConnectionReset", "BrokenPipe", "Closed"])

/** The server ends, with a result that the contract allows. */
const judged = (seed: number, fiber: Fiber.Fiber<Uint8Array, unknown>, sent: Uint8Array) =>
  Effect.map(exitOf(`the server of SEED=${seed}`, fiber), (exit) => {
    if (Exit.isSuccess(exit)) {
      // Changed bytes are never read.
      assert.isTrue(Buffer.from(exit.value).equals(sent), `SEED=${seed}`)
      return
    }
    assert.isTrue(allowed.has(ending(exit)), `SEED=${seed}: ${ending(exit)}`)
    assert.strictEqual(failure(exit).message.split("\n").length, 1)
  })

const hello = Effect.scoped(Effect.gen(function*() {
  const [left, right] = yield* MemoryTransport.pair()
  yield* start(Effect.exit(Tls.client(left, trusting)))
  const buffer = new Uint8Array(65_536)
  return buffer.slice(0, yield* right.readSome(buffer))
}))

const servers: ReadonlyArray<Tls.ServerOptions> = [
  { ...localhost, maxVersion: "TLSv1.2" },
  { ...localhost, maxVersion: "TLSv1.3" }
]

const firstFlight = (seed: number, original: Uint8Array) =>
  Effect.scoped(Effect.gen(function*() {
    const random = dice(seed)
    const [left, right] = yield* MemoryTransport.pair()
    const server = yield* start(Effect.scoped(serve(right, servers[random(0, 1)]!)))
    yield* Effect.ignore(Write.writeAll(left, mutated(random, original)))
    yield* Effect.ignore(left.shutdownWrite)
    yield* judged(seed, server, new Uint8Array(0))
  }))

/** A connection with a correct client; one chunk on its way to the server is changed, and the connection ends after it. */
const conversation = (seed: number) =>
  Effect.scoped(Effect.gen(function*() {
    const random = dice(seed)
    const [left, inLeft] = yield* MemoryTransport.pair()
    const [inRight, right] = yield* MemoryTransport.pair()
    let chunks = random(0, 6)
    const there = Effect.gen(function*() {
      const target = new Uint8Array(65_536)
      for (;;) {
        const bytes = target.subarray(0, yield* inLeft.readSome(target))
        const isLast = chunks-- === 0
        yield* Write.writeAll(inRight, isLast ? mutated(random, bytes) : bytes)
        if (isLast) return yield* inRight.shutdownWrite
      }
    })
    const back = Effect.gen(function*() {
      const target = new Uint8Array(65_536)
      for (;;) yield* Write.writeAll(inLeft, target.subarray(0, yield* inRight.readSome(target)))
    })
    yield* start(Effect.exit(there))
    yield* start(Effect.exit(back))
    const server = yield* start(Effect.scoped(serve(right, servers[random(0, 1)]!)))
    const sent = new Uint8Array(random(1, 2000))
    yield* start(
      Effect.exit(
        Effect.gen(function*() {
          const client = yield* Tls.client(left, trusting)
          for (let at = 0; at < sent.byteLength; at += 500) {
            yield* Write.writeAll(client, sent.subarray(at, at + 500))
            yield* Effect.yieldNow
          }
          yield* client.shutdownWrite
        })
      )
    )
    yield* judged(seed, server, sent)
  }))

describe("a server under changed bytes", () => {
  it.live(
    "in the first flight",
    () =>
      leavingNothing(
        Effect.flatMap(hello, (original) =>
          Effect.forEach(seeds.slice(0, Math.ceil(count * 0.75)), (seed) =>
            firstFlight(seed, original), {
            discard: true,
            concurrency: 8
          }))
      ),
    120_000
  )

  it.live("anywhere in a conversation", () =>
    leavingNothing(
      Effect.forEach(seeds.slice(0, Math.ceil(count * 0.25)), conversation, { discard: true, concurrency: 8 })
    ), 120_000)
})
