import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import * as Predicate from "effect/Predicate"
import type * as Tracer from "effect/Tracer"
import * as Cancellation from "../../Cancellation.ts"
import { isSocketError } from "../../SocketError.ts"
import { formatAddress } from "../base/format.ts"
import { isEndOfStream } from "../base/isEndOfStream.ts"

/** Whether spans are recorded: the fiber is inside a span, or has a tracer of its own. */
export const isTraced = (fiber: Fiber.Fiber<unknown, unknown>): boolean => {
  const { span, tracer, tracerEnabled } = fiber.cache
  return tracerEnabled && (span !== undefined || tracer !== undefined)
}

/**
 * Runs a composed operation in a span of its own, whose attributes say how many
 * bytes it moved. The end of the stream is no failure of the span.
 */
export const traced = <A, E>(
  operation: string,
  stream: object,
  effect: Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.flatMap(
    Effect.useSpan(`effect-asio.${operation}`, { attributes: peerOf(stream) }, (span) =>
      Effect.matchCauseEffect(
        Effect.onExit(effect, (exit) => Effect.sync(() => account(span, operation, exit))),
        {
          onSuccess: (value) => Effect.succeed(Effect.succeed(value)),
          onFailure: (cause) => isEndOfStream(cause) ? Effect.succeed(Effect.failCause(cause)) : Effect.failCause(cause)
        }
      )),
    (result) => result
  )

const account = (span: Tracer.Span, operation: string, exit: Exit.Exit<unknown, unknown>): void => {
  const outcome = Cancellation.outcome(exit)
  switch (outcome._tag) {
    case "Completed": {
      const bytes = bytesOf(operation, outcome.value)
      if (bytes !== undefined) span.attribute("effect_asio.transferred", bytes)
      return
    }
    case "Cancelled":
      span.attribute("effect_asio.transferred", outcome.transferred)
      span.attribute("effect_asio.total", outcome.total)
      span.attribute("effect_asio.guarantee", outcome.guarantee)
      return
    case "Failed":
      for (const reason of outcome.cause.reasons) {
        if (!Cause.isFailReason(reason) || !isSocketError(reason.error)) continue
        span.attribute("effect_asio.transferred", reason.error.transferred)
        if (reason.error.total !== undefined) span.attribute("effect_asio.total", reason.error.total)
      }
  }
}

/** The bytes that an operation moved, where its result tells. */
const bytesOf = (operation: string, result: unknown): unknown =>
  result instanceof Uint8Array ? result.byteLength : counting.has(operation) ? result : undefined

const counting: ReadonlySet<string> = new Set(["writeAll", "send", "readExactly", "readAtLeast", "discard", "copy"])

const peerOf = (stream: object): Record<string, unknown> => {
  if (!Predicate.hasProperty(stream, "remoteAddress")) return {}
  const address = stream.remoteAddress
  if (!NetAddress.isSocketAddress(address)) return {}
  return NetAddress.isUnixPathAddress(address)
    ? { "network.transport": "unix", "network.peer.address": formatAddress(address) }
    : {
      "network.transport": "tcp",
      "network.peer.address": NetAddress.formatHost(address),
      "network.peer.port": address.port
    }
}
