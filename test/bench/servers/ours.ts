/**
 * What the servers over this library do, whatever the transport. Their arguments:
 * `PORT [echo|bulk|receive|gather|relay] [BUFFER BYTES | TARGET PORT] [tls|strict]`
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as NetAddress from "effect/net/NetAddress"
import { Acceptor, Relay, StreamSocket, type Transport, Write } from "../../../src/index.ts"
import { chunk, gatherLists } from "../chunk.ts"

// The buffer has the size of the one in Asio's own echo servers. It counts as memory of an idle connection.
const [port, mode = "echo", number = 1024, security] = process.argv.slice(2)

const localhost = (port: number | string | undefined) => NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${port}`)

const echo = Effect.fnUntraced(function*(socket: StreamSocket.StreamSocket) {
  const buffer = new Uint8Array(Number(number))
  while (true) {
    const count = yield* socket.readSome(buffer)
    yield* Write.writeAll(socket, buffer.subarray(0, count))
  }
})

const bulk = Effect.fnUntraced(function*(socket: StreamSocket.StreamSocket) {
  while (true) yield* Write.writeAll(socket, chunk)
})

const receive = Effect.fnUntraced(function*(socket: StreamSocket.StreamSocket) {
  const buffer = new Uint8Array(65_536)
  while (true) yield* socket.readSome(buffer)
})

const gather = Effect.fnUntraced(function*(socket: StreamSocket.StreamSocket) {
  while (true) for (const list of gatherLists) yield* Write.writeAll(socket, list)
})

const relay = Effect.fnUntraced(function*(client: StreamSocket.StreamSocket) {
  const upstream = yield* StreamSocket.connect(localhost(number))
  yield* Relay.relay(client, upstream)
}, Effect.scoped)

/** Serves every connection, over TLS where that is asked for. */
const serveAll = <E, R>(
  acceptor: Acceptor.Acceptor,
  handler: (socket: StreamSocket.StreamSocket) => Effect.Effect<never, E, R>
) =>
  security === undefined
    ? Acceptor.serve(acceptor, handler)
    : Effect.flatMap(Effect.promise(() => import("./secured.ts")), ({ secured }) =>
      Acceptor.serve(acceptor, secured(handler, security === "strict")))

export const serve = <R, E>(layer: Layer.Layer<Transport.Transport | R, E>): void => {
  const main = Effect.gen(function*() {
    const acceptor = yield* Acceptor.listen(localhost(port), { backlog: 4096 })
    yield* Console.log(`listening on ${NetAddress.formatUrlUnsafe(acceptor.address, "tcp")}`)
    switch (mode) {
      case "echo":
        return yield* serveAll(acceptor, echo)
      case "bulk":
        return yield* serveAll(acceptor, bulk)
      case "receive":
        return yield* serveAll(acceptor, receive)
      case "gather":
        return yield* Acceptor.serve(acceptor, gather)
      case "relay":
        return yield* Acceptor.serve(acceptor, relay)
      default:
        return yield* Effect.die(new Error(`no mode ${mode}`))
    }
  })
  main.pipe(Effect.scoped, Effect.provide(layer), NodeRuntime.runMain)
}
