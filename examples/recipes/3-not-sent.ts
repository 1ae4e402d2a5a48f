// Not sent, maybe sent, done: what became of a request, and which ones may be sent again.
import * as Cause from "effect/Cause"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import { Buffers, Cancellation, SocketError, type StreamSocket, Write } from "../../src/index.ts"
import { backoff } from "./1-reconnect.ts"

// #region request
export class NotSent extends Data.TaggedError("NotSent")<{ readonly cause: unknown }> {}

export class MaybeSent extends Data.TaggedError("MaybeSent")<{
  readonly transferred: number
  readonly total: number
  readonly cause: unknown
}> {}

export const request = <A, E, R>(
  socket: StreamSocket.StreamSocket,
  message: Buffers.Input,
  answer: Effect.Effect<A, E, R>
) =>
  Effect.suspend(() => {
    const cursor = Buffers.cursor(message)
    return Write.writeAll(socket, cursor).pipe(
      Effect.andThen(answer),
      Effect.timeout("2 seconds"),
      Effect.mapError((cause) => {
        const { total, transferred } = cursor
        return transferred === 0 ? new NotSent({ cause }) : new MaybeSent({ transferred, total, cause })
      })
    )
  })
// #endregion

// #region retry
export const retry = <A, E, R>(
  request: Effect.Effect<A, E | NotSent | MaybeSent, R>,
  options: { readonly isIdempotent: boolean }
) =>
  Effect.retry(request, {
    schedule: backoff,
    while: (error) => error instanceof NotSent || (options.isIdempotent && error instanceof MaybeSent)
  })
// #endregion

// #region sent
export const sent = <E>(sending: Exit.Exit<number, E>): "nothing" | "a part" | "everything" => {
  const outcome = Cancellation.outcome(sending)
  switch (outcome._tag) {
    case "Completed":
      return "everything"
    case "Cancelled":
      return outcome.transferred === 0
        ? "nothing"
        : outcome.transferred < outcome.total
        ? "a part"
        : "everything"
    case "Failed": {
      const error = Option.getOrUndefined(Cause.findErrorOption(outcome.cause))
      return SocketError.isSocketError(error) && error.transferred > 0 ? "a part" : "nothing"
    }
  }
}
// #endregion
