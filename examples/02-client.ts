// A client like `nc`: sends standard input, prints what comes back, and ends at the server's end of stream.
//
//   node examples/02-client.ts [--port 7007] [--host localhost] [--unix PATH]
//
// At the end of input it half-closes, so the server knows that everything came and can still answer.
// Start `node examples/01-echo-server.ts` first, or any other server.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeSink from "@effect/platform-node/NodeSink"
import * as NodeStream from "@effect/platform-node/NodeStream"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import * as Stream from "effect/Stream"
import { parseArgs } from "node:util"
import * as EffectStream from "../src/adapter/EffectStream.ts"
import { StreamSocket } from "../src/index.ts"
import * as NodeTransport from "../src/transport/NodeTransport.ts"

const onError = (cause: unknown) => cause instanceof Error ? cause : new Error(String(cause))

const options = Effect.try({
  try: () =>
    parseArgs({
      options: {
        port: { type: "string", default: "7007" },
        host: { type: "string", default: "localhost" },
        unix: { type: "string" }
      }
    }).values,
  catch: onError
})

const input = NodeStream.fromReadable({ evaluate: () => process.stdin, onError })
const output = NodeSink.fromWritable({ evaluate: () => process.stdout, onError, endOnDone: false })

const main = Effect.gen(function*() {
  const { host, port, unix } = yield* options
  const socket = yield* StreamSocket.connect(
    unix === undefined ? { host, port: Number(port) } : NetAddress.unixPathAddress(unix)
  )
  const sending = yield* Stream.run(input, EffectStream.toSink(socket)).pipe(
    // Also when the input cannot be read: the server must not wait for more.
    Effect.tapError(() => Effect.ignore(socket.shutdownWrite)),
    Effect.andThen(socket.shutdownWrite),
    Effect.forkChild
  )
  yield* Stream.run(EffectStream.toStream(socket), output)
  // A write that failed comes second: the server's last words may say why.
  yield* sending.pollUnsafe() ?? Effect.void
}).pipe(
  Effect.catch((error) => Effect.andThen(Console.error(error.message), Effect.sync(() => process.exitCode = 1))),
  Effect.scoped,
  Effect.provide(NodeTransport.layer)
)

NodeRuntime.runMain(main)
