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
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as AddressResolver from "effect/net/AddressResolver"
import * as NetAddress from "effect/net/NetAddress"
import type * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import * as Buffers from "./Buffers.ts"
import { counters } from "./internal/base/counters.ts"
import { formatAddress, formatBytes } from "./internal/base/format.ts"
import * as Deadlines from "./internal/base/timerQueue.ts"
import { unsupported, unsupportedLocal } from "./internal/base/unsupported.ts"
import { cancellable } from "./internal/cancellation/cancellable.ts"
import {
  type Cancellable,
  type CancellationScope,
  CurrentCancellationScope,
  type Request,
  type Type,
  withoutSignals
} from "./internal/cancellation/signal.ts"
import {
  interleave,
  race,
  type RaceOptions,
  type ResolvedRaceOptions,
  resolveRaceOptions
} from "./internal/connect/HappyEyeballs.ts"
import { nameOf, resolveHost, type Target } from "./internal/connect/resolveHost.ts"
import { endsTurn } from "./internal/core/OperationQueue.ts"
import { ReadHalf } from "./internal/core/ReadHalf.ts"
import { ShutdownWrite, WriteHalf, WriteSome } from "./internal/core/WriteHalf.ts"
import { type Address, isSocketError, Reason, SocketError } from "./SocketError.ts"
import type {
  Backing,
  ConnectOptions,
  Events,
  LiveOptions,
  ResolvedConnectOptions,
  SocketOptions
} from "./Transport.ts"
import { resolveLiveOptions, resolveOptions, Transport } from "./Transport.ts"

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
  /**
   * Changes options of the live connection; those that are absent stay. Fails
   * with `Closed` after `close`, and with `Unsupported` where the transport cannot
   * set one of them; see `SocketOptions`.
   *
   * **Interruption**: none needed; it does not wait.
   */
  readonly configure: (options: LiveOptions) => Effect.Effect<void, SocketError>
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
  new Socket(backing, resolveOptions(options).linger)

/**
 * Gives the descriptor of a stream away, open, and succeeds with its number: to
 * `new net.Socket({ fd })`, to a child process (`stdio`), to native code.
 *
 * **Details**
 *
 * The stream is closed from then on, and whoever took the descriptor has to close
 * it. It stays non-blocking and close-on-exec, with the options it has. Every
 * byte that was taken is the kernel's already, and none that has arrived is left
 * here.
 *
 * Fails, and changes nothing, with `Closed` after `close`; with the reason of the
 * write side where that is torn or has failed; with `Busy` while an operation
 * waits, and while bytes that nobody has read are in the read buffer (take them
 * with `Read` first); and with `Unsupported` where the transport has no
 * descriptor to give away. Only `EpollTransport` has.
 *
 * **Interruption**: none needed; it does not wait.
 *
 * **Example** (Handing a connection to `node:net`)
 *
 * ```ts
 * const fd = yield* StreamSocket.detachFd(socket)
 * const native = new Net.Socket({ fd, readable: true, writable: true })
 * ```
 *
 * @category destructors
 * @since 0.1.0
 */
export const detachFd = (socket: StreamSocket): Effect.Effect<number, SocketError> =>
  Effect.suspend(() => {
    const answer = socket instanceof Socket
      ? socket.detachFd()
      : new SocketError({
        reason: Reason.Unsupported({ feature: "giving away a stream that is no socket of a transport" }),
        operation: "detachFd",
        address: socket.remoteAddress,
        transferred: 0
      })
    return typeof answer === "number" ? Effect.succeed(answer) : Effect.fail(answer)
  })

