import { describe, type Vitest } from "@effect/vitest"
import { type Duration, Effect, Fiber, type Layer, type Scope } from "effect"
import type { NetAddress } from "effect/net"
import { Acceptor, StreamSocket, type Transport } from "../../../src/index.ts"
import { StreamChecks } from "../../../src/testing/index.ts"
import { leavingNothing } from "../../support/leftovers.ts"

/** The same connections, which wait less long for a peer that does not close, where the check says nothing of it. */
export const impatient = (subject: StreamChecks.Subject): StreamChecks.Subject => ({
  ...subject,
  pair: (options) => subject.pair({ linger: "500 millis", ...options })
})

/** Every check against one subject, and that nothing is left behind after it. */
export const conformance = (patient: StreamChecks.Subject, it: Vitest.Tester<Scope.Scope>): void => {
  const subject = impatient(patient)
  describe(subject.name, () => {
    for (const { name, needs, run } of StreamChecks.checks) {
      it.skipIf(needs !== undefined && !subject.can[needs])(name, () => leavingNothing(run(subject)))
    }
  })
}

/** A subject whose pairs are connections of a real transport over one address. */
export const overTransport = (options: {
  readonly name: string
  readonly layer: Layer.Layer<Transport.Transport>
  readonly address: () => NetAddress.SocketAddress
  readonly advance: (duration: Duration.Duration) => Effect.Effect<void>
  readonly can: StreamChecks.Capabilities
}): StreamChecks.Subject => ({
  name: options.name,
  advance: options.advance,
  can: options.can,
  pair: (socketOptions) =>
    Effect.gen(function*() {
      const acceptor = yield* Acceptor.listen(options.address(), socketOptions)
      const accepting = yield* Effect.forkChild(acceptor.accept, { startImmediately: true })
      const left = yield* StreamSocket.connect(acceptor.address, socketOptions)
      const right = yield* Fiber.join(accepting)
      yield* acceptor.close
      return [left, right] as const
    }).pipe(Effect.provide(options.layer))
})
