import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Pull from "effect/Pull"
import * as Buffers from "../../Buffers.ts"
import type { Type } from "../../Cancellation.ts"
import { type Address, isSocketError, Reason, type SocketError } from "../../SocketError.ts"
import type { State, StreamSocket } from "../../StreamSocket.ts"
import { type Backing, type Events, type LiveOptions, WouldBlock } from "../../Transport.ts"
import { isOfThisVersion, version } from "../base/copies.ts"
import { formatAddress, formatBytes } from "../base/format.ts"
import { resolveLiveOptions } from "../base/liveOptions.ts"
import * as TimerQueue from "../base/timerQueue.ts"
import { afterTurns, arrivalTurns } from "../base/turns.ts"
import { satisfies } from "../cancellation/guarantee.ts"
import { type CancellationScope, scopeOf } from "../cancellation/scope.ts"
import type { Cancellable, Request } from "../cancellation/signal.ts"
import { chunkSize } from "./Matcher.ts"
import { ReadHalf } from "./ReadHalf.ts"
import { WriteHalf } from "./WriteHalf.ts"
import { ShutdownWrite, WriteSome } from "./WriteOperations.ts"

export const TypeId: unique symbol = Symbol.for("~effect-asio/StreamSocket")

/** The key by which a `Socket` of another installed copy of this package is recognized; see `base/copies.ts`. */
const CoreId: unique symbol = Symbol.for("~effect-asio/Socket")

/** Waits for the release. In a region of signals, a terminal request turns the close into an abort. */
const closing = (backing: Backing, waiting: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    const scope = scopeOf(fiber)
    return scope === undefined ? waiting : new Closing(backing, scope).watch(waiting)
  })

/** A `close` that waits for the release. A terminal request turns it into an abort. */
class Closing implements Cancellable {
  readonly operation = "close"
  readonly transferred = 0
  readonly total = 0
  readonly address: Address
  private readonly backing: Backing
  private scope: CancellationScope | undefined

  constructor(backing: Backing, scope: CancellationScope) {
    this.address = backing.remoteAddress
    this.backing = backing
    this.scope = scope
  }

  watch(waiting: Effect.Effect<void>): Effect.Effect<void> {
    this.scope?.register(this)
    return Effect.ensuring(waiting, Effect.sync(() => this.leave()))
  }

  requestCancel({ type }: Request): Type | undefined {
    if (!satisfies("terminal", type) || this.scope === undefined) return undefined
    this.leave()
    return "terminal"
  }

  private leave(): void {
    this.scope?.unregister(this)
    this.scope = undefined
  }

  resume(): void {
    this.backing.abort()
  }
}

/** What has taken a backing over, and ends it from then on. */
export interface Successor extends Pick<StreamSocket, "close" | "abort"> {
  /** The stream that was made of it, once there is one. */
  readonly socket?: Socket | undefined
  /** Whether anything of the peer has arrived since. */
  readonly hasReceived?: boolean | undefined
  /** Gives up before there is a stream: flushed and with FIN. */
  readonly leave?: Effect.Effect<void> | undefined
}

/** The one implementation of `StreamSocket`. */
export class Socket implements StreamSocket, Events {
  readonly [TypeId]: typeof TypeId = TypeId
  readonly readHalf: ReadHalf
  readonly writeHalf: WriteHalf
  readonly linger: Duration.Duration
  private readonly backing: Backing
  private phase: State["socket"] = "open"
  /** The stream is closing, and the reads that wait get what had arrived when the close began. */
  private isLooking = false
  private releaseWaiters: Set<() => void> | undefined = undefined
  private takenBy: Successor | undefined = undefined

  constructor(backing: Backing, linger: Duration.Duration) {
    this.backing = backing
    this.linger = linger
    this.writeHalf = new WriteHalf(backing)
    this.readHalf = new ReadHalf(backing, this.writeHalf)
    this.writeHalf.readers = this.readHalf.queue
    backing.attach(this)
  }

  get [CoreId](): string {
    return version
  }

  /** The stream that owns the backing now, such as one over TLS. `close` and `abort` go to it. */
  get successor(): Successor | undefined {
    return this.takenBy
  }

  get localAddress(): NetAddress.SocketAddress {
    return this.backing.localAddress
  }

  get remoteAddress(): NetAddress.SocketAddress {
    return this.backing.remoteAddress
  }

  get bytesRead(): number {
    return this.readHalf.bytesRead
  }

  get bytesWritten(): number {
    return this.writeHalf.bytesWritten
  }

  get failedWriteLosesInput(): boolean {
    return this.backing.failedWriteLosesInput === true
  }

