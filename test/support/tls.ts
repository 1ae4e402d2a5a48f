import { Effect, type Exit, Fiber, type Scope } from "effect"
import { type SocketError, type StreamSocket, Tls } from "../../src/index.ts"
import { localhost, root } from "./certificates.ts"
import { start } from "./waiting.ts"

export type Socket = StreamSocket.StreamSocket

export const trusting: Tls.ClientOptions = { servername: "localhost", ca: root.certificate }

/** Whether a reset behind bytes is told from the end of the stream on a socket of `node:tls`: libuv before 1.52 cannot. */
export const tellsReset = Number.parseInt(process.versions.node, 10) >= 24

export interface Options {
  readonly client?: Partial<Tls.ClientOptions>
  readonly server?: Partial<Tls.ServerOptions> | Tls.ServerContext
}

const serverOptions = (options: Options["server"]): Tls.ServerOptions | Tls.ServerContext =>
  options === undefined ? localhost : "reload" in options ? options : { ...localhost, ...options }

/** How a handshake between the two ends of a connection ends, for the client and for the server. */
export const handshake = (
  [left, right]: readonly [Tls.Underlying, Tls.Underlying],
  options: Options = {}
): Effect.Effect<
  readonly [
    client: Exit.Exit<Tls.TlsSocket, SocketError.SocketError>,
    server: Exit.Exit<Tls.TlsSocket, SocketError.SocketError>
  ],
  never,
  Scope.Scope
> =>
  Effect.gen(function*() {
    const serving = yield* start(Effect.exit(Tls.server(right, serverOptions(options.server))))
    const client = yield* Effect.exit(Tls.client(left, { ...trusting, ...options.client }))
    return [client, yield* Fiber.join(serving)] as const
  })

/** A handshake that has to succeed. Both ends close at once: one after the other, each would wait for the other's. */
export const secured = (ends: readonly [Tls.Underlying, Tls.Underlying], options?: Options) =>
  Effect.tap(
    Effect.flatMap(handshake(ends, options), ([client, server]) => Effect.all([client, server])),
    ([client, server]) =>
      Effect.addFinalizer(() => Effect.all([client.close, server.close], { concurrency: 2, discard: true }))
  )
