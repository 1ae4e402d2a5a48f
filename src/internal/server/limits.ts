import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as NetAddress from "effect/net/NetAddress"
import * as Predicate from "effect/Predicate"
import { positiveInteger } from "../base/checks.ts"
import { formatBytes, formatCount } from "../base/format.ts"

/** Which limit of a server was reached, with what was set. */
export type Limit = Data.TaggedEnum<{
  Connections: { readonly max: number }
  PerPeer: { readonly max: number; readonly peer: string }
  AcceptRate: { readonly limit: number; readonly window: Duration.Duration }
  BytesInFlight: { readonly max: number; readonly bytes: number }
  Handshake: { readonly within: Duration.Duration }
  FirstByte: { readonly within: Duration.Duration }
  Idle: { readonly within: Duration.Duration }
  Progress: { readonly bytes: number; readonly per: Duration.Duration; readonly taken: number }
}>

export const Limit = Data.taggedEnum<Limit>()

export const describe = (limit: Limit): string => {
  switch (limit._tag) {
    case "Connections":
      return `there are ${formatCount(limit.max)} connections`
    case "PerPeer":
      return `there are ${formatCount(limit.max)} connections from ${limit.peer}`
    case "AcceptRate":
      return `there were ${formatCount(limit.limit)} connections within ${Duration.format(limit.window)}`
    case "BytesInFlight":
      return `${formatBytes(limit.bytes)} wait to be written, over the limit of ${formatBytes(limit.max)}`
    case "Handshake":
      return `it was not prepared within ${Duration.format(limit.within)}`
    case "FirstByte":
      return `it sent nothing within ${Duration.format(limit.within)}`
    case "Idle":
      return `no byte moved for ${Duration.format(limit.within)}`
    case "Progress":
      return `its writes progressed by ${formatBytes(limit.taken)} in ${Duration.format(limit.per)}, not by ${
        formatCount(limit.bytes)
      }`
  }
}

// The public options; `Server` says what they mean.

export interface RejectMessage {
  readonly send: Uint8Array | string
  readonly within?: Duration.Input | undefined
}

export type LimitAction = "reset" | "close" | RejectMessage

export interface Limits {
  /** Connections in all. Default answer: `"wait"`. */
  readonly connections?: number | {
    readonly max: number
    readonly action?: "wait" | "reset" | RejectMessage | undefined
  } | undefined
  /**
   * Connections of one peer: of one IPv4 address, or one IPv6 network of
   * `ipv6Prefix` bits (default 64, what a customer gets; 128 for single
   * addresses). Peers of Unix-domain sockets are not counted. With
   * `proxyProtocol`, the client behind the proxy counts. Default answer: `"reset"`.
   */
  readonly perPeer?: number | {
    readonly max: number
    readonly ipv6Prefix?: number | undefined
    readonly action?: "reset" | RejectMessage | undefined
  } | undefined
  /**
   * Connections per time: `limit` at once, and then one for each part of the
   * window (a token bucket). Default answer: `"wait"`.
   */
  readonly acceptRate?: {
    readonly limit: number
    readonly window: Duration.Input
    readonly action?: "wait" | "reset" | RejectMessage | undefined
  } | undefined
  /**
   * Bytes in flight: of every write on an accepted socket that waits for room or
   * in line, those that were not taken yet, over all connections; what handlers
   * keep in memory because peers do not read. Bytes that the transport has taken
   * do not count. While they are over the limit no connection is admitted. Measured
   * every 100 milliseconds or more often. Default answer: `"wait"`.
   */
  readonly bytesInFlight?: number | {
    readonly max: number
    readonly action?: "wait" | "reset" | RejectMessage | undefined
  } | undefined
  /**
   * The time from acceptance to the handler: for the PROXY header. Default 10
   * seconds. Default answer: `"reset"`.
   */
  readonly handshake?: Duration.Input | {
    readonly within: Duration.Input
    readonly action?: LimitAction | undefined
  } | undefined
  /**
   * The time from acceptance, or from the end of the PROXY header, to the first
   * byte that was received. A byte is received when somebody reads: a handler that
   * does not read has none. Those of a TLS handshake are not seen, so with `tls` it
   * has to be as long as `handshake` at least. Default answer: `"reset"`.
   */
  readonly firstByte?: Duration.Input | {
    readonly within: Duration.Input
    readonly action?: LimitAction | undefined
  } | undefined
  /**
   * The time in which no byte is received and none is taken. Those of a TLS handshake
   * are not seen, so with `tls` it has to be as long as `handshake` at least. Default
   * answer: `"close"`.
   */
  readonly idle?: Duration.Input | {
    readonly within: Duration.Input
    readonly action?: LimitAction | undefined
  } | undefined
  /**
   * Slow consumers: while a write waits, at least `bytes` have to be taken in
   * each time `per`. Else the connection is reset: bytes would not reach such a
   * peer.
   *
   * **Gotchas**
   *
   * Systems take bytes in lumps: a full send buffer takes none until a third of it
   * or so is free, and may have grown to some megabytes. A peer that reads all the
   * time, but less than a lump in each `per`, is reset. So `per` has to be as long
   * as the slowest peer to be served needs for some megabytes, or the buffer to be
   * small (`sendBuffer`, where the transport can).
   */
  readonly progress?: { readonly bytes: number; readonly per: Duration.Input } | undefined
}

