import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as References from "effect/References"
import * as Scope from "effect/Scope"
import * as Cancellation from "../../Cancellation.ts"
import { isSocketError, type SocketError } from "../../SocketError.ts"
import type * as StreamSocket from "../../StreamSocket.ts"
import * as Write from "../../Write.ts"
import { formatAddress } from "../base/format.ts"
import type { Account } from "./ConnectionRegistry.ts"
import type { Limit, ResolvedFarewell, Within } from "./limits.ts"
import { Connection, type Health } from "./model.ts"
import type { Live, Prepared } from "./ServerConnection.ts"

/** What happens to a connection between its acceptance and its handler, in its own fiber. */
export type Preparation = (accepted: Prepared) => Effect.Effect<Prepared, PreparationError>

export type PreparationError = SocketError | Cause.Done

/** What is done with each connection. */
export interface Service<R> {
  /** Its scope ends with it, before its connection. */
  readonly handler: (
    socket: StreamSocket.StreamSocket,
    connection: Connection
  ) => Effect.Effect<unknown, unknown, R | Connection | Scope.Scope>
  readonly onError: (cause: Cause.Cause<unknown>, connection: Connection) => Effect.Effect<unknown, never, R>
  readonly onHandshakeFailure: (
    cause: Cause.Cause<PreparationError>,
    connection: Connection
  ) => Effect.Effect<unknown, never, R>
  readonly onLimit: (limit: Limit, connection: Connection) => Effect.Effect<unknown, never, R>
  readonly onFailure: "abort" | "close"
  readonly preparations: ReadonlyArray<Preparation>
}

/**
 * The way of each connection: its preparations, its handler, its end and the report of that. Its fiber belongs to nobody
 * else and always runs `end`.
 */
export class Serving<R> {
  private readonly account: Account
  private readonly service: Service<R>
  /** What every fiber of the server has. */
  private readonly context: Context.Context<R>
  private farewells = 0

  constructor(account: Account, service: Service<R>, context: Context.Context<R>) {
    this.account = account
    this.service = service
    this.context = context
  }

  begin(live: Live): void {
    // In its context and not around the handler: a region would stay on the stack of every idle connection.
    const scope = Scope.makeUnsafe()
    const context = Context.add(this.contextOf(live), Scope.Scope, scope)
    // Uninterruptible from its first moment, so that whatever happens the fiber ends its connection.
    Effect.runForkWith(context)(this.run(live, scope), { uninterruptible: true })
  }

  private run(live: Live, scope: Scope.Closeable): Effect.Effect<void, never, R | Connection | Scope.Scope> {
    return Effect.withFiber((fiber) => {
      live.fiber = fiber
      if (live.limit !== undefined) return this.end(live, Exit.void)
      return Effect.flatMap(Effect.exit(Effect.interruptible(this.serve(live))), (exit) => {
        const closing = Scope.closeUnsafe(scope, exit)
        return closing === undefined
          ? this.end(live, exit)
          // What fails in it counts with the handler.
          : Effect.flatMap(Effect.exit(Effect.onExit(exit, () => closing)), (exit) => this.end(live, exit))
      })
    })
  }

  private serve(live: Live): Effect.Effect<unknown, unknown, R | Connection | Scope.Scope> {
    const { handler, preparations } = this.service
    if (preparations.length === 0) {
      live.phase = "running"
      return Effect.suspend(() => handler(live.socket, live))
    }
    let prepared: Effect.Effect<Prepared, PreparationError> = Effect.succeed(live)
    for (const prepare of preparations) prepared = Effect.flatMap(prepared, prepare)
    return Effect.flatMap(prepared, (prepared) => {
      live.prepared = prepared
      const limit = this.account.admitPeer(live)
      if (limit !== undefined) {
        this.account.refuse(live, limit)
        return Effect.void
      }
      live.begin(this.account.now)
      return Effect.updateContext(
        Effect.suspend(() => handler(prepared.socket, live)),
        // The connection began with the annotations of the proxy.
        (context: Context.Context<R | Connection | Scope.Scope>) => annotated(context, live)
      )
    })
  }

  private end(live: Live, exit: Exit.Exit<unknown, unknown>): Effect.Effect<void> {
    const { limit } = live
    const strange = live.phase === "preparing" && limit === undefined && this.account.rung !== "aborted"
      ? strangenessOf(exit)
      : undefined
    live.phase = "ending"
    const failed = strange === undefined && Exit.isFailure(exit) && !isQuiet(exit.cause, live) ? exit.cause : undefined
    const close = isCut(exit, live)
      ? live.socket.abort
      : limit !== undefined
      ? this.close(live, live.answer)
      : (failed !== undefined && this.service.onFailure === "abort") ||
          (strange !== undefined && strange.why !== "Gone")
      ? live.socket.abort
      : live.socket.close
    let reported: Effect.Effect<unknown> = Effect.void
    if (strange !== undefined) {
      this.account.count((counts) => counts.handshakeFailures[strange.why]++)
      reported = this.report(live, () => this.service.onHandshakeFailure(strange.cause, live))
    }
    if (failed !== undefined) {
      this.account.count((counts) => counts.failures++)
      reported = this.report(live, () => this.service.onError(failed, live))
    }
    if (limit !== undefined) {
      reported = Effect.andThen(
        reported,
        this.report(live, () => this.service.onLimit(limit, live))
      )
    }
    return Effect.andThen(
      close,
      Effect.suspend(() => {
        this.account.leave(live)
        return Effect.ensuring(reported, Effect.sync(() => this.account.forget(live)))
      })
    )
  }

