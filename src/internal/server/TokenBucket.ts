/**
 * The token bucket of `Server.Limits.acceptRate`: `limit` tokens at once, and then one for each `limit`th part of the
 * window. Its times are milliseconds of the monotonic clock. The rate limiter of Effect goes by the wall clock, and stops
 * for as long as that is set back.
 */
export class TokenBucket {
  /** The time between two tokens. */
  private readonly interval: number
  private readonly window: number
  /** When the bucket is full again. */
  private fullAt = -Infinity

  constructor(limit: number, window: number) {
    this.interval = window / limit
    this.window = window
  }

  /** Takes the next token, and answers how long it is until there is one: 0 if there is one now. */
  take(now: number): number {
    const wait = this.waitFrom(now)
    this.fullAt = Math.max(this.fullAt, now) + this.interval
    return wait
  }

  /** Takes a token if there is one now. */
  tryTake(now: number): boolean {
    if (this.waitFrom(now) > 0) return false
    this.take(now)
    return true
  }

  private waitFrom(now: number): number {
    const wait = this.fullAt + this.interval - this.window - now
    return wait > roundingError ? wait : 0
  }
}

// ---- internal

// Milliseconds. The parts of a window need not be whole numbers, and their sum need not be the window.
const roundingError = 0.001