/** Bytes, and how long they and the close after them may take, in milliseconds. */
export interface ResolvedRejectMessage {
  readonly send: Uint8Array
  readonly within: number
}

export interface Within {
  /** Milliseconds. */
  readonly within: number
  readonly action: "reset" | "close" | ResolvedRejectMessage
}

/** `Server.Limits` with every short form written out. */
export interface ResolvedLimits {
  readonly connections: { readonly max: number; readonly action: "wait" | "reset" | ResolvedRejectMessage } | undefined
  readonly perPeer: {
    readonly max: number
    readonly ipv6Prefix: number
    readonly action: "reset" | ResolvedRejectMessage
  } | undefined
  readonly acceptRate: {
    readonly limit: number
    readonly window: Duration.Duration
    readonly action: "wait" | "reset" | ResolvedRejectMessage
  } | undefined
  readonly bytesInFlight:
    | { readonly max: number; readonly action: "wait" | "reset" | ResolvedRejectMessage }
    | undefined
  readonly handshake: Within
  readonly firstByte: Within | undefined
  readonly idle: Within | undefined
  /** `per` in milliseconds. */
  readonly progress: { readonly bytes: number; readonly per: number } | undefined
}

/** Throws a `RangeError` for what is no limit. */
export const resolve = (limits: Limits = {}): ResolvedLimits => {
  const { acceptRate, progress } = limits
  return {
    connections: resolveMax("connections", limits.connections, "wait"),
    perPeer: limits.perPeer === undefined ? undefined : {
      ...resolveMax("perPeer", limits.perPeer, "reset"),
      ipv6Prefix: prefix(typeof limits.perPeer === "number" ? undefined : limits.perPeer.ipv6Prefix)
    },
    acceptRate: acceptRate === undefined ? undefined : {
      limit: positiveInteger("Server.Limits.acceptRate.limit", acceptRate.limit),
      window: Duration.millis(millis("acceptRate.window", acceptRate.window)),
      action: resolveAction(acceptRate.action ?? "wait")
    },
    bytesInFlight: resolveMax("bytesInFlight", limits.bytesInFlight, "wait"),
    handshake: resolveWithin("handshake", limits.handshake ?? "10 seconds", "reset"),
    firstByte: limits.firstByte === undefined ? undefined : resolveWithin("firstByte", limits.firstByte, "reset"),
    idle: limits.idle === undefined ? undefined : resolveWithin("idle", limits.idle, "close"),
    progress: progress === undefined ? undefined : {
      bytes: positiveInteger("Server.Limits.progress.bytes", progress.bytes),
      per: millis("progress.per", progress.per)
    }
  }
}

