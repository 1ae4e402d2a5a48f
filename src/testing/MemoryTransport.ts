/**
 * A network in memory: bounded, deterministic, and without real time.
 *
 * **Details**
 *
 * Each direction of a connection is a pipe of `capacity` bytes; what is in it
 * counts as taken, as bytes in a kernel's buffers do. Events are delivered in
 * microtasks, never from inside an attempt. A stream may be slow or be reset,
 * but it never loses a byte from the middle.
 *
 * A direction that has moved 256 KiB, or has been asked 4,096 times, waits for the
 * next turn of the event loop, and so does a network behind each 64 connects. So
 * fibers that are never at rest leave timers, signals and `Effect.timeout` their
 * turns, as over the kernel. What waits is counted in bytes and calls, and not in
 * time: each run is the same, under `TestClock` too.
 *
 * Without wire and kernel, options of theirs mean nothing and are ignored:
 * `noDelay`, `keepAlive`, `userTimeout`, `sendBuffer`, `receiveBuffer`,
 * `sliceSize` and `ipv6Only`. Connections can be made from a local address;
 * `reusePort` is Unsupported.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as AddressResolver from "effect/net/AddressResolver"
import * as Dns from "effect/net/Dns"
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"
import type * as Scope from "effect/Scope"
import type * as Buffers from "../Buffers.ts"
import { formatAddress } from "../internal/base/format.ts"
import { unnamed } from "../internal/base/unnamed.ts"
import { unsupported, unsupportedLocal } from "../internal/base/unsupported.ts"
import { Reason, SocketError } from "../SocketError.ts"
import * as StreamSocket from "../StreamSocket.ts"
import {
  type Backing,
  type Events,
  type ListenerBacking,
  type ResolvedListenOptions,
  type SocketOptions,
  Transport,
  WouldBlock
} from "../Transport.ts"

/**
 * How the connections of a network behave.
 *
 * @category options
 * @since 0.1.0
 */
export interface Options {
  /** Bytes that fit into each direction. Default 65,536. */
  readonly capacity?: number | undefined
  /** The most bytes that one attempt moves. Default: no limit. */
  readonly chunk?: number | undefined
  /**
   * With a seed, each attempt moves a random number of bytes from 1 to `chunk`
   * (default 4,096), and now and then would block although it could go on. The
   * same seed gives the same behaviour.
   */
  readonly seed?: number | undefined
}

/**
 * Two ends of one new connection, closed with the scope.
 *
 * @category constructors
 * @since 0.1.0
 */
export const pair = (
  options?: Options & Pick<SocketOptions, "linger">
): Effect.Effect<readonly [StreamSocket.StreamSocket, StreamSocket.StreamSocket], never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const [left, right] = connection(leftAddress, rightAddress, options)
      return [StreamSocket.make(left, options), StreamSocket.make(right, options)] as const
    }),
    ([left, right]) => Effect.andThen(left.close, right.close)
  )

/**
 * Two ends of one new connection whose first end cannot write: the direction to
 * the second is full of zeros that the second has not read.
 *
 * @category constructors
 * @since 0.1.0
 */
export const clogged = (
  options?: Options & Pick<SocketOptions, "linger">
): Effect.Effect<readonly [StreamSocket.StreamSocket, StreamSocket.StreamSocket], never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const [left, right] = connection(leftAddress, rightAddress, options)
      left.fill()
      return [StreamSocket.make(left, options), StreamSocket.make(right, options)] as const
    }),
    ([left, right]) => Effect.andThen(left.close, right.close)
  )

