/**
 * The one error of this library: what failed, on which address, after how many
 * bytes, and why.
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import * as Duration from "effect/Duration"
import * as Formatter from "effect/Formatter"
import type * as Host from "effect/net/Host"
import type * as NetAddress from "effect/net/NetAddress"
import * as Predicate from "effect/Predicate"
import { formatAddress, formatBytes, formatCount, formatProgress, oneLine } from "./internal/base/format.ts"

/**
 * Why an operation failed. `Effect.catchReason("SocketError", "ConnectionReset", ...)`
 * handles one of them.
 *
 * **Details**
 *
 * - `Closed`: this side closed or aborted the socket.
 * - `Consumed`: the stream was handed over to `by`, such as `"Tls.client"`. Use the
 *   stream that `by` has made of it.
 * - `Busy`: the operation cannot be done while something else goes on; `detail` says
 *   what, such as an operation that waits on the stream. Nothing has happened, and
 *   the operation can be done when the other one has ended. The program controls
 *   when that is, so `Connector.isTransient` does not count it as a failure that
 *   passes by itself.
 * - `Torn`: an earlier write stopped inside its message, after `transferred`
 *   of `total` bytes; the stream may only be closed or aborted. Reads go on.
 * - `OperationAborted`: a graded cancellation request ended the operation after
 *   `transferred` of `total` bytes, with the guarantee `type`, which may be
 *   stronger than the request; `deadline` is set when it came from
 *   `Cancellation.cancelAfter`. `total` is 0 where it is unknown.
 * - `UnexpectedEof`: the stream ended inside what was asked for.
 * - `LimitExceeded`: `subject` has more than `limit` bytes.
 * - `ConnectionReset`, `BrokenPipe`, `ConnectionRefused`, `ConnectionAborted`,
 *   `TimedOut`, `HostUnreachable`, `NetworkUnreachable`, `NetworkDown`,
 *   `NotConnected`, `AddressInUse`, `AddressNotAvailable`, `PermissionDenied`,
 *   `TooManyOpenFiles`, `NoBufferSpace`: the error of the operating system.
 *   `AddressNotAvailable` includes a Unix-domain path that does not exist.
 * - `NameResolution`: `host` has no usable address; `detail` says why.
 * - `ConnectFailed`: a name has several addresses, and every attempt failed;
 *   `attempts` lists them in the order in which they were started. `untried`
 *   addresses were not attempted, because of a limit or a time-out.
 * - `Tls`: TLS has failed. `kind` says in what: `handshake` (no common version,
 *   cipher or application protocol, the deadline, or an end of the connection),
 *   `certificate` (one side has rejected that of the other, or its own cannot be
 *   used), `truncated` (the peer has ended the connection without `close_notify`, so
 *   bytes may be missing), or `protocol` (the bytes are not TLS, or were changed).
 *   `detail` says it in words, and `alert` is the name of the alert that the peer has
 *   sent, such as `"unknown_ca"`.
 * - `Framing`: the protocol does not allow these bytes; `detail` says what is wrong,
 *   and `position` where that begins, in bytes from the start of the stream.
 * - `Untrusted`: the peer is not trusted to send a PROXY header.
 * - `Unsupported`: this transport or platform does not support `feature`.
 * - `Unknown`: anything else; see `code` and `cause`.
 *
 * @category models
 * @since 0.1.0
 */
export type Reason = Data.TaggedEnum<{
  Closed: {}
  Consumed: { readonly by: string }
  Busy: { readonly detail: string }
  Torn: { readonly transferred: number; readonly total: number }
  OperationAborted: {
    readonly type: "terminal" | "partial" | "total"
    readonly transferred: number
    readonly total: number
    readonly deadline?: boolean | undefined
  }
  UnexpectedEof: {}
  LimitExceeded: { readonly limit: number; readonly subject: string }
  ConnectionReset: {}
  BrokenPipe: {}
  ConnectionRefused: {}
  ConnectionAborted: {}
  TimedOut: {}
  HostUnreachable: {}
  NetworkUnreachable: {}
  NetworkDown: {}
  NotConnected: {}
  AddressInUse: {}
  AddressNotAvailable: {}
  PermissionDenied: {}
  TooManyOpenFiles: {}
  NoBufferSpace: {}
  NameResolution: { readonly host: string; readonly detail: string }
  ConnectFailed: { readonly attempts: ReadonlyArray<ConnectAttempt>; readonly untried: number }
  Tls: {
    readonly kind: "handshake" | "certificate" | "truncated" | "protocol"
    readonly detail?: string | undefined
    readonly alert?: string | undefined
  }
  Framing: { readonly detail: string; readonly position?: number | undefined }
  Untrusted: {}
  Unsupported: { readonly feature: string }
  Unknown: {}
}>

