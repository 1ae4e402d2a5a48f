/**
 * Sends messages of 100 bytes one way, waits for the answer to the last one, and prints the result as JSON.
 *
 * Usage: node test/bench/frames.ts stream|each|json|ndjson|ndjson-each PORT COUNT
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as NodeSocket from "@effect/platform-node/NodeSocket"
import * as Effect from "effect/Effect"
import * as Ndjson from "effect/encoding/Ndjson"
import * as NetAddress from "effect/net/NetAddress"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Framing, StreamSocket, type Transport } from "../../src/index.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import type { Result } from "./load.ts"
import * as Messages from "./messages.ts"

const [mode, ...numbers] = process.argv.slice(2)
const [port = 0, count = 0] = numbers.map(Number)

/** How many messages a producer has ready at once, where it does not send each by itself. */
const together = 64

const lengths = Framing.lengthPrefixed()
const json = Framing.json(lengths)

const connect = StreamSocket.connect(NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${port}`))

const streaming = <A>(
  framing: Framing.Framing<A, A, unknown>,
  make: (index: number) => A,
  indexOf: (message: A) => number
) =>
(count: number) =>
  Effect.gen(function*() {
    const socket = yield* connect
    yield* Stream.run(Messages.stream(make, count, together), Framing.sink(socket, framing))
    return indexOf(yield* Framing.receive(socket, framing))
  })

const each = (count: number) =>
  Effect.gen(function*() {
    const socket = yield* connect
    for (const message of Messages.all(Messages.bytes, count)) yield* Framing.send(socket, lengths, message)
    return Messages.indexOf(yield* Framing.receive(socket, lengths))
  })

const ndjson = (together: number) => (count: number) => {
  const channel = Ndjson.duplex(
    NodeSocket.makeNetChannel<Ndjson.NdjsonError>({ host: "127.0.0.1", port, noDelay: true })
  )
  return Messages.stream(Messages.json, count, together).pipe(
    Stream.concat(Stream.never),
    Stream.pipeThroughChannel(channel),
    Stream.runHead,
    Effect.map(Option.match({ onNone: () => 0, onSome: Messages.indexOfJson }))
  )
}

const modes: Record<string, (count: number) => Effect.Effect<number, unknown, Transport.Transport | Scope.Scope>> = {
  stream: streaming(lengths, Messages.bytes, Messages.indexOf),
  each,
  json: streaming(json, Messages.json, Messages.indexOfJson),
  ndjson: ndjson(together),
  "ndjson-each": ndjson(1)
}

const main = Effect.gen(function*() {
  const run = modes[String(mode)]
  if (run === undefined) throw new Error(`no mode ${mode}`)
  yield* Effect.scoped(run(Messages.warmUp(count)))
  const start = performance.now()
  const received = yield* Effect.scoped(run(count))
  if (received !== count) throw new Error(`${count} messages were sent, and ${received} received`)
  console.log(JSON.stringify({ count, seconds: (performance.now() - start) / 1000 } satisfies Result))
})

main.pipe(Effect.scoped, Effect.provide(NodeTransport.layer), NodeRuntime.runMain)
