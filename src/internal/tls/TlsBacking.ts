import * as NetAddress from "effect/net/NetAddress"
import { Buffer } from "node:buffer"
import type { TLSSocket } from "node:tls"
import type * as Buffers from "../../Buffers.ts"
import type { SocketError } from "../../SocketError.ts"
import { type Backing, type Events, WouldBlock } from "../../Transport.ts"
import * as Slab from "../base/bufferPool.ts"
import { noEvents } from "../base/noEvents.ts"
import type { Carrier, Listener } from "./Carrier.ts"
import { fromTls, truncated } from "./errors.ts"
import * as Memory from "./memory.ts"

/**
 * A `TLSSocket` whose handshake is over, as a backing.
 *
 * Taken bytes are copied into memory of this module, because OpenSSL may keep it; at most two slices are on their way.
 * What was taken becomes records that are always finished.
 */
export class TlsBacking implements Backing, Listener {
  private readonly socket: TLSSocket
  private readonly carrier: Carrier
  private readonly sliceSize: number
  private attached: Events = noEvents
  // What `node:tls` has delivered and no read has taken.
  private chunk: Buffer | undefined = undefined
  private chunkOffset = 0
  // Full records behind it, and whether the reader is to hear of them in this turn of the event loop.
  private queuedRecords: Array<Buffer> = []
  private isGathering = false
  private flowing = false
  private pulling = false
  private hasEnded = false
  // The connection below has: nothing comes any more, whether the TLS stream has ended or not.
  private underlyingHasEnded = false
  private sawCloseNotify = false
  private readFailure: SocketError | undefined = undefined
  private writeFailure: SocketError | undefined = undefined
  private isWriting = false
  private wantsRoom = false
  private phase: "open" | "closing" | "closed" = "open"
  private sawUnread = false
  private hasWritten = false
  private hasHeard = false
  // Set while the answer of the peer to close_notify is awaited.
  private silence: NodeJS.Timeout | undefined = undefined
  private socketIsClosed = false

  constructor(socket: TLSSocket, carrier: Carrier, sliceSize: number) {
    this.socket = socket
    this.carrier = carrier
    this.sliceSize = sliceSize
    carrier.listen(this)
    socket.on("data", (chunk: Buffer) => this.onData(chunk))
    socket.pause()
    socket.on("end", () => this.onEnd())
    socket.on("error", (cause) => this.onError(cause))
    socket.on("close", () => this.onClose())
    if (carrier.tellsEnd) this.watchForCloseNotify()
  }

  get localAddress(): NetAddress.SocketAddress {
    return this.carrier.underlying.localAddress
  }

  get remoteAddress(): NetAddress.SocketAddress {
    return this.carrier.underlying.remoteAddress
  }

  attach(events: Events): void {
    this.attached = events
  }

  read(target: Uint8Array): number | SocketError {
    if (this.chunk === undefined && (!this.flowing || this.readFailure !== undefined)) this.pull()
    if (this.chunk !== undefined) {
      let count = this.take(this.chunk, target)
      while (this.chunk !== undefined && count < target.byteLength) {
        count += this.take(this.chunk, target.subarray(count))
      }
      return count
    }
    if (this.hasEnded) return 0
    // Behind close_notify nothing matters, and "end" is on its way.
    if (this.readFailure !== undefined && (!this.sawCloseNotify || this.socket.destroyed)) return this.readFailure
    if (!this.flowing) {
      this.flowing = true
      this.socket.resume()
    }
    return WouldBlock
  }

  write(source: Buffers.Cursor, limit: number): number | SocketError {
    if (this.writeFailure !== undefined) return this.writeFailure
    const { sliceSize, socket } = this
    if (socket.writableLength > sliceSize) return this.waitForRoom()
    const length = Math.min(source.remaining, limit, sliceSize)
    if (length < poolThreshold) {
      const slice = Buffer.allocUnsafe(length)
      source.copyTo(slice)
      this.isWriting = true
      socket.write(slice, this.onFlushed)
    } else {
      const slab = Slab.acquire(length)
      const slice = length === slab.byteLength ? slab : slab.subarray(0, length)
      source.copyTo(slice)
      this.isWriting = true
      socket.write(slice, () => {
        Slab.release(slab)
        this.onFlushed()
      })
    }
    this.isWriting = false
    // A refusal on the spot is an answer, although it comes as an event.
    if (socket.errored !== null) this.writeFailure ??= this.errorOf(socket.errored)
    this.hasWritten = true
    return this.refusal() ?? length
  }

