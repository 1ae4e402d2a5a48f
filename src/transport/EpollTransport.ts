/**
 * TCP and Unix-domain sockets straight from the Linux kernel: every count is
 * the kernel's, and no byte that was taken sits in this process.
 *
 * **Details**
 *
 * Needs Linux on x64 or arm64, the main thread, and the package `koffi` (an
 * optional peer dependency); {@link isSupported} says whether all of that is
 * there. One epoll descriptor serves every socket of the process.
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
 *   that are put together first may be of any memory.
 * - The process is kept alive by operations that wait, and not by idle sockets.
 * - Every option of connections and listeners is honoured.
 * - What one connection moves, and what one listener accepts, in one turn of the
 *   event loop is limited, so that others get theirs.
 *
 * @since 0.1.0
 */
import * as NodeAddressResolver from "@effect/platform-node/NodeAddressResolver"
import * as NodeDns from "@effect/platform-node/NodeDns"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as AddressResolver from "effect/net/AddressResolver"
import * as NetAddress from "effect/net/NetAddress"
import { Buffer } from "node:buffer"
import { unlinkSync } from "node:fs"
import type * as Buffers from "../Buffers.ts"
import { unsupported, unsupportedLocal } from "../internal/unsupported.ts"
import { fromErrno, isSocketError, Reason, SocketError } from "../SocketError.ts"
import {
  type Backing,
  type Events,
  type ListenerBacking,
  type ResolvedConnectOptions,
  type ResolvedListenOptions,
  type ResolvedOptions,
  resolveOptions,
  Transport,
  WouldBlock
} from "../Transport.ts"
import * as Descriptor from "./internal/descriptor.ts"
import * as Linux from "./internal/linux.ts"
import { broken, Reactor, type Registered } from "./internal/Reactor.ts"
import * as Support from "./internal/support.ts"

/**
 * Whether this process can use the transport. Has no side effects.
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
 * which says why; use `NodeTransport.layer` there.
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
 * options stay as they are, and `StreamSocket.configure` changes them.
 *
 * Fails with `Unsupported` where the transport cannot run, and for a descriptor
 * that is not open (`EBADF`), is no socket (`ENOTSOCK`), is not a TCP or
 * Unix-domain stream, listens, or is in use by this transport already; with
 * `NotConnected` for a socket that is not connected any more or not yet. After a
 * failure the descriptor is as it was, and the caller's. A number that is no
 * descriptor at all throws a `RangeError`.
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
 * @see `StreamSocket.release` for the opposite
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
 * @see `Acceptor.release` for the opposite
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
    if (!Number.isInteger(fd) || fd < 0 || fd > mostInt) {
      throw new RangeError(`EpollTransport.${operation}: ${fd} is not a descriptor`)
    }
    return Effect.flatMap(acquire(operation), (reactor): Effect.Effect<A, SocketError> => {
      try {
        if (reactor.has(fd)) return Effect.fail(Descriptor.refused(operation, fd, "is in use already", undefined))
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

const failure = (
  operation: string,
  address: NetAddress.SocketAddress | undefined,
  errno: number
): SocketError => {
  const code = Linux.errnoCode(errno)
  return fromErrno(Object.assign(new Error(`${operation}: ${code}`), { code }), { operation, address })
}

const familyOf = (address: NetAddress.SocketAddress): number =>
  NetAddress.isUnixPathAddress(address)
    ? Linux.AF_UNIX
    : NetAddress.isInetAddressV4(address)
    ? Linux.AF_INET
    : Linux.AF_INET6

/** Options in the form of `setsockopt`: what to call it, level, name and value. */
type Settings = ReadonlyArray<readonly [option: string, level: number, name: number, value: number]>

const bufferSettings = ({ receiveBuffer, sendBuffer }: ResolvedOptions): Settings => [
  ...setting("sendBuffer", Linux.SOL_SOCKET, Linux.SO_SNDBUF, sendBuffer),
  ...setting("receiveBuffer", Linux.SOL_SOCKET, Linux.SO_RCVBUF, receiveBuffer)
]

