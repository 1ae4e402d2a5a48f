import * as Cause from "effect/Cause"
import type { Pending, Type } from "../../Cancellation.ts"
import { isSocketError, Reason, SocketError } from "../../SocketError.ts"
import type { Request } from "./signal.ts"

/** The error of an operation that a request has ended. */
export const aborted = (
  { address, operation, total, transferred }: Pending,
  { cause, origin }: Request,
  guarantee: Type
): SocketError =>
  new SocketError({
    reason: Reason.OperationAborted({
      type: guarantee,
      transferred,
      total,
      ...(origin === "deadline" ? { deadline: true } : undefined)
    }),
    operation,
    address,
    transferred,
    total: total === 0 ? undefined : total,
    cause
  })

/** The reason of an operation that a request has ended; `undefined` for every other cause. */
export const abortedBy = (
  cause: Cause.Cause<unknown>
): Extract<Reason, { readonly _tag: "OperationAborted" }> | undefined => {
  for (const found of cause.reasons) {
    if (!Cause.isFailReason(found) || !isSocketError(found.error)) continue
    const { reason } = found.error
    if (reason._tag === "OperationAborted") return reason
  }
  return undefined
}
