import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import * as Predicate from "effect/Predicate"
import * as Cancellation from "../Cancellation.ts"
import { formatAddress } from "./format.ts"

/** Whether anybody looks: a fiber inside a span, or one with a tracer of its own. */
export const isTraced = (fiber: Fiber.Fiber<unknown, unknown>): boolean => {
  const { span, tracer, tracerEnabled } = fiber.cache
  return tracerEnabled && (span !== undefined || tracer !== undefined)
}

/** Runs a composed operation in a span of its own, which ends with the account of its bytes. */
export const traced = <A, E>(
  operation: string,
  stream: object,
  effect: Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.useSpan(
    `effect-asio.${operation}`,
    { attributes: peerOf(stream) },
    (span) =>
      Effect.onExit(effect, (exit) =>
        Effect.sync(() => {
          if (Exit.isSuccess(exit)) {
            const bytes = bytesOf(operation, exit.value)
            if (bytes !== undefined) span.attribute("effect_asio.transferred", bytes)
            return
          }
          const outcome = Cancellation.outcome(exit)
          if (outcome._tag !== "Cancelled") return
          span.attribute("effect_asio.transferred", outcome.transferred)
          span.attribute("effect_asio.total", outcome.total)
          span.attribute("effect_asio.guarantee", outcome.guarantee)
        }))
  )

/** The bytes that an operation moved, where its result tells. */
const bytesOf = (operation: string, result: unknown): unknown =>
  result instanceof Uint8Array ? result.byteLength : counting.has(operation) ? result : undefined

const counting: ReadonlySet<string> = new Set(["writeAll", "readExactly", "readAtLeast", "discard"])

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
