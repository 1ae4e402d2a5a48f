// A question that is given up after its deadline, on a connection that goes on.
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import { Cancellation, Framing, type StreamSocket } from "../../src/index.ts"
import { sent } from "./3-not-sent.ts"

// #region client
export const makeClient = (socket: StreamSocket.StreamSocket) => {
  const lines = Framing.text(Framing.lines())
  const turn = Semaphore.makeUnsafe(1)
  // Answers that are still to come, the one that is waited for included.
  let owed = 0
  const answer = Effect.map(Framing.receive(socket, lines), (line) => {
    owed--
    return line
  })
  return (question: string) =>
    Effect.gen(function*() {
      yield* Effect.onExit(Framing.send(socket, lines, question), (exit) =>
        Effect.sync(() => {
          if (sent(exit) === "everything") owed++
        }))
      for (let late = owed - 1; late > 0; late--) yield* answer
      return yield* answer
    }).pipe(
      Cancellation.cancelAfter("1 second", "total"),
      Cancellation.cancelAfter("5 seconds", "terminal"),
      Cancellation.total({ within: "5 seconds" }),
      Semaphore.withPermit(turn)
    )
}
// #endregion
