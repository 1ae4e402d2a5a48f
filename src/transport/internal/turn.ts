/**
 * How much one connection may do in one turn of the event loop, so that other connections, timers and signals get theirs.
 * Both transports count in this way; what a yielded connection waits for is their own: `setImmediate` over `node:net`, the
 * reactor over epoll.
 */

/** Bytes per direction and turn. */
export const turnBudget = 1024 * 1024

/** Bytes that a call counts for besides those that it moves, so that tiny calls use the budget up, too. */
export const callCost = 1024
