import type { Duplex } from "node:stream"

/**
 * Ends a stream of Node without costing its peer bytes: flushes what was written, sends FIN, looks for unread input, and
 * then releases the descriptor.
 *
 * A descriptor that is released with unread input resets the connection, and the peer loses what it has not received yet.
 * So the owner discards input while the stream closes, and tells of it by `received`. If there was some, the descriptor
 * stays until the peer's end of stream. The linger time of `close` bounds the wait.
 */
export class StreamClosing {
  private readonly stream: Duplex
  private readonly peer: ClosingPeer
  private foundUnread: boolean
  private timer: NodeJS.Timeout | undefined = undefined

  constructor(stream: Duplex, peer: ClosingPeer) {
    this.stream = stream
    this.peer = peer
    this.foundUnread = peer.hasUnread
  }

  /** Flushes, sends FIN, and releases the descriptor when the peer allows it. */
  start(): void {
    const { stream } = this
    if (stream.writableFinished) this.onFlushed()
    else {
      stream.once("finish", () => this.onFlushed())
      stream.end()
    }
  }

  /** Input was discarded. */
  received(): void {
    this.foundUnread = true
    this.timer?.refresh()
  }

  /** The peer has ended, or reading has failed: no input can be lost any more. */
  peerEnded(): void {
    if (this.stream.writableFinished) this.stream.destroy()
  }

  /** The stream is closed. */
  stop(): void {
    clearTimeout(this.timer)
  }

  private onFlushed(): void {
    const { hasEnded } = this.peer
    const silence = this.peer.silence()
    if (hasEnded()) this.stream.destroy()
    else if (silence > 0) this.timer = setTimeout(this.release, silence)
    // Before a callback of the second turn from here, the event loop has polled, so input that is there has been read.
    else setImmediate(() => setImmediate(this.release))
  }

  private readonly release = (): void => {
    if (this.peer.hasEnded() || !this.foundUnread || !this.peer.holdsDescriptor) this.stream.destroy()
  }
}

export interface ClosingPeer {
  readonly hasEnded: () => boolean
  /** Input was there when the close began. */
  readonly hasUnread: boolean
  /** Milliseconds without input to wait for the end of a peer that is expected to send one; 0 not to wait. */
  readonly silence: () => number
  /** Whether this stream holds the descriptor, and not one below it that closes in its own way. */
  readonly holdsDescriptor: boolean
}

/** Ends a stream of Node at once. `reset` discards what has not left; it is not called if everything has. */
export const abortStream = (stream: Duplex, isClosing: boolean, reset: () => void): void => {
  if (stream.destroyed) return
  if (isClosing && stream.writableFinished) stream.destroy()
  // If a `net.Socket` is reset while libuv shuts it down, Node never releases the descriptor. With nothing left to flush, the
  // shutdown takes one turn of the event loop.
  else if (stream.writableEnded && !stream.writableFinished && stream.writableLength === 0) stream.once("finish", reset)
  else reset()
}
