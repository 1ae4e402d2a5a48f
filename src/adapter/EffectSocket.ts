/**
 * Effect's own sockets over ours, and ours over Effect's: `effect/socket`
 * `Socket` and `SocketServer`.
 *
 * Whatever is written for them runs over any transport of this library: Effect
 * RPC, the runners of Effect Cluster, channels and streams of sockets. And
 * whatever is a `Socket`, a WebSocket for one, can be read and written as our
 * stream.
 *
 * **Example** (An RPC server and its client)
 *
 * ```ts
 * const server = RpcServer.layer(Api).pipe(
 *   Layer.provide(handlers),
 *   Layer.provide(RpcServer.layerProtocolSocketServer),
 *   Layer.provide([EffectSocket.layerSocketServer("0.0.0.0:7000"), RpcSerialization.layerSchemaBinary()]),
 *   Layer.provide(NodeTransport.layer)
 * )
 *
 * const client = RpcClient.layerProtocolSocket().pipe(
 *   Layer.provide([EffectSocket.layerSocket("example.org:7000"), RpcSerialization.layerSchemaBinary()]),
 *   Layer.provide(NodeTransport.layer)
 * )
 * ```
 *
 * @since 0.1.0
 */
import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Latch from "effect/Latch"
import * as Layer from "effect/Layer"
import type * as AddressResolver from "effect/net/AddressResolver"
import type * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"
import * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import * as SocketServer from "effect/socket/SocketServer"
import * as Acceptor from "../Acceptor.ts"
import * as Buffers from "../Buffers.ts"
import * as Cancellation from "../Cancellation.ts"
import { positiveInteger } from "../internal/base/checks.ts"
import { fromErrno, isSocketError, Reason, SocketError } from "../SocketError.ts"
import * as StreamSocket from "../StreamSocket.ts"
import {
  type Backing,
  type Events,
  type ListenOptions,
  resolveOptions,
  type SocketOptions,
  type Transport,
  WouldBlock
} from "../Transport.ts"
import * as Write from "../Write.ts"

// ---- ours as Effect's

/**
 * How a `Socket` uses the stream below it.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** The most bytes of one element of a pulled batch. Default 65,536. */
  readonly chunkSize?: number | undefined
  /**
   * How long an interrupted write may go on to finish its frame before the
   * connection is given up, where the region sets no `Cancellation.Policy` of
   * its own. Default 2 seconds.
   */
  readonly within?: Duration.Input | undefined
}

