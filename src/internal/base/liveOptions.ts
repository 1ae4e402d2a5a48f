import * as Duration from "effect/Duration"
import type { Backing, KeepAlive, LiveOptions, ResolvedOptions, SocketOptions } from "../../Transport.ts"
import { positiveInteger } from "./checks.ts"

/** The options that `configure` hands to a transport: those that are given, with their defaults filled in. */
export const resolveLiveOptions = (options: LiveOptions): Parameters<Backing["configure"]>[0] => ({
  ...(options.noDelay === undefined ? undefined : { noDelay: options.noDelay }),
  ...(options.keepAlive === undefined ? undefined : { keepAlive: resolveKeepAlive(options.keepAlive) }),
  ...(options.userTimeout === undefined
    ? undefined
    : { userTimeout: Duration.fromInputUnsafe(options.userTimeout) })
})

export const resolveKeepAlive = (input: SocketOptions["keepAlive"]): ResolvedOptions["keepAlive"] => {
  if (input === undefined || typeof input === "boolean") return input ?? false
  const { count, idle, interval }: KeepAlive = isKeepAlive(input) ? input : { idle: input }
  return {
    idle: wholeSeconds(idle ?? "2 hours"),
    // The interval that libuv sets, so that every transport finds a dead peer after the same time.
    interval: wholeSeconds(interval ?? "1 second"),
    count: Math.min(127, positiveInteger("KeepAlive.count", count ?? 10))
  }
}

// ---- internal

const isKeepAlive = (input: Duration.Input | KeepAlive): input is KeepAlive =>
  typeof input === "object" &&
  ("idle" in input || "interval" in input || "count" in input || Object.keys(input).length === 0)

const wholeSeconds = (input: Duration.Input): Duration.Duration =>
  Duration.seconds(Math.max(1, Math.min(32_767, Math.ceil(Duration.toSeconds(Duration.fromInputUnsafe(input))))))
