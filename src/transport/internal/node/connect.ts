import * as Effect from "effect/Effect"
import * as NetAddress from "effect/net/NetAddress"
import * as Net from "node:net"
import { noop } from "../../../internal/base/noEvents.ts"
import { fromErrno, type SocketError } from "../../../SocketError.ts"
import type { Backing, ResolvedConnectOptions } from "../../../Transport.ts"
import { badLocal, badPath, forbidden, nativeAddress, nativeHost } from "./addresses.ts"
import { NodeBacking } from "./NodeBacking.ts"
import { badOptions, setKeepAlive } from "./options.ts"

export const connect = (
  address: NetAddress.SocketAddress,
  options: ResolvedConnectOptions
): Effect.Effect<Backing, SocketError> =>
  Effect.callback((resume) => {
    const { localAddress: local } = options
    const refused = badPath("connect", address) ?? forbidden("connect", address) ??
      badOptions("connect", address, options) ??
      badLocal(address, local)
    if (refused !== undefined) {
      resume(Effect.fail(refused))
      return
    }
    const socket = Net.connect({
      ...(NetAddress.isUnixPathAddress(address)
        ? { path: address.path }
        : {
          host: nativeHost(address),
          port: address.port,
          ...(local === undefined || NetAddress.isUnixPathAddress(local)
            ? {}
            : { localAddress: nativeHost(local), localPort: local.port }),
          noDelay: options.noDelay
        }),
      allowHalfOpen: true
    })
    socket.pause()
    function onConnect() {
      socket.off("error", onError)
      if (options.keepAlive !== false) setKeepAlive(socket, options.keepAlive)
      resume(Effect.succeed(
        new NodeBacking(
          socket,
          // A connect to the unspecified address reaches an address of this machine, which Node knows.
          !NetAddress.isUnixPathAddress(address) && NetAddress.isUnspecified(address.address) ? undefined : address,
          options.sliceSize,
          nativeAddress(socket.localAddress, socket.localPort, address)
        )
      ))
    }
    function onError(cause: Error) {
      socket.off("connect", onConnect)
      socket.destroy()
      resume(Effect.fail(fromErrno(cause, { operation: "connect", address })))
    }
    socket.once("connect", onConnect)
    socket.once("error", onError)
    return Effect.callback<void>((released) => {
      socket.off("connect", onConnect)
      socket.off("error", onError)
      socket.on("error", noop)
      socket.once("close", () => released(Effect.void))
      socket.destroy()
    })
  })
