/**
 * A socket as Node's `Duplex`, and any `Duplex` as a socket.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import * as Predicate from "effect/Predicate"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import { Buffer } from "node:buffer"
import { constants } from "node:os"
import { nextTick } from "node:process"
import { Duplex } from "node:stream"
import type * as Buffers from "../Buffers.ts"
import { positiveInteger } from "../internal/base/checks.ts"
import { isEndOfStream } from "../internal/base/isEndOfStream.ts"
import { noEvents, noop } from "../internal/base/noEvents.ts"
import { during, fromErrno, isSocketError, Reason, SocketError } from "../SocketError.ts"
import * as StreamSocket from "../StreamSocket.ts"
import {
  type Backing,
  type Events,
  type LiveOptions,
  resolveOptions,
  type SocketOptions,
  WouldBlock
} from "../Transport.ts"
import * as Write from "../Write.ts"

/**
 * What `toDuplex` makes: a `Duplex` with those members of `net.Socket` that
 * libraries ask of a socket they are given.
 *
 * **Details**
 *
 * - `connecting` and `pending` are always `false`: it is connected from birth.
 * - `bytesRead` and `bytesWritten` are those of the socket: `bytesWritten`
 *   counts bytes taken, not bytes that wait in the `Duplex`.
 * - `ref` and `unref` do nothing: a socket keeps its process alive for as long
 *   as its scope is open.
 * - `setTimeout` emits `"timeout"` after that many milliseconds without a byte
 *   in either direction, by the `Clock` of the effect that made it.
 * - `resetAndDestroy` aborts the socket without an error of its own.
 * - A Unix-domain socket has no `remoteAddress`, as in Node.
 *
 * @category models
 * @since 0.1.0
 */
export interface SocketDuplex extends Duplex {
  readonly connecting: false
  readonly pending: false
  readonly readyState: "open" | "readOnly" | "writeOnly" | "closed"
  readonly bytesRead: number
  readonly bytesWritten: number
  readonly remoteAddress: string | undefined
  readonly remotePort: number | undefined
  readonly remoteFamily: "IPv4" | "IPv6" | undefined
  readonly localAddress: string | undefined
  readonly localPort: number | undefined
  readonly localFamily: "IPv4" | "IPv6" | undefined
  /** Milliseconds, as set by `setTimeout`. */
  readonly timeout: number | undefined
  readonly address: () => { readonly address?: string; readonly port?: number; readonly family?: "IPv4" | "IPv6" }
  readonly setNoDelay: (noDelay?: boolean) => this
  /** `initialDelay` is in milliseconds; 0 leaves it to the system. */
  readonly setKeepAlive: (enable?: boolean, initialDelay?: number) => this
  readonly setTimeout: (milliseconds: number, callback?: () => void) => this
  readonly ref: () => this
  readonly unref: () => this
  /** Ends the write side, and destroys the stream when everything written was taken. */
  readonly destroySoon: () => void
  readonly resetAndDestroy: () => this
}

/**
 * Options of {@link toDuplex}.
 *
 * @category options
 * @since 0.1.0
 */
export interface ToDuplexOptions {
  /** `false` ends the write side when the peer ends its own. Default `true`. */
  readonly allowHalfOpen?: boolean | undefined
  /**
   * The most bytes that are read ahead of the consumer, and how many may wait
   * to be written before `write` answers `false`. Default 65,536.
   */
  readonly highWaterMark?: number | undefined
}

