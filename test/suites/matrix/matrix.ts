/**
 * The cancellation matrix as data: which operation, which request, which
 * moment, and the few rules that say what has to come of it. The tests and the
 * table in the documentation are both made from this.
 */
import type { Cancellation } from "../../../src/index.ts"

export type Type = Cancellation.Type

// ---- operations

export interface Operation {
  readonly name: string
  readonly kind: "connect" | "accept" | "read" | "write" | "shutdownWrite" | "close"
  /** Many attempts, so that a request may find it with some of its bytes. */
  readonly composed: boolean
  /** It was started behind another one, and comes to the front when that has ended. */
  readonly queued: boolean
}

const operation = (name: string, kind: Operation["kind"], rest?: Partial<Operation>): Operation => ({
  name,
  kind,
  composed: false,
  queued: false,
  ...rest
})

export const operations = [
  operation("connect", "connect"),
  operation("accept", "accept"),
  operation("readSome", "read"),
  operation("readExactly", "read", { composed: true }),
  operation("readUntil", "read", { composed: true }),
  operation("readAll", "read", { composed: true }),
  operation("readExactly behind another read", "read", { composed: true, queued: true }),
  operation("writeSome", "write"),
  operation("writeAll, transferAll", "write", { composed: true }),
  operation("writeAll, transferAtLeast", "write", { composed: true }),
  operation("writeAll, transferExactly", "write", { composed: true }),
  operation("writeAll, a function", "write", { composed: true }),
  operation("writeAll behind another write", "write", { composed: true, queued: true }),
  operation("shutdownWrite", "shutdownWrite"),
  operation("close", "close")
] as const

// ---- requests

export type Request =
  & { readonly group: string; readonly variant?: string }
  & (
    | { readonly kind: "interrupt"; readonly policy: Type; readonly expires: boolean }
    | { readonly kind: "emit" | "deadline" | "AbortSignal"; readonly type: Type }
    | { readonly kind: "fiber's scope" | "socket's scope" | "abort" }
  )

export const requestName = ({ group, variant }: Request): string =>
  variant === undefined ? group : `${group}: ${variant}`

const types = ["terminal", "partial", "total"] as const

export const requests: ReadonlyArray<Request> = [
  ...types.map((
    policy
  ) => ({ group: "interrupt", variant: policy, kind: "interrupt", policy, expires: false } as const)),
  { group: "interrupt", variant: "total, `within` runs out", kind: "interrupt", policy: "total", expires: true },
  ...types.map((type) => ({ group: "`emit`", variant: type, kind: "emit", type } as const)),
  ...types.map((type) => ({ group: "deadline", variant: type, kind: "deadline", type } as const)),
  ...types.map((type) => ({ group: "`AbortSignal`", variant: type, kind: "AbortSignal", type } as const)),
  { group: "its fiber's scope closes", kind: "fiber's scope" },
  { group: "the socket's scope closes", kind: "socket's scope" },
  { group: "`abort`", kind: "abort" }
]

// ---- moments

export const moments = [
  "before start",
  "queued",
  "waiting",
  "after k bytes",
  "in the turn of completion",
  "after"
] as const

export type Moment = typeof moments[number]

export interface Cell {
  readonly operation: Operation
  readonly request: Request
  readonly moment: Moment
}

// ---- what cannot be

export type TransportKind = "memory" | "node"

/** Why a combination does not exist; `undefined` when it does. */
export const absence = ({ moment, operation, request }: Cell): string | undefined => {
  if (moment === "queued" && (operation.kind === "connect" || operation.kind === "close")) {
    return "an operation on the whole connection has no queue"
  }
  if (moment === "after k bytes" && !operation.composed) {
    return "the first attempt that gets anywhere ends it, so it has no middle"
  }
  if (request.kind === "abort") {
    if (operation.kind === "accept") return "an acceptor can be closed only"
    if (operation.kind === "connect" && !isOver(moment)) return "there is no socket yet that could be aborted"
  }
  return undefined
}

/** Whether the operation ever has to wait on a transport by itself, with nothing in front of it. */
const waits = ({ kind }: Operation, transport: TransportKind): boolean =>
  // The in-memory network has nothing to flush.
  transport === "node" || (kind !== "shutdownWrite" && kind !== "close")

/** The cells of one transport. */
export const cells = (transport: TransportKind): ReadonlyArray<Cell> =>
  operations.flatMap((operation) =>
    requests.flatMap((request) =>
      moments
        .map((moment) => ({ operation, request, moment }))
        .filter((cell) => absence(cell) === undefined && (cell.moment !== "waiting" || waits(operation, transport)))
    )
  )

// ---- what has to come of it

/**
 * - `completes`: with its value; the request changes nothing about it.
 * - `not started`: its fiber ended before it came to the operation.
 * - `total`, `partial`: cut with that guarantee; the stream is usable.
 * - `torn`: cut with the guarantee `terminal`, in the middle of its bytes.
 * - `finishes`: goes on to its last byte, and the interruption proceeds then.
 * - `runs on`: refuses the request and completes.
 * - `Closed`: fails with that reason.
 * - `aborts`: stops waiting, and the stream ends with a reset where there is one.
 */
export type Expectation =
  | "completes"
  | "not started"
  | "total"
  | "partial"
  | "torn"
  | "finishes"
  | "runs on"
  | "Closed"
  | "aborts"

/** The rules. They hold on every transport on which the operation has to wait when it starts. */
export const expectation = (cell: Cell, transport: TransportKind = "node"): Expectation => {
  const { moment, operation, request } = cell
  // Finishing beats cancelling.
  if (isOver(moment)) return "completes"
  switch (request.kind) {
    case "interrupt":
      return interrupted(cell, request.policy, request.expires)
    case "fiber's scope":
      return interrupted(cell, "terminal", false)
    case "emit":
      // Not latched: it reaches the operations that wait at that moment, and no others.
      return moment === "before start" ? "completes" : asked(cell, request.type)
    case "deadline":
    case "AbortSignal":
      // Latched: it reaches what starts to wait later, too.
      return moment === "before start" && !waits(operation, transport) ? "completes" : asked(cell, request.type)
    case "socket's scope":
      // Nothing interrupts the attempt: it hands over a socket that its scope closes on the spot.
      if (operation.kind === "connect") return "completes"
      if (operation.kind === "close") return moment === "before start" ? "completes" : "runs on"
      return "Closed"
    case "abort":
      if (operation.kind === "close") return moment === "before start" ? "completes" : "aborts"
      return "Closed"
  }
}

export const isOver = (moment: Moment): boolean => moment === "in the turn of completion" || moment === "after"

// Plain interruption asks for what the policy says, and cannot be refused: where a write cannot keep that any more, it
// goes on to its end or to the end of its time.
const interrupted = (cell: Cell, policy: Type, expires: boolean): Expectation => {
  if (cell.moment === "before start") return "not started"
  if (cell.operation.kind === "close") return "aborts"
  if (isMidMessage(cell) && policy === "total") return expires ? "torn" : "finishes"
  return cut(cell, policy)
}

const asked = (cell: Cell, type: Type): Expectation => {
  if (cell.operation.kind === "close") return type === "terminal" ? "aborts" : "runs on"
  return isMidMessage(cell) && type === "total" ? "runs on" : cut(cell, type)
}

// Everything is as if it had never been started, except a write that has taken some of its bytes.
const cut = (cell: Cell, type: Type): Expectation =>
  !isMidMessage(cell) ? "total" : type === "partial" ? "partial" : "torn"

const isMidMessage = ({ moment, operation }: Cell): boolean => operation.kind === "write" && moment === "after k bytes"
