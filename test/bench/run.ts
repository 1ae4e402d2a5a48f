/**
 * Compares this library with raw `node:net`, with Effect's own sockets and with Asio's C++20 coroutines.
 *
 * Usage: npm run bench [-- [--quick] [--save] [SECTION ...]]
 *
 * Servers and client are processes of their own. Short rounds alternate between the servers, in an order that rotates,
 * and ratios are taken within a round. Fails when something crashed or came back changed, never for being slow.
 * The sections are below; `target` is the part of `echo` that most targets are about. `--save` writes what the README
 * shows to test/bench/results.
 */
import { cpus, release, type } from "node:os"
import { parseArgs } from "node:util"
import { cancellation } from "./cancellation.ts"
import * as Effort from "./effort.ts"
import type { Group } from "./figures.ts"
import { framing } from "./framing.ts"
import { memory } from "./memory.ts"
import * as Native from "./native.ts"
import { isThere, pinned } from "./processes.ts"
import { accept, bulk, echo, gather, target } from "./rates.ts"
import { relay } from "./relay.ts"
import { formatMachine, type Machine, save } from "./results.ts"
import { footnote, formatGroup, formatTargets } from "./table.ts"
import { tls } from "./tls.ts"

const sections = { target, echo, bulk, gather, accept, memory, cancellation, relay, framing, tls }

type Section = keyof typeof sections

const isSection = (name: string): name is Section => Object.hasOwn(sections, name)

const { positionals, values: { quick, save: isToSave } } = parseArgs({
  allowPositionals: true,
  options: { quick: { type: "boolean", default: false }, save: { type: "boolean", default: false } }
})
const unknown = positionals.filter((name) => !isSection(name))
if (unknown.length > 0) throw new Error(`the sections are ${Object.keys(sections).join(", ")}`)
const isChosen = (name: Section): boolean =>
  positionals.length === 0 || positionals.includes(name) || (name === "target" && positionals.includes("echo"))

if (isToSave && positionals.length > 0) throw new Error("--save is for all sections together")

const [cpu] = cpus()
const machine: Machine = {
  date: new Date().toISOString().slice(0, 10),
  cpu: `${cpus().length} x ${cpu?.model.trim() ?? "unknown"}`,
  system: `${type()} ${release()}`,
  node: `Node ${process.version}`,
  cores: pinned ? "servers on one core, clients on another" : "not pinned to cores",
  client: Native.load === undefined ? "load client over node:net" : "load client in C"
}

console.log(formatMachine(machine))
if (Native.load === undefined) {
  console.log("left out: accepting, which is for the client in C alone (Linux and a C compiler)")
}
if (Native.loadTls === undefined) {
  console.log("left out: TLS handshakes, which are for the client in C alone (Debian: libssl-dev)")
}
if (!isThere("EpollTransport")) console.log("left out: EpollTransport, which is not supported here")
if (!isThere("Asio")) {
  console.log("left out: Asio, for want of Linux, a C++20 compiler or asio.hpp (Debian: libasio-dev)")
}

const effort = quick ? Effort.quick : Effort.full
const groups: Array<Group> = []
for (const name of Object.keys(sections).filter(isSection).filter(isChosen)) {
  for (const group of await sections[name](effort)) {
    groups.push(group)
    console.log(`\n${formatGroup(group)}`)
  }
}
console.log(`\n${footnote}\n${formatTargets(groups)}`)
if (isToSave) save(machine, groups)
