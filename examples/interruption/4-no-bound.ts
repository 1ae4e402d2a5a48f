// Mistake 4: a write that must not be cut waits for a peer that never reads, and so does the fiber that interrupts it.
import * as Effect from "effect/Effect"
import { Cancellation, type StreamSocket, Write } from "../../src/index.ts"

// #region wrong
export const wrong = (socket: StreamSocket.StreamSocket, message: Uint8Array) =>
  Write.writeAll(socket, message).pipe(
    Cancellation.total(),
    Effect.timeoutOption("1 second")
  )
// #endregion

// #region right
export const right = (socket: StreamSocket.StreamSocket, message: Uint8Array) =>
  Write.writeAll(socket, message).pipe(
    Cancellation.total({ within: "2 seconds" }),
    Effect.timeoutOption("1 second")
  )
// #endregion