/**
 * One failed attempt to connect: its address, when it was started, counted from the
 * first attempt, how long it took, and why it failed.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConnectAttempt {
  readonly address: NetAddress.SocketAddress
  readonly reason: Reason
  readonly code?: string | undefined
  readonly startedAfter: Duration.Duration
  readonly took: Duration.Duration
}

/**
 * Constructors and guards of every reason: `Reason.Closed()`,
 * `Reason.$is("Torn")`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const Reason = Data.taggedEnum<Reason>()

/**
 * The address that an error names: that of a socket, or a host and port.
 *
 * @category models
 * @since 0.1.0
 */
export type Address = NetAddress.SocketAddress | Host.HostPort

/**
 * The one error of this library.
 *
 * **Details**
 *
 * `operation` is the public function that failed, such as `"writeAll"`.
 * `address` is the peer's for a connection and the local one for a listener.
 * `transferred` is the number of bytes that this operation had moved when it
 * failed, and `total` the number of bytes it was to move, where that is known.
 * `code` is the system's name for the error, such as `"ECONNRESET"`. `message` says
 * all of this in one line, and `JSON.stringify` keeps every field.
 *
 * **Example** (Handling one reason, and then all others)
 *
 * ```ts
 * import { Console, Effect } from "effect"
 * import { StreamSocket } from "effect-asio"
 * import { MemoryTransport } from "effect-asio/testing"
 *
 * const program = StreamSocket.connect("10.0.0.1:7000").pipe(
 *   Effect.asVoid,
 *   Effect.catchReason("SocketError", "ConnectionRefused", (_, error) => Console.log(`try later: ${error.message}`)),
 *   Effect.catchTag("SocketError", (error) => Console.log(error.message, error.transferred))
 * )
 *
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(MemoryTransport.layer)))
 * // => try later: connect tcp://10.0.0.1:7000: connection refused
 * ```
 *
 * @category errors
 * @since 0.1.0
 */
export class SocketError extends Data.TaggedError("SocketError")<{
  readonly reason: Reason
  readonly operation: string
  readonly address?: Address | undefined
  readonly transferred: number
  readonly total?: number | undefined
  readonly code?: string | undefined
  readonly cause?: unknown
}> {
  override get message(): string {
    const where = this.address === undefined ? "" : ` ${formatAddress(this.address)}`
    const code = this.code === undefined ? "" : ` (${this.code})`
    // The text of these two reasons says the progress already.
    const progress = this.reason._tag === "Torn" || this.reason._tag === "OperationAborted"
      ? ""
      : this.total !== undefined
      ? ` after ${formatCount(this.transferred)} of ${formatBytes(this.total)}`
      : this.transferred > 0
      ? ` after ${formatBytes(this.transferred)}`
      : ""
    return oneLine(`${this.operation}${where}: ${describe(this.reason)}${code}${progress}`)
  }

  override toJSON(): unknown {
    return {
      _tag: this._tag,
      message: this.message,
      reason: this.reason,
      operation: this.operation,
      address: this.address === undefined ? undefined : formatAddress(this.address),
      transferred: this.transferred,
      total: this.total,
      code: this.code,
      cause: this.cause === undefined
        ? undefined
        : this.cause instanceof Error
        ? this.cause.message
        : Formatter.format(this.cause)
    }
  }
}

/**
 * Returns `true` when a value is a `SocketError`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isSocketError = (u: unknown): u is SocketError =>
  // Effect has a socket error of its own, with the same tag and other fields.
  Predicate.isTagged(u, "SocketError") && Predicate.hasProperty(u, "operation") &&
  Predicate.hasProperty(u, "transferred")

/**
 * Describes a reason in a few words, as error messages do.
 *
 * @category formatting
 * @since 0.1.0
 */
