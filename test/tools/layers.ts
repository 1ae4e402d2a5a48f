/**
 * The oxlint rule `layers/downward`: what a file of src may import.
 *
 * Oxlint's own `no-restricted-imports` compares the text of a specifier and does not see `import()`, so the table of
 * layers would have to be repeated for every folder. Here it stands once, and paths are resolved before they are judged.
 */
import { join, posix, relative, sep } from "node:path"

/**
 * From bottom to top. A module may import values of its own layer and of the layers before it, and any type. `x/` stands
 * for everything in that folder. Public modules stand beside the folders that they are the doors of.
 */
const layers: ReadonlyArray<ReadonlyArray<string>> = [
  [
    "Buffers",
    "CompletionCondition",
    "SocketError",
    "Cancellation",
    "Metrics",
    "internal/base/",
    "internal/cancellation/"
  ],
  ["Transport"],
  ["internal/core/"],
  ["StreamSocket", "Acceptor", "internal/connect/"],
  ["Write", "Read", "Framing", "Relay", "internal/operations/"],
  ["Connector", "Server", "Tls", "ProxyProtocol", "internal/tls/", "internal/proxy/", "internal/server/"],
  ["transport/"],
  ["adapter/"],
  ["promises", "internal/promises/"],
  ["testing/"],
  ["index"]
]

/** Transports translate and do nothing else: of what is below them they see only the contract and the values. */
const highestForTransports = 1

/** Platform I/O belongs to the transports. */
const platformIo = /^(node:(net|tls|dgram|dns|https?|http2|child_process|cluster)|koffi)(\/|$)/

/**
 * Except that TLS may use `node:tls`, which there opens nothing: it is OpenSSL's way to be had in JavaScript, and works on
 * streams that a transport has opened. That is above the core, so a transport is no place for it.
 */
const mayUse = (module: string, specifier: string): boolean =>
  specifier === "node:tls" && module.startsWith("internal/tls/")

/** What users of the package have installed: Node itself and the peers. */
const installed = /^(node:|(effect|@effect\/platform-node|koffi)(\/|$))/

const covers = (module: string) => (entry: string): boolean =>
  entry.endsWith("/") ? module.startsWith(entry) : module === entry

/** The longest entry wins, so that a module named in the table is not taken for the rest of its folder. */
const rankOf = (module: string): number => {
  let best = ""
  let rank = -1
  for (const [index, layer] of layers.entries()) {
    const entry = layer.find(covers(module))
    if (entry !== undefined && entry.length > best.length) {
      best = entry
      rank = index
    }
  }
  return rank
}

/** Why `file` (relative to src, like `transport/NodeTransport.ts`) may not import `specifier`; undefined if it may. */
export const violation = (file: string, specifier: string): string | undefined => {
  const from = file.replace(/\.ts$/, "")
  const inTransport = from.startsWith("transport/")
  if (!specifier.startsWith(".")) {
    if (!installed.test(specifier)) return `src may import only node: modules and peers, not "${specifier}"`
    if (platformIo.test(specifier) && !inTransport && !mayUse(from, specifier)) {
      return `only transport/ may import "${specifier}"`
    }
    return undefined
  }
  const to = posix.join(posix.dirname(from), specifier).replace(/\.ts$/, "")
  if (to.startsWith("../")) return `"${specifier}" leads out of src`
  if (rankOf(from) === -1) return `"${from}" belongs to no layer: add it to the table in test/tools/layers.ts`
  if (rankOf(to) === -1) return `"${to}" belongs to no layer: add it to the table in test/tools/layers.ts`
  if (rankOf(to) > rankOf(from)) return `"${from}" may not import "${to}": it is in a higher layer`
  if (inTransport && !to.startsWith("transport/") && rankOf(to) > highestForTransports) {
    return `a transport may import only Transport and the values, not "${to}"`
  }
  return undefined
}

interface Import {
  readonly type: string
  readonly importKind?: string
  readonly exportKind?: string
  readonly source: { readonly type: string; readonly value?: unknown } | null
}

interface Context {
  readonly cwd: string
  readonly filename: string
  readonly report: (diagnostic: { readonly message: string; readonly node: unknown }) => void
}

const create = (context: Context) => {
  const file = relative(join(context.cwd, "src"), context.filename).replaceAll(sep, "/")
  const judge = ({ exportKind, importKind, source, type }: Import): void => {
    // Types are erased, so they make no arrow between modules at run time.
    if (source === null || importKind === "type" || exportKind === "type" || type === "TSImportType") return
    const message = typeof source.value === "string"
      ? violation(file, source.value)
      : "src may import only by a literal path"
    if (message !== undefined) context.report({ message, node: source })
  }
  return {
    ImportDeclaration: judge,
    ExportNamedDeclaration: judge,
    ExportAllDeclaration: judge,
    ImportExpression: judge
  }
}

export default { meta: { name: "layers" }, rules: { downward: { create } } }
