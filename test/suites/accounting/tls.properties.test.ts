import { TestClock } from "effect/testing"
import { describe } from "vitest"
import { MemoryTransport } from "../../../src/testing/index.ts"
import { isSupported } from "../../../src/transport/EpollTransport.ts"
import { steady } from "../../support/waiting.ts"
import { epollTcp } from "../conformance/epoll.ts"
import { tcp } from "../conformance/node.ts"
import { overTls } from "../conformance/tls.ts"
import { kernel, property } from "./accounting.ts"

const can = { reset: true, halfClose: true, readAfterWriteFailure: true }

property("TLS in memory", "memory", 5, (random) => {
  const capacity = random.int(100, 5000)
  const chunk = random.int(50, 3000)
  const seed = random.int(1, 1_000_000)
  return {
    subject: overTls({
      name: `in memory with ${JSON.stringify({ capacity, chunk, seed })}`,
      pair: (options) => MemoryTransport.pair({ ...options, capacity, chunk, seed }),
      advance: TestClock.adjust,
      can
    }, { sliceSize: random.int(100, 2000) }),
    size: [1, 10_000],
    gulp: random.int(500, 5000),
    settle: (socket) => steady(() => socket.bytesWritten)
  }
})

const overNode = kernel(overTls(tcp("NodeTransport over TCP", "127.0.0.1")), 2_000_000)

property(overNode.subject.name, "node", 3, () => overNode)

describe.skipIf(!isSupported())("the epoll transport", () => {
  const overEpoll = kernel(overTls(epollTcp("EpollTransport over TCP", "127.0.0.1")), 2_000_000)

  property(overEpoll.subject.name, "node", 3, () => overEpoll)
})