const tcpSettings = ({ keepAlive, noDelay, userTimeout }: Partial<ResolvedOptions>): Settings => {
  const { IPPROTO_TCP, SOL_SOCKET } = Linux
  const probes = typeof keepAlive === "object" ? keepAlive : undefined
  return [
    ...setting("noDelay", IPPROTO_TCP, Linux.TCP_NODELAY, toInt(noDelay)),
    ...setting("keepAlive", SOL_SOCKET, Linux.SO_KEEPALIVE, toInt(probes === undefined ? keepAlive : true)),
    ...setting("keepAlive.idle", IPPROTO_TCP, Linux.TCP_KEEPIDLE, probes && Duration.toSeconds(probes.idle)),
    ...setting("keepAlive.interval", IPPROTO_TCP, Linux.TCP_KEEPINTVL, probes && Duration.toSeconds(probes.interval)),
    ...setting("keepAlive.count", IPPROTO_TCP, Linux.TCP_KEEPCNT, probes?.count),
    ...setting(
      "userTimeout",
      IPPROTO_TCP,
      Linux.TCP_USER_TIMEOUT,
      // 0 would be no time-out at all.
      userTimeout && Math.max(1, Math.ceil(Duration.toMillis(userTimeout)))
    )
  ]
}

const setting = (option: string, level: number, name: number, value: unknown): Settings =>
  typeof value === "number" ? [[option, level, name, Math.min(mostInt, value)]] : []

const toInt = (flag: unknown): number | undefined => typeof flag === "boolean" ? Number(flag) : undefined

/** The error of the first one that the kernel refuses. */
const setAll = (
  { linux }: Reactor,
  fd: number,
  settings: Settings,
  operation: string,
  address: NetAddress.SocketAddress
): SocketError | undefined => {
  for (const [option, level, name, value] of settings) {
    const answer = linux.setInt(fd, level, name, value)
    if (answer === -Linux.ENOPROTOOPT) return unsupported(operation, address, `${option} on this kernel`)
    if (answer < 0) return failure(operation, address, -answer)
  }
  return undefined
}

const connect = (
  reactor: Reactor,
  address: NetAddress.SocketAddress,
  options: ResolvedConnectOptions
): Effect.Effect<Backing, SocketError> =>
  Effect.callback((resume) => {
    const feature = unsupportedLocal(address, options.localAddress)
    const refused = badPath("connect", address) ??
      (feature === undefined ? undefined : unsupported("connect", address, feature))
    if (refused !== undefined) {
      resume(Effect.fail(refused))
      return
    }
    const attempt = new ConnectAttempt(reactor, address, options, resume)
    attempt.start()
    return Effect.sync(() => attempt.cancel())
  })

/** A connection that is being made. */
class ConnectAttempt implements Registered {
  fd = -1
  private readonly reactor: Reactor
  private readonly address: NetAddress.SocketAddress
  private readonly options: ResolvedConnectOptions
  private readonly resume: (result: Effect.Effect<Backing, SocketError>) => void
  private isPending = false
  private retry: NodeJS.Timeout | undefined = undefined

  constructor(
    reactor: Reactor,
    address: NetAddress.SocketAddress,
    options: ResolvedConnectOptions,
    resume: (result: Effect.Effect<Backing, SocketError>) => void
  ) {
    this.reactor = reactor
    this.address = address
    this.options = options
    this.resume = resume
  }

  start(): void {
    const { address, options, reactor } = this
    this.fd = reactor.linux.socket(familyOf(address))
    if (this.fd < 0) {
      this.resume(Effect.fail(failure("connect", address, -this.fd)))
      return
    }
    const isUnix = NetAddress.isUnixPathAddress(address)
    const settings = [...bufferSettings(options), ...(isUnix ? [] : tcpSettings(options))]
    const refused = setAll(reactor, this.fd, settings, "connect", address)
    if (refused === undefined) this.bind()
    else this.refuse(refused)
  }

