import type { Type } from "../../Cancellation.ts"

/**
 * The guarantee that stopping an operation keeps. The one table for interruptions and
 * requests, used by the writes of a socket, the writes to a foreign stream, and
 * `Relay`.
 */

/** How far an operation has come. */
export interface Progress {
  /** Bytes that were taken. */
  readonly transferred: number
  /** Bytes that complete the operation; 0 where that is unknown and nothing is ever taken in part. */
  readonly total: number
}

/**
 * The guarantee that stopping now keeps, when it satisfies the guarantee asked
 * for (the policy of an interruption, the type of a request). `undefined`: no
 * stopping satisfies it now, and the operation runs on.
 *
 * | taken, of n bytes | message | asked: `total` | `partial` | `terminal` |
 * |---|---|---|---|---|
 * | 0 | any | `total` | `total` | `total` |
 * | 1 to n - 1 | may be resumed | runs on | `partial` | `terminal` |
 * | 1 to n - 1 | atomic | runs on | runs on | `terminal` |
 * | n | any | `total` | `total` | `total` |
 *
 * An atomic message is one that the caller cannot resume, such as a frame:
 * stopping inside it always tears the stream.
 */
export const guaranteeOf = (asked: Type, { total, transferred }: Progress, atomic: boolean): Type | undefined => {
  if (transferred === 0 || transferred >= total) return "total"
  return asked === "total" || (asked === "partial" && atomic) ? undefined : asked
}

/**
 * What the guarantee of a step means for the transfer that it is a step of, such
 * as a relay that writes one buffer after the other. A torn step tears the
 * stream. Any other step leaves it usable, and the transfer has taken nothing or
 * a part.
 */
export const guaranteeOfTransfer = (step: Type | undefined, transferred: number): Type =>
  step === "terminal" ? "terminal" : transferred === 0 ? "total" : "partial"

/** Whether a guarantee is at least as strong as the one asked for: `total` > `partial` > `terminal`. */
export const satisfies = (guarantee: Type, asked: Type): boolean => strength[guarantee] >= strength[asked]

// ---- internal

const strength: Readonly<Record<Type, number>> = { terminal: 1, partial: 2, total: 3 }
