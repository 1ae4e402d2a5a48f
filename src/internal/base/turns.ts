/**
 * Turns of the event loop after which what has arrived is with its reader, over every transport and through TLS. The first
 * may end before the system was polled; a reactor, and TLS over it, hand on what they have read in a turn of their own.
 */
export const arrivalTurns = 4

/** Calls back after so many turns of the event loop, unless the function that it returns is called before. */
export const afterTurns = (turns: number, run: () => void): () => void => {
  let left = turns
  const next = (): void => {
    if (--left > 0) handle = setImmediate(next)
    else run()
  }
  let handle = setImmediate(next)
  return () => clearImmediate(handle)
}
