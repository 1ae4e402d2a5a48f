/**
 * A listening address and the queue of fibers that wait for its connections.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import { formatAddress } from "./internal/base/format.ts"
import { cancellable } from "./internal/cancellation/cancellable.ts"
import { nameOf, resolveHost } from "./internal/connect/resolveHost.ts"
import { accepting } from "./internal/core/accepting.ts"
import { handlerEnd } from "./internal/core/handlerEnd.ts"
import { errorOf, Listener, listenerOf, TypeId } from "./internal/core/Listener.ts"
import { PeerMistakes } from "./internal/core/PeerMistakes.ts"
import { Reason, type SocketError } from "./SocketError.ts"
import type { StreamSocket } from "./StreamSocket.ts"
import {
  type ListenerBacking,
  type ListenOptions,
  resolveOptions,
  type ResolverFor,
  type Target,
  Transport
} from "./Transport.ts"

/**
 * A listening address.
 *
 * @category models
 * @since 0.1.0
 */
export interface Acceptor {
  readonly [TypeId]: typeof TypeId
  /** The bound address, with the real port where port 0 was asked for. */
  readonly address: NetAddress.SocketAddress
  /**
   * Accepts the next connection, and closes it with the scope. No byte of the
   * connection is read before its first read.
   *
   * Fails with `Closed` when the acceptor is closed, and with a passing reason such
   * as `TooManyOpenFiles` when one connection could not be accepted. The next
   * `accept` may succeed then.
   *
   * **Interruption**: *total*. No connection is lost: the next `accept` gets it.
   */
  readonly accept: Effect.Effect<StreamSocket, SocketError, Scope.Scope>
  /**
   * {@link accept} without a scope: the caller owns the connection and has to close
   * it. Fails as `accept` does.
   *
   * **Interruption**: *total*, as for `accept`.
   */
  readonly take: Effect.Effect<StreamSocket, SocketError>
  /**
   * Releases the address: waiting `accept`s fail with `Closed`, and connections
   * that were not accepted are reset. Accepted ones go on. Idempotent.
   *
   * **Interruption**: none needed; it does not wait.
   */
  readonly close: Effect.Effect<void>
}

/**
 * Returns `true` when a value is an `Acceptor`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isAcceptor = (u: unknown): u is Acceptor => typeof u === "object" && u !== null && TypeId in u

/**
 * Makes an acceptor over a backing. The caller owns it and has to `close` it.
 * `linger` applies to every accepted connection.
 *
 * **When to use**
 *
 * Use it for a descriptor that was opened elsewhere
 * (`EpollTransport.listenerFromFd`), or to put a transport of your own under this
 * library. Programs use {@link listen}.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (backing: ListenerBacking, options?: Pick<ListenOptions, "linger">): Acceptor =>
  new Listener(backing, resolveOptions(options).linger)

/**
 * Gives the descriptor of a listening address away, open, and succeeds with its
 * number: to a child process (`stdio`), to `server.listen({ fd })`, to native
 * code.
 *
 * **Details**
 *
 * The acceptor is closed from then on, and the caller has to close the descriptor.
 * The address stays bound, a Unix-domain path stays in place, and no waiting
 * connection is lost: the next owner of the descriptor accepts them.
 *
 * Fails, and changes nothing, with `Closed` after `close`, with `Busy` while an
 * `accept` waits, and with `Unsupported` where the transport has no descriptor to
 * give away. Only `EpollTransport` has one.
 *
 * **Interruption**: none needed; it does not wait.
 *
 * @category destructors
 * @since 0.1.0
 */
export const detachFd = (acceptor: Acceptor): Effect.Effect<number, SocketError> =>
  Effect.suspend(() => {
    const answer = listenerOf(acceptor)?.detachFd() ??
      errorOf(acceptor, Reason.Unsupported({ feature: "giving away an acceptor of another make" }), "detachFd")
    return typeof answer === "number" ? Effect.succeed(answer) : Effect.fail(answer)
  })

/**
 * Listens on an address, or on the first address of a host and port, until the
 * scope closes.
 *
 * **Details**
 *
 * Port 0 binds a free port; read it from `address`. The socket options hold for
 * every accepted connection. Fails with `AddressInUse`, `AddressNotAvailable`,
 * `PermissionDenied`, `NameResolution`, or `LimitExceeded` for a Unix-domain
 * path that is too long, each with the address. A Unix-domain path is removed
 * on close; one that a crashed process left behind is `AddressInUse`.
 *
 * **Interruption**: *total*. The address is released.
 *
 * @category constructors
 * @since 0.1.0
 */
