import * as NetAddress from "effect/net/NetAddress"

/** The address of a peer that has no name, such as a client on a Unix-domain path, and of a stream without addresses. */
export const unnamed: NetAddress.UnixPathAddress = NetAddress.unixPathAddress("")
