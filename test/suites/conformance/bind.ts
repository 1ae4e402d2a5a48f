import { describe, type Vitest } from "@effect/vitest"
import { type Duration, Effect, type Layer, type Scope } from "effect"
import type { NetAddress } from "effect/net"
import type { Transport } from "../../../src/index.ts"
import { StreamChecks } from "../../../src/testing/index.ts"
import { connection } from "../../support/connection.ts"
import { leavingNothing } from "../../support/leftovers.ts"

/**
 * Runs every check against one subject, and sees that nothing is left behind after it. Connections linger for half a
 * second where the check does not say otherwise, so that no check waits for the default of two seconds.
 */
export const conformance = (
  subject: StreamChecks.Subject,
  it: Vitest.Tester<Scope.Scope>,
  { without = [] }: { readonly without?: ReadonlyArray<string> } = {}
): void => {
  const { can, name, pair } = subject
  const impatient: StreamChecks.Subject = {
    ...subject,
    pair: (options) => pair({ linger: "500 millis", ...options })
  }
  describe(name, () => {
    for (const { name, needs, run } of StreamChecks.checks) {
      it.skipIf(without.includes(name) || (needs !== undefined && !can[needs]))(
        name,
        () => leavingNothing(run(impatient))
      )
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
  pair: (socketOptions) => Effect.provide(connection(options.address(), socketOptions), options.layer)
})
