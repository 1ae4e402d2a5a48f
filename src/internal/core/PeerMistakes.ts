import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as NetAddress from "effect/net/NetAddress"
import { formatAddress, formatCount, oneLine } from "../base/format.ts"
import { peerKey } from "../base/peerKey.ts"

/**
 * Tells what peers do wrong in the log: one line a minute and peer, with the count of those that were not told. A peer is
 * an IPv4 address, an IPv6 network of 64 bits, or all peers of Unix-domain sockets. Peers are strangers and may be many,
 * so those behind the first `maxPeers` of a minute are one peer together.
 */
export class PeerMistakes {
  /** By peer; in the order of their last lines, oldest first. */
  private readonly told = new Map<string, Told>()

  /** Logs `what` about a peer: at the level `Info`, or `Debug` for all but the first in a minute. */
  tell(peer: NetAddress.SocketAddress, what: string): Effect.Effect<void> {
    return Effect.flatMap(Clock.Clock, (clock) => {
      const line = oneLine(`the connection from ${formatAddress(peer)} ${what}`).slice(0, maxLength)
      const now = clock.monotonicTimeNanosUnsafe()
      const key = this.keyOf(peer, now)
      const before = this.told.get(key)
      if (before !== undefined && now - before.at < minute) {
        before.untold++
        return Effect.logDebug(line)
      }
      // Deleted first, so that it moves behind all others.
      this.told.delete(key)
      this.told.set(key, { at: now, untold: 0 })
      if (before === undefined || before.untold === 0) return Effect.logInfo(line)
      const whose = key === others ? "of other peers" : "of this peer"
      return Effect.logInfo(`${line} (and ${formatCount(before.untold)} more ${whose} since its last line)`)
    })
  }

  private keyOf(peer: NetAddress.SocketAddress, now: bigint): string {
    const key = peerKey(peer, 64) ?? "unix"
    if (this.told.has(key) || this.told.size < maxPeers) return key
    for (const [key, { at, untold }] of this.told) {
      if (now - at < minute) break
      // A count that was not told is kept for one more minute.
      if (untold === 0 || now - at >= 2n * minute) this.told.delete(key)
    }
    return this.told.size < maxPeers ? key : others
  }
}

// ---- internal

interface Told {
  /** When its last line was logged, in nanoseconds by the monotonic clock. */
  readonly at: bigint
  /** How many were not told since. */
  untold: number
}

const minute = 60_000_000_000n
const maxPeers = 1000
const maxLength = 500

/** The key of all peers beyond `maxPeers`. It is no address. */
const others = "others"
