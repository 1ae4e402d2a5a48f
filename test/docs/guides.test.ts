/** The guides for engineers: what they name exists, and the transport that they show is the one that is tested. */
import { assert, describe, it } from "@effect/vitest"
import { existsSync, readFileSync } from "node:fs"
import { dirname, join } from "node:path"
import { examples, root } from "./examples.ts"

const guides = ["README.md", "src/README.md", "test/README.md"]

/** Links, and code that looks like a path: it ends with a slash or with an extension, and has no placeholder. */
const pathsIn = (text: string): ReadonlyArray<string> => {
  const prose = text.replaceAll(/^```[^]*?^```$/gm, "")
  const links = Array.from(prose.matchAll(/\]\((?!https?:)([^)#]+)/g), ([, path]) => path!)
  const code = Array.from(
    prose.matchAll(/`((?:\.\.\/)?[\w-]+(?:[./][\w-]+)*(?:\/|\.(?:ts|md|json)))`/g),
    ([, path]) => path!
  )
  return [...links, ...code]
}

describe("the guides", () => {
  for (const guide of guides) {
    it(`${guide} names only paths that exist`, () => {
      const paths = pathsIn(readFileSync(join(root, guide), "utf8"))
      assert.isNotEmpty(paths)
      const home = join(root, dirname(guide))
      assert.deepStrictEqual(paths.filter((path) => ![home, root].some((folder) => existsSync(join(folder, path)))), [])
    })
  }

  it("src/README.md shows the transport that workerStream.process.test.ts checks, but for the paths of its imports", () => {
    const shown = examples.filter(({ file }) => file === "src/README.md").map(({ code }) => code)
    const checked = readFileSync(new URL("workerStream.ts", import.meta.url), "utf8")
    assert.include(shown, checked.replaceAll(/"\.\.\/\.\.\/src\/(\w+)\.ts"/g, `"effect-asio/$1"`))
  })
})
