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
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import type * as NetAddress from "effect/net/NetAddress"
import * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import * as SocketServer from "effect/socket/SocketServer"
import * as Acceptor from "../Acceptor.ts"
import { unnamed } from "../internal/base/unnamed.ts"
import { isSocketError, type SocketError } from "../SocketError.ts"
import * as StreamSocket from "../StreamSocket.ts"
import {
  type ListenOptions,
  resolveOptions,
  type ResolverFor,
  type SocketOptions,
  type Target,
  type Transport
} from "../Transport.ts"
import { EffectSocketBacking, ourError } from "./internal/EffectSocketBacking.ts"
import { handled, openError, resolve, socketOver } from "./internal/effectSocketOver.ts"

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
 * The limits of the conversion: a `Socket` does not say how many bytes a write took, has no torn
 * state, and TCP has no room for the code and reason of a `CloseEvent`, which
 * the peer never sees. `upgrade` fails: it is not supported.
 *
 * **Interruption**: a pull is *total*; the next one gets the bytes. A write
 * follows `Cancellation.Policy` where its region sets one. Where none is set, it
 * is `total` with a bound, unlike elsewhere: users of a `Socket` share its
 * writer and take each frame to be written whole or not at all. A write that
 * stopped inside its frame and tore the stream aborts the connection, since
 * no writer could write after it; pulls fail with code 1006 then.
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
 * A `Socket` that connects to the target each time its reader is acquired;
 * {@link makeSocketWith} `StreamSocket.connect`. An address needs no resolver.
 *
 * **Interruption**: *total* while it connects; afterwards as for
 * {@link toSocket}.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeSocket = <T extends Target>(
  target: T,
  options?: Options & SocketOptions
): Effect.Effect<Socket.Socket, never, Transport | ResolverFor<T>> =>
  makeSocketWith(StreamSocket.connect(target, options), options)

/**
 * Provides Effect's `Socket` service with {@link makeSocket}.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerSocket = <T extends Target>(
  target: T,
  options?: Options & SocketOptions
): Layer.Layer<Socket.Socket, never, Transport | ResolverFor<T>> =>
  Layer.effect(Socket.Socket)(makeSocket(target, options))

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
 * Listens on an address, or on the first address of a host and port, until the
 * scope closes, and succeeds with an Effect `SocketServer`; {@link toSocketServer}
 * of `Acceptor.listen`. An address needs no resolver.
 *
 * **Details**
 *
 * Fails with `SocketServerOpenError`; `cause` is our `SocketError`. When the scope
 * closes, `run` accepts no more and goes on until it is interrupted, as that of
 * Effect's own servers does.
 *
 * **Interruption**: *total*. The address is released.
 *
 * @category constructors
 * @since 0.1.0
 */
export const makeSocketServer = <T extends Target>(
  target: T,
  options?: Options & ListenOptions
): Effect.Effect<
  SocketServer.SocketServer["Service"],
  SocketServer.SocketServerError,
  Transport | ResolverFor<T> | Scope.Scope
> =>
  Effect.mapBoth(Acceptor.listen(target, options), {
    onSuccess: (acceptor) => {
      const server = toSocketServer(acceptor, options)
      return SocketServer.SocketServer.of({
        address: server.address,
        // Only the scope closes this acceptor. Effect's own servers go on until they are interrupted then, and so do their
        // handlers.
        run: (handler) =>
          Effect.catch(server.run(handler), (error) => wasClosed(error) ? Effect.never : Effect.fail(error))
      })
    },
    onFailure: (cause) =>
      new SocketServer.SocketServerError({ reason: new SocketServer.SocketServerOpenError({ cause }) })
  })

const wasClosed = ({ reason }: SocketServer.SocketServerError): boolean =>
  reason._tag === "SocketServerUnknownError" && isSocketError(reason.cause) && reason.cause.reason._tag === "Closed"

/**
 * Provides Effect's `SocketServer` service with {@link makeSocketServer}.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerSocketServer = <T extends Target>(
  target: T,
  options?: Options & ListenOptions
): Layer.Layer<SocketServer.SocketServer, SocketServer.SocketServerError, Transport | ResolverFor<T>> =>
  Layer.effect(SocketServer.SocketServer)(makeSocketServer(target, options))

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
          const backing = new EffectSocketBacking({
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
