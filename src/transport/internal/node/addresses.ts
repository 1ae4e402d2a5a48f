/** Addresses as `node:net` takes and tells them, and which of them it would refuse in a worse way. */
import * as NetAddress from "effect/net/NetAddress"
import * as Result from "effect/Result"
import { Buffer } from "node:buffer"
import { networkInterfaces } from "node:os"
import { unsupported, unsupportedLocal } from "../../../internal/base/unsupported.ts"
import { Reason, SocketError } from "../../../SocketError.ts"

export const unnamed = NetAddress.unixPathAddress("")

// Node has no answer for a connection that is gone already: then it is the unspecified address of the family, as it is
// for a link-local address whose interface is gone.
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
  // To Node an empty path is none at all, and it would connect to TCP.
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

// Node itself would throw, and in a tick of its own, where nobody can catch it.
export const forbidden = (operation: string, address: NetAddress.SocketAddress): SocketError | undefined => {
  // In the types it is always there; before Node 25 it has no say in networks.
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

// Zones of link-local addresses: interfaces by name, as they are now.
const scopeIds = () => NetAddress.scopeIdsFromInterfaces(Object.entries(networkInterfaces()))

// `sun_path` minus its terminating zero. Some versions of Node cut a longer path silently.
const maxPathBytes = process.platform === "linux" ? 107 : 103
