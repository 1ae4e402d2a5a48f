import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as NetAddress from "effect/net/NetAddress"
import * as Scope from "effect/Scope"
import type * as Acceptor from "../../Acceptor.ts"
import { isSocketError, type SocketError } from "../../SocketError.ts"
import type * as StreamSocket from "../../StreamSocket.ts"
import type * as Tls from "../../Tls.ts"
import { detachScope } from "../base/detachScope.ts"
import { accepting } from "../core/accepting.ts"
import { Operation, OperationQueue } from "../core/OperationQueue.ts"
import { secureServer } from "../tls/server.ts"

type OnFailure = ((error: SocketError) => unknown) | undefined

/**
 * The connections of an acceptor over TLS, in the order in which their handshakes end. Handshakes run side by side, so a slow
 * peer delays no other. While no `accept` waits, no connection is taken from the acceptor.
 */
export class TlsAcceptQueue {
  readonly acceptor: Acceptor.Acceptor
  private readonly context: Tls.ServerContext
  private readonly onHandshakeFailure: OnFailure
  private readonly queue: OperationQueue = new OperationQueue(this)
  private readonly handshakes = Scope.makeUnsafe("parallel")
  /** Connections whose handshake has succeeded and that no `accept` has taken. */
  private readonly ready: Array<Tls.TlsSocket> = []
  /** Accepts while an `accept` waits. */
  private loop: Fiber.Fiber<never, SocketError> | undefined = undefined
  private isClosed = false

  constructor(
    acceptor: Acceptor.Acceptor,
    context: Tls.ServerContext,
    onHandshakeFailure: OnFailure
  ) {
    this.acceptor = acceptor
    this.context = context
    this.onHandshakeFailure = onHandshakeFailure
  }

  get take(): Effect.Effect<Tls.TlsSocket, SocketError> {
    return Effect.withFiber((fiber) => this.queue.run(fiber, new AcceptSecure(this)))
  }

  get close(): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.isClosed = true
      return Effect.andThen(
        Effect.andThen(this.acceptor.close, Scope.close(this.handshakes, Exit.void)),
        Effect.suspend(() =>
          Effect.forEach(this.ready.splice(0), (socket) => socket.abort, { concurrency: "unbounded", discard: true })
        )
      )
    })
  }

  attempt(): Exit.Exit<Tls.TlsSocket, SocketError> | undefined {
    const socket = this.isClosed ? undefined : this.ready.shift()
    return socket === undefined ? undefined : Exit.succeed(socket)
  }

  /** No `accept` waits any more. */
  interestDropped(): void {
    const { loop } = this
    this.loop = undefined
    loop?.interruptUnsafe()
  }

  /** An `accept` has begun to wait. */
  startLoop(): void {
    if (this.loop !== undefined) return
    const loop = Effect.runFork(accepting(this.acceptor, {
      accepted: (plain) => Effect.forkIn(this.secure(plain), this.handshakes, startNow),
      failed: (error) => Effect.sync(() => this.fail(Exit.fail(error)))
    }))
    this.loop = loop
    // Called at once if the loop has ended already, for example because the acceptor is closed.
    loop.addObserver((exit) => {
      if (this.loop !== loop) return
      this.loop = undefined
      this.fail(exit)
      if (this.queue.front !== undefined) this.startLoop()
    })
  }

  /** The failure of one attempt to accept is that of the `accept` that has waited longest. */
  private fail(exit: Exit.Exit<never, SocketError>): void {
    if (this.queue.front !== undefined) this.queue.settle(this.queue.front, exit)
    this.queue.pump("dropInterestIfEmpty")
  }

  private secure(plain: StreamSocket.StreamSocket): Effect.Effect<void> {
    return Effect.matchCauseEffect(Effect.interruptible(detachScope(secureServer(plain, this.context, {}))), {
      onSuccess: (socket) =>
        Effect.sync(() => {
          this.ready.push(socket)
          this.queue.pump("dropInterestIfEmpty")
        }),
      onFailure: (cause) =>
        Effect.andThen(plain.abort, Cause.hasInterruptsOnly(cause) ? Effect.void : this.report(Cause.squash(cause)))
    })
  }

  // In a fiber of its own, which `close` does not wait for: `onHandshakeFailure` may be the caller of `close`.
  private report(error: unknown): Effect.Effect<unknown> {
    const { onHandshakeFailure } = this
    if (!isSocketError(error)) return Effect.logError("a handshake failed", error)
    // A cause of Effect comes from `identityFor`: the program has failed, not the peer.
    if (onHandshakeFailure === undefined) {
      return Cause.isCause(error.cause) ? Effect.logError(error.message, error.cause) : Effect.logDebug(error.message)
    }
    return Effect.forkDetach(
      Effect.catchCause(
        Effect.promise(async () => onHandshakeFailure(error)),
        (cause) => Effect.logError("onHandshakeFailure failed", cause)
      ),
      startNow
    )
  }
}

class AcceptSecure extends Operation<Tls.TlsSocket, SocketError> {
  readonly operation = "accept"
  readonly total = 0
  private readonly accepts: TlsAcceptQueue

  constructor(accepts: TlsAcceptQueue) {
    super()
    this.accepts = accepts
  }

  override get address(): NetAddress.SocketAddress {
    return this.accepts.acceptor.address
  }

  attempt(): Exit.Exit<Tls.TlsSocket, SocketError> | undefined {
    return this.accepts.attempt()
  }

  override wait(): Effect.Effect<Tls.TlsSocket, SocketError> {
    return Effect.callback((resume) => {
      this.waiter = resume
      this.accepts.startLoop()
      return this.interrupt()
    })
  }
}

// ---- internal

const startNow = { startImmediately: true, uninterruptible: true } as const
