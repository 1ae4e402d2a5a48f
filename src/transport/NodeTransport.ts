/**
 * TCP and Unix-domain sockets over the public API of `node:net`; runs wherever
 * that does.
 *
 * **Details**
 *
 * - A slice handed to `node:net` cannot be recalled and its memory is in use
 *   until it was flushed. So a write copies at most one slice (`sliceSize`, by
 *   default 64 KiB) into memory of this module, and has room again as slices
 *   are flushed; at most two slices per connection sit in user space.
 * - Reads pull: the socket is paused unless a fiber wants bytes. Node itself
 *   reads ahead by up to its high-water mark (64 KiB) once reading has begun.
 * - After a mebibyte that the kernel has taken at once, a write waits for the
 *   next turn of the event loop: a peer that keeps up starves nobody else.
 * - Waiting for room also watches the read side, so that what the peer says
 *   before it goes away is received, up to that mark.
 *
 * - Closing an address removes what is at its Unix-domain path by then, by name,
 *   also if that is something else; `EpollTransport` looks first.
 * - Of the options, `userTimeout`, `sendBuffer` and `receiveBuffer` are
 *   Unsupported: `node:net` has no way to them. `interval` and `count` of
 *   `keepAlive` need a Node that can set them: 26, or a later 24.
 *
 * **Gotchas**
 *
 * `node:net` destroys the whole socket when a write fails. Bytes that Node had
 * received by then are still read, and end of stream too if it was seen; what
 * was still in the kernel is lost, and reads then fail with the reason of the
 * write.
 *
 * Before Node 24, a reset that arrives behind unread bytes cannot be told from
 * the end of the stream once `shutdownWrite` was run.
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
import * as Result from "effect/Result"
import { Buffer } from "node:buffer"
import { existsSync } from "node:fs"
import * as Net from "node:net"
import { networkInterfaces } from "node:os"
import { dirname } from "node:path"
import type * as Buffers from "../Buffers.ts"
import * as Slab from "../internal/base/bufferPool.ts"
import { type Native, native } from "../internal/base/nativeStream.ts"
import { noEvents, noop } from "../internal/base/noEvents.ts"
import { unsupported, unsupportedLocal } from "../internal/base/unsupported.ts"
import { fromErrno, Reason, SocketError } from "../SocketError.ts"
import {
  type Backing,
  type Events,
  type ListenerBacking,
  type ResolvedConnectOptions,
  type ResolvedKeepAlive,
  type ResolvedListenOptions,
  type ResolvedOptions,
  Transport,
  WouldBlock
} from "../Transport.ts"

/**
 * The transport, together with Node's resolver for host names.
 *
 * **Example** (Providing the transport)
 *
 * ```ts
 * const main = program.pipe(Effect.provide(NodeTransport.layer), NodeRuntime.runMain)
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Transport | AddressResolver.AddressResolver> = Layer.merge(
  Layer.succeed(Transport, {
    name: "node",
    connect: (address, options) => connect(address, options),
    listen: (address, options) => listen(address, options)
  }),
  Layer.provide(NodeAddressResolver.layer, NodeDns.layer)
)

// ---- internal

const connect = (
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
    const socket = Net.connect({
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
    function onConnect() {
      socket.off("error", onError)
      if (options.keepAlive !== false) setKeepAlive(socket, options.keepAlive)
      resume(Effect.succeed(
        new NodeBacking(
          socket,
          // Whoever connects to no address in particular reaches one of this machine's.
          !NetAddress.isUnixPathAddress(address) && NetAddress.isUnspecified(address.address) ? undefined : address,
          options.sliceSize,
          nativeAddress(socket.localAddress, socket.localPort, address)
        )
      ))
    }
    function onError(cause: Error) {
      socket.off("connect", onConnect)
      socket.destroy()
      resume(Effect.fail(fromErrno(cause, { operation: "connect", address })))
    }
    socket.once("connect", onConnect)
    socket.once("error", onError)
    return Effect.callback<void>((released) => {
      socket.off("connect", onConnect)
      socket.off("error", onError)
      socket.on("error", noop)
      socket.once("close", () => released(Effect.void))
      socket.destroy()
    })
  })

const listen = (
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
      // libuv answers EACCES for a directory that does not exist.
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

class NodeListener implements ListenerBacking {
  readonly address: NetAddress.SocketAddress
  private readonly server: Net.Server
  private readonly sliceSize: number
  private readonly backlog: number
  private readonly keepAlive: ResolvedOptions["keepAlive"]
  private acceptable: () => void = noop
  // Node accepts at once; these wait for a fiber, paused.
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

class NodeBacking implements Backing, Native {
  readonly localAddress: NetAddress.SocketAddress
  private remote: NetAddress.SocketAddress | undefined
  private readonly socket: Net.Socket
  private readonly sliceSize: number
  private events: Events = noEvents
  // What Node has delivered and no read has taken.
  private chunk: Buffer | undefined = undefined
  private chunkOffset = 0
  private flowing = false
  private pulling = false
  private ended = false
  private failure: SocketError | undefined = undefined
  private wantsRoom = false
  // What may be written until the event loop has had its turn.
  private writeBudget = turnBudget
  private hasYielded = false
  private watching = false
  private phase: "open" | "closing" | "closed" = "open"
  private sawUnread = false

  constructor(
    socket: Net.Socket,
    remote: NetAddress.SocketAddress | undefined,
    sliceSize: number,
    localAddress: NetAddress.SocketAddress
  ) {
    this.socket = socket
    this.remote = remote
    // Asked once now, because of a socket that was destroyed Node knows only what it was asked before.
    if (remote === undefined) void socket.remoteAddress
    this.localAddress = localAddress
    this.sliceSize = sliceSize
    own(socket, this)
    socket.on("data", onData)
    socket.on("end", onEnd)
    socket.on("error", onError)
    socket.on("close", onClose)
  }

  get remoteAddress(): NetAddress.SocketAddress {
    return this.remote ??= nativeAddress(this.socket.remoteAddress, this.socket.remotePort, this.localAddress)
  }

  attach(events: Events): void {
    this.events = events
  }

  /** TLS goes on with the very socket. */
  get [native](): Native {
    return this
  }

  unread(): number {
    return (this.chunk === undefined ? 0 : this.chunk.byteLength - this.chunkOffset) + this.socket.readableLength
  }

  release(): Net.Socket {
    const { chunk, socket } = this
    this.phase = "closed"
    this.events = noEvents
    this.pause()
    socket.off("data", onData)
    socket.off("end", onEnd)
    socket.off("error", onError)
    socket.off("close", onClose)
    if (chunk !== undefined) socket.unshift(chunk.subarray(this.chunkOffset))
    this.chunk = undefined
    return socket
  }

  read(target: Uint8Array): number | SocketError {
    if (this.chunk === undefined && !this.flowing) this.pull()
    const chunk = this.chunk
    if (chunk !== undefined) {
      const rest = chunk.byteLength - this.chunkOffset
      if (rest <= target.byteLength) {
        target.set(this.chunkOffset === 0 ? chunk : chunk.subarray(this.chunkOffset))
        this.chunk = undefined
        this.chunkOffset = 0
        free(chunk)
        return rest
      }
      target.set(chunk.subarray(this.chunkOffset, this.chunkOffset + target.byteLength))
      this.chunkOffset += target.byteLength
      return target.byteLength
    }
    if (this.ended) return 0
    if (this.failure !== undefined) return this.failure
    if (!this.flowing) {
      this.flowing = true
      this.socket.resume()
    }
    return WouldBlock
  }

  write(source: Buffers.Cursor, limit: number): number | SocketError {
    if (this.failure !== undefined) return this.failure
    const { sliceSize, socket } = this
    if (socket.writableLength > sliceSize) {
      this.wantsRoom = true
      return WouldBlock
    }
    if (this.writeBudget <= 0) return this.yieldTurn()
    const length = Math.min(source.remaining, limit, sliceSize)
    this.writeBudget -= length + callCost
    const slab = Slab.acquire(length)
    const slice = length === slab.byteLength ? slab : slab.subarray(0, length)
    source.copyTo(slice)
    if (socket.writableLength > 0) socket.write(slice, () => this.onFlushed(slab))
    else {
      socket.write(slice)
      // Usually all of it has left by now, and the slab is free without waiting for a callback.
      if (socket.writableLength === 0) Slab.release(slab)
      // An empty write behind it tells when it has.
      else socket.write(nothing, () => this.onFlushed(slab))
    }
    // Node reports a write that the kernel refused on the spot by an event later; to us it is an answer.
    if (socket.errored !== null) return this.failure ??= this.errorOf(socket.errored)
    if (!this.watching) {
      this.watching = true
      if (!this.flowing) socket.read(0)
    }
    return length
  }

  shutdownWrite(): number | SocketError {
    if (this.failure !== undefined) return this.failure
    if (this.socket.writableLength > 0) {
      this.wantsRoom = true
      return WouldBlock
    }
    this.socket.end()
    return 0
  }

  close(): void {
    if (this.phase === "closed") {
      this.events.closed()
      return
    }
    if (this.phase === "closing") return
    this.phase = "closing"
    if (this.socket.destroyed) return
    this.sawUnread = this.chunk !== undefined || this.socket.readableLength > 0
    this.chunk = undefined
    if (this.socket.writableFinished) this.letGo()
    else {
      this.socket.once("finish", () => this.letGo())
      this.socket.end()
    }
    // Input is thrown away from here: left in the kernel, it would turn the FIN into a reset, and what the peer has
    // not received yet would be lost with it.
    this.flowing = true
    this.socket.resume()
  }

  abort(): void {
    if (this.phase === "closed") {
      this.events.closed()
      return
    }
    const hasFlushed = this.phase === "closing" && this.socket.writableFinished
    this.phase = "closing"
    this.chunk = undefined
    if (this.socket.destroyed) return
    // Nothing is left to discard.
    if (hasFlushed) this.socket.destroy()
    // libuv cannot reset while it shuts down, and Node then never releases the descriptor. With nothing left to flush,
    // shutting down takes one turn of the event loop.
    else if (this.socket.writableEnded && !this.socket.writableFinished && this.socket.writableLength === 0) {
      this.socket.once("finish", () => this.reset())
    } else this.reset()
  }

  configure(options: Partial<ResolvedOptions>): SocketError | undefined {
    const refused = badOptions("configure", this.remoteAddress, options)
    if (refused !== undefined) return refused
    if (options.noDelay !== undefined) this.socket.setNoDelay(options.noDelay)
    if (options.keepAlive !== undefined) setKeepAlive(this.socket, options.keepAlive)
    return undefined
  }

  onData(chunk: Buffer): void {
    if (this.pulling) return
    if (!this.hasYielded) this.writeBudget = turnBudget
    if (this.phase !== "open") {
      this.sawUnread = true
      return
    }
    if (this.chunk === undefined) this.chunk = chunk
    else {
      this.chunk = Buffer.concat([this.chunk.subarray(this.chunkOffset), chunk])
      this.chunkOffset = 0
    }
    this.events.readable()
    // Nobody took all of it, so nobody wants more.
    if (this.chunk !== undefined) this.pause()
  }

  onEnd(): void {
    if (endMayBeReset && this.isReset()) {
      this.failure = new SocketError({
        reason: Reason.ConnectionReset(),
        operation: "socket",
        address: this.remoteAddress,
        transferred: 0,
        code: "ECONNRESET"
      })
    } else this.ended = true
    if (this.phase === "open") this.events.readable()
    else if (this.socket.writableFinished) this.socket.destroy()
  }

  // What the kernel takes at once, Node answers at once or in the same tick: a peer that keeps up would hold the event loop
  // for ever.
  private yieldTurn(): typeof WouldBlock {
    if (!this.hasYielded) {
      this.hasYielded = true
      setImmediate(() => {
        this.hasYielded = false
        this.writeBudget = turnBudget
        this.events.writable()
      })
    }
    return WouldBlock
  }

  private onFlushed(slab: Buffer): void {
    Slab.release(slab)
    if (this.wantsRoom && this.socket.writableLength <= this.sliceSize) {
      this.wantsRoom = false
      this.events.writable()
    }
  }

  // Node destroys the socket around this event; what it had received is still in its buffer.
  onError(cause: Error): void {
    this.failure ??= this.errorOf(cause)
    if (this.phase !== "open") return
    this.pause()
    this.events.failed(this.failure)
  }

  onClose(): void {
    this.phase = "closed"
    this.events.closed()
  }

  // Everything is flushed and FIN is on its way. Input that nobody has read would make the kernel reset the connection
  // when the descriptor goes, and what the peer has not received yet would be lost. So if there is any, the peer's FIN
  // is awaited. A callback of the second turn from here has had a poll before it that shows whether there is.
  private letGo(): void {
    if (this.ended) {
      this.socket.destroy()
      return
    }
    setImmediate(() =>
      setImmediate(() => {
        if (this.ended || !this.sawUnread) this.socket.destroy()
      })
    )
  }

  // After a reset, TCP refuses even a write of nothing; after a FIN it does not. Unix-domain sockets know no reset.
  private isReset(): boolean {
    if (NetAddress.isUnixPathAddress(this.remoteAddress)) return false
    if (this.socket.writableEnded || this.socket.destroyed) return false
    this.socket.write(nothing)
    return this.socket.errored !== null
  }

  private reset(): void {
    if (NetAddress.isUnixPathAddress(this.remoteAddress)) this.socket.destroy()
    else if (!this.socket.destroyed) this.socket.resetAndDestroy()
  }

  // What Node has read ahead. Its `read` also emits "data", from inside this call.
  private pull(): void {
    this.pulling = true
    const chunk: Buffer | null = this.socket.read()
    this.pulling = false
    if (chunk !== null) this.chunk = chunk
  }

  private errorOf(cause: Error): SocketError {
    return fromErrno(cause, { operation: "socket", address: this.remoteAddress })
  }

  private pause(): void {
    this.flowing = false
    this.socket.pause()
  }
}

