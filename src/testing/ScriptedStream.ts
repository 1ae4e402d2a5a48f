/**
 * A stream whose every attempt is answered by a script, for the interleavings
 * that real transports only show by chance.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import type * as Buffers from "../Buffers.ts"
import { utf8 } from "../Buffers.ts"
import { type Reason, SocketError } from "../SocketError.ts"
import * as StreamSocket from "../StreamSocket.ts"
import type { Backing, Events, SocketOptions } from "../Transport.ts"
import { WouldBlock } from "../Transport.ts"

/**
 * One step of a script for writes: the result of one attempt.
 *
 * **Details**
 *
 * - `take`: a write takes this many bytes, or as many as it is offered.
 * - `data`: reads get these bytes, in as many attempts as their targets need.
 * - `block`: attempts would block until `readable` or `writable` is run.
 * - `end`: end of stream; it stays the answer to every later read.
 * - `fail`: the attempt fails with this reason.
 *
 * @category models
 * @since 0.1.0
 */
export type WriteStep =
  | { readonly _tag: "take"; readonly count: number }
  | { readonly _tag: "block" }
  | { readonly _tag: "fail"; readonly reason: Reason }

/**
 * One step of a script for reads; see {@link WriteStep}.
 *
 * @category models
 * @since 0.1.0
 */
export type ReadStep =
  | { readonly _tag: "data"; readonly bytes: Uint8Array }
  | { readonly _tag: "block" }
  | { readonly _tag: "end" }
  | { readonly _tag: "fail"; readonly reason: Reason }

/**
 * A write takes `count` bytes, or as many as it is offered.
 *
 * @category steps
 * @since 0.1.0
 */
export const take = (count: number): WriteStep => ({ _tag: "take", count })

/**
 * Reads get these bytes, in as many attempts as their targets need.
 *
 * @category steps
 * @since 0.1.0
 */
export const data = (bytes: Uint8Array | string): ReadStep => ({
  _tag: "data",
  bytes: typeof bytes === "string" ? utf8(bytes) : bytes
})

/**
 * Attempts would block until the script's `readable` or `writable` is run.
 *
 * @category steps
 * @since 0.1.0
 */
export const block: { readonly _tag: "block" } = { _tag: "block" }

/**
 * End of stream, as the answer to every read from here on.
 *
 * @category steps
 * @since 0.1.0
 */
export const end: ReadStep = { _tag: "end" }

/**
 * The attempt fails with this reason.
 *
 * @category steps
 * @since 0.1.0
 */
export const fail = (reason: Reason): { readonly _tag: "fail"; readonly reason: Reason } => ({ _tag: "fail", reason })

/**
 * A scripted stream and its levers.
 *
 * @category models
 * @since 0.1.0
 */
export interface ScriptedStream {
  readonly socket: StreamSocket.StreamSocket
  /** Every byte taken so far. */
  readonly written: Effect.Effect<Uint8Array>
  /** Ends the `block` that reads stand at, if any, and reports readiness. */
  readonly readable: Effect.Effect<void>
  /** Ends the `block` that writes stand at, if any, and reports readiness. */
  readonly writable: Effect.Effect<void>
  /** How often the stream was shut down, closed and aborted. */
  readonly calls: { shutdownWrite: number; close: number; abort: number }
}

