import * as NetAddress from "effect/net/NetAddress"
import { type Address, Reason, SocketError } from "../../SocketError.ts"

/** The error of an operation that this transport or platform does not support. */
export const unsupported = (
  operation: string,
  address: Address | undefined,
  feature: string
): SocketError => new SocketError({ reason: Reason.Unsupported({ feature }), operation, address, transferred: 0 })

/** What is unsupported about a connection from `local` to `target`; `undefined` when it can be made. */
export const unsupportedLocal = (
  target: NetAddress.SocketAddress,
  local: NetAddress.SocketAddress | undefined
): string | undefined => {
  if (local === undefined) return undefined
  if (NetAddress.isUnixPathAddress(local)) return "a Unix-domain path as the local address"
  if (NetAddress.isUnixPathAddress(target)) return "a local address of a connection to a Unix-domain path"
  return NetAddress.familyOf(local) === NetAddress.familyOf(target)
    ? undefined
    : `an ${NetAddress.familyOf(target)} connection from ${NetAddress.formatInet(local)}`
}
