import { Buffer } from "node:buffer"
import { Duplex } from "node:stream"
import * as Buffers from "../../Buffers.ts"
import type { SocketError } from "../../SocketError.ts"
import { type Backing, type Events, WouldBlock } from "../../Transport.ts"
import * as BufferPool from "../base/bufferPool.ts"
import { isNode } from "../base/freeMemory.ts"
import { type Native, nativeOf, type NativeStream } from "../base/nativeStream.ts"
import { noop } from "../base/noEvents.ts"
import * as Memory from "./memory.ts"

/** The connection that carries the ciphertext. */
export interface Carrier {
  /** The stream that `node:tls` reads and writes. */
  readonly stream: Duplex
  /** The backing that was taken over: it has the addresses and the options of the connection. */
  readonly underlying: Backing
  /**
   * Whether the end of the connection is reported by `CarrierEvents.ended`, and by that alone. If not, `node:tls` sees it
   * and reports it as the end of the TLS stream, whether `close_notify` has come or not.
   */
  readonly reportsEnd: boolean
  /** Sets the receiver of events: first the handshake, then the backing. */
  attach(events: CarrierEvents): void
  /** Flushes what `node:tls` has written, and ends the connection. */
  close(): void
  /** Ends the connection now. `isShut`: all bytes and FIN have left, so there is nothing to discard. */
  abort(isShut: boolean): void
  /** Whether the descriptor is released. */
  readonly isClosed: boolean
  /** Whether any byte of the peer has arrived. */
  readonly hasReceived: boolean
}

/** What happens to the connection and is not reported by `node:tls`. */
export interface CarrierEvents {
  /** The peer has ended the connection, and all its bytes have been passed to `node:tls`. */
  readonly ended: () => void
  /** Reading has failed; the bytes that arrived before have been passed to `node:tls`. */
  readonly readFailed: (error: SocketError) => void
  readonly writeFailed: (error: SocketError) => void
  /** Bytes that arrived before a write failed come before `writeFailed`. A handshake fails at once instead. */
  readonly readsFirst?: true
  /** The descriptor is released. */
  readonly closed: () => void
}

/** A TCP socket of `node:net`: OpenSSL reads and writes its descriptor without any JavaScript in between. */
export class NativeCarrier implements Carrier {
  readonly stream: NativeStream
  readonly underlying: Backing
  readonly reportsEnd = false
  isClosed: boolean
  private events: CarrierEvents = noCarrierEvents
  private readonly receivedBefore: number

  constructor(underlying: Backing, native: Native, unread: Uint8Array) {
    this.underlying = underlying
    this.stream = native.release()
    this.receivedBefore = this.stream.bytesRead - this.stream.readableLength - unread.byteLength
    if (unread.byteLength > 0) this.stream.unshift(Buffer.from(unread))
    this.isClosed = this.stream.closed
    this.stream.on("error", noop)
    this.stream.once("close", () => {
      this.isClosed = true
      this.events.closed()
    })
  }

  get hasReceived(): boolean {
    return this.stream.bytesRead > this.receivedBefore
  }

  attach(events: CarrierEvents): void {
    this.events = events
  }

  close(): void {
    if (!this.stream.destroyed) this.stream.destroy()
  }

  abort(isShut: boolean): void {
    if (this.stream.destroyed) return
    // Node never releases the descriptor of a socket that is reset while it shuts down.
    if (isShut) this.stream.destroy()
    else this.stream.resetAndDestroy()
  }
}

/**
 * Any other backing, behind a `Duplex`. `node:tls` never sees a write of it fail or a read of it end: it would end both
 * directions for either, and an end of the connection without `close_notify` is not the end of the TLS stream. Failures and
 * the end are reported by `CarrierEvents`.
 */
