import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import type * as NetAddress from "effect/net/NetAddress"
import * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import type * as Buffers from "../../Buffers.ts"
import { noEvents } from "../../internal/base/noEvents.ts"
import { fromErrno, isSocketError, Reason, SocketError } from "../../SocketError.ts"
import { type Backing, type Events, WouldBlock } from "../../Transport.ts"
import { bytesOf } from "./effectSocketOver.ts"

/** A `Socket` that was opened, as a transport's connection. */
export class EffectSocketBacking implements Backing {
  readonly localAddress: NetAddress.SocketAddress
  readonly remoteAddress: NetAddress.SocketAddress
  private readonly opened: Opened
  private events: Events = noEvents
  private batch: ReadonlyArray<Uint8Array | string> = []
  private next = 0
  private chunk: Uint8Array = nothing
  private pulling: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private handing: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private releasing: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private ended = false
  private readFailure: SocketError | undefined = undefined
  private writeFailure: SocketError | undefined = undefined
  private phase: "open" | "closing" | "closed" = "open"

  constructor(opened: Opened) {
    this.opened = opened
    this.localAddress = opened.localAddress
    this.remoteAddress = opened.remoteAddress
  }

  attach(events: Events): void {
    this.events = events
  }

  read(target: Uint8Array): number | SocketError {
    if (!this.hasBytes() && !this.isOver() && this.pulling === undefined) {
      this.pull()
      // What ended at once owes its event: the failure of writes that wait, or that there may be more behind a batch of
      // empty frames.
      if (this.pulling === undefined && !this.hasBytes()) queueMicrotask(() => this.tellPulled())
    }
    if (this.hasBytes()) {
      const count = Math.min(this.chunk.byteLength, target.byteLength)
      target.set(count === this.chunk.byteLength ? this.chunk : this.chunk.subarray(0, count))
      this.chunk = this.chunk.subarray(count)
      return count
    }
    return this.ended ? 0 : this.readFailure ?? WouldBlock
  }

  write(source: Buffers.Cursor, limit: number): number | SocketError {
    if (this.writeFailure !== undefined) return this.writeFailure
    if (this.handing !== undefined) return WouldBlock
    // The socket keeps it for as long as it likes.
    const slice = new Uint8Array(Math.min(source.remaining, limit, this.opened.sliceSize))
    source.copyTo(slice)
    this.handing = this.start(this.opened.writer.write(slice), (exit) => {
      this.handing = undefined
      if (Exit.isFailure(exit)) this.writeFailure = this.errorOf(exit.cause)
    }, () => {
      if (this.writeFailure === undefined) this.events.writable()
      else this.events.failed(this.writeFailure)
    })
    return this.writeFailure ?? slice.byteLength
  }

  shutdownWrite(): number | SocketError {
    if (this.writeFailure !== undefined) return this.writeFailure
    if (this.handing !== undefined) return WouldBlock
    this.opened.run(Scope.close(this.opened.writing, Exit.void))
    return 0
  }

  close(): void {
    if (this.phase === "closed") this.events.closed()
    if (this.phase !== "open") return
    this.release(Effect.gen({ self: this }, function*() {
      if (this.handing !== undefined && this.readFailure === undefined) yield* Fiber.await(this.handing)
      yield* Scope.close(this.opened.writing, Exit.void)
      yield* Scope.close(this.opened.reading, Exit.void)
    }))
  }

  abort(): void {
    if (this.phase === "closed") {
      this.events.closed()
      return
    }
    this.release(Effect.gen({ self: this }, function*() {
      const { reading, writer, writing } = this.opened
      this.handing?.interruptUnsafe()
      // Without waiting: a socket that has lost its connection holds writes until the next one.
      const telling = yield* Effect.forkChild(Effect.ignore(writer.write(new Socket.CloseEvent(4000, "aborted"))), {
        startImmediately: true
      })
      yield* Scope.close(reading, Exit.void)
      yield* Fiber.interrupt(telling)
      yield* Scope.close(writing, Exit.void)
    }))
  }

  configure(): void {
    // A `Socket` has no options.
  }