// Listeners that all connections share, and the way from a socket to its backing: closures of each connection's own
// would be a good part of what an idle one costs.
const owner: unique symbol = Symbol("effect-asio/NodeBacking")

interface Owned extends Net.Socket {
  [owner]: NodeBacking
}

// `own` is called before any of the listeners is attached.
const own = (socket: Net.Socket, backing: NodeBacking): void => {
  ;(socket as Owned)[owner] = backing
}
const backingOf = (socket: Net.Socket): NodeBacking => (socket as Owned)[owner]

function onData(this: Net.Socket, chunk: Buffer): void {
  backingOf(this).onData(chunk)
}
function onEnd(this: Net.Socket): void {
  backingOf(this).onEnd()
}
function onError(this: Net.Socket, cause: Error): void {
  backingOf(this).onError(cause)
}
function onClose(this: Net.Socket): void {
  backingOf(this).onClose()
}

// Bytes that a connection may write before the event loop has its turn; a call counts as some, so that tiny ones end too.
const turnBudget = 1024 * 1024
const callCost = 1024

// libuv before 1.52 reports a reset as end of stream when bytes came before it.
const endMayBeReset = Number.parseInt(process.versions.node, 10) < 24
const nothing = Buffer.alloc(0)

// Node makes new memory for each chunk that it receives. Freed at once, it is there for the next one, and still in the
// processor's cache; left to the garbage collector, it costs a bulk receiver a collection for every 50 MB.
const free = (chunk: Buffer): void => {
  const { buffer } = chunk
  // Memory that is shared with others, as small chunks may be, is larger than each of them.
  if (chunk.byteLength < freedFrom || chunk.byteLength !== buffer.byteLength) return
  if (buffer instanceof ArrayBuffer) buffer.transfer(0)
}
// For less it is not worth the call.
const freedFrom = 16_384