/**
 * A transport over a network of its own, together with a resolver that knows
 * `localhost`.
 *
 * **Example** (A client and a server in one test)
 *
 * ```ts
 * import { Console, Effect } from "effect"
 * import { Acceptor, Buffers, Read, Relay, StreamSocket, Write } from "effect-asio"
 * import { MemoryTransport } from "effect-asio/testing"
 *
 * const program = Effect.gen(function*() {
 *   const acceptor = yield* Acceptor.listen("localhost:7000")
 *   yield* Effect.forkScoped(Acceptor.serve(acceptor, (socket) => Relay.copy(socket, socket)))
 *   const socket = yield* StreamSocket.connect("localhost:7000")
 *   yield* Write.writeAll(socket, Buffers.utf8("hello\n"))
 *   yield* Console.log(yield* Read.readLine(socket))
 * })
 *
 * // Every attempt moves 1 to 3 bytes, in the same way in each run.
 * const network = MemoryTransport.layerWith({ chunk: 3, seed: 1 })
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(network)))
 * // => hello
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWith = (options?: Options): Layer.Layer<Transport | AddressResolver.AddressResolver> =>
  Layer.merge(
    Layer.sync(Transport, () => {
      const network = new Network(options)
      return {
        name: "memory",
        connect: (address, { localAddress }) =>
          Effect.andThen(network.turn, Effect.suspend(() => network.connect(address, localAddress))),
        listen: (address, listenOptions) => Effect.suspend(() => network.listen(address, listenOptions))
      }
    }),
    Layer.sync(AddressResolver.AddressResolver, () => resolver)
  )

/**
 * {@link layerWith} the default options.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Transport | AddressResolver.AddressResolver> = layerWith()

/**
 * A small seeded generator of numbers from 0 (inclusive) to 1 (exclusive), the
 * same for the same seed everywhere.
 *
 * @category random
 * @since 0.1.0
 */
