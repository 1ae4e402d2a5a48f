/**
 * A process that says where it listens and then has nothing to do but what its argument says. It must live as long as
 * an operation waits, and end by itself when none does.
 *
 *     node test/transport/epoll-alive.ts idle | accept | read | write | second | closed | cancelled | unread
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import * as Scope from "effect/Scope"
import * as Acceptor from "../../src/Acceptor.ts"
import { toUtf8 } from "../../src/Buffers.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Read from "../../src/Read.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as Write from "../../src/Write.ts"
import { portOf } from "../support/addresses.ts"

const what = process.argv[2]

const program = Effect.gen(function*() {
  const acceptor = yield* Acceptor.listen(NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"))
  const port = Effect.sync(() => process.send?.(portOf(acceptor.address), () => process.disconnect()))
  switch (what) {
    case "idle": {
      // Connections that nobody waits for, an operation that has ended, and a scope that nobody closes.
      const client = yield* StreamSocket.connect(acceptor.address)
      const server = yield* acceptor.accept
      yield* Write.writeAll(server, new Uint8Array(1))
      yield* client.readSome(new Uint8Array(1))
      break
    }
    case "closed": {
      const client = yield* StreamSocket.connect(acceptor.address)
      const reading = yield* Effect.forkChild(client.readSome(new Uint8Array(1)), { startImmediately: true })
      yield* Fiber.interrupt(reading)
      yield* client.abort
      break
    }
    case "cancelled": {
      // Each of them has waited, and does not any more; everything stays open.
      const client = yield* StreamSocket.connect(acceptor.address)
      yield* acceptor.accept
      const started = <A, E>(effect: Effect.Effect<A, E>) => Effect.forkChild(effect, { startImmediately: true })
      const waiting = [
        yield* started(client.readSome(new Uint8Array(1))),
        yield* started(Read.readUntil(client, "\n")),
        yield* started(Write.writeAll(client, new Uint8Array(20_000_000))),
        yield* started(Write.writeAll(client, new Uint8Array(1))),
        yield* started(acceptor.take),
        yield* started(acceptor.take)
      ]
      yield* Fiber.interruptAll(waiting)
      const signal = Cancellation.makeSignal()
      const reading = yield* started(Cancellation.withSignal(client.readSome(new Uint8Array(1)), signal))
      yield* signal.emit("total")
      yield* Fiber.await(reading)
      break
    }
    case "unread": {
      // Served by what somebody else puts back, and not by the peer.
      const client = yield* StreamSocket.connect(acceptor.address)
      const reading = yield* Effect.forkChild(client.readSome(new Uint8Array(1)), { startImmediately: true })
      yield* Read.unread(client, new Uint8Array(1))
      yield* Fiber.join(reading)
      break
    }
    case "second": {
      yield* port
      const socket = yield* acceptor.accept
      const first = yield* Effect.forkChild(socket.readSome(new Uint8Array(1)), { startImmediately: true })
      const second = yield* Effect.forkChild(Read.readUntil(socket, "\n"), { startImmediately: true })
      yield* Fiber.interrupt(first)
      console.log(`read ${toUtf8(yield* Fiber.join(second)).trim()}`)
      break
    }
    case "accept": {
      yield* port
      yield* acceptor.accept
      break
    }
    case "read": {
      yield* port
      const socket = yield* acceptor.accept
      console.log(`read ${toUtf8(yield* Read.readUntil(socket, "\n")).trim()}`)
      break
    }
    case "write": {
      yield* port
      const socket = yield* acceptor.accept
      console.log(`wrote ${yield* Write.writeAll(socket, new Uint8Array(20_000_000))}`)
      break
    }
    case undefined:
    default:
      return yield* Effect.die(new Error("what?"))
  }
  console.log("done")
})

const scope = Scope.makeUnsafe()
void Effect.runFork(program.pipe(Effect.provide(EpollTransport.layer), Scope.provide(scope)))
if (["idle", "closed", "cancelled", "unread"].includes(what ?? "")) process.disconnect()
