import { Effect } from "effect"
import type { Tls } from "../../../src/index.ts"
import type { StreamChecks } from "../../../src/testing/index.ts"
import { secured } from "../../support/tls.ts"

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
      Effect.flatMap(subject.pair(socketOptions), (ends) => secured(ends, { client: common, server: common }))
  }
}
