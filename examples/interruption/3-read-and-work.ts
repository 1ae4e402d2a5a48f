// Mistake 3: the time-out covers the read and the work on what was read, so it can hit when the bytes are consumed.
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Read, type StreamSocket } from "../../src/index.ts"

type Work = (line: Uint8Array) => Effect.Effect<void>

// #region wrong
export const wrong = (socket: StreamSocket.StreamSocket, work: Work) =>
  Read.readUntil(socket, "\n").pipe(
    Effect.flatMap(work),
    Effect.timeoutOption("1 second")
  )
// #endregion

// #region right
export const right = (socket: StreamSocket.StreamSocket, work: Work) =>
  Read.readUntil(socket, "\n").pipe(
    Effect.timeoutOption("1 second"),
    Effect.flatMap(Option.match({ onNone: () => Effect.void, onSome: work }))
  )
// #endregion
