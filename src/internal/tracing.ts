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
export const traced = <A extends number | Uint8Array, E>(
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
            span.attribute(
              "effect_asio.transferred",
              typeof exit.value === "number" ? exit.value : exit.value.byteLength
            )
            return
          }
          const outcome = Cancellation.outcome(exit)
          if (outcome._tag !== "Cancelled") return
          span.attribute("effect_asio.transferred", outcome.transferred)
          span.attribute("effect_asio.total", outcome.total)
          span.attribute("effect_asio.guarantee", outcome.guarantee)
        }))
  )

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
