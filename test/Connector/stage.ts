/**
 * Races on virtual time: a name whose addresses behave as planned, and a log of what was done when.
 *
 * Addresses are called by a letter or a number, and a family: `a6`, `b6`, `a4`, `n12.4`, ...
 */
import { assert } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as AddressResolver from "effect/net/AddressResolver"
import * as NetAddress from "effect/net/NetAddress"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import * as Connector from "../../src/Connector.ts"
import { Reason, SocketError } from "../../src/SocketError.ts"
import { Transport } from "../../src/Transport.ts"
import { ending } from "../support/exits.ts"
import { FakeBacking } from "../support/fakes.ts"
import { start } from "../support/waiting.ts"

/** How an attempt ends, and after how many milliseconds; `release` is how long its release then takes. */
export interface Fate {
  readonly kind: "connects" | "refuses" | "hangs" | "dies"
  readonly after: number
  readonly release?: number
}

export const connects = (after: number, release = 0): Fate => ({ kind: "connects", after, release })
export const refuses = (after: number): Fate => ({ kind: "refuses", after })
export const hangs: Fate = { kind: "hangs", after: Infinity }
export const hangsAndLingers = (release: number): Fate => ({ ...hangs, release })
export const dies = (after: number): Fate => ({ kind: "dies", after })

export type Label = string

const port = 7000

export const addressOf = (label: Label): NetAddress.InetAddress => {
  const [, letter, digits, family] = /^(?:([a-z])|n(\d+)\.)([46])$/.exec(label) ?? assert.fail(`no label: ${label}`)
  const number = letter === undefined ? Number(digits) : Number.parseInt(letter, 36)
  return NetAddress.inetAddressFromStringUnsafe(
    family === "6" ? `[2001:db8::${number.toString(16)}]:${port}` : `192.0.${2 + (number >> 8)}.${number & 255}:${port}`
  )
}

export interface Told {
  /** When each attempt was started, how it went on, and what was released: milliseconds first. */
  readonly log: ReadonlyArray<string>
  /** When and how `connect` ended. */
  readonly end: string
}

