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
 * - A write hands the caller's own memory to the kernel, which copies it; small
 *   pieces of a gather list are put together first. What the kernel does not
 *   take stays with the caller.
 * - A read goes straight into the caller's memory.
 * - The process is kept alive by operations that wait, and not by idle sockets.
 *   An operation that was cancelled counts as waiting until its socket is closed
 *   or becomes ready.
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
import { rmSync } from "node:fs"
import type * as Buffers from "../Buffers.ts"
import { fromErrno, Reason, SocketError } from "../SocketError.ts"
import {
  type Backing,
  type Events,
  type ListenerBacking,
  type ResolvedListenOptions,
  type ResolvedOptions,
  Transport,
  WouldBlock
} from "../Transport.ts"
import * as Linux from "./internal/linux.ts"
import { broken, Reactor, type Registered } from "./internal/Reactor.ts"

/**
 * Whether this process can use the transport. Has no side effects.
 *
 * @category guards
 * @since 0.1.0
 */
export const isSupported = (): boolean => Linux.unsupported() === undefined

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
      Effect.acquireRelease(Effect.suspend(() => acquire()), (reactor) => Effect.sync(() => reactor.release())),
      (reactor) => ({
        name: "epoll",
        connect: (address, options) => connect(reactor, address, options),
        listen: (address, options) => listen(reactor, address, options)
      })
    )
  ),
  Layer.provide(NodeAddressResolver.layer, NodeDns.layer)
)

// ---- internal

let theLinux: Linux.Linux | undefined = undefined

// One for the process, from its first user to its last.
let theReactor: Reactor | undefined = undefined

const acquire = (): Effect.Effect<Reactor, SocketError> => {
  const reason = Linux.unsupported()
  if (reason !== undefined) return Effect.fail(unsupported(reason))
  try {
    const reactor = theReactor ??= new Reactor(theLinux ??= Linux.load(), () => {
      theReactor = undefined
    })
    reactor.use()
    return Effect.succeed(reactor)
  } catch (cause) {
    return Effect.fail(unsupported(cause instanceof Error ? cause.message : String(cause), cause))
  }
}

const unsupported = (why: string, cause?: unknown): SocketError =>
  new SocketError({
    reason: Reason.Unsupported({ feature: `EpollTransport (${why}; use NodeTransport)` }),
    operation: "EpollTransport.layer",
    transferred: 0,
    cause
  })

const failure = (
  { linux }: Reactor,
  operation: string,
  address: NetAddress.SocketAddress,
  errno: number = linux.errno()
): SocketError => {
  const code = linux.errnoCode(errno)
  return fromErrno(Object.assign(new Error(`${operation}: ${code}`), { code }), { operation, address })
}

const familyOf = (address: NetAddress.SocketAddress): number =>
  NetAddress.isUnixPathAddress(address)
    ? Linux.AF_UNIX
    : NetAddress.isInetAddressV4(address)
    ? Linux.AF_INET
    : Linux.AF_INET6