/**
 * A connected stream as an Effect `Socket`.
 *
 * **Details**
 *
 * - *Reading.* Each pull reads once, so a consumer that does not pull stops the
 *   peer. Elements are bytes, in memory of the consumer's own; their boundaries
 *   mean nothing. End of stream is `SocketCloseError` with code 1000. Where this
 *   side has closed or aborted the stream, the code is that of the `CloseEvent`,
 *   else 1006. Other failures are `SocketReadError`; `cause` is our
 *   `SocketError`.
 * - *Writing.* `write` and `writeAll` wait until everything is taken, so a peer
 *   that does not read holds the writer back. Strings are sent as UTF-8; the
 *   frames of one `writeAll` leave in one gather write. Failures are
 *   `SocketWriteError`; `cause` is our `SocketError`. Any number of fibers may
 *   write at once: frames do not interleave.
 * - *Ending.* The scope of the reader closes the stream when it closes, and a
 *   suspended pull fails. Writes wait for the reader to be acquired, and fail
 *   after it was released, since there is no next connection. Releasing a writer half-closes, behind what was
 *   written before; reading goes on. Writing a `CloseEvent` closes the stream
 *   when its code is 1000, and aborts it otherwise.
 *
 * What is lost: a `Socket` does not say how many bytes a write took, has no torn
 * state, and TCP has no room for the code and reason of a `CloseEvent`, which
 * the peer never sees. `upgrade` fails: it is not supported.
 *
 * **Interruption**: a pull is *total*; the next one gets the bytes. A write
 * follows `Cancellation.Policy` where its region sets one. Where none is set, it
 * is `total` with a bound, unlike elsewhere: users of a `Socket` share its
 * writer and take each frame to be written whole or not at all. A write that
 * stopped inside its frame and tore the stream aborts the connection, since
 * nobody could write anything after it; pulls fail with code 1006 then.
 *
 * **Example** (A connection as a channel)
 *
 * ```ts
 * const stream = yield* StreamSocket.connect("localhost:7000")
 * const channel = Socket.toChannel(EffectSocket.toSocket(stream))
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const toSocket = (stream: StreamSocket.StreamSocket, options?: Options): Socket.Socket =>
  socketOver(
    Effect.acquireRelease(Effect.succeed(stream), (stream) => stream.close),
    resolve(options),
    "once"
  )

/**
 * A `Socket` that connects each time its reader is acquired, and so can connect
 * again.
 *
 * **Details**
 *
 * `open` runs in the scope of the reader. Its failure is `SocketOpenError`, of
 * the kind `Timeout` for a connection that timed out. Writes that are made
 * while there is no connection wait for the next one. Everything else is as for
 * {@link toSocket}.
 *
 * **Interruption**: as `open` says; afterwards as for {@link toSocket}.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeSocketWith = <R>(
  open: Effect.Effect<StreamSocket.StreamSocket, SocketError, R>,
  options?: Options
): Effect.Effect<Socket.Socket, never, Exclude<R, Scope.Scope>> =>
  Effect.contextWith((context: Context.Context<Exclude<R, Scope.Scope>>) =>
    Effect.succeed(
      socketOver(
        Effect.contextWith((scope: Context.Context<Scope.Scope>) =>
          Effect.provideContext(Effect.mapError(open, openError), Context.merge(context, scope) as Context.Context<R>)
        ),
        resolve(options),
        "again and again"
      )
    )
  )

/**
 * A `Socket` that connects to an address or to a host and port each time its
 * reader is acquired; {@link makeSocketWith} `StreamSocket.connect`.
 *
 * **Interruption**: *total* while it connects; afterwards as for
 * {@link toSocket}.
 *
 * @category constructors
 * @since 0.1.0
 */
export function makeSocket(
  target: NetAddress.SocketAddress,
  options?: Options & SocketOptions
): Effect.Effect<Socket.Socket, never, Transport>
/**
 * A `Socket` that connects to a host and port each time its reader is acquired.
 * An address alone needs no resolver; everything else is as for an address.
 *
 * **Interruption**: *total* while it connects; afterwards as for
 * {@link toSocket}.
 *
 * @category constructors
 * @since 0.1.0
 */
export function makeSocket(
  target: NetAddress.SocketAddress | Host.HostPortInput,
  options?: Options & SocketOptions
): Effect.Effect<Socket.Socket, never, Transport | AddressResolver.AddressResolver>
export function makeSocket(
  target: NetAddress.SocketAddress | Host.HostPortInput,
  options?: Options & SocketOptions
): Effect.Effect<Socket.Socket, never, Transport | AddressResolver.AddressResolver> {
  return makeSocketWith(StreamSocket.connect(target, options), options)
}

/**
 * Provides Effect's `Socket` service with {@link makeSocket}.
 *
 * @category layers
 * @since 0.1.0
 */
export function layerSocket(
  target: NetAddress.SocketAddress,
  options?: Options & SocketOptions
): Layer.Layer<Socket.Socket, never, Transport>
/**
 * Provides Effect's `Socket` service with {@link makeSocket}. An address alone
 * needs no resolver.
 *
 * @category layers
 * @since 0.1.0
 */
