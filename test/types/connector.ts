/** Connector: what it asks for and gives. Nothing here runs. */
import type * as Config from "effect/Config"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as AddressResolver from "effect/net/AddressResolver"
import type * as Host from "effect/net/Host"
import type * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import * as Connector from "../../src/Connector.ts"
import type { ConnectAttempt, Reason, SocketError } from "../../src/SocketError.ts"
import type { StreamSocket } from "../../src/StreamSocket.ts"
import type { TlsSocket } from "../../src/Tls.ts"
import type {
  Backing,
  ConnectOptions,
  KeepAlive,
  ListenOptions,
  LiveOptions,
  Target,
  Transport
} from "../../src/Transport.ts"
import { expectType } from "./expect.ts"

type Connected<R> = Effect.Effect<StreamSocket, SocketError, R | Scope.Scope>
type Needs = Transport | AddressResolver.AddressResolver

export const connect = (
  address: NetAddress.InetAddress,
  unix: NetAddress.UnixPathAddress,
  host: Host.HostPort,
  target: Target,
  tls: NonNullable<Connector.Options["tls"]>,
  perhaps: Connector.Options
) => {
  // An address needs no resolver, a name does.
  expectType<Connected<Transport>>()(Connector.connect(address))
  expectType<Connected<Transport>>()(Connector.connect(unix, { timeout: "1 second" }))
  expectType<Connected<Needs>>()(Connector.connect("tcp://localhost:7000"))
  expectType<Connected<Needs>>()(Connector.connect({ host: "::1", port: 1 }, undefined))
  expectType<Connected<Needs>>()(Connector.connect(host))
  expectType<Connected<Needs>>()(Connector.connect(target))
  expectType<NetAddress.SocketAddress | Host.HostPortInput>()(target)
  // With TLS, the stream is known to be a TlsSocket.
  expectType<Effect.Effect<TlsSocket, SocketError, Transport | Scope.Scope>>()(
    Connector.connect(address, { tls: { servername: "a.test" } })
  )
  expectType<Effect.Effect<TlsSocket, SocketError, Needs | Scope.Scope>>()(Connector.connect("a.test:443", { tls: {} }))
  expectType<Effect.Effect<TlsSocket, SocketError, Needs | Scope.Scope>>()(Connector.connect(target, { tls }))
  // With TLS or without it, the stream is the one that both are.
  expectType<Connected<Transport>>()(Connector.connect(address, { tls: undefined }))
  expectType<Connected<Needs>>()(Connector.connect(target, perhaps))
  expectType<Connected<Needs>>()(Connector.connect(target, { tls: perhaps.tls }))
  // @ts-expect-error no such option of TLS
  Connector.connect("a.test:443", { tls: { alpn: ["h2"], minVersoin: "TLSv1.3" } })
  // @ts-expect-error a host alone is no endpoint
  Connector.connect(host.host)
  // @ts-expect-error a port alone is no endpoint
  Connector.connect(7000)
  // @ts-expect-error no such option
  Connector.connect(address, { delay: 3 })
  // @ts-expect-error options of listeners are not for connections
  Connector.connect(address, { backlog: 3 })
}

export const options = (address: NetAddress.SocketAddress) => {
  const all: Connector.Options = {
    attemptDelay: "250 millis",
    attemptTimeout: 3000,
    timeout: "Infinity",
    lookupTimeout: { seconds: 3 },
    firstFamilyCount: 1,
    maxAddresses: 16,
    localAddress: address,
    noDelay: true,
    keepAlive: { idle: "1 minute", interval: [1, 0], count: 3 },
    userTimeout: 10n,
    sendBuffer: 4096,
    receiveBuffer: undefined,
    linger: 0,
    sliceSize: 1
  }
  all satisfies ConnectOptions
  expectType<boolean | Duration.Input | KeepAlive | undefined>()(all.keepAlive)
  const listening: ListenOptions = {
    reusePort: true,
    ipv6Only: true,
    backlog: 1,
    keepAlive: { count: 3 },
    sendBuffer: 1
  }
  expectType<boolean | undefined>()(listening.reusePort)
  // @ts-expect-error no such number of probes
  all satisfies { readonly keepAlive: { readonly probes: number } }
}

export const live = (socket: StreamSocket, backing: Backing) => {
  expectType<Effect.Effect<void, SocketError>>()(socket.configure({ userTimeout: "1 second", keepAlive: { count: 1 } }))
  expectType<(options: LiveOptions) => Effect.Effect<void, SocketError>>()(socket.configure)
  // @ts-expect-error buffers are for the start
  socket.configure({ sendBuffer: 1 })
  // A backing that has nothing to answer answers nothing.
  backing satisfies { readonly configure: (options: never) => unknown }
  const silent = { ...backing, configure: (): void => {} }
  silent satisfies Backing
}

export const service = (config: Config.Config<Connector.Options>) => {
  type Made<E> = Layer.Layer<Connector.Connector, E, Needs>
  expectType<Made<never>>()(Connector.layer())
  expectType<Made<never>>()(Connector.layer({ timeout: "1 second" }))
  expectType<Made<Config.ConfigError>>()(Connector.layerConfig())
  expectType<Made<Config.ConfigError>>()(Connector.layerConfig(config))
  expectType<Config.Config<Connector.Options>>()(Connector.config)
  // Its user needs neither transport nor resolver.
  expectType<Connected<Connector.Connector>>()(
    Effect.flatMap(Connector.Connector, (connector) => connector.connect("localhost:1", { noDelay: false }))
  )
}

export const failing = (reason: Reason) => {
  expectType<boolean>()(Connector.isTransient(reason))
  if (reason._tag !== "ConnectFailed") return
  expectType<ReadonlyArray<ConnectAttempt>>()(reason.attempts)
  expectType<number>()(reason.untried)
  const [attempt] = reason.attempts
  if (attempt === undefined) return
  expectType<NetAddress.SocketAddress>()(attempt.address)
  expectType<Reason>()(attempt.reason)
  expectType<Duration.Duration>()(attempt.startedAfter)
  expectType<Duration.Duration>()(attempt.took)
}
