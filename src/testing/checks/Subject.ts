/**
 * A check, and the subject under test that it needs.
 *
 * @since 0.1.0
 */
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { SocketError } from "../../SocketError.ts"
import type { StreamSocket } from "../../StreamSocket.ts"
import type { SocketOptions } from "../../Transport.ts"

/**
 * Capabilities that not every platform has. Everything else is required.
 *
 * **Details**
 *
 * - `reset`: `abort` makes the peer see `ConnectionReset`. TCP can, Unix-domain
 *   sockets cannot.
 * - `halfClose`: `shutdownWrite` ends one direction and leaves the other open.
 * - `readAfterWriteFailure`: after a failed write, bytes that were still on
 *   their way can be read too, with the end of stream behind them. Bytes that
 *   had been received already are required of every transport.
 *
 * @category models
 * @since 0.1.0
 */
export interface Capabilities {
  readonly reset: boolean
  readonly halfClose: boolean
  readonly readAfterWriteFailure: boolean
}

/**
 * The transport under test.
 *
 * **Details**
 *
 * `pair` makes one new connection, both ends of it, and closes them with the
 * scope. `advance` lets time pass for the transport and for Effect:
 * `Effect.sleep` where real time runs, `TestClock.adjust` where it does not.
 *
 * @category models
 * @since 0.1.0
 */
export interface Subject {
  readonly name: string
  readonly pair: (
    options?: Pick<SocketOptions, "linger">
  ) => Effect.Effect<readonly [StreamSocket, StreamSocket], SocketError, Scope.Scope>
  readonly advance: (duration: Duration.Duration) => Effect.Effect<void>
  readonly can: Capabilities
}

/**
 * One promise of the stream contract.
 *
 * **Details**
 *
 * `run` succeeds when the subject keeps the promise. It dies with an `Error`
 * that says what was expected and what happened when it does not.
 *
 * @category models
 * @since 0.1.0
 */
export interface Check {
  readonly name: string
  /** Run it only on a subject that can do this. */
  readonly needs: keyof Capabilities | undefined
  readonly run: (subject: Subject) => Effect.Effect<void, unknown, Scope.Scope>
}
