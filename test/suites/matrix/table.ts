/** The matrix as a page of the documentation. */
import {
  absence,
  type Cell,
  type Expectation,
  expectation,
  type Moment,
  moments,
  type Operation,
  operations,
  requests
} from "./matrix.ts"

export const command = "UPDATE=1 npm test -- test/suites/matrix/table.test.ts"

const meaning: Record<Expectation, string> = {
  "completes": "with its value, as if there had been no request; what makes it complete comes before, or comes later",
  "not started": "its fiber ends before it comes to the operation",
  "total": "ended, and nothing happened; the stream is usable, and no byte is lost",
  "partial": "ended after k of n bytes, which is reported exactly; the stream is usable",
  "torn": "ended after k of n bytes, which is reported exactly; later writes fail with `Torn`, reads go on",
  "finishes": "goes on to its last byte, and the interruption proceeds then",
  "runs on": "cannot keep what is asked, and so refuses it and completes; `emit` says so",
  "Closed": "fails with the reason `Closed`, after k bytes, which is reported exactly",
  "aborts": "waits no longer: what was not flushed is discarded, and the peer sees a reset where the platform has one"
}

const when: Record<Moment, string> = {
  "before start": "the operation starts afterwards, and then has to wait",
  "queued": "it waits behind another operation of its direction, which runs on undisturbed",
  "waiting": "it waits for the transport: for room, for bytes, for a connection, for the flush",
  "after k bytes": "it waits, with some of its bytes moved: 0 < k < n",
  "in the turn of completion": "in the synchronous turn in which it has become ready, right behind that",
  "after": "it has completed, and its fiber is doing something else"
}

export const render = (): string =>
  [
    "# The cancellation matrix",
    "",
    "What becomes of each operation, for every request to stop it and every moment at which the request may come. This page",
    "and the tests that play out each of its cells, in memory, over TCP and over Unix-domain sockets, are made from the same",
    "rules.",
    "",
    "## How to read it",
    "",
    "Each table is for one operation, or for several that behave alike. A row is a request, a column is a moment:",
    "",
    ...moments.map((moment) => `- **${moment}**: ${when[moment]}.`),
    "",
    "A cell is what the operation comes to:",
    "",
    ...Object.entries(meaning).map(([word, text]) => `- **${word}**: ${text}.`),
    "- **–**: cannot be; the reason stands below the table.",
    "",
    "An interruption says what it left behind in the `Cause` (`Cancellation.transfer`), a request or a deadline in the typed",
    "failure `OperationAborted`, and `Cancellation.outcome` reads both. In every cell the bytes reported are the bytes that",
    "the peer reads, except behind an abort, which discards what was not flushed: there the peer reads the front of them.",
    "No fiber, timer or descriptor is left. \"The socket's scope closes\" and `abort` close the stream in any case; for",
    "`accept`, the scope is the acceptor's. A deadline and an `AbortSignal` are latched: they also reach an operation that",
    "starts to wait later. The in-memory network has nothing to flush, so there `shutdownWrite` only queues, and",
    "`close` does not wait. A fiber's scope interrupts by the policy in force, in these tables the default, `terminal`.",
    "",
    ...tables(),
    `<!-- Made by \`${command}\`; do not edit. -->`,
    ""
  ].join("\n")

/** One table for all operations whose tables are the same. */
const tables = (): ReadonlyArray<string> => {
  const sections = new Map<string, Array<string>>()
  for (const operation of operations) {
    const text = table(operation)
    const names = sections.get(text) ?? []
    names.push(operation.name)
    sections.set(text, names)
  }
  return Array.from(sections, ([text, names]) => `## ${names.join(" · ")}\n\n${text}`)
}

const table = (operation: Operation): string => {
  // Requests of one kind share a row where they come to the same.
  const rows = new Map<string, { readonly group: string; readonly cells: string; readonly variants: Array<string> }>()
  for (const request of requests) {
    const cells = row(moments.map((moment) => word({ operation, request, moment })))
    const key = request.group + cells
    const same = rows.get(key) ?? { group: request.group, cells, variants: [] }
    if (request.variant !== undefined) same.variants.push(request.variant)
    rows.set(key, same)
  }
  const reasons = new Set(
    requests.flatMap((request) => moments.flatMap((moment) => absence({ operation, request, moment }) ?? []))
  )
  const notes = [
    ...Array.from(reasons, (reason) => `–: ${reason}.`),
    // Where a socket comes from the operation, the word alone would not tell what is handed over.
    ...(operation.kind === "connect"
      ? ["When the scope closes before it has completed, the socket that it hands over is closed already."]
      : [])
  ]
  return [
    row(["", ...moments]),
    row(["---", ...moments.map(() => "---")]),
    ...Array.from(
      rows.values(),
      ({ cells, group, variants }) => `| ${group}${variants.length === 0 ? "" : `: ${variants.join("; ")}`} ${cells}`
    ),
    "",
    ...notes.flatMap((note) => [note, ""])
  ].join("\n")
}

const row = (columns: ReadonlyArray<string>): string => `| ${columns.join(" | ")} |`

const word = (cell: Cell): string => absence(cell) === undefined ? expectation(cell) : "–"