export const describe = (reason: Reason): string => {
  switch (reason._tag) {
    case "Closed":
      return "the socket is closed"
    case "Consumed":
      return `the stream was handed over to ${reason.by}`
    case "Busy":
      return `busy: ${reason.detail}`
    case "Torn":
      return `the stream is torn: an earlier write stopped after ${formatCount(reason.transferred)} of ${
        formatBytes(reason.total)
      }`
    case "OperationAborted":
      return `cancelled${reason.deadline === true ? " by its deadline" : ""} ${
        formatProgress(reason.type, reason.transferred, reason.total)
      }`
    case "UnexpectedEof":
      return "the stream ended early"
    case "LimitExceeded":
      return `${reason.subject} is over the limit of ${formatBytes(reason.limit)}`
    case "ConnectionReset":
      return "connection reset by the peer"
    case "BrokenPipe":
      return "broken pipe"
    case "ConnectionRefused":
      return "connection refused"
    case "ConnectionAborted":
      return "connection aborted"
    case "TimedOut":
      return "timed out"
    case "HostUnreachable":
      return "host unreachable"
    case "NetworkUnreachable":
      return "network unreachable"
    case "NetworkDown":
      return "network down"
    case "NotConnected":
      return "not connected"
    case "AddressInUse":
      return "address already in use"
    case "AddressNotAvailable":
      return "no such address"
    case "PermissionDenied":
      return "permission denied"
    case "TooManyOpenFiles":
      return "too many open files"
    case "NoBufferSpace":
      return "no buffer space"
    case "NameResolution":
      return `cannot resolve ${reason.host}: ${reason.detail}`
    case "ConnectFailed":
      return describeAttempts(reason)
    case "Tls":
      return `TLS ${reason.kind} failure${reason.detail === undefined ? "" : `: ${reason.detail}`}`
    case "Framing":
      return reason.position === undefined
        ? `bad framing: ${reason.detail}`
        : `bad framing at byte ${formatCount(reason.position)}: ${reason.detail}`
    case "Untrusted":
      return "the peer is not trusted to send a PROXY header"
    case "Unsupported":
      return `${reason.feature} is not supported here`
    case "Unknown":
      return "failed"
  }
}

/**
 * Makes the error of an operation from an error of the operating system.
 *
 * **Details**
 *
 * `cause` is an errno exception of Node, with a `code` such as `"ECONNREFUSED"`;
 * without a known code the reason is `Unknown`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const fromErrno = (
  cause: unknown,
  context: { readonly operation: string; readonly address?: Address | undefined }
): SocketError => {
  const code = Predicate.hasProperty(cause, "code") && typeof cause.code === "string" ? cause.code : undefined
  return new SocketError({
    reason: (code === undefined ? undefined : errnoReasons.get(code)) ?? Reason.Unknown(),
    operation: context.operation,
    address: context.address,
    transferred: 0,
    code,
    cause
  })
}

/**
 * The same failure as the error of another operation, with the name and progress
 * of that operation.
 *
 * @category combinators
 * @since 0.1.0
 */
export const during = (
  error: Pick<SocketError, "reason" | "address" | "code" | "cause">,
  context: { readonly operation: string; readonly transferred: number; readonly total?: number | undefined }
): SocketError =>
  new SocketError({
    reason: error.reason,
    operation: context.operation,
    address: error.address,
    transferred: context.transferred,
    total: context.total,
    code: error.code,
    cause: error.cause
  })

// ---- internal

const describeAttempts = ({ attempts, untried }: Extract<Reason, { readonly _tag: "ConnectFailed" }>): string => {
  if (attempts.length === 0) return `timed out before any of ${formatCount(untried)} addresses was tried`
  const tried = untried === 0
    ? `all ${formatCount(attempts.length)} addresses failed`
    : `${formatCount(attempts.length)} of ${formatCount(attempts.length + untried)} addresses tried, all failed`
  const shown = attempts.slice(0, maxShown).map(({ address, code, reason, took }) =>
    `${formatAddress(address)} ${describe(reason)}${code === undefined ? "" : ` (${code})`} after ${
      formatCount(Math.round(Duration.toMillis(took)))
    } ms`
  )
  const more = attempts.length - shown.length
  return `${tried}: ${shown.join("; ")}${more === 0 ? "" : `; and ${formatCount(more)} more`}`
}

// So that the line stays readable.
const maxShown = 4

