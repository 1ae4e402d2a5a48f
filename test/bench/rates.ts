/** How much the servers do in a second: echo, writes one way, gather writes, accepting. */
import type { Effort } from "./effort.ts"
import { alternate, type Group, isSaturated, summarize, valuesOf } from "./figures.ts"
import type { Result } from "./load.ts"
import * as Native from "./native.ts"
import { isThere, Load, type Program, type Server, start, withServers } from "./processes.ts"
import { echoTitle, titles } from "./titles.ts"

/** All that can be there, in the order of the tables. */
export const contestants = (["Asio", "EpollTransport", "NodeTransport", "node:net", "Effect"] as const).filter(isThere)

/** What nothing over the same reactor exceeds, for the one load that is looked at closely. */
const withFloors = ([...contestants, "epoll, a fiber", "epoll, callbacks"] as const).filter(isThere)

export const ours = contestants.filter((name) => name.endsWith("Transport"))

export interface Task {
  readonly title: string
  readonly mode: "echo" | "bulk" | "fill" | "accept" | "resume"
  readonly overTls?: boolean
  readonly connections: number
  /** Of a message; what is counted, in what the client counts. */
  readonly size?: number
  readonly unit?: number
  readonly name: string
  /** Of CPU time for each. */
  readonly digits: number
}

const measure = async (server: Server, task: Task, { seconds, warmUp }: Effort): Promise<ReadonlyArray<number>> => {
  server.forgetPeak()
  const { mode, connections, overTls = false, size = 64 } = task
  const args = [server.port, connections, seconds, warmUp, size, server.process] as const
  const load = overTls ? Load.startTls(mode, ...args) : Load.start(mode, ...args)
  try {
    await load.line()
    const isNative = (overTls ? Native.loadTls : Native.load) !== undefined
    const result = !isNative ? await observe(server, load) : await load.result()
    const { busy: clientBusy = NaN, count, idle = NaN, seconds, serverBusy = NaN } = result
    const peak = server.peak()
    // The end of its connections is work as well, which no other server is to wait for.
    await server.hasConnections(0)
    const rate = count / (task.unit ?? 1) / seconds
    return [rate, serverBusy / rate * 1_000_000, serverBusy * 100, idle * 100, peak / 1_000_000, clientBusy * 100]
  } catch (cause) {
    throw new Error(`${server.name}: ${task.title}`, { cause })
  } finally {
    load.kill()
  }
}

/** Asks the server itself for its CPU time. It answers a little late, and at both times with what is true then. */
const observe = async (server: Server, load: Load): Promise<Result> => {
  const before = await server.ask("now")
  const result = await load.result()
  const after = await server.ask("now")
  return { ...result, serverBusy: (after.cpu - before.cpu) / (after.at - before.at) }
}

/** All tasks on one set of servers, which are started with `args`. */
const compare = (
  effort: Effort,
  args: ReadonlyArray<string | number>,
  tasks: ReadonlyArray<Task>,
  names: ReadonlyArray<Program> = contestants
): Promise<ReadonlyArray<Group>> => compareAll(effort, names, (name) => start(name, ...args), tasks)

export const compareAll = <Name extends string>(
  effort: Effort,
  contestants: ReadonlyArray<Name>,
  startOne: (name: Name) => Promise<Server>,
  tasks: ReadonlyArray<Task>
): Promise<ReadonlyArray<Group>> =>
  withServers(contestants, startOne, async (serverOf) => {
    const groups: Array<Group> = []
    for (const task of tasks) {
      // There is more code below TLS, and until it is compiled it takes twice the time.
      if (task.overTls === true) {
        for (const name of contestants) await measure(serverOf(name), task, { ...effort, seconds: 1 })
      }
      const rounds = await alternate(
        contestants,
        task.title === titles.echo ? effort.rounds : task.overTls === true ? effort.roundsOfTls : effort.roundsOfOthers,
        (name) => measure(serverOf(name), task, effort),
        task.overTls === true ? 0 : 1
      )
      const group: Group = {
        title: task.title,
        figures: [
          { name: task.name, digits: 0, compared: true },
          { name: "CPU us", digits: task.digits, compared: true },
          { name: "busy %", digits: 0 },
          { name: "spare %", digits: 0 },
          { name: "peak MB", digits: 0 },
          { name: "client busy %", digits: 0, hidden: true }
        ],
        ours,
        rounds
      }
      const share = (name: string, figure: string) => summarize(valuesOf(group, name, figure)).median / 100
      // One that writes plain bytes without being asked waits for nothing but room, which the client makes at once.
      const unsaturated = contestants.filter((name) =>
        !isSaturated(
          share(name, "busy %"),
          task.mode === "bulk" && task.overTls !== true ? NaN : share(name, "spare %")
        )
      )
      // The client never sleeps, so what its core did besides was somebody else's.
      const isDisturbed = contestants.some((name) => share(name, "client busy %") < 0.9)
      groups.push({ ...group, unsaturated, isDisturbed })
    }
    return groups
  })

const sizes = [[64, "64 bytes"], [4096, "4 KiB"], [65_536, "64 KiB"]] as const

const echoing = async (
  effort: Effort,
  isWanted: (title: string) => boolean,
  names?: ReadonlyArray<Program>
): Promise<ReadonlyArray<Group>> => {
  const groups: Array<Group> = []
  for (const [size, text] of sizes) {
    const tasks = [1, 64, 1000].map((connections): Task => ({
      title: echoTitle(connections, text),
      mode: "echo",
      connections,
      size,
      name: "messages/s",
      digits: 2
    })).filter(({ title }) => isWanted(title))
    // Those that own a buffer have room for a message in it.
    if (tasks.length > 0) groups.push(...await compare(effort, ["echo", Math.max(size, 1024)], tasks, names))
  }
  return groups
}

/** The load that the targets are about. */
export const target = (effort: Effort): Promise<ReadonlyArray<Group>> =>
  echoing(effort, (title) => title === titles.echo, withFloors)

export const echo = (effort: Effort): Promise<ReadonlyArray<Group>> => echoing(effort, (title) => title !== titles.echo)

export const bulk = (effort: Effort): Promise<ReadonlyArray<Group>> => {
  const task = { mode: "bulk", unit: 1_000_000, name: "MB/s", digits: 0 } as const
  return compare(effort, ["bulk"], [
    { ...task, title: titles.bulk, connections: 1 },
    { ...task, title: titles.bulkMany, connections: 16 }
  ])
}

export const gather = (effort: Effort): Promise<ReadonlyArray<Group>> => {
  const task = { mode: "bulk", unit: 2048, name: "writes/s", digits: 2 } as const
  return compare(effort, ["gather"], [
    { ...task, title: titles.gather, connections: 1 },
    { ...task, title: titles.gatherMany, connections: 16 }
  ])
}

export const accept = async (effort: Effort): Promise<ReadonlyArray<Group>> =>
  Native.load === undefined
    ? []
    : compare(effort, ["echo"], [{
      title: titles.accept,
      mode: "accept",
      connections: 16,
      name: "connections/s",
      digits: 1
    }])
