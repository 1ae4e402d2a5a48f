import { sharedByVersion } from "./copies.ts"

/**
 * Counts of all connections of this process, as plain numbers. The hot paths add to
 * them, and `Metrics` shows them. Copies of this package with the same version
 * share them.
 */
export const counters = /* @__PURE__ */ sharedByVersion("counters", () => ({
  completed: 0,
  cancelled: { terminal: 0, partial: 0, total: 0 },
  torn: 0,
  bytesRead: 0,
  bytesWritten: 0,
  servers: { listening: 0, paused: 0, draining: 0, stopped: 0 },
  served: makeServerCounts()
}))

/** What one server did, and what all of them did. */
export type ServerCounts = ReturnType<typeof makeServerCounts>

export function makeServerCounts() {
  return {
    connection: 0,
    accepted: 0,
    acceptFailures: 0,
    failures: 0,
    handshakeFailures: { Untrusted: 0, Malformed: 0, Tls: 0, Gone: 0 },
    limited: {
      Connections: 0,
      PerPeer: 0,
      AcceptRate: 0,
      BytesInFlight: 0,
      Handshake: 0,
      FirstByte: 0,
      Idle: 0,
      Progress: 0
    },
    pauses: { Connections: 0, AcceptRate: 0, BytesInFlight: 0 },
    drained: { finished: 0, total: 0, partial: 0, terminal: 0, aborted: 0 }
  }
}
