import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { Acceptor } from "../../Acceptor.ts"
import type { SocketError } from "../../SocketError.ts"
import type { StreamSocket } from "../../StreamSocket.ts"

/**
 * The loop of every server: takes one connection after the other, and pauses when one could not be taken. Fails with
 * `Closed`, and with `OperationAborted` when it was asked to stop.
 */
export const accepting = <R>(acceptor: Acceptor, on: {
  /** What to wait for before the next connection is taken. */
  readonly ready?: Effect.Effect<void> | undefined
  /** Runs uninterruptibly, from the moment in which the connection is taken. */
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
    // As many in a turn as there are: on a busy process, one in each would be too few.
    { disableYield: true }
  )
}

const acceptPause: Duration.Input = "50 millis"
