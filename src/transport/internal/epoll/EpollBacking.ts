import * as NetAddress from "effect/net/NetAddress"
import * as Buffers from "../../../Buffers.ts"
import { noEvents } from "../../../internal/base/noEvents.ts"
import { unnamed } from "../../../internal/base/unnamed.ts"
import type { SocketError } from "../../../SocketError.ts"
import { type Backing, type Events, type ResolvedOptions, WouldBlock } from "../../../Transport.ts"
import { callCost, turnBudget } from "../turn.ts"
import * as Linux from "./linux.ts"
import { failure, setAll, tcpSettings } from "./options.ts"
import { broken, type Reactor, type Registered } from "./Reactor.ts"

/** A connection whose bytes are all in the kernel. */
export class EpollBacking implements Backing, Registered {
  fd: number
  readonly remoteAddress: NetAddress.SocketAddress
  private local: NetAddress.SocketAddress | undefined
  private readonly reactor: Reactor
  private events: Events = noEvents
  // Whether the last call emptied the receive buffer or filled the send buffer. Until an event says otherwise, another
  // call would block.
  private isDrained = false
  private isFull = false
  /**
   * A read shorter than its target has emptied the receive buffer, with three exceptions that need a second call: the end
   * of the stream, TCP urgent data, and descriptors sent over a Unix-domain path (no event tells of those).
   */
  private asksTwice: boolean
  // Bytes that may still be moved in this turn of the event loop.
  private readBudget = turnBudget
  private writeBudget = turnBudget
  private hasYielded = false
  // The end of the stream was read, so no input is unread.
  private hasEnded = false
  // Whether an operation waits for an event, which keeps the process alive.
  private waitsToRead = false
  private waitsToWrite = false
  /** The failure of the connection: writes fail with it, and reads do once the bytes that arrived have been read. */
  private error: SocketError | undefined = undefined
  private writeError: SocketError | undefined = undefined
  private phase: "open" | "closing" | "closed" = "open"
  // While closing: input was discarded, so that only the peer's end of stream makes a release safe.
  private hasHeard = false
  // While closing: the time-out behind which to ask anew what the peer has acknowledged, and its length in milliseconds.
  private acknowledging: NodeJS.Timeout | undefined = undefined
  private patience = firstPatience
  private wasDelivered = false
  /** The socket may be open under other descriptors, in this process or another one. */
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
      unnamed
  }

  attach(events: Events): void {
    this.events = events
  }

  read(target: Uint8Array): number | SocketError {
    const { linux } = this.reactor
    while (!this.isDrained) {
      if (this.readBudget <= 0) return this.yieldTurn()
      const max = Math.min(target.byteLength, this.readBudget)
      const count = linux.recv(this.fd, target, max)
      if (count > 0) {
        this.readBudget -= count + callCost
        this.isDrained = count < Linux.requested && !this.asksTwice
        return count
      }
      if (count === 0) {
        this.hasEnded = true
        return this.error ?? 0
      }
      if (count === -Linux.EINTR) continue
      if (count !== -Linux.EAGAIN) return this.error ??= failure("socket", this.remoteAddress, -count)
      if (this.error !== undefined) return this.error
      this.isDrained = true
    }
    if (!this.waitsToRead) {
      this.waitsToRead = true
      this.reactor.ref()
    }
    return WouldBlock
  }

  write(source: Buffers.Cursor, limit: number): number | SocketError {
    if (this.writeError !== undefined) return this.writeError
    const { linux } = this.reactor
    const max = Math.min(limit, source.remaining, Math.max(1, this.writeBudget))
    const first = source.chunk(max)
    if (first.byteLength < source.remaining && source.transferred === 0) assertFixed(source, max)
    try {
      while (!this.isFull) {
        if (this.writeBudget <= 0) return this.yieldTurn()
        const count = first.byteLength === max ? linux.send(this.fd, first) : this.sendPieces(source, max)
        if (count >= 0) {
          this.writeBudget -= count + callCost
          // The kernel took less than it was offered, so its buffer is full, and EPOLLOUT follows once there is room.
          this.isFull = count < Linux.requested
          return count
        }
        if (count === -Linux.EINTR) continue
        if (count !== -Linux.EAGAIN) return this.fail(-count)
        this.isFull = true
      }
    } catch (cause) {
      if (!mayCopy(source, max)) throw cause
      const length = source.copyTo(scratch.subarray(0, Math.min(max, scratch.byteLength)))
      return this.write(new Buffers.Cursor(scratch.subarray(0, length)), length)
    }
    if (!this.waitsToWrite) {
      this.waitsToWrite = true
      this.reactor.ref()
    }
    return WouldBlock
  }

  /**
   * Sends large pieces by one call from where they are. Small pieces are copied together first, which costs less.
   */
  private sendPieces(source: Buffers.Cursor, max: number): number {
    const { linux } = this.reactor
    const pieces = source.pieces(max, Linux.maxPieces)
    let gathered = 0
    let length = 0
    for (let i = 0; i < pieces.length; i++) {
      length += pieces[i]?.byteLength ?? 0
      if (length >= (i + 1) * gatheredFrom) gathered = i + 1
    }
    // All pieces in one call, or a copy of all that fit into `scratch`: no piece can be refused after others have left.
    if (gathered === pieces.length || (gathered > 0 && source.remaining > scratch.byteLength)) {
      return linux.sendAll(this.fd, pieces, gathered)
    }
    const copied = source.copyTo(scratch.subarray(0, Math.min(max, scratch.byteLength)))
    return linux.send(this.fd, scratch.subarray(0, copied))
  }

  shutdownWrite(): number | SocketError {
    if (this.writeError !== undefined) return this.writeError
    const { linux } = this.reactor
    const done = linux.shutdownWrite(this.fd)
    if (done === 0) return 0
    // The connection is gone. The socket may still hold the error that says why.
    return this.fail(linux.takeError(this.fd) || -done)
  }

  close(): void {
    if (this.phase !== "open") {
      if (this.phase === "closed") this.events.closed()
      return
    }
    this.phase = "closing"
    if (this.hasEnded && !this.isShared) {
      // Closing the descriptor sends FIN.
      this.release()
      return
    }
    const { linux } = this.reactor
    // The kernel delivers what was taken although the descriptor is closed. But input that is unread then, or that comes
    // later, resets the connection, and the peer loses what it has not got. So the descriptor stays open while bytes are
    // unacknowledged, and if there is input, until the peer's end of stream.
    const isDelivered = linux.unacknowledged(this.fd) <= 0
    linux.shutdownWrite(this.fd)
    if (this.isShared) linux.clearLinger(this.fd)
    const found = this.discard()
    if (found === "nothing" && isDelivered) this.release()
    else {
      this.hasHeard = found === "some"
      this.onClosing()
    }
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

  overdue(): void {
    // The peer is slow and has sent nothing: the kernel delivers without the descriptor.
    if (this.phase === "closing" && !this.hasHeard) this.release()
    else this.abort()
  }

  interestDropped(direction: "read" | "write"): void {
    // While closing, the backing itself waits for the peer.
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

  /** Updates the state by the flags of an event. */
  note(flags: number): void {
    if (flags === 0) this.hasYielded = false
    // A connection that has yielded goes on when the reactor calls it again, and not at an event before that.
    if (!this.hasYielded) this.readBudget = this.writeBudget = turnBudget
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
      if (flags === 0) this.hasYielded = false
      if (!this.hasYielded) this.onClosing()
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
    // A resumed reader may have closed the connection.
    if (this.isOpen() && !this.isFull) this.events.writable()
  }

  /** Keeps the failure, which the kernel reports once. After a broken pipe the reader still gets bytes and the end. */
  private fail(errno: number): SocketError {
    const error = failure("socket", this.remoteAddress, errno)
    // Bytes may have arrived whose event has not been delivered. The core serves the readers before it fails the writers.
    this.isDrained = false
    if (errno !== Linux.EPIPE) this.error ??= error
    return this.writeError ??= error
  }

  // A method, because the compiler does not see that a resumed fiber can change `phase`.
  private isOpen(): boolean {
    return this.phase === "open"
  }

  private onClosing(): void {
    const found = this.discard()
    if (found === "some") this.hasHeard = true
    if (found === "end") {
      this.release()
      return
    }
    if (!this.hasHeard) this.acknowledging ??= setTimeout(askAgain, this.patience, this)
    if (!this.waitsToRead) {
      this.waitsToRead = true
      this.reactor.ref()
    }
  }

  /** No event tells of an acknowledgement. */
  askAgain(): void {
    this.acknowledging = undefined
    if (this.phase !== "closing" || this.hasHeard) return
    const wasDelivered = this.wasDelivered
    this.wasDelivered = this.isDelivered()
    if (wasDelivered && this.wasDelivered) this.release()
    else {
      // A program that has got the last bytes may answer to them, and would fail by that.
      this.patience = this.wasDelivered ? maxPatience : Math.min(2 * this.patience, maxPatience)
      this.onClosing()
    }
  }

  /** Whether the peer has everything, a FIN excepted, which counts as one byte over TCP. */
  private isDelivered(): boolean {
    return this.reactor.linux.unacknowledged(this.fd) <= (NetAddress.isUnixPathAddress(this.remoteAddress) ? 0 : 1)
  }

  /** Discards unread input. Returns whether it found nothing, some bytes, or the end of the stream. */
  private discard(): "nothing" | "some" | "end" {
    const { linux } = this.reactor
    let found: "nothing" | "some" = "nothing"
    for (let left = turnBudget; left > 0;) {
      const count = linux.recv(this.fd, scratch, scratch.byteLength)
      if (count > 0) {
        found = "some"
        left -= count + callCost
      } else if (count === -Linux.EAGAIN) return found
      else if (count !== -Linux.EINTR) return "end"
    }
    this.yieldTurn()
    return found
  }

  /** The budget of this turn is used up. The reactor calls `onEvents(0)` in the next turn. */
  private yieldTurn(): typeof WouldBlock {
    if (!this.hasYielded) {
      this.hasYielded = true
      this.reactor.reschedule(this)
    }
    return WouldBlock
  }

  private release(): void {
    if (this.phase === "closed") return
    // Read now, because the kernel does not know it after the descriptor is closed.
    void this.localAddress
    this.phase = "closed"
    clearTimeout(this.acknowledging)
    this.settleRead()
    this.settleWrite()
    if (this.isShared) this.reactor.remove(this)
    else this.reactor.unregister(this)
    this.reactor.linux.close(this.fd)
    this.fd = -1
    this.events.closed()
  }

  private settleRead(): void {
    if (!this.waitsToRead) return
    this.waitsToRead = false
    this.reactor.unref()
  }

  private settleWrite(): void {
    if (!this.waitsToWrite) return
    this.waitsToWrite = false
    this.reactor.unref()
  }
}

// ---- internal

const askAgain = (backing: EpollBacking): void => backing.askAgain()

// Milliseconds.
const firstPatience = 1
const maxPatience = 128

// Memory for copying small pieces together. Only one call runs at a time.
const scratch = new Uint8Array(65_536)

// The average size in bytes from which passing the addresses of pieces to the kernel costs less than copying them.
const gatheredFrom = 4096

/** Checks all pieces of a write that takes several calls, so that a piece is refused before any byte has left. */
const assertFixed = (source: Buffers.Cursor, max: number): void => {
  if (source.remaining <= max && max <= scratch.byteLength) return
  for (const piece of source.pieces()) {
    if (piece.byteLength >= gatheredFrom) Linux.assertFixed(piece)
  }
}

/**
 * Whether the kernel may get a copy of memory that cannot be passed to it (resizable buffers): of small pieces, and of
 * every piece behind bytes that have left already, where a refusal would come too late.
 */
const mayCopy = (source: Buffers.Cursor, max: number): boolean => {
  const hidden = source.pieces(max).filter((piece) => !Linux.isFixed(piece))
  const isAlone = source.chunk().byteLength === source.remaining
  return hidden.length > 0 &&
    (source.transferred > 0 || (!isAlone && hidden.every(({ byteLength }) => byteLength < gatheredFrom)))
}
