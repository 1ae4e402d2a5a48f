/** How much of everything a run does. */
export interface Effort {
  /** Of the load that the targets are about, and of the others. */
  readonly rounds: number
  readonly roundsOfOthers: number
  readonly roundsOfTls: number
  /** Of a round, and before it. */
  readonly seconds: number
  readonly warmUp: number
  readonly roundsOfMemory: number
  readonly roundsOfInterruption: number
  readonly relayedMebibytes: number
  readonly messages: number
}

export const full: Effort = {
  rounds: 15,
  roundsOfOthers: 5,
  roundsOfTls: 9,
  seconds: 0.4,
  warmUp: 0.15,
  roundsOfMemory: 3,
  roundsOfInterruption: 60,
  relayedMebibytes: 512,
  messages: 300_000
}

export const quick: Effort = {
  rounds: 5,
  // With fewer, quartiles would say nothing.
  roundsOfOthers: 3,
  roundsOfTls: 3,
  seconds: 0.2,
  warmUp: 0.1,
  roundsOfMemory: 1,
  roundsOfInterruption: 20,
  relayedMebibytes: 256,
  messages: 100_000
}
