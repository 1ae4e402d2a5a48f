import { Effect, Fiber } from "effect"
import { Tls } from "../../../src/index.ts"
import type { StreamChecks } from "../../../src/testing/index.ts"
import { localhost, root } from "../../support/certificates.ts"

export const server: Tls.ServerOptions = localhost
export const client: Tls.ClientOptions = { servername: "localhost", ca: root.certificate }

/** TLS over the pairs of another subject. */
export const overTls = (
  subject: StreamChecks.Subject,
  options?: {
    readonly version?: Tls.Version
    readonly strictEnd?: boolean
    readonly sliceSize?: number
    readonly can?: Partial<StreamChecks.Capabilities>
  }
): StreamChecks.Subject => {
  const { sliceSize, strictEnd, version: maxVersion } = options ?? {}
  const common = { maxVersion, strictEnd, sliceSize }
  const suffix = maxVersion === undefined ? "" : ` (${maxVersion})`
  return {
    ...subject,
    name: `TLS${suffix} over ${subject.name}${strictEnd === true ? ", with a strict end" : ""}`,
    can: { ...subject.can, ...options?.can },
    pair: (socketOptions) =>
      Effect.gen(function*() {
        const [left, right] = yield* subject.pair(socketOptions)
        const serving = yield* Effect.forkChild(Tls.server(right, { ...server, ...common }), {
          startImmediately: true
        })
        const ends = [yield* Tls.client(left, { ...client, ...common }), yield* Fiber.join(serving)] as const
        // At once: one after the other, each would wait for what the other has to say.
        yield* Effect.addFinalizer(() => Effect.forEach(ends, (end) => end.close, { concurrency: 2, discard: true }))
        return ends
      })
  }
}
