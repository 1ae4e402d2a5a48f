/** TLS: what goes in and what comes out. Nothing here runs. */
import type * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { SocketError } from "../../src/SocketError.ts"
import type { ReadStream, StreamSocket, WriteStream } from "../../src/StreamSocket.ts"
import * as Tls from "../../src/Tls.ts"
import { expectType } from "./expect.ts"

type Upgraded = Effect.Effect<Tls.TlsSocket, SocketError, Scope.Scope>

export const upgrading = (
  socket: StreamSocket,
  stream: Tls.Underlying,
  half: ReadStream & WriteStream,
  options: Tls.ServerOptions,
  context: Tls.ServerContext
) => {
  expectType<Upgraded>()(Tls.client(socket, { servername: "example.com" }))
  expectType<Upgraded>()(Tls.client(stream, { servername: "example.com", alpn: ["h2"], deadline: "1 second" }))
  expectType<Upgraded>()(Tls.server(socket, options))
  expectType<Upgraded>()(Tls.server(stream, context))
  expectType<Effect.Effect<Tls.ServerContext, SocketError>>()(Tls.makeServerContext(options))
  expectType<Effect.Effect<void, SocketError>>()(context.reload(options))
  // @ts-expect-error a client says whom it expects
  Tls.client(socket, {})
  // @ts-expect-error a stream without an end cannot carry TLS
  Tls.client(half, { servername: "example.com" })
  // @ts-expect-error verification is not turned off by a flag
  Tls.client(socket, { servername: "example.com", dangerouslySkipVerification: true })
  // @ts-expect-error a key is a secret
  Tls.server(socket, { certificate: "", key: "" })
  // @ts-expect-error a server has a certificate
  Tls.server(socket, { key: Redacted.make("") })
}

export const secured = (socket: Tls.TlsSocket) => {
  expectType<string | undefined>()(socket.tls.alpn)
  const plain: StreamSocket = socket
  return plain
}
