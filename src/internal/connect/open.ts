import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import { type Address, isSocketError, Reason, SocketError } from "../../SocketError.ts"
import type { StreamSocket } from "../../StreamSocket.ts"
import {
  type ConnectOptions,
  type ResolvedConnectOptions,
  resolveOptions,
  type ResolverFor,
  type Target,
  Transport
} from "../../Transport.ts"
import { counters } from "../base/counters.ts"
import { unsupported, unsupportedLocal } from "../base/unsupported.ts"
import { cancellable } from "../cancellation/cancellable.ts"
import { withoutSignals } from "../cancellation/scope.ts"
import { isNearEndOfSlice } from "../core/OperationQueue.ts"
import { Socket } from "../core/Socket.ts"
import { interleave, race, type RaceOptions, type ResolvedRaceOptions, resolveRaceOptions } from "./HappyEyeballs.ts"
import { nameOf, resolveHost } from "./resolveHost.ts"

/** Connects to a target and closes the connection with the scope: `StreamSocket.connect`, and the base of `Connector`. */
export const open = <T extends Target>(
  target: T,
  options: ConnectOptions | undefined,
  raceOptions: RaceOptions | undefined
): Effect.Effect<StreamSocket, SocketError, Transport | ResolverFor<T> | Scope.Scope> =>
  Effect.acquireRelease(
    Effect.flatMap(enoughTurn, () => {
      const opening = new Opening(target, resolveOptions(options), resolveRaceOptions(raceOptions))
      return Effect.onExit(
        cancellable(opening.run, { operation: "connect", address: () => nameOf(target) }),
        (exit) => {
          if (Exit.isSuccess(exit)) counters.completed++
          else if (Cause.hasInterrupts(exit.cause)) counters.cancelled.total++
          // A connection may be made in the moment of an interruption. It has no owner then.
          return Exit.isFailure(exit) && opening.socket !== undefined ? opening.socket.abort : Effect.void
        }
      )
    }),
    (socket) => withoutSignals(socket.close),
    { interruptible: true }
  )

// ---- internal

// A connection that is made at once must reach the scope before the turn of its fiber ends: at the end of a turn an
// interruption would lose it. So a turn with few steps left is ended first.
const enoughTurn = Effect.withFiber((fiber) => isNearEndOfSlice(fiber) ? Effect.yieldNow : Effect.void)

/** One call of `open`: looks the target up and connects to one of its addresses. */
class Opening<T extends Target> {
  /** Set in the moment in which the connection is made. */
  socket: Socket | undefined = undefined
  private readonly target: T
  private readonly options: ResolvedConnectOptions
  private readonly raceOptions: ResolvedRaceOptions

  constructor(target: T, options: ResolvedConnectOptions, raceOptions: ResolvedRaceOptions) {
    this.target = target
    this.options = options
    this.raceOptions = raceOptions
  }

  get run(): Effect.Effect<StreamSocket, SocketError, Transport | ResolverFor<T>> {
    return Effect.andThen(
      NetAddress.isSocketAddress(this.target)
        ? this.connectToAny(this.target, [this.target], this.raceOptions.timeout)
        : this.lookUpAndConnect,
      Effect.suspend(() => this.socket === undefined ? Effect.die("no connection") : Effect.as(enoughTurn, this.socket))
    )
  }

  private get lookUpAndConnect(): Effect.Effect<void, SocketError, Transport | ResolverFor<T>> {
    const { lookupTimeout, timeout } = this.raceOptions
    return Clock.clockWith((clock) => {
      const startedAt = clock.monotonicTimeNanosUnsafe()
      return Effect.flatMap(
        resolveHost("connect", this.target, Duration.millis(Math.min(lookupTimeout, timeout))),
        ({ addresses, name }) =>
          this.connectToAny(name, addresses, timeout - Number(clock.monotonicTimeNanosUnsafe() - startedAt) / 1e6)
      )
    })
  }

  private connectToAny(
    name: Address,
    addresses: ReadonlyArray<NetAddress.SocketAddress>,
    timeout: number
  ): Effect.Effect<void, SocketError, Transport> {
    const { attemptDelay, attemptTimeout, firstFamilyCount, maxAddresses } = this.raceOptions
    const { localAddress } = this.options
    // A caller that has chosen a local address must never connect from another one.
    const reachable = addresses.filter((address) => unsupportedLocal(address, localAddress) === undefined)
    const ordered = interleave(reachable, firstFamilyCount)
    const [only] = ordered
    if (only === undefined) {
      const features = addresses.map((address) => unsupportedLocal(address, localAddress))
      return Effect.fail(unsupported("connect", name, features.find((feature) => feature !== undefined) ?? ""))
    }
    return Effect.andThen(
      enoughTurn,
      Effect.flatMap(Transport, (transport) => {
        const connect = (address: NetAddress.SocketAddress) =>
          Effect.map(transport.connect(address, this.options), (backing) => new Socket(backing, this.options.linger))
        if (ordered.length === 1 && attemptTimeout === Infinity && timeout === Infinity) {
          return Effect.map(connect(only), this.onConnected)
        }
        return Effect.mapError(
          race(
            ordered.slice(0, maxAddresses),
            { attemptDelay, attemptTimeout, timeout },
            { connect, onConnected: this.onConnected, discard: (socket) => socket.abort }
          ),
          (failed) => {
            if (isSocketError(failed)) return failed
            const { attempts, errors } = failed
            return ordered.length > 1
              ? new SocketError({
                reason: Reason.ConnectFailed({ attempts, untried: ordered.length - attempts.length }),
                operation: "connect",
                address: name,
                transferred: 0
              })
              : errors[0] ??
                new SocketError({ reason: Reason.TimedOut(), operation: "connect", address: only, transferred: 0 })
          }
        )
      })
    )
  }

  private readonly onConnected = (socket: Socket): void => {
    this.socket = socket
  }
}
