/**
 * A server in a process of its own, for what only processes can show: signals, exit codes, descriptors that run out.
 *
 *     node test/Server/program.ts [--transport node|epoll] [--deadline MILLISECONDS]
 *
 * The first line of a connection says what it is for: `echo` gives every line back, `frames` answers every
 * further line, a number, with a frame of that size (four bytes of length before it), `hang` does nothing, `health` answers with one line of JSON.
 * Prints its port, and at the end how its connections ended.
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as NetAddress from "effect/net/NetAddress"
import * as References from "effect/References"
import { parseArgs } from "node:util"
import { Buffers, Framing, Read, Server, type StreamSocket, Write } from "../../src/index.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"

const { deadline, transport } = parseArgs({
  options: {
    transport: { type: "string", default: "node" },
    deadline: { type: "string", default: "2000" }
  }
}).values

const frames = Framing.lengthPrefixed({ max: 32 * 1_048_576 })

const readLine = (socket: StreamSocket.StreamSocket) => Read.readLine(socket, { max: 1024 })

const handler = (socket: StreamSocket.StreamSocket, connection: Server.Connection) =>
  Effect.gen(function*() {
    const what = yield* readLine(socket)
    switch (what) {
      case "echo":
        while (true) yield* Write.writeAll(socket, Buffers.utf8(`${yield* readLine(socket)}\n`))
      case "frames":
        while (true) yield* Framing.send(socket, frames, new Uint8Array(Number(yield* readLine(socket))))
      case "hang":
        return yield* Effect.never
      case "health": {
        const health = yield* connection.server.health
        return yield* Write.writeAll(socket, Buffers.utf8(`${JSON.stringify(health)}\n`))
      }
      default:
        return yield* Effect.fail(`no such thing: ${what}`)
    }
  })

const main = Effect.scoped(Effect.gen(function*() {
  let report: Effect.Effect<void> = Effect.void
  // Before the server, and so after its end.
  yield* Effect.addFinalizer(() => Effect.suspend(() => report))
  const server = yield* Server.make(handler, {
    listen: NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"),
    shutdown: { deadline: Number(deadline) }
  })
  report = Effect.flatMap(server.stopped, (drained) => Console.log(JSON.stringify(drained)))
  const [address] = server.addresses
  if (NetAddress.isInetAddress(address)) yield* Console.log(String(address.port))
  yield* server.stopped
}))

main.pipe(
  Effect.provide(transport === "epoll" ? EpollTransport.layer : Layer.orDie(NodeTransport.layer)),
  // What is printed is what the tests read.
  Effect.provideService(References.MinimumLogLevel, "Error"),
  NodeRuntime.runMain({ teardown: Server.teardown })
)
