import * as NetAddress from "effect/net/NetAddress"
import { type Address, Reason, SocketError } from "../../SocketError.ts"

/** The failure of an operation that was asked for something that cannot be done here. */
export const unsupported = (
  operation: string,
  address: Address | undefined,
  feature: string
): SocketError => new SocketError({ reason: Reason.Unsupported({ feature }), operation, address, transferred: 0 })

/** What cannot be done about a connection to `target` from `local`; `undefined` when it can be made. */
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
