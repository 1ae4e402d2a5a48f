/** Writes 64 KiB without end over this library and epoll: `node test/bench/servers/bulk-epoll-transport.ts PORT` */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import { Acceptor, type StreamSocket, Write } from "../../../src/index.ts"
import * as EpollTransport from "../../../src/transport/EpollTransport.ts"
import { chunk } from "../chunk.ts"

const source = Effect.fnUntraced(function*(socket: StreamSocket.StreamSocket) {
  while (true) yield* Write.writeAll(socket, chunk)
})

const main = Effect.gen(function*() {
  const acceptor = yield* Acceptor.listen(NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${process.argv[2]}`))
  yield* Console.log(`listening on ${NetAddress.formatUrlUnsafe(acceptor.address, "tcp")}`)
  return yield* Acceptor.serve(acceptor, source)
})

main.pipe(Effect.scoped, Effect.provide(EpollTransport.layer), NodeRuntime.runMain)