export function layerSocket(
  target: NetAddress.SocketAddress | Host.HostPortInput,
  options?: Options & SocketOptions
): Layer.Layer<Socket.Socket, never, Transport | AddressResolver.AddressResolver>
export function layerSocket(
  target: NetAddress.SocketAddress | Host.HostPortInput,
  options?: Options & SocketOptions
): Layer.Layer<Socket.Socket, never, Transport | AddressResolver.AddressResolver> {
  return Layer.effect(Socket.Socket)(makeSocket(target, options))
}

/**
 * An acceptor as an Effect `SocketServer`.
 *
 * **Details**
 *
 * `run` hands each connection to the handler as {@link toSocket}, in a fiber of
 * its own, and closes it when the handler ends. Handlers that fail are logged at
 * `References.UnhandledLogLevel`, as by Effect's own servers. Connections that
 * arrive before `run` wait in the acceptor's backlog, unread. `run` fails only
 * when the acceptor is closed under it, with `SocketServerUnknownError`.
 *
 * **Gotchas**
 *
 * Effect's `RpcServer` writes its answers in uninterruptible regions, over
 * whatever socket: a client that asks and does not read holds up the end of the
 * server until it goes away.
 *
 * **Interruption**: `run` stops accepting and interrupts the handlers; their
 * connections are closed.
 *
 * @category conversions
 * @since 0.1.0
 */
export const toSocketServer = (
  acceptor: Acceptor.Acceptor,
  options?: Options
): SocketServer.SocketServer["Service"] =>
  SocketServer.SocketServer.of({
    address: acceptor.address,
    run: (handler) =>
      Effect.mapError(
        Acceptor.serve(acceptor, (stream) => handled(Effect.suspend(() => handler(toSocket(stream, options))))),
        (cause) => new SocketServer.SocketServerError({ reason: new SocketServer.SocketServerUnknownError({ cause }) })
      )
  })

/**
 * Listens until the scope closes, and gives an Effect `SocketServer`;
 * {@link toSocketServer} of `Acceptor.listen`.
 *
 * **Details**
 *
 * Fails with `SocketServerOpenError`; `cause` is our `SocketError`.
 *
 * **Interruption**: *total*. The address is released.
 *
 * @category constructors
 * @since 0.1.0
 */
export function makeSocketServer(
  address: NetAddress.SocketAddress,
  options?: Options & ListenOptions
): Effect.Effect<SocketServer.SocketServer["Service"], SocketServer.SocketServerError, Transport | Scope.Scope>
/**
 * Listens on the first address of a host and port until the scope closes, and
 * gives an Effect `SocketServer`. An address alone needs no resolver; everything
 * else is as for an address.
 *
 * **Interruption**: *total*. The address is released.
 *
 * @category constructors
 * @since 0.1.0
 */
export function makeSocketServer(
  address: NetAddress.SocketAddress | Host.HostPortInput,
  options?: Options & ListenOptions
): Effect.Effect<
  SocketServer.SocketServer["Service"],
  SocketServer.SocketServerError,
  Transport | AddressResolver.AddressResolver | Scope.Scope
>
export function makeSocketServer(
  address: NetAddress.SocketAddress | Host.HostPortInput,
  options?: Options & ListenOptions
): Effect.Effect<
  SocketServer.SocketServer["Service"],
  SocketServer.SocketServerError,
  Transport | AddressResolver.AddressResolver | Scope.Scope
> {
  return Effect.mapBoth(Acceptor.listen(address, options), {
    onSuccess: (acceptor) => toSocketServer(acceptor, options),
    onFailure: (cause) =>
      new SocketServer.SocketServerError({ reason: new SocketServer.SocketServerOpenError({ cause }) })
  })
}

/**
 * Provides Effect's `SocketServer` service with {@link makeSocketServer}.
 *
 * @category layers
 * @since 0.1.0
 */
export function layerSocketServer(
  address: NetAddress.SocketAddress,
  options?: Options & ListenOptions
): Layer.Layer<SocketServer.SocketServer, SocketServer.SocketServerError, Transport>
/**
 * Provides Effect's `SocketServer` service with {@link makeSocketServer}. An
 * address alone needs no resolver.
 *
 * @category layers
 * @since 0.1.0
 */
