import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Cancellation from "../../src/Cancellation.ts"
import { connects, dies, hangs, hangsAndLingers, type Plan, play, refuses } from "./stage.ts"

interface Row extends Plan {
  readonly log: ReadonlyArray<string>
  readonly end: string
}

const rows: Readonly<Record<string, Row>> = {
  "the first address answers: no other one is tried": {
    fates: [["a6", connects(30)], ["a4", connects(10)]],
    log: ["0 a6", "30 a6 connected"],
    end: "30 a6"
  },
  "it answers at once": {
    fates: [["a6", connects(0)], ["a4", connects(0)]],
    log: ["0 a6", "0 a6 connected"],
    end: "0 a6"
  },
  "it answers just before the second one has its turn": {
    fates: [["a6", connects(249)], ["a4", connects(0)]],
    log: ["0 a6", "249 a6 connected"],
    end: "249 a6"
  },
  "it is refused: the second one starts at once": {
    fates: [["a6", refuses(100)], ["a4", connects(20)]],
    log: ["0 a6", "100 a6 refused", "100 a4", "120 a4 connected"],
    end: "120 a4"
  },
  "it gets no answer: the second one joins in, wins, and the first one is cut": {
    fates: [["a6", hangs], ["a4", connects(30)]],
    log: ["0 a6", "250 a4", "280 a4 connected", "280 a6 cut"],
    end: "280 a4"
  },
  "it is slow: it goes on while the second one runs, and may win": {
    fates: [["a6", connects(300)], ["a4", hangs]],
    log: ["0 a6", "250 a4", "300 a6 connected", "300 a4 cut"],
    end: "300 a6"
  },
  "all are refused": {
    fates: [["a6", refuses(10)], ["a4", refuses(20)], ["b6", refuses(30)]],
    log: ["0 a6", "10 a6 refused", "10 a4", "30 a4 refused", "30 b6", "60 b6 refused"],
    end: "60 a6 ConnectionRefused 0+10, a4 ConnectionRefused 10+20, b6 ConnectionRefused 30+30"
  },
  "all are refused at once": {
    fates: [["a6", refuses(0)], ["a4", refuses(0)]],
    log: ["0 a6", "0 a6 refused", "0 a4", "0 a4 refused"],
    end: "0 a6 ConnectionRefused 0+0, a4 ConnectionRefused 0+0"
  },
  "a later one fails: the next one starts at once, and the first one goes on": {
    fates: [["a6", hangs], ["a4", refuses(20)], ["b6", connects(400)]],
    log: ["0 a6", "250 a4", "270 a4 refused", "270 b6", "670 b6 connected", "670 a6 cut"],
    end: "670 b6"
  },
  "an earlier one fails: the next one starts at once, and the delay counts from there": {
    fates: [["a6", refuses(300)], ["a4", hangs], ["b6", hangs], ["b4", connects(10)]],
    log: [
      "0 a6",
      "250 a4",
      "300 a6 refused",
      "300 b6",
      "550 b4",
      "560 b4 connected",
      "560 a4 cut",
      "560 b6 cut"
    ],
    end: "560 b4"
  },
  "two fail in the same instant: two start": {
    fates: [["a6", refuses(400)], ["a4", refuses(150)], ["b6", hangs], ["b4", connects(5)]],
    log: ["0 a6", "250 a4", "400 a6 refused", "400 b6", "400 a4 refused", "400 b4", "405 b4 connected", "405 b6 cut"],
    end: "405 b4"
  },
  "the last one runs alone for as long as it takes": {
    fates: [["a6", refuses(0)], ["a4", connects(100_000)]],
    log: ["0 a6", "0 a6 refused", "0 a4", "100000 a4 connected"],
    end: "100000 a4"
  },
  "two connect in the same instant: one wins, the other one is released": {
    fates: [["a6", connects(300)], ["a4", connects(50)]],
    log: ["0 a6", "250 a4", "300 a6 connected", "300 a4 cut"],
    end: "300 a6"
  },
  "releasing the losers takes a while: connect ends when they are gone": {
    fates: [["a6", hangsAndLingers(70)], ["a4", connects(30)]],
    log: ["0 a6", "250 a4", "280 a4 connected", "280 a6 cut", "350 a6 released"],
    end: "350 a4"
  },
  "a shorter delay": {
    options: { attemptDelay: "50 millis" },
    fates: [["a6", hangs], ["a4", hangs], ["b6", connects(10)]],
    log: ["0 a6", "50 a4", "100 b6", "110 b6 connected", "110 a6 cut", "110 a4 cut"],
    end: "110 b6"
  },
  "no delay is at least 10 milliseconds": {
    options: { attemptDelay: 0 },
    fates: [["a6", hangs], ["a4", connects(5)]],
    log: ["0 a6", "10 a4", "15 a4 connected", "15 a6 cut"],
    end: "15 a4"
  },
  "an endless delay tries one after the other": {
    options: { attemptDelay: "Infinity" },
    fates: [["a6", refuses(5000)], ["a4", connects(5000)]],
    log: ["0 a6", "5000 a6 refused", "5000 a4", "10000 a4 connected"],
    end: "10000 a4"
  },
  "an attempt has its own time, and the next one starts when it is over": {
    options: { attemptTimeout: "100 millis" },
    fates: [["a6", hangs], ["a4", hangs], ["b6", connects(99)]],
    log: ["0 a6", "100 a6 cut", "100 a4", "200 a4 cut", "200 b6", "299 b6 connected"],
    end: "299 b6"
  },
  "attempts are cut one by one while later ones run": {
    options: { attemptTimeout: "1 second" },
    fates: [["a6", hangs], ["a4", hangs], ["b6", hangs]],
    log: ["0 a6", "250 a4", "500 b6", "1000 a6 cut", "1250 a4 cut", "1500 b6 cut"],
    end: "1500 a6 TimedOut 0+1000, a4 TimedOut 250+1000, b6 TimedOut 500+1000"
  },
  "an attempt whose release takes long delays the end only": {
    options: { attemptTimeout: "100 millis" },
    fates: [["a6", hangsAndLingers(500)], ["a4", hangs], ["b6", connects(50)]],
    log: ["0 a6", "100 a6 cut", "100 a4", "200 a4 cut", "200 b6", "250 b6 connected", "600 a6 released"],
    end: "600 b6"
  },
  "a single address whose attempt takes too long": {
    options: { attemptTimeout: "1 second" },
    fates: [["a6", hangs]],
    log: ["0 a6", "1000 a6 cut"],
    end: "1000 TimedOut"
  },
  "all of it takes too long: who runs is cut, who did not run is counted": {
    options: { timeout: "600 millis" },
    fates: [["a6", hangs], ["a4", refuses(70)], ["b6", hangs], ["b4", hangs], ["c6", hangs]],
    log: ["0 a6", "250 a4", "320 a4 refused", "320 b6", "570 b4", "600 a6 cut", "600 b6 cut", "600 b4 cut"],
    end: "600 a6 TimedOut 0+600, a4 ConnectionRefused 250+70, b6 TimedOut 320+280, b4 TimedOut 570+30, 1 untried"
  },
  "a single address, and all of it takes too long": {
    options: { timeout: "600 millis" },
    fates: [["a4", hangs]],
    log: ["0 a4", "600 a4 cut"],
    end: "600 TimedOut"
  },
  "no time at all": {
    options: { timeout: 0 },
    fates: [["a4", connects(0)], ["a6", connects(0)]],
    log: [],
    end: "0 2 untried"
  },
  "the look-up counts, too": {
    options: { timeout: "600 millis" },
    lookup: 500,
    fates: [["a4", hangs], ["a6", connects(0)]],
    log: ["500 a4", "600 a4 cut"],
    end: "600 a4 TimedOut 0+100, 1 untried"
  },
  "the look-up takes all the time there is": {
    options: { timeout: "600 millis" },
    lookup: 700,
    fates: [["a4", connects(0)]],
    log: [],
    end: "600 NameResolution"
  },
  "the look-up has a time of its own": {
    options: { lookupTimeout: "1 second" },
    lookup: 2000,
    fates: [["a4", connects(0)]],
    log: [],
    end: "1000 NameResolution"
  },
  "a look-up may take 30 seconds": {
    lookup: 60_000,
    fates: [["a4", connects(0)]],
    log: [],
    end: "30000 NameResolution"
  },
  "a connection that is made in the instant in which its time is over": {
    options: { attemptTimeout: "100 millis" },
    fates: [["a6", connects(100)], ["a4", connects(10)]],
    log: ["0 a6", "100 a6 connected"],
    end: "100 a6"
  },
  "an interruption cuts all of them": {
    interruptAt: 300,
    fates: [["a6", hangs], ["a4", hangs], ["b6", connects(0)]],
    log: ["0 a6", "250 a4", "300 a6 cut", "300 a4 cut"],
    end: "300 Interrupt"
  },
  "an interruption during the look-up": {
    interruptAt: 300,
    lookup: 1000,
    fates: [["a6", connects(0)]],
    log: [],
    end: "300 Interrupt"
  },
  "an interruption while the losers are released: the winner goes, too": {
    interruptAt: 300,
    fates: [["a6", hangsAndLingers(100)], ["a4", connects(30)]],
    log: ["0 a6", "250 a4", "280 a4 connected", "280 a6 cut", "380 a6 released", "380 a4 aborted"],
    end: "380 Interrupt"
  },
  "a signal cuts all of them": {
    around: Cancellation.cancelAfter("300 millis", "total"),
    fates: [["a6", hangs], ["a4", hangs], ["b6", connects(0)]],
    log: ["0 a6", "250 a4", "300 a6 cut", "300 a4 cut"],
    end: "300 OperationAborted"
  },
  "a defect is no refusal: all of it ends, and the others are cut": {
    fates: [["a6", hangs], ["a4", dies(10)], ["b6", connects(0)]],
    log: ["0 a6", "250 a4", "260 a6 cut"],
    end: "260 Die"
  },
  "families take turns, and the order within each stays": {
    fates: [
      ["a6", refuses(0)],
      ["b6", refuses(0)],
      ["c6", refuses(0)],
      ["a4", refuses(0)],
      ["b4", connects(0)]
    ],
    log: ["0 a6", "0 a6 refused", "0 a4", "0 a4 refused", "0 b6", "0 b6 refused", "0 b4", "0 b4 connected"],
    end: "0 b4"
  },
  "the family of the resolver's first address begins": {
    fates: [["a4", refuses(0)], ["b4", refuses(0)], ["a6", connects(0)]],
    log: ["0 a4", "0 a4 refused", "0 a6", "0 a6 connected"],
    end: "0 a6"
  },
  "the first family may have more than one try": {
    options: { firstFamilyCount: 2 },
    fates: [["a6", refuses(1)], ["a4", refuses(1)], ["b6", refuses(1)], ["b4", refuses(1)], ["c6", connects(1)]],
    log: [
      "0 a6",
      "1 a6 refused",
      "1 b6",
      "2 b6 refused",
      "2 a4",
      "3 a4 refused",
      "3 c6",
      "4 c6 connected"
    ],
    end: "4 c6"
  },
  "an address that is there twice is tried once": {
    fates: [["a4", refuses(1)], ["a4", refuses(1)], ["b4", connects(1)]],
    log: ["0 a4", "1 a4 refused", "1 b4", "2 b4 connected"],
    end: "2 b4"
  },
  "at most so many addresses are tried": {
    options: { maxAddresses: 2 },
    fates: [["a6", refuses(1)], ["b6", connects(1)], ["a4", refuses(1)]],
    log: ["0 a6", "1 a6 refused", "1 a4", "2 a4 refused"],
    end: "2 a6 ConnectionRefused 0+1, a4 ConnectionRefused 1+1, 1 untried"
  }
}

describe("Connector: attempts, millisecond by millisecond", () => {
  for (const [name, { end, log, ...plan }] of Object.entries(rows)) {
    it.effect(name, () =>
      Effect.gen(function*() {
        const told = yield* play(plan)
        assert.deepStrictEqual(told, { log, end })
      }))
  }
})
