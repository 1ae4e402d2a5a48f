import * as NetAddress from "effect/net/NetAddress"
import { Buffer } from "node:buffer"
import { Duplex } from "node:stream"
import * as Buffers from "../../Buffers.ts"
import type { SocketError } from "../../SocketError.ts"
import { type Backing, type Events, WouldBlock } from "../../Transport.ts"
import * as Slab from "../base/bufferPool.ts"
import { type Native, nativeOf, type NativeStream } from "../base/nativeStream.ts"
import { noop } from "../base/noEvents.ts"
import * as Memory from "./memory.ts"

/** The connection below TLS, as `node:tls` and the backing above it see it. */
export interface Carrier {
  /** What `node:tls` is given. */
  readonly stream: Duplex
  /** The backing whose place it takes: for addresses and options. */
  readonly underlying: Backing
  /**
   * Whether TLS learns of the end of the connection only by `Listener.ended`. Otherwise `node:tls` reports it as the end
   * of the TLS stream, and nobody can tell the two apart.
   */
  readonly tellsEnd: boolean
  listen(listener: Listener): void
  /** Flushes what `node:tls` has written, and ends the connection. */
  close(): void
  /** Ends the connection now. `isShut`: everything has left, with FIN behind it, so that nothing is there to discard. */
  abort(isShut: boolean): void
  /** Whether the descriptor is released. */
  readonly isClosed: boolean
}

/** What happens below, past what `node:tls` reports itself. */
export interface Listener {
  /** The peer's end of stream; all its bytes have been handed to `node:tls`. */
  readonly ended: () => void
  /** Reading has failed; what had arrived before has been handed to `node:tls`. */
  readonly readFailed: (error: SocketError) => void
  readonly writeFailed: (error: SocketError) => void
  /** The descriptor is released. */
  readonly closed: () => void
}

/** A socket of `node:net`: OpenSSL reads and writes its descriptor without any JavaScript in between. */
export class NativeCarrier implements Carrier {
  readonly stream: NativeStream
  readonly underlying: Backing
  readonly tellsEnd = false
  isClosed: boolean
  private listener: Listener = deaf

  constructor(underlying: Backing, native: Native, unread: Uint8Array) {
    this.underlying = underlying
    this.stream = native.release()
    if (unread.byteLength > 0) this.stream.unshift(Buffer.from(unread))
    this.isClosed = this.stream.closed
    this.stream.on("error", noop)
    this.stream.once("close", () => {
      this.isClosed = true
      this.listener.closed()
    })
  }

  listen(listener: Listener): void {
    this.listener = listener
  }

  close(): void {
    if (!this.stream.destroyed) this.stream.destroy()
  }

  abort(isShut: boolean): void {
    if (this.stream.destroyed) return
    // Node never releases the descriptor of a socket that is reset while it shuts down.
    if (isShut || NetAddress.isUnixPathAddress(this.underlying.remoteAddress)) this.stream.destroy()
    else this.stream.resetAndDestroy()
  }
}

/**
 * Any other backing, as a `Duplex` whose writes never fail and whose reads never end, as far as `node:tls` can see:
 * either would end both directions, and an end without `close_notify` is not the end of a TLS stream.
 */
export class BackingCarrier implements Carrier, Events {
  readonly stream: Duplex
  readonly underlying: Backing
  readonly tellsEnd = true
  isClosed = false
  private listener: Listener = deaf
  // Ciphertext that was received before TLS began.
  private early: Uint8Array
  private wantsBytes = false
  private isScheduled = false
  private readIsOver = false
  private writeIsOver = false
  // What there is to tell once OpenSSL has all that came before.
  private report: (() => void) | undefined = undefined
  private outgoing: Outgoing | undefined = undefined
  private onFinal: (() => void) | undefined = undefined
  private onDestroyed: (() => void) | undefined = undefined
  private aborts = false

  constructor(underlying: Backing, unread: Uint8Array) {
    this.underlying = underlying
    this.early = unread
    this.stream = new Duplex({
      autoDestroy: false,
      read: () => {
        // Then the backing owes an event.
        if (this.wantsBytes) return
        this.wantsBytes = true
        this.pump(true)
      },
      write: (chunk: Buffer, _encoding, done) => this.send([chunk], done),
      writev: (chunks: ReadonlyArray<{ readonly chunk: Buffer }>, done) =>
        this.send(chunks.map(({ chunk }) => chunk), done),
      final: (done) => {
        this.onFinal = done
        this.shut()
      },
      destroy: (_error, done) => this.destroy(() => done(null))
    })
    this.stream.on("error", noop)
    underlying.attach(this)
  }

