/** Checks descriptors that other code has opened, and finds those that a service manager has passed on. */
import type * as NetAddress from "effect/net/NetAddress"
import { unnamed } from "../../../internal/base/unnamed.ts"
import { Reason, SocketError } from "../../../SocketError.ts"
import * as Linux from "./linux.ts"
import { failure } from "./options.ts"

/** Both addresses of a descriptor of the wanted kind, or the error that says what it is. Changes nothing. */
export const inspect = (
  linux: Linux.Linux,
  operation: string,
  fd: number,
  wanted: "connection" | "listener"
): { readonly local: NetAddress.SocketAddress; readonly remote: NetAddress.SocketAddress } | SocketError => {
  const type = linux.getInt(fd, Linux.SOL_SOCKET, Linux.SO_TYPE)
  if (type === -Linux.EBADF) return refused(operation, fd, "is not open", "EBADF")
  if (type === -Linux.ENOTSOCK) return refused(operation, fd, "is not a socket", "ENOTSOCK")
  if (type < 0) return failure(operation, undefined, -type)
  const family = linux.getInt(fd, Linux.SOL_SOCKET, Linux.SO_DOMAIN)
  if (type !== Linux.SOCK_STREAM || !families.has(family)) {
    return refused(operation, fd, "is neither a TCP nor a Unix-domain stream", undefined)
  }
  const local = linux.localAddress(fd) ?? unnamed
  const listens = linux.getInt(fd, Linux.SOL_SOCKET, Linux.SO_ACCEPTCONN) === 1
  if (wanted === "listener") {
    return listens ? { local, remote: unnamed } : refused(operation, fd, "does not listen", undefined)
  }
  if (listens) return refused(operation, fd, "listens, and so is no connection", undefined)
  const named = linux.peer(fd)
  return named < 0 ? failure(operation, undefined, -named) : { local, remote: linux.accepted() }
}

export const refused = (operation: string, fd: number, why: string, code: string | undefined): SocketError =>
  new SocketError({
    reason: Reason.Unsupported({ feature: `descriptor ${fd}, which ${why},` }),
    operation,
    transferred: 0,
    code
  })

/** `sd_listen_fds_with_names`: empty if the environment names no descriptors for this process, or malformed ones. */
export const passedOn = (
  environment: Readonly<Record<string, string | undefined>>,
  pid: number
): ReadonlyArray<{ readonly fd: number; readonly name: string }> => {
  if (environment["LISTEN_PID"] !== String(pid)) return []
  const count = environment["LISTEN_FDS"] ?? ""
  if (!/^[1-9][0-9]{0,5}$/.test(count)) return []
  const names = environment["LISTEN_FDNAMES"]?.split(":") ?? []
  return Array.from({ length: Number(count) }, (_, index) => ({
    fd: firstPassedOn + index,
    name: names[index] ?? "unknown"
  }))
}

// ---- internal

const families: ReadonlySet<number> = new Set([Linux.AF_INET, Linux.AF_INET6, Linux.AF_UNIX])

/** `SD_LISTEN_FDS_START`: behind stdin, stdout and stderr. */
const firstPassedOn = 3
