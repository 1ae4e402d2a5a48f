// A server that stops: idle handlers at once, busy handlers at the end of their messages, and all of them in the end.
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as FiberSet from "effect/FiberSet"
import * as Schedule from "effect/Schedule"
import { Acceptor, Cancellation, type StreamSocket } from "../../src/index.ts"

// #region serve
export const serve = <E, R>(
  acceptor: Acceptor.Acceptor,
  handler: (socket: StreamSocket.StreamSocket) => Effect.Effect<unknown, E, R>
) =>
  Effect.gen(function*() {
    const signal = Cancellation.makeSignal()
    const handlers = yield* FiberSet.make<unknown, E>()
    const handle = (socket: StreamSocket.StreamSocket) =>
      FiberSet.run(handlers, Cancellation.withSignal(handler(socket), signal), { startImmediately: true })
    const serving = yield* Acceptor.serve(acceptor, (socket) => Effect.flatMap(handle(socket), Fiber.join)).pipe(
      // When it ends it takes its handlers with it, and closing the acceptor ends it.
      Effect.catch(() => Effect.never),
      Effect.forkScoped
    )
    const stop = Effect.gen(function*() {
      yield* acceptor.close
      const escalation = yield* Cancellation.escalate(signal, {
        schedule: Schedule.spaced("5 seconds"),
        until: FiberSet.awaitEmpty(handlers)
      })
      yield* Fiber.interrupt(serving)
      return escalation
    })
    return { stop }
  })
// #endregion
