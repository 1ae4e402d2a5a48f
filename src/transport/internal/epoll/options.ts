/** Options, addresses and errnos, for connecting, listening and connections. */
import * as Duration from "effect/Duration"
import * as NetAddress from "effect/net/NetAddress"
import { Buffer } from "node:buffer"
import { unsupported } from "../../../internal/base/unsupported.ts"
import { fromErrno, Reason, SocketError } from "../../../SocketError.ts"
import type { ResolvedOptions } from "../../../Transport.ts"
import * as Linux from "./linux.ts"
import type { Reactor } from "./Reactor.ts"

/** `INT_MAX`, the largest descriptor and the largest value of an option. */
export const maxInt = 2 ** 31 - 1

/** The `SocketError` of an errno. */
export const failure = (
  operation: string,
  address: NetAddress.SocketAddress | undefined,
  errno: number
): SocketError => {
  const code = Linux.errnoCode(errno)
  return fromErrno(Object.assign(new Error(`${operation}: ${code}`), { code }), { operation, address })
}

export const familyOf = (address: NetAddress.SocketAddress): number =>
  NetAddress.isUnixPathAddress(address)
    ? Linux.AF_UNIX
    : NetAddress.isInetAddressV4(address)
    ? Linux.AF_INET
    : Linux.AF_INET6

/** Options in the form of `setsockopt`: the name for errors, level, name and value. */
export type Settings = ReadonlyArray<readonly [option: string, level: number, name: number, value: number]>

export const bufferSettings = ({ receiveBuffer, sendBuffer }: ResolvedOptions): Settings => [
  ...setting("sendBuffer", Linux.SOL_SOCKET, Linux.SO_SNDBUF, sendBuffer),
  ...setting("receiveBuffer", Linux.SOL_SOCKET, Linux.SO_RCVBUF, receiveBuffer)
]

export const tcpSettings = ({ keepAlive, noDelay, userTimeout }: Partial<ResolvedOptions>): Settings => {
  const { IPPROTO_TCP, SOL_SOCKET } = Linux
  const probes = typeof keepAlive === "object" ? keepAlive : undefined
  return [
    ...setting("noDelay", IPPROTO_TCP, Linux.TCP_NODELAY, toInt(noDelay)),
    ...setting("keepAlive", SOL_SOCKET, Linux.SO_KEEPALIVE, toInt(probes === undefined ? keepAlive : true)),
    ...setting("keepAlive.idle", IPPROTO_TCP, Linux.TCP_KEEPIDLE, probes && Duration.toSeconds(probes.idle)),
    ...setting("keepAlive.interval", IPPROTO_TCP, Linux.TCP_KEEPINTVL, probes && Duration.toSeconds(probes.interval)),
    ...setting("keepAlive.count", IPPROTO_TCP, Linux.TCP_KEEPCNT, probes?.count),
    ...setting(
      "userTimeout",
      IPPROTO_TCP,
      Linux.TCP_USER_TIMEOUT,
      // 0 would switch the time-out off.
      userTimeout && Math.max(1, Math.ceil(Duration.toMillis(userTimeout)))
    )
  ]
}

export const setting = (option: string, level: number, name: number, value: unknown): Settings =>
  typeof value === "number" ? [[option, level, name, Math.min(maxInt, value)]] : []

/** Sets all options. Returns the error of the first one that the kernel refuses. */
export const setAll = (
  { linux }: Reactor,
  fd: number,
  settings: Settings,
  operation: string,
  address: NetAddress.SocketAddress
): SocketError | undefined => {
  for (const [option, level, name, value] of settings) {
    const answer = linux.setInt(fd, level, name, value)
    if (answer === -Linux.ENOPROTOOPT) return unsupported(operation, address, `${option} on this kernel`)
    if (answer < 0) return failure(operation, address, -answer)
  }
  return undefined
}

/** The error of a path that the kernel would refuse, or take for another one. */
export const badPath = (operation: string, address: NetAddress.SocketAddress): SocketError | undefined => {
  if (!NetAddress.isUnixPathAddress(address)) return undefined
  const { path } = address
  const isAbstract = path.startsWith("\0")
  const limit = isAbstract ? Linux.maxPathBytes : Linux.maxPathBytes - 1
  if (Buffer.byteLength(path) > limit) {
    return new SocketError({
      reason: Reason.LimitExceeded({ limit, subject: "the path" }),
      operation,
      address,
      transferred: 0,
      code: "ENAMETOOLONG"
    })
  }
  // The kernel would end the path at the zero byte.
  return path === "" || (!isAbstract && path.includes("\0"))
    ? new SocketError({ reason: Reason.AddressNotAvailable(), operation, address, transferred: 0, code: "ENOENT" })
    : undefined
}

// ---- internal

const toInt = (flag: unknown): number | undefined => typeof flag === "boolean" ? Number(flag) : undefined
