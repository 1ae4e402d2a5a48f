/**
 * Counts of all sockets of this process, as Effect metrics.
 *
 * The sockets count in plain numbers from the start of the process, which costs
 * nothing worth measuring. `layer` shows these numbers to a `MetricRegistry` and so
 * to every exporter.
 *
 * Each composed operation also makes a span when it runs inside a span or when the
 * program has a tracer of its own; otherwise it makes none. The span is called
 * `effect-asio.writeAll` (`readUntil`, ...) and has the peer as
 * `network.peer.address` and `network.peer.port`. It ends with the bytes of the
 * operation as `effect_asio.transferred`, and with `effect_asio.total` and
 * `effect_asio.guarantee` when the operation was cancelled or has failed.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import type { Type } from "./Cancellation.ts"
import { sharedByVersion } from "./internal/base/copies.ts"
import { counters } from "./internal/base/counters.ts"
import { noop } from "./internal/base/noEvents.ts"

/**
 * Operations of sockets that completed: reads, writes, composed ones (each counts
 * as one), `shutdownWrite`, `accept` and `connect`; not `close` and `abort`. Over
 * a stream that is no socket of this library, each step that runs on such a socket
 * counts.
 *
 * @category metrics
 * @since 0.1.0
 */
export const operationsCompleted: Metric.Counter<number> = Metric.counter("effect_asio_operations_completed", {
  description: "Socket operations that completed",
  incremental: true
})

/**
 * Operations that an interruption, a request or a deadline ended, by the guarantee
 * that was kept.
 *
 * @category metrics
 * @since 0.1.0
 */
export const operationsCancelled: Readonly<Record<Type, Metric.Counter<number>>> = {
  terminal: cancelled("terminal"),
  partial: cancelled("partial"),
  total: cancelled("total")
}

/**
 * Streams that were torn: a write stopped inside its message.
 *
 * @category metrics
 * @since 0.1.0
 */
export const streamsTorn: Metric.Counter<number> = Metric.counter("effect_asio_streams_torn", {
  description: "Streams whose write side stopped inside a message",
  incremental: true
})

/**
 * Bytes received from the transports.
 *
 * @category metrics
 * @since 0.1.0
 */
export const bytesRead: Metric.Counter<number> = Metric.counter("effect_asio_bytes_read", {
  description: "Bytes received from the transports",
  incremental: true,
  attributes: { unit: "bytes" }
})

/**
 * Bytes taken by the transports.
 *
 * @category metrics
 * @since 0.1.0
 */
export const bytesWritten: Metric.Counter<number> = Metric.counter("effect_asio_bytes_written", {
  description: "Bytes taken by the transports",
  incremental: true,
  attributes: { unit: "bytes" }
})

/**
 * Connections that the servers of this process (`Server`) have at this moment.
 *
 * @category metrics
 * @since 0.1.0
 */
export const serverConnections: Metric.Gauge<number> = Metric.gauge("effect_asio_server_connections", {
  description: "Connections of servers"
})

/**
 * Servers of this process, by their state. Servers that have stopped stay counted
 * as `stopped`.
 *
 * @category metrics
 * @since 0.1.0
 */
export const servers: Readonly<
  Record<"listening" | "paused" | "draining" | "stopped", Metric.Gauge<number>>
> = each(
  counters.servers,
  (state) => Metric.gauge("effect_asio_servers", { description: "Servers by state", attributes: { state } })
)

/**
 * Connections that servers accepted, also those that a limit refused afterwards.
 *
 * @category metrics
 * @since 0.1.0
 */
export const serverAccepted: Metric.Counter<number> = Metric.counter("effect_asio_server_accepted", {
  description: "Connections that servers took from their addresses",
  incremental: true
})

/**
 * Connections that servers could not accept, such as for want of descriptors.
 *
 * @category metrics
 * @since 0.1.0
 */
export const serverAcceptFailures: Metric.Counter<number> = Metric.counter("effect_asio_server_accept_failures", {
  description: "Connections that servers could not take",
  incremental: true
})

/**
 * Handlers of servers that failed for another reason than the ordinary end of a
 * connection.
 *
 * @category metrics
 * @since 0.1.0
 */
export const serverFailures: Metric.Counter<number> = Metric.counter("effect_asio_server_failures", {
  description: "Handlers that failed",
  incremental: true
})

/**
 * Connections of servers that failed before their handler ran, by the reason; see
 * `handshakeFailures` of a server's health.
 *
 * @category metrics
 * @since 0.1.0
 */
export const serverHandshakeFailures: Readonly<
  Record<"Untrusted" | "Malformed" | "Tls" | "Gone", Metric.Counter<number>>
> = each(
  counters.served.handshakeFailures,
  (reason) =>
    Metric.counter("effect_asio_server_handshake_failures", {
      description: "Connections that failed before they came to a handler",
      incremental: true,
      attributes: { reason }
    })
)

/**
 * Connections that a limit of a server refused or ended, by the limit.
 *
 * @category metrics
 * @since 0.1.0
 */
export const serverLimited: Readonly<
  Record<
    "Connections" | "PerPeer" | "AcceptRate" | "BytesInFlight" | "Handshake" | "FirstByte" | "Idle" | "Progress",
    Metric.Counter<number>
  >