export function layerSocketServer(
  address: NetAddress.SocketAddress | Host.HostPortInput,
  options?: Options & ListenOptions
): Layer.Layer<
  SocketServer.SocketServer,
  SocketServer.SocketServerError,
  Transport | AddressResolver.AddressResolver
>
export function layerSocketServer(
  address: NetAddress.SocketAddress | Host.HostPortInput,
  options?: Options & ListenOptions
): Layer.Layer<
  SocketServer.SocketServer,
  SocketServer.SocketServerError,
  Transport | AddressResolver.AddressResolver
> {
  return Layer.effect(SocketServer.SocketServer)(makeSocketServer(address, options))
}

// ---- Effect's as ours

/**
 * How a stream uses the `Socket` below it.
 *
 * @category options
 * @since 0.1.0
 */
export interface FromOptions extends Pick<SocketOptions, "linger" | "sliceSize"> {
  /** What the stream says of itself, since a `Socket` knows no addresses. Default: unnamed. */
  readonly localAddress?: NetAddress.SocketAddress | undefined
  /** What errors name as the peer. Default: unnamed. */
  readonly remoteAddress?: NetAddress.SocketAddress | undefined
}

/**
 * Opens any Effect `Socket` as a stream of ours, and closes it with the scope.
 *
 * **Details**
 *
 * The stream has everything that streams have: composed reads and writes,
 * lines, policies and signals, torn state. What a `Socket` does not let through
 * is lost:
 *
 * - *Counts.* A write hands at most one slice (`sliceSize`) at a time to the
 *   `Socket`, and the next one when that write has succeeded. Bytes taken are
 *   bytes handed over, which cannot be recalled; what the `Socket` buffers
 *   itself is its own.
 * - *Reading.* At most one pulled batch is held, of whatever size the `Socket`
 *   makes it. Text is read as UTF-8, and boundaries of frames are lost. An
 *   interrupted read leaves the pull that it began to the next read, so that no
 *   byte is lost.
 * - *End of stream* is a `SocketCloseError` with code 1000 or 1005; other codes
 *   are `ConnectionAborted`. Other errors have the reason that the system named
 *   in their `cause`, our own again where the `Socket` was {@link toSocket},
 *   else `Unknown`.
 * - *Half-close* releases the writer. Where the `Socket` has no such thing
 *   (WebSockets), `shutdownWrite` succeeds and the peer sees no end.
 * - *`close`* waits for the slice that was handed over, and releases writer and
 *   reader; whether that flushes and when the descriptor is released is up to
 *   the `Socket`. Effect's `NodeSocket` does not wait for the peer, so what it
 *   has still to receive is lost if unread input is left.
 * - *`abort`* writes `CloseEvent(4000)` and releases. The peer may see a reset,
 *   an end or a close frame.
 * - *`configure`* succeeds and changes nothing. A write to a `NodeSocket` whose
 *   connection is gone may wait until the stream is closed.
 *
 * Fails as the reader of the `Socket` does when it cannot be acquired.
 *
 * **Interruption**: while it opens, as the reader of the `Socket` does; what was
 * acquired is released.
 *
 * **Example** (Lines over a WebSocket)
 *
 * ```ts
 * const socket = yield* Socket.makeWebSocket("ws://localhost:8080")
 * const stream = yield* EffectSocket.fromSocket(socket)
 * const line = yield* Read.readUntil(stream, "\n")
 * ```
 *
 * @category conversions
 * @since 0.1.0
 */
