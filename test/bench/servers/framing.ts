/**
 * Receives messages over this library and answers the last one: `node test/bench/servers/framing.ts PORT stream|each|json`
 */
import * as NodeRuntime from "@effect/platform-node/NodeRuntime"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import * as Pull from "effect/Pull"
import * as Stream from "effect/Stream"
import { Acceptor, Framing, type StreamSocket } from "../../../src/index.ts"
import * as NodeTransport from "../../../src/transport/NodeTransport.ts"
import * as Messages from "../messages.ts"

type Handler = (socket: StreamSocket.StreamSocket) => Effect.Effect<void, unknown>

const lengths = Framing.lengthPrefixed()
const json = Framing.json(lengths)

/** As many at a time as have arrived. */
const streaming = <A>(
  framing: Framing.Framing<A, A, unknown>,
  isLast: (tally: Messages.Tally) => (message: A) => boolean,
  make: (count: number) => A
): Handler =>
(socket) => {
  const tally = new Messages.Tally()
  const check = isLast(tally)
  return Stream.runForEachArray(
    Framing.stream(socket, framing),
    (messages) => messages.some(check) ? Framing.send(socket, framing, make(tally.count)) : Effect.void
  )
}

/** One after the other. */
const each: Handler = (socket) => {
  const tally = new Messages.Tally()
  return Framing.receive(socket, lengths).pipe(
    Effect.flatMap((message) =>
      tally.bytes(message) ? Framing.send(socket, lengths, Messages.bytes(tally.count)) : Effect.void
    ),
    Effect.forever({ disableYield: true }),
    Pull.catchDone(() => Effect.void)
  )
}

const [port, mode] = process.argv.slice(2)

const handler = {
  stream: streaming(lengths, (tally) => tally.bytes, Messages.bytes),
  each,
  json: streaming(json, (tally) => tally.json, Messages.json)
}[String(mode)]

const main = Effect.gen(function*() {
  if (handler === undefined) return yield* Effect.die(new Error(`no mode ${mode}`))
  const acceptor = yield* Acceptor.listen(NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${port}`))
  yield* Console.log(`listening on ${NetAddress.formatUrlUnsafe(acceptor.address, "tcp")}`)
  return yield* Acceptor.serve(acceptor, handler)
})

main.pipe(Effect.scoped, Effect.provide(NodeTransport.layer), NodeRuntime.runMain)
