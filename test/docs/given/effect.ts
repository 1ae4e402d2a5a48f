/**
 * What the examples that are written as the body of a generator may use without an import: the modules of Effect and of
 * this package, and values that they take as given, such as a `socket` that is connected.
 */
import type { Effect, Fiber, FiberSet, Layer, Schema, Stream } from "effect"
import type { Rpc, RpcGroup } from "effect/rpc"
import type {
  Acceptor,
  Buffers,
  Cancellation,
  Framing,
  Server,
  SocketError,
  StreamSocket,
  Tls,
  Transport
} from "../../../src/index.ts"
import type * as Promises from "../../../src/promises.ts"

export * as NodeRuntime from "@effect/platform-node/NodeRuntime"
export { it } from "@effect/vitest"
export {
  Cause,
  Config,
  ConfigProvider,
  Console,
  Effect,
  Exit,
  Fiber,
  FiberSet,
  Layer,
  Metric,
  Option,
  Pull,
  Redacted,
  Schedule,
  Schema,
  Stream
} from "effect"
export { Ndjson } from "effect/encoding"
export { RpcClient, RpcSerialization, RpcServer } from "effect/rpc"
export { Socket } from "effect/socket"
export { TestClock } from "effect/testing"
export * as Http from "node:http"
export * as Net from "node:net"
export { describe } from "vitest"
export * as EffectSocket from "../../../src/adapter/EffectSocket.ts"
export * as EffectStream from "../../../src/adapter/EffectStream.ts"
export * as NodeDuplex from "../../../src/adapter/NodeDuplex.ts"
export * as WebStreams from "../../../src/adapter/WebStreams.ts"
export {
  Acceptor,
  Buffers,
  Cancellation,
  CompletionCondition,
  Connector,
  Framing,
  Metrics,
  ProxyProtocol,
  Read,
  Relay,
  Server,
  SocketError,
  StreamSocket,
  Tls,
  Transport,
  Write
} from "../../../src/index.ts"
export { fromAcceptor, fromStreamSocket } from "../../../src/promises.ts"
export { MemoryTransport, ScriptedStream, StreamChecks } from "../../../src/testing/index.ts"
export * as AutoTransport from "../../../src/transport/AutoTransport.ts"
export * as EpollTransport from "../../../src/transport/EpollTransport.ts"
export * as NodeTransport from "../../../src/transport/NodeTransport.ts"

// Connections, and what is sent.
export declare const socket: StreamSocket.StreamSocket
export declare const accepted: StreamSocket.StreamSocket
export declare const upstream: StreamSocket.StreamSocket
export declare const acceptor: Acceptor.Acceptor
export declare const bytes: Uint8Array
export declare const header: Uint8Array
export declare const body: Uint8Array
export declare const goodbye: Uint8Array
export declare const cursor: Buffers.Cursor

// What runs, and what asks it to end.
export declare const program: Effect.Effect<void, SocketError.SocketError, Transport.Transport>
export declare const serveConnections: Effect.Effect<void, SocketError.SocketError>
export declare const fiber: Fiber.Fiber<number, SocketError.SocketError>
export declare const connections: FiberSet.FiberSet
export declare const signal: Cancellation.CancellationSignal
export declare const request: { readonly signal: AbortSignal }

// Parts of a program.
export declare const handler: (
  socket: StreamSocket.StreamSocket,
  connection: Server.Connection
) => Effect.Effect<void, SocketError.SocketError>
export declare const handle: (socket: StreamSocket.StreamSocket) => Effect.Effect<void, SocketError.SocketError>
export declare const report: (error: unknown) => Effect.Effect<void>
export declare const resumeLater: (transferred: number) => Effect.Effect<void>
export declare const Admin: Layer.Layer<never, SocketError.SocketError, Transport.Transport>
export declare const framing: Framing.ByteFraming
export declare const answer: (request: Uint8Array) => Effect.Effect<Uint8Array>
export declare const requests: Stream.Stream<Schema.Json>
export declare const certificate: string
export declare const key: string
export declare const readCertificate: Effect.Effect<Tls.ServerOptions>
export declare const Api: RpcGroup.RpcGroup<Rpc.Rpc<"hello", typeof Schema.Void, typeof Schema.String>>
export declare const handlers: Layer.Layer<Rpc.Handler<"hello">>
export declare const converse: (socket: Promises.Socket) => Promise<string>
export declare const serve: (listener: Promises.Listener) => Promise<void>