/**
 * A socket as a `Duplex` that passes for a `net.Socket`: for `http`, `http2`,
 * `tls`, `undici`, database drivers, and whatever else takes one. It is
 * destroyed with the scope, which waits for its `"close"`.
 *
 * **Details**
 *
 * - Reading is on demand: nothing is read before the first consumer, and then
 *   up to `highWaterMark` ahead of it. While it waits for bytes it holds one
 *   chunk of that size.
 * - Each write is one `Write.writeAll`; corked and queued chunks leave in one
 *   gather write. Its callback comes when all of it was taken.
 * - `end` is `shutdownWrite`, behind everything written. The peer's end of
 *   stream is `"end"`.
 * - When both sides have ended, or on `destroy()`, the socket is closed
 *   gracefully; on `destroy(error)` it is aborted. `"close"` follows, once, when
 *   the descriptor is released.
 * - A failure destroys the stream with an errno-like `Error`: `code`
 *   (`"ECONNRESET"`, `"EPIPE"`, ...), `errno`, `syscall`, and the `SocketError`
 *   as its `cause`. A socket that was closed by other means is
 *   `"ECONNABORTED"`. Without a listener, the `"error"` event does nothing.
 *
 * Nobody else should read or write the socket as long as this does.
 *
 * **What is lost**
 *
 * - Exact accounting: bytes in the queue of the `Duplex` are not taken yet, and
 *   go nowhere when it is destroyed.
 * - After a failed write Node destroys both directions; what the peer said last
 *   may not be read. `Write` on the socket itself has no such limit.
 * - Bytes that were read ahead and not consumed go with the `Duplex`. To hand the
 *   socket back, consume them first.
 *
 * **Interruption**: `destroy()` and the end of the scope interrupt the write at
 * hand, by the `Cancellation.Policy` of the effect that made the stream, before
 * they close the socket. Requests of signals around that effect reach its operations,
 * and destroy the stream with the code `"ECANCELED"`.
 *
 * **Example** (Serving HTTP)
 *
 * ```ts
 * const server = Http.createServer((request, response) => request.pipe(response))
 * const acceptor = yield* Acceptor.listen("127.0.0.1:8080")
 * yield* Acceptor.serve(acceptor, (socket) =>
 *   Effect.scoped(Effect.gen(function*() {
 *     const duplex = yield* NodeDuplex.toDuplex(socket)
 *     server.emit("connection", duplex)
 *     yield* Effect.callback<void>((resume) => void duplex.once("close", () => resume(Effect.void)))
 *   })))
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const toDuplex = (
  socket: StreamSocket.StreamSocket,
  options?: ToDuplexOptions
): Effect.Effect<SocketDuplex, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.map(
      Effect.context(),
      (context) => new DuplexOfSocket(socket, context, options?.allowHalfOpen, options?.highWaterMark)
    ),
    (duplex) => duplex.released
  )

/**
 * Any `Duplex` as a socket: a `net.Socket` or `tls.TLSSocket` that a library
 * hands out, the standard streams of a child process joined by
 * `Duplex.from`, or one end of `stream.duplexPair`. Closed with the scope.
 *
 * **Details**
 *
 * - Reads are on demand and *total*: bytes wait in the `Duplex` until a read
 *   takes them.
 * - A write copies at most `sliceSize` bytes into memory of its own and hands
 *   that over, as long as `Duplex.write` has not answered `false`; so at most
 *   its `writableHighWaterMark` is taken ahead.
 * - `shutdownWrite` is `end`. `close` flushes and destroys; `abort` destroys
 *   with an error, or with a reset where the stream has `resetAndDestroy`.
 * - An `"error"` becomes a `SocketError` by its `code`, with the original as
 *   `cause`. A stream that is destroyed without one fails with
 *   `ConnectionReset`.
 * - Addresses, `noDelay` and the idle time of `keepAlive` are those of the
 *   stream, where it has them. `configure` ignores everything else.
 *
 * The `Duplex` must emit `"close"`, must not be in object mode or decode text,
 * and must not be used by anybody else meanwhile: otherwise it is a defect
 * (`TypeError`), or bytes go astray.
 *
 * **What is lost**
 *
 * - "Taken" means that the `Duplex` took it. What it then does with the bytes is
 *   its own affair.
 * - A `Duplex` made with `allowHalfOpen: false` ends its write side with the
 *   peer's; later writes fail with `BrokenPipe`.
 * - A failure of one direction destroys both. What had been received before is
 *   still read.
 * - Before Node 24, a `net.Socket` reports a reset behind unread bytes as the end
 *   of the stream.
 *
 * **Interruption**: as for every `StreamSocket`.
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromDuplex = (
  duplex: Duplex,
  options?: Pick<SocketOptions, "linger" | "sliceSize">
): Effect.Effect<StreamSocket.StreamSocket, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { linger, sliceSize } = resolveOptions(options)
      if (duplex.readableObjectMode || duplex.writableObjectMode || duplex.readableEncoding !== null) {
        throw new TypeError("fromDuplex: a stream of objects or text is not a stream of bytes")
      }
      return StreamSocket.make(new DuplexBacking(duplex, sliceSize), { linger })
    }),
    (socket) => socket.close
  )

// ---- internal: ours as a Duplex

class DuplexOfSocket extends Duplex implements SocketDuplex {
  readonly connecting = false
  readonly pending = false
  timeout: number | undefined = undefined
  private readonly source: StreamSocket.StreamSocket
  private readonly fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  private readonly clock: Clock.Clock
  private readonly chunkSize: number
  private receiveBuffer: Buffer | undefined = undefined
  private writer: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private timer: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private lastActive = 0
  private lastMoved = 0
  private resets = false

  constructor(
    source: StreamSocket.StreamSocket,
    context: Context.Context<never>,
    allowHalfOpen = true,
    highWaterMark = 65_536
  ) {
    positiveInteger(`toDuplex: highWaterMark`, highWaterMark, "bytes")
    super({ allowHalfOpen, highWaterMark })
    this.source = source
    this.fork = Effect.runForkWith(context)
    this.clock = Context.get(context, Clock.Clock)
    this.chunkSize = highWaterMark
    this.on("error", noop)
  }

  get released(): Effect.Effect<void> {
    return Effect.callback((resume) => {
      if (this.closed) {
        resume(Effect.void)
        return
      }
      this.once("close", () => resume(Effect.void))
      this.destroy()
    })
  }

  override _read(): void {
    const receiveBuffer = this.receiveBuffer ??= Buffer.allocUnsafeSlow(this.chunkSize)
    this.run(this.source.readSome(receiveBuffer), (exit) => {
      if (Exit.isFailure(exit)) {
        if (isEndOfStream(exit.cause)) this.push(null)
        else this.fail("read", exit.cause)
        return
      }
      this.active()
      const chunk = receiveBuffer.subarray(0, exit.value)
      // What is mostly full is handed over; what is not is copied, so that a small chunk does not hold a large one.
      if (exit.value < this.chunkSize / 2) this.push(Buffer.from(chunk))
      else {
        this.receiveBuffer = undefined
        this.push(chunk)
      }
    })
  }

  override _write(chunk: Buffer, _encoding: string, callback: (error?: Error) => void): void {
    this.send(chunk, callback)
  }

  override _writev(chunks: ReadonlyArray<{ readonly chunk: Buffer }>, callback: (error?: Error) => void): void {
    this.send(chunks.map(({ chunk }) => chunk), callback)
  }

  override _final(callback: (error?: Error) => void): void {
    this.writer = this.run(this.source.shutdownWrite, (exit) => {
      this.writer = undefined
      callback(errorOf("shutdown", exit))
    })
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.timer?.interruptUnsafe()
    const stop = this.writer === undefined ? Effect.void : Fiber.interrupt(this.writer)
    const end = error === null && !this.resets
      ? Effect.andThen(stop, this.source.close)
      // The other way round: aborting ends a write that an interruption would let finish.
      : Effect.andThen(this.source.abort, stop)
    this.run(end, () => {
      this.receiveBuffer = undefined
      callback(error)
    })
  }

  destroySoon(): void {
    if (this.writable) this.end()
    if (this.writableFinished) this.destroy()
    else this.once("finish", () => this.destroy())
  }

  resetAndDestroy(): this {
    this.resets = true
    return this.destroy()
  }

  setTimeout(milliseconds: number, callback?: () => void): this {
    if (!Number.isFinite(milliseconds) || milliseconds < 0) {
      throw new RangeError(`setTimeout: ${milliseconds} is not a number of milliseconds`)
    }
    if (this.destroyed) return this
    this.timeout = milliseconds
    this.timer?.interruptUnsafe()
    this.timer = undefined
    if (milliseconds > 0) {
      if (callback !== undefined) this.once("timeout", callback)
      this.active()
    } else if (callback !== undefined) this.off("timeout", callback)
    return this
  }

  setNoDelay(noDelay = true): this {
    return this.configure({ noDelay })
  }

  setKeepAlive(enable = false, initialDelay = 0): this {
    return this.configure({ keepAlive: enable && (initialDelay > 0 ? Duration.millis(initialDelay) : true) })
  }

  ref(): this {
    return this
  }

  unref(): this {
    return this
  }

  address(): { address?: string; port?: number; family?: "IPv4" | "IPv6" } {
    return nativeOf(this.source.localAddress) ?? {}
  }

  get readyState(): SocketDuplex["readyState"] {
    if (this.readable) return this.writable ? "open" : "readOnly"
    return this.writable ? "writeOnly" : "closed"
  }

  get bytesRead(): number {
    return this.source.bytesRead
  }

  get bytesWritten(): number {
    return this.source.bytesWritten
  }

  get remoteAddress(): string | undefined {
    return nativeOf(this.source.remoteAddress)?.address
  }

  get remotePort(): number | undefined {
    return nativeOf(this.source.remoteAddress)?.port
  }

  get remoteFamily(): "IPv4" | "IPv6" | undefined {
    return nativeOf(this.source.remoteAddress)?.family
  }

  get localAddress(): string | undefined {
    return nativeOf(this.source.localAddress)?.address
  }

  get localPort(): number | undefined {
    return nativeOf(this.source.localAddress)?.port
  }

  get localFamily(): "IPv4" | "IPv6" | undefined {
    return nativeOf(this.source.localAddress)?.family
  }

  /**
   * Runs an effect and tells how it ended, outside of every fiber: the stream calls listeners, and what they throw has
   * to reach the process as it would from any other stream.
   */
  private run<A, E>(
    effect: Effect.Effect<A, E>,
    onExit: (exit: Exit.Exit<A, E>) => void
  ): Fiber.Fiber<A, E> | undefined {
    const fiber = this.fork(effect)
    const exit = fiber.pollUnsafe()
    if (exit === undefined) {
      fiber.addObserver((exit) => nextTick(onExit, exit))
      return fiber
    }
    onExit(exit)
    return undefined
  }

  private send(source: Buffers.Input, callback: (error?: Error) => void): void {
    this.active()
    this.writer = this.run(Write.writeAll(this.source, source), (exit) => {
      this.writer = undefined
      if (Exit.isSuccess(exit)) this.active()
      callback(errorOf("write", exit))
    })
  }

  private fail(syscall: string, cause: Cause.Cause<unknown>): void {
    this.destroy(nodeError(syscall, cause))
  }

  private configure(options: LiveOptions): this {
    // On a closed socket there is nothing to set, as in Node.
    this.fork(Effect.ignore(this.source.configure(options)))
    return this
  }

  private get moved(): number {
    return this.source.bytesRead + this.source.bytesWritten
  }

  private active(): void {
    if (this.timeout === undefined || this.timeout === 0 || this.destroyed) return
    this.lastActive = this.clock.currentTimeMillisUnsafe()
    this.lastMoved = this.moved
    if (this.timer !== undefined) return
    const timer = this.timer = this.run(this.idle(this.timeout), () => {
      // Another one may have been started, or none be wanted any more.
      if (this.timer !== timer) return
      this.timer = undefined
      if (!this.destroyed) this.emit("timeout")
    })
  }

  /** Ends when no byte has moved for that long. */
  private idle(timeout: number): Effect.Effect<void> {
    return Effect.suspend(() => {
      const now = this.clock.currentTimeMillisUnsafe()
      // A write that is under way and progresses.
      if (this.moved !== this.lastMoved) {
        this.lastMoved = this.moved
        this.lastActive = now
      }
      const left = this.lastActive + timeout - now
      return left > 0 ? Effect.flatMap(Effect.sleep(left), () => this.idle(timeout)) : Effect.void
    })
  }
}

