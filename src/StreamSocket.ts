/**
 * A connected byte stream whose writes are exact and interruptible.
 *
 * This is the contract that everything else is built on, and its one
 * implementation: `make` turns the backing of any transport into a stream with
 * fair lines of readers and writers, torn state, and the three ways to end
 * (`shutdownWrite`, `close`, `abort`).
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as AddressResolver from "effect/net/AddressResolver"
import type * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"
import type * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import * as Buffers from "./Buffers.ts"
import { counters } from "./internal/counters.ts"
import { cuttable } from "./internal/cuttable.ts"
import { formatAddress } from "./internal/format.ts"
import { endsTurn } from "./internal/Line.ts"
import { nativeOf } from "./internal/native.ts"
import { ReadSide } from "./internal/ReadSide.ts"
import { nameOf, resolveHost } from "./internal/resolveHost.ts"
import { type Cancellable, CurrentRegion, outsideOf, type Region, type Request, type Type } from "./internal/Signal.ts"
import { ShutdownWrite, WriteSide, WriteSome } from "./internal/WriteSide.ts"
import { type Address, Reason, SocketError } from "./SocketError.ts"
import type { Backing, Events, ResolvedOptions, SocketOptions } from "./Transport.ts"
import { resolveKeepAlive, resolveOptions, Transport } from "./Transport.ts"

const TypeId: unique symbol = Symbol.for("~effect-asio/StreamSocket")

/**
 * A stream that can be read. Composed reads (`Read`) work on any of these.
 *
 * @category models
 * @since 0.1.0
 */
export interface ReadStream {
  /**
   * Reads 1 to `target.length` bytes into the front of `target` and succeeds
   * with how many; 0 only for an empty target. End of stream is `Cause.Done`,
   * as often as it is asked for.
   *
   * Several reads may be outstanding; they are served in the order in which
   * they were started. `target` belongs to the caller again when the effect
   * ends, however it ends.
   *
   * **Interruption**: *total*. No byte is lost: the next read gets it.
   */
  readonly readSome: (target: Uint8Array) => Pull.Pull<number, SocketError>
}

/**
 * A stream that can be written. Composed writes (`Write`) work on any of these.
 *
 * @category models
 * @since 0.1.0
 */
export interface WriteStream {
  /**
   * Takes 1 to all bytes from the front of the buffers and succeeds with how
   * many; 0 only when there are none. It either takes bytes or fails, never
   * both. Taken bytes are delivered in order unless the connection is aborted
   * or reset; "taken" never means "delivered".
   *
   * Several writes may be outstanding; they leave in the order in which they
   * were started. The buffers belong to the caller again when the effect ends,
   * however it ends.
   *
   * **Interruption**: *total*. A write that waits for room or in line has taken
   * nothing. The exit's cause carries a `Cancellation.Transfer` that says so.
   */
  readonly writeSome: (source: Buffers.Input) => Effect.Effect<number, SocketError>
}

/**
 * Where a stream stands, direction by direction.
 *
 * @category models
 * @since 0.1.0
 */
export interface State {
  readonly socket: "open" | "closing" | "closed"
  readonly read: "open" | "ended" | "failed" | "closed"
  readonly write: "open" | "shutdown" | "torn" | "failed" | "closed"
}

/**
 * A connected byte stream: TCP, Unix-domain, in memory, or anything that fills
 * the transport contract.
 *
 * **Details**
 *
 * The two directions are independent: one reader and one writer run at once,
 * and a failed or torn write side leaves reads working to the peer's last byte.
 * The scope that opened a stream closes it.
 *
 * Every member can be used on its own (`const { readSome } = socket`). To wrap a
 * stream, name the members of the wrapper one by one; a spread copies none.
 *
 * @category models
 * @since 0.1.0
 */