  private bind(): void {
    const { linux } = this.reactor
    const { localAddress } = this.options
    if (localAddress !== undefined) {
      // A port that is to be any is chosen when the target is known, so that there are as many as targets allow.
      linux.setInt(this.fd, Linux.IPPROTO_IP, Linux.IP_BIND_ADDRESS_NO_PORT, 1)
      // A port of a connection that is over can be used again, as over `node:net`.
      linux.setInt(this.fd, Linux.SOL_SOCKET, Linux.SO_REUSEADDR, 1)
      const bound = linux.bind(this.fd, Linux.encodeAddress(localAddress))
      if (bound < 0) {
        this.fail(-bound)
        return
      }
    }
    this.attempt()
  }

  onEvents(flags: number): void {
    if (!this.isPending) return
    const errno = this.reactor.linux.takeError(this.fd)
    if (errno === 0 && (flags & (Linux.EPOLLOUT | broken)) === 0) return
    this.settle()
    if (errno === 0) this.succeed(flags)
    else this.fail(errno)
  }

  cancel(): void {
    clearTimeout(this.retry)
    if (this.isPending) this.settle()
    this.release()
  }

  private attempt(): void {
    const connected = this.reactor.linux.connect(this.fd, Linux.encodeAddress(this.address))
    // A Unix-domain listener whose backlog is full has no event for that.
    if (connected === -Linux.EAGAIN) {
      this.retry = setTimeout(() => this.attempt(), connectRetry)
      return
    }
    if (connected < 0 && connected !== -Linux.EINPROGRESS && connected !== -Linux.EINTR) {
      this.fail(-connected)
      return
    }
    const registered = this.reactor.register(this)
    if (registered < 0) this.fail(-registered)
    else if (connected === 0) this.succeed(0)
    else {
      this.isPending = true
      this.reactor.owe()
    }
  }

  private settle(): void {
    this.isPending = false
    this.reactor.settle()
  }

  /** What the event of the connection says besides, nobody says again: the peer may have ended already. */
  private succeed(flags: number): void {
    const { fd } = this
    this.fd = -1
    const backing = new EpollBacking(this.reactor, fd, this.address, undefined, false)
    backing.note(flags)
    this.reactor.hand(backing)
    this.resume(Effect.succeed(backing))
  }

  private fail(errno: number): void {
    this.refuse(failure("connect", this.address, errno))
  }

  private refuse(error: SocketError): void {
    this.release()
    this.resume(Effect.fail(error))
  }

  private release(): void {
    if (this.fd < 0) return
    this.reactor.unregister(this)
    this.reactor.linux.close(this.fd)
    this.fd = -1
  }
}

const listen = (
  reactor: Reactor,
  address: NetAddress.SocketAddress,
  options: ResolvedListenOptions
): Effect.Effect<ListenerBacking, SocketError> =>
  Effect.suspend((): Effect.Effect<ListenerBacking, SocketError> => {
    const refused = badPath("listen", address)
    if (refused !== undefined) return Effect.fail(refused)
    const { linux } = reactor
    const fd = linux.socket(familyOf(address))
    if (fd < 0) return Effect.fail(failure("listen", address, -fd))
    const give = (error: SocketError): Effect.Effect<never, SocketError> => {
      linux.close(fd)
      return Effect.fail(error)
    }
    const isUnix = NetAddress.isUnixPathAddress(address)
    const unset = setAll(
      reactor,
      fd,
      // Accepted connections inherit all of them, over TCP.
      [
        ...bufferSettings(options),
        ...(isUnix ? [] : tcpSettings(options)),
        ...setting("reusePort", Linux.SOL_SOCKET, Linux.SO_REUSEPORT, !isUnix && options.reusePort ? 1 : undefined)
      ],
      "listen",
      address
    )
    if (unset !== undefined) return give(unset)
    if (!isUnix) linux.setInt(fd, Linux.SOL_SOCKET, Linux.SO_REUSEADDR, 1)
    if (NetAddress.isInetAddressV6(address)) {
      linux.setInt(fd, Linux.IPPROTO_IPV6, Linux.IPV6_V6ONLY, options.ipv6Only ? 1 : 0)
    }
    const bound = linux.bind(fd, Linux.encodeAddress(address))
    if (bound < 0) return give(failure("listen", address, -bound))
    const listening = linux.listen(fd, options.backlog)
    if (listening < 0) return give(failure("listen", address, -listening))
    const listener = new EpollListener(reactor, fd, address, options, false)
    const registered = reactor.register(listener)
    return registered < 0 ? give(failure("listen", address, -registered)) : Effect.succeed(listener)
  })