const connect = (
  reactor: Reactor,
  address: NetAddress.SocketAddress,
  options: ResolvedOptions
): Effect.Effect<Backing, SocketError> =>
  Effect.callback((resume) => {
    const refused = badPath("connect", address)
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
  private readonly options: ResolvedOptions
  private readonly resume: (result: Effect.Effect<Backing, SocketError>) => void
  private isPending = false
  private retry: NodeJS.Timeout | undefined = undefined

  constructor(
    reactor: Reactor,
    address: NetAddress.SocketAddress,
    options: ResolvedOptions,
    resume: (result: Effect.Effect<Backing, SocketError>) => void
  ) {
    this.reactor = reactor
    this.address = address
    this.options = options
    this.resume = resume
  }

  start(): void {
    const { linux } = this.reactor
    this.fd = linux.socket(familyOf(this.address))
    if (this.fd < 0) {
      this.resume(Effect.fail(failure(this.reactor, "connect", this.address)))
      return
    }
    if (!NetAddress.isUnixPathAddress(this.address)) setOptions(this.reactor, this.fd, this.options)
    this.attempt()
  }

  onEvents(): void {
    if (!this.isPending) return
    this.settle()
    const errno = this.reactor.linux.takeError(this.fd)
    if (errno === 0) this.succeed()
    else this.fail(errno)
  }

  cancel(): void {
    clearTimeout(this.retry)
    if (this.isPending) this.settle()
    this.release()
  }

  private attempt(): void {
    const { linux } = this.reactor
    const isDone = linux.connect(this.fd, Linux.encodeAddress(this.address)) === 0
    const errno = isDone ? 0 : linux.errno()
    // A Unix-domain listener whose backlog is full has no event for that.
    if (errno === Linux.EAGAIN) {
      this.retry = setTimeout(() => this.attempt(), connectRetry)
      return
    }
    if (!isDone && errno !== Linux.EINPROGRESS) {
      this.fail(errno)
      return
    }
    const registering = this.reactor.register(this)
    if (registering !== 0) this.fail(registering)
    else if (isDone) this.succeed()
    else {
      this.isPending = true
      this.reactor.owe()
    }
  }

  private settle(): void {
    this.isPending = false
    this.reactor.settle()
  }

  private succeed(): void {
    const { fd } = this
    this.fd = -1
    const backing = new EpollBacking(this.reactor, fd, this.address, undefined)
    this.reactor.hand(backing)
    this.resume(Effect.succeed(backing))
  }

  private fail(errno: number): void {
    const error = failure(this.reactor, "connect", this.address, errno)
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
    if (fd < 0) return Effect.fail(failure(reactor, "listen", address))
    const give = (errno?: number): Effect.Effect<never, SocketError> => {
      const error = failure(reactor, "listen", address, errno)
      linux.close(fd)
      return Effect.fail(error)
    }
    if (!NetAddress.isUnixPathAddress(address)) linux.setReuseAddress(fd)
    if (NetAddress.isInetAddressV6(address)) linux.setIpv6Only(fd, options.ipv6Only)
    if (linux.bind(fd, Linux.encodeAddress(address)) < 0) return give()
    if (linux.listen(fd, options.backlog) < 0) return give()
    const listener = new EpollListener(reactor, fd, address, options)
    const errno = reactor.register(listener)
    return errno === 0 ? Effect.succeed(listener) : give(errno)
  })

class EpollListener implements ListenerBacking, Registered {
  readonly fd: number
  readonly address: NetAddress.SocketAddress
  private readonly reactor: Reactor
  private readonly options: ResolvedListenOptions
  private readonly path: string | undefined
  private acceptable: () => void = ignore
  private isOwed = false

  constructor(
    reactor: Reactor,
    fd: number,
    address: NetAddress.SocketAddress,
    options: ResolvedListenOptions
  ) {
    this.reactor = reactor
    this.fd = fd
    this.options = options
    this.address = NetAddress.isUnixPathAddress(address) ? address : reactor.linux.localAddress(fd) ?? address
    this.path = NetAddress.isUnixPathAddress(address) && !address.path.startsWith("\0") ? address.path : undefined
  }

  attach(events: { readonly acceptable: () => void }): void {
    this.acceptable = events.acceptable
  }

  accept(): Backing | typeof WouldBlock | SocketError {
    const { linux } = this.reactor
    for (;;) {
      const fd = linux.accept(this.fd)
      if (fd >= 0) return this.opened(fd, linux.accepted())
      const errno = linux.errno()
      // A connection that was gone before it was taken is nobody's business.
      if (errno === Linux.EINTR || errno === Linux.ECONNABORTED) continue
      if (errno !== Linux.EAGAIN) return failure(this.reactor, "accept", this.address, errno)
      if (!this.isOwed) {
        this.isOwed = true
        this.reactor.owe()
      }
      return WouldBlock
    }
  }

  onEvents(): void {
    this.settle()
    this.acceptable()
  }

  close(): void {
    this.settle()
    this.reactor.unregister(this)
    this.reactor.linux.close(this.fd)
    if (this.path !== undefined) rmSync(this.path, { force: true })
  }

  private settle(): void {
    if (!this.isOwed) return
    this.isOwed = false
    this.reactor.settle()
  }

  private opened(fd: number, remote: NetAddress.SocketAddress): Backing | SocketError {
    const { address, reactor } = this
    if (!NetAddress.isUnixPathAddress(address)) setOptions(reactor, fd, this.options)
    const backing = new EpollBacking(
      reactor,
      fd,
      remote,
      NetAddress.isUnixPathAddress(address) || !NetAddress.isUnspecified(address.address) ? address : undefined
    )
    const errno = reactor.register(backing)
    if (errno === 0) return backing
    reactor.linux.close(fd)
    return failure(reactor, "accept", address, errno)
  }
}

class EpollBacking implements Backing, Registered {
  readonly fd: number
  readonly remoteAddress: NetAddress.SocketAddress
  private local: NetAddress.SocketAddress | undefined
  private readonly reactor: Reactor
  private events: Events = deaf
  // What the kernel was last known to answer, so that it is not asked twice.
  private isDrained = false
  private isFull = false
  // Whether the reactor has been told that somebody waits.
  private owesRead = false
  private owesWrite = false
  /** The peer has ended its direction, or the connection is broken: no edge will follow for what is left to read. */
  private seesEnd = false
  /** The connection is broken: writing has failed, and so does reading, behind what has arrived. */
  private error: SocketError | undefined = undefined
  private writeError: SocketError | undefined = undefined
  private phase: "open" | "closing" | "closed" = "open"

  constructor(
    reactor: Reactor,
    fd: number,
    remote: NetAddress.SocketAddress,
    local: NetAddress.SocketAddress | undefined
  ) {
    this.reactor = reactor
    this.fd = fd
    this.remoteAddress = remote
    this.local = local
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
      const count = linux.recv(this.fd, target)
      if (count > 0) {
        this.isDrained = count < target.byteLength && !this.seesEnd
        return count
      }
      if (count === 0) return this.error ?? 0
      const errno = linux.errno()
      if (errno === Linux.EINTR) continue
      if (errno !== Linux.EAGAIN) return this.error ??= failure(this.reactor, "socket", this.remoteAddress, errno)
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
    const most = Math.min(limit, source.remaining, mostAtOnce)
    const first = source.chunk(most)
    // A large piece leaves from where it is; small ones are put together for one call.
    const bytes = first.byteLength === most || first.byteLength >= scratch.byteLength / 4
      ? first
      : scratch.subarray(0, source.copyTo(scratch.subarray(0, Math.min(most, scratch.byteLength))))
    while (!this.isFull) {
      const count = linux.send(this.fd, bytes)
      if (count > 0) return count
      const errno = linux.errno()
      if (errno === Linux.EINTR) continue
      if (errno !== Linux.EAGAIN) return this.fail(errno)
      this.isFull = true
    }
    if (!this.owesWrite) {
      this.owesWrite = true
      this.reactor.owe()
    }
    return WouldBlock
  }

  shutdownWrite(): number | SocketError {
    if (this.writeError !== undefined) return this.writeError
    const { linux } = this.reactor
    return linux.shutdownWrite(this.fd) === 0 ? 0 : failure(this.reactor, "socket", this.remoteAddress)
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

  configure(options: Partial<ResolvedOptions>): void {
    if (!NetAddress.isUnixPathAddress(this.remoteAddress)) setOptions(this.reactor, this.fd, options)
  }

  onEvents(flags: number): void {
    if (this.phase === "closing") {
      this.isDrained = false
      this.onClosing()
      return
    }
    if ((flags & (Linux.EPOLLRDHUP | broken)) !== 0) this.seesEnd = true
    if ((flags & Linux.EPOLLERR) !== 0) {
      const errno = this.reactor.linux.takeError(this.fd)
      if (errno !== 0) this.fail(errno)
    }
    if ((flags & (Linux.EPOLLIN | Linux.EPOLLRDHUP | broken)) !== 0) {
      this.isDrained = false
      this.settleRead()
    }
    if ((flags & (Linux.EPOLLOUT | broken)) !== 0) {
      this.isFull = false
      this.settleWrite()
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
    const error = failure(this.reactor, "socket", this.remoteAddress, errno)
    if (errno !== Linux.EPIPE) this.error ??= error
    return this.writeError ??= error
  }

  // A call, because the compiler cannot know what a woken fiber does to `phase`.
  private isOpen(): boolean {
    return this.phase === "open"
  }

  private onClosing(): void {
    if (this.discard() !== "end") {
      if (!this.owesRead) {
        this.owesRead = true
        this.reactor.owe()
      }
      return
    }
    this.release()
  }

  /** Throws unread input away, and answers whether there was none, some, or the end of the stream. */
  private discard(): "nothing" | "some" | "end" {
    const { linux } = this.reactor
    let found: "nothing" | "some" = "nothing"
    for (;;) {
      const count = linux.recv(this.fd, scratch)
      if (count > 0) {
        found = "some"
        continue
      }
      if (count === 0) return "end"
      const errno = linux.errno()
      if (errno === Linux.EINTR) continue
      return errno === Linux.EAGAIN ? found : "end"
    }
  }

  private release(): void {
    if (this.phase === "closed") return
    // Asked once now: afterwards nobody knows.
    void this.localAddress
    this.phase = "closed"
    this.settleRead()
    this.settleWrite()
    this.reactor.unregister(this)
    this.reactor.linux.close(this.fd)
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

// More than any kernel takes at once.
const mostAtOnce = 16 * 1024 * 1024

const connectRetry = 5

const ignore = (): void => {}

const deaf: Events = { readable: ignore, writable: ignore, failed: ignore, closed: ignore }

const setOptions = ({ linux }: Reactor, fd: number, options: Partial<ResolvedOptions>): void => {
  if (options.noDelay !== undefined) linux.setNoDelay(fd, options.noDelay)
  if (options.keepAlive === undefined) return
  const isOn = options.keepAlive !== false
  linux.setKeepAlive(fd, isOn)
  const seconds = isOn ? Math.round(Duration.toSeconds(options.keepAlive)) : 0
  if (seconds > 0) linux.setKeepAliveIdle(fd, seconds)
}

// `sun_path` minus its terminating zero.
const maxPathBytes = 107

const badPath = (operation: string, address: NetAddress.SocketAddress): SocketError | undefined => {
  if (!NetAddress.isUnixPathAddress(address)) return undefined
  if (address.path === "") {
    return new SocketError({
      reason: Reason.AddressNotAvailable(),
      operation,
      address,
      transferred: 0,
      code: "ENOENT"
    })
  }
  return Buffer.byteLength(address.path) > maxPathBytes
    ? new SocketError({
      reason: Reason.LimitExceeded({ limit: maxPathBytes, subject: "the path" }),
      operation,
      address,
      transferred: 0,
      code: "ENAMETOOLONG"
    })
    : undefined
}