/**
 * Connects to an address or to a host and port, and closes the stream with the
 * scope.
 *
 * **Details**
 *
 * A host name is resolved with `AddressResolver`, and its addresses race as
 * `Connector.connect` says, with its default options: a new attempt every 250
 * milliseconds, or as soon as one has failed, and the first one to connect wins.
 * Strings are `host:port`, with IPv6 literals in brackets, or as errors print
 * addresses: `tcp://host:port` and `unix:///path`.
 *
 * Fails with the reason of the attempt (`ConnectionRefused`, `TimedOut`,
 * `HostUnreachable`, ...) and its address; with `ConnectFailed`, listing every
 * attempt, when a name has several addresses and all fail; with
 * `NameResolution` when it has none, or is no name; with `Unsupported` for an
 * option that the transport cannot honour.
 *
 * **Interruption**: *total*. Cut attempts release their descriptors.
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
  options?: ConnectOptions
): Effect.Effect<StreamSocket, SocketError, Transport | Scope.Scope>
/**
 * Connects to a host and port and closes the stream with the scope; the addresses
 * of a name race. An address alone needs no resolver; everything else is as for
 * an address.
 *
 * **Interruption**: *total*. Cut attempts release their descriptors.
 *
 * @category constructors
 * @since 0.1.0
 */
export function connect(
  target: Target,
  options?: ConnectOptions
): Effect.Effect<StreamSocket, SocketError, Transport | AddressResolver.AddressResolver | Scope.Scope>
export function connect(
  target: Target,
  options?: ConnectOptions
): Effect.Effect<StreamSocket, SocketError, Transport | AddressResolver.AddressResolver | Scope.Scope> {
  return open(target, options, undefined)
}

/** The one way to a connection: `connect`, and `Connector` with rules of its own for the race. @internal */
export const open = (
  target: Target,
  options: ConnectOptions | undefined,
  raceOptions: RaceOptions | undefined
): Effect.Effect<StreamSocket, SocketError, Transport | AddressResolver.AddressResolver | Scope.Scope> =>
  Effect.acquireRelease(
    Effect.flatMap(ownTurn, () => {
      const opening = new Opening(target, resolveOptions(options), resolveRaceOptions(raceOptions))
      return Effect.onExit(
        cancellable(opening.run, { operation: "connect", address: () => nameOf(target) }),
        (exit) => {
          if (Exit.isSuccess(exit)) counters.completed++
          else if (Cause.hasInterrupts(exit.cause)) counters.cancelled.total++
          // A connection that was made as it was cut is nobody's.
          return Exit.isFailure(exit) && opening.socket !== undefined ? opening.socket.abort : Effect.void
        }
      )
    }),
    (socket) => withoutSignals(socket.close),
    { interruptible: true }
  )

// ---- internal

// A connection that is made at once must reach the scope before its fiber's turn ends.
const ownTurn = Effect.withFiber((fiber) => endsTurn(fiber) ? Effect.yieldNow : Effect.void)

/** From a target to a connection. */
class Opening {
  /** Set in the moment in which a connection is made. */
  socket: Socket | undefined = undefined
  private readonly target: Target
  private readonly options: ResolvedConnectOptions
  private readonly rules: ResolvedRaceOptions

  constructor(target: Target, options: ResolvedConnectOptions, rules: ResolvedRaceOptions) {
    this.target = target
    this.options = options
    this.rules = rules
  }

  get run(): Effect.Effect<StreamSocket, SocketError, Transport | AddressResolver.AddressResolver> {
    return Effect.andThen(
      NetAddress.isSocketAddress(this.target)
        ? this.tryAll(this.target, [this.target], this.rules.timeout)
        : this.lookUpAndTry(this.target),
      Effect.suspend(() => this.socket === undefined ? Effect.die("no connection") : Effect.as(ownTurn, this.socket))
    )
  }

  private lookUpAndTry(
    target: Target
  ): Effect.Effect<void, SocketError, Transport | AddressResolver.AddressResolver> {
    const { lookupTimeout, timeout } = this.rules
    return Clock.clockWith((clock) => {
      const startedAt = clock.monotonicTimeNanosUnsafe()
      return Effect.flatMap(
        resolveHost("connect", target, Duration.millis(Math.min(lookupTimeout, timeout))),
        ({ addresses, name }) =>
          this.tryAll(name, addresses, timeout - Number(clock.monotonicTimeNanosUnsafe() - startedAt) / 1e6)
      )
    })
  }

