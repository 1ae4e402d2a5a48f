import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"
import type * as Scope from "effect/Scope"
import type { Options } from "../../Connector.ts"
import type { SocketError } from "../../SocketError.ts"
import type { TlsSocket } from "../../Tls.ts"
import type { ResolverFor, Target, Transport } from "../../Transport.ts"
import { open } from "../connect/open.ts"
import { nameOf } from "../connect/resolveHost.ts"
import { secureClient } from "./client.ts"
import { defaultDeadline } from "./options.ts"

/** Connects and makes the handshake. Both count for `timeout`. */
export const openSecure = <T extends Target>(
  target: T,
  options: Options,
  tls: NonNullable<Options["tls"]>
): Effect.Effect<TlsSocket, SocketError, Transport | ResolverFor<T> | Scope.Scope> =>
  Clock.clockWith((clock) => {
    const { timeout = Duration.infinity } = options
    const name = nameOf(target)
    // `open` fails with `NameResolution` for a malformed target, before the empty name is used.
    const servername = tls.servername ?? (name === undefined ? "" : hostOf(name))
    if (servername === undefined) {
      throw new TypeError("Connector.connect: tls.servername is missing; a Unix-domain path has no name of its own")
    }
    const startedAt = clock.monotonicTimeNanosUnsafe()
    return Effect.flatMap(open(target, options, options), (socket) => {
      const left = Duration.subtract(
        Duration.fromInputUnsafe(timeout),
        Duration.nanos(clock.monotonicTimeNanosUnsafe() - startedAt)
      )
      return secureClient(socket, tls, {
        servername,
        deadline: Duration.min(left, Duration.fromInputUnsafe(tls.deadline ?? defaultDeadline))
      })
    })
  })

// ---- internal

/** The host of an address as a certificate names it; `undefined` for a Unix-domain path. */
const hostOf = (name: NetAddress.SocketAddress | Host.HostPort): string | undefined =>
  Host.isHostPort(name)
    ? NetAddress.isIpAddress(name.host) ? NetAddress.formatIp(name.host) : Host.formatHost(name.host)
    : NetAddress.isUnixPathAddress(name)
    ? undefined
    : NetAddress.formatIp(name.address)