const unnamed = NetAddress.unixPathAddress("")

// How Node declares it where probes can be set, and how its older versions do not.
const setsProbes = Net.Socket.prototype.setKeepAlive.length >= 4
type SetKeepAlive = (enable: boolean, idleMillis: number, intervalMillis: number, count: number) => void

const setKeepAlive = (socket: Net.Socket, keepAlive: ResolvedOptions["keepAlive"]): void => {
  // An idle time of 0 leaves all times as they are.
  if (typeof keepAlive === "boolean") socket.setKeepAlive(keepAlive, 0)
  else {
    // The types of Node 22 do not know the last two, and neither does Node 22.
    const set: SetKeepAlive = socket.setKeepAlive.bind(socket)
    set(true, Duration.toMillis(keepAlive.idle), Duration.toMillis(keepAlive.interval), keepAlive.count)
  }
}

const badOptions = (
  operation: string,
  address: NetAddress.SocketAddress,
  { keepAlive, receiveBuffer, sendBuffer, userTimeout }: Partial<ResolvedOptions>
): SocketError | undefined => {
  const feature = sendBuffer !== undefined
    ? "sendBuffer over node:net"
    : receiveBuffer !== undefined
    ? "receiveBuffer over node:net"
    : NetAddress.isUnixPathAddress(address)
    ? undefined
    : userTimeout !== undefined
    ? "userTimeout over node:net"
    : typeof keepAlive === "object" && !setsProbes && !hasDefaultProbes(keepAlive)
    ? `the interval and count of keepAlive on Node ${process.versions.node}`
    : undefined
  return feature === undefined ? undefined : unsupported(operation, address, feature)
}

