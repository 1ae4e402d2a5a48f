import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as Cancellation from "../../Cancellation.ts"
import { isSocketError, type Reason } from "../../SocketError.ts"
import type { StreamSocket } from "../../StreamSocket.ts"
import { formatAddress } from "../base/format.ts"

/** What the end of a handler means for its connection: the one rule of `Acceptor.serve` and `Server`. */
export interface HandlerEnd {
  /**
   * A write was cut inside its message, and the handler ended without the rest of it. The connection is reset, because
   * after a FIN the peer would take the part that it has received for the whole.
   */
  readonly isCut: boolean
  /** The failure to report; `undefined` when the handler succeeded, or failed because its connection ended. */
  readonly failure: Cause.Cause<unknown> | undefined
}

export const handlerEnd = (socket: StreamSocket, exit: Exit.Exit<unknown, unknown>): HandlerEnd => ({
  isCut: socket.state.write === "torn" || wasCut(exit),
  failure: Exit.isSuccess(exit) || endedWithConnection(exit.cause, socket) ? undefined : exit.cause
})

// ---- internal

const wasCut = (exit: Exit.Exit<unknown, unknown>): boolean => {
  const outcome = Cancellation.outcome(exit)
  return outcome._tag === "Cancelled" && outcome.guarantee !== "total"
}

/** Whether a handler failed only because its connection ended: by its peer, by this side, or by a cancellation. */
const endedWithConnection = (cause: Cause.Cause<unknown>, socket: StreamSocket): boolean =>
  cause.reasons.every((reason) => {
    if (Cause.isInterruptReason(reason)) return true
    if (!Cause.isFailReason(reason)) return false
    const { error } = reason
    if (Cause.isDone(error)) return true
    if (!isSocketError(error)) return false
    if (error.reason._tag === "OperationAborted") return true
    // A handler may have other sockets, and their failures are reported.
    const isOfSocket = error.address === undefined || error.address === socket.remoteAddress ||
      formatAddress(error.address) === formatAddress(socket.remoteAddress)
    return isOfSocket && endsOfConnections.has(error.reason._tag)
  })

/**
 * The reasons that are the ordinary end of an established connection. `Connector.isTransient` has another table, of
 * failures to connect that another attempt may not meet.
 */
const endsOfConnections: ReadonlySet<Reason["_tag"]> = new Set([
  "BrokenPipe",
  "Closed",
  "ConnectionAborted",
  "ConnectionReset",
  "UnexpectedEof"
])
