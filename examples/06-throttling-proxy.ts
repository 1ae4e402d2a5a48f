// A proxy that passes so many bytes per second and connection, each way: for trying programs on a slow network.
//
//   node examples/06-throttling-proxy.ts --to HOST:PORT [--rate 10000] [--port 7006] [--host 127.0.0.1]
//
// Put it in front of a web server and watch `curl -o /dev/null http://127.0.0.1:7006/something-large`. Nothing is
// stored up: what waits its turn stays with the sender. `throttling/throttled.ts` is the part worth reading.
// Ctrl-C stops it.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"
import * as Runtime from "effect/Runtime"
import { parseArgs } from "node:util"
import { Acceptor, Relay, StreamSocket } from "../src/index.ts"
import * as NodeTransport from "../src/transport/NodeTransport.ts"
import { throttled } from "./throttling/throttled.ts"

const options = Effect.try({
  try: () => {
    const { values } = parseArgs({
      options: {
        to: { type: "string" },
        rate: { type: "string", default: "10000" },
        port: { type: "string", default: "7006" },
        host: { type: "string", default: "127.0.0.1" }
      }
    })
    if (values.to === undefined) throw new Error("--to HOST:PORT is missing")
    const rate = Number(values.rate)
    if (!(rate >= 1)) throw new Error(`--rate ${values.rate} is no number of bytes per second`)
    return { ...values, to: Host.hostPortFromStringUnsafe(values.to), rate }
  },
  catch: (cause) => cause instanceof Error ? cause : new Error(String(cause))
})

const forward = (to: Host.HostPort, rate: number) => (client: StreamSocket.StreamSocket) =>
  Effect.scoped(Effect.gen(function*() {
    const server = yield* StreamSocket.connect(to)
    yield* Relay.relay(yield* throttled(client, rate), yield* throttled(server, rate)).pipe(
      // A plain close looks like the end of a whole message. Cut in the middle, both should see a reset instead.
      Effect.onError(() => Effect.andThen(client.abort, server.abort))
    )
  })).pipe(
    Effect.tapError((error) => Console.error(error.message))
  )

const main = Effect.gen(function*() {
  const { host, port, rate, to } = yield* options
  const acceptor = yield* Acceptor.listen({ host, port: Number(port) })
  yield* Console.log(`listening on ${NetAddress.formatUrlUnsafe(acceptor.address, "tcp")}`)
  yield* Acceptor.serve(acceptor, forward(to, rate))
}).pipe(
  Effect.catch((error) => Effect.andThen(Console.error(error.message), Effect.sync(() => process.exitCode = 1))),
  Effect.scoped,
  Effect.provide(NodeTransport.layer)
)

NodeRuntime.runMain(main, {
  // An interrupted program exits with 130. A server is meant to end by Ctrl-C, so here that is success.
  teardown: (exit, onExit) => Runtime.defaultTeardown(exit, (code) => onExit(code === 130 ? 0 : code))
})
