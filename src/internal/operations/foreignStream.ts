import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { identity } from "effect/Function"
import type * as Buffers from "../../Buffers.ts"
import * as Cancellation from "../../Cancellation.ts"
import type * as CompletionCondition from "../../CompletionCondition.ts"
import { during, isSocketError, Reason, SocketError } from "../../SocketError.ts"
import type { ReadStream, WriteStream } from "../../StreamSocket.ts"
import { sharedByAll } from "../base/copies.ts"
import { isEndOfStream } from "../base/isEndOfStream.ts"
import { abortedBy } from "../cancellation/aborted.ts"
import { guaranteeOf } from "../cancellation/guarantee.ts"
import { type Bounds, finish, isBounded, proceed, type WriteMode } from "../cancellation/interruption.ts"
import { type Matcher, withPosition } from "../core/Matcher.ts"
import { assertOfThisVersion, ReadBuffer } from "../core/ReadBuffer.ts"

/**
 * The composed operations as loops of effects, for streams that are not ours:
 * anything with a `readSome` or a `writeSome`.
 *
 * Such a stream has no queue, no torn state and no read buffer. The caller keeps
 * its writers apart, and a write after a torn one is not refused. Bytes that a
 * composed read has received and not consumed are kept here, for the next
 * composed read of the same stream.
 */

export const write = (
  stream: WriteStream,
  source: Buffers.Cursor,
  condition: CompletionCondition.CompletionCondition,
  { atomic, operation }: WriteMode,
  policy: Cancellation.Type,
  bounds: Bounds
): Effect.Effect<number, SocketError> => {
  const total = condition.expectedTotal(source.remaining)
  let transferred = 0
  let isDone = false
  let asked: Cancellation.Type = "total"
  // A step always stops with nothing taken. Whether the whole write may stop is decided here, before a step is asked.
  const filter: Cancellation.Filter = (type) => {
    if (guaranteeOf(type, { transferred, total }, atomic) === undefined) return undefined
    asked = type
    return type
  }
  // A request that passed no filter, such as one inside the stream, leaves the stream usable.
  const stopped = (): Cancellation.Type => guaranteeOf(asked, { transferred, total }, atomic) ?? "partial"
  const loop = (
    restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  ): Effect.Effect<number, SocketError> =>
    Effect.suspend(() => {
      const limit = source.remaining === 0 ? 0 : condition.next(transferred)
      isDone = limit === 0
      if (isDone) return Effect.succeed(transferred)
      const offered = source.pieces(limit)
      return Effect.flatMap(restore(stream.writeSome(offered.length === 1 ? offered[0]! : offered)), (count) => {
        checkCount(operation, count, Math.min(limit, source.remaining))
        source.advance(count)
        transferred += count
        return loop(restore)
      })
    })
  const located = (cause: Cause.Cause<SocketError>): Cause.Cause<SocketError> =>
    Cause.map(cause, (error) =>
      during(
        error.reason._tag === "OperationAborted"
          ? retold(error, { ...error.reason, type: stopped(), transferred, total })
          : error,
        { operation, transferred, total }
      ))
  const progress = (guarantee: Cancellation.Type) => ({ transferred, total, guarantee })
  const writing: Effect.Effect<number, SocketError> = Effect.uninterruptibleMask((restore) =>
    // An interruption that arrives during an uninterruptible last step takes effect here, where it still gets its annotation.
    Effect.catchCause(Effect.flatMap(loop(restore), (count) => restore(Effect.succeed(count))), (cause) => {
      if (!Cause.hasInterrupts(cause)) {
        return Effect.failCause(located(cause))
      }
      const guarantee = isDone ? "total" : guaranteeOf(policy, { transferred, total }, atomic)
      if (guarantee !== undefined) return proceed(cause, progress(guarantee))
      // With a bound the rest runs in a fiber of its own, which the bound can interrupt.
      const rest = isBounded(bounds) ? loop(Effect.interruptible) : loop(identity)
      return Effect.flatMap(finish(rest, bounds, () => transferred), (exit) => {
        if (exit === undefined) return proceed(cause, progress("terminal"))
        if (Exit.isSuccess(exit)) return proceed(cause, progress("total"))
        // If a request ended the rest, the fiber still fails with its interruption, and not with `OperationAborted`.
        return abortedBy(exit.cause) !== undefined
          ? proceed(cause, progress(stopped()))
          : proceed(Cause.combine(cause, located(exit.cause)), progress("terminal"))
      })
    })
  )
  return Cancellation.withFilter(writing, filter)
}

