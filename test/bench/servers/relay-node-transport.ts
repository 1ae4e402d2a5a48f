/** A relay over this library: `node test/bench/servers/relay-node-transport.ts PORT TARGET` */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import { Acceptor, Relay, StreamSocket, type StreamSocket as Socket } from "../../../src/index.ts"
import * as NodeTransport from "../../../src/transport/NodeTransport.ts"

const [port, target] = process.argv.slice(2).map((number) =>
  NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${number}`)
) as [NetAddress.InetAddress, NetAddress.InetAddress]

const forward = (client: Socket.StreamSocket) =>
  Effect.scoped(Effect.flatMap(StreamSocket.connect(target), (upstream) => Relay.relay(client, upstream)))

const main = Effect.gen(function*() {
  const acceptor = yield* Acceptor.listen(port)
  yield* Console.log(`listening on ${NetAddress.formatUrlUnsafe(acceptor.address, "tcp")}`)
  return yield* Acceptor.serve(acceptor, forward)
})

main.pipe(Effect.scoped, Effect.provide(NodeTransport.layer), NodeRuntime.runMain)
