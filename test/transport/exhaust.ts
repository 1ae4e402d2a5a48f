/**
 * A process that runs out of descriptors: connects until it cannot, says why, lets go and tries again.
 *
 *     sh -c 'ulimit -n 80 && exec node test/transport/exhaust.ts'
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import * as Acceptor from "../../src/Acceptor.ts"
import type { SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import { anyPort } from "../support/addresses.ts"

const say = (what: string) => (error: SocketError) =>
  Effect.sync(() => console.log(`${what}: ${error.reason._tag} (${error.code})`))

const program = Effect.gen(function*() {
  const acceptor = yield* Acceptor.listen(anyPort)
  const scope = yield* Scope.make()
  const connect = Scope.provide(StreamSocket.connect(acceptor.address), scope)
  yield* Effect.catch(Effect.forever(connect), say("connect"))
  yield* Effect.catch(Effect.asVoid(Scope.provide(Acceptor.listen(anyPort), scope)), say("listen"))
  yield* Scope.close(scope, Exit.void)
  yield* StreamSocket.connect(acceptor.address)
  yield* Acceptor.listen(anyPort)
  console.log("afterwards: connected, listening")
})

await Effect.runPromise(Effect.scoped(program).pipe(Effect.provide(NodeTransport.layer)))
