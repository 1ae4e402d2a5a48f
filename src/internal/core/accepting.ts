import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Acceptor } from "../../Acceptor.ts"
import type { SocketError } from "../../SocketError.ts"
import type { StreamSocket } from "../../StreamSocket.ts"

/**
 * The accept loop of `Acceptor.serve` and `Server`: accepts one connection after the other, and pauses for 50 ms after
 * one that could not be accepted. Fails with `Closed`, and with `OperationAborted` when a request ends it.
 */
export const accepting = <R>(acceptor: Acceptor, on: {
  /** What to wait for before the next connection is accepted. */
  readonly ready?: Effect.Effect<void> | undefined
  /** Runs uninterruptibly from the moment in which the connection is accepted, so that it always gets an owner. */
  readonly accepted: (
    socket: StreamSocket,
    restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  ) => Effect.Effect<unknown, never, R>
  readonly failed: (error: SocketError) => Effect.Effect<unknown, never, R>
}): Effect.Effect<never, SocketError, R> => {
  const next = on.ready === undefined ? acceptor.take : Effect.andThen(on.ready, acceptor.take)
  return Effect.forever(
    Effect.uninterruptibleMask((restore) =>
      Effect.matchEffect(restore(next), {
        onSuccess: (socket) => on.accepted(socket, restore),
        onFailure: (error) =>
          error.reason._tag === "Closed" || error.reason._tag === "OperationAborted"
            ? Effect.fail(error)
            : Effect.andThen(on.failed(error), restore(Effect.sleep(acceptPause)))
      })
    ),
    // Accepts all that wait in one turn: on a busy process, one a turn would be too few.
    { disableYield: true }
  )
}

const acceptPause: Duration.Input = "50 millis"
