import type * as Clock from "effect/Clock"

/**
 * Milliseconds by the monotonic clock. Every duration goes by it: the wall clock is set now and then, by an administrator
 * or by NTP.
 */
export const monotonicMillis = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1_000_000
