/** Receives messages as ndjson over Effect's own sockets, and answers the last one: `node test/bench/servers/framing-ndjson.ts PORT` */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeSocketServer from "@effect/platform-node/NodeSocketServer"
import * as Console from "effect/Console"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Ndjson from "effect/encoding/Ndjson"
import * as NetAddress from "effect/net/NetAddress"
import * as Socket from "effect/socket/Socket"
import * as SocketServer from "effect/socket/SocketServer"
import * as Stream from "effect/Stream"
import * as Messages from "../messages.ts"

const receive = Effect.fnUntraced(
  function*(socket: Socket.Socket) {
    const tally = new Messages.Tally()
    const answer = yield* Deferred.make<unknown>()
    const channel = Ndjson.duplex(Socket.toChannelWith<Ndjson.NdjsonError>()(socket))
    yield* Stream.fromEffect(Deferred.await(answer)).pipe(
      Stream.concat(Stream.never),
      Stream.pipeThroughChannel(channel),
      Stream.runForEachArray((messages) =>
        messages.some(tally.json) ? Deferred.succeed(answer, Messages.json(tally.count)) : Effect.void
      )
    )
  },
  (effect) => Effect.ignore(effect)
)

const main = Effect.gen(function*() {
  const server = yield* SocketServer.SocketServer
  yield* Console.log(`listening on ${NetAddress.formatUrlUnsafe(server.address, "tcp")}`)
  return yield* server.run(receive)
})

main.pipe(
  Effect.provide(NodeSocketServer.layer({ host: "127.0.0.1", port: Number(process.argv[2]) })),
  NodeRuntime.runMain
)
