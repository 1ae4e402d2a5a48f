import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Buffers from "../../Buffers.ts"
import * as Cancellation from "../../Cancellation.ts"
import * as CompletionCondition from "../../CompletionCondition.ts"
import type { SocketError } from "../../SocketError.ts"
import type * as StreamSocket from "../../StreamSocket.ts"
import { boundsOf, type WriteMode } from "../cancellation/interruption.ts"
import { coreOf } from "../core/Socket.ts"
import * as ForeignStream from "./foreignStream.ts"
import { isTraced, traced } from "./tracing.ts"

/** Bytes that may be cut and continued. */
export const plain: WriteMode = { operation: "writeAll", atomic: false }

/** A composed write over any stream: one operation in its queue where it is ours, a loop of writes where it is not. */
export const run = (
  stream: StreamSocket.WriteStream,
  source: Buffers.Input | Buffers.Cursor,
  condition: CompletionCondition.Input,
  mode: WriteMode
): Effect.Effect<number, SocketError> =>
  Effect.withFiber((fiber) =>
    isTraced(fiber)
      ? traced(mode.operation, stream, Effect.withFiber((fiber) => start(fiber, stream, source, condition, mode)))
      : start(fiber, stream, source, condition, mode)
  )

const start = (
  fiber: Fiber.Fiber<unknown, unknown>,
  stream: StreamSocket.WriteStream,
  source: Buffers.Input | Buffers.Cursor,
  condition: CompletionCondition.Input,
  mode: WriteMode
): Effect.Effect<number, SocketError> => {
  const until = CompletionCondition.fromInput(condition)
  const core = coreOf(stream)
  if (core !== undefined && until === CompletionCondition.transferAll && source instanceof Uint8Array) {
    return core.writeHalf.writePiece(fiber, source, mode)
  }
  const cursor = Buffers.isCursor(source) ? source : Buffers.cursor(source)
  return core !== undefined
    ? core.writeHalf.writeAll(fiber, cursor, until, mode)
    : ForeignStream.write(
      stream,
      cursor,
      until,
      mode,
      fiber.getRef(Cancellation.Policy),
      boundsOf(fiber)
    )
}