  listen(listener: Listener): void {
    this.listener = listener
  }

  close(): void {
    if (this.onDestroyed === undefined) this.stream.destroy()
  }

  abort(isShut: boolean): void {
    const isOpen = this.onDestroyed === undefined
    this.aborts = !isShut
    if (isOpen) this.stream.destroy()
    // What was closed, now or earlier, may wait for the peer.
    if ((isShut || !isOpen) && !this.isClosed) this.underlying.abort()
  }

  // ---- what the backing reports

  // Node cuts what it receives, and what OpenSSL decrypts, out of one slab of 64 KiB; but where the two take turns, each
  // message gets a slab of its own, and the collector has no rest. So all sockets of a turn are read first.
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
    this.shut()
  }

  failed(error: SocketError): void {
    this.loseWrites(error)
    this.pump()
  }

  closed(): void {
    this.isClosed = true
    if (this.onDestroyed !== undefined) {
      this.onDestroyed()
      this.listener.closed()
      return
    }
    // Lost by failure: what it has received can still be read.
    this.readable()
    this.writable()
  }

  // ---- what `node:tls` asks for

  /** @param isAsked from inside the stream, which then keeps what it gets until it is asked itself */
  private pump(isAsked = false): void {
    while (this.wantsBytes && !this.readIsOver && this.onDestroyed === undefined) {
      const buffer = Slab.acquire(bufferSize)
      const answer = this.early.byteLength > 0 ? this.takeEarly(buffer) : this.underlying.read(buffer)
      if (typeof answer === "number" && answer > 0) {
        this.deliver(buffer, answer, isAsked)
        continue
      }
      Slab.release(buffer)
      if (answer === WouldBlock) return
      this.readIsOver = true
      this.report = () => typeof answer === "number" ? this.listener.ended() : this.listener.readFailed(answer)
      // Chunks that wait in the stream come first. And not from inside a call that TLS makes.
      if (this.stream.readableLength > 0) this.stream.on("data", () => this.tell())
      setImmediate(() => this.tell())
    }
  }

  /** What the stream need not keep is OpenSSL's before `push` returns, and the slab is free; anything else is a copy. */
  private deliver(buffer: Buffer, count: number, isAsked: boolean): void {
    const { stream } = this
    const isKept = isAsked || !Memory.isNode || stream.readableFlowing !== true || stream.readableLength > 0
    const bytes = buffer.subarray(0, count)
    // While they are delivered anything may happen, and what comes meanwhile stays behind them.
    this.wantsBytes = false
    const hasRoom = stream.push(isKept ? Buffer.from(bytes) : bytes)
    // A stream that is paused asks again.
    if (hasRoom && stream.readableFlowing === true) this.wantsBytes = true
    if (isKept || stream.readableLength === 0) Slab.release(buffer)
  }

  private tell(): void {
    const { report } = this
    if (report === undefined || this.stream.readableLength > 0 || this.onDestroyed !== undefined) return
    this.report = undefined
    report()
  }

  private takeEarly(buffer: Buffer): number {
    const count = Math.min(this.early.byteLength, buffer.byteLength)
    buffer.set(this.early.subarray(0, count))
    this.early = this.early.subarray(count)
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
      else this.loseWrites(answer)
    }
    // Losing the writes has ended it already.
    if (this.outgoing !== outgoing) return
    this.outgoing = undefined
    for (const chunk of chunks) Memory.release(chunk)
    done()
  }

  private shut(): void {
    const done = this.onFinal
    if (done === undefined) return
    if (!this.writeIsOver) {
      const answer = this.underlying.shutdownWrite()
      if (answer === WouldBlock) return
      if (typeof answer !== "number") this.loseWrites(answer)
    }
    if (this.onFinal !== done) return
    this.onFinal = undefined
    done()
  }

  private loseWrites(error: SocketError): void {
    if (this.writeIsOver) return
    this.writeIsOver = true
    this.listener.writeFailed(error)
    this.writable()
  }

  private destroy(done: () => void): void {
    this.onDestroyed = done
    if (this.isClosed) {
      done()
      this.listener.closed()
    } else if (this.aborts) this.underlying.abort()
    else this.underlying.close()
  }
}

// ---- internal

/** One write of `node:tls`, in chunks that it has made for us. */
interface Outgoing {
  readonly chunks: ReadonlyArray<Buffer>
  readonly cursor: Buffers.Cursor
  readonly done: () => void
}

const bufferSize = 65_536

const deaf: Listener = { ended: noop, readFailed: noop, writeFailed: noop, closed: noop }
