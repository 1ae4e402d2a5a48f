/** Socket options over `node:net`: which of them it supports, and how they are set. */
import * as Duration from "effect/Duration"
import * as NetAddress from "effect/net/NetAddress"
import * as Net from "node:net"
import { unsupported } from "../../../internal/base/unsupported.ts"
import type { SocketError } from "../../../SocketError.ts"
import type { ResolvedKeepAlive, ResolvedOptions } from "../../../Transport.ts"

export const badOptions = (
  operation: string,
  address: NetAddress.SocketAddress,
  { keepAlive, receiveBuffer, sendBuffer, userTimeout }: Partial<ResolvedOptions>
): SocketError | undefined => {
  const feature = sendBuffer !== undefined
    ? "sendBuffer over node:net"
    : receiveBuffer !== undefined
    ? "receiveBuffer over node:net"
    : NetAddress.isUnixPathAddress(address)
    ? undefined
    : userTimeout !== undefined
    ? "userTimeout over node:net"
    : typeof keepAlive === "object" && !setsProbes && !hasDefaultProbes(keepAlive)
    ? `the interval and count of keepAlive on Node ${process.versions.node}`
    : undefined
  return feature === undefined ? undefined : unsupported(operation, address, feature)
}

// Newer versions of Node accept the interval and the count of probes; the number of parameters tells.
const setsProbes = Net.Socket.prototype.setKeepAlive.length >= 4
type SetKeepAlive = (enable: boolean, idleMillis: number, intervalMillis: number, count: number) => void

export const setKeepAlive = (socket: Net.Socket, keepAlive: ResolvedOptions["keepAlive"]): void => {
  // An idle time of 0 leaves the times of the system.
  if (typeof keepAlive === "boolean") socket.setKeepAlive(keepAlive, 0)
  else {
    // Node 22 and its types lack the last two parameters.
    const set: SetKeepAlive = socket.setKeepAlive.bind(socket)
    set(true, Duration.toMillis(keepAlive.idle), Duration.toMillis(keepAlive.interval), keepAlive.count)
  }
}

// The values that libuv sets by itself.
const hasDefaultProbes = ({ count, interval }: ResolvedKeepAlive): boolean =>
  count === 10 && Duration.toSeconds(interval) === 1
