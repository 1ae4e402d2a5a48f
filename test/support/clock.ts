/** A clock that runs as the real one does, and whose time on the wall can be set. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

export const settableClock = () => {
  let offset = 0
  const real = Effect.runSync(Clock.clockWith((clock) => Effect.succeed(clock)))
  const millis = () => real.currentTimeMillisUnsafe() + offset
  const nanos = () => real.currentTimeNanosUnsafe() + BigInt(offset) * 1_000_000n
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: millis,
    currentTimeMillis: Effect.sync(millis),
    currentTimeNanosUnsafe: nanos,
    currentTimeNanos: Effect.sync(nanos),
    monotonicTimeNanosUnsafe: () => real.monotonicTimeNanosUnsafe(),
    monotonicTimeNanos: real.monotonicTimeNanos,
    sleep: (duration) => real.sleep(duration)
  }
  return {
    clock,
    /** As an administrator or NTP does it: by so many milliseconds. */
    set: (by: number): Effect.Effect<void> => Effect.sync(() => void (offset += by)),
    provide: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.provideService(effect, Clock.Clock, clock)
  }
}

export const hour = 60 * 60 * 1000
