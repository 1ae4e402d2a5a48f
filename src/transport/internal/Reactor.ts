import { EPOLLERR, EPOLLHUP, type Linux, mostEvents } from "./linux.ts"

/** What a registered descriptor hears: the flags of `epoll_wait`. */
export interface Registered {
  readonly fd: number
  readonly onEvents: (flags: number) => void
}

/**
 * One epoll descriptor for every socket of the process, watched by Node's own
 * event loop.
 *
 * The loop's callback only asks for a turn (`setImmediate`), so that ticks,
 * microtasks and async context are right when fibers run. A turn takes what one
 * `epoll_wait` has, so that timers and signals come in between; more waits for
 * the next one. The process is kept alive exactly while somebody is owed an
 * event.
 */
export class Reactor {
  readonly linux: Linux
  private readonly epfd: number
  private readonly onEnd: () => void
  private readonly watching: ReturnType<Linux["watch"]>
  private readonly registered: Array<Registered | undefined> = []
  private readonly generations: Array<number> = []
  /** Whoever needs it: the layers that gave it out, and the sockets that are registered. */
  private users = 0
  private owed = 0
  private isRef = false
  private isDispatching = false
  private isScheduled = false

  constructor(linux: Linux, onEnd: () => void) {
    this.linux = linux
    this.onEnd = onEnd
    this.epfd = linux.epollCreate()
    if (this.epfd < 0) throw new Error(`epoll_create1: ${linux.errnoCode(linux.errno())}`)
    this.watching = linux.watch(this.epfd, () => this.schedule())
    this.watching.unref()
  }

  /** 0, or an errno. */
  register(entry: Registered): number {
    const { fd } = entry
    const generation = ((this.generations[fd] ?? 0) + 1) >>> 0
    this.generations[fd] = generation
    if (this.linux.epollAdd(this.epfd, fd, generation) < 0) return this.linux.errno()
    this.registered[fd] = entry
    this.users++
    return 0
  }

  use(): void {
    this.users++
  }

  /** With its last user it ends. */
  release(): void {
    if (--this.users > 0) return
    this.watching.stop()
    this.linux.close(this.epfd)
    this.onEnd()
  }

  /** Somebody else hears from a registered descriptor from now on. */
  hand(entry: Registered): void {
    this.registered[entry.fd] = entry
  }

  /** Before the descriptor is closed, which takes it out of epoll. */
  unregister({ fd }: Registered): void {
    if (this.registered[fd] === undefined) return
    this.registered[fd] = undefined
    this.release()
  }

  /** Somebody waits for an event from now on. */
  owe(): void {
    this.owed++
    if (!this.isDispatching && !this.isRef) this.setRef(true)
  }

  /** Nobody waits for that one any more. */
  settle(): void {
    this.owed--
    if (!this.isDispatching && this.isRef && this.owed === 0) this.setRef(false)
  }

  private setRef(isRef: boolean): void {
    this.isRef = isRef
    if (isRef) this.watching.ref()
    else this.watching.unref()
  }

  private schedule(): void {
    if (this.isScheduled) return
    this.isScheduled = true
    setImmediate(this.dispatch)
  }

  private readonly dispatch = (): void => {
    const { linux } = this
    this.isScheduled = false
    if (this.users === 0) return
    this.isDispatching = true
    const count = linux.epollWait(this.epfd)
    // A fiber that runs now may close the last socket of all.
    this.use()
    for (let i = 0; i < count; i++) {
      const fd = linux.eventFd(i)
      const entry = this.registered[fd]
      // The number may belong to another socket by now.
      if (entry !== undefined && linux.eventGeneration(i) === this.generations[fd]) entry.onEvents(linux.eventFlags(i))
    }
    this.isDispatching = false
    this.release()
    if (this.users === 0) return
    if (this.isRef !== this.owed > 0) this.setRef(this.owed > 0)
    if (count === mostEvents) this.schedule()
  }
}

/** Flags after which an attempt of either direction may have another answer. */
export const broken = EPOLLERR | EPOLLHUP
