import * as NetAddress from "effect/net/NetAddress"

/** What peers are counted by; `undefined` on a Unix-domain path. An IPv6 peer owns a network. */
export const peerKey = (address: NetAddress.SocketAddress, ipv6Prefix: number): string | undefined => {
  if (NetAddress.isUnixPathAddress(address)) return undefined
  const ip = NetAddress.toCanonical(address.address)
  if (NetAddress.isIpv4Address(ip) || ipv6Prefix === 128) return NetAddress.formatIp(ip)
  const segments = NetAddress.ipv6ToSegments(ip).map((segment, i) => {
    const bits = Math.min(Math.max(ipv6Prefix - i * 16, 0), 16)
    return segment & (0xffff << (16 - bits))
  })
  return `${segments.map((segment) => segment.toString(16)).join(":")}/${ipv6Prefix}`
}
