import type * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as AddressResolver from "effect/net/AddressResolver"
import type * as Dns from "effect/net/Dns"
import * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"
import { type Address, Reason, SocketError } from "../../SocketError.ts"
import type { ResolverFor, Target } from "../../Transport.ts"

/** The address that an error names before the target is resolved; `undefined` for a malformed target. */
export const nameOf = (target: Target): Address | undefined => Result.getOrUndefined(parseTarget(target))

/** Resolves a target to its addresses, in the resolver's order. Only a name needs the resolver. */
export const resolveHost = <T extends Target>(
  operation: string,
  target: T,
  timeout: Duration.Duration = Duration.infinity
): Effect.Effect<Resolved, SocketError, ResolverFor<T>> =>
  // An address is never looked up, so the resolver is asked for only where the type says so.
  resolve(operation, target, timeout) as Effect.Effect<Resolved, SocketError, ResolverFor<T>>

interface Resolved {
  readonly name: Address
  readonly addresses: Arr.NonEmptyReadonlyArray<NetAddress.SocketAddress>
}

const resolve = (
  operation: string,
  target: Target,
  timeout: Duration.Duration
): Effect.Effect<Resolved, SocketError, AddressResolver.AddressResolver> => {
  const unresolved = (host: string, detail: string, address?: Address, cause?: Error) =>
    Effect.fail(
      new SocketError({ reason: Reason.NameResolution({ host, detail }), operation, address, transferred: 0, cause })
    )
  const parsed = parseTarget(target)
  if (Result.isFailure(parsed)) return unresolved(textOf(target), parsed.failure.message, undefined, parsed.failure)
  const name = parsed.success
  if (!Host.isHostPort(name)) return Effect.succeed({ name, addresses: [name] })
  const { host, port } = name
  if (NetAddress.isIpAddress(host)) {
    return Effect.succeed({ name, addresses: [NetAddress.inetAddressUnsafe(host, port)] })
  }
  const lookedUp = Effect.matchEffect(Effect.flatMap(AddressResolver.AddressResolver, (it) => lookUp(it, name)), {
    onFailure: (cause) => unresolved(Host.formatHost(host), cause.message, name, cause),
    onSuccess: (addresses) =>
      // A resolver of the program may break the promise of its type.
      addresses.length === 0
        ? unresolved(Host.formatHost(host), "it has no addresses", name)
        : Effect.succeed({ name, addresses })
  })
  return Duration.isFinite(timeout)
    ? Effect.timeoutOrElse(lookedUp, {
      duration: timeout,
      orElse: () =>
        unresolved(
          Host.formatHost(host),
          `no answer within ${Duration.format(timeout)}`,
          name,
          new Cause.TimeoutError()
        )
    })
    : lookedUp
}

// ---- internal

const badTarget = (input: string, message: string): Result.Result<never, NetAddress.NetAddressError> =>
  Result.fail(new NetAddress.NetAddressError({ input, message }))

const parseTarget = (target: Target): Result.Result<Address, NetAddress.NetAddressError> =>
  NetAddress.isSocketAddress(target)
    ? Result.succeed(target)
    : typeof target === "string"
    ? parseText(target)
    : Host.hostPortFromInput(target)

const parseText = (text: string): Result.Result<Address, NetAddress.NetAddressError> => {
  const [, scheme, place = ""] = /^([a-z][a-z0-9+.-]*):\/\/(.*)$/is.exec(text) ?? []
  switch (scheme?.toLowerCase()) {
    case undefined:
      return Host.hostPortFromString(text)
    case "tcp":
      return Host.hostPortFromString(place.endsWith("/") ? place.slice(0, -1) : place)
    case "unix":
      // The form that `formatUnixPath` gives. A name of the abstract namespace begins with a zero.
      return /^[/\0]./s.test(place)
        ? Result.succeed(NetAddress.unixPathAddress(place))
        : badTarget(text, "expected unix:///path")
    default:
      return badTarget(text, `no such scheme: ${scheme}; expected tcp://host:port or unix:///path`)
  }
}

const textOf = (target: Target): string =>
  typeof target === "string"
    ? target
    : NetAddress.isSocketAddress(target)
    ? NetAddress.formatSocketAddress(target)
    : `${typeof target.host === "string" ? target.host : JSON.stringify(target.host)}:${target.port}`

type Resolver = AddressResolver.AddressResolver["Service"]

type Addresses = Arr.NonEmptyReadonlyArray<NetAddress.SocketAddress>

interface Lookup {
  readonly fiber: Fiber.Fiber<Addresses, Dns.DnsError | NetAddress.NetAddressError>
  waiting: number
}

// The look-ups that are running, by resolver, because two resolvers may know different addresses, and then by host and port,
// because a resolver is asked for both.
const lookups = new WeakMap<Resolver, Map<string, Lookup>>()

/**
 * Asks a resolver. Fibers that ask for the same name at the same time share one look-up, which is interrupted when the last
 * of them is interrupted. The answer is not cached, because it may be wrong later.
 */
const lookUp = (
  resolver: Resolver,
  name: Host.HostPort
): Effect.Effect<Addresses, Dns.DnsError | NetAddress.NetAddressError> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(join(resolver, name), (lookup) =>
      Effect.ensuring(
        restore(Fiber.join(lookup.fiber)),
        Effect.suspend(() => {
          if (--lookup.waiting > 0) return Effect.void
          remove(resolver, name, lookup)
          return Fiber.interrupt(lookup.fiber)
        })
      ))
  )

const join = (resolver: Resolver, name: Host.HostPort): Effect.Effect<Lookup> =>
  Effect.suspend(() => {
    const known = lookups.get(resolver)?.get(Host.formatHostPort(name))
    if (known !== undefined) {
      known.waiting++
      return Effect.succeed(known)
    }
    return Effect.map(Effect.forkDetach(resolver.resolve(name), { startImmediately: true }), (fiber) => {
      const lookup: Lookup = { fiber, waiting: 1 }
      const names = lookups.get(resolver) ?? new Map<string, Lookup>()
      lookups.set(resolver, names)
      names.set(Host.formatHostPort(name), lookup)
      return lookup
    })
  })

const remove = (resolver: Resolver, name: Host.HostPort, lookup: Lookup): void => {
  const names = lookups.get(resolver)
  const key = Host.formatHostPort(name)
  if (names?.get(key) === lookup) names.delete(key)
}
