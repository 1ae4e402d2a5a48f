/**
 * Fibers that are never at rest, over connections in memory, until a time-out ends them.
 *
 *     node test/testing/memory-busy.ts echo | oneWay | relay | small | tls
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Relay from "../../src/Relay.ts"
import type { StreamSocket } from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as Tls from "../../src/Tls.ts"
import * as Write from "../../src/Write.ts"
import { localhost, root } from "../support/certificates.ts"

const chunk = new Uint8Array(16_384)

// Loops of programs, which do not yield by themselves as `Effect.forever` does.

const reading = (socket: StreamSocket) =>
  Effect.gen(function*() {
    const buffer = new Uint8Array(65_536)
    while (true) yield* socket.readSome(buffer)
  })

const writing = (socket: StreamSocket, bytes: Uint8Array = chunk) =>
  Effect.gen(function*() {
    while (true) yield* Write.writeAll(socket, bytes)
  })

const echoing = (socket: StreamSocket) =>
  Effect.gen(function*() {
    const buffer = new Uint8Array(65_536)
    while (true) yield* Write.writeAll(socket, buffer.subarray(0, yield* socket.readSome(buffer)))
  })

const together = (...effects: ReadonlyArray<Effect.Effect<unknown, unknown>>) =>
  Effect.all(effects, { concurrency: "unbounded", discard: true })

const scenes: Readonly<Record<string, Effect.Effect<unknown, unknown>>> = {
  echo: Effect.scoped(
    Effect.flatMap(
      MemoryTransport.pair({ linger: 0 }),
      ([left, right]) => together(writing(left), echoing(right), reading(left))
    )
  ),
  oneWay: Effect.scoped(
    Effect.flatMap(MemoryTransport.pair({ linger: 0 }), ([left, right]) => together(writing(left), reading(right)))
  ),
  small: Effect.scoped(
    Effect.flatMap(
      MemoryTransport.pair({ linger: 0, capacity: 16 }),
      ([left, right]) => together(writing(left, new Uint8Array(100)), reading(right))
    )
  ),
  relay: Effect.scoped(Effect.gen(function*() {
    const [client, left] = yield* MemoryTransport.pair({ linger: 0 })
    const [right, server] = yield* MemoryTransport.pair({ linger: 0 })
    yield* together(writing(client), reading(client), echoing(server), Relay.relay(left, right))
  })),
  tls: Effect.scoped(Effect.gen(function*() {
    const [left, right] = yield* MemoryTransport.pair({ linger: 0 })
    const serving = yield* Effect.forkChild(Tls.server(right, localhost), { startImmediately: true })
    const client = yield* Tls.client(left, { servername: "localhost", ca: root.certificate })
    const server = yield* Fiber.join(serving)
    yield* together(writing(client), echoing(server), reading(client))
  }))
}

const scene = scenes[process.argv[2] ?? ""] ?? Effect.die("no such scene")

let ticks = 0
const ticking = setInterval(() => ticks++, 10)
const exit = await Effect.runPromiseExit(Effect.timeoutOption(scene, 500))
clearInterval(ticking)
console.log(exit._tag === "Success" && exit.value._tag === "None" ? "timed out" : String(exit))
console.log(ticks > 10 ? "timers fired meanwhile" : `timers fired ${ticks} times`)