export const read = <A>(stream: ReadStream, matcher: Matcher<A>): Effect.Effect<A, SocketError | Cause.Done> =>
  Effect.suspend(() => readInto(stream, matcher, bufferOf(stream)))

/** One read. Bytes that composed reads have left in the buffer come first. */
export const readSome = (
  operation: string,
  stream: ReadStream,
  target: Uint8Array
): Effect.Effect<number, SocketError | Cause.Done> =>
  Effect.suspend(() => {
    const buffer = leftoversOf(stream)
    if (buffer === undefined || buffer.length === 0) {
      return Effect.map(stream.readSome(target), (count) => {
        checkCount(operation, count, target.byteLength)
        return count
      })
    }
    const count = buffer.peek(target)
    buffer.consume(count)
    return Effect.succeed(count)
  })

export const unread = (stream: ReadStream, bytes: Uint8Array): undefined => {
  bufferOf(stream).unread(bytes)
}

const bufferOf = (stream: ReadStream): ReadBuffer => {
  let buffer = leftoversOf(stream)
  if (buffer === undefined) leftovers.set(stream, buffer = new ReadBuffer())
  return buffer
}

const leftoversOf = (stream: ReadStream): ReadBuffer | undefined => {
  const buffer = leftovers.get(stream)
  if (buffer !== undefined) assertOfThisVersion(buffer)
  return buffer
}

const readInto = <A>(
  stream: ReadStream,
  matcher: Matcher<A>,
  buffer: ReadBuffer
): Effect.Effect<A, SocketError | Cause.Done> => {
  const fail = (reason: Reason) =>
    Effect.fail(
      new SocketError({ reason, operation: matcher.operation, transferred: buffer.length, total: matcher.total })
    )
  const located = <E>(error: E): E | SocketError => {
    if (!isSocketError(error)) return error
    const { operation, total } = matcher
    return error.reason._tag === "OperationAborted"
      ? during(retold(error, { ...error.reason, total: total ?? 0 }), { operation, transferred: 0, total })
      : during(error, { operation, transferred: buffer.length, total })
  }
  const loop: Effect.Effect<A, SocketError | Cause.Done> = Effect.suspend(() => {
    const found = matcher.find(buffer)
    if (typeof found === "number") return Effect.succeed(matcher.consume(buffer, found))
    if (found !== undefined) return fail(withPosition(found, buffer.consumed))
    const target = new Uint8Array(matcher.want(buffer.length))
    return Effect.matchCauseEffect(stream.readSome(target), {
      onSuccess: (count) => {
        checkCount(matcher.operation, count, target.byteLength)
        buffer.append(target.subarray(0, count))
        return loop
      },
      onFailure: (cause) => {
        if (!isEndOfStream(cause)) {
          return Effect.failCause(Cause.map(cause, located))
        }
        if (matcher.endsWithStream) return Effect.succeed(matcher.consume(buffer, buffer.length))
        matcher.copyToTarget?.(buffer)
        return buffer.length === 0 ? Effect.failCause(cause) : fail(Reason.UnexpectedEof())
      }
    })
  })
  return loop
}

/** The same failure, with the counts of the whole operation instead of one step. */
const retold = (error: SocketError, reason: Reason): SocketError =>
  new SocketError({ reason, operation: error.operation, address: error.address, transferred: 0, cause: error.cause })

// A step that moves nothing would loop for ever, and a wrong count would lose or invent bytes.
const checkCount = (operation: string, count: number, offered: number): void => {
  if (Number.isInteger(count) && count > 0 && count <= offered) return
  throw new Error(`${operation}: the stream answered ${count} for an attempt of ${offered} bytes`)
}

// All copies of this package share it: a stream has one order of bytes, whichever copy reads.
const leftovers = /* @__PURE__ */ sharedByAll("leftovers", () => new WeakMap<ReadStream, ReadBuffer>())
