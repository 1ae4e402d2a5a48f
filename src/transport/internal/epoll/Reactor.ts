import { EPOLLERR, EPOLLHUP, type Linux } from "./linux.ts"

/** What a registered descriptor hears: the flags of `epoll_wait`, or 0 after it asked for another turn. */
export interface Registered {
  /** -1 once it is closed. */
  readonly fd: number
  readonly onEvents: (flags: number) => void
}

/**
 * One epoll descriptor for every socket of the process, watched by Node's own
 * event loop. It exists while it has users: the layers that gave it out, and
 * the sockets that are registered.
 *
 * The loop's callback only asks for a turn (`setImmediate`), so that ticks,
 * microtasks and async context are right when fibers run. A turn takes what one
 * `epoll_wait` has, so that timers and signals come in between; more waits for
 * the next one. The process is kept alive exactly while somebody is owed an
 * event.
 */
export class Reactor {
  readonly linux: Linux
  private epfd = -1
  private watcher: ReturnType<Linux["watch"]> | undefined = undefined
  private readonly registered: Array<Registered | undefined> = []
  private readonly generations: Array<number> = []
  /** Those that have asked for another turn. */
  private readonly yielded: Array<Registered> = []
  private users = 0
  private pendingWaits = 0
  private isRef = false
  private isDispatching = false
  private isScheduled = false
  // Events of the turn, and how many of them have been told.
  private count = 0
  private delivered = 0

  constructor(linux: Linux) {
    this.linux = linux
  }

  /** 0, or the negative number of an error. */
  use(): number {
    if (this.users === 0 && this.watcher === undefined) {
      const epfd = this.linux.epollCreate()
      if (epfd < 0) return epfd
      try {
        this.watcher = this.linux.watch(epfd, this.schedule)
      } catch (cause) {
        this.linux.close(epfd)
        throw cause
      }
      this.watcher.unref()
      this.epfd = epfd
    }
    this.users++
    return 0
  }

  release(): void {
    this.users--
    if (!this.isDispatching) this.updateWatcher()
  }

  /** 0, or the negative number of an error. */
  register(entry: Registered): number {
    const { fd } = entry
    const used = this.use()
    if (used < 0) return used
    const generation = ((this.generations[fd] ?? 0) + 1) >>> 0
    const added = this.linux.epollAdd(this.epfd, fd, generation)
    if (added < 0) {
      this.release()
      return added
    }
    this.generations[fd] = generation
    this.registered[fd] = entry
    return 0
  }

  /** Somebody else hears from a registered descriptor from now on. */
  replace(entry: Registered): void {
    this.registered[entry.fd] = entry
  }

  /** Whether a descriptor is registered already. */
  has(fd: number): boolean {
    return this.registered[fd] !== undefined
  }

  /** Before the descriptor is closed, which takes it out of epoll. */
  unregister(entry: Registered): void {
    if (this.registered[entry.fd] !== entry) return
    this.registered[entry.fd] = undefined
    this.release()
  }

  /** For a descriptor that lives on, here or in another process: closing it would not take it out of epoll. */
  remove(entry: Registered): void {
    if (this.registered[entry.fd] !== entry) return
    this.linux.epollDelete(this.epfd, entry.fd)
    this.unregister(entry)
  }

  /** It has had enough for this turn, and hears from the next one. Asks once per turn. */
  reschedule(entry: Registered): void {
    this.yielded.push(entry)
    this.schedule()
  }

  /** Somebody waits for an event from now on. */
  ref(): void {
    this.pendingWaits++
    if (!this.isDispatching) this.updateWatcher()
  }

  /** Nobody waits for that one any more. */
  unref(): void {
    this.pendingWaits--
    if (!this.isDispatching) this.updateWatcher()
  }

  /** Brings the event loop's view of things up to date, once for all that a turn has changed. */
  private updateWatcher(): void {
    if (this.watcher === undefined) return
    if (this.users === 0) {
      this.watcher.stop()
      this.watcher = undefined
      this.linux.close(this.epfd)
      this.epfd = -1
      this.isRef = false
    } else if (this.isRef !== this.pendingWaits > 0) {
      this.isRef = !this.isRef
      if (this.isRef) this.watcher.ref()
      else this.watcher.unref()
    }
  }

  private readonly schedule = (): void => {
    if (this.isScheduled) return
    this.isScheduled = true
    setImmediate(this.dispatch)
  }

  private readonly dispatch = (): void => {
    this.isScheduled = false
    if (this.users === 0) return
    this.isDispatching = true
    try {
      // Those that ask from here on have had their turn.
      let rescheduled = Math.min(this.yielded.length, maxRescheduledPerTurn)
      if (this.delivered === this.count) {
        this.delivered = 0
        this.count = Math.max(0, this.linux.epollWait(this.epfd))
      }
      while (this.delivered < this.count) this.deliver(this.delivered++)
      for (; rescheduled > 0; rescheduled--) {
        const entry = this.yielded.shift()
        if (entry !== undefined && this.registered[entry.fd] === entry) entry.onEvents(0)
      }
    } finally {
      // A fiber's observer may have thrown, which is for the process to judge. The others hear theirs in another turn.
      this.isDispatching = false
      if (this.delivered < this.count || this.yielded.length > 0) this.schedule()
      this.updateWatcher()
    }
  }

  private deliver(index: number): void {
    const fd = this.linux.eventFd(index)
    const entry = this.registered[fd]
    // The number may belong to another socket by now.
    if (entry === undefined || this.linux.eventGeneration(index) !== this.generations[fd]) return
    entry.onEvents(this.linux.eventFlags(index))
  }
}

/** Those that have another turn in the same turn of the event loop. Each may do work of a millisecond, or more. */
const maxRescheduledPerTurn = 16

/** Flags after which an attempt of either direction may have another answer. */
export const broken = EPOLLERR | EPOLLHUP
