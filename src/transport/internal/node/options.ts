/** Socket options over `node:net`: which of them it has, and how they are set. */
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

// How Node declares it where probes can be set, and how its older versions do not.
const setsProbes = Net.Socket.prototype.setKeepAlive.length >= 4
type SetKeepAlive = (enable: boolean, idleMillis: number, intervalMillis: number, count: number) => void

export const setKeepAlive = (socket: Net.Socket, keepAlive: ResolvedOptions["keepAlive"]): void => {
  // An idle time of 0 leaves all times as they are.
  if (typeof keepAlive === "boolean") socket.setKeepAlive(keepAlive, 0)
  else {
    // The types of Node 22 do not know the last two, and neither does Node 22.
    const set: SetKeepAlive = socket.setKeepAlive.bind(socket)
    set(true, Duration.toMillis(keepAlive.idle), Duration.toMillis(keepAlive.interval), keepAlive.count)
  }
}

// Those that libuv sets by itself.
const hasDefaultProbes = ({ count, interval }: ResolvedKeepAlive): boolean =>
  count === 10 && Duration.toSeconds(interval) === 1