const nativeOf = (address: NetAddress.SocketAddress) =>
  NetAddress.isUnixPathAddress(address) ? undefined : {
    address: NetAddress.formatHost(address),
    port: address.port,
    family: NetAddress.isInetAddressV4(address) ? "IPv4" as const : "IPv6" as const
  }

const errorOf = (syscall: string, exit: Exit.Exit<unknown, unknown>): Error | undefined =>
  Exit.isSuccess(exit) ? undefined : nodeError(syscall, exit.cause)

/** A failure in the form of Node's own errors. */
const nodeError = (syscall: string, cause: Cause.Cause<unknown>): Error => {
  const failure = Cause.squash(cause)
  const code = isSocketError(failure)
    ? failure.code ?? codes[failure.reason._tag]
    : Cause.hasInterrupts(cause)
    ? "ECANCELED"
    : undefined
  // A defect stays what it is.
  if (code === undefined && !isSocketError(failure)) {
    return failure instanceof Error
      ? failure
      : new Error(String(failure))
  }
  const name = code ?? "EIO"
  const errno: number | undefined = Reflect.get(constants.errno, name)
  return Object.assign(new Error(`${syscall} ${name}`, { cause: failure }), {
    code: name,
    syscall,
    ...(errno === undefined ? undefined : { errno: -errno })
  })
}