export const fromSocket = (
  socket: Socket.Socket,
  options?: FromOptions
): Effect.Effect<StreamSocket.StreamSocket, SocketError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.suspend(() => {
      const { linger, sliceSize } = resolveOptions(options)
      const reading = Scope.makeUnsafe()
      const writing = Scope.makeUnsafe()
      return Effect.onError(
        Effect.gen(function*() {
          const context = yield* Effect.context()
          const writer = yield* Scope.provide(socket.writer, writing)
          const reader = yield* Scope.provide(socket.reader, reading)
          const backing = new SocketBacking({
            reader,
            writer,
            reading,
            writing,
            run: Effect.runForkWith(context),
            sliceSize,
            localAddress: options?.localAddress ?? unnamed,
            remoteAddress: options?.remoteAddress ?? unnamed
          })
          return StreamSocket.make(backing, { linger })
        }).pipe(
          Effect.mapError((error) => ourError(error, { operation: "connect", address: options?.remoteAddress }))
        ),
        () => Effect.andThen(Scope.close(reading, Exit.void), Scope.close(writing, Exit.void))
      )
    }),
    (stream) => stream.close,
    { interruptible: true }
  )

// ---- internal

interface Resolved {
  readonly chunkSize: number
  /** Gives the region of a write a policy, unless it has one. */
  readonly withPolicy: (region: Context.Context<never>) => Context.Context<never>
}

const resolve = (options: Options | undefined): Resolved => {
  const chunkSize = options?.chunkSize ?? 65_536
  positiveInteger(`EffectSocket: chunkSize`, chunkSize, "bytes")
  const within = Duration.fromInputUnsafe(options?.within ?? "2 seconds")
  return {
    chunkSize,
    withPolicy: (region) =>
      // Unlike most getters this one does not answer with the default of the reference.
      Context.getOrUndefined(region, Cancellation.Policy) === undefined
        ? Context.add(Context.add(region, Cancellation.Policy, "total"), Cancellation.TotalTimeout, within)
        : region
  }
}

const socketOver = (
  open: Effect.Effect<StreamSocket.StreamSocket, Socket.SocketError, Scope.Scope>,
  options: Resolved,
  connects: "once" | "again and again"
): Socket.Socket => {
  const connected = Latch.makeUnsafe(false)
  let current: Connection | undefined

  const reader: Socket.Socket["reader"] = Effect.gen(function*() {
    const scope = yield* Effect.scope
    const connection = new Connection(yield* open, scope, options)
    yield* Scope.addFinalizer(
      scope,
      Effect.sync(() => {
        // A later connection may have taken its place; and where none can come, nobody may wait for one.
        if (current !== connection || connects === "once") return
        current = undefined
        connected.closeUnsafe()
      })
    )
    current = connection
    connected.openUnsafe()
    return { pull: connection.pull, upgrade: Socket.SocketUpgradeError.unsupported }
  })

  const write: Socket.Writer["write"] = (chunk) =>
    Effect.suspend(() =>
      current === undefined
        ? connected.whenOpen(write(chunk))
        : Socket.isCloseEvent(chunk)
        ? current.end(chunk)
        : current.write(bytesOf(chunk))
    )
  const writeAll: Socket.Writer["writeAll"] = (chunks) =>
    Effect.suspend(() =>
      current === undefined ? connected.whenOpen(writeAll(chunks)) : current.write(chunks.map(bytesOf))
    )
  const writer: Socket.Socket["writer"] = Effect.acquireRelease(
    Effect.succeed({ write, writeAll }),
    () => Effect.suspend(() => current === undefined ? Effect.void : current.halfClose)
  )
  return Socket.make({ reader, writer })
}

/** One connection of a `Socket`, from the acquisition of its reader to the release. */
class Connection {
  readonly stream: StreamSocket.StreamSocket
  private readonly scope: Scope.Scope
  private readonly options: Resolved
  /** Idle connections are many and large chunks are few: it grows with what arrives. */
  private receiveBuffer: Uint8Array
  private closing: Socket.CloseEvent | undefined = undefined

  constructor(stream: StreamSocket.StreamSocket, scope: Scope.Scope, options: Resolved) {
    this.stream = stream
    this.scope = scope
    this.options = options
    this.receiveBuffer = new Uint8Array(Math.min(firstLanding, options.chunkSize))
  }

