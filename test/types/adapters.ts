/** Effect's sockets: what the adapter makes of them, takes, and asks for. Nothing here runs. */
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as AddressResolver from "effect/net/AddressResolver"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import type * as Socket from "effect/socket/Socket"
import type * as SocketServer from "effect/socket/SocketServer"
import type * as Acceptor from "../../src/Acceptor.ts"
import * as EffectSocket from "../../src/adapter/EffectSocket.ts"
import type { SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import type { Transport } from "../../src/Transport.ts"
import { expectType } from "./expect.ts"

type Server = SocketServer.SocketServer["Service"]
type ServerError = SocketServer.SocketServerError
type Resolving = Transport | AddressResolver.AddressResolver

export const sockets = (
  stream: StreamSocket.StreamSocket,
  address: NetAddress.SocketAddress,
  open: Effect.Effect<StreamSocket.StreamSocket, SocketError, "mine" | Scope.Scope>,
  failing: Effect.Effect<StreamSocket.StreamSocket, "my own error">
) => {
  expectType<Socket.Socket>()(EffectSocket.toSocket(stream))
  expectType<Socket.Socket>()(EffectSocket.toSocket(stream, { chunkSize: 1, within: "1 second" }))
  expectType<Effect.Effect<Socket.Socket, never, Transport>>()(EffectSocket.makeSocket(address, { linger: 0 }))
  expectType<Effect.Effect<Socket.Socket, never, Resolving>>()(EffectSocket.makeSocket("localhost:1", { within: 1 }))
  expectType<Layer.Layer<Socket.Socket, never, Transport>>()(EffectSocket.layerSocket(address))
  expectType<Layer.Layer<Socket.Socket, never, Resolving>>()(EffectSocket.layerSocket({ host: "localhost", port: 1 }))
  // The scope of the reader is the scope of the connection; other services are taken when the socket is made.
  expectType<Effect.Effect<Socket.Socket, never, "mine">>()(EffectSocket.makeSocketWith(open))
  expectType<Effect.Effect<Socket.Socket, never, Transport>>()(
    EffectSocket.makeSocketWith(StreamSocket.connect(address))
  )
  // @ts-expect-error connecting fails with an error of ours
  EffectSocket.makeSocketWith(failing)
  // @ts-expect-error half of a stream is no socket
  EffectSocket.toSocket({ readSome: stream.readSome })
}

export const servers = (acceptor: Acceptor.Acceptor, address: NetAddress.SocketAddress) => {
  expectType<Server>()(EffectSocket.toSocketServer(acceptor))
  expectType<Effect.Effect<Server, ServerError, Transport | Scope.Scope>>()(
    EffectSocket.makeSocketServer(address, { backlog: 1, chunkSize: 1 })
  )
  expectType<Effect.Effect<Server, ServerError, Resolving | Scope.Scope>>()(EffectSocket.makeSocketServer("[::]:1"))
  expectType<Layer.Layer<SocketServer.SocketServer, ServerError, Transport>>()(EffectSocket.layerSocketServer(address))
  expectType<Layer.Layer<SocketServer.SocketServer, ServerError, Resolving>>()(
    EffectSocket.layerSocketServer("localhost:0")
  )
}

export const streams = (socket: Socket.Socket, address: NetAddress.SocketAddress) => {
  expectType<Effect.Effect<StreamSocket.StreamSocket, SocketError, Scope.Scope>>()(EffectSocket.fromSocket(socket))
  EffectSocket.fromSocket(socket, { linger: "1 second", sliceSize: 1, remoteAddress: address })
  // @ts-expect-error a `Socket` has no such option
  EffectSocket.fromSocket(socket, { noDelay: true })
}