class EpollListener implements ListenerBacking, Registered {
  fd: number
  readonly address: NetAddress.SocketAddress
  private readonly reactor: Reactor
  private readonly options: ResolvedOptions
  private readonly path: string | undefined
  private acceptable: () => void = ignore
  private isOwed = false
  /** Accepted since the last event. */
  private taken = 0
  /** Others may have the same socket, in this process or another one. */
  private readonly isShared: boolean

  constructor(
    reactor: Reactor,
    fd: number,
    address: NetAddress.SocketAddress,
    options: ResolvedOptions,
    isShared: boolean
  ) {
    this.reactor = reactor
    this.options = options
    this.fd = fd
    this.address = NetAddress.isUnixPathAddress(address) ? address : reactor.linux.localAddress(fd) ?? address
    this.path = NetAddress.isUnixPathAddress(address) && !address.path.startsWith("\0") && !isShared
      ? address.path
      : undefined
    this.isShared = isShared
  }

  attach(events: { readonly acceptable: () => void }): void {
    this.acceptable = events.acceptable
  }

  accept(): Backing | typeof WouldBlock | SocketError {
    const { linux } = this.reactor
    while (this.taken < mostAccepted) {
      this.taken++
      const fd = linux.accept(this.fd)
      if (fd >= 0) return this.opened(fd, linux.accepted())
      if (fd === -Linux.EAGAIN) {
        this.taken--
        if (!this.isOwed) {
          this.isOwed = true
          this.reactor.owe()
        }
        return WouldBlock
      }
      if (!passing.has(-fd)) return failure("accept", this.address, -fd)
    }
    if (this.taken === mostAccepted) {
      this.taken++
      this.reactor.again(this)
    }
    return WouldBlock
  }

  onEvents(): void {
    this.taken = 0
    this.settle()
    this.acceptable()
  }

  close(): void {
    this.settle()
    // Before the descriptor goes: afterwards the path may be that of another listener.
    if (this.path !== undefined) {
      try {
        unlinkSync(this.path)
      } catch {
        // Somebody else has removed it, or may not let us.
      }
    }
    if (this.isShared) this.reactor.remove(this)
    else this.reactor.unregister(this)
    this.reactor.linux.close(this.fd)
    this.fd = -1
  }

  idle(): void {
    this.settle()
  }

  detach(): number {
    this.settle()
    this.reactor.remove(this)
    const { fd } = this
    this.fd = -1
    return fd
  }

  private settle(): void {
    if (!this.isOwed) return
    this.isOwed = false
    this.reactor.settle()
  }

  private opened(fd: number, remote: NetAddress.SocketAddress): Backing | SocketError {
    const { address, reactor } = this
    // Only there, nothing is inherited. The listener's own descriptor has taken the same already.
    if (NetAddress.isUnixPathAddress(address)) {
      setAll(reactor, fd, bufferSettings(this.options), "accept", address)
    }
    const backing = new EpollBacking(
      reactor,
      fd,
      remote,
      NetAddress.isUnixPathAddress(address) || !NetAddress.isUnspecified(address.address) ? address : undefined,
      false
    )
    const registered = reactor.register(backing)
    if (registered === 0) return backing
    reactor.linux.close(fd)
    return failure("accept", address, -registered)
  }
}

