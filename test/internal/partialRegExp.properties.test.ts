/** The search that goes on where it stopped, against the one that looks at everything again. */
import { assert, describe, it, vi } from "@effect/vitest"
import fc from "fast-check"
import { type Find, findRegExp } from "../../src/internal/core/Matcher.ts"
import { partialRegExp } from "../../src/internal/core/partialRegExp.ts"
import { seeded, some } from "../support/properties.ts"

/** What a delimiter promises: the first match of at least one character in all that has arrived. */
const rescan = (regexp: RegExp): Find => {
  const global = new RegExp(regexp.source, `${regexp.flags.replace(/[gy]/g, "")}g`)
  return (bytes) => {
    for (const match of Buffer.from(bytes).toString("latin1").matchAll(global)) {
      if (match[0].length > 0) return match.index + match[0].length
    }
    return undefined
  }
}

/** What the looks of one read answer, up to the first that finds something. */
const looks = (find: Find, bytes: Uint8Array, sizes: ReadonlyArray<number>): ReadonlyArray<number | undefined> => {
  const answers: Array<number | undefined> = []
  let scanned = 0
  for (let i = 0; scanned < bytes.byteLength && answers.at(-1) === undefined; i++) {
    const next = Math.min(bytes.byteLength, scanned + sizes[i % sizes.length]!)
    answers.push(find(bytes.subarray(0, next), scanned))
    scanned = next
  }
  return answers
}

/** How many characters at the end of `text` are searched again. */
const kept = (regexp: RegExp, text: string): number => text.length - text.search(partialRegExp(regexp))

/** How many bytes are turned into text. */
const decoded = (run: () => void): number => {
  const decodes = vi.spyOn(Buffer.prototype, "toString")
  run()
  const count = decodes.mock.contexts.reduce<number>((sum, buffer) => sum + (buffer as Buffer).byteLength, 0)
  decodes.mockRestore()
  return count
}

// Few letters, so that beginnings of matches are frequent.
const atoms = [
  "a",
  "b",
  "c",
  ".",
  "[ab]",
  "[^a]",
  "[]",
  "[^]",
  "\\x61",
  "\\u0062",
  "\\W",
  "\\.",
  "\\n",
  "\\cJ",
  "[\\]a-b-]"
]
const loose = ["]", "}", "{", "a{", "{,2}", "a{b}", "\\-", "\\_"]
const unicode = ["\\u{61}", "\\p{L}", "\\P{Lu}", "\u{1f600}", "\\u{1f600}"]
const assertions = ["^", "$", "\\b", "\\B", "(?=a)", "(?!b)", "(?<=a)", "(?<!b)", "\\1", "(?i:A)", "\\e", "\\07"]
// Not too many ways through a group: a pattern of the caller's own may take for ever, and a rescan takes it too.
const repetitions = ["", "", "", "?", "??", "+", "*?", "{2}", "{0}", "{1,2}"]
const quantifiers = ["", "", "", "*", "+", "?", "*?", "+?", "??", "{2}", "{0}", "{1,3}", "{2,}", "{0,2}?", "{3}?"]

const pattern = (extra: ReadonlyArray<string>): fc.Arbitrary<string> =>
  fc.letrec<{ pattern: string; sequence: string; term: string }>((tie) => ({
    pattern: fc.array(tie("sequence"), { minLength: 1, maxLength: 2, depthIdentifier: "p" }).map((all) =>
      all.join("|")
    ),
    sequence: fc.array(tie("term"), { maxLength: 3 }).map((all) => all.join("")),
    term: fc.oneof(
      { maxDepth: 2, depthIdentifier: "t" },
      fc.tuple(fc.constantFrom(...atoms), fc.constantFrom(...quantifiers)).map(([atom, times]) => atom + times),
      fc.constantFrom("a", "b", ...extra),
      fc.tuple(fc.constantFrom("(", "(?:"), tie("pattern"), fc.constantFrom(...repetitions)).map(
        ([open, inner, times]) => `${open}${inner})${times}`
      )
    )
  })).pattern

const regexp = (extra: ReadonlyArray<string>, flags: ReadonlyArray<string>): fc.Arbitrary<RegExp> =>
  fc.tuple(pattern(extra), fc.constantFrom(...flags)).chain(([source, flags]) => {
    try {
      return fc.constant(new RegExp(source, flags))
    } catch {
      // What the pieces make together is not always a pattern: a loose brace may bind to its neighbour.
      return fc.constant(new RegExp("ab", flags))
    }
  })

const bytes = fc.array(fc.constantFrom(97, 98, 99, 65, 10, 46, 93, 123, 125, 45, 0xe9, 0), { maxLength: 12 })
  .map((all) => Uint8Array.from(all))

const sizes = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 5 })

const agrees = (regexps: fc.Arbitrary<RegExp>, runs: number) =>
  fc.assert(
    fc.property(regexps, bytes, sizes, (regexp, bytes, sizes) => {
      assert.deepStrictEqual(looks(findRegExp(regexp), bytes, sizes), looks(rescan(regexp), bytes, sizes))
    }),
    seeded({ numRuns: some(runs) })
  )

