/** Echo over this library and epoll: `node test/bench/servers/epoll-transport.ts PORT` */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import { Acceptor, type StreamSocket, Write } from "../../../src/index.ts"
import * as EpollTransport from "../../../src/transport/EpollTransport.ts"

// The size of the buffer in Asio's own echo servers. It counts as memory of an idle connection.
const bufferSize = 1024

const echo = Effect.fnUntraced(function*(socket: StreamSocket.StreamSocket) {
  const buffer = new Uint8Array(bufferSize)
  while (true) {
    const count = yield* socket.readSome(buffer)
    yield* Write.writeAll(socket, buffer.subarray(0, count))
  }
})

const main = Effect.gen(function*() {
  const acceptor = yield* Acceptor.listen(NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${process.argv[2]}`))
  yield* Console.log(`listening on ${NetAddress.formatUrlUnsafe(acceptor.address, "tcp")}`)
  return yield* Acceptor.serve(acceptor, echo)
})

main.pipe(Effect.scoped, Effect.provide(EpollTransport.layer), NodeRuntime.runMain)
