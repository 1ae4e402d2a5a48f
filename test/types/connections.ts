/** Connecting, listening, serving and layers: what they ask for and how they fail. Nothing here runs. */
import type * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as AddressResolver from "effect/net/AddressResolver"
import type * as Host from "effect/net/Host"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Pull from "effect/Pull"
import type * as Scope from "effect/Scope"
import * as Acceptor from "../../src/Acceptor.ts"
import type * as Buffers from "../../src/Buffers.ts"
import type { SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import * as ScriptedStream from "../../src/testing/ScriptedStream.ts"
import { type Backing, type ListenerBacking, type ResolverFor, type Target, Transport } from "../../src/Transport.ts"
import * as AutoTransport from "../../src/transport/AutoTransport.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import { expectType } from "./expect.ts"

type Connected<R> = Effect.Effect<StreamSocket.StreamSocket, SocketError, R | Scope.Scope>
declare const resolverFor: <T extends Target>(target: T) => ResolverFor<T>

type Listening<R> = Effect.Effect<Acceptor.Acceptor, SocketError, R | Scope.Scope>

export const connect = (
  address: NetAddress.SocketAddress,
  inet: NetAddress.InetAddress,
  unix: NetAddress.UnixPathAddress,
  either: NetAddress.SocketAddress | string,
  host: Host.HostPort
) => {
  // An address needs no resolver, a name does.
  expectType<Connected<Transport>>()(StreamSocket.connect(address))
  expectType<Connected<Transport>>()(StreamSocket.connect(inet, { noDelay: false }))
  expectType<Connected<Transport>>()(StreamSocket.connect(unix, undefined))
  expectType<Connected<Transport | AddressResolver.AddressResolver>>()(StreamSocket.connect("localhost:7000"))
  expectType<Connected<Transport | AddressResolver.AddressResolver>>()(StreamSocket.connect({ host: "::1", port: 1 }))
  expectType<Connected<Transport | AddressResolver.AddressResolver>>()(StreamSocket.connect(host))
  expectType<Connected<Transport | AddressResolver.AddressResolver>>()(StreamSocket.connect(either))
  // So does a function that connects to any target.
  const wrapped = <T extends Target>(target: T) => StreamSocket.connect(target)
  expectType<Connected<Transport>>()(wrapped(inet))
  expectType<Connected<Transport | AddressResolver.AddressResolver>>()(wrapped("localhost:7000"))
  expectType<AddressResolver.AddressResolver>()(resolverFor("localhost:7000"))
  expectType<never>()(resolverFor(unix))
  expectType<Connected<Transport>>()(
    StreamSocket.connect(address, { keepAlive: "30 seconds", linger: 0, sliceSize: 1, noDelay: undefined })
  )
  // @ts-expect-error a port alone is no endpoint
  StreamSocket.connect(7000)
  // @ts-expect-error a host without a port is no endpoint
  StreamSocket.connect({ host: "localhost" })
  // @ts-expect-error no such option
  StreamSocket.connect(address, { delay: true })
  // @ts-expect-error keepAlive is a duration or a switch
  StreamSocket.connect(address, { keepAlive: null })
}

export const listen = (address: NetAddress.SocketAddress, acceptor: Acceptor.Acceptor) => {
  expectType<Listening<Transport>>()(Acceptor.listen(address, { backlog: 5, ipv6Only: true, linger: "1 second" }))
  expectType<Listening<Transport | AddressResolver.AddressResolver>>()(Acceptor.listen("localhost:0"))
  // @ts-expect-error a port alone is no place to listen
  Acceptor.listen(7000)
  expectType<Connected<never>>()(acceptor.accept)
  expectType<Effect.Effect<void>>()(acceptor.close)
  expectType<NetAddress.SocketAddress>()(acceptor.address)
  // @ts-expect-error a guard answers a boolean
  Acceptor.isAcceptor(acceptor) satisfies string
}

export const serve = (
  acceptor: Acceptor.Acceptor,
  service: Effect.Effect<number, "my own error", Transport | Scope.Scope>
) => {
  // The errors of a handler are its own; its requirements remain.
  expectType<Effect.Effect<never, SocketError, Transport | Scope.Scope>>()(Acceptor.serve(acceptor, () => service))
  expectType<Effect.Effect<never, SocketError>>()(
    Acceptor.serve(acceptor, (socket) => socket.readSome(new Uint8Array(1)))
  )
  // @ts-expect-error a handler answers with an effect
  Acceptor.serve(acceptor, async () => {})
}

export const stream = (socket: StreamSocket.StreamSocket, backing: Backing) => {
  expectType<Pull.Pull<number, SocketError>>()(socket.readSome(new Uint8Array(1)))
  expectType<Effect.Effect<number, SocketError | Cause.Done>>()(socket.readSome(Buffer.alloc(1)))
  expectType<(source: Buffers.Input) => Effect.Effect<number, SocketError>>()(socket.writeSome)
  expectType<Effect.Effect<void, SocketError>>()(socket.shutdownWrite)
  expectType<Effect.Effect<void>>()(socket.close)
  expectType<Effect.Effect<void>>()(socket.abort)
  expectType<Effect.Effect<void, SocketError>>()(socket.configure({ noDelay: true }))
  expectType<StreamSocket.StreamSocket>()(StreamSocket.make(backing))
  expectType<StreamSocket.StreamSocket>()(StreamSocket.make(backing, { linger: "1 second" }))
  // @ts-expect-error the slice size of a live connection stays
  socket.configure({ sliceSize: 3 })
  // @ts-expect-error counters are for reading
  socket.bytesRead = 0
  // @ts-expect-error text is not bytes
  socket.writeSome("text")
  // @ts-expect-error a read needs one piece of memory
  socket.readSome([new Uint8Array(1)])
}

export const descriptors = (socket: StreamSocket.StreamSocket, acceptor: Acceptor.Acceptor) => {
  expectType<Effect.Effect<Backing, SocketError>>()(EpollTransport.fromFd(3))
  expectType<Effect.Effect<ListenerBacking, SocketError>>()(EpollTransport.listenerFromFd(3))
  expectType<Effect.Effect<Acceptor.Acceptor, SocketError>>()(
    Effect.map(EpollTransport.listenerFromFd(3), (backing) => Acceptor.make(backing, { linger: 0 }))
  )
  expectType<Effect.Effect<number, SocketError>>()(StreamSocket.detachFd(socket))
  expectType<Effect.Effect<number, SocketError>>()(Acceptor.detachFd(acceptor))
  expectType<Effect.Effect<number | string, SocketError>>()(
    StreamSocket.detachFd(socket).pipe(
      Effect.catchReason("SocketError", "Busy", ({ detail }) => Effect.succeed(detail))
    )
  )
  expectType<Effect.Effect<ReadonlyArray<{ readonly fd: number; readonly name: string }>>>()(EpollTransport.listenFds)
  // @ts-expect-error a listener is no connection
  Effect.map(EpollTransport.listenerFromFd(3), (backing) => StreamSocket.make(backing))
  // @ts-expect-error and a connection no listener
  Effect.map(EpollTransport.fromFd(3), (backing) => Acceptor.make(backing))
}

export const guards = (value: unknown) => {
  if (StreamSocket.isStreamSocket(value)) expectType<StreamSocket.StreamSocket>()(value)
  if (Acceptor.isAcceptor(value)) expectType<Acceptor.Acceptor>()(value)
}

export const layers = (program: Connected<Transport | AddressResolver.AddressResolver>) => {
  expectType<Layer.Layer<Transport | AddressResolver.AddressResolver>>()(NodeTransport.layer)
  expectType<Layer.Layer<Transport | AddressResolver.AddressResolver>>()(AutoTransport.layer)
  expectType<Layer.Layer<Transport | AddressResolver.AddressResolver, SocketError>>()(EpollTransport.layer)
  expectType<Layer.Layer<Transport | AddressResolver.AddressResolver>>()(MemoryTransport.layer)
  expectType<Layer.Layer<Transport | AddressResolver.AddressResolver>>()(MemoryTransport.layerWith({ capacity: 1 }))
  expectType<Effect.Effect<StreamSocket.StreamSocket, SocketError, Scope.Scope>>()(
    program.pipe(Effect.provide(NodeTransport.layer))
  )
  expectType<Effect.Effect<string, never, Transport>>()(Effect.map(Transport, (transport) => transport.name))
}

export const testing = () => {
  expectType<Effect.Effect<readonly [StreamSocket.StreamSocket, StreamSocket.StreamSocket], never, Scope.Scope>>()(
    MemoryTransport.pair({ seed: 1 })
  )
  expectType<Effect.Effect<readonly [StreamSocket.StreamSocket, StreamSocket.StreamSocket], never, Scope.Scope>>()(
    MemoryTransport.clogged()
  )
  expectType<Effect.Effect<ScriptedStream.ScriptedStream, never, Scope.Scope>>()(
    ScriptedStream.make({ reads: [ScriptedStream.data("x"), ScriptedStream.end], writes: [ScriptedStream.take(1)] })
  )
  // @ts-expect-error a write does not end
  ScriptedStream.make({ writes: [ScriptedStream.end] })
  // @ts-expect-error a read takes nothing
  ScriptedStream.make({ reads: [ScriptedStream.take(1)] })
}
