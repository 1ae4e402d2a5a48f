import type { Duplex } from "node:stream"
import type { Backing } from "../../Transport.ts"
import { version } from "./copies.ts"

/** How a layer above a transport gets at the platform's own stream under a backing, where there is one. */
export const native: unique symbol = Symbol.for(`~effect-asio/native@${version}`)

export interface Native {
  /** Bytes that were received and that nobody has read. */
  unread(): number
  /**
   * Lets go of the stream for good and answers it, paused, with those bytes still in it. From here on all its events
   * are the new owner's; the backing knows nothing but its addresses and how to be configured.
   */
  release(): NativeStream
}

/** What `node:tls` can take over from the inside: a `net.Socket`. */
export interface NativeStream extends Duplex {
  readonly resetAndDestroy: () => unknown
}

export const nativeOf = (backing: Backing): Native | undefined => {
  // A key of this version: what has it is what it says.
  const { [native]: found } = backing as Backing & { readonly [native]?: Native }
  return found
}