describe("partialRegExp", () => {
  it("any pattern of characters, classes, groups, alternatives and quantifiers finds what a rescan finds", () => {
    agrees(regexp(loose, ["", "g", "i", "s", "m", "y", "d"]), 6000)
  })

  it("so do patterns with the flag u", () => {
    agrees(regexp(unicode, ["u", "iu", "gu"]), 2000)
  })

  it("so do patterns that have to be searched from the front", () => {
    agrees(regexp([...loose, ...assertions], ["", "i", "m"]), 2000)
    agrees(regexp(["(?=a)", "\\p{L}", "[a--b]"], ["v"]), 500)
  })

  it("most random patterns are really searched from later on", () => {
    // Otherwise the properties above would compare one rescan with another.
    let later = 0
    const found = fc.sample(fc.tuple(regexp(loose, [""]), bytes), { ...seeded({}), numRuns: 500 })
    for (const [regexp, bytes] of found) {
      if (kept(regexp, Buffer.from(bytes).toString("latin1")) < bytes.byteLength) later++
    }
    assert.isAbove(later, 150)
  })

  const cases: ReadonlyArray<readonly [RegExp, string, number]> = [
    [/abc/, "xxabxab", 2],
    [/abc/, "xxabxabx", 0],
    [/\r\n\r\n/, "GET / HTTP/1.1\r\nHost: x\r\n\r", 3],
    [/\r?\n/, "line\r", 1],
    [/\r?\n/, "line", 0],
    [/abab/, "ababab".slice(0, 3), 3],
    [/a(?:bc|bd)+e/, "xabcbdb", 6],
    [/(?:foo|bar)!/i, "fOo", 3],
    [/(?<name>ab)c/, "zab", 2],
    [/a{3,5}b/, "aaaaaaa", 5],
    [/a{3,}b/, "xaaaaaaa", 7],
    [/a{0}b/, "aaa", 0],
    [/<[^>]*>/, "text <tag", 4],
    [/[\]a]b/, "b]", 1],
    [/a.b/, "xa\n", 0],
    [/a.b/s, "xa\n", 2],
    [/\u{61}b/u, "xa", 1],
    [/\u{1f600}?ab/u, "xa", 1],
    [new RegExp("\u{1f600}?ab", "u"), "xa", 1],
    [/a\/b/, "xa/", 2],
    [/\xfe\xff/, "x\xfe", 1],
    [/x{/, "ax", 1]
  ]
  for (const [regexp, text, expected] of cases) {
    it(`${String(regexp)} after ${JSON.stringify(text)} keeps ${expected}`, () => {
      assert.strictEqual(kept(regexp, text), expected)
    })
  }

  it("what it cannot treat soundly is searched from the front", () => {
    const patterns: ReadonlyArray<RegExp> = [
      /^ab/,
      /ab$/,
      /\bab/,
      /a\Bb/,
      /(?=ab)a/,
      /a(?!b)c/,
      /(?<=a)b/,
      /(?<!a)b/,
      /(a)\1/,
      /(?<n>a)\k<n>/,
      /ab/v,
      /a*/,
      /(?:ab)?/,
      /|ab/,
      /(?:)/,
      // Rare escapes, and modifiers, which would need a `$` of their own.
      new RegExp("\\07a"),
      new RegExp("\\e"),
      new RegExp("\\ud83d\\ude00?ab", "u"),
      new RegExp("(?i:a)b"),
      new RegExp("a".repeat(501)),
      new RegExp("(?:a+b".repeat(70) + ")+".repeat(70))
    ]
    for (const regexp of patterns) assert.strictEqual(kept(regexp, "xxxx"), 4, String(regexp))
  })

  it("lengths of patterns up to the limit are treated, in little time of their own", () => {
    for (const source of ["a".repeat(500), "(?:a".repeat(100) + ")".repeat(100), "(?:a|b)".repeat(70)]) {
      assert.isBelow(kept(new RegExp(source), `${"a".repeat(40)}c`.repeat(100)), 1, source)
    }
  })

  it("bytes that were put back in front are searched too", () => {
    const find = findRegExp(/abc/)
    assert.isUndefined(find(Buffer.from("bc"), 0))
    assert.isUndefined(find(Buffer.from("bcxx"), 2))
    assert.strictEqual(find(Buffer.from("abcxx"), 0), 3)
  })

  it("decodes each byte about once, however small the pieces in which they come", () => {
    const wire = Buffer.from(`${"Some: header\r\n".repeat(2000)}\r\n`)
    const find = findRegExp(/\r\n\r\n/)
    const count = decoded(() => {
      assert.strictEqual(looks(find, wire, [1]).at(-1), wire.byteLength)
    })
    // Up to three bytes of a beginning are looked at again.
    assert.isBelow(count, 4 * wire.byteLength)
    const whole = decoded(() => looks(rescan(/\r\n\r\n/), wire.subarray(0, 4000), [1]))
    assert.isAbove(whole, 4000 * 1000, "the same count sees that a rescan is quadratic")
  })
})
