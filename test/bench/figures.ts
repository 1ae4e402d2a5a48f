/** The figures of a run: how they are taken, and what they say. */

export interface Figure {
  readonly name: string
  readonly digits: number
  /** Whether ratios of it are shown. */
  readonly compared?: boolean
  /** For the record alone. */
  readonly hidden?: boolean
}

/** What one load did to several contestants. */
export interface Group {
  readonly title: string
  readonly figures: ReadonlyArray<Figure>
  /** Those that the others are compared with. */
  readonly ours: ReadonlyArray<string>
  /** A value for each figure in each round; `NaN` where there is none. */
  readonly rounds: Readonly<Record<string, Rounds>>
  /** Those that had time to spare, because the client was too slow or the load too light. */
  readonly unsaturated?: ReadonlyArray<string>
  /** Others used the machine at the same time. */
  readonly isDisturbed?: boolean
}

/** In time, the same round of two contestants was side by side. */
export type Rounds = ReadonlyArray<ReadonlyArray<number>>

/**
 * Measures each in turn, again and again, in an order that rotates: one machine
 * is faster or slower by a fifth from minute to minute, and neighbours in time
 * see the same one. The first `warmUps` rounds do not count.
 */
export const alternate = async <Name extends string>(
  names: ReadonlyArray<Name>,
  rounds: number,
  measure: (name: Name) => Promise<ReadonlyArray<number>>,
  warmUps = 1
): Promise<Record<Name, Rounds>> => {
  // Filled for every name at once.
  const all = {} as Record<Name, Array<ReadonlyArray<number>>>
  for (const name of names) all[name] = []
  for (let round = 0; round < warmUps + rounds; round++) {
    for (let turn = 0; turn < names.length; turn++) {
      const name = names[(round + turn) % names.length]!
      const values = await measure(name)
      if (round >= warmUps) all[name].push(values)
    }
  }
  return all
}

export interface Summary {
  readonly median: number
  /** The quartiles. */
  readonly low: number
  readonly high: number
}

export const summarize = (values: ReadonlyArray<number>): Summary => {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (share: number): number => {
    const place = share * (sorted.length - 1)
    const [below = NaN, above = below] = sorted.slice(Math.floor(place), Math.floor(place) + 2)
    return below + (above - below) * (place % 1)
  }
  return { median: at(0.5), low: at(0.25), high: at(0.75) }
}

/** One contestant's values of one figure, which is given by its place or its name. */
export const valuesOf = (group: Group, name: string, figure: number | string): ReadonlyArray<number> => {
  const index = typeof figure === "number" ? figure : group.figures.findIndex(({ name }) => name === figure)
  return group.rounds[name]?.map((values) => values[index] ?? NaN) ?? []
}

/** Round by round. */
export const ratio = (group: Group, figure: number | string, ours: string, theirs: string): Summary => {
  const others = valuesOf(group, theirs, figure)
  return summarize(valuesOf(group, ours, figure).map((value, round) => value / others[round]!))
}

/**
 * Whether a server and not its client set the pace: the server had no time to spare, and the client had.
 * Both are shares of a core; not every client knows its own.
 */
export const isSaturated = (serverBusy: number, clientIdle: number): boolean =>
  serverBusy >= 0.96 && !(clientIdle < 0.01)
