import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as NetAddress from "effect/net/NetAddress"
import { AsyncResource } from "node:async_hooks"
import { Buffer } from "node:buffer"
import { constants } from "node:os"
import { nextTick } from "node:process"
import { Duplex } from "node:stream"
import type * as Buffers from "../../Buffers.ts"
import { positiveInteger } from "../../internal/base/checks.ts"
import { isEndOfStream } from "../../internal/base/isEndOfStream.ts"
import { monotonicMillis } from "../../internal/base/monotonic.ts"
import { noop } from "../../internal/base/noEvents.ts"
import { coreOf } from "../../internal/core/Socket.ts"
import { isSocketError, type Reason } from "../../SocketError.ts"
import type * as StreamSocket from "../../StreamSocket.ts"
import * as Tls from "../../Tls.ts"
import type { LiveOptions } from "../../Transport.ts"
import * as Write from "../../Write.ts"
import type { SocketDuplex, ToDuplexOptions } from "../NodeDuplex.ts"

export class DuplexOverSocket extends Duplex implements SocketDuplex {
  readonly connecting = false
  readonly pending = false
  timeout: number | undefined = undefined
  private readonly source: StreamSocket.StreamSocket
  private readonly fork: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  private readonly clock: Clock.Clock
  private readonly chunkSize: number
  private readonly endpoints: ToDuplexOptions["endpoints"]
  private readonly asyncContext = new AsyncResource("SocketDuplex")
  private receiveBuffer: Buffer | undefined = undefined
  private writer: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private timer: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private lastActive = 0
  private lastMoved = 0
  private resets = false
  private readIsOver = false
  // Tells of a write that has failed, once the consumer has what the peer said before.
  private tellFailure: (() => void) | undefined = undefined

