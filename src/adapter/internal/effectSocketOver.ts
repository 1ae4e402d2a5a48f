import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Latch from "effect/Latch"
import * as Scope from "effect/Scope"
import * as Socket from "effect/socket/Socket"
import * as Buffers from "../../Buffers.ts"
import * as Cancellation from "../../Cancellation.ts"
import { positiveInteger } from "../../internal/base/checks.ts"
import type { SocketError } from "../../SocketError.ts"
import type * as StreamSocket from "../../StreamSocket.ts"
import * as Write from "../../Write.ts"
import type { Options } from "../EffectSocket.ts"

export interface Resolved {
  readonly chunkSize: number
  /** Gives the region of a write a policy, unless it has one. */
  readonly withPolicy: (region: Context.Context<never>) => Context.Context<never>
}

export const resolve = (options: Options | undefined): Resolved => {
  const chunkSize = options?.chunkSize ?? 65_536
  positiveInteger(`EffectSocket: chunkSize`, chunkSize, "bytes")
  const within = Duration.fromInputUnsafe(options?.within ?? "2 seconds")
  return {
    chunkSize,
    withPolicy: (region) =>
      // Unlike most getters this one does not answer with the default of the reference.
      Context.getOrUndefined(region, Cancellation.Policy) === undefined
        ? Context.add(Context.add(region, Cancellation.Policy, "total"), Cancellation.TotalTimeout, within)
        : region
  }
}

export const socketOver = (
  open: Effect.Effect<StreamSocket.StreamSocket, Socket.SocketError, Scope.Scope>,
  options: Resolved,
  connects: "once" | "again and again"
): Socket.Socket => {
  const connected = Latch.makeUnsafe(false)
  let current: Connection | undefined

  const reader: Socket.Socket["reader"] = Effect.gen(function*() {
    const scope = yield* Effect.scope
    const connection = new Connection(yield* open, scope, options)
    yield* Scope.addFinalizer(
      scope,
      Effect.sync(() => {
        // A later connection may have taken its place. If none can come, no caller may wait for one.
        if (current !== connection || connects === "once") return
        current = undefined
        connected.closeUnsafe()
      })
    )
    current = connection
    connected.openUnsafe()
    return { pull: connection.pull, upgrade: Socket.SocketUpgradeError.unsupported }
  })

  const write: Socket.Writer["write"] = (chunk) =>
    Effect.suspend(() =>
      current === undefined
        ? connected.whenOpen(write(chunk))
        : Socket.isCloseEvent(chunk)
        ? current.end(chunk)
        : current.write(bytesOf(chunk))
    )
  const writeAll: Socket.Writer["writeAll"] = (chunks) =>
    Effect.suspend(() =>
      current === undefined ? connected.whenOpen(writeAll(chunks)) : current.write(chunks.map(bytesOf))
    )
  const writer: Socket.Socket["writer"] = Effect.acquireRelease(
    Effect.succeed({ write, writeAll }),
    () => Effect.suspend(() => current === undefined ? Effect.void : current.halfClose)
  )
  return Socket.make({ reader, writer })
}

/** One connection of a `Socket`, from the acquisition of its reader to the release. */
class Connection {
  readonly stream: StreamSocket.StreamSocket
  private readonly scope: Scope.Scope
  private readonly options: Resolved
  /** Idle connections are many and large chunks are few: it grows with what arrives. */
  private receiveBuffer: Uint8Array
  private closing: Socket.CloseEvent | undefined = undefined

  constructor(stream: StreamSocket.StreamSocket, scope: Scope.Scope, options: Resolved) {
    this.stream = stream
    this.scope = scope
    this.options = options
    this.receiveBuffer = new Uint8Array(Math.min(firstLanding, options.chunkSize))
  }

  readonly pull: Socket.Reader["pull"] = Effect.suspend(() => {
    const target = this.receiveBuffer
    return Effect.mapBoth(this.stream.readSome(target), {
      onSuccess: (count): Arr.NonEmptyReadonlyArray<Uint8Array> => {
        if (count === target.byteLength && count < this.options.chunkSize) {
          this.receiveBuffer = new Uint8Array(Math.min(count * 4, this.options.chunkSize))
        }
        return [target.slice(0, count)]
      },
      onFailure: (error) => this.readError(error)
    })
  })

  write(source: Buffers.Input): Effect.Effect<void, Socket.SocketError> {
    return Write.writeAll(this.stream, source).pipe(
      Effect.updateContext((region: Context.Context<never>) => this.options.withPolicy(region)),
      Effect.onError((cause) => this.stream.state.write === "torn" ? this.giveUp(cause) : Effect.void),
      Effect.mapBoth({
        onSuccess: () => {},
        onFailure: (cause) => new Socket.SocketError({ reason: new Socket.SocketWriteError({ cause }) })
      })
    )
  }

  end(event: Socket.CloseEvent): Effect.Effect<void> {
    return Effect.suspend(() => {
      this.closing ??= event
      return event.code === 1000 ? this.stream.close : this.stream.abort
    })
  }

  /** Runs behind the writes that were started before it. The caller that releases the writer does not wait for them. */
  get halfClose(): Effect.Effect<void> {
    return Effect.asVoid(
      Effect.forkIn(Effect.ignore(this.stream.shutdownWrite), this.scope, { startImmediately: true })
    )
  }

  private giveUp(cause: Cause.Cause<SocketError>): Effect.Effect<void> {
    const { transferred, total } = Cancellation.transfer(cause).pipe(
      (transfer) => transfer._tag === "Some" ? transfer.value : { transferred: 0, total: 0 }
    )
    return this.end(new Socket.CloseEvent(1006, `a write stopped after ${transferred} of ${total} bytes`))
  }

  private readError(error: SocketError | Cause.Done): Socket.SocketError {
    if (Cause.isDone(error)) return closeError(1000)
    return error.reason._tag === "Closed"
      ? closeError(this.closing?.code ?? 1006, this.closing?.reason)
      : new Socket.SocketError({ reason: new Socket.SocketReadError({ cause: error }) })
  }
}

const firstLanding = 4096

/** A handler that has ended, however it did. In a mask, so that one that fails as it is interrupted is handled, too. */
export const handled = <R>(handler: Effect.Effect<unknown, unknown, R>): Effect.Effect<void, never, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.matchCauseEffect(restore(handler), {
      onSuccess: () => Effect.void,
      onFailure: (cause) =>
        Cause.hasInterruptsOnly(cause) ? Effect.void : Effect.ignoreCause(Effect.failCause(cause), {
          log: "Unhandled",
          message: "Unhandled error in SocketServer"
        })
    })
  )

export const bytesOf = (chunk: Uint8Array | string): Uint8Array =>
  typeof chunk === "string" ? Buffers.utf8(chunk) : chunk

const closeError = (code: number, closeReason?: string): Socket.SocketError =>
  new Socket.SocketError({ reason: new Socket.SocketCloseError({ code, closeReason }) })

export const openError = (cause: SocketError): Socket.SocketError =>
  new Socket.SocketError({
    reason: new Socket.SocketOpenError({ kind: cause.reason._tag === "TimedOut" ? "Timeout" : "Unknown", cause })
  })
