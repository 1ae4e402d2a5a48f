import { EPOLLERR, EPOLLHUP, type Linux } from "./linux.ts"

/** A registered descriptor. `onEvents` gets the flags of `epoll_wait`, or 0 after `reschedule`. */
export interface Registered {
  /** -1 after it is closed. */
  readonly fd: number
  readonly onEvents: (flags: number) => void
}

/**
 * One epoll descriptor for all sockets of the process, watched by Node's own
 * event loop. It exists while it has users: the layers that provide it, and the
 * sockets that are registered.
 *
 * The callback of the event loop only schedules a turn (`setImmediate`), so that
 * ticks, microtasks and async context are right when fibers run. One turn handles
 * the events of one `epoll_wait`; further events wait for the next turn, so that
 * timers and signals run in between. The process is kept alive exactly while an
 * operation waits for an event.
 */
export class Reactor {
  readonly linux: Linux
  private epfd = -1
  private watcher: ReturnType<Linux["watch"]> | undefined = undefined
  private readonly registered: Array<Registered | undefined> = []
  private readonly generations: Array<number> = []
  /** Descriptors that have yielded, in the order in which they go on. */
  private readonly yielded: Array<Registered> = []
  private users = 0
  private pendingWaits = 0
  private isRef = false
  private isDispatching = false
  private isScheduled = false
  // The number of events of this turn, and how many of them were delivered.
  private count = 0
  private delivered = 0

  constructor(linux: Linux) {
    this.linux = linux
  }

  /** Returns 0, or the negative errno. */
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

  /** Returns 0, or the negative errno. */
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

  /** Delivers the events of a registered descriptor to `entry` from now on. */
  replace(entry: Registered): void {
    this.registered[entry.fd] = entry
  }

  /** Whether a descriptor is registered already. */
  has(fd: number): boolean {
    return this.registered[fd] !== undefined
  }

  /** Call before closing the descriptor, which removes it from epoll. */
  unregister(entry: Registered): void {
    if (this.registered[entry.fd] !== entry) return
    this.registered[entry.fd] = undefined
    this.release()
  }

  /** For a descriptor that stays open, here or in another process: closing it would not remove it from epoll. */
  remove(entry: Registered): void {
    if (this.registered[entry.fd] !== entry) return
    this.linux.epollDelete(this.epfd, entry.fd)
    this.unregister(entry)
  }

  /** The budget of `entry` is used up: calls `onEvents(0)` in the next turn. Call at most once per turn. */
  reschedule(entry: Registered): void {
    this.yielded.push(entry)
    this.schedule()
  }

  /** An operation waits for an event: keeps the process alive. */
  ref(): void {
    this.pendingWaits++
    if (!this.isDispatching) this.updateWatcher()
  }

  /** That operation waits no more. */
  unref(): void {
    this.pendingWaits--
    if (!this.isDispatching) this.updateWatcher()
  }

  /** Refs, unrefs or stops the watcher, once for all changes of a turn. */
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
      // An entry that yields from here on goes on in the next turn.
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
      // If an observer of a fiber has thrown, the error goes to the process. The other events follow in the next turn.
      this.isDispatching = false
      if (this.delivered < this.count || this.yielded.length > 0) this.schedule()
      this.updateWatcher()
    }
  }

  private deliver(index: number): void {
    const fd = this.linux.eventFd(index)
    const entry = this.registered[fd]
    // A closed descriptor's number may belong to another socket by now.
    if (entry === undefined || this.linux.eventGeneration(index) !== this.generations[fd]) return
    entry.onEvents(this.linux.eventFlags(index))
  }
}

/** How many yielded descriptors go on in one turn. Each may work for a millisecond or more. */
const maxRescheduledPerTurn = 16

/** Flags after which an attempt in either direction may succeed or fail. */
export const broken = EPOLLERR | EPOLLHUP