  get state(): State {
    return { socket: this.phase, read: this.readHalf.state, write: this.writeHalf.state }
  }

  /** For logs: printing all fields would recurse into the transport. */
  toJSON(): unknown {
    const { bytesRead, bytesWritten, state } = this
    return {
      _id: "StreamSocket",
      localAddress: formatAddress(this.localAddress),
      remoteAddress: formatAddress(this.remoteAddress),
      bytesRead,
      bytesWritten,
      state
    }
  }

  // Getters, so that `const { readSome } = socket` works, and an idle socket holds no closures.
  get readSome(): (target: Uint8Array) => Pull.Pull<number, SocketError> {
    return (target) => this.readHalf.readSome(target)
  }

  get writeSome(): (source: Buffers.Input) => Effect.Effect<number, SocketError> {
    return (source) =>
      Effect.withFiber((fiber) => this.writeHalf.run(fiber, new WriteSome(this.writeHalf, Buffers.cursor(source))))
  }

  get shutdownWrite(): Effect.Effect<void, SocketError> {
    return Effect.withFiber((fiber) => this.writeHalf.run(fiber, new ShutdownWrite(this.writeHalf)))
  }

  get close(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.takenBy !== undefined) return this.takenBy.close
      if (this.phase === "open") {
        if (this.writeHalf.isInsideMessage || Duration.isZero(this.linger)) return this.abort
        this.closeHalves("close")
      }
      return this.isReleased()
        ? Effect.void
        : Effect.onInterrupt(closing(this.backing, this.awaitReleaseWithinLinger), () => this.abort)
    })
  }

  get abort(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.takenBy !== undefined) return this.takenBy.abort
      if (this.phase === "open") this.closeHalves("abort")
      else if (!this.isReleased()) this.end("abort")
      return this.isReleased() ? Effect.void : this.awaitRelease
    })
  }

  get configure(): (options: LiveOptions) => Effect.Effect<void, SocketError> {
    return (options) =>
      Effect.suspend(() => {
        if (this.phase !== "open") return Effect.fail(this.readHalf.error(this.readHalf.closedReason, "configure", 0))
        const refused = this.backing.configure(resolveLiveOptions(options))
        return isSocketError(refused) ? Effect.fail(refused) : Effect.void
      })
  }

  /**
   * Whether nothing has happened on it: both directions are open, no operation waits, and nothing has arrived. What has
   * arrived is left in the read buffer.
   */
  get isReusable(): Effect.Effect<boolean> {
    return Effect.suspend(() =>
      this.isQuiet()
        // A transport may only begin to read by the first attempt.
        ? Effect.callback<boolean>((resume) => {
          const cancel = afterTurns(arrivalTurns, () => {
            const isQuiet = this.isQuiet()
            this.readHalf.queue.pump("dropInterestIfEmpty")
            resume(Effect.succeed(isQuiet))
          })
          return Effect.sync(() => {
            cancel()
            this.readHalf.queue.pump("dropInterestIfEmpty")
          })
        })
        : Effect.succeed(false)
    )
  }

  private isQuiet(): boolean {
    const { phase, readHalf, writeHalf } = this
    if (phase !== "open" || readHalf.state !== "open" || writeHalf.state !== "open") return false
    return this.busy() === undefined && !readHalf.hasUnread && readHalf.receiveIntoBuffer(chunkSize) === WouldBlock
  }

  detachFd(): number | SocketError {
    const { backing, readHalf, writeHalf } = this
    if (this.phase !== "open") return readHalf.error(readHalf.closedReason, "detachFd", 0)
    if (writeHalf.state === "torn" || writeHalf.state === "failed") {
      if (writeHalf.failure !== undefined) {
        return writeHalf.refusedError(writeHalf.failure, { operation: "detachFd", transferred: 0 })
      }
    }
    const unread = readHalf.unreadBytes().byteLength
    const refused = (reason: Reason) => readHalf.error(reason, "detachFd", 0)
    const busy = this.busy()
    if (busy !== undefined) return refused(busy)
    if (unread > 0) return refused(Reason.Busy({ detail: `${formatBytes(unread)} in its read buffer` }))
    const answer = backing.detach?.() ??
      refused(Reason.Unsupported({ feature: "giving away a stream of this transport" }))
    if (typeof answer !== "number") return answer
    this.phase = "closing"
    this.writeHalf.close()
    this.readHalf.close()
    this.phase = "closed"
    return answer
  }

  /** Why the backing cannot be handed over now, such as while an operation waits; `undefined` when it can. */
  takeOverRefusal(): Reason | string | undefined {
    const { readHalf, writeHalf } = this
    if (readHalf.state === "closed") return readHalf.closedReason
    const refused = writeHalf.reason
    if (refused !== undefined) return refused
    return this.busy() ?? (readHalf.state === "open" ? undefined : "the stream has ended")
  }

  private busy(): Reason | undefined {
    const waiting = this.readHalf.queue.front ?? this.writeHalf.queue.front
    return waiting === undefined ? undefined : Reason.Busy({ detail: `${waiting.operation} waits on the stream` })
  }

  /**
   * Hands the backing over, with the bytes that were received and not read. From here on every operation fails with
   * `Consumed`, and closing this stream closes its successor.
   */
  takeOver(
    by: string,
    successor: Successor
  ): readonly [backing: Backing, unread: Uint8Array] {
    const unread = this.readHalf.unreadBytes()
    this.takenBy = successor
    this.phase = "closed"
    this.writeHalf.close(Reason.Consumed({ by }))
    this.readHalf.close(Reason.Consumed({ by }))
    return [this.backing, unread]
  }

  readable(): void {
    if (this.isLooking) this.readHalf.serveLast()
    else this.readHalf.queue.pump("keepInterest")
  }

  writable(): void {
    this.writeHalf.queue.pump("keepInterest")
  }

  failed(error: SocketError): void {
    this.writeHalf.fail(error)
  }

  closed(): void {
    if (this.takenBy !== undefined) return
    // The backing may report this after a failure, before any `close`. The waiting operations fail; received bytes can
    // still be read.
    if (this.phase === "open") {
      this.readable()
      this.writable()
      return
    }
    this.phase = "closed"
    const waiters = this.releaseWaiters
    this.releaseWaiters = undefined
    if (waiters !== undefined) { for (const resume of waiters) resume() }
  }

  // A method, because the compiler would keep a narrowed `phase` while a resumed fiber changes it.
  private isReleased(): boolean {
    return this.phase === "closed"
  }

  /** Ends both directions, then the backing. */
  private closeHalves(end: "close" | "abort"): void {
    this.phase = "closing"
    this.writeHalf.close()
    const { backing, readHalf } = this
    if (readHalf.queue.front === undefined || backing.lookAgain === undefined) {
      this.end(end)
      return
    }
    // A read that has begun before gets what had arrived by now.
    this.isLooking = true
    readHalf.closeSoon()
    backing.lookAgain(() => {
      if (this.isLooking) this.end(end)
    })
  }

  private end(end: "close" | "abort"): void {
    this.isLooking = false
    this.readHalf.close()
    // A fiber that was resumed may have ended the stream already.
    if (!this.isReleased()) this.backing[end]()
  }

  private get awaitRelease(): Effect.Effect<void> {
    return Effect.callback((resume) => {
      if (this.phase === "closed") {
        resume(Effect.void)
        return
      }
      const forget = this.onRelease(() => resume(Effect.void))
      return Effect.sync(forget)
    })
  }

  private get awaitReleaseWithinLinger(): Effect.Effect<void> {
    if (!Duration.isFinite(this.linger)) return this.awaitRelease
    return Effect.withFiber((fiber) =>
      Effect.callback((resume) => {
        const deadline = TimerQueue.after(this.linger, fiber.context, () => {
          forget()
          resume(this.abortAfterLinger)
        })
        const forget = this.onRelease(() => {
          deadline.cancel()
          resume(Effect.void)
        })
        return Effect.sync(() => {
          deadline.cancel()
          forget()
        })
      })
    )
  }

  private get abortAfterLinger(): Effect.Effect<void> {
    return Effect.andThen(
      Effect.logDebug(`close ${formatAddress(this.remoteAddress)}: the linger time is over, aborting`),
      Effect.suspend(() => {
        const { backing } = this
        if (backing.overdue === undefined || this.isReleased()) return this.abort
        backing.overdue()
        return this.awaitRelease
      })
    )
  }

  private onRelease(waiter: () => void): () => void {
    const waiters = this.releaseWaiters ??= new Set()
    waiters.add(waiter)
    return () => waiters.delete(waiter)
  }
}

/**
 * The core behind a stream: the stream itself when this library made it,
 * `undefined` for every other stream. A socket of another copy of this package
 * is a `Socket` too; one of another version is a `TypeError`.
 */
export const coreOf = (stream: object): Socket | undefined =>
  stream instanceof Socket || isOfOtherCopy(stream) ? stream : undefined

// A separate function, so that the hot path is one `instanceof`.
const isOfOtherCopy = (stream: object): stream is Socket => isOfThisVersion(stream, CoreId, "stream")
