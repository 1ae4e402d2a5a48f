// Several connections, each for one request at a time, and only those that are as good as new for the next one.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Pool from "effect/Pool"
import { type SocketError, StreamSocket } from "../../src/index.ts"
import { isUsable } from "./1-reconnect.ts"

// #region pool
const max = 8

export const makePool = <R>(connect: Effect.Effect<StreamSocket.StreamSocket, SocketError.SocketError, R>) =>
  Pool.makeWithTTL({ acquire: connect, min: 0, max, timeToLive: "1 minute" })

export const withConnection = <A, E, R>(
  pool: Pool.Pool<StreamSocket.StreamSocket, SocketError.SocketError>,
  request: (socket: StreamSocket.StreamSocket) => Effect.Effect<A, E, R>
) => {
  const attempt = (stale: number): Effect.Effect<A, E | SocketError.SocketError, R> => {
    const answer = Pool.use(pool, (socket) =>
      Effect.gen(function*() {
        const discard = Effect.andThen(socket.abort, Pool.invalidate(pool, socket))
        // All of them may be stale. A server that ends even new connections is for the request to report.
        if (stale < max && !(yield* StreamSocket.isReusable(socket))) return yield* Effect.as(discard, Option.none<A>())
        const traffic = () => socket.bytesWritten + socket.bytesRead
        const before = traffic()
        return yield* Effect.asSome(Effect.onExit(request(socket), (exit) =>
          isUsable(socket) && (Exit.isSuccess(exit) || traffic() === before) ? Effect.void : discard))
      }))
    return Effect.flatMap(answer, Option.match({ onNone: () => attempt(stale + 1), onSome: Effect.succeed }))
  }
  return attempt(0)
}
// #endregion