  readonly pull: Socket.Reader["pull"] = Effect.suspend(() => {
    const target = this.receiveBuffer
    return Effect.mapBoth(this.stream.readSome(target), {
      onSuccess: (count): Arr.NonEmptyReadonlyArray<Uint8Array> => {
        if (count === target.byteLength && count < this.options.chunkSize) {
          this.receiveBuffer = new Uint8Array(Math.min(count * 4, this.options.chunkSize))
        }
        return [target.slice(0, count)]
      },
      onFailure: (error) => this.readError(error)
    })
  })

  write(source: Buffers.Input): Effect.Effect<void, Socket.SocketError> {
    return Write.writeAll(this.stream, source).pipe(
      Effect.updateContext((region: Context.Context<never>) => this.options.withPolicy(region)),
      Effect.onError((cause) => this.stream.state.write === "torn" ? this.giveUp(cause) : Effect.void),
      Effect.mapBoth({
        onSuccess: () => {},
        onFailure: (cause) => new Socket.SocketError({ reason: new Socket.SocketWriteError({ cause }) })
      })
    )
  }

  end(event: Socket.CloseEvent): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.closing ??= event
      return event.code === 1000 ? this.stream.close : this.stream.abort
    })
  }

  /** Behind the writes that were started before it, but whoever releases the writer does not wait for them. */
  get halfClose(): Effect.Effect<void> {
    return Effect.asVoid(
      Effect.forkIn(Effect.ignore(this.stream.shutdownWrite), this.scope, { startImmediately: true })
    )
  }

  private giveUp(cause: Cause.Cause<SocketError>): Effect.Effect<void> {
    const { transferred, total } = Cancellation.transfer(cause).pipe(
      (transfer) => transfer._tag === "Some" ? transfer.value : { transferred: 0, total: 0 }
    )
    return this.end(new Socket.CloseEvent(1006, `a write stopped after ${transferred} of ${total} bytes`))
  }

  private readError(error: SocketError | Cause.Done): Socket.SocketError {
    if (Cause.isDone(error)) return closeError(1000)
    return error.reason._tag === "Closed"
      ? closeError(this.closing?.code ?? 1006, this.closing?.reason)
      : new Socket.SocketError({ reason: new Socket.SocketReadError({ cause: error }) })
  }
}

const firstLanding = 4096

/** A handler that has ended, however it did. In a mask, so that one that fails as it is interrupted is handled, too. */
const handled = <R>(handler: Effect.Effect<unknown, unknown, R>): Effect.Effect<void, never, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.matchCauseEffect(restore(handler), {
      onSuccess: () => Effect.void,
      onFailure: (cause) =>
        Cause.hasInterruptsOnly(cause) ? Effect.void : Effect.ignoreCause(Effect.failCause(cause), {
          log: "Unhandled",
          message: "Unhandled error in SocketServer"
        })
    })
  )

const bytesOf = (chunk: Uint8Array | string): Uint8Array => typeof chunk === "string" ? Buffers.utf8(chunk) : chunk

const closeError = (code: number, closeReason?: string): Socket.SocketError =>
  new Socket.SocketError({ reason: new Socket.SocketCloseError({ code, closeReason }) })

const openError = (cause: SocketError): Socket.SocketError =>
  new Socket.SocketError({
    reason: new Socket.SocketOpenError({ kind: cause.reason._tag === "TimedOut" ? "Timeout" : "Unknown", cause })
  })

const unnamed = NetAddress.unixPathAddress("")

/** A `Socket` that was opened, as a transport's connection. */
class SocketBacking implements Backing {
  readonly localAddress: NetAddress.SocketAddress
  readonly remoteAddress: NetAddress.SocketAddress
  private readonly opened: Opened
  private events: Events = deaf
  private batch: ReadonlyArray<Uint8Array | string> = []
  private next = 0
  private chunk: Uint8Array = nothing
  private pulling: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private handing: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private releasing: Fiber.Fiber<unknown, unknown> | undefined = undefined
  private ended = false
  private readFailure: SocketError | undefined = undefined
  private writeFailure: SocketError | undefined = undefined
  private phase: "open" | "closing" | "closed" = "open"

