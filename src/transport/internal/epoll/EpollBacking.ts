import * as NetAddress from "effect/net/NetAddress"
import * as Buffers from "../../../Buffers.ts"
import { noEvents } from "../../../internal/base/noEvents.ts"
import type { SocketError } from "../../../SocketError.ts"
import { type Backing, type Events, type ResolvedOptions, WouldBlock } from "../../../Transport.ts"
import * as Linux from "./linux.ts"
import { failure, setAll, tcpSettings } from "./options.ts"
import { broken, type Reactor, type Registered } from "./Reactor.ts"

/** A connection, as the kernel knows it. */
export class EpollBacking implements Backing, Registered {
  fd: number
  readonly remoteAddress: NetAddress.SocketAddress
  private local: NetAddress.SocketAddress | undefined
  private readonly reactor: Reactor
  private events: Events = noEvents
  // What the kernel was last known to answer, so that it is not asked twice.
  private isDrained = false
  private isFull = false
  /**
   * A read that brings less than there was room for has emptied the connection, unless something stands in between: the
   * end of the stream, TCP's urgent data, or (nothing tells of it) descriptors that were sent along a Unix-domain path.
   */
  private asksTwice: boolean
  // What may be moved until the next event.
  private readBudget = turnBudget
  private writeBudget = turnBudget
  private hasYielded = false
  // The end of the stream was read: nothing is unread, and nothing comes.
  private hasEnded = false
  // Whether the reactor has been told that somebody waits.
  private waitsToRead = false
  private waitsToWrite = false
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
      if (this.readBudget <= 0) return this.yieldTurn()
      const max = Math.min(target.byteLength, this.readBudget)
      const count = linux.recv(this.fd, target, max)
      if (count > 0) {
        this.readBudget -= count + callCost
        this.isDrained = count < max && !this.asksTwice
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
        offered = max
        const count = first.byteLength === max ? linux.send(this.fd, first) : this.sendPieces(source, max)
        if (count >= 0) {
          this.writeBudget -= count + callCost
          // The kernel took less than it was offered, so its buffer is full, and EPOLLOUT follows once there is room.
          this.isFull = count < offered
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
   * Large pieces leave from where they are, by one call; small ones are put together first, which costs less. Leaves in
   * `offered` how many bytes the kernel was shown.
   */
  private sendPieces(source: Buffers.Cursor, max: number): number {
    const { linux } = this.reactor
    const pieces = source.pieces(max, Linux.maxPieces)
    let gathered = 0
    let length = 0
    let gatheredLength = 0
    for (let i = 0; i < pieces.length; i++) {
      length += pieces[i]?.byteLength ?? 0
      if (length < (i + 1) * gatheredFrom) continue
      gathered = i + 1
      gatheredLength = length
    }
    // Either all of what fits into the scratch, or none: then nothing is left that could still be refused.
    if (gathered === pieces.length || (gathered > 0 && source.remaining > scratch.byteLength)) {
      offered = gatheredLength
      return linux.sendAll(this.fd, pieces, gathered)
    }
    const copied = source.copyTo(scratch.subarray(0, Math.min(max, scratch.byteLength)))
    offered = copied
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
    if (this.hasEnded && !this.isShared) {
      // Closing the descriptor sends FIN.
      this.release()
      return
    }
    const { linux } = this.reactor
    // Everything taken is the kernel's already, and goes on its way behind a closed descriptor. Only unread input would
    // turn FIN into a reset: if there is any, the peer's end of stream is awaited.
    linux.shutdownWrite(this.fd)
    if (this.isShared) linux.clearLinger(this.fd)
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

  interestDropped(direction: "read" | "write"): void {
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
    if (flags === 0) this.hasYielded = false
    // Who is to have another turn has it then, and not a second one for an event in between.
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
    if (!this.waitsToRead) {
      this.waitsToRead = true
      this.reactor.ref()
    }
  }

  /** Throws unread input away, and answers whether there was none, some, or the end of the stream. */
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

  /** It has moved enough for this turn; the next one is an event. */
  private yieldTurn(): typeof WouldBlock {
    if (!this.hasYielded) {
      this.hasYielded = true
      this.reactor.reschedule(this)
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

// One call at a time uses them: memory to put small pieces together, and how many bytes the last call offered.
const scratch = new Uint8Array(65_536)
let offered = 0

// Bytes that pieces must have on the average, so that telling the kernel their addresses costs less than copying them.
const gatheredFrom = 4096

// Bytes that a connection may move before the others have their turn; a call counts as some, so that tiny ones end too.
const turnBudget = 1024 * 1024
const callCost = 1024

/** The whole of what takes several calls, once: what is refused is refused before anything of it has left. */
const assertFixed = (source: Buffers.Cursor, max: number): void => {
  if (source.remaining <= max && max <= scratch.byteLength) return
  for (const piece of source.pieces()) {
    if (piece.byteLength >= gatheredFrom) Linux.assertFixed(piece)
  }
}

/**
 * Whether the kernel was to be shown memory that it must not see, and it can have a copy instead: of small pieces, and
 * of whatever comes behind bytes that have left, where a refusal would be too late.
 */
const mayCopy = (source: Buffers.Cursor, max: number): boolean => {
  const hidden = source.pieces(max).filter((piece) => !Linux.isFixed(piece))
  const isAlone = source.chunk().byteLength === source.remaining
  return hidden.length > 0 &&
    (source.transferred > 0 || (!isAlone && hidden.every(({ byteLength }) => byteLength < gatheredFrom)))
}
