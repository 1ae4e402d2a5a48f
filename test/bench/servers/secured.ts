/** Handlers over TLS, for the servers over this library. In a file of its own, for it makes its certificates at once. */
import * as Effect from "effect/Effect"
import { type StreamSocket, Tls } from "../../../src/index.ts"
import { localhost } from "../../support/certificates.ts"

type Handler<E, R> = (socket: StreamSocket.StreamSocket) => Effect.Effect<never, E, R>

/** The end of a connection is the end of its handler. */
export const secured = <E, R>(handler: Handler<E, R>, strictEnd: boolean) => {
  // One object, which is prepared once.
  const options: Tls.ServerOptions = { ...localhost, strictEnd }
  return Effect.fnUntraced(function*(plain: StreamSocket.StreamSocket) {
    yield* handler(yield* Tls.server(plain, options))
  }, Effect.scoped)
}
