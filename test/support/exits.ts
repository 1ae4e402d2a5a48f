/** Takes exits apart. */
import { assert } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Cancellation from "../../src/Cancellation.ts"
import { isSocketError, type SocketError } from "../../src/SocketError.ts"

/** The `SocketError` that an exit failed with. */
export const failure = <A, E>(exit: Exit.Exit<A, E>): SocketError => {
  const error = Exit.isFailure(exit) ? Cause.findError(exit.cause) : undefined
  if (error === undefined || Result.isFailure(error) || !isSocketError(error.success)) {
    return assert.fail(`expected a SocketError, got ${show(exit)}`)
  }
  return error.success
}

/** The defect that an exit died with; it has to be an `Error`. */
export const defect = <A, E>(exit: Exit.Exit<A, E>): Error => {
  const found = Exit.isFailure(exit) ? Cause.findDefect(exit.cause) : undefined
  if (found === undefined || Result.isFailure(found) || !(found.success instanceof Error)) {
    return assert.fail(`expected a defect, got ${show(exit)}`)
  }
  return found.success
}

/** One word for how something ended: `Success`, a reason's tag, `Done`, `Die` or `Interrupt`. */
export const ending = <A, E>(exit: Exit.Exit<A, E>): string => {
  if (Exit.isSuccess(exit)) return "Success"
  if (Cause.hasDies(exit.cause)) return "Die"
  const error = Cause.findError(exit.cause)
  if (Result.isFailure(error)) return "Interrupt"
  if (Cause.isDone(error.success)) return "Done"
  return isSocketError(error.success) ? error.success.reason._tag : String(error.success)
}

/** The `Transfer` annotation of an exit; the exit has to be an interruption. */
export const transferOf = <A, E>(exit: Exit.Exit<A, E>): Cancellation.Transfer["Service"] => {
  if (Exit.isSuccess(exit) || !Cause.hasInterrupts(exit.cause)) return assert.fail(`not interrupted: ${show(exit)}`)
  const transfer = Cancellation.transfer(exit.cause)
  if (Option.isNone(transfer)) return assert.fail(`no Transfer annotation: ${show(exit)}`)
  return transfer.value
}

const show = <A, E>(exit: Exit.Exit<A, E>): string =>
  Exit.isSuccess(exit) ? `a success with ${String(exit.value)}` : Cause.pretty(exit.cause)
