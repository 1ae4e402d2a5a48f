// Several connections, each for one request at a time, and only those that are as good as new for the next one.
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pool from "effect/Pool"
import type { SocketError, StreamSocket } from "../../src/index.ts"
import { isUsable } from "./1-reconnect.ts"

// #region pool
export const makePool = <R>(connect: Effect.Effect<StreamSocket.StreamSocket, SocketError.SocketError, R>) =>
  Pool.makeWithTTL({ acquire: connect, min: 0, max: 8, timeToLive: "1 minute" })

export const withConnection = <A, E, R>(
  pool: Pool.Pool<StreamSocket.StreamSocket, SocketError.SocketError>,
  request: (socket: StreamSocket.StreamSocket) => Effect.Effect<A, E, R>
) =>
  Pool.use(pool, (socket) => {
    const traffic = () => socket.bytesWritten + socket.bytesRead
    const before = traffic()
    return Effect.onExit(request(socket), (exit) =>
      isUsable(socket) && (Exit.isSuccess(exit) || traffic() === before)
        ? Effect.void
        : Effect.andThen(socket.abort, Pool.invalidate(pool, socket)))
  })
// #endregion
