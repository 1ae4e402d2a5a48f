/**
 * What all sockets of this process did, as Effect metrics.
 *
 * The sockets themselves count in plain numbers, which costs nothing worth
 * measuring; `layer` shows these numbers to a `MetricRegistry` and so to every
 * exporter. They count from the start of the process.
 *
 * Beside them, each composed operation has a span where somebody looks: inside a
 * span, or with a tracer of the program's own. It is called
 * `effect-asio.writeAll` (`readUntil`, ...), has the peer as
 * `network.peer.address` and `network.peer.port`, and ends with its bytes as
 * `effect_asio.transferred`; where it was cut or has failed, with
 * `effect_asio.total` and `effect_asio.guarantee` too. Elsewhere nothing is made.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import type { Type } from "./Cancellation.ts"
import { counters } from "./internal/counters.ts"

/**
 * Operations of sockets that completed: reads, writes, composed ones (each counts
 * as one), `shutdownWrite`, `accept` and `connect`; not `close` and `abort`. Over
 * a stream that is not ours, each step that runs on one of our sockets counts.
 *
 * @category metrics
 * @since 0.1.0
 */
export const operationsCompleted: Metric.Counter<number> = Metric.counter("effect_asio_operations_completed", {
  description: "Socket operations that completed",
  incremental: true
})

/**
 * Operations that were cut by an interruption, a request or a deadline, by the
 * guarantee that was kept.
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
 * Shows the metrics of this module to the `MetricRegistry` of the program, until
 * the layer is released.
 *
 * **Gotchas**
 *
 * Without it `Metric.value` of these metrics is 0, and exporters do not see
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

const ignore = (): void => {}

const shown = [
  [operationsCompleted, () => counters.completed],
  [operationsCancelled.terminal, () => counters.cancelled.terminal],
  [operationsCancelled.partial, () => counters.cancelled.partial],
  [operationsCancelled.total, () => counters.cancelled.total],
  [streamsTorn, () => counters.torn],
  [bytesRead, () => counters.bytesRead],
  [bytesWritten, () => counters.bytesWritten]
] as const

// A registry has each metric once, however many layers show it: the last one to go takes it away.
const layers = new WeakMap<Metric.MetricRegistry, number>()

const show = (context: Context.Context<never>): () => void => {
  const registry = Context.get(context, Metric.MetricRegistry)
  layers.set(registry, (layers.get(registry) ?? 0) + 1)
  for (const [metric, count] of shown) {
    Metric.registerUnsafe(metric, context, {
      get: () => ({ count: count(), incremental: true }),
      update: ignore,
      modify: ignore
    })
  }
  return () => {
    const left = (layers.get(registry) ?? 1) - 1
    layers.set(registry, left)
    if (left > 0) return
    for (const [metric] of shown) Metric.removeUnsafe(metric, context)
  }
}

function cancelled(guarantee: Type): Metric.Counter<number> {
  return Metric.counter("effect_asio_operations_cancelled", {
    description: "Socket operations that were cut, by the guarantee that was kept",
    incremental: true,
    attributes: { guarantee }
  })
}
