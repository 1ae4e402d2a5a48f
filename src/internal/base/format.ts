import * as Host from "effect/net/Host"
import * as NetAddress from "effect/net/NetAddress"

const count = new Intl.NumberFormat("en-US")

export const formatCount = (bytes: number): string => count.format(bytes)

export const formatBytes = (bytes: number): string => `${formatCount(bytes)} ${bytes === 1 ? "byte" : "bytes"}`

/** How far a cancelled operation came, and the guarantee that was kept. */
export const formatProgress = (
  guarantee: "terminal" | "partial" | "total",
  transferred: number,
  total: number
): string =>
  guarantee === "total" && transferred === 0
    ? "before it did anything (total)"
    : `after ${formatCount(transferred)} of ${formatBytes(total)} (${
      guarantee === "terminal" ? "terminal, stream torn" : guarantee
    })`

export const formatAddress = (address: NetAddress.SocketAddress | Host.HostPort): string =>
  Host.isHostPort(address)
    ? `tcp://${Host.formatHostPort(address)}`
    : NetAddress.isUnixPathAddress(address)
    ? address.path === "" ? "unix:(unnamed)" : NetAddress.formatUnixPath(address)
    : `tcp://${NetAddress.formatInet(address)}`

/**
 * Escapes control characters: a line break in a path or a name must not make a second line in a log, and a mark of
 * bidirectional text must not show the rest of the line in another order.
 */
export const oneLine = (text: string): string =>
  text.replace(
    /[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, "0")}`
  )
