// One connection for all fibers, made anew when it is torn or closed.
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as RcRef from "effect/RcRef"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { SocketError, StreamSocket } from "../../src/index.ts"

// #region backoff
const cap = Duration.seconds(10)

export const backoff = Schedule.exponential("100 millis").pipe(
  Schedule.modifyDelay(({ duration }) =>
    Effect.map(Random.next, (random) => Duration.times(Duration.min(duration, cap), random))
  )
)
// #endregion

// #region shared
export const isUsable = ({ state }: StreamSocket.StreamSocket): boolean =>
  state.socket === "open" && state.read === "open" && state.write === "open"

export const shared = <R>(connect: Effect.Effect<StreamSocket.StreamSocket, SocketError.SocketError, R>) =>
  Effect.map(
    RcRef.make({ acquire: Effect.retry(connect, backoff), idleTimeToLive: Duration.infinity }),
    (ref) => {
      type Current = Effect.Effect<StreamSocket.StreamSocket, SocketError.SocketError, Scope.Scope>
      const current: Current = Effect.flatMap(RcRef.get(ref), (socket) =>
        isUsable(socket) ? Effect.succeed(socket) : Effect.andThen(RcRef.invalidate(ref), current))
      return current
    }
  )
// #endregion