export interface StreamSocket extends ReadStream, WriteStream {
  readonly [TypeId]: typeof TypeId
  readonly localAddress: NetAddress.SocketAddress
  readonly remoteAddress: NetAddress.SocketAddress
  /** Bytes received from the transport so far. */
  readonly bytesRead: number
  /** Bytes taken by the transport so far. */
  readonly bytesWritten: number
  readonly state: State
  /**
   * Sends FIN behind everything that was taken; reads go on. Waits in line
   * behind writes that were started earlier. Repeating it succeeds; on a torn
   * or failed write side it fails with that reason.
   *
   * **Interruption**: *total*. Either FIN was sent or nothing happened.
   */
  readonly shutdownWrite: Effect.Effect<void, SocketError>
  /**
   * Ends the stream gracefully: waiting operations fail with `Closed`, taken
   * bytes are flushed, FIN follows, and the effect ends when the descriptor is
   * released. After the linger time it aborts instead: taken bytes that have
   * not left by then are lost to the peer, and it is logged (debug). Idempotent.
   *
   * What the peer has sent and nobody has read is thrown away. Where some is
   * found, `close` waits for the peer's end of stream, so that it does not cost
   * the peer what it has still to receive. A peer that sends *after* the
   * descriptor was released is reset by the kernel, and loses what it had not
   * received yet: to rule that out, run `shutdownWrite` and read to the end
   * before `close`.
   *
   * **Interruption**: turns it into `abort`. So does a `terminal` request of a
   * signal; other requests do nothing.
   */
  readonly close: Effect.Effect<void>
  /**
   * Ends the stream now: waiting operations fail with `Closed`, bytes not yet
   * on their way are discarded, and the peer sees a reset where the platform
   * can send one (TCP). Ends when the descriptor is released. Idempotent.
   *
   * **Interruption**: the release goes on; only the wait for it stops.
   */
  readonly abort: Effect.Effect<void>
  /** Changes options of the live connection; those that are absent stay. Fails with `Closed` after `close`. */
  readonly configure: (options: Pick<SocketOptions, "noDelay" | "keepAlive">) => Effect.Effect<void, SocketError>
}

/**
 * Returns `true` when a value is a `StreamSocket`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isStreamSocket = (u: unknown): u is StreamSocket => typeof u === "object" && u !== null && TypeId in u

/**
 * Makes a stream over a backing. The caller owns it: nothing closes it but
 * `close` and `abort`.
 *
 * **When to use**
 *
 * Use it to put a transport of your own under this library. Programs use
 * {@link connect} and `Acceptor.accept`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (backing: Backing, options?: Pick<SocketOptions, "linger">): StreamSocket =>
  new Core(backing, resolveOptions(options).linger)

/**
 * Connects to an address or to a host and port, and closes the stream with the
 * scope.
 *
 * **Details**
 *
 * A host name is resolved with `AddressResolver`, and its addresses are tried
 * one after the other. Strings are `host:port`, with IPv6 literals in brackets;
 * `NetAddress.unixPathAddress(path)` names a Unix-domain socket.
 *
 * Fails with the reason of the attempt (`ConnectionRefused`, `TimedOut`,
 * `HostUnreachable`, ...) and its address; with `ConnectFailed`, listing every
 * attempt, when a name has several addresses and all fail; with
 * `NameResolution` when it has none.
 *
 * **Interruption**: *total*. A cut attempt releases its descriptor.
 *
 * **Example** (Saying hello)
 *
 * ```ts
 * const program = Effect.scoped(Effect.gen(function*() {
 *   const socket = yield* StreamSocket.connect("localhost:7000")
 *   yield* Write.writeAll(socket, Buffers.utf8("hello\n"))
 *   return yield* Read.readUntil(socket, "\n")
 * })).pipe(Effect.provide(NodeTransport.layer))
 * ```
 *
 * @category constructors
 * @since 0.1.0
 */
export function connect(
  target: NetAddress.SocketAddress,
  options?: SocketOptions
): Effect.Effect<StreamSocket, SocketError, Transport | Scope.Scope>
/**
 * Connects to a host and port, trying the addresses of a name one after the
 * other, and closes the stream with the scope. An address alone needs no
 * resolver; everything else is as for an address.
 *
 * **Interruption**: *total*. A cut attempt releases its descriptor.
 *
 * @category constructors
 * @since 0.1.0
 */
