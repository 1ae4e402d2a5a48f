import * as Cause from "effect/Cause"
import type * as Cancellation from "../../Cancellation.ts"
import { assertType, type Cancellable, Signal } from "../cancellation/signal.ts"

/** The signal by which a drain reaches every waiting operation of the server. */
export class DrainSignal extends Signal {
  /** The defect of the first filter that threw. */
  failure: Cause.Cause<never> | undefined = undefined
  /** Runs when an operation begins to wait. */
  onWait: (() => void) | undefined = undefined

  constructor() {
    super("signal")
  }

  // Filters are code of handlers. One that throws would keep the request from all other operations, so it counts as a
  // refusal.
  override add(operation: Cancellable, filter: Cancellation.Filter | undefined): void {
    this.onWait?.()
    super.add(
      operation,
      filter && ((type) => {
        try {
          const answer = filter(type)
          if (answer !== undefined) assertType("a filter's answer", answer)
          return answer
        } catch (error) {
          this.failure ??= Cause.die(error)
          return undefined
        }
      })
    )
  }
}