// The one errno table: whatever Linux can answer to a call of a transport. Names are the same on every platform that Node
// runs on.
const errnoReasons: ReadonlyMap<string, Reason> = new Map<string, Reason>([
  ["EACCES", Reason.PermissionDenied()],
  ["EADDRINUSE", Reason.AddressInUse()],
  ["EADDRNOTAVAIL", Reason.AddressNotAvailable()],
  ["EAFNOSUPPORT", Reason.Unsupported({ feature: "the address family" })],
  // Over TCP, the routing table of the kernel is full; over a path, the backlog of the listener is.
  ["EAGAIN", Reason.NoBufferSpace()],
  ["EALREADY", Reason.Busy({ detail: "an earlier call is under way" })],
  ["EBADF", Reason.Closed()],
  ["EBUSY", Reason.Busy({ detail: "the resource is in use" })],
  ["ECANCELED", Reason.Closed()],
  ["ECONNABORTED", Reason.ConnectionAborted()],
  ["ECONNREFUSED", Reason.ConnectionRefused()],
  ["ECONNRESET", Reason.ConnectionReset()],
  ["EDESTADDRREQ", Reason.NotConnected()],
  ["EDOM", Reason.Unsupported({ feature: "the value of the option" })],
  ["EDQUOT", Reason.NoBufferSpace()],
  ["EEXIST", Reason.AddressInUse()],
  ["EFAULT", Reason.Unsupported({ feature: "the memory of the call" })],
  ["EHOSTDOWN", Reason.HostUnreachable()],
  ["EHOSTUNREACH", Reason.HostUnreachable()],
  ["EINPROGRESS", Reason.Busy({ detail: "an earlier call is under way" })],
  ["EINTR", Reason.ConnectionAborted()],
  ["EINVAL", Reason.Unsupported({ feature: "an argument of the call" })],
  ["EIO", Reason.ConnectionAborted()],
  ["EISCONN", Reason.Busy({ detail: "the socket is connected already" })],
  ["EISDIR", Reason.AddressInUse()],
  ["ELOOP", Reason.AddressNotAvailable()],
  ["EMFILE", Reason.TooManyOpenFiles()],
  ["EMSGSIZE", Reason.HostUnreachable()],
  ["ENAMETOOLONG", Reason.LimitExceeded({ limit: 255, subject: "a name in the path" })],
  ["ENETDOWN", Reason.NetworkDown()],
  ["ENETRESET", Reason.ConnectionReset()],
  ["ENETUNREACH", Reason.NetworkUnreachable()],
  ["ENFILE", Reason.TooManyOpenFiles()],
  ["ENOBUFS", Reason.NoBufferSpace()],
  // The interface of a link-local address does not exist.
  ["ENODEV", Reason.AddressNotAvailable()],
  ["ENOENT", Reason.AddressNotAvailable()],
  ["ENOMEM", Reason.NoBufferSpace()],
  ["ENONET", Reason.NetworkDown()],
  ["ENOPROTOOPT", Reason.Unsupported({ feature: "the option" })],
  ["ENOSPC", Reason.NoBufferSpace()],
  ["ENOSR", Reason.NoBufferSpace()],
  ["ENOSYS", Reason.Unsupported({ feature: "the call" })],
  ["ENOTCONN", Reason.NotConnected()],
  ["ENOTDIR", Reason.AddressNotAvailable()],
  ["ENOTSOCK", Reason.Unsupported({ feature: "a descriptor that is no socket" })],
  ["ENOTTY", Reason.Unsupported({ feature: "the call" })],
  ["ENXIO", Reason.AddressNotAvailable()],
  ["EOPNOTSUPP", Reason.Unsupported({ feature: "the call" })],
  ["EPERM", Reason.PermissionDenied()],
  ["EPFNOSUPPORT", Reason.Unsupported({ feature: "the protocol family" })],
  ["EPIPE", Reason.BrokenPipe()],
  ["EPROTO", Reason.ConnectionAborted()],
  ["EPROTONOSUPPORT", Reason.Unsupported({ feature: "the protocol" })],
  ["EPROTOTYPE", Reason.Unsupported({ feature: "the kind of socket at that address" })],
  ["EROFS", Reason.PermissionDenied()],
  ["ESHUTDOWN", Reason.BrokenPipe()],
  ["ESOCKTNOSUPPORT", Reason.Unsupported({ feature: "the kind of socket" })],
  ["ESTALE", Reason.AddressNotAvailable()],
  ["ETIMEDOUT", Reason.TimedOut()]
])