export function connect(
  target: NetAddress.SocketAddress | Host.HostPortInput,
  options?: SocketOptions
): Effect.Effect<StreamSocket, SocketError, Transport | AddressResolver.AddressResolver | Scope.Scope>
export function connect(
  target: NetAddress.SocketAddress | Host.HostPortInput,
  options?: SocketOptions
): Effect.Effect<StreamSocket, SocketError, Transport | AddressResolver.AddressResolver | Scope.Scope> {
  return Effect.acquireRelease(
    Effect.flatMap(ownTurn, () => {
      const resolved = resolveOptions(options)
      const connecting = NetAddress.isSocketAddress(target)
        ? connectOne(target, resolved)
        : Effect.flatMap(
          resolveHost("connect", target),
          ({ addresses, host }) => connectEach(host, addresses, resolved)
        )
      let socket: StreamSocket | undefined
      const connected = Effect.map(connecting, (backing) => socket = new Core(backing, resolved.linger))
      return Effect.onExit(cuttable(connected, { operation: "connect", address: nameOf(target) }), (exit) => {
        if (Exit.isSuccess(exit)) counters.completed++
        else if (Cause.hasInterrupts(exit.cause)) counters.cancelled.total++
        // A connection that was made as it was cut is nobody's.
        return Exit.isFailure(exit) && socket !== undefined ? socket.abort : Effect.void
      })
    }),
    (socket) => outsideOf(socket.close),
    { interruptible: true }
  )
}

// ---- internal

// A connection that is made at once must reach the scope before its fiber's turn ends.
const ownTurn = Effect.withFiber((fiber) => endsTurn(fiber) ? Effect.yieldNow : Effect.void)

const connectOne = (
  address: NetAddress.SocketAddress,
  options: ResolvedOptions
): Effect.Effect<Backing, SocketError, Transport> =>
  Effect.flatMap(Transport, (transport) => transport.connect(address, options))

const connectEach = (
  host: Host.HostPort,
  addresses: Arr.NonEmptyReadonlyArray<NetAddress.SocketAddress>,
  options: ResolvedOptions
): Effect.Effect<Backing, SocketError, Transport> => {
  if (addresses.length === 1) return connectOne(addresses[0], options)
  const attempts: Array<SocketError> = []
  const attempt = (index: number): Effect.Effect<Backing, SocketError, Transport> => {
    const address = addresses[index]
    return address === undefined
      ? Effect.fail(
        new SocketError({
          reason: Reason.ConnectFailed({ attempts }),
          operation: "connect",
          address: host,
          transferred: 0
        })
      )
      : Effect.catch(connectOne(address, options), (error) => {
        attempts.push(error)
        return attempt(index + 1)
      })
  }
  return attempt(0)
}

/** A `close` that waits for the release. A terminal request makes it an abort. */
class Closing implements Cancellable {
  readonly operation = "close"
  readonly transferred = 0
  readonly total = 0
  readonly address: Address
  private readonly backing: Backing
  private region: Region | undefined = undefined

  constructor(backing: Backing) {
    this.address = backing.remoteAddress
    this.backing = backing
  }

  watch<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> {
    return Effect.withFiber((fiber) => {
      this.region = fiber.getRef(CurrentRegion)
      if (this.region === undefined) return effect
      this.region.enter(this)
      return Effect.ensuring(effect, Effect.sync(() => this.leave()))
    })
  }

  withdraw({ type }: Request): Type | undefined {
    if (type !== "terminal" || this.region === undefined) return undefined
    this.leave()
    return "terminal"
  }

  private leave(): void {
    this.region?.leave(this)
    this.region = undefined
  }

  conclude(): void {
    this.backing.abort()
  }
}

/** The one implementation of `StreamSocket`. @internal */
export class Core implements StreamSocket, Events {
  readonly [TypeId]: typeof TypeId = TypeId
  readonly input: ReadSide
  readonly output: WriteSide
  readonly linger: Duration.Duration
  private readonly backing: Backing
  private phase: State["socket"] = "open"
  private releaseWaiters: Set<() => void> | undefined = undefined
  // Whoever has taken the backing over, and ends it from then on.
  private heir: Pick<StreamSocket, "close" | "abort"> | undefined = undefined

  constructor(backing: Backing, linger: Duration.Duration) {
    this.backing = backing
    this.linger = linger
    this.input = new ReadSide(backing)
    this.output = new WriteSide(backing)
    backing.attach(this)
  }

  get localAddress(): NetAddress.SocketAddress {
    return this.backing.localAddress
  }

  get remoteAddress(): NetAddress.SocketAddress {
    return this.backing.remoteAddress
  }

  get bytesRead(): number {
    return this.input.bytesRead
  }

  get bytesWritten(): number {
    return this.output.bytesWritten
  }

  get state(): State {
    return { socket: this.phase, read: this.input.state, write: this.output.state }
  }

  // Getters, so that every member can be taken off its socket, and an idle socket holds no closures.
  get readSome(): (target: Uint8Array) => Pull.Pull<number, SocketError> {
    return (target) => Effect.withFiber((fiber) => this.input.readSome(fiber, target))
  }

