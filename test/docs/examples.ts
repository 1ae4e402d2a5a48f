/**
 * The examples of the documentation: every `ts` block in the comments of the public modules and in the guides.
 *
 * - One that imports something is a module as it stands.
 * - One that awaits, outside of a generator, is the body of an async function; any other one is the body of a generator.
 *   Both have the names of a file of `given/` in scope.
 * - A module with a line that begins with `await Effect.run` is a program: it is run, and has to print what its comments
 *   `// => ...` say, in this order.
 *
 * Each example becomes a file of its own in which it stands at the line at which it stands in the documentation.
 */
import { globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { dirname, join, posix, relative } from "node:path"
import { fileURLToPath } from "node:url"

export interface Example {
  readonly file: string
  /** The line of its first line of code, counted from 1. */
  readonly line: number
  readonly code: string
  readonly isModule: boolean
  readonly isProgram: boolean
}

export const root = fileURLToPath(new URL("../..", import.meta.url))

const isPublic = (file: string): boolean => !file.includes("/internal/") && !file.includes("/checks/")

const filesOf = (pattern: string): ReadonlyArray<string> =>
  globSync(pattern, { cwd: root }).map((file) => file.replaceAll("\\", "/")).toSorted()

export const publicModules: ReadonlyArray<string> = filesOf("src/**/*.ts").filter(isPublic)

const examplesOf = (file: string): ReadonlyArray<Example> => {
  const text = readFileSync(join(root, file), "utf8")
  const fence = file.endsWith(".md") ? /^```ts\n([^]*?)^```$/gm : /^ *\* ```ts\n((?: *\*.*\n)*?) *\* ```$/gm
  return Array.from(text.matchAll(fence), (match) => {
    const code = file.endsWith(".md") ? match[1]! : match[1]!.replaceAll(/^ *\* ?/gm, "")
    const line = text.slice(0, match.index).split("\n").length + 1
    const isModule = /^import /m.test(code)
    return {
      file,
      line,
      code,
      isModule,
      isProgram: isModule && /^await Effect\.run/m.test(code)
    }
  })
}

export const examples: ReadonlyArray<Example> = [...publicModules, ...filesOf("{,src/,test/}*.md")].flatMap(examplesOf)

/** Where they are written: below `node_modules`, so that nothing else takes them for sources. */
export const folder = join(root, "node_modules/.cache/examples")

/** An import of everything that a file of `given/` exports. */
const importOf = (given: "effect" | "promises", from: string): string => {
  const text = readFileSync(join(root, `test/docs/given/${given}.ts`), "utf8")
  const names = [
    ...Array.from(text.matchAll(/^export declare const (\w+)/gm), ([, name]) => name!),
    ...Array.from(text.matchAll(/^export \* as (\w+)/gm), ([, name]) => name!),
    ...Array.from(text.matchAll(/^export \{([^}]*)\}/gm), ([, names]) => names!.trim())
  ]
  return `import { ${names.join(", ").replaceAll(/\s+/g, " ")} } from "${from}/test/docs/given/${given}.ts"`
}

/** The path of an example's file, with the extension `.ts` or `.mjs`. */
export const pathOf = ({ file, line }: Example, extension: string): string =>
  join(folder, `${file}.${line}.${extension}`)

/** The example as a module that compiles, on the lines that it has in the documentation. */
export const moduleOf = (example: Example): string => {
  const { code, isModule, line } = example
  const up = relative(dirname(pathOf(example, "ts")), root).replaceAll("\\", "/")
  const padding = "\n".repeat(line - 1)
  if (isModule) {
    return padding + code.replaceAll(/"effect-asio(\/[\w/]+)?"/g, (_, path: string | undefined) => {
      const module = path === undefined || path === "/testing" ? `${path ?? ""}/index` : path
      return JSON.stringify(posix.join(up, `src${module}.ts`))
    })
  }
  const isAsync = /\bawait\b/.test(code) && !/\byield\*/.test(code)
  const [open, close] = isAsync ? ["async () => {", "}"] : ["Effect.gen(function*() {", "})"]
  return `${importOf(isAsync ? "promises" : "effect", up)}; export default ${open}${padding}${code}${close}\n`
}

/** Writes all of them, with a project for the compiler; returns the path of its configuration. */
export const writeExamples = (): string => {
  rmSync(folder, { recursive: true, force: true })
  for (const example of examples) {
    const path = pathOf(example, "ts")
    mkdirSync(dirname(path), { recursive: true })
    writeFileSync(path, moduleOf(example))
  }
  const config = join(folder, "tsconfig.json")
  writeFileSync(
    config,
    JSON.stringify({
      extends: join(root, "tsconfig.json"),
      include: ["."],
      compilerOptions: {
        noUnusedLocals: false,
        noUnusedParameters: false,
        types: ["node"],
        typeRoots: [join(root, "node_modules/@types")]
      }
    })
  )
  return config
}
