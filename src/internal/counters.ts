/**
 * What all connections of this process did, as plain numbers: the hot paths add
 * to them, and `Metrics` shows them.
 */
export const counters = {
  completed: 0,
  cancelled: { terminal: 0, partial: 0, total: 0 },
  torn: 0,
  bytesRead: 0,
  bytesWritten: 0
}
