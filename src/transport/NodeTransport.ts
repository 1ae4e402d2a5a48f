/**
 * TCP and Unix-domain sockets over the public API of `node:net`; runs wherever
 * `node:net` does.
 *
 * **Details**
 *
 * - Bytes passed to `node:net` cannot be recalled, and their memory is in use
 *   until they are flushed. So a write copies at most one slice (`sliceSize`,
 *   default 64 KiB) into memory of the transport, and there is room again when a
 *   slice has been flushed. At most two slices per connection are in user space.
 * - Reads pull: the socket is paused unless a fiber waits for bytes. Once reading
 *   has started, Node itself reads ahead by up to its high-water mark (64 KiB).
 * - After 1 MiB that the kernel has taken at once, a write waits for the next turn
 *   of the event loop, so that a writer whose peer keeps up does not starve others.
 * - While a write waits for room, the transport also receives, up to the high-water
 *   mark, so that the peer's last bytes are not lost when the peer goes away.
 * - Closing a listener on a Unix-domain path removes the file at that path, even if
 *   another program has replaced it; `EpollTransport` checks first.
 * - The options `userTimeout`, `sendBuffer` and `receiveBuffer` are Unsupported:
 *   `node:net` cannot set them. `interval` and `count` of `keepAlive` need Node 26,
 *   or a later 24.
 *
 * **Gotchas**
 *
 * `node:net` destroys the whole socket when a write fails. Bytes that Node had
 * received by then can still be read, and the end of the stream if Node has seen
 * it. Bytes that were still in the kernel are lost, and reads then fail with the
 * reason of the write.
 *
 * Before Node 24, a reset behind unread bytes cannot be told from the end of the
 * stream once `shutdownWrite` has run.
 *
 * @since 0.1.0
 */
import * as NodeAddressResolver from "@effect/platform-node/NodeAddressResolver"
import * as NodeDns from "@effect/platform-node/NodeDns"
import * as Layer from "effect/Layer"
import type * as AddressResolver from "effect/net/AddressResolver"
import { Transport } from "../Transport.ts"
import { connect } from "./internal/node/connect.ts"
import { listen } from "./internal/node/NodeListener.ts"

/**
 * The transport, together with Node's resolver for host names.
 *
 * **Example** (Providing the transport)
 *
 * ```ts
 * const main = program.pipe(Effect.provide(NodeTransport.layer), NodeRuntime.runMain)
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Transport | AddressResolver.AddressResolver> = Layer.merge(
  Layer.succeed(Transport, {
    name: "node",
    connect,
    listen
  }),
  Layer.provide(NodeAddressResolver.layer, NodeDns.layer)
)