  shutdownWrite(): number | SocketError {
    if (this.writeFailure !== undefined) return this.writeFailure
    if (this.socket.writableLength > 0) return this.waitForRoom()
    // Sends close_notify, and FIN behind it.
    this.socket.end()
    return 0
  }

  close(): void {
    if (this.phase === "closed") {
      this.attached.closed()
      return
    }
    if (this.phase === "closing") return
    this.phase = "closing"
    if (this.socket.destroyed) return
    this.sawUnread = this.chunk !== undefined || this.socket.readableLength > 0
    this.forget()
    if (this.socket.writableFinished) this.release()
    else if (this.isForgotten()) this.socket.destroy()
    else {
      this.socket.once("finish", () => this.release())
      this.socket.end()
    }
    // Thrown away: left in the kernel, it would cost the peer what it has not received yet.
    this.flowing = true
    this.socket.resume()
  }

  abort(): void {
    if (this.phase === "closed") {
      this.attached.closed()
      return
    }
    const { phase, socket } = this
    this.phase = "closing"
    this.forget()
    const isShut = socket.writableFinished ? phase === "closing" : socket.writableEnded && socket.writableLength === 0
    // The TLS socket follows when that is closed. Destroyed here, with nothing below it any more, it would free OpenSSL's
    // memory at once; and this may be a callback of OpenSSL.
    this.carrier.abort(isShut)
  }

  configure(options: Parameters<Backing["configure"]>[0]): ReturnType<Backing["configure"]> {
    return this.carrier.underlying.configure(options)
  }

  // ---- what happens below

  ended(): void {
    this.underlyingHasEnded = true
    if (!this.sawCloseNotify) this.failReading(truncated(this.context()))
    else this.endClosing()
  }

  readFailed(error: SocketError): void {
    this.underlyingHasEnded = true
    this.failReading(error)
  }

  writeFailed(error: SocketError): void {
    this.writeFailure ??= error
    if (this.phase === "open" && !this.isWriting) this.attached.failed(error)
  }

  closed(): void {
    this.reportClosed()
  }

  // ---- what `node:tls` reports

  private onData(chunk: Buffer): void {
    this.hasHeard = true
    if (this.pulling) return
    if (this.phase !== "open") {
      this.sawUnread = true
      this.silence?.refresh()
      return
    }
    if (this.chunk === undefined) this.chunk = chunk
    else this.queuedRecords.push(chunk)
    // Behind a full record there mostly is another one, and waking a fiber costs as much as decrypting one.
    if (chunk.byteLength < recordSize || this.queuedRecords.length >= maxQueuedRecords) this.deliver()
    else if (!this.isGathering) {
      this.isGathering = true
      setImmediate(() => {
        this.isGathering = false
        if (this.chunk !== undefined && this.flowing && this.phase === "open") this.deliver()
      })
    }
  }

  private deliver(): void {
    this.attached.readable()
    // Nobody took all of it, so nobody wants more.
    if (this.chunk !== undefined) this.pause()
  }

  private forget(): void {
    this.chunk = undefined
    this.queuedRecords = []
  }

  /** Moves bytes of the first chunk. */
  private take(chunk: Buffer, target: Uint8Array): number {
    const { chunkOffset } = this
    const rest = chunk.byteLength - chunkOffset
    const count = Math.min(rest, target.byteLength)
    target.set(count === chunk.byteLength ? chunk : chunk.subarray(chunkOffset, chunkOffset + count))
    if (count === rest) {
      Memory.release(chunk)
      this.chunk = this.queuedRecords.shift()
      this.chunkOffset = 0
    } else this.chunkOffset += count
    return count
  }

  private onEnd(): void {
    this.hasEnded = true
    if (this.phase === "open") this.attached.readable()
    else this.endClosing()
  }