/**
 * How often the server has to look at its connections, in milliseconds; `undefined` when it need not at all. An eighth
 * of the shortest time, so that a limit is met late by little, and no more often than costs nothing.
 */
export const checkInterval = (limits: ResolvedLimits, prepares: boolean): number | undefined => {
  const times = [
    limits.firstByte?.within,
    limits.idle?.within,
    limits.progress?.per,
    prepares ? limits.handshake.within : undefined,
    limits.bytesInFlight === undefined ? undefined : 800
  ].filter((time) => time !== undefined)
  return times.length === 0 ? undefined : Math.min(Math.max(Math.min(...times) / 8, 10), 1000)
}

/** Whom a connection counts for; `undefined` for nobody. IPv6 peers own networks, not addresses. */
export const peerKey = (address: NetAddress.SocketAddress, ipv6Prefix: number): string | undefined => {
  if (NetAddress.isUnixPathAddress(address)) return undefined
  const ip = NetAddress.toCanonical(address.address)
  if (NetAddress.isIpv4Address(ip) || ipv6Prefix === 128) return NetAddress.formatIp(ip)
  const segments = NetAddress.ipv6ToSegments(ip).map((segment, i) => {
    const bits = Math.min(Math.max(ipv6Prefix - i * 16, 0), 16)
    return segment & (0xffff << (16 - bits))
  })
  return `${segments.map((segment) => segment.toString(16)).join(":")}/${ipv6Prefix}`
}

// ---- internal

const millis = (name: string, input: Duration.Input): number => {
  const value = Duration.toMillis(Duration.fromInputUnsafe(input))
  if (value > 0) return value
  throw new RangeError(`Server.Limits.${name}: ${value} ms is not a time to wait`)
}

const prefix = (value = 64): number => {
  if (Number.isInteger(value) && value >= 0 && value <= 128) return value
  throw new RangeError(`Server.Limits.perPeer.ipv6Prefix: ${value} is not from 0 to 128`)
}

type Resolved<A> = Exclude<A, RejectMessage> | ResolvedRejectMessage

const resolveAction = <A extends string>(action: A | RejectMessage): A | ResolvedRejectMessage =>
  typeof action === "string" ? action : {
    send: typeof action.send === "string" ? new TextEncoder().encode(action.send) : action.send,
    within: Duration.toMillis(Duration.fromInputUnsafe(action.within ?? "1 second"))
  }

function resolveMax<A extends string>(
  name: string,
  limit: number | { readonly max: number; readonly action?: A | RejectMessage | undefined },
  usual: A
): { readonly max: number; readonly action: Resolved<A> | ResolvedRejectMessage }
function resolveMax<A extends string>(
  name: string,
  limit: number | { readonly max: number; readonly action?: A | RejectMessage | undefined } | undefined,
  usual: A
): { readonly max: number; readonly action: A | ResolvedRejectMessage } | undefined
function resolveMax<A extends string>(
  name: string,
  limit: number | { readonly max: number; readonly action?: A | RejectMessage | undefined } | undefined,
  usual: A
): { readonly max: number; readonly action: A | ResolvedRejectMessage } | undefined {
  if (limit === undefined) return undefined
  const { action, max } = typeof limit === "number" ? { max: limit, action: undefined } : limit
  return { max: positiveInteger(`Server.Limits.${name}`, max), action: resolveAction(action ?? usual) }
}

const resolveWithin = (
  name: string,
  limit: Duration.Input | { readonly within: Duration.Input; readonly action?: LimitAction | undefined },
  usual: "reset" | "close"
): Within => {
  const isLong = (value: typeof limit): value is Exclude<typeof limit, Duration.Input> =>
    Predicate.hasProperty(value, "within")
  return isLong(limit)
    ? { within: millis(name, limit.within), action: resolveAction(limit.action ?? usual) }
    : { within: millis(name, limit), action: usual }
}
