import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import type { Health } from "../../Server.ts"
import { isSocketError, type SocketError } from "../../SocketError.ts"
import type * as StreamSocket from "../../StreamSocket.ts"
import * as Write from "../../Write.ts"
import { formatAddress } from "../base/format.ts"
import { exceeded } from "../cancellation/interruption.ts"
import { handlerEnd } from "../core/handlerEnd.ts"
import type { PeerMistakes } from "../core/PeerMistakes.ts"
import type { ConnectionRegistry } from "./ConnectionRegistry.ts"
import type { Limit, ResolvedRejectMessage, TimeLimit } from "./limits.ts"
import { Connection, type Established, type ServerConnection } from "./ServerConnection.ts"

/** One step between the acceptance of a connection and its handler: the PROXY header, the TLS handshake. */
export type HandshakeStep = (accepted: Established) => Effect.Effect<Established, HandshakeError>

export type HandshakeError = SocketError | Cause.Done

/** The options that concern one connection. */
export interface HandlerOptions<R> {
  /** Its scope closes when it ends, before its connection is closed. */
  readonly handler: (
    socket: StreamSocket.StreamSocket,
    connection: Connection
  ) => Effect.Effect<unknown, unknown, R | Connection | Scope.Scope>
  /** If there is none, failures are logged. */
  readonly onError:
    | ((cause: Cause.Cause<unknown>, connection: Connection) => Effect.Effect<unknown, never, R>)
    | undefined
  readonly mistakes: PeerMistakes
  readonly onHandshakeFailure: (
    cause: Cause.Cause<HandshakeError>,
    connection: Connection
  ) => Effect.Effect<unknown, never, R>
  readonly onLimit: (limit: Limit, connection: Connection) => Effect.Effect<unknown, never, R>
  readonly onFailure: "abort" | "close"
  readonly handshakeSteps: ReadonlyArray<HandshakeStep>
}

/**
 * Runs each connection in a fiber of its own: handshake steps, handler, end, reports. The fiber is no child of another
 * fiber, and always runs `end`.
 */
export class ConnectionRunner<R> {
  private readonly registry: ConnectionRegistry
  private readonly service: HandlerOptions<R>
  /** The context of every fiber of the server. */
  private readonly context: Context.Context<R>
  private rejectMessages = 0

  constructor(registry: ConnectionRegistry, service: HandlerOptions<R>, context: Context.Context<R>) {
    this.registry = registry
    this.service = service
    this.context = context
  }

  start(connection: ServerConnection): void {
    // The scope is provided in the context and not by a combinator around the handler, which would stay on the stack of
    // every idle connection.
    const scope = Scope.makeUnsafe()
    const context = Context.add(this.contextOf(connection), Scope.Scope, scope)
    // Uninterruptible from its first step, so that the fiber always ends its connection.
    Effect.runForkWith(context)(this.run(connection, scope), { uninterruptible: true })
  }

  private run(
    connection: ServerConnection,
    scope: Scope.Closeable
  ): Effect.Effect<void, never, R | Connection | Scope.Scope> {
    return Effect.withFiber((fiber) => {
      connection.fiber = fiber
      if (connection.limit !== undefined) return this.end(connection, Exit.void)
      return Effect.flatMap(Effect.exit(Effect.interruptible(this.serve(connection))), (exit) => {
        const closing = Scope.closeUnsafe(scope, exit)
        return closing === undefined
          ? this.end(connection, exit)
          // A failure of a finalizer counts as a failure of the handler.
          : Effect.flatMap(Effect.exit(Effect.onExit(exit, () => closing)), (exit) => this.end(connection, exit))
      })
    })
  }

  private serve(connection: ServerConnection): Effect.Effect<unknown, unknown, R | Connection | Scope.Scope> {
    const { handler, handshakeSteps } = this.service
    if (handshakeSteps.length === 0) {
      connection.phase = "running"
      return Effect.suspend(() => handler(connection.socket, connection))
    }
    let prepared: Effect.Effect<Established, HandshakeError> = Effect.succeed(connection)
    for (const step of handshakeSteps) prepared = Effect.flatMap(prepared, step)
    return Effect.flatMap(prepared, (prepared) => {
      connection.established = prepared
      const limit = this.registry.admitPeer(connection)
      if (limit !== undefined) {
        this.registry.refuse(connection, limit)
        return Effect.void
      }
      connection.handlerStarts(this.registry.now)
      return Effect.updateContext(
        Effect.suspend(() => handler(prepared.socket, connection)),
        // Until here the log annotations named the proxy.
        (context: Context.Context<R | Connection | Scope.Scope>) => annotated(context, connection)
      )
    })
  }