class EpollBacking implements Backing, Registered {
  fd: number
  readonly remoteAddress: NetAddress.SocketAddress
  private local: NetAddress.SocketAddress | undefined
  private readonly reactor: Reactor
  private events: Events = deaf
  // What the kernel was last known to answer, so that it is not asked twice.
  private isDrained = false
  private isFull = false
  /**
   * A read that brings less than there was room for has emptied the connection, unless something stands in between: the
   * end of the stream, TCP's urgent data, or (nothing tells of it) descriptors that were sent along a Unix-domain path.
   */
  private asksTwice: boolean
  // What may be moved until the next event.
  private readsLeft = perTurn
  private writesLeft = perTurn
  private isWaitingForTurn = false
  // Whether the reactor has been told that somebody waits.
  private owesRead = false
  private owesWrite = false
  /** The connection is broken: writing has failed, and so does reading, behind what has arrived. */
  private error: SocketError | undefined = undefined
  private writeError: SocketError | undefined = undefined
  private phase: "open" | "closing" | "closed" = "open"
  /** Others may have the same socket, in this process or another one. */
  private readonly isShared: boolean

  constructor(
    reactor: Reactor,
    fd: number,
    remote: NetAddress.SocketAddress,
    local: NetAddress.SocketAddress | undefined,
    isShared: boolean
  ) {
    this.reactor = reactor
    this.fd = fd
    this.remoteAddress = remote
    this.local = local
    this.isShared = isShared
    this.asksTwice = NetAddress.isUnixPathAddress(remote)
  }

  get localAddress(): NetAddress.SocketAddress {
    return this.local ??= (this.phase === "closed" ? undefined : this.reactor.linux.localAddress(this.fd)) ??
      NetAddress.unixPathAddress("")
  }

  attach(events: Events): void {
    this.events = events
  }

  read(target: Uint8Array): number | SocketError {
    const { linux } = this.reactor
    while (!this.isDrained) {
      if (this.readsLeft <= 0) return this.waitForTurn()
      const most = Math.min(target.byteLength, this.readsLeft)
      const count = linux.recv(this.fd, target, most)
      if (count > 0) {
        this.readsLeft -= count + perCall
        this.isDrained = count < most && !this.asksTwice
        return count
      }
      if (count === 0) return this.error ?? 0
      if (count === -Linux.EINTR) continue
      if (count !== -Linux.EAGAIN) return this.error ??= failure("socket", this.remoteAddress, -count)
      if (this.error !== undefined) return this.error
      this.isDrained = true
    }
    if (!this.owesRead) {
      this.owesRead = true
      this.reactor.owe()
    }
    return WouldBlock
  }

  write(source: Buffers.Cursor, limit: number): number | SocketError {
    if (this.writeError !== undefined) return this.writeError
    const { linux } = this.reactor
    const most = Math.min(limit, source.remaining, Math.max(1, this.writesLeft))
    const first = source.chunk(most)
    if (first.byteLength < source.remaining && source.transferred === 0) assertFixed(source, most)
    while (!this.isFull) {
      if (this.writesLeft <= 0) return this.waitForTurn()
      const count = first.byteLength === most ? linux.send(this.fd, first) : this.sendPieces(source, most)
      if (count >= 0) {
        this.writesLeft -= count + perCall
        return count
      }
      if (count === -Linux.EINTR) continue
      if (count !== -Linux.EAGAIN) return this.fail(-count)
      this.isFull = true
    }
    if (!this.owesWrite) {
      this.owesWrite = true
      this.reactor.owe()
    }
    return WouldBlock
  }

