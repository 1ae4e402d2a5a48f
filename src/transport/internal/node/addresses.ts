/** Addresses in the form of `node:net`, and checks of those that it would refuse by throwing or accept by mistake. */
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"
import { Buffer } from "node:buffer"
import { networkInterfaces } from "node:os"
import { unnamed } from "../../../internal/base/unnamed.ts"
import { unsupported, unsupportedLocal } from "../../../internal/base/unsupported.ts"
import { Reason, SocketError } from "../../../SocketError.ts"

// The unspecified address of the family where Node does not know the address: the connection is gone already, or the
// interface of a link-local address is.
export const nativeAddress = (
  host: string | undefined,
  port: number | undefined,
  like: NetAddress.SocketAddress
): NetAddress.SocketAddress => {
  if (host !== undefined && port !== undefined) {
    if (!host.includes("%")) return NetAddress.inetAddressFromNativeUnsafe(host, port)
    const scoped = NetAddress.inetAddressFromHostString(host, port, scopeIds())
    if (Result.isSuccess(scoped)) return scoped.success
  }
  return NetAddress.isUnixPathAddress(like)
    ? unnamed
    : NetAddress.inetAddressUnsafe(
      NetAddress.isInetAddressV4(like) ? NetAddress.ipv4Unspecified : NetAddress.ipv6Unspecified,
      0
    )
}

export const nativeHost = (address: NetAddress.InetAddress): string =>
  NetAddress.isInetAddressV6(address) && address.scopeId !== 0
    ? NetAddress.formatNativeHost(address, scopeIds(), process.platform)
    : NetAddress.formatHost(address)

export const badPath = (operation: string, address: NetAddress.SocketAddress): SocketError | undefined => {
  if (!NetAddress.isUnixPathAddress(address)) return undefined
  // Node would take an empty path for none, and connect over TCP.
  if (address.path === "") return noSuchPath(operation, address)
  return process.platform !== "win32" && Buffer.byteLength(address.path) > maxPathBytes
    ? new SocketError({
      reason: Reason.LimitExceeded({ limit: maxPathBytes, subject: "the path" }),
      operation,
      address,
      transferred: 0,
      code: "ENAMETOOLONG"
    })
    : undefined
}

export const noSuchPath = (operation: string, address: NetAddress.SocketAddress): SocketError =>
  new SocketError({ reason: Reason.AddressNotAvailable(), operation, address, transferred: 0, code: "ENOENT" })

export const badLocal = (
  address: NetAddress.SocketAddress,
  local: NetAddress.SocketAddress | undefined
): SocketError | undefined => {
  const feature = unsupportedLocal(address, local)
  return feature === undefined ? undefined : unsupported("connect", address, feature)
}

// Node would throw in a later tick, where no caller can catch it.
export const forbidden = (operation: string, address: NetAddress.SocketAddress): SocketError | undefined => {
  // The types say that it always exists. Before Node 25 the permission model did not restrict networking.
  const permission: NodeJS.Process["permission"] | undefined = process.permission
  return permission === undefined || !process.allowedNodeEnvironmentFlags.has("--allow-net") || permission.has("net")
    ? undefined
    : new SocketError({
      reason: Reason.PermissionDenied(),
      operation,
      address,
      transferred: 0,
      code: "ERR_ACCESS_DENIED"
    })
}

// ---- internal

// The interfaces by name, for the zones of link-local addresses.
const scopeIds = () => NetAddress.scopeIdsFromInterfaces(Object.entries(networkInterfaces()))

// `sun_path` minus its terminating zero. Some versions of Node cut a longer path silently.
const maxPathBytes = process.platform === "linux" ? 107 : 103
