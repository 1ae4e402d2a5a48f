/** The promise face: what it takes, and what its promises resolve to. Nothing here runs. */
import type * as Host from "effect/net/Host"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Acceptor from "../../src/Acceptor.ts"
import * as Buffers from "../../src/Buffers.ts"
import * as CompletionCondition from "../../src/CompletionCondition.ts"
import type * as Connector from "../../src/Connector.ts"
import {
  type Abortable,
  connect,
  fromAcceptor,
  fromStreamSocket,
  listen,
  type Listener,
  type ListenerOptions,
  type Socket,
  type TlsSocket
} from "../../src/promises.ts"
import { isSocketError, type SocketError } from "../../src/SocketError.ts"
import type * as StreamSocket from "../../src/StreamSocket.ts"
import type * as Tls from "../../src/Tls.ts"
import { expectType } from "./expect.ts"

export const constructors = (
  address: NetAddress.SocketAddress,
  host: Host.HostPort,
  signal: AbortSignal,
  stream: StreamSocket.StreamSocket,
  acceptor: Acceptor.Acceptor
) => {
  expectType<Promise<Socket>>()(connect(address))
  expectType<Promise<Socket>>()(connect(host, undefined))
  expectType<Promise<Socket>>()(connect({ host: "::1", port: 1 }, { linger: 0, keepAlive: "1 minute" }))
  expectType<Promise<Socket>>()(connect("localhost:7000", { noDelay: false, signal, type: "partial" }))
  expectType<Promise<Listener>>()(listen(address))
  expectType<Promise<Listener>>()(listen("localhost:0", { backlog: 5, ipv6Only: true, signal: undefined }))
  expectType<Socket>()(fromStreamSocket(stream))
  expectType<Listener>()(fromAcceptor(acceptor))
  // @ts-expect-error a port alone is no endpoint
  void connect(7000)
  // @ts-expect-error a connection has no backlog
  void connect(address, { backlog: 5 })
  // @ts-expect-error the controller is not the signal
  void connect(address, { signal: new AbortController() })
  // @ts-expect-error no such type of cancellation
  void connect(address, { signal, type: "gentle" })
}

export const overTls = async (
  address: NetAddress.SocketAddress,
  signal: AbortSignal,
  socket: Socket,
  secure: TlsSocket,
  either: Tls.ServerOptions | Tls.ServerContext,
  maybe: Connector.Options,
  perhaps: ListenerOptions,
  stream: Tls.TlsSocket
) => {
  expectType<Promise<TlsSocket>>()(connect("example.com:443", { tls: {}, timeout: "5 seconds", signal }))
  expectType<Promise<TlsSocket>>()(connect(address, { tls: { servername: "x", alpn: ["h2"] }, linger: 0 }))
  expectType<Promise<Socket>>()(connect(address, { tls: undefined }))
  expectType<Promise<Socket>>()(connect(address, maybe))
  expectType<Promise<Listener<TlsSocket>>>()(listen(address, { tls: either, backlog: 5, signal }))
  expectType<Promise<Listener<TlsSocket>>>()(
    listen(address, {
      tls: either,
      onHandshakeFailure: async (error) => {
        expectType<SocketError>()(error)
      }
    })
  )
  expectType<Promise<Listener>>()(listen(address, perhaps))
  expectType<Promise<TlsSocket>>()(socket.tlsClient({ servername: "x" }))
  expectType<Promise<TlsSocket>>()(secure.tlsServer(either, { signal, type: "terminal" }))
  expectType<TlsSocket>()(fromStreamSocket(stream))
  expectType<Tls.ConnectionInfo | undefined>()(socket.tls)
  expectType<Tls.ConnectionInfo>()(secure.tls)
  expectType<Tls.TlsSocket>()(secure.stream)
  await using listener = await listen(address, { tls: either })
  expectType<Promise<TlsSocket>>()(listener.accept({ signal }))
  for await (const accepted of listener) expectType<string | undefined>()(accepted.tls.alpn)
  const plain: Socket = secure
  const general: Listener = listener
  // @ts-expect-error a server has a certificate
  void listen(address, { tls: {} })
  // @ts-expect-error a client in the middle of a connection has to say whom it expects
  void socket.tlsClient({ alpn: ["h2"] })
  // @ts-expect-error verification is not turned off by a flag
  void connect(address, { tls: { dangerouslySkipVerification: true } })
  // @ts-expect-error the signal is no option of TLS
  void socket.tlsClient({ servername: "x", signal })
  return [plain, general]
}

