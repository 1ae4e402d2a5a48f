/**
 * TCP and Unix-domain sockets straight from the Linux kernel: every count is
 * the kernel's, and no byte that was taken sits in this process.
 *
 * **Details**
 *
 * Needs Linux on x64 or arm64, the main thread, and the package `koffi` (an
 * optional peer dependency: `npm install koffi`); {@link isSupported} says
 * whether all of that is there. One epoll descriptor serves every socket of the
 * process.
 *
 * - A write hands the caller's own memory to the kernel, which copies it. Of a
 *   gather list, up to 64 pieces leave by one system call while they have 4 KiB
 *   or more on the average; smaller ones are first put together, up to 64 KiB
 *   of them, which costs less. What the kernel does not take stays with the
 *   caller.
 * - A read goes straight into the caller's memory.
 * - The kernel is shown no memory whose size can change. To write a view of a
 *   resizable `ArrayBuffer` or a growable `SharedArrayBuffer`, or to read into
 *   one, is a defect (`TypeError`), and nothing is moved. Pieces of a gather list
 *   that have less than 4 KiB may be of any memory: those are copied.
 * - The process is kept alive by operations that wait, and not by idle sockets.
 * - Every option of connections and listeners is honoured.
 * - A Unix-domain path that begins with a zero byte is a name of Linux's abstract
 *   namespace, with up to 107 bytes behind it: no file is made, everybody on the
 *   machine may connect, and it is free again when its listener is closed.
 * - Node's permission model ends where native code begins: who runs with
 *   `--allow-addons` is not asked for `--allow-net`.
 * - A worker of `node:cluster` listens for itself, as that shares the listeners of
 *   `node:net` only: let processes share an address with `reusePort`, or a listener
 *   that their parent has opened ({@link listenerFromFd}).
 * - What one connection moves, and what one listener accepts, in one turn of the
 *   event loop is limited, so that others get theirs.
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
 * Whether this process can use the transport, from here: a worker thread cannot.
 *
 * **Details**
 *
 * Has no side effects: nothing is loaded or opened. So it cannot know of a `koffi`
 * that is there and does not load (no binary for this system), where the layer
 * fails nevertheless.
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
 * Takes over a connected stream socket that was opened elsewhere: inherited from
 * a parent process, or opened by native code.
 *
 * **Details**
 *
 * Needs no layer. The descriptor belongs to the backing from then on: make a
 * stream of it with `StreamSocket.make`, and close that. It becomes non-blocking
 * (as it does for everybody who has the same socket) and close-on-exec; its other
 * options stay as they are, and `StreamSocket.configure` changes them. Only
 * `SO_LINGER` is turned off by `close`, which would block the process otherwise.
 *
 * Fails with `Unsupported` where the transport cannot run, and for a descriptor
 * that is not open (`EBADF`), is no socket (`ENOTSOCK`), is not a TCP or
 * Unix-domain stream, or listens; with `Busy` where a socket of this transport
 * has it already, and with `NotConnected` for a socket that is not connected any
 * more or not yet. After a failure the descriptor is as it was, and the caller's.
 * A number that is no descriptor at all throws a `RangeError`.
 *
 * **Gotchas**
 *
 * Nobody else in this process may use the descriptor or close it: a number that
 * is used again is another socket's. Where another process has the same socket,
 * `close` still ends the connection for both, and `abort` resets it only when
 * the last of them has closed it.
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
 * Takes over a listening socket that was opened elsewhere, such as one of
 * systemd's ({@link listenFds}).
 *
 * **Details**
 *
 * As {@link fromFd}, with `Acceptor.make`; fails with `Unsupported` for a socket
 * that does not listen. Connections inherit the options that the socket has.
 *
 * Closing it here releases the address only where nobody else has the same
 * socket. A Unix-domain path stays: it is removed by whoever made it.
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
 * The descriptors that the service manager has opened for this process and
 * passed on to it, as `sd_listen_fds` of systemd tells them: from 3 on, each
 * with the name that the unit gives it (`FileDescriptorName=`; `"unknown"`
 * where none was passed).
 *
 * **Details**
 *
 * Empty for a process that was started in another way. The environment
 * (`LISTEN_PID`, `LISTEN_FDS`, `LISTEN_FDNAMES`) is read each time and stays as
 * it is; as `LISTEN_PID` names this process, no child takes it for its own.
 *
 * @category getters
 * @since 0.1.0
 */
export const listenFds: Effect.Effect<ReadonlyArray<{ readonly fd: number; readonly name: string }>> = Effect.sync(() =>
  Descriptor.passedOn(process.env, process.pid)
)

// ---- internal

// One for the process.
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

/** Puts a descriptor of the caller's under the reactor; what fails leaves it alone. */
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