  private tryAll(
    name: Address,
    addresses: ReadonlyArray<NetAddress.SocketAddress>,
    timeout: number
  ): Effect.Effect<void, SocketError, Transport> {
    const { attemptDelay, attemptTimeout, firstFamilyCount, maxAddresses } = this.rules
    const { localAddress } = this.options
    // Somebody who says where to come from must not come from elsewhere.
    const reachable = addresses.filter((address) => unsupportedLocal(address, localAddress) === undefined)
    const ordered = interleave(reachable, firstFamilyCount)
    const [only] = ordered
    if (only === undefined) {
      const features = addresses.map((address) => unsupportedLocal(address, localAddress))
      return Effect.fail(unsupported("connect", name, features.find((feature) => feature !== undefined) ?? ""))
    }
    return Effect.andThen(
      ownTurn,
      Effect.flatMap(Transport, (transport) => {
        const connect = (address: NetAddress.SocketAddress) =>
          Effect.map(transport.connect(address, this.options), (backing) => new Socket(backing, this.options.linger))
        if (ordered.length === 1 && attemptTimeout === Infinity && timeout === Infinity) {
          return Effect.map(connect(only), this.keep)
        }
        return Effect.mapError(
          race(
            ordered.slice(0, maxAddresses),
            { attemptDelay, attemptTimeout, timeout },
            { connect, keep: this.keep, release: (socket) => socket.abort }
          ),
          (failed) => {
            if (isSocketError(failed)) return failed
            const { attempts, errors } = failed
            return ordered.length > 1
              ? new SocketError({
                reason: Reason.ConnectFailed({ attempts, untried: ordered.length - attempts.length }),
                operation: "connect",
                address: name,
                transferred: 0
              })
              : errors[0] ??
                new SocketError({ reason: Reason.TimedOut(), operation: "connect", address: only, transferred: 0 })
          }
        )
      })
    )
  }

  private readonly keep = (socket: Socket): void => {
    this.socket = socket
  }
}

/** Waits for the release, where requests can reach it if anybody may make some. */
const closing = (backing: Backing, waiting: Effect.Effect<void>): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    const scope = fiber.getRef(CurrentCancellationScope)
    return scope === undefined ? waiting : new Closing(backing, scope).watch(waiting)
  })

/** A `close` that waits for the release. A terminal request makes it an abort. */
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
    if (type !== "terminal" || this.scope === undefined) return undefined
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

/** The one implementation of `StreamSocket`. @internal */
export class Socket implements StreamSocket, Events {
  readonly [TypeId]: typeof TypeId = TypeId
  readonly readHalf: ReadHalf
  readonly writeHalf: WriteHalf
  readonly linger: Duration.Duration
  private readonly backing: Backing
  private phase: State["socket"] = "open"
  private releaseWaiters: Set<() => void> | undefined = undefined
  // Whoever has taken the backing over, and ends it from then on.
  private successor: Pick<StreamSocket, "close" | "abort"> | undefined = undefined

