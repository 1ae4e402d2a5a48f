/**
 * A process under a storm of resets: raw clients that write, end, destroy and reset in every state, against handlers
 * that read, write, half-close, close and abort in every order, and the same with the roles exchanged. Prints one line
 * and ends by itself when nothing escaped and nothing is left.
 *
 *     node test/transport/storm.ts SEED
 */
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import { once } from "node:events"
import * as Net from "node:net"
import * as Acceptor from "../../src/Acceptor.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import * as Write from "../../src/Write.ts"
import { portOf } from "../support/addresses.ts"
import { openSockets } from "../support/kernel.ts"
import { turn } from "../support/waiting.ts"

const connections = 200
// Standard output may be a socket.
const before = openSockets()
const random = MemoryTransport.random(Number(process.argv[2] ?? 1))
const upTo = (limit: number): number => Math.floor(random() * limit)
const bytes = new Uint8Array(300_000)

for (const event of ["uncaughtException", "unhandledRejection"] as const) {
  process.on(event, (error) => {
    console.log(`${event}:`, error)
    process.exit(1)
  })
}

/** Node's own reset leaves the descriptor open for ever when it meets an `end`, so the raw clients keep them apart. */
const reset = (socket: Net.Socket): unknown =>
  socket.writableEnded || socket.connecting ? socket.destroy() : socket.resetAndDestroy()

/** A raw socket that does a few things and then goes, one way or another. */
const rage = (socket: Net.Socket): void => {
  socket.on("error", () => {})
  socket.setTimeout(300, () => socket.destroy())
  if (random() < 0.5) socket.resume()
  const acts: ReadonlyArray<() => unknown> = [
    () => socket.write(bytes.subarray(0, upTo(1000))),
    () => socket.write(bytes),
    () => socket.end(),
    () => socket.pause(),
    () => socket.resume(),
    () => socket.destroy(),
    () => reset(socket),
    () => reset(socket)
  ]
  const act = (left: number): void => {
    if (socket.destroyed) return
    if (left === 0) {
      reset(socket)
      return
    }
    acts[upTo(acts.length)]?.()
    if (random() < 0.3) act(left - 1)
    else setImmediate(act, left - 1)
  }
  act(2 + upTo(8))
}

/** Ours, in every state that a reset can meet. Whatever the operations answer is right; only what escapes is wrong. */
const endure = (socket: StreamSocket.StreamSocket) => {
  const target = new Uint8Array(4096)
  const acts: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
    socket.readSome(target),
    Effect.forever(socket.readSome(target)),
    socket.writeSome(bytes),
    Write.writeAll(socket, bytes),
    Effect.forever(socket.writeSome(bytes)),
    Effect.timeout(Write.writeAll(socket, bytes), upTo(5)),
    Effect.timeout(Cancellation.total(Write.writeAll(socket, bytes), { within: upTo(5) }), upTo(5)),
    Effect.timeout(socket.readSome(target), upTo(5)),
    socket.shutdownWrite,
    socket.configure({ noDelay: random() < 0.5, keepAlive: random() < 0.5 }),
    Effect.timeout(socket.close, upTo(3)),
    socket.close,
    socket.abort,
    turn,
    turn
  ]
  const some = Array.from({ length: 1 + upTo(5) }, () => Effect.exit(acts[upTo(acts.length)] ?? turn))
  return Effect.timeoutOption(Effect.all(some, { concurrency: random() < 0.5 ? 1 : "unbounded" }), 500)
}

const storm = Effect.gen(function*() {
  const acceptor = yield* Acceptor.listen(NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"), {
    linger: "50 millis"
  })
  const raw = Net.createServer({ allowHalfOpen: true }, rage)
  yield* Effect.promise(() => once(raw.listen(0, "127.0.0.1"), "listening"))
  const bound = raw.address()
  if (bound === null || typeof bound === "string") return yield* Effect.die("not bound")
  const rawAddress = NetAddress.inetAddressFromNativeUnsafe(bound.address, bound.port)
  yield* Effect.forkChild(Effect.forever(Effect.gen(function*() {
    const scoped = Effect.scoped(Effect.flatMap(acceptor.accept, endure))
    yield* Effect.all(Array.from({ length: 20 }, () => scoped), { concurrency: "unbounded" })
  })))
  for (let i = 0; i < connections; i++) {
    rage(Net.connect({ host: "127.0.0.1", port: portOf(acceptor.address), allowHalfOpen: random() < 0.5 }))
    yield* Effect.forkChild(
      Effect.exit(Effect.scoped(Effect.flatMap(StreamSocket.connect(rawAddress, { linger: upTo(50) }), endure)))
    )
    if (random() < 0.2) yield* turn
  }
  yield* Effect.sleep(200)
  yield* acceptor.close
  raw.close()
})

await Effect.runPromise(Effect.scoped(storm).pipe(Effect.provide(NodeTransport.layer)))
// Raw clients may still be on their way out.
const deadline = Date.now() + 30_000
while (openSockets() > before && Date.now() < deadline) await Effect.runPromise(turn)
console.log(`calm after ${2 * connections} connections; ${openSockets() - before} sockets left`)
