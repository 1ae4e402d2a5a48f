/**
 * Three connections become readable in the same turn, and what hears of the first one throws.
 *
 *     node test/transport/epoll-throw.ts
 */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import * as Acceptor from "../../src/Acceptor.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"

process.on("uncaughtException", (error) => console.log(`caught ${error.message}`))

const program = Effect.gen(function*() {
  const acceptor = yield* Acceptor.listen(NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"))
  const clients: Array<StreamSocket.StreamSocket> = []
  const readers: Array<Fiber.Fiber<unknown, unknown>> = []
  for (let i = 0; i < 3; i++) {
    clients.push(yield* StreamSocket.connect(acceptor.address))
    const server = yield* acceptor.accept
    readers.push(yield* Effect.forkChild(server.readSome(new Uint8Array(1)), { startImmediately: true }))
  }
  let thrown = false
  for (const reader of readers) {
    reader.addObserver(() => {
      if (thrown) return
      thrown = true
      throw new Error("on purpose")
    })
  }
  for (const client of clients) yield* client.writeSome(new Uint8Array(1))
  // The fiber itself has ended before its observer throws.
  yield* Effect.forEach(readers, Fiber.await)
  console.log("the others heard theirs")
})

await Effect.runPromise(Effect.scoped(program).pipe(Effect.provide(EpollTransport.layer)))
