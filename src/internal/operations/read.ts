import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import type * as Pull from "effect/Pull"
import type { SocketError } from "../../SocketError.ts"
import type * as StreamSocket from "../../StreamSocket.ts"
import type { Matcher } from "../core/Matcher.ts"
import type { Operation } from "../core/OperationQueue.ts"
import type { ReadHalf } from "../core/ReadHalf.ts"
import { ReadMatch } from "../core/ReadOperations.ts"
import { coreOf } from "../core/Socket.ts"
import * as ForeignStream from "./foreignStream.ts"
import { isTraced, traced } from "./tracing.ts"

type Operate<A, M> = (half: ReadHalf, matcher: M) => Operation<A, SocketError | Cause.Done>

const operate = <A>(half: ReadHalf, matcher: Matcher<A>): Operation<A, SocketError | Cause.Done> =>
  new ReadMatch(half, matcher)

/** A composed read over any stream: one operation in its queue where it is ours, a loop of reads where it is not. */
export const run = <A, M extends Matcher<A>>(
  stream: StreamSocket.ReadStream,
  matcher: () => M & Matcher<A>,
  operation: Operate<A, M> = operate
): Pull.Pull<A, SocketError> =>
  Effect.withFiber((fiber) => {
    const wanted = matcher()
    return isTraced(fiber)
      ? traced(wanted.operation, stream, Effect.withFiber((fiber) => start(fiber, stream, wanted, operation)))
      : start(fiber, stream, wanted, operation)
  })

const start = <A, M extends Matcher<A>>(
  fiber: Fiber.Fiber<unknown, unknown>,
  stream: StreamSocket.ReadStream,
  matcher: M & Matcher<A>,
  operation: Operate<A, M>
): Pull.Pull<A, SocketError> => {
  const core = coreOf(stream)
  return core === undefined
    ? ForeignStream.read(stream, matcher)
    : core.readHalf.run(fiber, operation(core.readHalf, matcher))
}
