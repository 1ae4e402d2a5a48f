import * as Predicate from "effect/Predicate"
import type { ReadStream, WriteStream } from "../../StreamSocket.ts"

/** Whether the first argument of a `dual` function is its stream. */
export const isReadStream = (u: unknown): u is ReadStream => Predicate.hasProperty(u, "readSome")

export const isWriteStream = (u: unknown): u is WriteStream => Predicate.hasProperty(u, "writeSome")
