import type { Events } from "../../Transport.ts"

export const noop = (): void => {}

/** The events of a backing that no core is attached to. */
export const noEvents: Events = { readable: noop, writable: noop, failed: noop, closed: noop }