export const random = (seed: number): () => number => {
  let state = seed >>> 0
  return () => {
    // The "mulberry32" mixing steps.
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

// ---- internal

const resolver = AddressResolver.make(Result.getOrThrow(Dns.makeStatic({ hosts: { localhost: ["127.0.0.1"] } })))

// Bytes that a direction moves before it leaves the event loop a turn, and what a call counts for besides its bytes.
const turnBudget = 262_144
const callCost = 64
// The budget of a direction that waits for its turn.
const yielded = -Infinity

// Connects of one network before it leaves the event loop a turn.
const connectsPerTurn = 64

// Those that the system gives out.
const firstPort = 49_152
const lastPort = 65_535

const leftAddress = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:1")
const rightAddress = NetAddress.inetAddressFromStringUnsafe("127.0.0.1:2")

/** One direction of a connection. */
class Pipe {
  private readonly bytes: Uint8Array
  private start = 0
  length = 0
  /** The writer has sent FIN. */
  finished = false
  /** The reader is gone; nothing can be delivered any more. */
  abandoned = false
  /** The writer has reset the connection. */
  reset = false

  constructor(capacity: number) {
    this.bytes = new Uint8Array(capacity)
  }

  get room(): number {
    return this.bytes.byteLength - this.length
  }

  /** Writes up to `count` bytes, as one or two contiguous pieces. */
  put(source: Buffers.Cursor, count: number): void {
    const capacity = this.bytes.byteLength
    const at = (this.start + this.length) % capacity
    const first = Math.min(count, capacity - at)
    if (first === count) source.copyTo(this.bytes.subarray(at, at + count))
    else {
      const piece = new Uint8Array(count)
      source.copyTo(piece)
      this.bytes.set(piece.subarray(0, first), at)
      this.bytes.set(piece.subarray(first))
    }
    this.length += count
  }

  get(target: Uint8Array, count: number): void {
    const capacity = this.bytes.byteLength
    const first = Math.min(count, capacity - this.start)
    target.set(this.bytes.subarray(this.start, this.start + first))
    target.set(this.bytes.subarray(0, count - first), first)
    this.start = (this.start + count) % capacity
    this.length -= count
  }

  fill(): void {
    this.length = this.bytes.byteLength
  }
}

class MemoryBacking implements Backing {
  readonly localAddress: NetAddress.SocketAddress
  readonly remoteAddress: NetAddress.SocketAddress
  private readonly incoming: Pipe
  private readonly outgoing: Pipe
  private readonly limit: () => number
  private peer: MemoryBacking | undefined = undefined
  private events: Events | undefined = undefined
  private readonly pending = { readable: false, writable: false, closed: false }
  // Bytes that may still be moved before the direction waits for the next turn of the event loop.
  private readonly budgets = { readable: turnBudget, writable: turnBudget }
  private gone = false

  constructor(
    local: NetAddress.SocketAddress,
    remote: NetAddress.SocketAddress,
    incoming: Pipe,
    outgoing: Pipe,
    limit: () => number
  ) {
    this.localAddress = local
    this.remoteAddress = remote
    this.incoming = incoming
    this.outgoing = outgoing
    this.limit = limit
  }

  join(peer: MemoryBacking): void {
    this.peer = peer
  }

  fill(): void {
    this.outgoing.fill()
  }

  attach(events: Events): void {
    this.events = events
  }

  read(target: Uint8Array): number | SocketError {
    const { incoming } = this
    if (incoming.length === 0) {
      if (incoming.reset) return this.error(Reason.ConnectionReset(), "ECONNRESET")
      return incoming.finished ? 0 : WouldBlock
    }
    if (this.budgets.readable <= 0) return this.yieldTurn("readable")
    const count = Math.min(incoming.length, target.byteLength, this.limit())
    this.budgets.readable -= count + callCost
    if (count === 0) {
      this.notify("readable")
      return WouldBlock
    }
    incoming.get(target, count)
    this.peer?.notify("writable")
    return count
  }

  write(source: Buffers.Cursor, limit: number): number | SocketError {
    const { outgoing } = this
    if (this.incoming.reset) return this.error(Reason.ConnectionReset(), "ECONNRESET")
    if (outgoing.abandoned) return this.error(Reason.BrokenPipe(), "EPIPE")
    if (outgoing.room === 0) return WouldBlock
    if (this.budgets.writable <= 0) return this.yieldTurn("writable")
    const count = Math.min(outgoing.room, source.remaining, limit, this.limit())
    this.budgets.writable -= count + callCost
    if (count === 0) {
      this.notify("writable")
      return WouldBlock
    }
    outgoing.put(source, count)
    this.peer?.notify("readable")
    return count
  }

  shutdownWrite(): number {
    this.outgoing.finished = true
    this.peer?.notify("readable")
    return 0
  }

  close(): void {
    this.release()
  }

  abort(): void {
    if (!this.gone) this.outgoing.reset = true
    this.release()
  }

  configure(): void {
    // There is no wire here that options could change.
  }

  private release(): void {
    if (!this.gone) {
      this.gone = true
      this.outgoing.finished = true
      this.incoming.abandoned = true
      this.peer?.notify("readable")
      this.peer?.notify("writable")
    }
    this.notify("closed")
  }

  /** The budget of a direction is used up: it goes on in the next turn of the event loop. */
  private yieldTurn(event: "readable" | "writable"): typeof WouldBlock {
    if (this.budgets[event] !== yielded) {
      this.budgets[event] = yielded
      setImmediate(() => {
        this.budgets[event] = turnBudget
        this.notify(event)
      })
    }
    return WouldBlock
  }

  private notify(event: "readable" | "writable" | "closed"): void {
    if (this.pending[event]) return
    this.pending[event] = true
    queueMicrotask(() => {
      this.pending[event] = false
      if (event === "closed" || !this.gone) this.events?.[event]()
    })
  }

  private error(reason: Reason, code: string): SocketError {
    return new SocketError({ reason, operation: "socket", address: this.remoteAddress, transferred: 0, code })
  }
}

const connection = (
  local: NetAddress.SocketAddress,
  remote: NetAddress.SocketAddress,
  options: Options | undefined
): readonly [MemoryBacking, MemoryBacking] => {
  const capacity = options?.capacity ?? 65_536
  if (!Number.isInteger(capacity) || capacity <= 0) throw new RangeError(`MemoryTransport: capacity ${capacity}`)
  const there = new Pipe(capacity)
  const back = new Pipe(capacity)
  const limit = limitOf(options)
  const left = new MemoryBacking(local, remote, back, there, limit)
  const right = new MemoryBacking(remote, local, there, back, limit)
  left.join(right)
  right.join(left)
  return [left, right]
}

// 0 stands for an attempt that would block for no reason, as spurious readiness makes them.
const limitOf = (options: Options | undefined): () => number => {
  const chunk = options?.chunk ?? (options?.seed === undefined ? Infinity : 4096)
  if (chunk !== Infinity && (!Number.isInteger(chunk) || chunk <= 0)) {
    throw new RangeError(`MemoryTransport: chunk ${chunk}`)
  }
  if (options?.seed === undefined) return () => chunk
  const next = random(options.seed)
  return () => next() < 0.1 ? 0 : 1 + Math.floor(next() * chunk)
}

const nextTurn: Effect.Effect<void> = Effect.callback((resume) => {
  const waiting = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(waiting))
})

class Network {
  private readonly listeners = new Map<string, Listener>()
  private readonly options: Options | undefined
  private nextPort = firstPort
  private connects = 0

  constructor(options: Options | undefined) {
    this.options = options
  }

  /** Waits for the next turn of the event loop behind each `connectsPerTurn` connects. */
  get turn(): Effect.Effect<void> {
    return Effect.suspend(() => ++this.connects % connectsPerTurn === 0 ? nextTurn : Effect.void)
  }

  connect(
    address: NetAddress.SocketAddress,
    localAddress: NetAddress.SocketAddress | undefined
  ): Effect.Effect<Backing, SocketError> {
    const feature = unsupportedLocal(address, localAddress)
    if (feature !== undefined) return Effect.fail(unsupported("connect", address, feature))
    const local = localAddress === undefined ? undefined : this.withPort(localAddress, false)
    if (local !== undefined && this.listeners.has(formatAddress(local))) {
      return Effect.fail(
        new SocketError({ reason: Reason.AddressInUse(), operation: "connect", address, transferred: 0 })
      )
    }
    const listener = this.listeners.get(formatAddress(address))
    if (listener === undefined || !listener.hasRoom) {
      return Effect.fail(
        new SocketError({
          reason: NetAddress.isUnixPathAddress(address) && listener === undefined
            ? Reason.AddressNotAvailable()
            : Reason.ConnectionRefused(),
          operation: "connect",
          address,
          transferred: 0
        })
      )
    }
    const [left, right] = connection(local ?? this.withPort(address, true), address, this.options)
    listener.offer(right)
    return Effect.succeed(left)
  }

  listen(
    address: NetAddress.SocketAddress,
    { backlog, reusePort }: ResolvedListenOptions
  ): Effect.Effect<ListenerBacking, SocketError> {
    if (reusePort && !NetAddress.isUnixPathAddress(address)) {
      return Effect.fail(unsupported("listen", address, "reusePort in memory"))
    }
    const bound = this.withPort(address, false)
    const key = formatAddress(bound)
    if (this.listeners.has(key)) {
      return Effect.fail(
        new SocketError({ reason: Reason.AddressInUse(), operation: "listen", address: bound, transferred: 0 })
      )
    }
    const listener = new Listener(bound, backlog, () => this.listeners.delete(key))
    this.listeners.set(key, listener)
    return Effect.succeed(listener)
  }

  private withPort(address: NetAddress.SocketAddress, fresh: boolean): NetAddress.SocketAddress {
    if (NetAddress.isUnixPathAddress(address)) return fresh ? unnamed : address
    return fresh || address.port === 0 ? this.onFreePort(address.address) : address
  }

  // They come round, as everywhere; but only listeners have one to themselves.
  private onFreePort(ip: NetAddress.IpAddress): NetAddress.InetAddress {
    for (;;) {
      const address = NetAddress.inetAddressUnsafe(ip, this.nextPort++)
      if (this.nextPort > lastPort) this.nextPort = firstPort
      if (!this.listeners.has(formatAddress(address))) return address
    }
  }
}

class Listener implements ListenerBacking {
  readonly address: NetAddress.SocketAddress
  private readonly backlog: number
  private readonly unbind: () => void
  private acceptable: (() => void) | undefined = undefined
  private pending: Array<Backing> = []

  constructor(address: NetAddress.SocketAddress, backlog: number, unbind: () => void) {
    this.address = address
    this.backlog = backlog
    this.unbind = unbind
  }

  get hasRoom(): boolean {
    return this.pending.length < this.backlog
  }

  offer(backing: Backing): void {
    this.pending.push(backing)
    queueMicrotask(() => this.acceptable?.())
  }

  attach(events: { readonly acceptable: () => void }): void {
    this.acceptable = events.acceptable
  }

  accept(): Backing | typeof WouldBlock {
    return this.pending.shift() ?? WouldBlock
  }

  close(): void {
    this.unbind()
    for (const backing of this.pending) backing.abort()
    this.pending = []
  }
}
