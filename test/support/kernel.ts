/** What the kernel says of this process and its connections. */
import { readdirSync, readFileSync, readlinkSync } from "node:fs"

/** How many sockets this process has open; 0 where that cannot be told. */
export const openSockets = (): number => {
  if (process.platform !== "linux") return 0
  let count = 0
  for (const descriptor of readdirSync("/proc/self/fd")) {
    try {
      if (readlinkSync(`/proc/self/fd/${descriptor}`).startsWith("socket:")) count++
    } catch {
      // The descriptor of the listing itself.
    }
  }
  return count
}

/** The kernel's IPv4 connections, line by line, column by column. */
export const tcpTable = (): ReadonlyArray<ReadonlyArray<string>> =>
  readFileSync("/proc/net/tcp", "utf8").split("\n").slice(1).map((line) => line.trim().split(/\s+/))
