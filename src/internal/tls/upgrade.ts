import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import type { TLSSocket } from "node:tls"
import { SocketError } from "../../SocketError.ts"
import type { CommonOptions, ConnectionInfo, TlsSocket, Underlying } from "../../Tls.ts"
import { resolveOptions } from "../../Transport.ts"
import { nativeOf } from "../base/nativeStream.ts"
import * as TimerQueue from "../base/timerQueue.ts"
import { cancellable } from "../cancellation/cancellable.ts"
import { withoutSignals } from "../cancellation/scope.ts"
import { chunkSize } from "../core/Matcher.ts"
import { coreOf, Socket, type Successor } from "../core/Socket.ts"
import { bufferedBytes, ForeignStreamBacking } from "../operations/ForeignStreamBacking.ts"
import { BackingCarrier, type Carrier, NativeCarrier } from "./Carrier.ts"
import { tlsError } from "./errors.ts"
import { type Fork, Handshake } from "./Handshake.ts"
import { checkingOptions, defaultDeadline } from "./options.ts"
import { TlsBacking } from "./TlsBacking.ts"

export const TypeId: unique symbol = Symbol.for("~effect-asio/TlsSocket")

/** What a client and a server do differently. */
export interface Role {
  readonly start: (handshake: Handshake) => void
  readonly info: (socket: TLSSocket) => ConnectionInfo
}

/**
 * Takes a stream over and makes the handshake. `prepareRole` runs first, before anything happens to the stream, and its
 * errors are those of options.
 */
export const upgrade = (
  operation: "Tls.client" | "Tls.server",
  stream: Underlying,
  options: CommonOptions,
  prepareRole: () => Role
): Effect.Effect<TlsSocket, SocketError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.flatMap(checkingOptions(operation, prepareRole), (role) =>
      Effect.withFiber((fiber) => {
        const refused = refusal(operation, stream, options)
        if (refused !== undefined) return Effect.fail(refused)
        const attempt = new Upgrade(operation, stream, options, role, fiber.context)
        return cancellable(attempt.run, { operation, address: () => stream.remoteAddress }, "terminal").pipe(
          // The handshake may succeed in the moment of an interruption. The socket has no owner then.
          Effect.onExit((exit) => Exit.isFailure(exit) ? attempt.abort : Effect.void)
        )
      })),
    (socket) => withoutSignals(socket.close),
    { interruptible: true }
  )

// ---- internal

class SecureSocket extends Socket implements TlsSocket {
  readonly [TypeId]: typeof TypeId = TypeId
  readonly tls: ConnectionInfo

  constructor(backing: TlsBacking, linger: Duration.Duration, info: ConnectionInfo) {
    super(backing, linger)
    this.tls = info
  }
}

/** Why a stream cannot be taken over. Nothing has happened to it then. */
const refusal = (
  operation: "Tls.client" | "Tls.server",
  stream: Underlying,
  options: CommonOptions
): SocketError | undefined => {
  const core = coreOf(stream)
  if (core !== undefined) {
    const refused = core.takeOverRefusal()
    if (typeof refused === "string") {
      return tlsError({ operation, address: stream.remoteAddress }, { kind: "handshake", detail: refused })
    }
    if (refused !== undefined) {
      return new SocketError({ reason: refused, operation, address: stream.remoteAddress, transferred: 0 })
    }
  }
  if (options.unread === "handshake") return undefined
  const unread = unreadBytes(stream)
  const count = unread.byteLength
  // A TLS server never speaks first, so bytes that wait at a client cannot be the beginning of a handshake.
  if (count === 0 || (operation === "Tls.server" && beginsHandshake(unread))) return undefined
  return tlsError({ operation, address: stream.remoteAddress }, {
    kind: "protocol",
    detail: `${count} ${count === 1 ? "byte was" : "bytes were"} received before TLS began and not read`
  })
}

