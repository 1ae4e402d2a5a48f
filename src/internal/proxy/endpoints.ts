import * as NetAddress from "effect/net/NetAddress"
import type { Endpoints } from "../../ProxyProtocol.ts"

/** Both ends as IP addresses of one family, or `undefined` if one of them is no IP address. */
export const inetEndpoints = (
  { destination, source }: Endpoints
): { readonly source: NetAddress.InetAddress; readonly destination: NetAddress.InetAddress } | undefined => {
  if (!NetAddress.isInetAddress(source) || !NetAddress.isInetAddress(destination)) return undefined
  return NetAddress.familyOf(source) === NetAddress.familyOf(destination)
    ? { source, destination }
    : { source: mapped(source), destination: mapped(destination) }
}

// ---- internal

const mapped = (address: NetAddress.InetAddress): NetAddress.InetAddress =>
  NetAddress.isInetAddressV4(address)
    ? NetAddress.inetAddressUnsafe(NetAddress.toIpv4Mapped(address.address), address.port)
    : address
