/** Every transport and kind of address, for what has to be the same on all of them. */
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import type * as AddressResolver from "effect/net/AddressResolver"
import * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import { mkdtempSync, rmSync } from "node:fs"
import * as Net from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll } from "vitest"
import * as Acceptor from "../../src/Acceptor.ts"
import type { SocketError } from "../../src/SocketError.ts"
import * as StreamSocket from "../../src/StreamSocket.ts"
import * as MemoryTransport from "../../src/testing/MemoryTransport.ts"
import type { SocketOptions, Transport } from "../../src/Transport.ts"
import * as EpollTransport from "../../src/transport/EpollTransport.ts"
import * as NodeTransport from "../../src/transport/NodeTransport.ts"
import { overTls } from "./tlsTransport.ts"

export interface Place {
  readonly name: string
  readonly layer: Layer.Layer<Transport | AddressResolver.AddressResolver>
  /** A new one each time. */
  readonly address: () => NetAddress.SocketAddress
  readonly isUnix: boolean
}

const directory = mkdtempSync(join(tmpdir(), "effect-asio-"))
afterAll(() => rmSync(directory, { recursive: true, force: true }))
let paths = 0

const onTcp = (): NetAddress.SocketAddress => NetAddress.inetAddressFromStringUnsafe("127.0.0.1:0")
const onPath = (): NetAddress.SocketAddress => NetAddress.unixPathAddress(join(directory, `${paths++}.sock`))

const node = NodeTransport.layer
const epoll = Layer.orDie(EpollTransport.layer)

export const nodeTcp: Place = { name: "NodeTransport over TCP", layer: node, address: onTcp, isUnix: false }
export const nodeUnix: Place = { name: "NodeTransport over a path", layer: node, address: onPath, isUnix: true }
export const epollTcp: Place = { name: "EpollTransport over TCP", layer: epoll, address: onTcp, isUnix: false }
export const epollUnix: Place = { name: "EpollTransport over a path", layer: epoll, address: onPath, isUnix: true }
export const memory: Place = {
  name: "MemoryTransport",
  layer: Layer.fresh(MemoryTransport.layer),
  address: onTcp,
  isUnix: false
}

/** Where a raw peer of `node:net` can be the other end. */
export const kernel: ReadonlyArray<Place> = [nodeTcp, nodeUnix, epollTcp, epollUnix]
export const tcp: ReadonlyArray<Place> = [nodeTcp, epollTcp]
export const all: ReadonlyArray<Place> = [...kernel, memory]

/** The same with TLS over it, for both ends. */
export const secured = (place: Place): Place => ({
  ...place,
  name: `TLS over ${place.name}`,
  layer: Layer.merge(place.layer, Layer.provide(overTls(), place.layer))
})

export const withTls: ReadonlyArray<Place> = [...all, ...all.map(secured)]

/** Two ends of one connection of the transport at hand. */
export const pairOf = (
  place: Place,
  options?: SocketOptions
): Effect.Effect<
  readonly [client: StreamSocket.StreamSocket, server: StreamSocket.StreamSocket],
  SocketError,
  Transport | Scope.Scope
> =>
  Effect.gen(function*() {
    const acceptor = yield* Acceptor.listen(place.address(), options)
    const accepting = yield* Effect.forkChild(acceptor.accept, { startImmediately: true })
    const left = yield* StreamSocket.connect(acceptor.address, options)
    const right = yield* Fiber.join(accepting)
    yield* acceptor.close
    return [left, right] as const
  })

/** One connection whose client is a raw socket of `node:net`, in the end destroyed with the scope. */
export const rawClientOf = (
  place: Place,
  options?: { readonly socket?: SocketOptions; readonly client?: Net.SocketConstructorOpts }
): Effect.Effect<
  readonly [client: Net.Socket, server: StreamSocket.StreamSocket],
  SocketError,
  Transport | Scope.Scope
> =>
  Effect.gen(function*() {
    const acceptor = yield* Acceptor.listen(place.address(), options?.socket)
    const client = yield* rawConnect(acceptor.address, options?.client)
    const server = yield* acceptor.accept
    yield* acceptor.close
    return [client, server] as const
  })

export const rawConnect = (
  address: NetAddress.SocketAddress,
  options?: Net.SocketConstructorOpts
): Effect.Effect<Net.Socket, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<Net.Socket>((resume) => {
      const socket = new Net.Socket(options)
      socket.on("error", () => {})
      socket.once("connect", () => resume(Effect.succeed(socket)))
      if (NetAddress.isUnixPathAddress(address)) socket.connect(address.path)
      else socket.connect(address.port, "127.0.0.1")
    }),
    (socket) => Effect.sync(() => void socket.destroy())
  )

/** A raw server of `node:net` at such an address, closed with the scope, connections included. */
export const rawServer = (
  place: Place,
  onConnection: (socket: Net.Socket) => void,
  options: Net.ServerOpts = {}
): Effect.Effect<NetAddress.SocketAddress, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.callback<readonly [Net.Server, Set<Net.Socket>, NetAddress.SocketAddress]>((resume) => {
        const sockets = new Set<Net.Socket>()
        const server = Net.createServer(options, (socket) => {
          sockets.add(socket)
          socket.on("error", () => {})
          onConnection(socket)
        })
        const address = place.address()
        const listening = () => {
          const bound = server.address()
          const at = bound === null || typeof bound === "string"
            ? address
            : NetAddress.inetAddressFromStringUnsafe(`127.0.0.1:${bound.port}`)
          resume(Effect.succeed([server, sockets, at]))
        }
        if (NetAddress.isUnixPathAddress(address)) server.listen(address.path, listening)
        else server.listen(0, "127.0.0.1", listening)
      }),
      ([server, sockets]) =>
        Effect.sync(() => {
          for (const socket of sockets) socket.destroy()
          server.close()
        })
    ),
    ([, , address]) => address
  )
