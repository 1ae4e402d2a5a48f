import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as Cancellation from "../../Cancellation.ts"
import { isSocketError, type Reason, type SocketError } from "../../SocketError.ts"
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
  /**
   * What the peer did wrong, where that is all that failed: for a line in the log (`PeerMistakes`), and not for the stack
   * of a failure. With a `failure` it is its only content.
   */
  readonly mistake: SocketError | undefined
}

export const handlerEnd = (socket: StreamSocket, exit: Exit.Exit<unknown, unknown>): HandlerEnd => {
  const isCut = socket.state.write === "torn" || wasCut(exit)
  if (Exit.isSuccess(exit)) return { isCut, failure: undefined, mistake: undefined }
  let failure: Cause.Cause<unknown> | undefined
  let mistake: SocketError | undefined
  for (const reason of exit.cause.reasons) {
    if (Cause.isInterruptReason(reason)) continue
    const error = Cause.isFailReason(reason) ? reason.error : undefined
    if (Cause.isDone(error)) continue
    // A handler may have other sockets, and their failures are reported.
    if (!isSocketError(error) || !isOf(socket, error)) return { isCut, failure: exit.cause, mistake: undefined }
    const isMistake = isMistakeOfPeer(error)
    if (!isEndOfConnection(error)) {
      if (!isMistake) return { isCut, failure: exit.cause, mistake: undefined }
      failure = exit.cause
    }
    if (isMistake) mistake ??= error
  }
  return { isCut, failure, mistake }
}

/**
 * Whether the failure of a TLS handshake shows a peer that is set up wrongly: one that speaks no TLS, or offers nothing in
 * common, or distrusts our certificate. A peer that only goes away, or is too slow, is none.
 */
export const isWrongHandshake = ({ code, reason }: SocketError): boolean =>
  reason._tag === "Tls" && reason.kind !== "truncated" &&
  // Without both, the peer has ended the connection.
  (reason.kind !== "handshake" || reason.alert !== undefined || (code !== undefined && code !== "ETIMEDOUT"))

/** Whether it was this program that failed, in the midst of a handshake: its own look-up of an identity. */
export const isFailureOfLookup = (error: SocketError): boolean => Cause.isCause(error.cause)

// ---- internal

const wasCut = (exit: Exit.Exit<unknown, unknown>): boolean => {
  const outcome = Cancellation.outcome(exit)
  return outcome._tag === "Cancelled" && outcome.guarantee !== "total"
}

/** Whether it is an error of this connection. One that a request has ended counts as such, whatever its socket. */
const isOf = (socket: StreamSocket, { address, reason }: SocketError): boolean =>
  reason._tag === "OperationAborted" ||
  // Options of this side that cannot be used have no address, and are no doing of the peer.
  (address === undefined ? reason._tag !== "Tls" : address === socket.remoteAddress ||
    formatAddress(address) === formatAddress(socket.remoteAddress))

const isEndOfConnection = (error: SocketError): boolean =>
  error.reason._tag === "TimedOut"
    // The system gave the peer up. A time limit of an operation, such as that of a relay, has no address.
    ? error.address !== undefined
    : endsOfConnections.has(error.reason._tag) && !isFailureOfLookup(error)

/**
 * The reasons that are the end of an established connection by its peer, by the network or by this side.
 * `Connector.isTransient` has another table, of failures to connect that another attempt may not meet.
 */
const endsOfConnections: ReadonlySet<Reason["_tag"]> = new Set([
  "BrokenPipe",
  "Closed",
  "ConnectionAborted",
  "ConnectionReset",
  "HostUnreachable",
  "NetworkUnreachable",
  "OperationAborted",
  "Tls",
  "UnexpectedEof"
])

const isMistakeOfPeer = (error: SocketError): boolean => {
  const { operation, reason: { _tag } } = error
  if (_tag === "Tls") return handshakes.has(operation) && !isFailureOfLookup(error) && isWrongHandshake(error)
  // Bytes that this side sends are its own doing.
  return mistakes.has(_tag) && operation !== "send"
}

const mistakes: ReadonlySet<Reason["_tag"]> = new Set(["Framing", "LimitExceeded", "UnexpectedEof", "Untrusted"])

const handshakes: ReadonlySet<string> = new Set(["Tls.client", "Tls.server"])