// Those that libuv sets by itself.
const hasDefaultProbes = ({ count, interval }: ResolvedKeepAlive): boolean =>
  count === 10 && Duration.toSeconds(interval) === 1

const badLocal = (
  address: NetAddress.SocketAddress,
  local: NetAddress.SocketAddress | undefined
): SocketError | undefined => {
  const feature = unsupportedLocal(address, local)
  return feature === undefined ? undefined : unsupported("connect", address, feature)
}

// Node has no answer for a connection that is gone already: then it is the unspecified address of the family, as it is
// for a link-local address whose interface is gone.
const nativeAddress = (
  host: string | undefined,
  port: number | undefined,
  like: NetAddress.SocketAddress
): NetAddress.SocketAddress => {
  if (host !== undefined && port !== undefined) {
    if (!host.includes("%")) return NetAddress.inetAddressFromNativeUnsafe(host, port)
    const scoped = NetAddress.inetAddressFromHostString(host, port, scopeIds())
    if (Result.isSuccess(scoped)) return scoped.success
  }
  return NetAddress.isUnixPathAddress(like)
    ? unnamed
    : NetAddress.inetAddressUnsafe(
      NetAddress.isInetAddressV4(like) ? NetAddress.ipv4Unspecified : NetAddress.ipv6Unspecified,
      0
    )
}

