/** A server over a network in memory, what it logs, and handlers that several test files use. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Logger from "effect/Logger"
import * as NetAddress from "effect/net/NetAddress"
import * as References from "effect/References"
import { setImmediate } from "node:timers/promises"
import * as Read from "../../src/Read.ts"
import * as Server from "../../src/Server.ts"
import type { SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import { type Backing, type ListenerBacking, Transport, WouldBlock } from "../../src/Transport.ts"
import * as Write from "../../src/Write.ts"
import { ending } from "./effects.ts"

export const address = NetAddress.inetAddressFromStringUnsafe
export const anyPort = address("127.0.0.1:0")

/** Lets what waits in microtasks and in the scheduler happen. */
export const settle = Effect.promise(async () => {
  for (let i = 0; i < 3; i++) await setImmediate()
})

export interface Line {
  readonly level: string
  readonly text: string
  readonly annotations: Readonly<Record<string, unknown>>
}

/** Collects what is logged, debug included. */
export const logs = () => {
  const lines: Array<Line> = []
  const logger = Logger.make<unknown, void>(({ cause, fiber, logLevel, message }) => {
    const annotations = fiber.getRef(References.CurrentLogAnnotations)
    lines.push({ level: logLevel, text: `${String(message)} ${Cause.pretty(cause)}`.trim(), annotations })
  })
  const capture = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    effect.pipe(Effect.provideService(References.MinimumLogLevel, "All"), Effect.provide(Logger.layer([logger])))
  return { lines, capture }
}

/** A server that ends at once with its scope, unless the test says otherwise. */
export const serving = <E, R, L extends Server.Addresses = NetAddress.InetAddress, R2 = never>(
  handler: Server.Handler<E, R>,
  options: Partial<Server.Options<E, L, R2>> = {}
) =>
  Effect.gen(function*() {
    const { capture, lines } = logs()
    const server = yield* capture(
      Server.make<E, R, L | NetAddress.InetAddress, R2>(handler, {
        listen: anyPort,
        shutdown: { deadline: 0 },
        ...options
      })
    )
    const connect = StreamSocket.connect(server.addresses[0])
    return { server, lines, connect }
  })

/** A listener whose attempts answer what the test put there. */
export class FakeListener implements ListenerBacking {
  readonly address = address("127.0.0.1:7000")
  private readonly answers: Array<Backing | SocketError> = []
  private acceptable: () => void = () => {}
  attach(events: { readonly acceptable: () => void }): void {
    this.acceptable = events.acceptable
  }
  accept(): Backing | typeof WouldBlock | SocketError {
    return this.answers.shift() ?? WouldBlock
  }
  close(): void {}
  /** For whoever asks; it tells nobody. */
  hold(...answers: ReadonlyArray<Backing | SocketError>): void {
    this.answers.push(...answers)
  }
  offer(...answers: ReadonlyArray<Backing | SocketError>): void {
    this.hold(...answers)
    this.acceptable()
  }
}

/** A server with such a listener. */
export const listening = (
  handler: Server.Handler<unknown, never>,
  options: Partial<Server.Options> = {}
) =>
  Effect.gen(function*() {
    const listener = new FakeListener()
    const { lines, server } = yield* Effect.provideService(
      serving(handler, { ...options, listen: anyPort }),
      Transport,
      {
        name: "fake",
        connect: () => Effect.die("not here"),
        listen: () => Effect.succeed(listener)
      }
    )
    return { lines, listener, server }
  })

export const echo: Server.Handler<unknown, never> = (socket) => {
  const buffer = new Uint8Array(64)
  return Effect.forever(Effect.flatMap(
    socket.readSome(buffer),
    (count) => Write.writeAll(socket, buffer.subarray(0, count))
  ))
}

/** The next bytes of a connection, as text. */
export const received = (client: StreamSocket.StreamSocket, count: number) => {
  const target = new Uint8Array(count)
  return Effect.map(Read.readExactly(client, target), () => Buffer.from(target).toString("latin1"))
}

/** How the other end meets the end of its connection: what was sent before it, and one word for the end itself. */
export const farewellOf = (client: StreamSocket.StreamSocket) =>
  Effect.gen(function*() {
    const buffer = new Uint8Array(1024)
    let text = ""
    while (true) {
      const exit = yield* Effect.exit(client.readSome(buffer))
      if (exit._tag === "Failure") return `${text}${text === "" ? "" : ", "}${ending(exit)}`
      text += Buffer.from(buffer.subarray(0, exit.value)).toString("latin1")
    }
  })
