/**
 * How the end of a handler ends its connection, as a peer of `node:net` sees it: the one rule of `Acceptor.serve` and
 * `Server`.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Net from "node:net"
import * as Acceptor from "../../src/Acceptor.ts"
import * as Cancellation from "../../src/Cancellation.ts"
import * as Server from "../../src/Server.ts"
import type { StreamSocket } from "../../src/StreamSocket.ts"
import type { Transport } from "../../src/Transport.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import * as Write from "../../src/Write.ts"
import { anyPort, portOf } from "../support/addresses.ts"
import { logs } from "../support/logs.ts"
import { eventually, steady } from "../support/waiting.ts"

const size = 32 * 1024 * 1024
const message = new Uint8Array(size)

type Handler = (socket: StreamSocket, clogged: Effect.Effect<void>) => Effect.Effect<unknown, unknown>

const interruptedWhen = <A, E>(ready: Effect.Effect<void>, effect: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.withFiber((fiber) =>
    Effect.andThen(Effect.forkDetach(Effect.andThen(ready, Effect.sync(() => fiber.interruptUnsafe()))), effect)
  )

/** `clogged` waits until no more bytes are taken: the peer reads nothing before that. */
const handlers: Record<string, { readonly handler: Handler; readonly logged: boolean }> = {
  "a time-out": {
    handler: (socket, clogged) => Effect.raceFirst(Write.writeAll(socket, message), clogged),
    logged: false
  },
  "an interruption of its own fiber": {
    handler: (socket, clogged) => interruptedWhen(clogged, Write.writeAll(socket, message)),
    logged: false
  },
  "an interruption of its own fiber under partial": {
    handler: (socket, clogged) => interruptedWhen(clogged, Cancellation.partial(Write.writeAll(socket, message))),
    logged: false
  },
  "a partial request, which ends the handler": {
    handler: (socket, clogged) =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        yield* Effect.forkDetach(Effect.andThen(clogged, signal.emit("partial")))
        return yield* Cancellation.withSignal(Write.writeAll(socket, message), signal)
      }),
    logged: false
  },
  "a terminal request, after which the handler succeeds": {
    handler: (socket, clogged) =>
      Effect.gen(function*() {
        const signal = Cancellation.makeSignal()
        yield* Effect.forkDetach(Effect.andThen(clogged, signal.emit("terminal")))
        yield* Effect.ignore(Cancellation.withSignal(Write.writeAll(socket, message), signal))
      }),
    logged: false
  },
  "a condition that dies": {
    handler: (socket) =>
      Write.writeAll(socket, message, (transferred) => {
        if (transferred > 0) throw new Error("a condition of the program's own")
        return 1000
      }),
    logged: true
  }
}

type Serve = (handler: (socket: StreamSocket) => Effect.Effect<unknown, unknown>) => Effect.Effect<
  number,
  unknown,
  Transport | Scope.Scope
>

/** Each starts a server and completes with its port. */
const servers: Record<string, Serve> = {
  "Acceptor.serve": (handler) =>
    Effect.gen(function*() {
      const acceptor = yield* Acceptor.listen(anyPort)
      yield* Effect.forkScoped(Acceptor.serve(acceptor, handler), { startImmediately: true })
      return portOf(acceptor.address)
    }),
  "Server": (handler) =>
    Effect.map(
      // What a failed handler gets is not what this is about.
      Server.make(handler, { listen: anyPort, onFailure: "close", shutdown: { deadline: 0 } }),
      (server) => portOf(server.addresses[0])
    )
}

/** Connects, reads nothing until `handled`, then reads to the end. */
const peer = (port: number, handled: () => boolean) =>
  Effect.gen(function*() {
    const socket = yield* Effect.acquireRelease(
      Effect.sync(() => Net.connect({ host: "127.0.0.1", port, allowHalfOpen: true }).pause()),
      (socket) => Effect.sync(() => socket.destroy())
    )
    let received = 0
    let ending: string | undefined
    socket.on("data", (chunk: Buffer) => {
      received += chunk.byteLength
    })
    socket.on("end", () => {
      ending ??= "end of stream"
    })
    socket.on("error", (error: NodeJS.ErrnoException) => {
      ending ??= error.code ?? error.message
    })
    yield* eventually("the end of the handler", handled)
    socket.resume()
    yield* eventually("the end of the connection", () => ending !== undefined)
    return { received, ending }
  })

const transports: Record<string, Layer.Layer<Transport, unknown>> = {
  NodeTransport: NodeTransport.layer,
  ...(EpollTransport.isSupported() ? { EpollTransport: EpollTransport.layer } : undefined)
}

for (const [transport, layer] of Object.entries(transports)) {
  for (const [name, serve] of Object.entries(servers)) {
    describe(`${name} over ${transport} resets a connection whose handler was cut inside a message by`, () => {
      for (const [what, { handler, logged }] of Object.entries(handlers)) {
        it.live(what, () =>
          Effect.gen(function*() {
            const { capture, lines } = logs()
            let isOver = false
            const port = yield* capture(serve((socket) =>
              Effect.ensuring(
                handler(socket, steady(() => socket.bytesWritten)),
                Effect.sync(() => {
                  isOver = true
                })
              )
            ))
            const { ending, received } = yield* peer(port, () => isOver)
            assert.strictEqual(ending, "ECONNRESET")
            assert.isBelow(received, size)
            const errors = lines.filter(({ level }) => level === "ERROR" || level === "Error")
            if (logged) {
              yield* eventually("the log of the failure", () => lines.some(({ text }) => text.includes("failed")))
            } else assert.deepStrictEqual(errors, [])
          }).pipe(Effect.scoped, Effect.provide(layer)))
      }

      it.live("nothing: a handler that has written everything gets a FIN", () =>
        Effect.gen(function*() {
          let isOver = false
          const port = yield* serve((socket) =>
            Effect.andThen(
              Write.writeAll(socket, message.subarray(0, 100_000)),
              Effect.sync(() => {
                isOver = true
              })
            )
          )
          assert.deepStrictEqual(yield* peer(port, () => isOver), { received: 100_000, ending: "end of stream" })
        }).pipe(Effect.scoped, Effect.provide(layer)))
    })
  }
}
