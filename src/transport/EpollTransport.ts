/**
 * TCP and Unix-domain sockets by system calls of Linux: every count is the
 * kernel's, and no taken byte is held in this process.
 *
 * **Details**
 *
 * Needs Linux on x64 or arm64, the main thread, and the package `koffi` (an
 * optional peer dependency: `npm install koffi`); {@link isSupported} tells
 * whether they are there. One epoll descriptor serves all sockets of the process.
 *
 * - A write passes the caller's own memory to the kernel, which copies it. Up to
 *   64 pieces of a gather list leave by one system call if they have 4 KiB or more
 *   on average. Smaller pieces are copied together first, up to 64 KiB, which
 *   costs less. Bytes that the kernel does not take stay with the caller.
 * - A short write means that the send buffer is full: the transport makes no
 *   further call until the kernel reports room.
 * - A read goes straight into the caller's memory.
 * - Memory whose size can change is never passed to the kernel. Writing a view of
 *   a resizable `ArrayBuffer` or a growable `SharedArrayBuffer`, or reading into
 *   one, is a defect (`TypeError`), and moves nothing. Pieces of a gather list
 *   with less than 4 KiB may be of any memory: they are copied.
 * - Operations that wait keep the process alive; idle sockets do not.
 * - Every option of connections and listeners is supported.
 * - A Unix-domain path that begins with a zero byte is a name in Linux's abstract
 *   namespace, with up to 107 bytes behind the zero: no file is created, every
 *   process of the machine may connect, and closing the listener frees the name.
 * - Node's permission model does not cover native code: with `--allow-addons`,
 *   sockets of this transport do not need `--allow-net`.
 * - A worker of `node:cluster` listens on its own, because `node:cluster` shares
 *   the listeners of `node:net` only. Processes can share an address by
 *   `reusePort`, or a listener that their parent has opened
 *   ({@link listenerFromFd}).
 * - In one turn of the event loop, a connection moves about 1 MiB at most and a
 *   listener accepts at most 64 connections, so that the others get their turn.
 *
 * @since 0.1.0
 */
import * as NodeAddressResolver from "@effect/platform-node/NodeAddressResolver"
import * as NodeDns from "@effect/platform-node/NodeDns"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as AddressResolver from "effect/net/AddressResolver"
import { isSocketError, Reason, SocketError } from "../SocketError.ts"
import { type Backing, type ListenerBacking, resolveOptions, Transport } from "../Transport.ts"
import { connect } from "./internal/epoll/connect.ts"
import * as Descriptor from "./internal/epoll/descriptor.ts"
import { EpollBacking } from "./internal/epoll/EpollBacking.ts"
import { EpollListener, listen } from "./internal/epoll/EpollListener.ts"
import * as Linux from "./internal/epoll/linux.ts"
import { failure, maxInt } from "./internal/epoll/options.ts"
import { Reactor, type Registered } from "./internal/epoll/Reactor.ts"
import * as Support from "./internal/epoll/support.ts"

/**
 * Whether this thread can use the transport: Linux on x64 or arm64, the main
 * thread, and `koffi` installed.
 *
 * **Details**
 *
 * Loads and opens nothing. So it cannot detect a `koffi` that is installed but
 * does not load (no binary for this system); the layer fails in that case.
 *
 * @category guards
 * @since 0.1.0
 */
export const isSupported = (): boolean => Support.unsupported() === undefined

/**
 * The transport, together with Node's resolver for host names.
 *
 * **Details**
 *
 * Where it cannot run, building the layer fails with the reason `Unsupported`,
 * which says why; use `NodeTransport.layer` there. With no descriptor left it fails
 * with `TooManyOpenFiles`.
 *
 * **Example** (One line of change)
 *
 * ```ts
 * const main = program.pipe(Effect.provide(EpollTransport.layer), NodeRuntime.runMain)
 * ```
 *
 * **Example** (The fast one where it is there)
 *
 * ```ts
 * const transport = EpollTransport.layer.pipe(Layer.catchCause(() => NodeTransport.layer))
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Transport | AddressResolver.AddressResolver, SocketError> = Layer.merge(
  Layer.effect(
    Transport,
    Effect.map(
      Effect.acquireRelease(
        Effect.suspend(() => acquire("EpollTransport.layer")),
        (reactor) => Effect.sync(() => reactor.release())
      ),
      (reactor) => ({
        name: "epoll",
        connect: (address, options) => connect(reactor, address, options),
        listen: (address, options) => listen(reactor, address, options)
      })
    )
  ),
  Layer.provide(NodeAddressResolver.layer, NodeDns.layer)
)

/**
 * Takes over a connected stream socket that other code has opened: a parent
 * process, or native code. Completes with its backing.
 *
 * **Details**
 *
 * Needs no layer. The backing owns the descriptor from then on: make a stream with
 * `StreamSocket.make`, and close the stream. The socket becomes non-blocking (also
 * for other processes that have it) and close-on-exec. Its other options stay as
 * they are; the stream's `configure` changes them. `close` turns off `SO_LINGER`,
 * which would block the process.
 *
 * Fails with `Unsupported` where the transport cannot run, and for a descriptor
 * that is not open (`EBADF`), is no socket (`ENOTSOCK`), is not a TCP or
 * Unix-domain stream, or listens; with `Busy` if a socket of this transport has
 * the descriptor already; with `NotConnected` if the socket is not connected.
 * After a failure the descriptor is unchanged and belongs to the caller. A number
 * that cannot be a descriptor is a defect (`RangeError`).
 *
 * **Gotchas**
 *
 * No other code of this process may use or close the descriptor: the number may be
 * given to another socket. If another process has the same socket, `close` ends the
 * connection for both, and `abort` resets it only when the last process has closed
 * it.
 *
 * **Interruption**: none needed; it does not wait.
 *
 * **Example** (A connection from the parent process)
 *
 * ```ts
 * const socket = yield* Effect.acquireRelease(
 *   Effect.map(EpollTransport.fromFd(3), (backing) => StreamSocket.make(backing)),
 *   (socket) => socket.close
 * )
 * ```
 *
 * @see `StreamSocket.detachFd` for the opposite
 * @category constructors
 * @since 0.1.0
 */