  private end(connection: ServerConnection, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    const { limit } = connection
    const handshakeFailure =
      connection.phase === "handshake" && limit === undefined && this.registry.phase !== "aborted"
        ? handshakeFailureOf(exit)
        : undefined
    connection.phase = "ending"
    const { failure, isCut, mistake } = handlerEnd(connection.socket, exit)
    const failed = handshakeFailure === undefined ? failure : undefined
    const close = isCut
      ? connection.socket.abort
      : limit !== undefined
      ? this.close(connection, connection.action)
      : (failed !== undefined && this.service.onFailure === "abort") ||
          (handshakeFailure !== undefined && handshakeFailure.why !== "Gone")
      ? connection.socket.abort
      : connection.socket.close
    let reported: Effect.Effect<unknown> = Effect.void
    if (handshakeFailure !== undefined) {
      this.registry.count((counts) => counts.handshakeFailures[handshakeFailure.why]++)
      reported = this.report(connection, () => this.service.onHandshakeFailure(handshakeFailure.cause, connection))
    }
    if (failed !== undefined) {
      this.registry.count((counts) => counts.failures++)
    }
    if (handshakeFailure === undefined && (failed !== undefined || mistake !== undefined)) {
      reported = this.report(connection, () => this.onEnd(connection, failed, mistake))
    }
    if (limit !== undefined) {
      reported = Effect.andThen(
        reported,
        this.report(connection, () => this.service.onLimit(limit, connection))
      )
    }
    return Effect.andThen(
      close,
      Effect.suspend(() => {
        this.registry.released(connection)
        return Effect.ensuring(reported, Effect.sync(() => this.registry.remove(connection)))
      })
    )
  }

  private onEnd(
    connection: ServerConnection,
    failure: Cause.Cause<unknown> | undefined,
    mistake: SocketError | undefined
  ): Effect.Effect<unknown, never, R> {
    const { mistakes, onError } = this.service
    if (failure !== undefined && onError !== undefined) return onError(failure, connection)
    const { remoteAddress } = connection
    return mistake === undefined
      ? Effect.logError(`the connection from ${formatAddress(remoteAddress)} failed`, failure)
      : mistakes.tell(remoteAddress, `ended: ${mistake.message}`)
  }

  /** Runs one report. A report that fails does not keep the others from running. */
  private report(connection: ServerConnection, told: () => Effect.Effect<unknown, never, R>): Effect.Effect<unknown> {
    const reported = Effect.catchCause(
      Effect.suspend(told),
      (cause) => logSafely(Effect.logError("a report of the server failed", cause))
    )
    return Effect.updateContext(reported, (_: Context.Context<never>) => this.contextOf(connection))
  }

  private contextOf(connection: ServerConnection): Context.Context<R | Connection> {
    return Context.add(annotated(this.context, connection), Connection, connection)
  }

  private close(connection: ServerConnection, answer: TimeLimit["action"]): Effect.Effect<void> {
    if (answer === "reset") return connection.socket.abort
    if (answer === "close") return connection.socket.close
    // A large number of these at once is an attack, and each one holds a descriptor.
    if (this.rejectMessages >= maxRejectMessages) return connection.socket.abort
    this.rejectMessages++
    return Effect.ensuring(sendRejectMessage(connection, answer), Effect.sync(() => this.rejectMessages--))
  }
}

/** Logs, and ignores a logger that throws: the code behind the log line has to run. */
export const logSafely: (log: Effect.Effect<void>) => Effect.Effect<void> = Effect.ignoreCause

// ---- internal

const maxRejectMessages = 128

const sendRejectMessage = (
  connection: ServerConnection,
  message: ResolvedRejectMessage
): Effect.Effect<void> =>
  Effect.andThen(
    // Interruptible children, because this runs in an uninterruptible region.
    Effect.raceFirst(
      Effect.interruptible(
        Effect.ignore(Effect.andThen(Write.writeAll(connection.socket, message.send), connection.socket.close))
      ),
      Effect.interruptible(exceeded(message, () => connection.bytesWritten))
    ),
    connection.socket.abort
  )

const annotated = <R>(context: Context.Context<R>, connection: ServerConnection): Context.Context<R> =>
  Context.add(context, References.CurrentLogAnnotations, {
    ...Context.get(context, References.CurrentLogAnnotations),
    ...connection.annotations
  })

type HandshakeFailureKind = keyof Health["handshakeFailures"]

/**
 * The kind of a failure that the peer caused before the handler started. A defect is a fault of the program, and a
 * connection that the server ended has not failed: `undefined` for both.
 */
const handshakeFailureOf = (
  exit: Exit.Exit<unknown, unknown>
): { readonly why: HandshakeFailureKind; readonly cause: Cause.Cause<HandshakeError> } | undefined => {
  if (Exit.isSuccess(exit) || Cause.hasDies(exit.cause)) return undefined
  for (const reason of exit.cause.reasons) {
    const why = Cause.isFailReason(reason) ? handshakeFailureKind(reason.error) : undefined
    // Only handshake steps run before the handler, so the failure is one of theirs.
    if (why !== undefined) return { why, cause: exit.cause as Cause.Cause<HandshakeError> }
  }
  return undefined
}

const handshakeFailureKind = (error: unknown): HandshakeFailureKind | undefined => {
  if (Cause.isDone(error)) return "Gone"
  if (!isSocketError(error) || ownDoing.has(error.reason._tag)) return undefined
  return handshakeFailures.get(error.reason._tag) ?? "Gone"
}

const handshakeFailures: ReadonlyMap<string, HandshakeFailureKind> = new Map([
  ["Untrusted", "Untrusted"],
  ["Framing", "Malformed"],
  ["LimitExceeded", "Malformed"],
  ["Tls", "Tls"]
])

const ownDoing: ReadonlySet<string> = new Set(["Closed", "OperationAborted"])
