/**
 * The best transport that is there: `EpollTransport` where that runs, and
 * `NodeTransport` elsewhere.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as AddressResolver from "effect/net/AddressResolver"
import cluster from "node:cluster"
import type { Transport } from "../Transport.ts"
import { unsupported } from "./internal/epoll/support.ts"
import * as NodeTransport from "./NodeTransport.ts"

/**
 * `EpollTransport.layer` where it runs, else `NodeTransport.layer`; together with
 * Node's resolver for host names.
 *
 * **Details**
 *
 * The service's `name` says which it is, `"epoll"` or `"node"`, and so does a log
 * line, with why it is not epoll: at the level debug where that cannot run (another
 * platform, a worker thread, the package `koffi` not installed), as a warning where
 * it was to be had and failed. Never fails.
 *
 * A worker of `node:cluster` gets node: only listeners of `node:net` are shared with
 * the other workers.
 *
 * Neither `koffi` nor the epoll transport is loaded where it cannot run.
 *
 * **Example** (One line for every platform)
 *
 * ```ts
 * const main = program.pipe(Effect.provide(AutoTransport.layer), NodeRuntime.runMain)
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Transport | AddressResolver.AddressResolver> = Layer.unwrap(
  Effect.suspend(() => {
    const why = unsupported() ?? unshared()
    if (why !== undefined) return Effect.as(Effect.logDebug(`transport: node, because ${why}`), NodeTransport.layer)
    const epoll = Effect.map(Effect.promise(() => import("./EpollTransport.ts")), ({ layer }) => layer)
    const taken = Layer.provideMerge(Layer.effectDiscard(Effect.logDebug("transport: epoll")), Layer.unwrap(epoll))
    return Effect.succeed(Layer.catchCause(taken, (cause) => Layer.unwrap(instead(cause))))
  })
)

// ---- internal

const unshared = (): string | undefined =>
  cluster.isWorker ? "this is a worker of node:cluster, which shares the listeners of node:net only" : undefined

const instead = (cause: Cause.Cause<unknown>): Effect.Effect<typeof NodeTransport.layer> =>
  Effect.as(
    Effect.logWarning(`transport: node, because epoll failed: ${String(Cause.squash(cause))}`),
    NodeTransport.layer
  )