  private onError(cause: Error): void {
    const error = this.errorOf(cause)
    this.readFailure ??= error
    this.writeFailure ??= error
    // Of an error of TLS itself, Node only tells.
    if (!this.socket.destroyed) this.socket.destroy()
    if (this.phase !== "open") return
    this.pause()
    this.attached.failed(this.writeFailure)
  }

  private onClose(): void {
    clearTimeout(this.silence)
    this.socketIsClosed = true
    this.reportClosed()
  }

  private waitForRoom(): typeof WouldBlock | SocketError {
    if (this.isForgotten()) return this.writeFailure ??= this.errorOf(forgotten())
    this.wantsRoom = true
    return WouldBlock
  }

  // A write of its own that fails, as of the session tickets to a peer that is gone by then, `node:tls` forgets, and it
  // answers none of those that follow. The kernel knows that there is no peer any more; and Node asks it, until the first
  // time that there is one, which is soon enough. Where addresses say nothing of that, `close` has its linger time.
  private isForgotten(): boolean {
    const { carrier, socket } = this
    return socket.writableLength > 0 && !carrier.tellsEnd && !socket.destroyed && socket.remoteAddress === undefined &&
      NetAddress.isInetAddress(this.remoteAddress)
  }

  private readonly onFlushed = (): void => {
    if (this.wantsRoom && this.socket.writableLength <= this.sliceSize) {
      this.wantsRoom = false
      this.attached.writable()
    }
  }

  private reportClosed(): void {
    if (!this.socketIsClosed || !this.carrier.isClosed || this.phase === "closed") return
    this.phase = "closed"
    this.attached.closed()
  }

  private failReading(error: SocketError): void {
    this.readFailure ??= error
    if (this.phase === "open") this.attached.readable()
    else this.endClosing()
  }

  /** Both directions are over: nothing is left to wait for. */
  private endClosing(): void {
    if (this.phase === "closing" && this.socket.writableFinished) this.socket.destroy()
  }

  // Everything has left, with close_notify and FIN behind it. To let go now would cost a peer that still sends what it has
  // not received yet. So where both have spoken, its end is awaited while it shows signs of life, however long that lasts:
  // `close` knows how long it may. Of any other peer only what has come by now is read: it may be a session ticket.
  private release(): void {
    const letGo = () => {
      if (this.hasEnded || this.underlyingHasEnded || !this.sawUnread || this.carrier.tellsEnd) this.socket.destroy()
    }
    if (this.hasEnded || this.underlyingHasEnded) this.socket.destroy()
    else if (this.hasWritten && this.hasHeard) this.silence = setTimeout(letGo, closeNotifyTimeout)
    else setImmediate(() => setImmediate(letGo))
  }

  // Over this ground the only end that `node:tls` hears of is close_notify; "end" comes when all before it was read.
  private watchForCloseNotify(): void {
    const { socket } = this
    const push = socket.push.bind(socket)
    socket.push = (chunk: unknown, encoding?: BufferEncoding) => {
      if (chunk === null) this.sawCloseNotify = true
      return push(chunk, encoding)
    }
  }

  private pull(): void {
    this.pulling = true
    const chunk: Buffer | null = this.socket.read()
    this.pulling = false
    if (chunk !== null) this.chunk = chunk
  }

  // A call, because the compiler cannot know what writing does to it.
  private refusal(): SocketError | undefined {
    return this.writeFailure
  }

  private errorOf(cause: Error): SocketError {
    return fromTls(cause, this.context())
  }

  private context() {
    return { operation: "socket", address: this.remoteAddress, stage: "open" } as const
  }

  private pause(): void {
    this.flowing = false
    this.socket.pause()
  }
}

// ---- internal

// Node has a pool for less.
const poolThreshold = 4096

// Of plaintext, at most; and how many of them are gathered.
const recordSize = 16_384
const maxQueuedRecords = 3

// Milliseconds in which a peer answers, if it means to.
const closeNotifyTimeout = 500

const forgotten = () => Object.assign(new Error("the peer was gone already"), { code: "ECONNRESET" })
