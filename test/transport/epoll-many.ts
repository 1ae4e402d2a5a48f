/**
 * Very many connections at once, with both ends in processes of their own: all echo, then a third of them is
 * interrupted in the middle of a write, and in the end nothing is left on either side.
 *
 *     node test/transport/epoll-many.ts CONNECTIONS
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { fork } from "node:child_process"
import { once } from "node:events"
import * as Acceptor from "../../src/Acceptor.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Read from "../../src/Read.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as Write from "../../src/Write.ts"
import { portOf } from "../support/addresses.ts"
import { openSockets } from "../support/kernel.ts"
import { turn } from "../support/waiting.ts"

const count = Number(process.argv[2])
const messageSize = 64
const large = new Uint8Array(1_000_000)

// Small ones, so that a write of a megabyte waits without filling the kernel's memory.
const buffers = { sendBuffer: 4096, receiveBuffer: 4096 }

// Descriptors go one by one, and so does the wait for them.
const released = (most: number) =>
  Effect.gen(function*() {
    for (let i = 0; i < 2000 && openSockets() > most; i++) yield* turn
    return openSockets() - most
  })

const serve = Effect.gen(function*() {
  const before = openSockets()
  const acceptor = yield* Acceptor.listen(NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"), {
    ...buffers,
    backlog: 4096
  })
  let most = 0
  yield* Effect.forkChild(Acceptor.serve(acceptor, (socket) =>
    Effect.gen(function*() {
      most++
      const buffer = new Uint8Array(messageSize)
      while (true) {
        yield* Read.readExactly(socket, buffer)
        yield* Write.writeAll(socket, buffer)
      }
    })))
  process.send?.(portOf(acceptor.address))
  yield* Effect.promise(() => once(process, "message"))
  yield* acceptor.close
  process.send?.(`${most} were served, ${yield* released(before)} sockets left there`)
  process.disconnect()
})

const echo = (socket: StreamSocket.StreamSocket, i: number) =>
  Effect.gen(function*() {
    const message = Buffer.alloc(messageSize, `${i}.`)
    yield* Write.writeAll(socket, message)
    const answer = Buffer.alloc(messageSize)
    yield* Read.readExactly(socket, answer)
    return answer.equals(message)
  })

/** Interrupted when the peer, which echoes and finds no room for it, takes no more. */
const cut = (socket: StreamSocket.StreamSocket) =>
  Effect.gen(function*() {
    const before = socket.bytesWritten
    const writing = yield* Effect.forkChild(Cancellation.terminal(Write.writeAll(socket, large)), {
      startImmediately: true
    })
    while (socket.bytesWritten === before) yield* turn
    yield* Fiber.interrupt(writing)
    const exit = yield* Fiber.await(writing)
    const transfer = Exit.isFailure(exit) ? Option.getOrUndefined(Cancellation.transfer(exit.cause)) : undefined
    return transfer !== undefined && transfer.transferred > 0 && transfer.transferred < large.byteLength &&
      transfer.transferred === socket.bytesWritten - before && socket.state.write === "torn"
  })

const connectAll = (port: number) =>
  Effect.gen(function*() {
    const before = openSockets()
    const scope = yield* Scope.make()
    const target = NetAddress.inetAddressUnsafe(NetAddress.ipv4Loopback, port)
    const sockets = yield* Effect.forEach(
      Array.from({ length: count }),
      () => Scope.provide(StreamSocket.connect(target, buffers), scope),
      { concurrency: 500 }
    )
    const open = openSockets() - before
    const echoed = yield* Effect.forEach(sockets, echo, { concurrency: "unbounded" })
    const third = sockets.filter((_, i) => i % 3 === 0)
    const cuts = yield* Effect.forEach(third, cut, { concurrency: "unbounded" })
    const rest = sockets.filter((_, i) => i % 3 !== 0)
    const again = yield* Effect.forEach(rest, echo, { concurrency: "unbounded" })
    // What is torn has nothing more to say.
    yield* Effect.forEach(third, (socket) => socket.abort, { discard: true })
    yield* Scope.close(scope, Exit.void)
    const yes = (answers: ReadonlyArray<boolean>) => answers.filter((answer) => answer).length
    console.log(`${open} at once, ${yes(echoed)} and ${yes(again)} echo, ${yes(cuts)} of ${third.length} cut`)
    console.log(`${yield* released(before)} sockets left here`)
  })

if (process.send !== undefined) await Effect.runPromise(Effect.scoped(serve).pipe(Effect.provide(EpollTransport.layer)))
else {
  const server = fork(import.meta.filename, [String(count)])
  const [port] = await once(server, "message")
  await Effect.runPromise(Effect.scoped(connectAll(Number(port))).pipe(Effect.provide(EpollTransport.layer)))
  server.send("done")
  const [said] = await once(server, "message")
  console.log(String(said))
}
