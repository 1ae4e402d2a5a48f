/** The figures of one run, and how they compare. */

/** One value for each round; the same round of two servers ran side by side in time. */
export type Rounds = ReadonlyArray<number>

export interface Row {
  readonly figure: string
  readonly ours: Rounds
  readonly nodeNet: Rounds
  readonly effect: Rounds
  readonly digits?: number
  /** The bounds of ours / node:net and of ours / Effect: at least, or at most. */
  readonly targets?: { readonly nodeNet?: Target; readonly effect?: Target }
}

export interface Target {
  readonly atLeast?: number
  readonly atMost?: number
}

export const median = (values: Rounds): number => {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  return sorted.length % 2 === 1 ? sorted[middle]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** Round by round, because what else the machine does changes from round to round. */
const ratioOf = (ours: Rounds, theirs: Rounds): number => median(ours.map((value, round) => value / theirs[round]!))

const judge = (ratio: number, target: Target | undefined): string => {
  if (target === undefined) return ratio.toFixed(2)
  const { atLeast = 0, atMost = Infinity } = target
  const bound = target.atMost === undefined ? `>= ${atLeast.toFixed(2)}` : `<= ${atMost.toFixed(2)}`
  return `${ratio.toFixed(2)} ${bound} ${ratio >= atLeast && ratio <= atMost ? "yes" : "NO"}`
}

const number = (value: number, digits: number): string =>
  value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })

export const print = (rows: ReadonlyArray<Row>): void => {
  const header = ["", "ours", "node:net", "Effect", "ours / node:net", "ours / Effect"]
  const cells = rows.map(({ digits = 0, effect, figure, nodeNet, ours, targets }) => [
    figure,
    ...[ours, nodeNet, effect].map((values) => number(median(values), digits)),
    judge(ratioOf(ours, nodeNet), targets?.nodeNet),
    judge(ratioOf(ours, effect), targets?.effect)
  ])
  const widths = header.map((title, column) => Math.max(title.length, ...cells.map((row) => row[column]!.length)))
  for (const row of [header, ...cells]) {
    const padded = row.map((cell, column) =>
      column === 0 || column >= 4 ? cell.padEnd(widths[column]!) : cell.padStart(widths[column]!)
    )
    console.log(padded.join("  ").trimEnd())
  }
}

/** One line about two figures. */
export const compare = (
  figure: string,
  [ours, theirs]: readonly [Rounds, Rounds],
  other: string,
  target?: Target,
  digits = 0
): void => {
  const [left, right] = [ours, theirs].map((values) => number(median(values), digits))
  console.log(`${figure}: ${left}; ${other}: ${right}; ratio ${judge(ratioOf(ours, theirs), target)}`)
}