// Zones of link-local addresses: interfaces by name, as they are now.
const scopeIds = () => NetAddress.scopeIdsFromInterfaces(Object.entries(networkInterfaces()))

const nativeHost = (address: NetAddress.InetAddress): string =>
  NetAddress.isInetAddressV6(address) && address.scopeId !== 0
    ? NetAddress.formatNativeHost(address, scopeIds(), process.platform)
    : NetAddress.formatHost(address)

// `sun_path` minus its terminating zero. Some versions of Node cut a longer path silently.
const maxPathBytes = process.platform === "linux" ? 107 : 103

const noSuchPath = (operation: string, address: NetAddress.SocketAddress): SocketError =>
  new SocketError({ reason: Reason.AddressNotAvailable(), operation, address, transferred: 0, code: "ENOENT" })

// Node itself would throw, and in a tick of its own, where nobody can catch it.
const forbidden = (operation: string, address: NetAddress.SocketAddress): SocketError | undefined => {
  // In the types it is always there; before Node 25 it has no say in networks.
  const permission: NodeJS.Process["permission"] | undefined = process.permission
  return permission === undefined || !process.allowedNodeEnvironmentFlags.has("--allow-net") || permission.has("net")
    ? undefined
    : new SocketError({
      reason: Reason.PermissionDenied(),
      operation,
      address,
      transferred: 0,
      code: "ERR_ACCESS_DENIED"
    })
}

const badPath = (operation: string, address: NetAddress.SocketAddress): SocketError | undefined => {
  if (!NetAddress.isUnixPathAddress(address)) return undefined
  // To Node an empty path is none at all, and it would connect to TCP.
  if (address.path === "") return noSuchPath(operation, address)
  return process.platform !== "win32" && Buffer.byteLength(address.path) > maxPathBytes
    ? new SocketError({
      reason: Reason.LimitExceeded({ limit: maxPathBytes, subject: "the path" }),
      operation,
      address,
      transferred: 0,
      code: "ENAMETOOLONG"
    })
    : undefined
}