> = each(
  counters.served.limited,
  (limit) =>
    Metric.counter("effect_asio_server_limited", {
      description: "Connections that a limit refused or ended",
      incremental: true,
      attributes: { limit }
    })
)

/**
 * How often servers paused accepting because of a limit, by the limit.
 *
 * @category metrics
 * @since 0.1.0
 */
export const serverPauses: Readonly<
  Record<"Connections" | "AcceptRate" | "BytesInFlight", Metric.Counter<number>>
> = each(
  counters.served.pauses,
  (limit) =>
    Metric.counter("effect_asio_server_pauses", {
      description: "Times that accepting stopped because of a limit",
      incremental: true,
      attributes: { limit }
    })
)

/**
 * Connections that ended in a drain of their server, by what ended them.
 *
 * @category metrics
 * @since 0.1.0
 */
export const serverDrained: Readonly<
  Record<"finished" | "total" | "partial" | "terminal" | "aborted", Metric.Counter<number>>
> = each(
  counters.served.drained,
  (by) =>
    Metric.counter("effect_asio_server_drained", {
      description: "Connections that ended in a drain",
      incremental: true,
      attributes: { by }
    })
)

/**
 * Shows the metrics of this module to the `MetricRegistry` of the program, until
 * the layer is released.
 *
 * **Gotchas**
 *
 * Without this layer, `Metric.value` of these metrics is 0 and exporters do not see
 * them.
 *
 * **Example** (Reading one)
 *
 * ```ts
 * const program = Effect.gen(function*() {
 *   const { count } = yield* Metric.value(Metrics.bytesWritten)
 *   yield* Console.log(`${count} bytes taken so far`)
 * }).pipe(Effect.provide(Metrics.layer))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<never> = Layer.effectDiscard(
  Effect.contextWith((context) =>
    Effect.acquireRelease(
      Effect.sync(() => show(context)),
      (hide) => Effect.sync(hide)
    )
  )
)

// ---- internal

interface Shown {
  readonly show: (context: Context.Context<never>) => void
  readonly hide: (context: Context.Context<never>) => void
}

const shownAs =
  <State>(stateOf: (count: number) => State) => (metric: Metric.Metric<number, State>, count: () => number): Shown => ({
    show: (context) =>
      Metric.registerUnsafe(metric, context, { get: () => stateOf(count()), update: noop, modify: noop }),
    hide: (context) => Metric.removeUnsafe(metric, context)
  })

const counter = shownAs((count): Metric.CounterState<number> => ({ count, incremental: true }))
const gauge = shownAs((value): Metric.GaugeState<number> => ({ value }))

const counterOfEach = <K extends string>(
  metrics: Readonly<Record<K, Metric.Counter<number>>>,
  numbers: Readonly<Record<K, number>>
): ReadonlyArray<Shown> => keysOf(metrics).map((key) => counter(metrics[key], () => numbers[key]))

const shown: ReadonlyArray<Shown> = [
  counter(operationsCompleted, () => counters.completed),
  ...counterOfEach(operationsCancelled, counters.cancelled),
  counter(streamsTorn, () => counters.torn),
  counter(bytesRead, () => counters.bytesRead),
  counter(bytesWritten, () => counters.bytesWritten),
  gauge(serverConnections, () => counters.served.connection),
  ...keysOf(servers).map((state) => gauge(servers[state], () => counters.servers[state])),
  counter(serverAccepted, () => counters.served.accepted),
  counter(serverAcceptFailures, () => counters.served.acceptFailures),
  counter(serverFailures, () => counters.served.failures),
  ...counterOfEach(serverHandshakeFailures, counters.served.handshakeFailures),
  ...counterOfEach(serverLimited, counters.served.limited),
  ...counterOfEach(serverPauses, counters.served.pauses),
  ...counterOfEach(serverDrained, counters.served.drained)
]

// A registry has each metric once, however many layers show it. The layer that is released last removes it.
const layers = /* @__PURE__ */ sharedByVersion("metrics", () => new WeakMap<Metric.MetricRegistry, number>())

const show = (context: Context.Context<never>): () => void => {
  const registry = Context.get(context, Metric.MetricRegistry)
  layers.set(registry, (layers.get(registry) ?? 0) + 1)
  for (const metric of shown) metric.show(context)
  return () => {
    const left = (layers.get(registry) ?? 1) - 1
    layers.set(registry, left)
    if (left > 0) return
    for (const metric of shown) metric.hide(context)
  }
}

// The records are literals of this library, so their keys are the names that the type has.
function keysOf<K extends string>(record: Readonly<Record<K, unknown>>): ReadonlyArray<K> {
  return Object.keys(record) as Array<K>
}

function each<K extends string, A>(record: Readonly<Record<K, number>>, make: (key: K) => A): Readonly<Record<K, A>> {
  return Object.fromEntries(keysOf(record).map((key) => [key, make(key)])) as Record<K, A>
}

function cancelled(guarantee: Type): Metric.Counter<number> {
  return Metric.counter("effect_asio_operations_cancelled", {
    description: "Socket operations that were cancelled, by the guarantee that was kept",
    incremental: true,
    attributes: { guarantee }
  })
}
