import type { Duplex } from "node:stream"
import type { Backing } from "../../Transport.ts"
import { version } from "./copies.ts"

/** The member of a backing that gives a layer above it the platform's own stream. Only backings over `node:net` have it. */
export const native: unique symbol = Symbol.for(`~effect-asio/native@${version}`)

export interface Native {
  /** How many bytes the stream has received and no read has taken. */
  unread(): number
  /**
   * Gives the stream away for good: paused, and with those bytes in it. From here on all its events are for the new owner. The
   * backing keeps its addresses and can still be configured, and does nothing else.
   */
  release(): NativeStream
}

/** A stream whose descriptor `node:tls` can use directly: a `net.Socket`. */
export interface NativeStream extends Duplex {
  readonly resetAndDestroy: () => unknown
  /** Bytes received from the system, those in the stream included. */
  readonly bytesRead: number
}

export const nativeOf = (backing: Backing): Native | undefined => {
  // The key names this version of the package, so a value under it has the type that this version declares.
  const { [native]: found } = backing as Backing & { readonly [native]?: Native }
  return found
}