/** The system's names for reasons that did not come from it. */
const codes: { readonly [tag in Reason["_tag"]]?: string } = {
  Closed: "ECONNABORTED",
  ConnectionAborted: "ECONNABORTED",
  ConnectionReset: "ECONNRESET",
  BrokenPipe: "EPIPE",
  Torn: "EPIPE",
  TimedOut: "ETIMEDOUT",
  OperationAborted: "ECANCELED"
}

// ---- internal: a Duplex as ours

class DuplexBacking implements Backing {
  private readonly duplex: Duplex
  private readonly sliceSize: number
  private readonly addresses: { local?: NetAddress.SocketAddress; remote?: NetAddress.SocketAddress } = {}
  private events: Events = noEvents
  private phase: "open" | "closing" | "closed" = "open"
  private listening = false
  private ended: boolean
  private failure: SocketError | undefined = undefined
  private wantsRoom = false
  private sawUnread = false
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
    this.discard()
    if (duplex.writableFinished) this.release()
    else {
      duplex.once("finish", () => this.release())
      duplex.end()
    }
  }

  abort(): void {
    if (this.phase === "closed") {
      this.events.closed()
      return
    }
    const { duplex } = this
    const hasFlushed = this.phase === "closing" && duplex.writableFinished
    this.phase = "closing"
    // A stream that never says that it is closed must not hold up whoever waits for that.
    this.giveUp ??= setTimeout(() => this.onClose(), closeTimeout)
    if (duplex.destroyed) return
    // Nothing is left to discard.
    if (hasFlushed) duplex.destroy()
    // A `net.Socket` that is being shut down cannot be reset, and never closes; that takes it one turn.
    else if (duplex.writableEnded && !duplex.writableFinished && duplex.writableLength === 0) {
      duplex.once("finish", () => this.reset())
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
    else if (this.duplex.writableFinished) this.duplex.destroy()
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

  // Input that nobody has read would make a kernel reset the connection, and hold up a stream that passes bytes on.
  private discard(): void {
    while (this.duplex.read() !== null) this.sawUnread = true
  }

  // Everything is flushed. If the peer has sent what nobody has read, its end is awaited: released before, a kernel
  // would reset the connection. A callback of the second turn from here has had a poll before it that shows it.
  private release(): void {
    if (this.ended) {
      this.duplex.destroy()
      return
    }
    setImmediate(() =>
      setImmediate(() => {
        if (this.ended || !this.sawUnread) this.duplex.destroy()
      })
    )
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

// Milliseconds, after which nobody waits for a stream that was destroyed.
const closeTimeout = 1000

const unnamed = NetAddress.unixPathAddress("")

/** Calls a method that a `Duplex` may have. */
const call = (duplex: Duplex, method: string, ...args: ReadonlyArray<unknown>): void => {
  const found: unknown = Reflect.get(duplex, method)
  if (typeof found === "function") Reflect.apply(found, duplex, args)
}
