import * as Duration from "effect/Duration"
import * as NetAddress from "effect/net/NetAddress"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import { Buffer } from "node:buffer"
import type { Duplex } from "node:stream"
import type * as Buffers from "../../Buffers.ts"
import { noEvents } from "../../internal/base/noEvents.ts"
import { abortStream, StreamClosing } from "../../internal/base/StreamClosing.ts"
import { unnamed } from "../../internal/base/unnamed.ts"
import { during, fromErrno, isSocketError, Reason, SocketError } from "../../SocketError.ts"
import { type Backing, type Events, WouldBlock } from "../../Transport.ts"

export class DuplexBacking implements Backing {
  private readonly duplex: Duplex
  private readonly sliceSize: number
  private readonly addresses: { local?: NetAddress.SocketAddress; remote?: NetAddress.SocketAddress } = {}
  private events: Events = noEvents
  private phase: "open" | "closing" | "closed" = "open"
  private listening = false
  private ended: boolean
  private failure: SocketError | undefined = undefined
  private wantsRoom = false
  private closing: StreamClosing | undefined = undefined
  private giveUp: NodeJS.Timeout | undefined = undefined

  constructor(duplex: Duplex, sliceSize: number) {
    this.duplex = duplex
    this.sliceSize = sliceSize
    this.ended = duplex.readableEnded
    // Asked once now, because a stream that was destroyed may not know them any more.
    void this.localAddress
    void this.remoteAddress
    duplex.on("error", (cause) => this.onError(cause))
    duplex.on("end", () => this.onEnd())
    duplex.on("close", () => this.onClose())
    if (duplex.errored !== null) this.failure = this.errorOf(duplex.errored)
    if (duplex.closed) this.onClose()
  }

  get localAddress(): NetAddress.SocketAddress {
    return this.addresses.local ?? this.learn("local")
  }

  get remoteAddress(): NetAddress.SocketAddress {
    return this.addresses.remote ?? this.learn("remote")
  }

  attach(events: Events): void {
    this.events = events
  }

  read(target: Uint8Array): number | SocketError {
    const { duplex } = this
    // From here on the stream is in paused mode. Before the first read it is left as it is: unread.
    this.listen()
    // A stream grows its buffer for good when it is asked for more than that holds.
    const count = Math.min(target.byteLength, duplex.readableLength, Math.max(1, duplex.readableHighWaterMark))
    const chunk: Buffer | null = count === 0 ? null : duplex.read(count)
    if (chunk !== null) {
      target.set(chunk)
      return chunk.byteLength
    }
    if (this.ended) return 0
    if (this.failure !== undefined) return this.failure
    duplex.read(0)
    return WouldBlock
  }

  write(source: Buffers.Cursor, limit: number): number | SocketError {
    const { duplex } = this
    const refusal = this.refusal()
    if (refusal !== undefined) return refusal
    if (duplex.writableNeedDrain) {
      this.wantsRoom = true
      return WouldBlock
    }
    const room = duplex.writableHighWaterMark - duplex.writableLength
    // Memory of its own each time: a stream may hold on to it after its callback.
    const slice = Buffer.allocUnsafe(
      Math.min(source.remaining, limit, this.sliceSize, room > 0 ? room : this.sliceSize)
    )
    source.copyTo(slice)
    duplex.write(slice, () => this.onFlushed())
    // A failure on the spot is reported by an event later; to us it is an answer.
    if (duplex.errored !== null) return this.failure ??= this.errorOf(duplex.errored)
    return slice.byteLength
  }

  shutdownWrite(): number | SocketError {
    const refusal = this.refusal()
    if (refusal !== undefined) return refusal
    if (this.duplex.writableLength > 0) {
      this.wantsRoom = true
      return WouldBlock
    }
    this.duplex.end()
    return 0
  }

  close(): void {
    if (this.phase === "closed") {
      this.events.closed()
      return
    }
    if (this.phase === "closing") return
    this.phase = "closing"
    const { duplex } = this
    if (duplex.destroyed) return
    this.listen()
    this.closing = new StreamClosing(duplex, {
      hasEnded: () => this.ended,
      hasUnread: false,
      silence: () => 0,
      holdsDescriptor: true
    })
    this.discard()
    this.closing.start()
  }

