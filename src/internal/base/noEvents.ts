import type { Events } from "../../Transport.ts"

export const noop = (): void => {}

/** The events of a backing while no core is attached, or after the last one has left. */
export const noEvents: Events = { readable: noop, writable: noop, failed: noop, closed: noop }
