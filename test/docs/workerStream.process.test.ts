/** The transport that `src/README.md` shows keeps every promise of the stream contract. */
import { it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { MessageChannel } from "node:worker_threads"
import { StreamSocket } from "../../src/index.ts"
import type { SocketOptions } from "../../src/Transport.ts"
import { conformance } from "../suites/conformance/bind.ts"
import { makeBacking } from "./workerStream.ts"

const pair = (options?: Pick<SocketOptions, "linger">) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const { port1, port2 } = new MessageChannel()
      const open = (port: typeof port1) => StreamSocket.make(makeBacking(port), options)
      return [open(port1), open(port2)] as const
    }),
    ([left, right]) => Effect.andThen(left.close, right.close)
  )

const can = { reset: true, halfClose: true, readAfterWriteFailure: true }

conformance({ name: "streams between worker threads", pair, advance: Effect.sleep, can }, it.live)
