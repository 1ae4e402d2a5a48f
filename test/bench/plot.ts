/** Bars as SVG, in colours that are legible on light and on dark ground. */
import type { Summary } from "./figures.ts"

export interface Panel {
  readonly title: string
  readonly unit: string
  readonly digits: number
  readonly bars: ReadonlyArray<Bar>
}

export interface Bar {
  readonly name: string
  readonly summary: Summary
  readonly isOurs: boolean
  readonly isUnsaturated: boolean
}

/** Three panels to a row. A bar is a median, and the line at its end goes from quartile to quartile. */
export const plot = (panels: ReadonlyArray<Panel>, caption: string): string => {
  const height = Math.max(...panels.map(({ bars }) => 48 + bars.length * rowHeight + 24))
  const rows = Math.ceil(panels.length / columns)
  const total = rows * height + 40
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${columns * width} ${total}" width="${columns * width}" ` +
    `height="${total}" font-family="system-ui, sans-serif" font-size="12" fill="${ink}">`,
    ...panels.map((panel, index) =>
      formatPanel(panel, (index % columns) * width, Math.floor(index / columns) * height)
    ),
    text(8, total - 22, caption),
    text(8, total - 6, "Medians, with a line from quartile to quartile. * The client did not keep this server busy."),
    "</svg>",
    ""
  ].join("\n")
}

// ---- internal

const columns = 3
const width = 340
const rowHeight = 22
const barStart = 108
const mostBar = 150

const ink = "#6e7781"
const ours = "#2f81f7"
const theirs = "#9aa4af"

const formatPanel = ({ bars, digits, title, unit }: Panel, x: number, y: number): string => {
  const most = Math.max(...bars.map(({ summary }) => summary.high))
  const scale = (value: number): number => Math.round(value / most * mostBar * 10) / 10
  return [
    `<g transform="translate(${x} ${y})">`,
    text(8, 18, title, ` font-weight="600"`),
    text(8, 35, unit),
    ...bars.flatMap(({ isOurs, isUnsaturated, name, summary }, index) => {
      const top = 46 + index * rowHeight
      const middle = top + 8
      const [low, high] = [barStart + scale(summary.low), barStart + scale(summary.high)]
      const value = summary.median.toLocaleString("en", {
        minimumFractionDigits: digits,
        maximumFractionDigits: digits
      })
      return [
        text(barStart - 6, top + 12, name, ` text-anchor="end"`),
        `<rect x="${barStart}" y="${top}" width="${scale(summary.median)}" height="16" ` +
        `fill="${isOurs ? ours : theirs}"${isUnsaturated ? ` fill-opacity="0.5"` : ""}/>`,
        `<path d="M${low} ${middle}H${high}" stroke="${ink}" stroke-width="2"/>`,
        text(high + 6, top + 12, value + (isUnsaturated ? "*" : ""))
      ]
    }),
    "</g>"
  ].join("\n")
}

const text = (x: number, y: number, content: string, attributes = ""): string =>
  `<text x="${x}" y="${y}"${attributes}>${content.replaceAll("&", "&amp;").replaceAll("<", "&lt;")}</text>`
