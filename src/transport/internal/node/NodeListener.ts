import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import { existsSync } from "node:fs"
import * as Net from "node:net"
import { dirname } from "node:path"
import { noop } from "../../../internal/base/noEvents.ts"
import { unnamed } from "../../../internal/base/unnamed.ts"
import { unsupported } from "../../../internal/base/unsupported.ts"
import { fromErrno, type SocketError } from "../../../SocketError.ts"
import {
  type Backing,
  type ListenerBacking,
  type ResolvedListenOptions,
  type ResolvedOptions,
  WouldBlock
} from "../../../Transport.ts"
import { badPath, forbidden, nativeAddress, nativeHost, noSuchPath } from "./addresses.ts"
import { NodeBacking } from "./NodeBacking.ts"
import { badOptions, setKeepAlive } from "./options.ts"

export const listen = (
  address: NetAddress.SocketAddress,
  options: ResolvedListenOptions
): Effect.Effect<ListenerBacking, SocketError> =>
  Effect.callback((resume) => {
    const refused = badPath("listen", address) ?? forbidden("listen", address) ?? badOptions("listen", address, options)
    if (refused !== undefined) {
      resume(Effect.fail(refused))
      return
    }
    const server = Net.createServer({
      allowHalfOpen: true,
      pauseOnConnect: true,
      noDelay: options.noDelay
    })
    function onListening() {
      server.off("error", onError)
      resume(Effect.succeed(new NodeListener(server, address, options)))
    }
    function onError(cause: NodeJS.ErrnoException) {
      if (options.reusePort && cause.code === "ENOTSUP") {
        resume(Effect.fail(unsupported("listen", address, "reusePort on this system")))
        return
      }
      // libuv reports EACCES for a directory that does not exist.
      const isMissing = NetAddress.isUnixPathAddress(address) && !existsSync(dirname(address.path))
      resume(
        Effect.fail(isMissing ? noSuchPath("listen", address) : fromErrno(cause, { operation: "listen", address }))
      )
    }
    server.once("error", onError)
    server.listen(
      {
        ...(NetAddress.isUnixPathAddress(address)
          ? { path: address.path }
          : {
            host: nativeHost(address),
            port: address.port,
            ipv6Only: options.ipv6Only,
            reusePort: options.reusePort
          }),
        backlog: options.backlog
      },
      onListening
    )
    return Effect.sync(() => {
      server.off("error", onError)
      server.on("error", noop)
      server.close()
    })
  })

export class NodeListener implements ListenerBacking {
  readonly address: NetAddress.SocketAddress
  private readonly server: Net.Server
  private readonly sliceSize: number
  private readonly backlog: number
  private readonly keepAlive: ResolvedOptions["keepAlive"]
  private acceptable: () => void = noop
  // Node accepts at once. These connections are paused until `accept` takes them.
  private pending: Array<NodeBacking> = []
  private failure: SocketError | undefined = undefined

  constructor(server: Net.Server, address: NetAddress.SocketAddress, options: ResolvedListenOptions) {
    this.server = server
    this.sliceSize = options.sliceSize
    this.backlog = options.backlog
    this.keepAlive = NetAddress.isUnixPathAddress(address) ? false : options.keepAlive
    const bound = server.address()
    this.address = bound === null || typeof bound === "string"
      ? address
      : nativeAddress(bound.address, bound.port, address)
    server.on("connection", (socket) => this.onConnection(socket))
    server.on("error", (cause) => {
      this.failure = fromErrno(cause, { operation: "accept", address: this.address })
      this.acceptable()
    })
  }

  attach(events: { readonly acceptable: () => void }): void {
    this.acceptable = events.acceptable
  }

  accept(): Backing | typeof WouldBlock | SocketError {
    const socket = this.pending.shift()
    if (socket !== undefined) return socket
    const failure = this.failure
    this.failure = undefined
    return failure ?? WouldBlock
  }

  close(): void {
    this.server.close()
    for (const socket of this.pending) socket.abort()
    this.pending = []
  }

  private onConnection(socket: Net.Socket): void {
    const { address } = this
    if (this.keepAlive !== false) setKeepAlive(socket, this.keepAlive)
    const backing = NetAddress.isUnixPathAddress(address)
      ? new NodeBacking(socket, unnamed, this.sliceSize, address)
      : new NodeBacking(
        socket,
        undefined,
        this.sliceSize,
        NetAddress.isUnspecified(address.address)
          ? nativeAddress(socket.localAddress, socket.localPort, address)
          : address
      )
    if (this.pending.length >= this.backlog) {
      backing.abort()
      return
    }
    this.pending.push(backing)
    this.acceptable()
  }
}
