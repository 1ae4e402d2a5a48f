/**
 * TCP and Unix-domain sockets over the public API of `node:net`; runs wherever
 * that does.
 *
 * **Details**
 *
 * - A slice handed to `node:net` cannot be recalled and its memory is in use
 *   until it was flushed. So a write copies at most one slice (`sliceSize`, by
 *   default 64 KiB) into memory of this module, and has room again as slices
 *   are flushed; at most two slices per connection sit in user space.
 * - Reads pull: the socket is paused unless a fiber wants bytes. Node itself
 *   reads ahead by up to its high-water mark (64 KiB) once reading has begun.
 * - After a mebibyte that the kernel has taken at once, a write waits for the
 *   next turn of the event loop: a peer that keeps up starves nobody else.
 * - Waiting for room also watches the read side, so that what the peer says
 *   before it goes away is received, up to that mark.
 *
 * - Closing an address removes what is at its Unix-domain path by then, by name,
 *   also if that is something else; `EpollTransport` looks first.
 * - Of the options, `userTimeout`, `sendBuffer` and `receiveBuffer` are
 *   Unsupported: `node:net` has no way to them. `interval` and `count` of
 *   `keepAlive` need a Node that can set them: 26, or a later 24.
 *
 * **Gotchas**
 *
 * `node:net` destroys the whole socket when a write fails. Bytes that Node had
 * received by then are still read, and end of stream too if it was seen; what
 * was still in the kernel is lost, and reads then fail with the reason of the
 * write.
 *
 * Before Node 24, a reset that arrives behind unread bytes cannot be told from
 * the end of the stream once `shutdownWrite` was run.
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
