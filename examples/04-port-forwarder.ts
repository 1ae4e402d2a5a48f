// A port forwarder: a connection here becomes a connection there, and bytes go both ways until both sides have ended.
//
//   node examples/04-port-forwarder.ts --to HOST:PORT [--port 7004] [--host 127.0.0.1] [--idle "5 minutes"]
//
// Put it in front of a web server and talk to it with `curl http://127.0.0.1:7004/`, or in front of
// `node examples/01-echo-server.ts` with `nc -N 127.0.0.1 7004`: the end of one side is passed on, and the other side
// goes on. Ctrl-C stops it: connections are reset, so that neither side takes the part that arrived for the whole.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"
import * as Runtime from "effect/Runtime"
import { parseArgs } from "node:util"
import { Acceptor, Relay, StreamSocket } from "../src/index.ts"
import * as NodeTransport from "../src/transport/NodeTransport.ts"

const options = Effect.try({
  try: () => {
    const { values } = parseArgs({
      options: {
        to: { type: "string" },
        port: { type: "string", default: "7004" },
        host: { type: "string", default: "127.0.0.1" },
        idle: { type: "string", default: "Infinity" }
      }
    })
    if (values.to === undefined) throw new Error("--to HOST:PORT is missing")
    return {
      ...values,
      to: Host.hostPortFromStringUnsafe(values.to),
      idle: Duration.fromInputUnsafe(values.idle as Duration.Input)
    }
  },
  catch: (cause) => cause instanceof Error ? cause : new Error(String(cause))
})

const forward = (to: Host.HostPort, idle: Duration.Duration) => (client: StreamSocket.StreamSocket) =>
  Effect.scoped(Effect.gen(function*() {
    const server = yield* StreamSocket.connect(to)
    const { received, sent } = yield* Relay.relay(client, server, { idle }).pipe(
      // A plain close looks like the end of a whole message. Cut in the middle, both should see a reset instead.
      Effect.onError(() => Effect.andThen(client.abort, server.abort))
    )
    yield* Console.log(`${NetAddress.formatUrlUnsafe(client.remoteAddress, "tcp")}: ${sent} up, ${received} down`)
  })).pipe(
    Effect.tapError((error) => Console.error(error.message))
  )

const main = Effect.gen(function*() {
  const { host, idle, port, to } = yield* options
  const acceptor = yield* Acceptor.listen({ host, port: Number(port) })
  yield* Console.log(`listening on ${NetAddress.formatUrlUnsafe(acceptor.address, "tcp")}`)
  yield* Acceptor.serve(acceptor, forward(to, idle))
}).pipe(
  Effect.catch((error) => Effect.andThen(Console.error(error.message), Effect.sync(() => process.exitCode = 1))),
  Effect.scoped,
  Effect.provide(NodeTransport.layer)
)

NodeRuntime.runMain(main, {
  // An interrupted program exits with 130. A server is meant to end by Ctrl-C, so here that is success.
  teardown: (exit, onExit) => Runtime.defaultTeardown(exit, (code) => onExit(code === 130 ? 0 : code))
})
