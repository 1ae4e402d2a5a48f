/** PROXY headers in and out, and what their operations fail with. Nothing here runs. */
import type * as Cause from "effect/Cause"
import type * as Effect from "effect/Effect"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Option from "effect/Option"
import type * as Pull from "effect/Pull"
import * as ProxyProtocol from "../../src/ProxyProtocol.ts"
import type { SocketError } from "../../src/SocketError.ts"
import type { ReadStream, StreamSocket, WriteStream } from "../../src/StreamSocket.ts"
import { expectType } from "./expect.ts"

export const receiving = (socket: StreamSocket, reader: ReadStream, trusted: ProxyProtocol.Trust) => {
  expectType<Pull.Pull<ProxyProtocol.Header, SocketError>>()(ProxyProtocol.receive(socket, { trusted }))
  expectType<Effect.Effect<ProxyProtocol.Header, SocketError | Cause.Done>>()(
    ProxyProtocol.receive({ trusted, versions: [2], max: undefined })(socket)
  )
  expectType<Pull.Pull<Option.Option<ProxyProtocol.Header>, SocketError>>()(
    ProxyProtocol.receiveOption(socket, { trusted, required: false, untrusted: "plain" })
  )
  expectType<Pull.Pull<Option.Option<ProxyProtocol.Header>, SocketError>>()(
    ProxyProtocol.receiveOption({ trusted })(socket)
  )
  // A plain object that knows its peer is enough.
  expectType<Pull.Pull<ProxyProtocol.Header, SocketError>>()(
    ProxyProtocol.receive({ readSome: reader.readSome, remoteAddress: socket.remoteAddress }, { trusted })
  )
  // @ts-expect-error whom to trust has no default
  ProxyProtocol.receive(socket, {})
  // @ts-expect-error whom to trust has no default
  ProxyProtocol.receive(socket)
  // @ts-expect-error a header that need not be there is an Option
  ProxyProtocol.receive(socket, { trusted, required: false })
  // @ts-expect-error there is no version 3
  ProxyProtocol.receive(socket, { trusted, versions: [3] })
  // @ts-expect-error nobody knows the peer
  ProxyProtocol.receive(reader, { trusted })
}

export const trusting = (ip: NetAddress.IpAddress) => {
  expectType<ProxyProtocol.Trust>()(ProxyProtocol.trustPeers(["10.0.0.0/8", ip, "unix"]))
  expectType<ProxyProtocol.Trust>()(ProxyProtocol.trustAnyone)
  // @ts-expect-error a list, because one entry is easily forgotten
  ProxyProtocol.trustPeers("10.0.0.0/8")
}

export const sending = (socket: StreamSocket, writer: WriteStream, header: ProxyProtocol.Header) => {
  expectType<Effect.Effect<number, SocketError>>()(ProxyProtocol.send(socket, header))
  expectType<Effect.Effect<number, SocketError>>()(ProxyProtocol.send(header, { checksum: true })(writer))
  expectType<Uint8Array>()(ProxyProtocol.encode({ version: 2, command: "local" }, { checksum: undefined }))
  expectType<ProxyProtocol.Endpoints>()(ProxyProtocol.endpointsOf(socket))
  expectType<NetAddress.SocketAddress | undefined>()(header.endpoints?.source)
  expectType<boolean | undefined>()(header.ssl?.certificateOnConnection)
  // @ts-expect-error the command is missing
  ProxyProtocol.encode({ version: 2 })
  // @ts-expect-error one end alone
  ProxyProtocol.encode({ version: 2, command: "proxy", endpoints: { source: socket.remoteAddress } })
}
