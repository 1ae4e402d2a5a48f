/**
 * Connections of every kind that write, read, interrupt, close and abort at random, while memory is collected, until
 * the process ends in one of three ways: by itself, by `process.exit`, or by an error that nobody catches.
 *
 *     node --expose-gc test/transport/epoll-stress.ts end|exit|throw SEED
 */
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Acceptor from "../../src/Acceptor.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as Write from "../../src/Write.ts"
import { openSockets } from "../support/kernel.ts"
import { turn } from "../support/waiting.ts"

const [how = "end", seed = "1"] = process.argv.slice(2)
const before = openSockets()
const random = MemoryTransport.random(Number(seed))
const upTo = (limit: number): number => Math.floor(random() * limit)
const rounds = 300

const directory = mkdtempSync(join(tmpdir(), "effect-asio-"))
process.on("exit", () => rmSync(directory, { recursive: true, force: true }))

const collect = Effect.sync(() => (random() < 0.5 ? globalThis.gc?.({ type: "minor" }) : globalThis.gc?.()))

/** Whatever the operations answer is right; only what escapes is wrong. */
const endure = (socket: StreamSocket.StreamSocket) => {
  // Memory that nothing else refers to.
  const target = () => new Uint8Array(1 + upTo(100_000))
  const source = () => [new Uint8Array(upTo(100)), new Uint8Array(upTo(300_000))]
  const acts: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
    Effect.suspend(() => socket.readSome(target())),
    Effect.forever(Effect.suspend(() => socket.readSome(target()))),
    Effect.suspend(() => socket.writeSome(source())),
    Effect.suspend(() => Write.writeAll(socket, source())),
    Effect.forever(Effect.suspend(() => socket.writeSome(source()))),
    Effect.timeout(Effect.suspend(() => Write.writeAll(socket, source())), upTo(5)),
    Effect.timeout(Cancellation.total(Effect.suspend(() => Write.writeAll(socket, source())), { within: 3 }), upTo(5)),
    Effect.timeout(Effect.suspend(() => socket.readSome(target())), upTo(5)),
    socket.shutdownWrite,
    Effect.timeout(socket.close, upTo(3)),
    socket.close,
    socket.abort,
    turn,
    collect
  ]
  const some = Array.from({ length: 1 + upTo(6) }, () => Effect.exit(acts[upTo(acts.length)] ?? turn))
  return Effect.timeoutOption(Effect.all(some, { concurrency: random() < 0.5 ? 1 : "unbounded" }), 100)
}

const stop = Effect.sync(() => {
  if (how === "exit") process.exit(3)
  if (how === "throw") {
    setImmediate(() => {
      throw new Error("on purpose")
    })
  }
})

const storm = Effect.gen(function*() {
  const addresses = [
    NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"),
    NetAddress.unixPathAddress(join(directory, "path")),
    NetAddress.unixPathAddress(`\0effect-asio-${process.pid}`)
  ]
  for (let round = 0; round < rounds; round++) {
    const address = addresses[upTo(addresses.length)]!
    yield* Effect.forkChild(Effect.exit(Effect.scoped(Effect.gen(function*() {
      const acceptor = yield* Acceptor.listen(address, { linger: 20 })
      for (let i = upTo(5); i >= 0; i--) {
        yield* Effect.forkChild(Effect.exit(Effect.scoped(Effect.flatMap(acceptor.accept, endure))))
        yield* Effect.forkChild(
          Effect.exit(Effect.scoped(Effect.flatMap(StreamSocket.connect(acceptor.address, { linger: 20 }), endure)))
        )
      }
      yield* Effect.sleep(upTo(10))
    }))))
    if (random() < 0.3) yield* turn
    if (random() < 0.2) yield* collect
    if (round === rounds / 2) yield* stop
  }
  yield* Effect.sleep(200)
})

// Each time with a reactor of its own.
for (let i = 0; i < 2; i++) {
  await Effect.runPromise(Effect.scoped(storm).pipe(Effect.provide(EpollTransport.layer)))
}
const deadline = Date.now() + 30_000
while (openSockets() > before && Date.now() < deadline) await Effect.runPromise(turn)
console.log(`calm; ${openSockets() - before} sockets left`)
