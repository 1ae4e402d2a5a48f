import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Buffers from "../../Buffers.ts"
import * as Cancellation from "../../Cancellation.ts"
import * as CompletionCondition from "../../CompletionCondition.ts"
import type { SocketError } from "../../SocketError.ts"
import * as StreamSocket from "../../StreamSocket.ts"
import type { Kind } from "../cancellation/interruption.ts"
import * as AnyStream from "./foreignStream.ts"
import { isTraced, traced } from "./tracing.ts"

/** Bytes that may be cut and continued. */
export const plain: Kind = { operation: "writeAll", isMessage: false }

/** A composed write over any stream: one operation of its line where it is ours, a loop of writes where it is not. */
export const run = (
  stream: StreamSocket.WriteStream,
  source: Buffers.Input | Buffers.Cursor,
  condition: CompletionCondition.Input,
  kind: Kind
): Effect.Effect<number, SocketError> =>
  Effect.withFiber((fiber) =>
    isTraced(fiber)
      ? traced(kind.operation, stream, Effect.withFiber((fiber) => start(fiber, stream, source, condition, kind)))
      : start(fiber, stream, source, condition, kind)
  )

const start = (
  fiber: Fiber.Fiber<unknown, unknown>,
  stream: StreamSocket.WriteStream,
  source: Buffers.Input | Buffers.Cursor,
  condition: CompletionCondition.Input,
  kind: Kind
): Effect.Effect<number, SocketError> => {
  const until = CompletionCondition.fromInput(condition)
  if (
    until === CompletionCondition.transferAll && source instanceof Uint8Array && stream instanceof StreamSocket.Core
  ) {
    return stream.output.writePiece(fiber, source, kind)
  }
  const cursor = Buffers.isCursor(source) ? source : Buffers.cursor(source)
  return stream instanceof StreamSocket.Core
    ? stream.output.writeAll(fiber, cursor, until, kind)
    : AnyStream.write(
      stream,
      cursor,
      until,
      kind,
      fiber.getRef(Cancellation.Policy),
      fiber.getRef(Cancellation.Within)
    )
}
