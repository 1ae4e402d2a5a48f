// Mistake 5: the error of a cut write is ignored, and so is everything that is sent after it.
import * as Effect from "effect/Effect"
import { type StreamSocket, Write } from "../../src/index.ts"

// #region wrong
export const wrong = (socket: StreamSocket.StreamSocket, messages: ReadonlyArray<Uint8Array>) =>
  Effect.forEach(messages, (message) =>
    Write.writeAll(socket, message).pipe(
      Effect.timeout("1 second"),
      Effect.ignore
    ))
// #endregion

// #region right
export const right = (socket: StreamSocket.StreamSocket, messages: ReadonlyArray<Uint8Array>) =>
  Effect.forEach(messages, (message) =>
    Write.writeAll(socket, message).pipe(
      Effect.timeout("1 second")
    )).pipe(Effect.onError(() => socket.abort))
// #endregion