  constructor(backing: Backing, linger: Duration.Duration) {
    this.backing = backing
    this.linger = linger
    this.readHalf = new ReadHalf(backing)
    this.writeHalf = new WriteHalf(backing)
    backing.attach(this)
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

  get state(): State {
    return { socket: this.phase, read: this.readHalf.state, write: this.writeHalf.state }
  }

  /** For logs: the whole of it goes in circles, and through the transport. */
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

  // Getters, so that every member can be taken off its socket, and an idle socket holds no closures.
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
      if (this.successor !== undefined) return this.successor.close
      if (this.phase === "open") {
        if (Duration.isZero(this.linger)) return this.abort
        this.refuse()
        // A fiber that was just woken may have ended the stream already.
        if (!this.isReleased()) this.backing.close()
      }
      return this.isReleased()
        ? Effect.void
        : Effect.onInterrupt(closing(this.backing, this.releasedInTime), () => this.abort)
    })
  }

  get abort(): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.successor !== undefined) return this.successor.abort
      if (this.phase === "open") this.refuse()
      if (this.isReleased()) return Effect.void
      this.backing.abort()
      return this.released
    })
  }

  get configure(): (options: LiveOptions) => Effect.Effect<void, SocketError> {
    return (options) =>
      Effect.suspend(() => {
        if (this.phase !== "open") return Effect.fail(this.readHalf.error(this.readHalf.refusal, "configure", 0))
        const refused = this.backing.configure(resolveLiveOptions(options))
        return isSocketError(refused) ? Effect.fail(refused) : Effect.void
      })
  }

  detachFd(): number | SocketError {
    const { backing, readHalf, writeHalf } = this
    if (this.phase !== "open") return readHalf.error(readHalf.refusal, "detachFd", 0)
    if (writeHalf.state === "torn" || writeHalf.state === "failed") {
      if (writeHalf.failure !== undefined) {
        return writeHalf.refused(writeHalf.failure, { operation: "detachFd", transferred: 0 })
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
    this.refuse()
    this.phase = "closed"
    return answer
  }

  /** Why the backing cannot be handed over just now; a stream in the middle of something cannot. */
  takeOverRefusal(): Reason | string | undefined {
    const { readHalf, writeHalf } = this
    if (readHalf.state === "closed") return readHalf.refusal
    const refused = writeHalf.reason
    if (refused !== undefined) return refused
    return this.busy() ?? (readHalf.state === "open" ? undefined : "the stream has ended")
  }

  private busy(): Reason | undefined {
    const waiting = this.readHalf.queue.front ?? this.writeHalf.queue.front
    return waiting === undefined ? undefined : Reason.Busy({ detail: `${waiting.operation} waits on the stream` })
  }

  /**
   * Hands the backing over, with what was received and not read: from here on every operation fails with `Consumed`,
   * and closing this stream closes its heir.
   */
  takeOver(
    by: string,
    successor: Pick<StreamSocket, "close" | "abort">
  ): readonly [backing: Backing, unread: Uint8Array] {
    const unread = this.readHalf.unreadBytes()
    this.successor = successor
    this.phase = "closed"
    this.writeHalf.close(Reason.Consumed({ by }))
    this.readHalf.close(Reason.Consumed({ by }))
    return [this.backing, unread]
  }

  readable(): void {
    this.readHalf.queue.pump()
  }

  writable(): void {
    this.writeHalf.queue.pump()
  }

  failed(error: SocketError): void {
    this.writeHalf.fail(error)
    this.readHalf.queue.pump()
  }

  closed(): void {
    if (this.successor !== undefined) return
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
    this.writeHalf.close()
    this.readHalf.close()
  }

  private get released(): Effect.Effect<void> {
    return Effect.callback((resume) => {
      if (this.phase === "closed") {
        resume(Effect.void)
        return
      }
      const forget = this.onRelease(() => resume(Effect.void))
      return Effect.sync(forget)
    })
  }

  private get releasedInTime(): Effect.Effect<void> {
    if (!Duration.isFinite(this.linger)) return this.released
    return Effect.withFiber((fiber) =>
      Effect.callback((resume) => {
        const deadline = Deadlines.after(this.linger, fiber.context, () => {
          forget()
          resume(this.overdue)
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

  private get overdue(): Effect.Effect<void> {
    return Effect.andThen(
      Effect.logDebug(`close ${formatAddress(this.remoteAddress)}: the linger time is over, aborting`),
      this.abort
    )
  }

  private onRelease(waiter: () => void): () => void {
    const waiters = this.releaseWaiters ??= new Set()
    waiters.add(waiter)
    return () => waiters.delete(waiter)
  }
}
