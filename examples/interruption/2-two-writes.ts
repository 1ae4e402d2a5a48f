// Mistake 2: header and body are two writes, and an interruption between them cuts the message without a trace.
import * as Effect from "effect/Effect"
import { Cancellation, type StreamSocket, Write } from "../../src/index.ts"

// #region wrong
export const wrong = (socket: StreamSocket.StreamSocket, header: Uint8Array, body: Uint8Array) =>
  Write.writeAll(socket, header).pipe(
    Effect.andThen(Write.writeAll(socket, body)),
    Cancellation.total({ within: "2 seconds" })
  )
// #endregion

// #region right
export const right = (socket: StreamSocket.StreamSocket, header: Uint8Array, body: Uint8Array) =>
  Write.writeAll(socket, [header, body]).pipe(
    Cancellation.total({ within: "2 seconds" })
  )
// #endregion
