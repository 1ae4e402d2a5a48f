import * as Effect from "effect/Effect"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import * as Buffers from "../../Buffers.ts"
import * as CompletionCondition from "../../CompletionCondition.ts"
import type { Abortable, Socket, TlsSocket } from "../../promises.ts"
import * as Read from "../../Read.ts"
import type { SocketError } from "../../SocketError.ts"
import * as StreamSocket from "../../StreamSocket.ts"
import * as Tls from "../../Tls.ts"
import type { LiveOptions } from "../../Transport.ts"
import * as Write from "../../Write.ts"
import { detachScope } from "../base/detachScope.ts"
import { PullIterator } from "./PullIterator.ts"
import { orNull, type Requested, run } from "./run.ts"

export class PromiseSocket<S extends StreamSocket.StreamSocket> implements Socket {
  readonly stream: S

  constructor(stream: S) {
    this.stream = stream
  }

  get localAddress(): NetAddress.SocketAddress {
    return this.stream.localAddress
  }

  get remoteAddress(): NetAddress.SocketAddress {
    return this.stream.remoteAddress
  }

  get bytesRead(): number {
    return this.stream.bytesRead
  }

  get bytesWritten(): number {
    return this.stream.bytesWritten
  }

  get state(): StreamSocket.State {
    return this.stream.state
  }

  get tls(): Tls.ConnectionInfo | undefined {
    return undefined
  }

  readSome(target: Uint8Array, options?: Abortable): Promise<number | null> {
    return run(
      orNull(this.stream.readSome(target)),
      options,
      () => this.requested("readSome", Buffers.byteLength(target))
    )
  }

  readExactly(target: Uint8Array, options?: Abortable): Promise<number | null> {
    return run(
      orNull(Read.readExactly(this.stream, target)),
      options,
      () => this.requested("readExactly", Buffers.byteLength(target))
    )
  }

  readAtLeast(target: Uint8Array, minimum: number, options?: Abortable): Promise<number | null> {
    return run(
      orNull(Read.readAtLeast(this.stream, target, minimum)),
      options,
      () => this.requested("readAtLeast", minimum)
    )
  }

  readUntil(
    delimiter: Read.Delimiter,
    options?: Abortable & { readonly max?: number | undefined }
  ): Promise<Uint8Array | null> {
    return run(orNull(Read.readUntil(this.stream, delimiter, options)), options, () => this.requested("readUntil"))
  }

  readAll(options?: Abortable & { readonly max?: number | undefined }): Promise<Uint8Array> {
    return run(Read.readAll(this.stream, options), options, () => this.requested("readAll"))
  }

  writeSome(source: Buffers.Input, options?: Abortable): Promise<number> {
    return run(this.stream.writeSome(source), options, () => this.requested("writeSome", Buffers.byteLength(source)))
  }

  writeAll(
    source: Buffers.Input | Buffers.Cursor,
    options?: Abortable & { readonly condition?: CompletionCondition.Input | undefined }
  ): Promise<number> {
    const condition = options?.condition ?? CompletionCondition.transferAll
    return run(Write.writeAll(this.stream, source, condition), options, () => {
      const offered = Buffers.isCursor(source) ? source.remaining : Buffers.byteLength(source)
      return this.requested("writeAll", CompletionCondition.fromInput(condition).expectedTotal(offered))
    })
  }

  shutdownWrite(options?: Abortable): Promise<void> {
    return run(this.stream.shutdownWrite, options, () => this.requested("shutdownWrite"))
  }

  close(): Promise<void> {
    return run(this.stream.close)
  }

  abort(): Promise<void> {
    return run(this.stream.abort)
  }

  isReusable(): Promise<boolean> {
    return run(StreamSocket.isReusable(this.stream))
  }

  configure(options: LiveOptions): Promise<void> {
    return run(this.stream.configure(options))
  }

  tlsClient(tls: Tls.ClientOptions, options?: Abortable): Promise<TlsSocket> {
    return this.upgrade("Tls.client", () => Tls.client(this.stream, tls), options)
  }

  tlsServer(tls: Tls.ServerOptions | Tls.ServerContext, options?: Abortable): Promise<TlsSocket> {
    return this.upgrade("Tls.server", () => Tls.server(this.stream, tls), options)
  }

  [Symbol.asyncIterator](): AsyncIterableIterator<Uint8Array, undefined> {
    // One buffer per loop. Each chunk is a copy, as long as what arrived.
    const receiveBuffer = new Uint8Array(chunkSize)
    return new PullIterator(Effect.map(this.stream.readSome(receiveBuffer), (count) => receiveBuffer.slice(0, count)))
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close()
  }

  private upgrade(
    operation: string,
    upgraded: () => Effect.Effect<Tls.TlsSocket, SocketError, Scope.Scope>,
    options: Abortable | undefined
  ): Promise<TlsSocket> {
    return run(
      Effect.map(detachScope(Effect.suspend(upgraded)), (socket) => new TlsPromiseSocket(socket)),
      options,
      () => this.requested(operation)
    )
  }

  private requested(operation: string, total = 0): Requested {
    return { operation, address: this.stream.remoteAddress, total }
  }
}

export class TlsPromiseSocket extends PromiseSocket<Tls.TlsSocket> implements TlsSocket {
  override get tls(): Tls.ConnectionInfo {
    return this.stream.tls
  }
}

export const socketOver = (stream: StreamSocket.StreamSocket): Socket =>
  Tls.isTlsSocket(stream) ? new TlsPromiseSocket(stream) : new PromiseSocket(stream)

// ---- internal

const chunkSize = 65_536
