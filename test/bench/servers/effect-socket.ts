/** Effect's own sockets: `node test/bench/servers/effect-socket.ts PORT [echo|bulk|gather]` */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import * as Arr from "effect/Array"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import type * as Socket from "effect/socket/Socket"
import * as SocketServer from "effect/socket/SocketServer"
import { chunk, gatherLists } from "../chunk.ts"

const [port, mode = "echo"] = process.argv.slice(2)

const echo = Effect.fnUntraced(function*(socket: Socket.Socket) {
  const { pull } = yield* socket.reader
  const { writeAll } = yield* socket.writer
  while (true) yield* writeAll(yield* pull)
})

const bulk = Effect.fnUntraced(function*(socket: Socket.Socket) {
  // Acquiring the reader is what opens the connection for the writer.
  yield* socket.reader
  const { write } = yield* socket.writer
  while (true) yield* write(chunk)
})

const gather = Effect.fnUntraced(function*(socket: Socket.Socket) {
  yield* socket.reader
  const { writeAll } = yield* socket.writer
  const lists = gatherLists.filter(Arr.isArrayNonEmpty)
  while (true) for (const list of lists) yield* writeAll(list)
})

const handler = { echo, bulk, gather }[mode]

const main = Effect.gen(function*() {
  if (handler === undefined) return yield* Effect.die(new Error(`no mode ${mode}`))
  const server = yield* SocketServer.SocketServer
  yield* Console.log(`listening on ${NetAddress.formatUrlUnsafe(server.address, "tcp")}`)
  // The end of a connection is a failure there; left to the server, each is logged.
  return yield* server.run((socket) => Effect.ignore(Effect.scoped(handler(socket))))
})

main.pipe(
  Effect.provide(NodeSocketServer.layer({ host: "127.0.0.1", port: Number(port), noDelay: true, backlog: 4096 })),
  NodeRuntime.runMain
)
