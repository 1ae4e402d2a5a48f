import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { monotonicMillis } from "./monotonic.ts"

/**
 * The timers of one clock, in the order in which they are due.
 *
 * Nearly all timers are cancelled long before they are due. A fiber and a timer of the platform for each, as a race with
 * a sleep has them, would be much of the cost of closing a connection. So one fiber sleeps for all of them.
 */
class TimerQueue {
  private readonly clock: Clock.Clock
  private first: Timer | undefined = undefined
  private last: Timer | undefined = undefined
  private sleeper: Fiber.Fiber<void> | undefined = undefined
  private isArming = false
  private wakesAt = 0

  constructor(clock: Clock.Clock) {
    this.clock = clock
  }

  /** Milliseconds. */
  get now(): number {
    return monotonicMillis(this.clock)
  }

  add(deadline: Timer, context: Context.Context<never>): void {
    // From the back: the timer that is added last is mostly due last.
    let before = this.last
    while (before !== undefined && before.due > deadline.due) before = before.previous
    const after = before === undefined ? this.first : before.next
    deadline.previous = before
    deadline.next = after
    if (before === undefined) this.first = deadline
    else before.next = deadline
    if (after === undefined) this.last = deadline
    else after.previous = deadline
    if (this.sleeper === undefined) this.arm(context)
    else if (deadline.due < this.wakesAt) this.sleep(deadline.due, context)
  }

  remove(deadline: Timer): void {
    if (deadline.previous === undefined) this.first = deadline.next
    else deadline.previous.next = deadline.next
    if (deadline.next === undefined) this.last = deadline.previous
    else deadline.next.previous = deadline.previous
    deadline.next = deadline.previous = undefined
    // The timer of a sleeping fiber would keep the process alive.
    if (this.first === undefined) this.stop()
  }

  // Starts two turns of the event loop later: most connections are closed by then, and their timers cancelled.
  private arm(context: Context.Context<never>): void {
    if (this.isArming) return
    this.isArming = true
    setImmediate(() =>
      setImmediate(() => {
        this.isArming = false
        if (this.first !== undefined && this.sleeper === undefined) this.sleep(this.first.due, context)
      })
    )
  }

  private sleep(until: number, context: Context.Context<never>): void {
    this.stop()
    this.wakesAt = until
    const rest = Duration.millis(Math.max(Math.ceil(until - this.now), 0))
    const wake = Effect.sync(() => this.wake(context))
    this.sleeper = Effect.runForkWith(context)(Effect.andThen(this.clock.sleep(rest), wake))
  }

  private stop(): void {
    const { sleeper } = this
    this.sleeper = undefined
    sleeper?.interruptUnsafe()
  }

  private wake(context: Context.Context<never>): void {
    this.sleeper = undefined
    try {
      while (this.first !== undefined && this.first.due <= this.now) this.first.pass()
    } finally {
      if (this.first !== undefined && this.sleeper === undefined) this.sleep(this.first.due, context)
    }
  }
}

/** Calls back when its time is over, unless it is cancelled before. */
export class Timer {
  previous: Timer | undefined = undefined
  next: Timer | undefined = undefined
  readonly due: number
  private owner: TimerQueue | undefined
  private readonly onPassed: () => void

  constructor(owner: TimerQueue, due: number, onPassed: () => void) {
    this.owner = owner
    this.due = due
    this.onPassed = onPassed
  }

  cancel(): void {
    const { owner } = this
    this.owner = undefined
    owner?.remove(this)
  }

  pass(): void {
    this.cancel()
    this.onPassed()
  }
}

/** Calls back once, when a finite time has passed on the clock of the context. The call runs outside the caller's fiber. */
export const after = (
  time: Duration.Duration,
  context: Context.Context<never>,
  onPassed: () => void
): Timer => {
  const clock = Context.get(context, Clock.Clock)
  let deadlines = all.get(clock)
  if (deadlines === undefined) all.set(clock, deadlines = new TimerQueue(clock))
  const deadline = new Timer(deadlines, deadlines.now + Duration.toMillis(time), onPassed)
  deadlines.add(deadline, context)
  return deadline
}

// ---- internal

const all = new WeakMap<Clock.Clock, TimerQueue>()
