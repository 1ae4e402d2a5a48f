import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import * as Net from "node:net"
import { noop } from "../../../internal/base/noEvents.ts"
import { fromErrno, type SocketError } from "../../../SocketError.ts"
import type { Backing, ResolvedConnectOptions } from "../../../Transport.ts"
import { connectRetry, isSelfConnect, selfRefused } from "../connecting.ts"
import { badLocal, badPath, forbidden, nativeAddress, nativeHost } from "./addresses.ts"
import { NodeBacking } from "./NodeBacking.ts"
import { badOptions, setKeepAlive } from "./options.ts"

export const connect = (
  address: NetAddress.SocketAddress,
  options: ResolvedConnectOptions
): Effect.Effect<Backing, SocketError> =>
  Effect.callback((resume) => {
    const { localAddress: local } = options
    const refused = badPath("connect", address) ?? forbidden("connect", address) ??
      badOptions("connect", address, options) ??
      badLocal(address, local)
    if (refused !== undefined) {
      resume(Effect.fail(refused))
      return
    }
    const attempt = new ConnectAttempt(address, options, resume)
    attempt.start()
    return Effect.callback<void>((released) => attempt.cancel(() => released(Effect.void)))
  })

/** One attempt to connect, which waits while the backlog of a Unix-domain listener is full. */
class ConnectAttempt {
  private readonly address: NetAddress.SocketAddress
  private readonly options: ResolvedConnectOptions
  private readonly resume: (result: Effect.Effect<Backing, SocketError>) => void
  private socket: Net.Socket | undefined = undefined
  private retry: NodeJS.Timeout | undefined = undefined

  constructor(
    address: NetAddress.SocketAddress,
    options: ResolvedConnectOptions,
    resume: (result: Effect.Effect<Backing, SocketError>) => void
  ) {
    this.address = address
    this.options = options
    this.resume = resume
  }

  start(): void {
    const { address, options } = this
    const { localAddress: local } = options
    const socket = this.socket = Net.connect({
      ...(NetAddress.isUnixPathAddress(address)
        ? { path: address.path }
        : {
          host: nativeHost(address),
          port: address.port,
          ...(local === undefined || NetAddress.isUnixPathAddress(local)
            ? {}
            : { localAddress: nativeHost(local), localPort: local.port }),
          noDelay: options.noDelay
        }),
      allowHalfOpen: true
    })
    socket.pause()
    socket.once("connect", this.onConnect)
    socket.once("error", this.onError)
  }

  cancel(released: () => void): void {
    clearTimeout(this.retry)
    const { socket } = this
    if (socket === undefined) {
      released()
      return
    }
    this.leave(socket)
    socket.once("close", released)
    socket.destroy()
  }

  private leave(socket: Net.Socket): void {
    socket.off("connect", this.onConnect)
    socket.off("error", this.onError)
    socket.on("error", noop)
  }

  private readonly onConnect = (): void => {
    const { address, options, socket } = this
    if (socket === undefined) return
    socket.off("error", this.onError)
    const local = nativeAddress(socket.localAddress, socket.localPort, address)
    if (
      isSelfConnect(options.localAddress, local, () => nativeAddress(socket.remoteAddress, socket.remotePort, address))
    ) {
      socket.on("error", noop)
      socket.once("close", () => this.resume(Effect.fail(selfRefused(address))))
      socket.resetAndDestroy()
      return
    }
    if (options.keepAlive !== false) setKeepAlive(socket, options.keepAlive)
    this.resume(Effect.succeed(
      new NodeBacking(
        socket,
        // A connect to the unspecified address reaches an address of this machine, which Node knows.
        !NetAddress.isUnixPathAddress(address) && NetAddress.isUnspecified(address.address) ? undefined : address,
        options.sliceSize,
        local
      )
    ))
  }

  private readonly onError = (cause: NodeJS.ErrnoException): void => {
    const { address, socket } = this
    if (socket !== undefined) {
      this.leave(socket)
      socket.destroy()
    }
    this.socket = undefined
    // A Unix-domain listener whose backlog is full has no event for that.
    if (cause.code === "EAGAIN" && NetAddress.isUnixPathAddress(address)) {
      this.retry = setTimeout(() => this.start(), connectRetry)
    } else this.resume(Effect.fail(fromErrno(cause, { operation: "connect", address })))
  }
}