  constructor(opened: Opened) {
    this.opened = opened
    this.localAddress = opened.localAddress
    this.remoteAddress = opened.remoteAddress
  }

  attach(events: Events): void {
    this.events = events
  }

  read(target: Uint8Array): number | SocketError {
    if (!this.hasBytes() && !this.isOver() && this.pulling === undefined) {
      this.pull()
      // What ended at once owes its event: the failure of writes that wait, or that there may be more behind a batch of
      // empty frames.
      if (this.pulling === undefined && !this.hasBytes()) queueMicrotask(() => this.tellPulled())
    }
    if (this.hasBytes()) {
      const count = Math.min(this.chunk.byteLength, target.byteLength)
      target.set(count === this.chunk.byteLength ? this.chunk : this.chunk.subarray(0, count))
      this.chunk = this.chunk.subarray(count)
      return count
    }
    return this.ended ? 0 : this.readFailure ?? WouldBlock
  }

  write(source: Buffers.Cursor, limit: number): number | SocketError {
    if (this.writeFailure !== undefined) return this.writeFailure
    if (this.handing !== undefined) return WouldBlock
    // The socket keeps it for as long as it likes.
    const slice = new Uint8Array(Math.min(source.remaining, limit, this.opened.sliceSize))
    source.copyTo(slice)
    this.handing = this.start(this.opened.writer.write(slice), (exit) => {
      this.handing = undefined
      if (Exit.isFailure(exit)) this.writeFailure = this.errorOf(exit.cause)
    }, () => {
      if (this.writeFailure === undefined) this.events.writable()
      else this.events.failed(this.writeFailure)
    })
    return this.writeFailure ?? slice.byteLength
  }

  shutdownWrite(): number | SocketError {
    if (this.writeFailure !== undefined) return this.writeFailure
    if (this.handing !== undefined) return WouldBlock
    this.opened.run(Scope.close(this.opened.writing, Exit.void))
    return 0
  }

  close(): void {
    if (this.phase === "closed") this.events.closed()
    if (this.phase !== "open") return
    this.release(Effect.gen({ self: this }, function*() {
      if (this.handing !== undefined && this.readFailure === undefined) yield* Fiber.await(this.handing)
      yield* Scope.close(this.opened.writing, Exit.void)
      yield* Scope.close(this.opened.reading, Exit.void)
    }))
  }

  abort(): void {
    if (this.phase === "closed") {
      this.events.closed()
      return
    }
    this.release(Effect.gen({ self: this }, function*() {
      const { reading, writer, writing } = this.opened
      this.handing?.interruptUnsafe()
      // Without waiting: a socket that has lost its connection holds writes until the next one.
      const telling = yield* Effect.forkChild(Effect.ignore(writer.write(new Socket.CloseEvent(4000, "aborted"))), {
        startImmediately: true
      })
      yield* Scope.close(reading, Exit.void)
      yield* Fiber.interrupt(telling)
      yield* Scope.close(writing, Exit.void)
    }))
  }

  configure(): void {
    // A `Socket` has no options.
  }

  private release(how: Effect.Effect<void>): void {
    this.phase = "closing"
    this.pulling?.interruptUnsafe()
    const closing = this.releasing
    this.releasing = undefined
    // An abort takes over from a close, and does not wait for one that hangs: it makes it end.
    closing?.interruptUnsafe()
    const releasing = this.releasing = this.opened.run(how)
    releasing.addObserver(() => {
      if (this.releasing !== releasing) return
      this.handing?.interruptUnsafe()
      this.phase = "closed"
      this.batch = []
      this.chunk = nothing
      this.events.closed()
    })
  }

