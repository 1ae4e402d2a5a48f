import type * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as AddressResolver from "effect/net/AddressResolver"
import * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"
import { type Address, Reason, SocketError } from "../SocketError.ts"

/** What an error names as the place, before any address is known. */
export const nameOf = (target: NetAddress.SocketAddress | Host.HostPortInput): Address | undefined =>
  NetAddress.isSocketAddress(target) ? target : Result.getOrUndefined(Host.hostPortFromInput(target))

/** The addresses of a host and port, in the resolver's order. */
export const resolveHost = (
  operation: string,
  input: Host.HostPortInput
): Effect.Effect<
  { readonly host: Host.HostPort; readonly addresses: Arr.NonEmptyReadonlyArray<NetAddress.SocketAddress> },
  SocketError,
  AddressResolver.AddressResolver
> =>
  Effect.flatMap(AddressResolver.AddressResolver, (resolver) => {
    const unresolved = (name: string, address: Host.HostPort | undefined, cause: Error) =>
      new SocketError({
        reason: Reason.NameResolution({ host: name, detail: cause.message }),
        operation,
        address,
        transferred: 0,
        cause
      })
    const parsed = Host.hostPortFromInput(input)
    if (Result.isFailure(parsed)) return Effect.fail(unresolved(textOf(input), undefined, parsed.failure))
    const host = parsed.success
    return Effect.mapBoth(resolver.resolve(host), {
      onFailure: (cause) => unresolved(Host.formatHost(host.host), host, cause),
      onSuccess: (addresses) => ({ host, addresses })
    })
  })

const textOf = (input: Host.HostPortInput): string =>
  typeof input === "string"
    ? input
    : `${typeof input.host === "string" ? input.host : JSON.stringify(input.host)}:${input.port}`
