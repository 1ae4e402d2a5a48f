/**
 * Says what listening and connecting over `node:net` fail with, where Node's permission model has a say.
 *
 *     node --permission --allow-fs-read=* test/transport/node-permission.ts
 */
import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import { Acceptor, StreamSocket } from "../../src/index.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"

const addresses = [NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0"), NetAddress.unixPathAddress("/nowhere.sock")]

const say = <A, R>(effect: Effect.Effect<A, { readonly message: string }, R>) =>
  Effect.match(effect, { onSuccess: () => console.log("works"), onFailure: ({ message }) => console.log(message) })

await Effect.runPromise(
  Effect.forEach(
    addresses,
    (address) => Effect.andThen(say(Acceptor.listen(address)), say(StreamSocket.connect(address)))
  ).pipe(
    Effect.scoped,
    Effect.provide(NodeTransport.layer)
  )
)
