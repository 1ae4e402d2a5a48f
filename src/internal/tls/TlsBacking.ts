import type * as NetAddress from "effect/net/NetAddress"
import { Buffer } from "node:buffer"
import type { TLSSocket } from "node:tls"
import type * as Buffers from "../../Buffers.ts"
import type { SocketError } from "../../SocketError.ts"
import { type Backing, type Events, WouldBlock } from "../../Transport.ts"
import * as BufferPool from "../base/bufferPool.ts"
import { noEvents } from "../base/noEvents.ts"
import { StreamClosing } from "../base/StreamClosing.ts"
import type { Carrier, CarrierEvents } from "./Carrier.ts"
import { fromTls, truncated } from "./errors.ts"
import * as Memory from "./memory.ts"

/**
 * A `TLSSocket` whose handshake is over, as a backing.
 *
 * Bytes that are taken are copied into memory of this module, because OpenSSL may keep a reference to it. At most two slices
 * are queued at a time. Bytes that were taken always become complete records.
 */
export class TlsBacking implements Backing, CarrierEvents {
  readonly readsFirst = true
  private readonly socket: TLSSocket
  private readonly carrier: Carrier
  private readonly sliceSize: number
  private readonly tellsTruncation: boolean
  private attached: Events = noEvents
  // Plaintext that `node:tls` has delivered and no read has taken, from `chunkOffset` on.
  private chunk: Buffer | undefined = undefined
  private chunkOffset = 0
  // Full records behind `chunk`, and whether `readable` will be reported for them at the end of this turn of the event loop.
  private queuedRecords: Array<Buffer> = []
  private isGathering = false
  private flowing = false
  private pulling = false
  private hasEnded = false
  // The connection below has ended: nothing comes any more, whether the TLS stream has ended or not.
  private underlyingHasEnded = false
  private sawCloseNotify = false
  // 0: the connection has ended without close_notify, and the caller takes that for the end of the stream.
  private readFailure: SocketError | 0 | undefined = undefined
  private writeFailure: SocketError | undefined = undefined
  private isWriting = false
  private wantsRoom = false
  private phase: "open" | "closing" | "closed" = "open"
  // The peer has sent bytes that no read has taken, before the close or after it.
  private closing: StreamClosing | undefined = undefined
  private hasWritten = false
  private hasReceived = false
  private socketIsClosed = false

  /** @param tellsTruncation an end of the connection without close_notify is a failure, where the carrier reports it */
  constructor(socket: TLSSocket, carrier: Carrier, sliceSize: number, tellsTruncation: boolean) {
    this.socket = socket
    this.carrier = carrier
    this.sliceSize = sliceSize
    this.tellsTruncation = tellsTruncation
    carrier.attach(this)
    socket.on("data", (chunk: Buffer) => this.onData(chunk))
    socket.pause()
    socket.on("end", () => this.onEnd())
    socket.on("error", (cause) => this.onError(cause))
    socket.on("close", () => this.onClose())
    if (carrier.reportsEnd) this.watchForCloseNotify()
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

  get failedWriteLosesInput(): boolean {
    return this.carrier.underlying.failedWriteLosesInput === true
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
    // After close_notify a failure does not matter: the stream has ended, and "end" will be emitted.
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
      const buffer = BufferPool.acquire(length)
      const slice = length === buffer.byteLength ? buffer : buffer.subarray(0, length)
      source.copyTo(slice)
      this.isWriting = true
      socket.write(slice, () => {
        BufferPool.release(buffer)
        this.onFlushed()
      })
    }
    this.isWriting = false
    // A write that fails at once is answered with its error, although Node will also emit it later.
    if (socket.errored !== null) this.writeFailure ??= this.errorOf(socket.errored)
    this.hasWritten = true
    return this.refusal() ?? length
  }

  shutdownWrite(): number | SocketError {
    if (this.writeFailure !== undefined) return this.writeFailure
    if (this.socket.writableLength > 0) return this.waitForRoom()
    // Sends close_notify and FIN.
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
    this.closing = new StreamClosing(this.socket, {
      hasEnded: () => this.hasEnded || this.underlyingHasEnded,
      hasUnread: this.chunk !== undefined || this.socket.readableLength > 0,
      // If both sides have sent data, the peer answers close_notify with its own. Otherwise only what has arrived by now is
      // read, which may be a session ticket.
      silence: () => this.hasWritten && this.hasReceived ? closeNotifyTimeout : 0,
      holdsDescriptor: !this.carrier.reportsEnd
    })
    this.discardReceived()
    if (!this.socket.writableFinished && this.isStalled()) this.socket.destroy()
    else this.closing.start()
    // Bytes that the peer sends from now on are read and discarded. Left in the kernel, it would turn the release of the descriptor
    // into a reset, and the peer would lose what it has not received yet.
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
    this.discardReceived()
    const isShut = socket.writableFinished ? phase === "closing" : socket.writableEnded && socket.writableLength === 0
    // The TLS socket is destroyed by the close of the carrier. Destroyed here, without its connection, it would free the
    // memory of OpenSSL at once, and OpenSSL may be the caller.
    this.carrier.abort(isShut)
  }