export interface Plan {
  readonly fates: ReadonlyArray<readonly [Label, Fate]>
  readonly options?: Connector.Options
  /** How long the look-up takes. Default: none, the target is answered at once. */
  readonly lookup?: number
  readonly interruptAt?: number
  readonly around?: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/** Runs the plan, checks that no resource is left, and succeeds with what has happened. */
export const play = ({ around = (it) => it, fates, interruptAt, lookup = 0, options }: Plan): Effect.Effect<Told> =>
  Effect.gen(function*() {
    const log: Array<string> = []
    const labels = new Map(fates.map(([label]) => [NetAddress.formatInet(addressOf(label)), label]))
    const labelOf = (address: NetAddress.SocketAddress) =>
      labels.get(NetAddress.formatSocketAddress(address)) ?? NetAddress.formatSocketAddress(address)
    const byLabel = new Map(fates)
    const clock = yield* Clock.clockWith(Effect.succeed)
    const beginning = clock.currentTimeMillisUnsafe()
    const say = (what: string) => log.push(`${clock.currentTimeMillisUnsafe() - beginning} ${what}`)
    const peers = new Set<Peer>()
    let attempts = 0

    class Peer extends FakeBacking {
      override readonly remoteAddress: NetAddress.InetAddress
      override releases = []
      private readonly after: number
      private readonly run: (effect: Effect.Effect<void>) => unknown

      constructor(address: NetAddress.InetAddress, after: number, run: (effect: Effect.Effect<void>) => unknown) {
        super()
        this.remoteAddress = address
        this.after = after
        this.run = run
        peers.add(this)
      }
      override close(): void {
        this.end("closed")
      }
      override abort(): void {
        this.end("aborted")
      }
      private end(how: string): void {
        say(`${labelOf(this.remoteAddress)} ${how}`)
        const released = Effect.sync(() => {
          peers.delete(this)
          if (this.after > 0) say(`${labelOf(this.remoteAddress)} released`)
          this.events?.closed()
        })
        if (this.after === 0) Effect.runSync(released)
        else this.run(Effect.delay(released, this.after))
      }
    }

    const attempt = (address: NetAddress.SocketAddress) =>
      Effect.contextWith((context: Context.Context<never>) => {
        const label = labelOf(address)
        const { after, kind, release = 0 } = byLabel.get(label) ?? assert.fail(`no address ${label} in the plan`)
        say(label)
        attempts++
        const outcome = kind === "connects"
          ? Effect.sync(() => {
            say(`${label} connected`)
            return new Peer(addressOf(label), release, Effect.runForkWith(context))
          })
          : kind === "dies"
          ? Effect.die(new Error(`${label} is a bug`))
          : Effect.suspend(() => {
            say(`${label} refused`)
            return Effect.fail(
              new SocketError({
                reason: Reason.ConnectionRefused(),
                operation: "connect",
                address,
                transferred: 0,
                code: "ECONNREFUSED"
              })
            )
          })
        const waited = kind === "hangs" ? Effect.never : after === 0 ? Effect.void : Effect.sleep(after)
        return Effect.ensuring(
          Effect.andThen(
            Effect.onInterrupt(waited, () =>
              Effect.andThen(
                Effect.sync(() => say(`${label} cut`)),
                release === 0 ?
                  Effect.void :
                  Effect.andThen(Effect.sleep(release), Effect.sync(() => say(`${label} released`)))
              )),
            outcome
          ),
          Effect.sync(() => {
            attempts--
          })
        )
      })

    const transport = Transport.of({ name: "told", connect: attempt, listen: () => Effect.die("not here") })
    const addresses = fates.map(([label]) => addressOf(label))
    const answer = () => Effect.delay(Effect.succeed(addresses), lookup)
    // The one signature that is asked for stands for its overloads.
    const resolver = { resolve: answer } as unknown as AddressResolver.AddressResolver["Service"]

    let fibers = 0
    const told = yield* Effect.gen(function*() {
      const scope = yield* Scope.make()
      let ended: { readonly time: number; readonly open: number; readonly attempts: number } | undefined
      const fiber = yield* start(
        Effect.onExit(
          around(Scope.provide(Connector.connect(`db.internal:${port}`, options), scope)),
          () =>
            Effect.sync(() => {
              ended = { time: clock.currentTimeMillisUnsafe() - beginning, open: peers.size, attempts }
            })
        )
      )
      if (interruptAt !== undefined) {
        yield* TestClock.adjust(interruptAt)
        fiber.interruptUnsafe()
      }
      yield* TestClock.adjust("2 hours")
      if (ended === undefined) return assert.fail(`still connecting: ${log.join(", ")}`)
      const exit = yield* Fiber.await(fiber)
      // All attempts were released before `connect` has ended.
      assert.strictEqual(ended.attempts, 0, "attempts that were still on their way")
      assert.strictEqual(ended.open, Exit.isSuccess(exit) ? 1 : 0, "connections that were still open")
      const { time } = ended
      const before = log.length
      yield* TestClock.adjust("1 day")
      assert.strictEqual(log.length, before, "something went on")
      const said = [...log]
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("1 day")
      assert.strictEqual(peers.size, 0, "the scope closes the winner")
      return {
        log: said,
        end: `${time} ${Exit.isSuccess(exit) ? labelOf(exit.value.remoteAddress) : tell(exit, labelOf)}`
      }
    }).pipe(
      Effect.provideService(Transport, transport),
      Effect.provideService(AddressResolver.AddressResolver, resolver),
      Effect.provideService(Metric.FiberRuntimeMetrics, {
        recordFiberStart: () => {
          fibers++
        },
        recordFiberEnd: () => {
          fibers--
        }
      })
    )
    assert.strictEqual(fibers, 0, "fibers left")
    return told
  })

const tell = (exit: Exit.Exit<unknown, unknown>, labelOf: (address: NetAddress.SocketAddress) => string): string => {
  const error = Exit.isFailure(exit) && !Cause.hasDies(exit.cause)
    ? exit.cause.reasons.find(Cause.isFailReason)?.error
    : undefined
  if (!(error instanceof SocketError) || error.reason._tag !== "ConnectFailed") return ending(exit)
  const { attempts, untried } = error.reason
  const each = attempts.map(({ address, reason, startedAfter, took }) =>
    `${labelOf(address)} ${reason._tag} ${Duration.toMillis(startedAfter)}+${Duration.toMillis(took)}`
  )
  return [...each, ...(untried === 0 ? [] : [`${untried} untried`])].join(", ")
}
