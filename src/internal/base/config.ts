/** Reads options from the configuration, each by its own name. A value out of range is a `ConfigError`. */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { SocketOptions } from "../../Transport.ts"

export const maybe = <A>(self: Config.Config<A>): Config.Config<A | undefined> =>
  Config.map(Config.option(self), Option.getOrUndefined)

const PositiveInt = Schema.FiniteFromString.check(Schema.isInt(), Schema.isGreaterThan(0))

export const positiveInt = (name: string): Config.Config<number> => Config.schema(PositiveInt, name)

/** Bytes, as a number or with a unit: `65536`, `64KiB`. */
export const size = (name: string): Config.Config<number> =>
  Config.map(Config.schema(Schema.Union([PositiveInt, PositiveSize]), name), Number)

const PositiveSize = Schema.ByteSize.check(Schema.makeFilter((bytes) => bytes > 0n || "a size of at least one byte"))

/** A duration longer than 0. */
export const time = (name: string): Config.Config<Duration.Duration> => Config.schema(PositiveTime, name)

const PositiveTime = Schema.DurationFromString.check(
  Schema.makeFilter((time) => Duration.toMillis(time) > 0 || "a time longer than none")
)

const keepAlive: Config.Config<SocketOptions["keepAlive"]> = Config.flatMap(
  Config.nested(
    Config.all({
      idle: maybe(Config.Duration("idle")),
      interval: maybe(Config.Duration("interval")),
      count: maybe(positiveInt("count"))
    }),
    "keepAlive"
  ),
  (probes): Config.Config<SocketOptions["keepAlive"]> =>
    Object.values(probes).some((value) => value !== undefined)
      ? Config.succeed(probes)
      : maybe(Config.orElse(Config.Boolean("keepAlive"), () => Config.Duration("keepAlive")))
)

/** The fields of `SocketOptions`. */
export const socketOptions = {
  noDelay: maybe(Config.Boolean("noDelay")),
  keepAlive,
  userTimeout: maybe(Config.Duration("userTimeout")),
  sendBuffer: maybe(size("sendBuffer")),
  receiveBuffer: maybe(size("receiveBuffer")),
  linger: maybe(Config.Duration("linger")),
  sliceSize: maybe(size("sliceSize"))
}