/** The bytes that have arrived and that no read has taken. The next read still gets them. */
const unreadBytes = (stream: Underlying): Uint8Array => {
  const core = coreOf(stream)
  if (core === undefined) return bufferedBytes(stream, "peek")
  const { bytesRead, bytesWritten, readHalf } = core
  const native = nativeOf(readHalf.backing)
  // Bytes in the kernel count only after plaintext was exchanged; otherwise the handshake finds out what they are. A native
  // stream is asked only for bytes that it holds already, because asking for more would make it read.
  if (native === undefined ? bytesRead + bytesWritten > 0 : native.unread() > 0) readHalf.receiveIntoBuffer(chunkSize)
  return readHalf.unreadBytes()
}

// A ClientHello comes in a record of type 22 and of major version 3.
const beginsHandshake = ([type, version]: Uint8Array): boolean =>
  type === 22 && (version === undefined || version === 3)

/** The taking over of one stream. The stream is closed by closing this: before, during and after the handshake. */
class Upgrade implements Successor {
  private readonly handshake: Handshake
  private readonly role: Role
  private readonly deadline: Duration.Duration
  private readonly context: Context.Context<never>
  private readonly linger: Duration.Duration
  socket: SecureSocket | undefined = undefined

  constructor(
    operation: string,
    stream: Underlying,
    options: CommonOptions,
    role: Role,
    context: Context.Context<never>
  ) {
    const fork = Effect.runForkWith(context)
    const resolved = resolveOptions({ sliceSize: options.sliceSize })
    this.role = role
    this.deadline = Duration.fromInputUnsafe(options.deadline ?? defaultDeadline)
    this.context = context
    this.linger = coreOf(stream)?.linger ?? resolved.linger
    const carrier = takeOver(operation, stream, options, this, fork)
    this.handshake = new Handshake(carrier, operation, fork, (socket) => {
      this.socket = new SecureSocket(
        new TlsBacking(socket, carrier, resolved.sliceSize, options.strictEnd !== false),
        this.linger,
        role.info(socket)
      )
    })
  }

  get run(): Effect.Effect<TlsSocket, SocketError> {
    const { context, deadline, handshake } = this
    const running = handshake.run(() => {
      this.role.start(handshake)
      if (!Duration.isFinite(deadline)) return
      handshake.setDeadline(TimerQueue.after(deadline, context, () => {
        handshake.timeOut(`not finished within ${Duration.format(deadline)}`)
      }))
    })
    // After a failure an alert for the peer may still be on its way, so the connection is closed and not aborted. After the
    // deadline the peer is not waited for again.
    return Effect.andThen(
      Effect.tapError(running, () => handshake.hasTimedOut ? handshake.release("abort") : this.leave),
      Effect.suspend(() => this.socket === undefined ? Effect.die(new Error("no socket")) : Effect.succeed(this.socket))
    )
  }

  get close(): Effect.Effect<void> {
    return Effect.suspend(() => this.socket === undefined ? this.abort : this.socket.close)
  }

  get abort(): Effect.Effect<void> {
    return Effect.suspend(() => this.socket === undefined ? this.handshake.release("abort") : this.socket.abort)
  }

  get hasReceived(): boolean {
    return this.handshake.carrier.hasReceived
  }

  get leave(): Effect.Effect<void> {
    return Effect.timeoutOrElse(this.handshake.release("close"), { duration: this.linger, orElse: () => this.abort })
  }
}

/**
 * Consumes the stream and gives `node:tls` access to it: directly to the socket of `node:net` if it is one of TCP and the
 * caller does not ask for a strict end. On a socket of a Unix-domain path, `node:tls` says nothing when its last flight of
 * the handshake fails, and completes no write from then on; and the kernel cannot be asked (`TlsBacking.isStalled`).
 */
const takeOver = (
  by: string,
  stream: Underlying,
  options: CommonOptions,
  successor: Successor,
  fork: Fork
): Carrier => {
  const core = coreOf(stream)
  if (core === undefined) {
    return new BackingCarrier(new ForeignStreamBacking(stream, fork), bufferedBytes(stream, "take"))
  }
  const [backing, unread] = core.takeOver(by, successor)
  const isDirect = options.strictEnd !== true && NetAddress.isInetAddress(backing.remoteAddress)
  const native = isDirect ? nativeOf(backing) : undefined
  return native === undefined ? new BackingCarrier(backing, unread) : new NativeCarrier(backing, native, unread)
}