export class BackingCarrier implements Carrier, Events {
  readonly stream: Duplex
  readonly underlying: Backing
  readonly reportsEnd = true
  isClosed = false
  hasReceived: boolean
  private events: CarrierEvents = noCarrierEvents
  // Ciphertext that was received before TLS began. It comes before what the backing reads.
  private receivedEarly: Uint8Array
  private wantsBytes = false
  private isScheduled = false
  private readIsOver = false
  private writeIsOver = false
  private failsSoon = false
  // Reports the end or the failure of reading, once OpenSSL has the bytes that came before it.
  private reportReadOver: (() => void) | undefined = undefined
  private outgoing: Outgoing | undefined = undefined
  private onFinal: (() => void) | undefined = undefined
  private onDestroyed: (() => void) | undefined = undefined
  private aborts = false

  constructor(underlying: Backing, unread: Uint8Array) {
    this.underlying = underlying
    this.receivedEarly = unread
    this.hasReceived = unread.byteLength > 0
    this.stream = new Duplex({
      autoDestroy: false,
      read: () => {
        // The backing has answered "would block", and its event continues the pump.
        if (this.wantsBytes) return
        this.wantsBytes = true
        this.pump(true)
      },
      write: (chunk: Buffer, _encoding, done) => this.send([chunk], done),
      writev: (chunks: ReadonlyArray<{ readonly chunk: Buffer }>, done) =>
        this.send(chunks.map(({ chunk }) => chunk), done),
      final: (done) => {
        this.onFinal = done
        this.shutdown()
      },
      destroy: (_error, done) => this.destroy(() => done(null))
    })
    this.stream.on("error", noop)
    underlying.attach(this)
  }

  attach(events: CarrierEvents): void {
    this.events = events
  }

  close(): void {
    if (this.onDestroyed === undefined) this.stream.destroy()
  }

  abort(isShut: boolean): void {
    const isOpen = this.onDestroyed === undefined
    this.aborts = !isShut
    if (isOpen) this.stream.destroy()
    // A close, this one or an earlier one, may wait for the peer.
    if (this.isClosed) return
    // Everything has left into a stream that closes: what the platform delivers by itself may go on its way.
    if (isShut && this.underlying.overdue !== undefined) this.underlying.overdue()
    else if (isShut || !isOpen) this.underlying.abort()
  }

  // ---- events of the backing

  // Node cuts the bytes that it receives and the bytes that OpenSSL decrypts out of one slab of 64 KiB. But if receiving and
  // decrypting alternate, each message gets a slab of its own, and the garbage collector runs all the time. So the sockets
  // that are readable in a turn are all read first, and decrypted afterwards.
  readable(): void {
    if (nativeOf(this.underlying) === undefined) this.pump()
    else if (!this.isScheduled) {
      this.isScheduled = true
      setImmediate(() => {
        this.isScheduled = false
        this.pump()
      })
    }
  }

  writable(): void {
    this.flush()
    this.shutdown()
  }

  failed(error: SocketError): void {
    // What has arrived is decrypted before the writes fail. A handshake fails even if its last message has arrived.
    if (this.events.readsFirst === true) this.pump()
    this.endWrites(error)
    this.pump()
  }

  closed(): void {
    this.isClosed = true
    if (this.onDestroyed !== undefined) {
      this.onDestroyed()
      this.events.closed()
      return
    }
    // The backing has lost its descriptor by a failure. The bytes that it has received can still be read.
    this.readable()
    this.writable()
  }

  // ---- requests of `node:tls`

  /** @param insideRead the stream has called `read`, and then keeps what is pushed until `read` has returned */
  private pump(insideRead = false): void {
    while (this.wantsBytes && !this.readIsOver && this.onDestroyed === undefined) {
      const buffer = BufferPool.acquire(bufferSize)
      const answer = this.receivedEarly.byteLength > 0 ? this.takeEarly(buffer) : this.underlying.read(buffer)
      if (typeof answer === "number" && answer > 0) {
        this.hasReceived = true
        this.deliver(buffer, answer, insideRead)
        continue
      }
      BufferPool.release(buffer)
      if (answer === WouldBlock) return
      this.readIsOver = true
      this.reportReadOver = () => typeof answer === "number" ? this.events.ended() : this.events.readFailed(answer)
      // Not before OpenSSL has the chunks that wait in the stream, and not inside a call of `node:tls`.
      if (this.stream.readableLength > 0) this.stream.on("data", () => this.reportReadOverIfDrained())
      setImmediate(() => this.reportReadOverIfDrained())
    }
  }

