import * as Cause from "effect/Cause"

/** Whether a read failed with `Cause.Done`, the end of the stream. */
export const isEndOfStream = (cause: Cause.Cause<unknown>): boolean =>
  cause.reasons.some((reason) => Cause.isFailReason(reason) && Cause.isDone(reason.error))
