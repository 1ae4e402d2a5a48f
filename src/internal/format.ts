import * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"

const count = new Intl.NumberFormat("en-US")

export const formatCount = (bytes: number): string => count.format(bytes)

export const formatAddress = (address: NetAddress.SocketAddress | Host.HostPort): string =>
  Host.isHostPort(address)
    ? `tcp://${Host.formatHostPort(address)}`
    : NetAddress.isUnixPathAddress(address)
    ? address.path === "" ? "unix:(unnamed)" : NetAddress.formatUnixPath(address)
    : `tcp://${NetAddress.formatInet(address)}`