  /**
   * A chunk that the stream need not keep has been given to OpenSSL when `push` returns, and its buffer is free again. A
   * chunk that the stream keeps is a copy.
   */
  private deliver(buffer: Buffer, count: number, insideRead: boolean): void {
    const { stream } = this
    const isKept = insideRead || !isNode || stream.readableFlowing !== true || stream.readableLength > 0
    const bytes = buffer.subarray(0, count)
    // `push` runs code of `node:tls` that may call this class. Bytes that it delivers meanwhile would overtake these.
    this.wantsBytes = false
    const hasRoom = stream.push(isKept ? Buffer.from(bytes) : bytes)
    // A stream that is paused calls `read` again.
    if (hasRoom && stream.readableFlowing === true) this.wantsBytes = true
    if (isKept || stream.readableLength === 0) BufferPool.release(buffer)
  }

  private reportReadOverIfDrained(): void {
    const { reportReadOver } = this
    if (reportReadOver === undefined || this.stream.readableLength > 0 || this.onDestroyed !== undefined) return
    this.reportReadOver = undefined
    reportReadOver()
  }

  private takeEarly(buffer: Buffer): number {
    const count = Math.min(this.receivedEarly.byteLength, buffer.byteLength)
    buffer.set(this.receivedEarly.subarray(0, count))
    this.receivedEarly = this.receivedEarly.subarray(count)
    return count
  }

  private send(chunks: ReadonlyArray<Buffer>, done: () => void): void {
    this.outgoing = { chunks, cursor: Buffers.cursor(chunks), done }
    this.flush()
  }

  private flush(): void {
    const { outgoing } = this
    if (outgoing === undefined) return
    const { chunks, cursor, done } = outgoing
    while (cursor.remaining > 0 && !this.writeIsOver) {
      const answer = this.underlying.write(cursor, Infinity)
      if (answer === WouldBlock) return
      if (typeof answer === "number") cursor.advance(answer)
      else {
        this.failWrites(answer)
        return
      }
    }
    // `endWrites` has completed this write already.
    if (this.outgoing !== outgoing) return
    this.outgoing = undefined
    for (const chunk of chunks) Memory.release(chunk)
    done()
  }

  private shutdown(): void {
    const done = this.onFinal
    if (done === undefined) return
    if (!this.writeIsOver) {
      const answer = this.underlying.shutdownWrite()
      if (answer === WouldBlock) return
      if (typeof answer !== "number") {
        this.failWrites(answer)
        return
      }
    }
    if (this.onFinal !== done) return
    this.onFinal = undefined
    done()
  }

  /**
   * An attempt has failed. What has arrived is decrypted before the write is told; not here, because `node:tls` may be the
   * caller.
   */
  private failWrites(error: SocketError): void {
    if (this.failsSoon) return
    if (this.events.readsFirst !== true) {
      this.endWrites(error)
      return
    }
    this.failsSoon = true
    setImmediate(() => {
      this.pump()
      this.endWrites(error)
    })
  }

  /** Writes have failed. For `node:tls` they complete, and their bytes are discarded. */
  private endWrites(error: SocketError): void {
    if (this.writeIsOver) return
    this.writeIsOver = true
    this.events.writeFailed(error)
    this.writable()
  }

  private destroy(done: () => void): void {
    this.onDestroyed = done
    if (this.isClosed) {
      done()
      this.events.closed()
    } else if (this.aborts) this.underlying.abort()
    else this.underlying.close()
  }
}

// ---- internal

/** One write of `node:tls`: chunks that it has allocated for this write, and keeps no reference to. */
interface Outgoing {
  readonly chunks: ReadonlyArray<Buffer>
  readonly cursor: Buffers.Cursor
  readonly done: () => void
}

const bufferSize = 65_536

const noCarrierEvents: CarrierEvents = { ended: noop, readFailed: noop, writeFailed: noop, closed: noop }
