/**
 * A server that runs out of descriptors while clients keep coming: it says so, pauses, and serves everybody when some
 * are free again.
 *
 *     sh -c 'ulimit -n 80 && exec node test/transport/epoll-exhaust.ts'
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Logger from "effect/Logger"
import * as NetAddress from "effect/net/NetAddress"
import * as Scope from "effect/Scope"
import * as Acceptor from "../../src/Acceptor.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as Write from "../../src/Write.ts"
import { eventually } from "../support/waiting.ts"

const warnings: Array<string> = []
const logger = Logger.make(({ message }) => void warnings.push(String(message)))

const program = Effect.gen(function*() {
  const acceptor = yield* Acceptor.listen(NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"))
  let served = 0
  const clients: Array<{ readonly scope: Scope.Closeable; readonly socket: StreamSocket.StreamSocket }> = []
  // They come before the server does: they leave it room for a few only.
  const connect = Effect.gen(function*() {
    const scope = yield* Scope.make()
    clients.push({ scope, socket: yield* Scope.provide(StreamSocket.connect(acceptor.address), scope) })
  })
  const error = yield* Effect.flip(Effect.forever(connect))
  console.log(`connect: ${error.reason._tag}`)
  for (const { scope } of clients.splice(0, 4)) yield* Scope.close(scope, Exit.void)
  yield* Effect.forkChild(
    Acceptor.serve(acceptor, (socket) =>
      Effect.gen(function*() {
        served++
        const buffer = new Uint8Array(10)
        while (true) yield* Write.writeAll(socket, buffer.subarray(0, yield* socket.readSome(buffer)))
      }))
  )
  yield* eventually("the server has said so and has tried again", () => warnings.length >= 2)
  console.log(`serve: ${[...new Set(warnings.map((warning) => /EMFILE/.exec(warning)?.[0] ?? warning))].join()}`)
  const before = served
  // Each that leaves makes room at both ends.
  const rest = clients.splice(clients.length / 2)
  for (const { scope } of clients) yield* Scope.close(scope, Exit.void)
  yield* Effect.forEach(
    rest,
    ({ socket }) => Effect.andThen(Write.writeAll(socket, new Uint8Array(10)), socket.readSome(new Uint8Array(10))),
    {
      concurrency: "unbounded"
    }
  )
  console.log(`${before > 0 && rest.length > 20 && served > before ? "all" : "not all"} are served`)
})

await Effect.runPromise(
  Effect.scoped(program).pipe(Effect.provide([EpollTransport.layer, Logger.layer([logger])]))
)