  /** Each report by itself, so that one that fails leaves the others, and in the scope of the server. */
  private report(live: Live, told: () => Effect.Effect<unknown, never, R>): Effect.Effect<unknown> {
    const reported = Effect.catchCause(
      Effect.suspend(told),
      (cause) => say(Effect.logError("a report of the server failed", cause))
    )
    return Effect.updateContext(reported, (_: Context.Context<never>) => this.contextOf(live))
  }

  private contextOf(live: Live): Context.Context<R | Connection> {
    return Context.add(annotated(this.context, live), Connection, live)
  }

  private close(live: Live, answer: Within["answer"]): Effect.Effect<void> {
    if (answer === "reset") return live.socket.abort
    if (answer === "close") return live.socket.close
    // Many of these at once are an attack, and would hold as many descriptors.
    if (this.farewells >= maxFarewells) return live.socket.abort
    this.farewells++
    return Effect.ensuring(farewell(live, answer), Effect.sync(() => this.farewells--))
  }
}

/** A logger that throws must not end what goes on after the log. */
export const say: (log: Effect.Effect<void>) => Effect.Effect<void> = Effect.ignoreCause

// ---- internal

const maxFarewells = 128

const farewell = (live: Live, { send, within }: ResolvedFarewell): Effect.Effect<void> =>
  Effect.andThen(
    // Interruptible children, because this runs in an uninterruptible region.
    Effect.raceFirst(
      Effect.interruptible(Effect.ignore(Effect.andThen(Write.writeAll(live.socket, send), live.socket.close))),
      Effect.interruptible(Effect.sleep(within))
    ),
    live.socket.abort
  )

const annotated = <R>(context: Context.Context<R>, live: Live): Context.Context<R> =>
  Context.add(context, References.CurrentLogAnnotations, {
    ...Context.get(context, References.CurrentLogAnnotations),
    ...live.annotations
  })

/** The peer went, or we have ended it: nothing went wrong. */
const isQuiet = (cause: Cause.Cause<unknown>, live: Live): boolean =>
  cause.reasons.every((reason) => {
    if (Cause.isInterruptReason(reason)) return true
    if (!Cause.isFailReason(reason)) return false
    const { error } = reason
    if (Cause.isDone(error)) return true
    if (!isSocketError(error)) return false
    if (error.reason._tag === "OperationAborted") return true
    // A handler may have other sockets, and their failures are news.
    const isOurs = error.address === undefined || error.address === live.socket.remoteAddress ||
      formatAddress(error.address) === formatAddress(live.socket.remoteAddress)
    return isOurs && quiet.has(error.reason._tag)
  })

type Why = keyof Health["handshakeFailures"]

/**
 * What became of a connection that failed on its way to the handler because of its peer: whoever can connect can cause
 * that. A defect is our own, and what we have ended is no failure.
 */
const strangenessOf = (
  exit: Exit.Exit<unknown, unknown>
): { readonly why: Why; readonly cause: Cause.Cause<PreparationError> } | undefined => {
  if (Exit.isSuccess(exit) || Cause.hasDies(exit.cause)) return undefined
  for (const reason of exit.cause.reasons) {
    const why = Cause.isFailReason(reason) ? whyOf(reason.error) : undefined
    // The failures before the handler are those of preparations.
    if (why !== undefined) return { why, cause: exit.cause as Cause.Cause<PreparationError> }
  }
  return undefined
}

const whyOf = (error: unknown): Why | undefined => {
  if (Cause.isDone(error)) return "Gone"
  if (!isSocketError(error) || ours.has(error.reason._tag)) return undefined
  return whys.get(error.reason._tag) ?? "Gone"
}

const whys: ReadonlyMap<string, Why> = new Map([
  ["Untrusted", "Untrusted"],
  ["Framing", "Malformed"],
  ["LimitExceeded", "Malformed"],
  ["Tls", "Tls"]
])

const ours: ReadonlySet<string> = new Set(["Closed", "OperationAborted"])

const quiet: ReadonlySet<string> = new Set([
  "BrokenPipe",
  "Closed",
  "ConnectionAborted",
  "ConnectionReset",
  "UnexpectedEof"
])

/** A message was cut inside, and the peer must not take what it has for all of it. */
const isCut = (exit: Exit.Exit<unknown, unknown>, live: Live): boolean => {
  if (live.socket.state.write === "torn") return true
  const outcome = Cancellation.outcome(exit)
  return outcome._tag === "Cancelled" && outcome.guarantee !== "total"
}
