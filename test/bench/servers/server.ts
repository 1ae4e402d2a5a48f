/** Echo over this library's `Server`: `node test/bench/servers/server.ts PORT [limits]` */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import { Server, type StreamSocket, Write } from "../../../src/index.ts"
import * as NodeTransport from "../../../src/transport/NodeTransport.ts"

// As in `node-transport.ts`.
const bufferSize = 1024

const echo = Effect.fnUntraced(function*(socket: StreamSocket.StreamSocket) {
  const buffer = new Uint8Array(bufferSize)
  while (true) {
    const count = yield* socket.readSome(buffer)
    yield* Write.writeAll(socket, buffer.subarray(0, count))
  }
})

const limits: Server.Limits = process.argv[3] !== "limits" ? {} : {
  connections: 10_000,
  perPeer: 10_000,
  acceptRate: { limit: 100_000, window: "1 second" },
  firstByte: "1 minute",
  idle: "1 minute",
  progress: { bytes: 1, per: "10 seconds" },
  bytesInFlight: 1_000_000_000
}

const main = Effect.gen(function*() {
  const server = yield* Server.make(echo, {
    listen: NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${process.argv[2]}`),
    limits,
    shutdown: { deadline: 0 }
  })
  yield* Console.log(`listening on ${NetAddress.formatUrlUnsafe(server.addresses[0], "tcp")}`)
  return yield* server.stopped
})

main.pipe(Effect.scoped, Effect.provide(NodeTransport.layer), NodeRuntime.runMain)
