/** Groups of figures, and targets, as text. */
import { type Group, ratio, summarize, type Summary, valuesOf } from "./figures.ts"
import { judge } from "./targets.ts"

/** A contestant to a line: medians, and what ours is to each, with quartiles. */
export const formatGroup = (group: Group): string => {
  const names = Object.keys(group.rounds)
  const shown = group.figures.filter(({ hidden }) => hidden !== true)
  const compared = shown.filter(({ compared }) => compared === true)
  const header = [
    "",
    ...shown.map(({ name }) => name),
    ...group.ours.flatMap((ours) => compared.map((_, index) => index === 0 ? `${ours} / it` : "in CPU"))
  ]
  const rows = names.map((name) => {
    const mark = group.unsaturated?.includes(name) === true ? "*" : ""
    const medians = shown.map(({ digits }, index) =>
      formatNumber(summarize(valuesOf(group, name, index)).median, digits) + (index === 0 ? mark : "")
    )
    const ratios = group.ours.flatMap((ours) =>
      compared.map((figure) => ours === name ? "" : formatSpread(ratio(group, figure.name, ours, name)))
    )
    return [[name], medians, ratios].flat()
  })
  const title = group.title + (group.isDisturbed === true ? " (others used the machine meanwhile)" : "")
  return [title, ...align([header, ...rows], shown.length)].join("\n")
}

export const footnote = "Medians of the rounds; of ratios, which are taken within a round, also the quartiles.\n" +
  "CPU us: of the server, for each of what is counted. busy: the server's share of a core. spare: the client's share of\n" +
  "time in which it only waited. * The client did not keep this server busy: its CPU time counts, not its rate."

/** What was to be reached, and what was. */
export const formatTargets = (groups: ReadonlyArray<Group>): string => {
  const rows = judge(groups).map(({ bound, figure, isReached, reached, title, what }) => [
    `${title}, ${figure}`,
    what,
    formatSpread(reached),
    bound,
    isReached ? "yes" : "NO"
  ])
  return rows.length === 0 ? "" : ["\ntargets", ...align(rows, 0)].join("\n")
}

// ---- internal

const formatNumber = (value: number, digits: number): string =>
  Number.isNaN(value)
    ? "-"
    : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })

const formatSpread = ({ high, low, median }: Summary): string =>
  Number.isNaN(median) ? "-" : `${median.toFixed(2)} (${low.toFixed(2)}-${high.toFixed(2)})`

/** Columns 1 to `numbers` to the right, the others to the left. */
const align = (rows: ReadonlyArray<ReadonlyArray<string>>, numbers: number): Array<string> => {
  const widths = rows[0]?.map((_, column) => Math.max(...rows.map((row) => row[column]!.length))) ?? []
  return rows.map((row) => {
    const cells = row.map((cell, column) =>
      column >= 1 && column <= numbers ? cell.padStart(widths[column]!) : cell.padEnd(widths[column]!)
    )
    return `  ${cells.join("  ")}`.trimEnd()
  })
}