  private release(how: Effect.Effect<void>): void {
    this.phase = "closing"
    this.pulling?.interruptUnsafe()
    const closing = this.releasing
    this.releasing = undefined
    // An abort takes over from a close, and does not wait for one that hangs: it makes it end.
    closing?.interruptUnsafe()
    const releasing = this.releasing = this.opened.run(how)
    releasing.addObserver(() => {
      if (this.releasing !== releasing) return
      this.handing?.interruptUnsafe()
      this.phase = "closed"
      this.batch = []
      this.chunk = nothing
      this.events.closed()
    })
  }

  private pull(): void {
    this.pulling = this.start(this.opened.reader.pull, (exit) => {
      this.pulling = undefined
      if (Exit.isSuccess(exit)) {
        this.batch = exit.value
        this.next = 0
      } else if (isEnd(exit.cause)) this.ended = true
      else {
        this.readFailure = this.errorOf(exit.cause)
        this.writeFailure ??= this.readFailure
      }
    }, () => this.tellPulled())
  }

  private tellPulled(): void {
    if (this.phase !== "open") return
    this.events.readable()
    // A connection that cannot be read is gone, even where its writes do not notice.
    if (this.readFailure !== undefined) this.events.failed(this.readFailure)
  }

  /** Runs an effect: `settle` when it has ended, and `tell` after it unless that was at once. */
  private start<A>(
    effect: Effect.Effect<A, Socket.SocketError>,
    settle: (exit: Exit.Exit<A, Socket.SocketError>) => void,
    tell: () => void
  ): Fiber.Fiber<unknown, unknown> | undefined {
    const fiber = this.opened.run(effect)
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) {
      settle(exit)
      return undefined
    }
    fiber.addObserver((exit) => {
      if (this.phase !== "open") return
      settle(exit)
      tell()
    })
    return fiber
  }

  /** Makes the next frame that is not empty the current chunk. */
  private hasBytes(): boolean {
    while (this.chunk.byteLength === 0 && this.next < this.batch.length) {
      this.chunk = bytesOf(this.batch[this.next++]!)
      if (this.next === this.batch.length) this.batch = []
    }
    return this.chunk.byteLength > 0
  }

  private isOver(): boolean {
    return this.ended || this.readFailure !== undefined
  }

  private errorOf(cause: Cause.Cause<Socket.SocketError>): SocketError {
    const fail = cause.reasons.find(Cause.isFailReason)
    const context = { operation: "socket", address: this.remoteAddress }
    return fail === undefined ? fromErrno(Cause.squash(cause), context) : ourError(fail.error, context)
  }
}

export interface Opened {
  readonly reader: Socket.Reader
  readonly writer: Socket.Writer
  readonly reading: Scope.Closeable
  readonly writing: Scope.Closeable
  readonly run: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  readonly sliceSize: number
  readonly localAddress: NetAddress.SocketAddress
  readonly remoteAddress: NetAddress.SocketAddress
}

const nothing = new Uint8Array(0)

/** Codes of a close that nothing went wrong before: the normal one, and a close frame without any. */
const isEnd = (cause: Cause.Cause<Socket.SocketError>): boolean =>
  cause.reasons.some((reason) =>
    Cause.isFailReason(reason) && reason.error.reason._tag === "SocketCloseError" &&
    (reason.error.reason.code === 1000 || reason.error.reason.code === 1005)
  )

export const ourError = (
  error: Socket.SocketError,
  context: { readonly operation: string; readonly address?: NetAddress.SocketAddress | undefined }
): SocketError => {
  const { reason } = error
  const cause = "cause" in reason ? reason.cause : undefined
  // An error of this library that was wrapped for a `Socket` is unwrapped.
  if (isSocketError(cause)) return cause
  const found = fromErrno(cause, context)
  const known = reason._tag === "SocketCloseError"
    ? Reason.ConnectionAborted()
    : reason._tag === "SocketOpenError" && reason.kind === "Timeout"
    ? Reason.TimedOut()
    : found.code === "ERR_STREAM_DESTROYED" || found.code === "ERR_STREAM_WRITE_AFTER_END"
    ? Reason.BrokenPipe()
    : found.reason
  return new SocketError({
    reason: known,
    operation: context.operation,
    address: context.address,
    transferred: 0,
    code: found.code,
    cause: error
  })
}