  get writeSome(): (source: Buffers.Input) => Effect.Effect<number, SocketError> {
    return (source) =>
      Effect.withFiber((fiber) => this.output.run(fiber, new WriteSome(this.output, Buffers.cursor(source))))
  }

  get shutdownWrite(): Effect.Effect<void, SocketError> {
    return Effect.withFiber((fiber) => this.output.run(fiber, new ShutdownWrite(this.output)))
  }

  get close(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.heir !== undefined) return this.heir.close
      if (this.phase === "open") {
        if (Duration.isZero(this.linger)) return this.abort
        this.refuse()
        // A fiber that was just woken may have ended the stream already.
        if (!this.isReleased()) this.backing.close()
      }
      return this.isReleased()
        ? Effect.void
        : Effect.onInterrupt(new Closing(this.backing).watch(this.releasedInTime), () => this.abort)
    })
  }

  get abort(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.heir !== undefined) return this.heir.abort
      if (this.phase === "open") this.refuse()
      if (this.isReleased()) return Effect.void
      this.backing.abort()
      return this.released
    })
  }

  get configure(): (options: Pick<SocketOptions, "noDelay" | "keepAlive">) => Effect.Effect<void, SocketError> {
    return (options) =>
      Effect.suspend(() => {
        if (this.phase !== "open") return Effect.fail(this.input.error(this.input.refusal, "configure", 0))
        this.backing.configure({
          ...(options.noDelay === undefined ? undefined : { noDelay: options.noDelay }),
          ...(options.keepAlive === undefined ? undefined : { keepAlive: resolveKeepAlive(options.keepAlive) })
        })
        return Effect.void
      })
  }

  /** Why the backing cannot be handed over just now; a stream in the middle of something cannot. */
  occupied(): Reason | string | undefined {
    const { input, output } = this
    if (input.state === "closed") return input.refusal
    const refused = output.reason
    if (refused !== undefined) return refused
    return input.line.front !== undefined || output.line.front !== undefined
      ? "an operation waits on the stream"
      : input.state === "open"
      ? undefined
      : "the stream has ended"
  }

  /**
   * Hands the backing over, with what was received and not read: from here on every operation fails with `Consumed`,
   * and closing this stream closes its heir.
   */
  handOver(by: string, heir: Pick<StreamSocket, "close" | "abort">): readonly [backing: Backing, unread: Uint8Array] {
    const unread = this.input.unreadBytes()
    this.heir = heir
    this.phase = "closed"
    this.output.close(Reason.Consumed({ by }))
    this.input.close(Reason.Consumed({ by }))
    return [this.backing, unread]
  }

  /** Bytes that were received from the transport and that nobody has read. */
  get unreadCount(): number {
    return this.input.unreadBytes().byteLength + (nativeOf(this.backing)?.unread() ?? 0)
  }

  readable(): void {
    this.input.line.drive()
  }

  writable(): void {
    this.output.line.drive()
  }

  failed(error: SocketError): void {
    this.output.fail(error)
    this.input.line.drive()
  }

  closed(): void {
    if (this.heir !== undefined) return
    // A backing may lose its descriptor by failure: what it has received can still be read.
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

  // A call, because the compiler cannot know what a woken fiber does to `phase`.
  private isReleased(): boolean {
    return this.phase === "closed"
  }

  private refuse(): void {
    this.phase = "closing"
    this.output.close()
    this.input.close()
  }

  private get released(): Effect.Effect<void> {
    return Effect.callback((resume) => {
      if (this.phase === "closed") {
        resume(Effect.void)
        return
      }
      const waiters = this.releaseWaiters ??= new Set()
      const waiter = () => resume(Effect.void)
      waiters.add(waiter)
      return Effect.sync(() => waiters.delete(waiter))
    })
  }

  // Interruptible children, because a scope closes its streams in an uninterruptible region.
  private get releasedInTime(): Effect.Effect<void> {
    return Duration.isFinite(this.linger)
      ? Effect.raceFirst(
        Effect.interruptible(this.released),
        Effect.flatMap(Effect.interruptible(Effect.sleep(this.linger)), () =>
          Effect.andThen(
            Effect.logDebug(`close ${formatAddress(this.remoteAddress)}: the linger time is over, aborting`),
            this.abort
          ))
      )
      : this.released
  }
}