export const reads = (socket: Socket, target: Uint8Array, signal: AbortSignal, options: Abortable) => {
  expectType<Promise<number | null>>()(socket.readSome(target))
  expectType<Promise<number | null>>()(socket.readExactly(Buffer.alloc(1), { signal }))
  expectType<Promise<number | null>>()(socket.readAtLeast(target, 1, options))
  expectType<Promise<Uint8Array | null>>()(socket.readUntil("\n"))
  expectType<Promise<Uint8Array | null>>()(socket.readUntil(/\r?\n/, { max: 5, signal, type: "total" }))
  expectType<Promise<Uint8Array | null>>()(socket.readUntil((bytes) => bytes.byteLength, { max: undefined }))
  expectType<Promise<Uint8Array>>()(socket.readAll())
  expectType<Promise<Uint8Array>>()(socket.readAll({ max: 5, signal }))
  // @ts-expect-error a read needs one piece of memory
  void socket.readSome([target])
  // @ts-expect-error a minimum is missing
  void socket.readAtLeast(target, options)
  // @ts-expect-error a signal alone is no options
  void socket.readAll(signal)
  // @ts-expect-error counters are for reading
  socket.bytesRead = 0
}

export const writes = (socket: Socket, bytes: Uint8Array, signal: AbortSignal) => {
  expectType<Promise<number>>()(socket.writeSome(bytes, { signal }))
  expectType<Promise<number>>()(socket.writeAll([bytes, new DataView(bytes.buffer)]))
  expectType<Promise<number>>()(socket.writeAll(Buffers.cursor(bytes), { signal, type: "partial" }))
  expectType<Promise<number>>()(socket.writeAll(bytes, { condition: CompletionCondition.transferAtLeast(1) }))
  expectType<Promise<number>>()(socket.writeAll(bytes, { condition: (count) => 10 - count }))
  expectType<Promise<void>>()(socket.shutdownWrite({ signal }))
  expectType<Promise<void>>()(socket.configure({ noDelay: true }))
  // @ts-expect-error text is not bytes
  void socket.writeAll("text")
  // @ts-expect-error only a composed write has a condition
  void socket.writeSome(bytes, { condition: CompletionCondition.transferAll })
  // @ts-expect-error the slice size of a live connection stays
  void socket.configure({ sliceSize: 3 })
}

export const ends = async (socket: Socket, listener: Listener) => {
  expectType<Promise<void>>()(socket.close())
  expectType<Promise<void>>()(socket.abort())
  expectType<Promise<void>>()(listener.close())
  // @ts-expect-error closing goes on whatever happens; abort ends it
  void socket.close({ signal: AbortSignal.abort() })
  await using disposable = socket
  expectType<StreamSocket.StreamSocket>()(disposable.stream)
  for await (const chunk of socket) expectType<Uint8Array>()(chunk)
  for await (const accepted of listener) expectType<Socket>()(accepted)
  expectType<Acceptor.Acceptor>()(listener.acceptor)
}

export const errors = async (socket: Socket) => {
  try {
    await socket.readAll()
  } catch (error) {
    if (!isSocketError(error) || error.reason._tag !== "OperationAborted") return
    expectType<"terminal" | "partial" | "total">()(error.reason.type)
    expectType<readonly [number, number | undefined]>()([error.transferred, error.total] as const)
  }
}
