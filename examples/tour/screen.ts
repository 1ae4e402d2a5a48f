// What the tour prints: plain lines, styles, tables, and lines that a terminal redraws in place.
import { styleText } from "node:util"
import type { Row } from "./interruption.ts"

const { stdout } = process

/** Redrawing needs a terminal that understands more than plain text. */
export const isLive = stdout.isTTY && process.env["TERM"] !== "dumb"

/** The columns that a line may fill. */
export const width = Math.min(100, (isLive && stdout.columns - 1) || 100)

export type Style = Parameters<typeof styleText>[0]

/** Styles text, unless the output is no terminal or NO_COLOR asks not to. */
export const styled = (style: Style, text: string): string => styleText(style, text, { stream: stdout })

export const write = (...lines: ReadonlyArray<string>): void => {
  for (const line of lines) stdout.write(`${line}\n`)
}

/** A function whose lines replace those of its previous call. */
export const redrawing = (): (lines: ReadonlyArray<string>) => void => {
  let height = 0
  return (lines) => {
    stdout.write((height === 0 ? "" : `\x1b[${height}A`) + lines.map((line) => `\r\x1b[2K${line}\n`).join(""))
    height = lines.length
  }
}

/** A bar of what has arrived, what is on its way, and what is still to come, each from 0 to 1. */
export const bar = (columns: number, arrived: number, sent: number): string => {
  const solid = Math.round(arrived * columns)
  const shaded = Math.round(sent * columns) - solid
  return styled("green", "█".repeat(solid)) +
    styled("yellow", "▒".repeat(shaded)) +
    styled("dim", "░".repeat(columns - solid - shaded))
}

const thousands = new Intl.NumberFormat("en-US")

export const count = (n: number): string => thousands.format(n)

export const mebibytes = (bytes: number): string => `${(bytes / 1_048_576).toFixed(1)} MiB`

export const millis = (time: number): string => time < 1000 ? `${time.toFixed(1)} ms` : `${count(Math.round(time))} ms`

// Negative widths align to the left.
const columns = [-21, -11, 10, 10, 9, -6, -14]

const cells = (texts: ReadonlyArray<string>): string =>
  columns.map((width, index) => {
    const text = texts[index] ?? ""
    return width < 0 ? text.padEnd(-width) : text.padStart(width)
  }).join("  ").trimEnd()

export const tableHead: string = styled(
  "dim",
  `  ${cells(["policy", "fiber", "reported", "peer read", "ended in", "stream", "hash equal"])}`
)

/** A row of the table, and below it what does not add up. */
export const tableRow = (row: Row): ReadonlyArray<string> => {
  const text = cells([
    row.policy,
    row.ended,
    row.reported === undefined ? "nothing" : count(row.reported),
    count(row.peerRead),
    millis(row.millis),
    row.stream,
    row.hashEqual
  ])
  return row.problems.length === 0 ? [`  ${text}`] : [styled("red", `! ${text}`), ...problems(row.problems)]
}

export const problems = (texts: ReadonlyArray<string>): ReadonlyArray<string> =>
  texts.map((text) => styled("red", `! ${text}`))

export const heading = (text: string): string => `\n${styled("bold", text)}\n`

export const verdict = (wrong: ReadonlyArray<string>, seconds: string): string =>
  wrong.length === 0
    ? styled("green", `Everything adds up: bytes reported = bytes that the peer read, each time. Done ${seconds}.`)
    : styled("red", `It does not add up: ${wrong.join(", ")}. Done ${seconds}.`)