  abort(): void {
    if (this.phase === "closed") {
      this.events.closed()
      return
    }
    const isClosing = this.phase === "closing"
    this.phase = "closing"
    // A stream that never reports its close must not hold up `abort`.
    this.giveUp ??= setTimeout(() => this.onClose(), closeTimeout)
    // The shutdown of a `net.Socket` ends in one turn. That of another stream may wait for its peer without end.
    if ("_handle" in this.duplex || this.duplex.writableFinished) {
      abortStream(this.duplex, isClosing, () => this.reset())
    } else this.reset()
  }

  configure(options: Parameters<Backing["configure"]>[0]): void {
    const { noDelay, keepAlive } = options
    if (noDelay !== undefined) call(this.duplex, "setNoDelay", noDelay)
    if (typeof keepAlive === "boolean") call(this.duplex, "setKeepAlive", keepAlive, 0)
    else if (keepAlive !== undefined) call(this.duplex, "setKeepAlive", true, Duration.toMillis(keepAlive.idle))
  }

  private listen(): void {
    if (this.listening) return
    this.listening = true
    this.duplex.on("readable", () => {
      if (this.phase === "open") this.events.readable()
      else this.discard()
    })
  }

  private onEnd(): void {
    this.ended = true
    if (this.phase === "open") this.events.readable()
    else this.closing?.peerEnded()
  }

  private onFlushed(): void {
    if (!this.wantsRoom) return
    this.wantsRoom = false
    this.events.writable()
  }

  private onError(cause: Error): void {
    this.failure ??= this.errorOf(cause)
    if (this.phase === "open") this.events.failed(this.failure)
  }

  private onClose(): void {
    if (this.phase === "closed") return
    clearTimeout(this.giveUp)
    const wasOpen = this.phase === "open"
    this.phase = "closed"
    this.failure ??= this.ended
      ? this.error(Reason.BrokenPipe(), "EPIPE")
      : this.error(Reason.ConnectionReset(), "ERR_STREAM_PREMATURE_CLOSE")
    if (wasOpen) this.events.failed(this.failure)
    this.events.closed()
  }

  // Unread input would also hold up a stream that passes bytes on.
  private discard(): void {
    while (this.duplex.read() !== null) this.closing?.received()
  }

  private reset(): void {
    const { duplex } = this
    if (duplex.destroyed) return
    try {
      call(duplex, "resetAndDestroy")
    } catch {
      // Only TCP can: a TLS or Unix-domain socket of Node has the method, and refuses.
    }
    if (!duplex.destroyed) duplex.destroy(this.error(Reason.Closed(), "ECONNABORTED"))
  }

  private refusal(): SocketError | undefined {
    if (this.failure !== undefined) return this.failure
    const { duplex } = this
    if (duplex.writable) return undefined
    return duplex.errored === null ? this.error(Reason.BrokenPipe(), "EPIPE") : this.errorOf(duplex.errored)
  }

  private learn(side: "local" | "remote"): NetAddress.SocketAddress {
    const host: unknown = Reflect.get(this.duplex, `${side}Address`)
    const port: unknown = Reflect.get(this.duplex, `${side}Port`)
    if (typeof host !== "string" || typeof port !== "number") return unnamed
    return this.addresses[side] = Result.getOrElse(NetAddress.inetAddressFromHostString(host, port), () => unnamed)
  }

  private errorOf(cause: Error): SocketError {
    // An error of ours that went through a stream, as itself or in the form of Node's.
    const ours = isSocketError(cause) ? cause : isSocketError(cause.cause) ? cause.cause : undefined
    if (ours !== undefined) return during(ours, { operation: "socket", transferred: 0 })
    return Predicate.hasProperty(cause, "code") && cause.code === "ERR_STREAM_PREMATURE_CLOSE"
      ? this.error(Reason.ConnectionReset(), cause.code, cause)
      : fromErrno(cause, { operation: "socket", address: this.remoteAddress })
  }

  private error(reason: Reason, code: string, cause?: Error): SocketError {
    return new SocketError({ reason, operation: "socket", address: this.remoteAddress, transferred: 0, code, cause })
  }
}

// Milliseconds after which a destroyed stream that has not reported its close counts as closed.
const closeTimeout = 1000

/** Calls a method that a `Duplex` may have. */
const call = (duplex: Duplex, method: string, ...args: ReadonlyArray<unknown>): void => {
  const found: unknown = Reflect.get(duplex, method)
  if (typeof found === "function") Reflect.apply(found, duplex, args)
}
