import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Pull from "effect/Pull"
import * as Cancellation from "../../Cancellation.ts"
import type { SocketError } from "../../SocketError.ts"
import { run } from "./run.ts"

/** An async iterator over a pull. Leaving the loop cancels the pull under way as `total`, so no element is lost. */
export class PullIterator<A> implements AsyncIterableIterator<A, undefined> {
  private readonly returned = Cancellation.makeSignal()
  private readonly step: Effect.Effect<IteratorResult<A, undefined>, SocketError>
  private isOver = false

  constructor(pull: Pull.Pull<A, SocketError>) {
    this.step = Effect.matchEffect(Cancellation.withSignal(pull, this.returned), {
      onSuccess: (value) => Effect.succeed({ done: false, value }),
      onFailure: (error) => {
        this.isOver = true
        // Only `return` can have aborted it under this signal.
        return Cause.isDone(error) || error.reason._tag === "OperationAborted"
          ? Effect.succeed(finished)
          : Effect.fail(error)
      }
    })
  }

  next(): Promise<IteratorResult<A, undefined>> {
    return this.isOver ? Promise.resolve(finished) : run(this.step)
  }

  return(): Promise<IteratorResult<A, undefined>> {
    this.isOver = true
    this.returned.emitUnsafe("total")
    return Promise.resolve(finished)
  }

  [Symbol.asyncIterator](): this {
    return this
  }
}

// ---- internal

const finished = { done: true, value: undefined } as const