  constructor(
    source: StreamSocket.StreamSocket,
    context: Context.Context<never>,
    { allowHalfOpen = false, endpoints, highWaterMark = 65_536 }: ToDuplexOptions = {}
  ) {
    positiveInteger(`toDuplex: highWaterMark`, highWaterMark, "bytes")
    super({ allowHalfOpen, highWaterMark })
    this.source = source
    this.endpoints = endpoints
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

  // Events of the connection run in the async context of the stream, and not in that of an earlier event.
  override emit(event: string | symbol, ...args: Array<unknown>): boolean {
    return ofConnection.has(event)
      ? this.asyncContext.runInAsyncScope(() => super.emit(event, ...args))
      : super.emit(event, ...args)
  }

  connect(...args: ReadonlyArray<unknown>): this {
    const listener = args.at(-1)
    if (typeof listener === "function") this.once("connect", () => void Reflect.apply(listener, this, []))
    nextTick(() => {
      if (this.destroyed) return
      this.emit("connect")
      this.emit("ready")
    })
    return this
  }

  override _read(): void {
    const receiveBuffer = this.receiveBuffer ??= Buffer.allocUnsafeSlow(this.chunkSize)
    this.run(this.source.readSome(receiveBuffer), (exit) => {
      if (Exit.isFailure(exit)) {
        this.readIsOver = true
        if (isEndOfStream(exit.cause)) {
          this.push(null)
          // "end" comes with a read. Where there is no consumer, that is this one.
          if (!this.isConsumed) nextTick(() => this.read(0))
        } else if (this.tellFailure === undefined) this.fail("read", exit.cause)
        this.tellFailureIfRead()
        return
      }
      this.active()
      const chunk = receiveBuffer.subarray(0, exit.value)
      // A mostly full buffer is passed on. Fewer bytes are copied, so that a small chunk does not hold a large buffer.
      if (exit.value < this.chunkSize / 2) this.push(Buffer.from(chunk))
      else {
        this.receiveBuffer = undefined
        this.push(chunk)
      }
    })
  }

  override read(size?: number): Buffer | null {
    const chunk: Buffer | null = super.read(size)
    if (this.tellFailure !== undefined) this.tellFailureIfRead()
    return chunk
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
      // As in Node, a peer that is gone is found by reading. And a stream that is destroyed in the turn of `end` does not
      // finish.
      const error = isPeerGone(exit) ? undefined : errorOf("shutdown", exit)
      nextTick(() => {
        if (error !== undefined || !this.destroyed) callback(error)
        // An ended stream that has no consumer is closed by the end of its peer, too.
        if (!this.destroyed && !this.isConsumed) this.read(0)
      })
    })
  }

  override _destroy(error: Error | null, callback: (error: Error | null) => void): void {
    this.timer?.interruptUnsafe()
    this.tellFailure?.()
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
    return nativeOf(this.local) ?? {}
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
    return nativeOf(this.remote)?.address
  }

  get remotePort(): number | undefined {
    return nativeOf(this.remote)?.port
  }

  get remoteFamily(): "IPv4" | "IPv6" | undefined {
    return nativeOf(this.remote)?.family
  }

  get localAddress(): string | undefined {
    return nativeOf(this.local)?.address
  }

  get localPort(): number | undefined {
    return nativeOf(this.local)?.port
  }

  get localFamily(): "IPv4" | "IPv6" | undefined {
    return nativeOf(this.local)?.family
  }

  get encrypted(): boolean {
    return this.tls !== undefined
  }

  get authorized(): boolean | undefined {
    return this.tls?.authorized
  }

  get alpnProtocol(): string | false | undefined {
    return this.tls === undefined ? undefined : this.tls.alpn ?? false
  }

  getPeerCertificate(): ReturnType<SocketDuplex["getPeerCertificate"]> {
    return this.tls?.peerCertificate?.toLegacyObject() ?? {}
  }

  private get tls(): Tls.ConnectionInfo | undefined {
    return Tls.isTlsSocket(this.source) ? this.source.tls : undefined
  }

  private get remote(): NetAddress.SocketAddress {
    return this.endpoints?.source ?? this.source.remoteAddress
  }

  private get local(): NetAddress.SocketAddress {
    return this.endpoints?.destination ?? this.source.localAddress
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
      const error = errorOf("write", exit)
      if (error === undefined || !this.holds(exit)) callback(error)
      else this.afterLastWords(() => callback(error))
    })
  }

  /** Whether the failure of a write waits for the consumer: what the peer said before it went may still be read. */
  private holds(exit: Exit.Exit<unknown, unknown>): boolean {
    return isPeerGone(exit) && !this.destroyed && !this.readableEnded && this.isConsumed
  }

  private get isConsumed(): boolean {
    return this.readableFlowing !== null || this.listenerCount("readable") > 0
  }

  /** Node destroys both directions when a write has failed. For at most the linger time, reading goes on before. */
  private afterLastWords(tell: () => void): void {
    const limit = this.fork(Effect.sleep(coreOf(this.source)?.linger ?? defaultLinger))
    const once = (): void => {
      if (this.tellFailure !== once) return
      this.tellFailure = undefined
      limit.interruptUnsafe()
      tell()
    }
    this.tellFailure = once
    limit.addObserver(() => nextTick(once))
    this.tellFailureIfRead()
  }

  private tellFailureIfRead(): void {
    const { tellFailure } = this
    if (tellFailure === undefined || !this.readIsOver || this.readableLength > 0) return
    // Behind the event of the last chunk, and behind "end".
    setImmediate(tellFailure)
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
    this.lastActive = monotonicMillis(this.clock)
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
      const now = monotonicMillis(this.clock)
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

const ofConnection: ReadonlySet<string | symbol> = new Set(
  ["data", "readable", "end", "drain", "finish", "error", "timeout", "close", "connect", "ready"]
)

/** For streams that have no linger time. */
const defaultLinger = Duration.seconds(2)

/** Whether the peer has ended or reset the connection, and not this side. */
const isPeerGone = (exit: Exit.Exit<unknown, unknown>): boolean => {
  const failure = Exit.isFailure(exit) && !Cause.hasInterrupts(exit.cause) ? Cause.squash(exit.cause) : undefined
  return isSocketError(failure) && peerIsGone.has(failure.reason._tag)
}

const peerIsGone: ReadonlySet<Reason["_tag"]> = new Set(
  ["BrokenPipe", "ConnectionReset", "ConnectionAborted", "NotConnected", "TimedOut"] as const
)

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