  /** Large pieces leave from where they are, by one call; small ones are put together first, which costs less. */
  private sendPieces(source: Buffers.Cursor, most: number): number {
    const { linux } = this.reactor
    const pieces = source.pieces(most, Linux.mostPieces)
    let gathered = 0
    let length = 0
    for (let i = 0; i < pieces.length; i++) {
      length += pieces[i]?.byteLength ?? 0
      if (length >= (i + 1) * gatheredFrom) gathered = i + 1
    }
    // Either all of what fits into the scratch, or none: then nothing is left that could still be refused.
    if (gathered === pieces.length || (gathered > 0 && source.remaining > scratch.byteLength)) {
      return linux.sendAll(this.fd, pieces, gathered)
    }
    const copied = source.copyTo(scratch.subarray(0, Math.min(most, scratch.byteLength)))
    return linux.send(this.fd, scratch.subarray(0, copied))
  }

  shutdownWrite(): number | SocketError {
    if (this.writeError !== undefined) return this.writeError
    const { linux } = this.reactor
    const done = linux.shutdownWrite(this.fd)
    if (done === 0) return 0
    // The connection is gone, and the kernel may still know why.
    return this.fail(linux.takeError(this.fd) || -done)
  }

  close(): void {
    if (this.phase !== "open") {
      if (this.phase === "closed") this.events.closed()
      return
    }
    this.phase = "closing"
    const { linux } = this.reactor
    // Everything taken is the kernel's already, and goes on its way behind a closed descriptor. Only unread input would
    // turn FIN into a reset: if there is any, the peer's end of stream is awaited.
    linux.shutdownWrite(this.fd)
    if (this.discard() === "nothing") this.release()
    else this.onClosing()
  }

  abort(): void {
    if (this.phase === "closed") {
      this.events.closed()
      return
    }
    this.phase = "closing"
    if (!NetAddress.isUnixPathAddress(this.remoteAddress)) this.reactor.linux.setReset(this.fd)
    this.release()
  }

  idle(direction: "read" | "write"): void {
    // Closing waits by itself.
    if (this.phase !== "open") return
    if (direction === "read") this.settleRead()
    else this.settleWrite()
  }

  detach(): number {
    void this.localAddress
    this.phase = "closed"
    this.settleRead()
    this.settleWrite()
    this.reactor.remove(this)
    const { fd } = this
    this.fd = -1
    return fd
  }

  configure(options: Partial<ResolvedOptions>): SocketError | undefined {
    return NetAddress.isUnixPathAddress(this.remoteAddress)
      ? undefined
      : setAll(this.reactor, this.fd, tcpSettings(options), "configure", this.remoteAddress)
  }

  /** Takes in what an event says. */
  note(flags: number): void {
    this.readsLeft = this.writesLeft = perTurn
    this.isWaitingForTurn = false
    if ((flags & (Linux.EPOLLRDHUP | Linux.EPOLLPRI | broken)) !== 0) this.asksTwice = true
    if ((flags & (Linux.EPOLLIN | Linux.EPOLLPRI | Linux.EPOLLRDHUP | broken)) !== 0) {
      this.isDrained = false
      this.settleRead()
    }
    if ((flags & (Linux.EPOLLOUT | broken)) !== 0) {
      this.isFull = false
      this.settleWrite()
    }
  }

  onEvents(flags: number): void {
    if (this.phase === "closing") {
      this.isWaitingForTurn = false
      this.onClosing()
      return
    }
    this.note(flags)
    if ((flags & Linux.EPOLLERR) !== 0) {
      const errno = this.reactor.linux.takeError(this.fd)
      if (errno !== 0) this.fail(errno)
    }
    if (this.writeError !== undefined) {
      this.events.failed(this.writeError)
      return
    }
    if (!this.isDrained) this.events.readable()
    // A woken reader may have ended everything.
    if (this.isOpen() && !this.isFull) this.events.writable()
  }

  /** The kernel tells of a failure once; a broken pipe leaves what has arrived and its end to the reader. */
  private fail(errno: number): SocketError {
    const error = failure("socket", this.remoteAddress, errno)
    if (errno !== Linux.EPIPE) this.error ??= error
    return this.writeError ??= error
  }

  // A call, because the compiler cannot know what a woken fiber does to `phase`.
  private isOpen(): boolean {
    return this.phase === "open"
  }

