/** What connecting means over both transports, where the system leaves it open. */
import * as NetAddress from "effect/net/NetAddress"
import { Reason, SocketError } from "../../SocketError.ts"

/** Milliseconds between two attempts to connect to a Unix-domain listener whose backlog is full. */
export const connectRetry = 5

/**
 * Whether a TCP connection has both ends at this side: the system chose the port that is connected to as the local one, and
 * two SYNs that cross make a connection. That is not what a caller asked for who left the port to the system, and it
 * would keep the real server from its port.
 */
export const isSelfConnect = (
  asked: NetAddress.SocketAddress | undefined,
  local: NetAddress.SocketAddress,
  remote: () => NetAddress.SocketAddress
): boolean => {
  if (NetAddress.isUnixPathAddress(local)) return false
  if (asked !== undefined && (NetAddress.isUnixPathAddress(asked) || asked.port !== 0)) return false
  const peer = remote()
  return !NetAddress.isUnixPathAddress(peer) && local.port === peer.port &&
    NetAddress.formatHost(local) === NetAddress.formatHost(peer)
}

/** As if no listener were there, which is so. */
export const selfRefused = (address: NetAddress.SocketAddress): SocketError =>
  new SocketError({
    reason: Reason.ConnectionRefused(),
    operation: "connect",
    address,
    transferred: 0,
    code: "ECONNREFUSED"
  })
