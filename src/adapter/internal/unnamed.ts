import * as NetAddress from "effect/net/NetAddress"

/** The address of a stream that has none, or that does not know it: a Unix-domain socket without a path. */
export const unnamed = NetAddress.unixPathAddress("")
