import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { Reason, SocketError } from "../../SocketError.ts"

/** How a fiber ends, as a promise that never rejects. */
export const exitOf = <A, E>(fiber: Fiber.Fiber<A, E>): Promise<Exit.Exit<A, E>> =>
  new Promise((resolve) => {
    fiber.addObserver(resolve)
  })

/** What a Web stream errors with when this side ends it. */
export const closedError = (operation: string): SocketError =>
  new SocketError({ reason: Reason.Closed(), operation, transferred: 0 })
