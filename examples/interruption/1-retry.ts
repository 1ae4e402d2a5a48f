// Mistake 1: after a time-out, the whole message is sent again, although its front has left already.
import * as Effect from "effect/Effect"
import { Buffers, Cancellation, type StreamSocket, Write } from "../../src/index.ts"

// #region wrong
export const wrong = (socket: StreamSocket.StreamSocket, message: Uint8Array) =>
  Write.writeAll(socket, message).pipe(
    Cancellation.partial,
    Effect.timeout("1 second"),
    Effect.retry({ times: 3 })
  )
// #endregion

// #region right
export const right = (socket: StreamSocket.StreamSocket, message: Uint8Array) =>
  Effect.suspend(() => {
    const cursor = Buffers.cursor(message)
    return Write.writeAll(socket, cursor).pipe(
      Cancellation.partial,
      Effect.timeout("1 second"),
      Effect.retry({ times: 3 })
    )
  })
// #endregion
