import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Predicate from "effect/Predicate"
import type * as Server from "../../Server.ts"
import { positiveInteger } from "../base/checks.ts"
import { formatBytes, formatCount } from "../base/format.ts"
import type { Bounds } from "../cancellation/interruption.ts"

export type Limit = Server.Limit

export const Limit: Data.TaggedEnum.Constructor<Limit> = Data.taggedEnum<Limit>()

export const describe = (limit: Server.Limit): string => {
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
      return `its handshake was not over within ${Duration.format(limit.within)}`
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

/** A `RejectMessage` as bytes, with the bounds of sending and closing together. */
export interface ResolvedRejectMessage extends Bounds {
  readonly send: Uint8Array
}

export interface TimeLimit {
  /** Milliseconds. */
  readonly within: number
  readonly action: "reset" | "close" | ResolvedRejectMessage
}

/** `Server.Limits` with every short form and default filled in. */
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
  readonly handshake: TimeLimit
  readonly firstByte: TimeLimit | undefined
  readonly idle: TimeLimit | undefined
  /** `per` in milliseconds. */
  readonly progress: { readonly bytes: number; readonly per: number } | undefined
}

/** Fills in the defaults. Throws a `RangeError` for a value out of range. */
export const resolve = (limits: Server.Limits = {}): ResolvedLimits => {
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
 * The interval in milliseconds at which `LimitMonitor` checks all connections: 1/8 of the shortest limit, between 10 ms
 * and 1 s; `undefined` if no limit needs it.
 */
export const checkInterval = (limits: ResolvedLimits, hasHandshake: boolean): number | undefined => {
  const times = [
    limits.firstByte?.within,
    limits.idle?.within,
    limits.progress?.per,
    hasHandshake ? limits.handshake.within : undefined,
    limits.bytesInFlight === undefined ? undefined : 800
  ].filter((time) => time !== undefined)
  return times.length === 0 ? undefined : Math.min(Math.max(Math.min(...times) / 8, 10), 1000)
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

type Resolved<A> = Exclude<A, Server.RejectMessage> | ResolvedRejectMessage

const resolveAction = <A extends string>(action: A | Server.RejectMessage): A | ResolvedRejectMessage =>
  typeof action === "string" ? action : {
    send: typeof action.send === "string" ? new TextEncoder().encode(action.send) : action.send,
    within: Duration.fromInputUnsafe(action.within ?? "1 second"),
    atMost: Duration.fromInputUnsafe(action.atMost ?? "30 seconds")
  }

function resolveMax<A extends string>(
  name: string,
  limit: number | { readonly max: number; readonly action?: A | Server.RejectMessage | undefined },
  defaultAction: A
): { readonly max: number; readonly action: Resolved<A> | ResolvedRejectMessage }
function resolveMax<A extends string>(
  name: string,
  limit: number | { readonly max: number; readonly action?: A | Server.RejectMessage | undefined } | undefined,
  defaultAction: A
): { readonly max: number; readonly action: A | ResolvedRejectMessage } | undefined
function resolveMax<A extends string>(
  name: string,
  limit: number | { readonly max: number; readonly action?: A | Server.RejectMessage | undefined } | undefined,
  defaultAction: A
): { readonly max: number; readonly action: A | ResolvedRejectMessage } | undefined {
  if (limit === undefined) return undefined
  const { action, max } = typeof limit === "number" ? { max: limit, action: undefined } : limit
  return { max: positiveInteger(`Server.Limits.${name}`, max), action: resolveAction(action ?? defaultAction) }
}

const resolveWithin = (
  name: string,
  limit: Duration.Input | { readonly within: Duration.Input; readonly action?: Server.LimitAction | undefined },
  defaultAction: "reset" | "close"
): TimeLimit => {
  const isLong = (value: typeof limit): value is Exclude<typeof limit, Duration.Input> =>
    Predicate.hasProperty(value, "within")
  return isLong(limit)
    ? { within: millis(name, limit.within), action: resolveAction(limit.action ?? defaultAction) }
    : { within: millis(name, limit), action: defaultAction }
}
