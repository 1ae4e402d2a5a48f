/** Writes 64 KiB without end over Effect's own sockets: `node test/bench/servers/bulk-effect-socket.ts PORT` */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import type * as Socket from "effect/socket/Socket"
import * as SocketServer from "effect/socket/SocketServer"
import { chunk } from "../chunk.ts"

const source = Effect.fnUntraced(
  function*(socket: Socket.Socket) {
    // Acquiring the reader is what opens the connection for the writer.
    yield* socket.reader
    const { write } = yield* socket.writer
    while (true) yield* write(chunk)
    // The end of a connection is a failure there; left to the server, each is logged.
  },
  Effect.scoped,
  (effect) => Effect.ignore(effect)
)

const main = Effect.gen(function*() {
  const server = yield* SocketServer.SocketServer
  yield* Console.log(`listening on ${NetAddress.formatUrlUnsafe(server.address, "tcp")}`)
  return yield* server.run(source)
})

main.pipe(
  Effect.provide(NodeSocketServer.layer({ host: "127.0.0.1", port: Number(process.argv[2]) })),
  NodeRuntime.runMain
)