  configure(options: Parameters<Backing["configure"]>[0]): ReturnType<Backing["configure"]> {
    return this.carrier.underlying.configure(options)
  }

  // ---- events of the connection below

  ended(): void {
    this.underlyingHasEnded = true
    if (this.sawCloseNotify) this.closing?.peerEnded()
    else this.endReading(this.tellsTruncation ? truncated(this.context()) : 0)
  }

  readFailed(error: SocketError): void {
    this.underlyingHasEnded = true
    this.endReading(error)
  }

  writeFailed(error: SocketError): void {
    this.writeFailure ??= error
    if (this.phase === "open" && !this.isWriting) this.attached.failed(error)
  }

  closed(): void {
    this.reportClosed()
  }

  // ---- events of `node:tls`

  private onData(chunk: Buffer): void {
    this.hasReceived = true
    if (this.pulling) return
    if (this.phase !== "open") {
      this.closing?.received()
      return
    }
    if (this.chunk === undefined) this.chunk = chunk
    else this.queuedRecords.push(chunk)
    // A full record is mostly followed by another one, and waking a fiber costs as much as decrypting a record.
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
    // Bytes are left, so no read waits for more.
    if (this.chunk !== undefined) this.pause()
  }

  private discardReceived(): void {
    this.chunk = undefined
    this.queuedRecords = []
  }

  /** Moves bytes of the first chunk into the target. */
  private take(chunk: Buffer, target: Uint8Array): number {
    const { chunkOffset } = this
    const remaining = chunk.byteLength - chunkOffset
    const count = Math.min(remaining, target.byteLength)
    target.set(count === chunk.byteLength ? chunk : chunk.subarray(chunkOffset, chunkOffset + count))
    if (count === remaining) {
      Memory.release(chunk)
      this.chunk = this.queuedRecords.shift()
      this.chunkOffset = 0
    } else this.chunkOffset += count
    return count
  }

  private onEnd(): void {
    this.hasEnded = true
    if (this.phase === "open") this.attached.readable()
    else this.closing?.peerEnded()
  }

  private onError(cause: Error): void {
    const error = this.errorOf(cause)
    this.readFailure ??= error
    this.writeFailure ??= error
    // Node emits an error of TLS itself without destroying the socket.
    if (!this.socket.destroyed) this.socket.destroy()
    if (this.phase !== "open") return
    this.pause()
    this.attached.failed(this.writeFailure)
  }

  private onClose(): void {
    this.closing?.stop()
    this.socketIsClosed = true
    this.reportClosed()
  }

  private waitForRoom(): typeof WouldBlock | SocketError {
    if (this.isStalled()) return this.writeFailure ??= this.errorOf(peerIsGone())
    this.wantsRoom = true
    return WouldBlock
  }

  /**
   * Whether `node:tls` will never complete the writes that are queued. It reports nothing when a write of its own fails, for
   * example when it sends session tickets and the peer has disconnected, and from then on it completes no write.
   *
   * `remoteAddress` asks the kernel (`getpeername`), which answers that there is no peer. Node keeps the first address that it
   * is given, but such a failure comes with the last flight of the handshake and so before the first question.
   */
  private isStalled(): boolean {
    const { carrier, socket } = this
    return socket.writableLength > 0 && !carrier.reportsEnd && !socket.destroyed && socket.remoteAddress === undefined
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

  private endReading(answer: SocketError | 0): void {
    this.readFailure ??= answer
    if (this.phase === "open") this.attached.readable()
    else this.closing?.peerEnded()
  }

  // Over such a carrier `node:tls` sees no end but close_notify. It pushes `null` when it has decrypted it; "end" is emitted
  // later, when everything before it was read.
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

  // A method, because the compiler does not know that `socket.write` may set the field.
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

// Bytes. `Buffer.allocUnsafe` has a pool of its own for shorter slices.
const poolThreshold = 4096

// Bytes of plaintext that a full record has, and the records that are gathered behind the first one.
const recordSize = 16_384
const maxQueuedRecords = 3

// Milliseconds that a peer which sends nothing has to answer close_notify with its own.
const closeNotifyTimeout = 500

const peerIsGone = () => Object.assign(new Error("the peer was gone already"), { code: "ECONNRESET" })
