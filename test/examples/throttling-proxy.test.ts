/** `examples/06-throttling-proxy.ts`: its rate to the millisecond on a test clock, and the program for real. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as TestClock from "effect/testing/TestClock"
import * as Net from "node:net"
import { throttled } from "../../examples/throttling/throttled.ts"
import { Cancellation, Read, Relay, Write } from "../../src/index.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import { assertBytes, pattern } from "../support/bytes.ts"
import { listening } from "../support/programs.ts"
import { start, turns } from "../support/waiting.ts"

/** client <-> proxy <-> server, with the proxy's two ends throttled. */
const proxy = (rate: number) =>
  Effect.gen(function*() {
    const [client, left] = yield* MemoryTransport.pair({ capacity: 1_000_000 })
    const [right, server] = yield* MemoryTransport.pair({ capacity: 1_000_000 })
    const relay = Relay.relay(yield* throttled(left, rate), yield* throttled(right, rate))
    return { client, left, right, server, relay }
  })

const pass = (millis: number) => Effect.andThen(TestClock.adjust(millis), turns())

describe("a throttled relay", () => {
  for (const rate of [10, 1000, 100_000]) {
    it.effect(`passes ${rate} bytes a second, each way, and a fifth of a second's more at the start`, () =>
      Effect.gen(function*() {
        const { client, left, relay, right, server } = yield* proxy(rate)
        const message = pattern(rate * 2)
        yield* Effect.all([Write.writeAll(client, message), Write.writeAll(server, message.toReversed())])
        yield* Effect.all([client.shutdownWrite, server.shutdownWrite])
        const fiber = yield* start(relay)
        yield* turns()
        for (let tenths = 0; tenths < 18; tenths++) {
          const expected = (tenths + 2) * rate / 10
          assert.deepStrictEqual([right.bytesWritten, left.bytesWritten], [expected, expected])
          // Not a millisecond too early.
          yield* pass(99)
          assert.deepStrictEqual([right.bytesWritten, left.bytesWritten], [expected, expected])
          yield* pass(1)
        }
        // The end waits for its turn, too.
        yield* pass(100)
        assert.deepStrictEqual(yield* Fiber.join(fiber), { sent: rate * 2, received: rate * 2 })
        assertBytes(yield* Read.readAll(server), message)
        assertBytes(yield* Read.readAll(client), message.toReversed())
      }))
  }

  it.effect("saves up no more than a tenth of a second's in a long silence", () =>
    Effect.gen(function*() {
      const { client, relay, right } = yield* proxy(1000)
      yield* start(relay)
      yield* pass(3_600_000)
      yield* Write.writeAll(client, pattern(5000))
      yield* turns()
      assert.strictEqual(right.bytesWritten, 200)
      yield* pass(1000)
      assert.strictEqual(right.bytesWritten, 1200)
    }))

  it.effect("never passes more than its rate, however much comes when", () =>
    Effect.gen(function*() {
      for (let seed = 1; seed <= 20; seed++) {
        const random = MemoryTransport.random(seed)
        const rate = 1 + Math.floor(random() * 5000)
        const credit = 2 * Math.ceil(rate / 10)
        const { client, relay, right } = yield* proxy(rate)
        const fiber = yield* start(relay)
        let time = 0
        for (let step = 0; step < 30; step++) {
          yield* Write.writeAll(client, pattern(Math.floor(random() * rate)))
          const millis = Math.floor(random() * 500)
          yield* pass(millis)
          time += millis
          assert.isAtMost(right.bytesWritten, rate * time / 1000 + credit, `seed ${seed}`)
        }
        // Nothing is lost by waiting.
        yield* pass(60_000)
        assert.strictEqual(right.bytesWritten, client.bytesWritten, `seed ${seed}`)
        yield* Fiber.interrupt(fiber)
      }
    }))

  it.effect("interrupted while it waits, it has lost nothing", () =>
    Effect.gen(function*() {
      const { client, relay, right, server } = yield* proxy(1000)
      yield* Write.writeAll(client, pattern(1500))
      yield* Effect.all([client.shutdownWrite, server.shutdownWrite])
      for (let i = 0; i < 10; i++) {
        const fiber = yield* start(Cancellation.partial(relay))
        yield* pass(70)
        yield* Fiber.interrupt(fiber)
      }
      assert.strictEqual(right.bytesWritten, 900)
      const fiber = yield* start(relay)
      yield* pass(1000)
      assert.deepStrictEqual(yield* Fiber.join(fiber), { sent: 600, received: 0 })
      assertBytes(yield* Read.readAll(server), pattern(1500))
    }))
})

describe("the throttling proxy", () => {
  it.live("passes both directions unchanged, each end by itself, and ends by Ctrl-C", () =>
    Effect.gen(function*() {
      const server = yield* Effect.acquireRelease(
        Effect.callback<Net.Server>((resume) => {
          const echo = Net.createServer({ allowHalfOpen: true }, (socket) => socket.pipe(socket))
          echo.listen(0, "127.0.0.1", () => resume(Effect.succeed(echo)))
        }),
        (echo) => Effect.sync(() => echo.close())
      )
      const target = `127.0.0.1:${(server.address() as Net.AddressInfo).port}`
      const program = yield* listening("06-throttling-proxy.ts", "--port", "0", "--to", target, "--rate", "1000000")
      const received = yield* Effect.callback<Buffer, Error>((resume) => {
        const chunks: Array<Buffer> = []
        const client = Net.connect({ host: "127.0.0.1", port: program.port, allowHalfOpen: true })
        client.on("data", (chunk) => chunks.push(chunk))
        client.on("end", () => resume(Effect.succeed(Buffer.concat(chunks))))
        client.on("error", (error) => resume(Effect.fail(error)))
        client.end(pattern(500_000))
      })
      assertBytes(received, pattern(500_000))
      assert.strictEqual(yield* program.interrupt, 0)
    }))
})
