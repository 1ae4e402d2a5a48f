/** What a run leaves behind when it is asked to: its figures as JSON, and the plots of the README. */
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { type Group, summarize, valuesOf } from "./figures.ts"
import { type Panel, plot } from "./plot.ts"
import { judge } from "./targets.ts"
import { echoTitle, titles } from "./titles.ts"

export interface Machine {
  readonly date: string
  readonly cpu: string
  readonly system: string
  readonly node: string
  readonly cores: string
  readonly client: string
}

export const formatMachine = (machine: Machine): string => Object.values(machine).join("; ")

export const save = (machine: Machine, groups: ReadonlyArray<Group>): void => {
  const directory = join(import.meta.dirname, "results")
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, "figures.json"), toJson({ machine, groups, targets: judge(groups) }))
  const panels = (all: ReadonlyArray<readonly [string, string]>) => all.flatMap((of) => panel(groups, ...of))
  writeFileSync(
    join(directory, "overview.svg"),
    plot(
      panels([
        [titles.echo, "messages/s"],
        [titles.echo, "CPU us"],
        [titles.bulk, "MB/s"],
        [titles.gather, "writes/s"],
        [titles.accept, "connections/s"],
        [titles.idle, "live KB"]
      ]),
      formatMachine(machine)
    )
  )
  const sizes = ["64 bytes", "4 KiB", "64 KiB"]
  writeFileSync(
    join(directory, "echo.svg"),
    plot(
      panels(
        sizes.flatMap((size) =>
          [1, 64, 1000].map((connections) => [echoTitle(connections, size), "messages/s"] as const)
        )
      ),
      formatMachine(machine)
    )
  )
}

// ---- internal

const units: Record<string, string> = {
  "CPU us": "server CPU, µs for each message",
  "live KB": "KB of heap and buffers, with its fiber or callbacks"
}

const panel = (groups: ReadonlyArray<Group>, title: string, figure: string): ReadonlyArray<Panel> => {
  const group = groups.find((group) => group.title === title)
  if (group === undefined) return []
  const bars = Object.keys(group.rounds).map((name) => ({
    name,
    summary: summarize(valuesOf(group, name, figure)),
    isOurs: group.ours.includes(name),
    isUnsaturated: figure === group.figures[0]?.name && group.unsaturated?.includes(name) === true
  }))
  const digits = group.figures.find(({ name }) => name === figure)?.digits ?? 0
  return [{ title, unit: units[figure] ?? figure, digits, bars: bars.filter(({ summary }) => summary.median > 0) }]
}

/** Four digits of every number, and lists of numbers on one line. */
const toJson = (value: unknown): string =>
  JSON.stringify(value, (_, item) => typeof item === "number" ? Number(item.toPrecision(4)) : item, 2)
    .replaceAll(/\[[^[\]{}]*\]/g, (list) => list.replaceAll(/\s+/g, " ")) + "\n"
