import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { Address, SocketError } from "../../SocketError.ts"
import { counters } from "../base/counters.ts"
import { aborted, type Cancellable, CurrentRegion, outsideOf, type Region, type Request, type Type } from "./signal.ts"

/**
 * Lets requests reach an effect that an interruption cuts whole: it is
 * interrupted, and a typed failure takes its place. `keeps` is what cutting it
 * guarantees: requests for more than that are not honoured.
 */
export const cuttable = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  what: { readonly operation: string; readonly address: () => Address | undefined },
  keeps: "total" | "terminal" = "total"
): Effect.Effect<A, E | SocketError, R> =>
  Effect.withFiber((fiber) => {
    const region = fiber.getRef(CurrentRegion)
    return region === undefined
      ? effect
      // What it consists of is cut with it, and not by itself.
      : Effect.raceFirst(outsideOf(effect), new Cut(what.operation, what.address(), region, keeps).wait)
  })

class Cut implements Cancellable {
  readonly operation: string
  readonly address: Address | undefined
  readonly transferred = 0
  readonly total = 0
  private readonly region: Region
  private readonly keeps: "total" | "terminal"
  private exit: Exit.Exit<never, SocketError> | undefined = undefined
  private resume: ((exit: Exit.Exit<never, SocketError>) => void) | undefined = undefined

  constructor(operation: string, address: Address | undefined, region: Region, keeps: "total" | "terminal") {
    this.operation = operation
    this.address = address
    this.region = region
    this.keeps = keeps
  }

  get wait(): Effect.Effect<never, SocketError> {
    return Effect.callback((resume) => {
      this.resume = resume
      this.region.enter(this)
      return Effect.sync(() => this.region.leave(this))
    })
  }

  withdraw(request: Request): Type | undefined {
    if (this.exit !== undefined || (this.keeps === "terminal" && request.type !== "terminal")) return undefined
    this.region.leave(this)
    this.exit = Exit.fail(aborted(this, request, this.keeps))
    counters.cancelled[this.keeps]++
    return this.keeps
  }

  conclude(): void {
    if (this.exit !== undefined) this.resume?.(this.exit)
  }
}
