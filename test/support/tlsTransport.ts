import { Effect, Exit, Layer, Scope } from "effect"
import { type SocketError, StreamSocket, Tls, Transport } from "../../src/index.ts"
import { Socket } from "../../src/internal/core/Socket.ts"
import { isSocketError } from "../../src/SocketError.ts"
import { localhost, root } from "./certificates.ts"

/** A transport whose connections are TLS over those of another, so that what is tested by transport can be tested of TLS. */
export const overTls = (options?: Tls.CommonOptions) =>
  Layer.effect(
    Transport.Transport,
    Effect.gen(function*() {
      const lower = yield* Transport.Transport
      const client = { ...options, servername: "localhost", ca: root.certificate }
      const server = { ...options, ...localhost }
      return {
        name: `tls over ${lower.name}`,
        connect: (address, options) =>
          Effect.flatMap(lower.connect(address, options), (backing) =>
            secured(backing, (plain) => Tls.client(plain, client))),
        listen: (address, options) =>
          Effect.map(lower.listen(address, options), (listener) =>
            new Listener(listener, server))
      }
    })
  )

/** The backing of a TLS stream: of a stream, that takes it over as TLS does a plain one. */
const secured = (
  backing: Transport.Backing,
  upgrade: (plain: StreamSocket.StreamSocket) => Effect.Effect<
    StreamSocket.StreamSocket,
    SocketError.SocketError,
    Scope.Scope
  >
): Effect.Effect<Transport.Backing, SocketError.SocketError> =>
  Effect.map(
    // Nobody closes this scope: the stream above the backing does what it would do.
    Effect.flatMap(Scope.make(), (scope) => Scope.provide(upgrade(StreamSocket.make(backing)), scope)),
    (socket) => {
      if (!(socket instanceof Socket)) throw new TypeError("not a stream of ours")
      return socket.takeOver("a test", { close: Effect.void, abort: Effect.void })[0]
    }
  )

class Listener implements Transport.ListenerBacking {
  private readonly lower: Transport.ListenerBacking
  private readonly options: Tls.ServerOptions
  private acceptable = (): void => {}
  private ready: Array<Transport.Backing> = []
  private isClosed = false

  constructor(lower: Transport.ListenerBacking, options: Tls.ServerOptions) {
    this.lower = lower
    this.options = options
  }

  get address() {
    return this.lower.address
  }

  attach(events: { readonly acceptable: () => void }): void {
    this.acceptable = events.acceptable
    this.lower.attach({ acceptable: () => this.shakeHands() })
    this.shakeHands()
  }

  accept(): Transport.Backing | typeof Transport.WouldBlock {
    return this.ready.shift() ?? Transport.WouldBlock
  }

  close(): void {
    this.isClosed = true
    this.lower.close()
    for (const backing of this.ready) backing.abort()
    this.ready = []
  }

  private shakeHands(): void {
    for (;;) {
      const backing = this.lower.accept()
      if (typeof backing === "number" || isSocketError(backing)) return
      Effect.runFork(secured(backing, (plain) => Tls.server(plain, this.options))).addObserver((exit) => {
        if (Exit.isFailure(exit)) return
        if (this.isClosed) exit.value.abort()
        else {
          this.ready.push(exit.value)
          this.acceptable()
        }
      })
    }
  }
}
