/**
 * Derives from a regular expression another one that finds where a match could
 * still begin when more text arrives: it matches the beginning of a match that
 * reaches to the end of the text.
 *
 * **Details**
 *
 * From `abc` it makes `(?:$|a(?:$|b$))`. Its search costs at most a small multiple
 * of a search of the original that fails, because it tries the same branches.
 *
 * Some expressions have no sound derivation: assertions (`^`, `$`, `\b`,
 * lookaround), back-references, rare escapes, the flag `v`, and patterns that can
 * match the empty text. For these the result matches everywhere.
 */
export const partialRegExp = (regexp: RegExp): RegExp => {
  const { flags, source } = regexp
  if (source.length > maxSource || flags.includes("v")) return everywhere
  const parser = new Parser(source, flags.includes("u") ? unicodeCharacter : character)
  const { prefix, isNullable } = parser.alternatives()
  // An original that matches the empty text may not have tried the branches that this one would try.
  return !parser.isSound || isNullable || prefix.length > maxCut
    ? everywhere
    : new RegExp(prefix, flags.replace(/[dgmy]/g, ""))
}

// ---- internal

const everywhere = /(?:)/

// Each character of a sequence nests one level deeper, and each level of groups doubles what is in it.
const maxSource = 500
const maxCut = 20_000

interface Piece {
  /** Matches what the piece matches. */
  readonly whole: string
  /** Matches a beginning of it that reaches to the end of the text. */
  readonly prefix: string
  readonly isNullable: boolean
}

const never = "[]"
const nothing: Piece = { whole: "", prefix: never, isNullable: true }

// Tokens that match exactly one character. An escaped surrogate may match half of one, so it is left out.
const singles = [
  String.raw`\.|[^\\^$.*+?()[|]`,
  String.raw`\[(?:\\.|[^\]\\])*\]`,
  String.raw`\\(?:[dDsSwWfnrtv]|c[a-zA-Z]|x[\da-fA-F]{2}|u(?![dD][89a-fA-F])[\da-fA-F]{4}|0(?!\d)|[^\da-zA-Z])`
]
const character = new RegExp(singles.join("|"), "sy")
const unicodeCharacter = new RegExp([...singles, String.raw`\\(?:u\{[\da-fA-F]+\}|[pP]\{[^}]*\})`].join("|"), "suy")

const group = /\((?:\?:|\?<[^=!][^>]*>|(?!\?))/y
const quantifier = /([*+?]|\{(\d+)(?:(,)(\d*))?\})\??/y

/** Stops at the first token that it does not know, and is not sound then. */
class Parser {
  isSound = true
  private at = 0
  private readonly source: string
  private readonly character: RegExp

  constructor(source: string, character: RegExp) {
    this.source = source
    this.character = character
  }

  alternatives(): Piece {
    const all = [this.sequence()]
    for (; this.source[this.at] === "|"; all.push(this.sequence())) this.at++
    return {
      // Always a group, which a quantifier may follow.
      whole: `(?:${all.map((piece) => piece.whole).join("|")})`,
      prefix: `(?:${all.map((piece) => piece.prefix).join("|")})`,
      isNullable: all.some((piece) => piece.isNullable)
    }
  }

  private sequence(): Piece {
    const pieces: Array<Piece> = []
    while (this.at < this.source.length && !"|)".includes(this.source[this.at]!)) pieces.push(this.term())
    // The text ends inside the first piece, or behind it inside the others.
    return pieces.reduceRight((rest, first) => ({
      whole: first.whole + rest.whole,
      prefix: rest === nothing ? first.prefix : `(?:${first.prefix}|${first.whole}${rest.prefix})`,
      isNullable: first.isNullable && rest.isNullable
    }), nothing)
  }

  private term(): Piece {
    const piece = this.atom()
    const [text, operator, min, comma, upper] = this.eat(quantifier) ?? []
    if (text === undefined || operator === undefined) return piece
    const max = operator === "?"
      ? 1
      : min === undefined || (comma !== undefined && upper === "")
      ? Infinity
      : Number(upper ?? min)
    return {
      whole: piece.whole + text,
      // Some whole repetitions, and one that the end of the text cuts.
      prefix: max === 0
        ? never
        : max === 1
        ? piece.prefix
        : `${piece.whole}${max > maxCount ? "*" : `{0,${max - 1}}`}${piece.prefix}`,
      isNullable: piece.isNullable || (min === undefined ? operator !== "+" : Number(min) === 0)
    }
  }

  private atom(): Piece {
    const single = this.eat(this.character)
    if (single !== null) return { whole: single[0], prefix: "$", isNullable: false }
    if (this.eat(group) === null) {
      this.isSound = false
      this.at = this.source.length
      return nothing
    }
    const inner = this.alternatives()
    this.at++
    return inner
  }

  private eat(token: RegExp): RegExpExecArray | null {
    token.lastIndex = this.at
    const found = token.exec(this.source)
    if (found !== null) this.at = token.lastIndex
    return found
  }
}

const maxCount = 1000