export const listen = <T extends Target>(
  target: T,
  options?: ListenOptions
): Effect.Effect<Acceptor, SocketError, Transport | ResolverFor<T> | Scope.Scope> =>
  Effect.acquireRelease(
    Effect.gen(function*() {
      const resolved = resolveOptions(options)
      const transport = yield* Transport
      const address = NetAddress.isSocketAddress(target)
        ? target
        : (yield* cancellable(resolveHost("listen", target), { operation: "listen", address: () => nameOf(target) }))
          .addresses[0]
      const backing = yield* transport.listen(address, resolved)
      const acceptor: Acceptor = new Listener(backing, resolved.linger)
      return acceptor
    }),
    (acceptor) => acceptor.close,
    { interruptible: true }
  )

/**
 * Runs a handler for every connection, each in a fiber of its own, and ends the
 * connection when its handler ends. Never completes; fails with `Closed` when
 * the acceptor is closed.
 *
 * **Details**
 *
 * When a handler ends:
 *
 * - The handler succeeds, or fails because its connection ended (end of stream,
 *   reset, a failure of TLS, cancelled operations): the connection is closed, flushed
 *   and with FIN.
 * - A write was torn or cut inside its message: the connection is reset, so that
 *   the peer cannot take a part for the whole.
 * - Any other failure, and every defect: the connection is closed, and the failure
 *   is logged as an error with the peer's address.
 *
 * A mistake of the peer on its own connection is no error in the log: a message that
 * it did not finish or that its protocol does not allow, a wrong PROXY header, a TLS
 * handshake that cannot succeed (plain HTTP). It is one line a minute and peer, at
 * the level `Info`, which counts those that it stands for; the others are logged for
 * debugging.
 *
 * Nothing that a handler does ends the loop. If the system refuses to accept
 * (`TooManyOpenFiles`), the failure is logged as a warning, and accepting pauses
 * for 50 milliseconds.
 *
 * A request (`Cancellation.withSignal`, a deadline) ends the wait for the next
 * connection. `serve` then accepts no more, waits until the handlers have ended,
 * which the request has reached too, and fails with `OperationAborted`. That is
 * how a server stops gracefully; see `Cancellation.escalate`.
 *
 * **Interruption**: stops accepting and interrupts the handlers, each by its
 * policy; their connections are ended as above.
 *
 * **Example** (Echoing)
 *
 * ```ts
 * const acceptor = yield* Acceptor.listen("127.0.0.1:7000")
 * yield* Acceptor.serve(acceptor, (socket) =>
 *   Effect.gen(function*() {
 *     const buffer = new Uint8Array(65_536)
 *     while (true) {
 *       const count = yield* socket.readSome(buffer)
 *       yield* Write.writeAll(socket, buffer.subarray(0, count))
 *     }
 *   }))
 * ```
 *
 * @category combinators
 * @since 0.1.0
 */
export const serve = <E, R>(
  acceptor: Acceptor,
  handler: (socket: StreamSocket) => Effect.Effect<unknown, E, R>
): Effect.Effect<never, SocketError, R> =>
  Effect.suspend(() => {
    // A number and not a set of fibers: an idle connection should cost little.
    let handlers = 0
    let onLast: (() => void) | undefined
    const mistakes = new PeerMistakes()
    const ended = Effect.sync(() => {
      if (--handlers === 0) onLast?.()
    })
    const allEnded = Effect.callback<void>((resume) => {
      if (handlers === 0) resume(Effect.void)
      else onLast = () => resume(Effect.void)
    })
    const run = accepting(acceptor, {
      accepted: (socket, restore) => {
        handlers++
        // Uninterruptible from its first moment, so that whatever happens the fiber closes its connection.
        return Effect.forkChild(
          Effect.onExit(
            restore(Effect.suspend(() => handler(socket))),
            (exit) => Effect.andThen(end(socket, exit, mistakes), ended)
          ),
          { startImmediately: true, uninterruptible: "inherit" }
        )
      },
      failed: (error) => Effect.logWarning(error.message)
    })
    return Effect.catch(run, (error) =>
      error.reason._tag === "OperationAborted"
        // The request has reached the handlers too. Failing now would interrupt them before they have ended.
        ? Effect.andThen(allEnded, Effect.fail(error))
        : Effect.fail(error))
  })

// ---- internal

const end = (
  socket: StreamSocket,
  exit: Exit.Exit<unknown, unknown>,
  mistakes: PeerMistakes
): Effect.Effect<void> => {
  const { failure, isCut, mistake } = handlerEnd(socket, exit)
  const close = isCut ? socket.abort : socket.close
  if (failure === undefined && mistake === undefined) return close
  return Effect.andThen(
    close,
    // A logger that throws must not end the loop.
    Effect.ignoreCause(
      mistake === undefined
        ? Effect.logError(`the connection from ${formatAddress(socket.remoteAddress)} failed`, failure)
        : mistakes.tell(socket.remoteAddress, `ended: ${mistake.message}`)
    )
  )
}
