// A peer that has not been heard of for a while is asked, and given up when it does not answer.
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { StreamSocket } from "../../src/index.ts"

// #region alive
export const alive = <A, E, R>(
  socket: StreamSocket.StreamSocket,
  ping: Effect.Effect<A, E, R>,
  options: { readonly idle: Duration.Input; readonly within: Duration.Input }
) =>
  Effect.gen(function*() {
    while (true) {
      const before = socket.bytesRead
      yield* Effect.sleep(options.idle)
      if (socket.bytesRead === before) yield* Effect.timeout(ping, options.within)
    }
  }).pipe(Effect.onError(() => socket.abort))
// #endregion

// #region session
export const session = <A, E, R, E2, R2>(
  socket: StreamSocket.StreamSocket,
  work: Effect.Effect<A, E, R>,
  ping: Effect.Effect<unknown, E2, R2>
) => Effect.raceFirst(work, alive(socket, ping, { idle: "30 seconds", within: "5 seconds" }))
// #endregion