export const fromFd = (fd: number): Effect.Effect<Backing, SocketError> =>
  adopt("fromFd", fd, (reactor) => {
    const found = Descriptor.inspect(reactor.linux, "fromFd", fd, "connection")
    if (isSocketError(found)) return found
    return new EpollBacking(reactor, fd, found.remote, found.local, true)
  })

/**
 * Takes over a listening socket that other code has opened, such as one of
 * systemd's ({@link listenFds}). Completes with its backing.
 *
 * **Details**
 *
 * As {@link fromFd}, with `Acceptor.make`; fails with `Unsupported` for a socket
 * that does not listen. Accepted connections inherit the options of the socket.
 *
 * Closing the acceptor releases the address only if no other process has the same
 * socket. The file of a Unix-domain path stays: the program that created it removes
 * it.
 *
 * **Interruption**: none needed; it does not wait.
 *
 * **Example** (A server that systemd starts with its first connection)
 *
 * ```ts
 * const acceptor = yield* Effect.acquireRelease(
 *   Effect.gen(function*() {
 *     const [first] = yield* EpollTransport.listenFds
 *     return Acceptor.make(yield* EpollTransport.listenerFromFd(first?.fd ?? 3))
 *   }),
 *   (acceptor) => acceptor.close
 * )
 * ```
 *
 * @see `Acceptor.detachFd` for the opposite
 * @category constructors
 * @since 0.1.0
 */
export const listenerFromFd = (fd: number): Effect.Effect<ListenerBacking, SocketError> =>
  adopt("listenerFromFd", fd, (reactor) => {
    const found = Descriptor.inspect(reactor.linux, "listenerFromFd", fd, "listener")
    if (isSocketError(found)) return found
    return new EpollListener(reactor, fd, found.local, resolveOptions(undefined), true)
  })

/**
 * The descriptors that the service manager has passed to this process, as
 * `sd_listen_fds` of systemd defines them: from 3 on, each with the name that the
 * unit gives it (`FileDescriptorName=`; `"unknown"` without one).
 *
 * **Details**
 *
 * Empty for a process that a service manager has not started this way. Never fails.
 * The environment (`LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`) is read each time
 * and left unchanged; `LISTEN_PID` names this process, so a child ignores it.
 *
 * **Interruption**: none needed; it does not wait.
 *
 * @category getters
 * @since 0.1.0
 */
export const listenFds: Effect.Effect<ReadonlyArray<{ readonly fd: number; readonly name: string }>> = Effect.sync(() =>
  Descriptor.passedOn(process.env, process.pid)
)

// ---- internal

// One reactor for the process.
let theReactor: Reactor | undefined = undefined

const acquire = (operation: string): Effect.Effect<Reactor, SocketError> => {
  const reason = Support.unsupported()
  if (reason !== undefined) return Effect.fail(cannotRun(operation, reason))
  try {
    const reactor = theReactor ??= new Reactor(Linux.load())
    const used = reactor.use()
    return used < 0 ? Effect.fail(failure(operation, undefined, -used)) : Effect.succeed(reactor)
  } catch (cause) {
    return Effect.fail(cannotRun(operation, cause instanceof Error ? cause.message : String(cause), cause))
  }
}

const cannotRun = (operation: string, why: string, cause?: unknown): SocketError =>
  new SocketError({
    reason: Reason.Unsupported({ feature: `EpollTransport (${why}; use NodeTransport)` }),
    operation,
    transferred: 0,
    cause
  })

/** Registers a descriptor of the caller. After a failure the descriptor is unchanged. */
const adopt = <A extends Registered>(
  operation: string,
  fd: number,
  open: (reactor: Reactor) => A | SocketError
): Effect.Effect<A, SocketError> =>
  Effect.suspend(() => {
    if (!Number.isInteger(fd) || fd < 0 || fd > maxInt) {
      throw new RangeError(`EpollTransport.${operation}: ${fd} is not a descriptor`)
    }
    return Effect.flatMap(acquire(operation), (reactor): Effect.Effect<A, SocketError> => {
      try {
        if (reactor.has(fd)) {
          const reason = Reason.Busy({ detail: `a socket of this transport has descriptor ${fd}` })
          return Effect.fail(new SocketError({ reason, operation, transferred: 0 }))
        }
        const opened = open(reactor)
        if (isSocketError(opened)) return Effect.fail(opened)
        const registered = reactor.register(opened)
        if (registered < 0) return Effect.fail(failure(operation, undefined, -registered))
        const flagged = Math.min(reactor.linux.setNonBlocking(fd), reactor.linux.setCloseOnExec(fd))
        if (flagged >= 0) return Effect.succeed(opened)
        reactor.remove(opened)
        return Effect.fail(failure(operation, undefined, -flagged))
      } finally {
        reactor.release()
      }
    })
  })