  private pull(): void {
    this.pulling = this.start(this.opened.reader.pull, (exit) => {
      this.pulling = undefined
      if (Exit.isSuccess(exit)) {
        this.batch = exit.value
        this.next = 0
      } else if (isEnd(exit.cause)) this.ended = true
      else {
        this.readFailure = this.errorOf(exit.cause)
        this.writeFailure ??= this.readFailure
      }
    }, () => this.tellPulled())
  }

  private tellPulled(): void {
    if (this.phase !== "open") return
    this.events.readable()
    // A connection that cannot be read is gone, even where its writes do not notice.
    if (this.readFailure !== undefined) this.events.failed(this.readFailure)
  }

  /** Runs an effect: `settle` when it has ended, and `tell` after it unless that was at once. */
  private start<A>(
    effect: Effect.Effect<A, Socket.SocketError>,
    settle: (exit: Exit.Exit<A, Socket.SocketError>) => void,
    tell: () => void
  ): Fiber.Fiber<unknown, unknown> | undefined {
    const fiber = this.opened.run(effect)
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) {
      settle(exit)
      return undefined
    }
    fiber.addObserver((exit) => {
      if (this.phase !== "open") return
      settle(exit)
      tell()
    })
    return fiber
  }

  /** Makes the next frame that is not empty the current chunk. */
  private hasBytes(): boolean {
    while (this.chunk.byteLength === 0 && this.next < this.batch.length) {
      this.chunk = bytesOf(this.batch[this.next++]!)
      if (this.next === this.batch.length) this.batch = []
    }
    return this.chunk.byteLength > 0
  }

  private isOver(): boolean {
    return this.ended || this.readFailure !== undefined
  }

  private errorOf(cause: Cause.Cause<Socket.SocketError>): SocketError {
    const fail = cause.reasons.find(Cause.isFailReason)
    const context = { operation: "socket", address: this.remoteAddress }
    return fail === undefined ? fromErrno(Cause.squash(cause), context) : ourError(fail.error, context)
  }
}

interface Opened {
  readonly reader: Socket.Reader
  readonly writer: Socket.Writer
  readonly reading: Scope.Closeable
  readonly writing: Scope.Closeable
  readonly run: <A, E>(effect: Effect.Effect<A, E>) => Fiber.Fiber<A, E>
  readonly sliceSize: number
  readonly localAddress: NetAddress.SocketAddress
  readonly remoteAddress: NetAddress.SocketAddress
}

const nothing = new Uint8Array(0)

const deaf: Events = { readable: () => {}, writable: () => {}, failed: () => {}, closed: () => {} }

/** Codes of a close that nothing went wrong before: the normal one, and a close frame without any. */
const isEnd = (cause: Cause.Cause<Socket.SocketError>): boolean =>
  cause.reasons.some((reason) =>
    Cause.isFailReason(reason) && reason.error.reason._tag === "SocketCloseError" &&
    (reason.error.reason.code === 1000 || reason.error.reason.code === 1005)
  )

const ourError = (
  error: Socket.SocketError,
  context: { readonly operation: string; readonly address?: NetAddress.SocketAddress | undefined }
): SocketError => {
  const { reason } = error
  const cause = "cause" in reason ? reason.cause : undefined
  // What we gave to a `Socket` comes back as it was.
  if (isSocketError(cause)) return cause
  const found = fromErrno(cause, context)
  const known = reason._tag === "SocketCloseError"
    ? Reason.ConnectionAborted()
    : reason._tag === "SocketOpenError" && reason.kind === "Timeout"
    ? Reason.TimedOut()
    : found.code === "ERR_STREAM_DESTROYED" || found.code === "ERR_STREAM_WRITE_AFTER_END"
    ? Reason.BrokenPipe()
    : found.reason
  return new SocketError({
    reason: known,
    operation: context.operation,
    address: context.address,
    transferred: 0,
    code: found.code,
    cause: error
  })
}
