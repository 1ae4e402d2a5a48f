import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import { lstatSync, unlinkSync } from "node:fs"
import { isAbsolute } from "node:path"
import { noop } from "../../../internal/base/noEvents.ts"
import type { SocketError } from "../../../SocketError.ts"
import {
  type Backing,
  type ListenerBacking,
  type ResolvedListenOptions,
  type ResolvedOptions,
  WouldBlock
} from "../../../Transport.ts"
import { EpollBacking } from "./EpollBacking.ts"
import * as Linux from "./linux.ts"
import { badPath, bufferSettings, failure, familyOf, setAll, setting, tcpSettings } from "./options.ts"
import type { Reactor, Registered } from "./Reactor.ts"

export const listen = (
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
      // Over TCP, accepted connections inherit all of these.
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
    const listener = new EpollListener(reactor, fd, address, options, false)
    const listening = linux.listen(fd, options.backlog)
    const failed = listening < 0 ? listening : reactor.register(listener)
    if (failed === 0) return Effect.succeed(listener)
    // Also removes the path, which is bound by now.
    listener.close()
    return Effect.fail(failure("listen", address, -failed))
  })

export class EpollListener implements ListenerBacking, Registered {
  fd: number
  readonly address: NetAddress.SocketAddress
  private readonly reactor: Reactor
  private readonly options: ResolvedOptions
  private readonly file: BoundFile | undefined
  private acceptable: () => void = noop
  private waitsToAccept = false
  /** Connections accepted in this turn. */
  private acceptedThisTurn = 0
  private hasYielded = false
  /** The socket may be open under other descriptors, in this process or another one. */
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
    this.file = NetAddress.isUnixPathAddress(address) && !address.path.startsWith("\0") && !isShared
      ? boundFile(address.path)
      : undefined
    this.isShared = isShared
  }

  attach(events: { readonly acceptable: () => void }): void {
    this.acceptable = events.acceptable
  }

  accept(): Backing | typeof WouldBlock | SocketError {
    const { linux } = this.reactor
    while (this.acceptedThisTurn < maxAcceptsPerTurn) {
      this.acceptedThisTurn++
      const fd = linux.accept(this.fd)
      if (fd >= 0) return this.opened(fd, linux.accepted())
      if (fd === -Linux.EAGAIN) {
        this.acceptedThisTurn--
        if (!this.waitsToAccept) {
          this.waitsToAccept = true
          this.reactor.ref()
        }
        return WouldBlock
      }
      if (!passing.has(-fd)) return failure("accept", this.address, -fd)
    }
    if (!this.hasYielded) {
      this.hasYielded = true
      this.reactor.reschedule(this)
    }
    return WouldBlock
  }

  onEvents(flags: number): void {
    if (flags === 0) this.hasYielded = false
    // A connection that has yielded goes on when the reactor calls it again, and not at an event before that.
    if (!this.hasYielded) this.acceptedThisTurn = 0
    this.stopWaiting()
    this.acceptable()
  }

  close(): void {
    this.stopWaiting()
    // Before the descriptor is closed: afterwards another listener may bind the path.
    if (this.file !== undefined) remove(this.file)
    if (this.isShared) this.reactor.remove(this)
    else this.reactor.unregister(this)
    this.reactor.linux.close(this.fd)
    this.fd = -1
  }

  interestDropped(): void {
    this.stopWaiting()
  }

  detach(): number {
    this.stopWaiting()
    this.reactor.remove(this)
    const { fd } = this
    this.fd = -1
    return fd
  }

  private stopWaiting(): void {
    if (!this.waitsToAccept) return
    this.waitsToAccept = false
    this.reactor.unref()
  }

  private opened(fd: number, remote: NetAddress.SocketAddress): Backing | SocketError {
    const { address, reactor } = this
    // On a Unix-domain path nothing is inherited. The descriptor of the listener has accepted the same values.
    if (NetAddress.isUnixPathAddress(address)) {
      setAll(reactor, fd, bufferSettings(this.options), "accept", address)
    }
    // Inherited from the program that opened the listener.
    if (this.isShared) reactor.linux.clearLinger(fd)
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

// ---- internal

/** The file that binding to a path has created. */
interface BoundFile {
  readonly path: string
  readonly device: bigint
  readonly inode: bigint
}

/** `undefined` if the file is gone already. */
const boundFile = (path: string): BoundFile | undefined => {
  try {
    // Absolute, because the process may change its working directory.
    const absolute = isAbsolute(path) ? path : `${process.cwd()}/${path}`
    const { dev, ino } = lstatSync(absolute, { bigint: true })
    return { path: absolute, device: dev, inode: ino }
  } catch {
    return undefined
  }
}

/** Removes the file, unless another one has taken its place: a newer listener may have bound the path. */
const remove = (file: BoundFile): void => {
  const now = boundFile(file.path)
  if (now?.device !== file.device || now.inode !== file.inode) return
  try {
    unlinkSync(file.path)
  } catch {
    // The file is gone by now, or this process may not remove it.
  }
}

// Connections accepted per turn of the event loop.
const maxAcceptsPerTurn = 64

// Errors of a connection that was gone before it was accepted, or that met a network error: accept the next one.
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
