import * as NetAddress from "effect/net/NetAddress"
import { Buffer } from "node:buffer"
import type * as Net from "node:net"
import type * as Buffers from "../../../Buffers.ts"
import * as BufferPool from "../../../internal/base/bufferPool.ts"
import { freeMemory } from "../../../internal/base/freeMemory.ts"
import { type Native, native } from "../../../internal/base/nativeStream.ts"
import { noEvents } from "../../../internal/base/noEvents.ts"
import { abortStream, StreamClosing } from "../../../internal/base/StreamClosing.ts"
import { fromErrno, Reason, SocketError } from "../../../SocketError.ts"
import { type Backing, type Events, type ResolvedOptions, WouldBlock } from "../../../Transport.ts"
import { callCost, turnBudget } from "../turn.ts"
import { nativeAddress } from "./addresses.ts"
import { badOptions, setKeepAlive } from "./options.ts"

export class NodeBacking implements Backing, Native {
  readonly localAddress: NetAddress.SocketAddress
  private remote: NetAddress.SocketAddress | undefined
  private readonly socket: Net.Socket
  private readonly sliceSize: number
  private events: Events = noEvents
  // Bytes that Node has delivered and no read has taken.
  private chunk: Buffer | undefined = undefined
  private chunkOffset = 0
  private flowing = false
  private pulling = false
  private ended = false
  private failure: SocketError | undefined = undefined
  private wantsRoom = false
  // Bytes that may still be written in this turn of the event loop.
  private writeBudget = turnBudget
  private hasYielded = false
  // The stream is closed as soon as bytes that had arrived before that have been read.
  private isLooking = false
  // A whole budget was written since the peer was last heard.
  private isAhead = false
  private watching = false
  private phase: "open" | "closing" | "closed" = "open"
  private closing: StreamClosing | undefined = undefined

  constructor(
    socket: Net.Socket,
    remote: NetAddress.SocketAddress | undefined,
    sliceSize: number,
    localAddress: NetAddress.SocketAddress
  ) {
    this.socket = socket
    this.remote = remote
    // Read once now: Node caches the address, and does not know it after the socket is destroyed.
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

  get failedWriteLosesInput(): boolean {
    return true
  }

  /** TLS takes over the `net.Socket` itself. */
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
    const buffer = BufferPool.acquire(length)
    const slice = length === buffer.byteLength ? buffer : buffer.subarray(0, length)
    source.copyTo(slice)
    if (socket.writableLength > 0) socket.write(slice, () => this.onFlushed(buffer))
    else {
      socket.write(slice)
      // Usually the kernel has taken all of it by now, and the buffer is free without waiting for a callback.
      if (socket.writableLength === 0) BufferPool.release(buffer)
      // The callback of an empty write behind it tells when the kernel has.
      else socket.write(nothing, () => this.onFlushed(buffer))
    }
    // Node reports a write that the kernel has refused by an event later. Here it is the result of the attempt.
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
    this.closing = new StreamClosing(this.socket, {
      hasEnded: () => this.ended,
      hasUnread: this.chunk !== undefined || this.socket.readableLength > 0,
      silence: () => this.mayBeUnderWay() ? silence : 0,
      holdsDescriptor: true
    })
    this.chunk = undefined
    this.closing.start()
    // From here on input is discarded.
    this.flowing = true
    this.socket.resume()
  }

  /** A read only resumes the socket; libuv looks for input when the event loop polls, which it has done by the second turn. */
  lookAgain(done: () => void): void {
    if (this.flowing && this.phase === "open") {
      this.isLooking = true
      setImmediate(() => setImmediate(done))
    } else done()
  }

  abort(): void {
    if (this.phase === "closed") {
      this.events.closed()
      return
    }
    const isClosing = this.phase === "closing"
    this.phase = "closing"
    this.chunk = undefined
    abortStream(this.socket, isClosing, () => this.reset())
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
    this.isAhead = false
    if (this.phase !== "open") {
      this.closing?.received()
      return
    }
    if (this.chunk === undefined) this.chunk = chunk
    else {
      this.chunk = Buffer.concat([this.chunk.subarray(this.chunkOffset), chunk])
      this.chunkOffset = 0
    }
    this.events.readable()
    // Bytes are left, so no read waits for more.
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
    if (this.phase !== "open") this.closing?.peerEnded()
    // The end may be newer than the close of this side, which then is what the read fails with.
    else if (!this.isLooking) this.events.readable()
  }

  // Whether the peer may not have got all of what was written since it was last heard, and would lose it if it sent to a
  // released descriptor. `node:net` does not tell what is acknowledged.
  private mayBeUnderWay(): boolean {
    return this.isAhead || turnBudget - this.writeBudget >= flight
  }

  // Node completes a write that the kernel takes at once within the same tick. If the peer keeps up, a writer would hold
  // the event loop for ever.
  private yieldTurn(): typeof WouldBlock {
    if (!this.hasYielded) {
      this.hasYielded = true
      this.isAhead = true
      setImmediate(() => {
        this.hasYielded = false
        this.writeBudget = turnBudget
        this.events.writable()
      })
    }
    return WouldBlock
  }

  private onFlushed(buffer: Buffer): void {
    BufferPool.release(buffer)
    if (this.wantsRoom && this.socket.writableLength <= this.sliceSize) {
      this.wantsRoom = false
      this.events.writable()
    }
  }

  // Node destroys the socket around this event. Bytes that it had received are still in its buffer.
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

  // After a reset, TCP refuses even an empty write; after a FIN it does not. Unix-domain sockets have no reset.
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

  // Takes the bytes that Node has read ahead. `read` also emits "data" from inside this call, which `pulling` ignores.
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

// ---- internal

// All connections share these listeners, which find the backing by a property of the socket. A set of closures for each
// connection would be a good part of the memory of an idle one.
const owner: unique symbol = Symbol("effect-asio/NodeBacking")

interface Owned extends Net.Socket {
  [owner]: NodeBacking
}

// `own` is called before the listeners are attached.
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

// Bytes that one flight of packets brings to the peer.
const flight = 16_384
// Milliseconds without input for which `close` waits for the end of a peer that more than a flight is under way to.
const silence = 1000

// libuv before 1.52 reports a reset behind unread bytes as the end of the stream.
const endMayBeReset = Number.parseInt(process.versions.node, 10) < 24
const nothing = Buffer.alloc(0)

// A small chunk may share its memory with others: then the memory is larger than the chunk.
const free = (chunk: Buffer): void => {
  if (chunk.byteLength >= freedFrom && chunk.byteLength === chunk.buffer.byteLength) freeMemory(chunk.buffer)
}
// For fewer bytes the call costs more than it saves.
const freedFrom = 16_384