/**
 * Makes a scripted stream, aborted with the scope.
 *
 * **Details**
 *
 * An attempt past the end of its script, and a script that is not used up when
 * the scope closes, are defects that say which step. A `block` is used once an
 * attempt has met it.
 *
 * **Example** (Interrupting between two slices)
 *
 * ```ts
 * import { Console, Effect, Fiber } from "effect"
 * import { Buffers, Write } from "effect-asio"
 * import { ScriptedStream } from "effect-asio/testing"
 *
 * const program = Effect.gen(function*() {
 *   const { socket, written } = yield* ScriptedStream.make({
 *     writes: [ScriptedStream.take(3), ScriptedStream.block]
 *   })
 *   const fiber = yield* Effect.forkChild(Write.writeAll(socket, Buffers.utf8("hello")), { startImmediately: true })
 *   yield* Fiber.interrupt(fiber)
 *   yield* Console.log(Buffers.toUtf8(yield* written))
 *   yield* Effect.catchReason(socket.writeSome(Buffers.utf8("lo")), "SocketError", "Torn", (torn) =>
 *     Console.log(`torn after ${torn.transferred} of ${torn.total}`))
 * })
 *
 * await Effect.runPromise(Effect.scoped(program))
 * // => hel
 * // => torn after 3 of 5
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  script: {
    readonly reads?: ReadonlyArray<ReadStep> | undefined
    readonly writes?: ReadonlyArray<WriteStep> | undefined
  },
  options?: Pick<SocketOptions, "linger">
): Effect.Effect<ScriptedStream, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const backing = new ScriptedBacking(script.reads ?? [], script.writes ?? [])
        return { backing, socket: StreamSocket.make(backing, options) }
      }),
      ({ backing, socket }) =>
        Effect.andThen(
          socket.abort,
          Effect.suspend(() => {
            const left = backing.unused()
            return left === undefined ? Effect.void : Effect.die(new Error(`ScriptedStream: not used up: ${left}`))
          })
        )
    ),
    ({ backing, socket }): ScriptedStream => ({
      socket,
      written: Effect.sync(() => Uint8Array.from(backing.written)),
      readable: Effect.sync(() => backing.unblock("reads")),
      writable: Effect.sync(() => backing.unblock("writes")),
      calls: backing.calls
    })
  )

// ---- internal

const address = NetAddress.unixPathAddress("scripted")

class ScriptedBacking implements Backing {
  readonly localAddress = address
  readonly remoteAddress = address
  readonly written: Array<number> = []
  readonly calls = { shutdownWrite: 0, close: 0, abort: 0 }
  private readonly reads: Array<ReadStep>
  private readonly writes: Array<WriteStep>
  private readonly blocked = { reads: false, writes: false }
  private events: Events | undefined = undefined

  constructor(reads: ReadonlyArray<ReadStep>, writes: ReadonlyArray<WriteStep>) {
    this.reads = [...reads]
    this.writes = [...writes]
  }

  attach(events: Events): void {
    this.events = events
  }

  read(target: Uint8Array): number | SocketError {
    const step = this.reads[0]
    if (step === undefined) throw new Error(`ScriptedStream: a read of ${target.byteLength} bytes is not in the script`)
    switch (step._tag) {
      case "block":
        this.blocked.reads = true
        return WouldBlock
      case "end":
        return 0
      case "fail":
        this.reads.shift()
        return this.error(step.reason)
      case "data": {
        const bytes = step.bytes.subarray(0, target.byteLength)
        target.set(bytes)
        if (bytes.byteLength === step.bytes.byteLength) this.reads.shift()
        else this.reads[0] = data(step.bytes.subarray(bytes.byteLength))
        return bytes.byteLength
      }
    }
  }

  write(source: Buffers.Cursor, limit: number): number | SocketError {
    const step = this.writes[0]
    if (step === undefined) throw new Error(`ScriptedStream: a write of ${source.remaining} bytes is not in the script`)
    switch (step._tag) {
      case "block":
        this.blocked.writes = true
        return WouldBlock
      case "fail":
        this.writes.shift()
        return this.error(step.reason)
      case "take": {
        this.writes.shift()
        const bytes = new Uint8Array(Math.min(step.count, source.remaining, limit))
        source.copyTo(bytes)
        this.written.push(...bytes)
        return bytes.byteLength
      }
    }
  }

  shutdownWrite(): number {
    this.calls.shutdownWrite++
    return 0
  }

  close(): void {
    this.calls.close++
    queueMicrotask(() => this.events?.closed())
  }

  abort(): void {
    this.calls.abort++
    queueMicrotask(() => this.events?.closed())
  }

  configure(): void {
    // A script has no options.
  }

  unblock(side: "reads" | "writes"): void {
    if (this[side][0]?._tag === "block") this[side].shift()
    this.blocked[side] = false
    if (side === "reads") this.events?.readable()
    else this.events?.writable()
  }

  unused(): string | undefined {
    const reads = this.reads.slice(this.blocked.reads ? 1 : 0).filter((step) => step._tag !== "end")
    const left = [...reads, ...this.writes.slice(this.blocked.writes ? 1 : 0)]
    return left.length === 0 ? undefined : left.map((step) => step._tag).join(", ")
  }

  private error(reason: Reason): SocketError {
    return new SocketError({ reason, operation: "socket", address, transferred: 0 })
  }
}
