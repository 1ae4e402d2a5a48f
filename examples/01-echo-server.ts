// An echo server: every connection gets its own bytes back, and end of stream after its own end of stream.
//
//   node examples/01-echo-server.ts [--port 7007] [--host 127.0.0.1] [--unix PATH]
//
// Talk to it with `node examples/02-client.ts`, `nc -N 127.0.0.1 7007` or `socat - TCP:127.0.0.1:7007`.
// Ctrl-C stops it: connections are closed, the address is released and a Unix path is removed.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import * as Pull from "effect/Pull"
import * as Runtime from "effect/Runtime"
import { parseArgs } from "node:util"
import { Acceptor, type StreamSocket, Write } from "../src/index.ts"
import * as NodeTransport from "../src/transport/NodeTransport.ts"

const options = Effect.try({
  try: () =>
    parseArgs({
      options: {
        port: { type: "string", default: "7007" },
        host: { type: "string", default: "127.0.0.1" },
        unix: { type: "string" }
      }
    }).values,
  catch: (cause) => cause instanceof Error ? cause : new Error(String(cause))
})

const echo = (socket: StreamSocket.StreamSocket) => {
  const buffer = new Uint8Array(65_536)
  return socket.readSome(buffer).pipe(
    Effect.flatMap((count) => Write.writeAll(socket, buffer.subarray(0, count))),
    Effect.forever,
    // End of stream is not an error. A slow peer may still be reading: FIN follows its last byte, however long it takes.
    Pull.catchDone(() => socket.shutdownWrite)
  )
}

const main = Effect.gen(function*() {
  const { host, port, unix } = yield* options
  const acceptor = yield* Acceptor.listen(
    unix === undefined ? { host, port: Number(port) } : NetAddress.unixPathAddress(unix)
  )
  yield* Console.log(`listening on ${NetAddress.formatUrlUnsafe(acceptor.address, "tcp")}`)
  yield* Acceptor.serve(acceptor, echo)
}).pipe(
  Effect.catch((error) => Effect.andThen(Console.error(error.message), Effect.sync(() => process.exitCode = 1))),
  Effect.scoped,
  Effect.provide(NodeTransport.layer)
)

NodeRuntime.runMain(main, {
  // An interrupted program exits with 130. A server is meant to end by Ctrl-C, so here that is success.
  teardown: (exit, onExit) => Runtime.defaultTeardown(exit, (code) => onExit(code === 130 ? 0 : code))
})
