import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import { unsupported, unsupportedLocal } from "../../../internal/base/unsupported.ts"
import type { SocketError } from "../../../SocketError.ts"
import type { Backing, ResolvedConnectOptions } from "../../../Transport.ts"
import { connectRetry, isSelfConnect, selfRefused } from "../connecting.ts"
import { EpollBacking } from "./EpollBacking.ts"
import * as Linux from "./linux.ts"
import { badPath, bufferSettings, failure, familyOf, setAll, tcpSettings } from "./options.ts"
import { broken, type Reactor, type Registered } from "./Reactor.ts"

export const connect = (
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

/** One attempt to connect. */
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
      // Port 0 is resolved when the target is known, so that one local port can serve several targets.
      linux.setInt(this.fd, Linux.IPPROTO_IP, Linux.IP_BIND_ADDRESS_NO_PORT, 1)
      // A port in TIME_WAIT can be bound again, as over `node:net`.
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
    this.stopWaiting()
    if (errno === 0) this.succeed(flags)
    else this.fail(errno)
  }

  cancel(): void {
    clearTimeout(this.retry)
    if (this.isPending) this.stopWaiting()
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
      this.reactor.ref()
    }
  }

  private stopWaiting(): void {
    this.isPending = false
    this.reactor.unref()
  }

  /** Passes the flags on: they may say that the peer has ended already, and no other event will. */
  private succeed(flags: number): void {
    const { address, fd, options, reactor: { linux } } = this
    const remote = this.remoteOf(fd)
    const local = NetAddress.isUnixPathAddress(address) ? undefined : linux.localAddress(fd)
    if (local !== undefined && isSelfConnect(options.localAddress, local, () => remote)) {
      linux.setReset(fd)
      this.refuse(selfRefused(address))
      return
    }
    this.fd = -1
    const backing = new EpollBacking(this.reactor, fd, remote, local, false)
    backing.note(flags)
    this.reactor.replace(backing)
    this.resume(Effect.succeed(backing))
  }

  /** A connect to the unspecified address reaches an address of this machine, which the kernel knows. */
  private remoteOf(fd: number): NetAddress.SocketAddress {
    const { address, reactor: { linux } } = this
    return NetAddress.isUnixPathAddress(address) || !NetAddress.isUnspecified(address.address) || linux.peer(fd) < 0
      ? address
      : linux.accepted()
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
