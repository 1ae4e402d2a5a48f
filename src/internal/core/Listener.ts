import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import type { Acceptor } from "../../Acceptor.ts"
import { during, isSocketError, Reason, SocketError } from "../../SocketError.ts"
import type { StreamSocket } from "../../StreamSocket.ts"
import { type Backing, type ListenerBacking, WouldBlock } from "../../Transport.ts"
import { isOfThisVersion, version } from "../base/copies.ts"
import { withoutSignals } from "../cancellation/scope.ts"
import { Operation, OperationQueue } from "./OperationQueue.ts"
import { Socket } from "./Socket.ts"

export const TypeId: unique symbol = Symbol.for("~effect-asio/Acceptor")

/** The key by which a `Listener` of another installed copy of this package is recognized; see `base/copies.ts`. */
const CoreId: unique symbol = Symbol.for("~effect-asio/Listener")

class Accept extends Operation<Backing, SocketError> {
  readonly operation = "accept"
  readonly total = 0
  private readonly acceptor: Listener

  constructor(acceptor: Listener) {
    super()
    this.acceptor = acceptor
  }

  override get address(): NetAddress.SocketAddress {
    return this.acceptor.address
  }

  attempt(): Exit.Exit<Backing, SocketError> | undefined {
    return this.acceptor.attempt()
  }
}

/** The one implementation of `Acceptor`. */
export class Listener implements Acceptor {
  readonly [TypeId]: typeof TypeId = TypeId
  private readonly queue: OperationQueue = new OperationQueue(this)
  private readonly backing: ListenerBacking
  private readonly linger: Duration.Duration
  private isClosed = false

  constructor(backing: ListenerBacking, linger: Duration.Duration) {
    this.backing = backing
    this.linger = linger
    backing.attach({ acceptable: () => this.queue.pump("keepInterest") })
  }

  get [CoreId](): string {
    return version
  }

  get address(): NetAddress.SocketAddress {
    return this.backing.address
  }

  get accept(): Effect.Effect<StreamSocket, SocketError, Scope.Scope> {
    return Effect.acquireRelease(this.take, (socket) => withoutSignals(socket.close), { interruptible: true })
  }

  get take(): Effect.Effect<StreamSocket, SocketError> {
    return Effect.map(
      Effect.withFiber((fiber) => this.queue.run(fiber, new Accept(this))),
      (backing) => new Socket(backing, this.linger)
    )
  }

  get close(): Effect.Effect<void> {
    return Effect.sync(() => {
      if (this.isClosed) return
      this.isClosed = true
      this.backing.close()
      this.queue.pump("keepInterest")
    })
  }

  takeNow(): StreamSocket | undefined {
    const exit = this.attempt()
    return exit !== undefined && Exit.isSuccess(exit) ? new Socket(exit.value, this.linger) : undefined
  }

  interestDropped(): void {
    if (!this.isClosed) this.backing.interestDropped?.()
  }

  detachFd(): number | SocketError {
    if (this.isClosed) return errorOf(this, Reason.Closed(), "detachFd")
    if (this.queue.front !== undefined) {
      return errorOf(this, Reason.Busy({ detail: "accept waits on the address" }), "detachFd")
    }
    const answer = this.backing.detach?.() ??
      errorOf(this, Reason.Unsupported({ feature: "giving away an address of this transport" }), "detachFd")
    if (typeof answer === "number") this.isClosed = true
    return answer
  }

  attempt(): Exit.Exit<Backing, SocketError> | undefined {
    if (this.isClosed) return Exit.fail(errorOf(this, Reason.Closed(), "accept"))
    const answer = this.backing.accept()
    if (answer === WouldBlock) return undefined
    return isSocketError(answer)
      ? Exit.fail(during(answer, { operation: "accept", transferred: 0 }))
      : Exit.succeed(answer)
  }
}

/** The acceptor as a `Listener`; `undefined` if this library did not make it. */
export const listenerOf = (acceptor: object): Listener | undefined => isListener(acceptor) ? acceptor : undefined

const isListener = (acceptor: object): acceptor is Listener =>
  acceptor instanceof Listener || isOfThisVersion(acceptor, CoreId, "acceptor")

/** The next connection, if one is there already. */
export const takeNow = (acceptor: Acceptor): StreamSocket | undefined => listenerOf(acceptor)?.takeNow()

export const errorOf = ({ address }: Acceptor, reason: Reason, operation: string): SocketError =>
  new SocketError({ reason, operation, address, transferred: 0 })
