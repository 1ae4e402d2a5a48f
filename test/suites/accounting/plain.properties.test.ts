import { Effect } from "effect"
import { TestClock } from "effect/testing"
import { describe } from "vitest"
import { MemoryTransport } from "../../../src/testing/index.ts"
import * as EpollTransport from "../../../src/transport/EpollTransport.ts"
import { turns } from "../../support/waiting.ts"
import { epollTcp, epollUnix } from "../conformance/epoll.ts"
import { tcp, unix } from "../conformance/node.ts"
import { kernel, property } from "./accounting.ts"

const can = { reset: true, halfClose: true, readAfterWriteFailure: true }

property("in memory", "memory", 60, (random) => {
  const capacity = random.int(1, 64)
  const chunk = random.int(1, 16)
  const seed = random.int(1, 1_000_000)
  return {
    subject: {
      name: `in memory with ${JSON.stringify({ capacity, chunk, seed })}`,
      pair: (options) => MemoryTransport.pair({ ...options, capacity, chunk, seed }),
      advance: TestClock.adjust,
      can
    },
    size: [1, 150],
    gulp: random.int(1, 20),
    settle: (socket) =>
      Effect.suspend(() => {
        let last = -1
        return Effect.whileLoop({
          while: () => last !== socket.bytesWritten,
          body: () => {
            last = socket.bytesWritten
            return turns(3)
          },
          step: () => {}
        })
      })
  }
})

const overTcp = kernel(tcp("NodeTransport over TCP", "127.0.0.1"), 2_000_000)
const overUnix = kernel(unix(), 400_000)

property(overTcp.subject.name, "node", 5, () => overTcp)
property(overUnix.subject.name, "node", 8, () => overUnix)

describe.skipIf(!EpollTransport.isSupported())("the epoll transport", () => {
  const overTcp = kernel(epollTcp("EpollTransport over TCP", "127.0.0.1"), 2_000_000)
  const overUnix = kernel(epollUnix(), 400_000)

  property(overTcp.subject.name, "node", 5, () => overTcp)
  property(overUnix.subject.name, "node", 8, () => overUnix)
})