  private onClosing(): void {
    if (this.discard() === "end") {
      this.release()
      return
    }
    if (!this.owesRead) {
      this.owesRead = true
      this.reactor.owe()
    }
  }

  /** Throws unread input away, and answers whether there was none, some, or the end of the stream. */
  private discard(): "nothing" | "some" | "end" {
    const { linux } = this.reactor
    let found: "nothing" | "some" = "nothing"
    for (let left = perTurn; left > 0;) {
      const count = linux.recv(this.fd, scratch, scratch.byteLength)
      if (count > 0) {
        found = "some"
        left -= count + perCall
      } else if (count === -Linux.EAGAIN) return found
      else if (count !== -Linux.EINTR) return "end"
    }
    this.waitForTurn()
    return found
  }

  /** It has moved enough for this turn; the next one is an event. */
  private waitForTurn(): typeof WouldBlock {
    if (!this.isWaitingForTurn) {
      this.isWaitingForTurn = true
      this.reactor.again(this)
    }
    return WouldBlock
  }

  private release(): void {
    if (this.phase === "closed") return
    // Asked once now: afterwards nobody knows.
    void this.localAddress
    this.phase = "closed"
    this.settleRead()
    this.settleWrite()
    if (this.isShared) this.reactor.remove(this)
    else this.reactor.unregister(this)
    this.reactor.linux.close(this.fd)
    this.fd = -1
    this.events.closed()
  }

  private settleRead(): void {
    if (!this.owesRead) return
    this.owesRead = false
    this.reactor.settle()
  }

  private settleWrite(): void {
    if (!this.owesWrite) return
    this.owesWrite = false
    this.reactor.settle()
  }
}

// One call at a time uses it.
const scratch = new Uint8Array(65_536)

// Bytes that pieces must have on the average, so that telling the kernel their addresses costs less than copying them.
const gatheredFrom = 4096

// Bytes that a connection may move before the others have their turn; a call counts as some, so that tiny ones end too.
const perTurn = 1024 * 1024
const perCall = 1024

/** The whole of what takes several calls, once: what is refused is refused before anything of it has left. */
const assertFixed = (source: Buffers.Cursor, most: number): void => {
  if (source.remaining <= most && most <= scratch.byteLength) return
  for (const piece of source.pieces()) {
    if (piece.byteLength >= gatheredFrom) Linux.assertFixed(piece)
  }
}

const mostAccepted = 64

// Of a connection that was gone before it was accepted, or that met a network error on its way here.
const passing: ReadonlySet<number> = new Set([
  Linux.EINTR,
  Linux.ECONNABORTED,
  Linux.EHOSTDOWN,
  Linux.EHOSTUNREACH,
  Linux.ENETDOWN,
  Linux.ENETUNREACH,
  Linux.ENONET,
  Linux.ENOPROTOOPT,
  Linux.EOPNOTSUPP,
  Linux.EPROTO
])

const mostInt = 2 ** 31 - 1

const connectRetry = 5

const ignore = (): void => {}

const deaf: Events = { readable: ignore, writable: ignore, failed: ignore, closed: ignore }

const badPath = (operation: string, address: NetAddress.SocketAddress): SocketError | undefined => {
  if (!NetAddress.isUnixPathAddress(address)) return undefined
  const { path } = address
  const isAbstract = path.startsWith("\0")
  const limit = isAbstract ? Linux.mostPathBytes : Linux.mostPathBytes - 1
  if (Buffer.byteLength(path) > limit) {
    return new SocketError({
      reason: Reason.LimitExceeded({ limit, subject: "the path" }),
      operation,
      address,
      transferred: 0,
      code: "ENAMETOOLONG"
    })
  }
  // The kernel would take the part before the zero.
  return path === "" || (!isAbstract && path.includes("\0"))
    ? new SocketError({ reason: Reason.AddressNotAvailable(), operation, address, transferred: 0, code: "ENOENT" })
    : undefined
}
