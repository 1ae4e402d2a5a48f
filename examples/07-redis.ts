// Redis: a thousand commands at once over one connection, pub/sub in one fiber, and an interruption that harms no other request.
//
//   node examples/07-redis.ts [--port 6379] [--host localhost] [--unix PATH]
//
// It needs a server (`redis-server --port 6379 --save ""` will do) and uses keys that begin with "effect-asio:".
// The client is `examples/redis/resp.ts`.
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import { Console, Effect, Fiber, Stream } from "effect"
import * as NetAddress from "effect/net/NetAddress"
import { parseArgs } from "node:util"
import { Buffers, StreamSocket } from "../src/index.ts"
import * as NodeTransport from "../src/transport/NodeTransport.ts"
import * as Redis from "./redis/resp.ts"

const options = Effect.try({
  try: () =>
    parseArgs({
      options: {
        port: { type: "string", default: "6379" },
        host: { type: "string", default: "localhost" },
        unix: { type: "string" }
      }
    }).values,
  catch: (cause) => cause instanceof Error ? cause : new Error(String(cause))
})

const show = (reply: Redis.Reply): string =>
  reply instanceof Uint8Array
    ? Buffers.toUtf8(reply)
    : Array.isArray(reply)
    ? `[${reply.map(show).join(", ")}]`
    : String(reply)

const main = Effect.gen(function*() {
  const { host, port, unix } = yield* options
  const connect = StreamSocket.connect(
    unix === undefined ? { host, port: Number(port) } : NetAddress.unixPathAddress(unix)
  )
  const redis = yield* Effect.flatMap(connect, Redis.make)
  yield* redis("DEL", "effect-asio:counter", "effect-asio:blob")

  // Each command leaves without waiting for the answers before it, and each fiber gets its own answer.
  const increments = Array.from({ length: 1000 }, () => redis("INCR", "effect-asio:counter"))
  const answers = yield* Effect.all(increments, { concurrency: "unbounded" })
  yield* Console.log(`${answers.length} commands at once, the last answer is ${show(answers.at(-1)!)}`)

  const messages = yield* Effect.flatMap(connect, (socket) => Redis.subscribe(socket, "effect-asio:news"))
  const reader = yield* messages.pipe(Stream.take(2), Stream.runCollect, Effect.forkChild)
  yield* redis("PUBLISH", "effect-asio:news", "one")
  yield* redis("PUBLISH", "effect-asio:news", "two")
  for (const message of yield* Fiber.join(reader)) yield* Console.log(`published: ${show(message)}`)

  // Interrupted in the middle of its bytes, the big command leaves whole; the one behind it gets its own answer.
  const size = 8 * 1_048_576
  const before = yield* Effect.forkChild(redis("GET", "effect-asio:counter"), { startImmediately: true })
  const big = yield* Effect.forkChild(redis("SET", "effect-asio:blob", new Uint8Array(size)), {
    startImmediately: true
  })
  const behind = yield* Effect.forkChild(redis("STRLEN", "effect-asio:blob"), { startImmediately: true })
  yield* Fiber.interrupt(big)
  yield* Console.log(`before the interrupted command: ${show(yield* Fiber.join(before))}`)
  yield* Console.log(`behind it: ${show(yield* Fiber.join(behind))} bytes were set`)
  yield* redis("DEL", "effect-asio:counter", "effect-asio:blob")
}).pipe(
  Effect.catch((error) => Effect.andThen(Console.error(error.message), Effect.sync(() => process.exitCode = 1))),
  Effect.scoped,
  Effect.provide(NodeTransport.layer)
)

NodeRuntime.runMain(main)
