/**
 * A pool of child processes for what may take long, take much, or go wrong: each does one task at a time, and is killed and
 * replaced when it hangs, grows, or says what it should not. Lanes keep kinds of tasks apart; within one, owners take turns.
 */
import { frame } from "../documents/framing.ts";
import { Child, type Job, TaskFailed, type TaskFailure } from "./deno_child.ts";
import type { Ending } from "./deno_process.ts";

export { TaskFailed, type TaskFailure } from "./deno_child.ts";

export interface PoolOptions {
  /** The child's permissions and, last, its program, as arguments to `deno run`. It must be able to read what it imports of our files (see serveTasks). */
  readonly args: readonly string[];
  /** Children of each lane: tasks of one lane never wait for those of another. */
  readonly lanes: Readonly<Record<string, number>>;
  /** Resident bytes above which a child is ended. Looked at every 50 ms by the child's own first thread. */
  readonly memoryBytes: number;
  /** What its environment has besides the way to Deno's cache. */
  readonly env?: Readonly<Record<string, string>>;
  /** After so long without a task a child ends; one of each lane stays. */
  readonly idleMs?: number;
  /** How long none is started after three could not. */
  readonly pauseMs?: number;
  report(error: unknown, where: string): void;
}

export interface TaskOptions {
  /** Counted from when a child has the task, not while it waits. */
  readonly deadlineMs: number;
  /** Whose task it is: owners take turns. */
  readonly owner?: string;
  readonly signal?: AbortSignal;
  /** Hears what the child says before it answers (JSON). */
  readonly note?: (note: unknown) => void;
}

/** After so many in a row that could not start, nobody waits any longer. */
const STARTS = 3;

export class Pool {
  readonly #lanes: ReadonlyMap<string, Lane>;

  #count = 0;

  constructor(options: PoolOptions) {
    this.#lanes = new Map(Object.entries(options.lanes).map(([name, width]) => [name, new Lane(name, width, options)]));
  }

  /**
   * Hands a task (JSON) to a child of the lane. First come, first served, but owners take turns, so that one with 1,000
   * tasks does not hold up another. Resolves to what the child answers (JSON, null for undefined), 64 MB at most.
   * Rejects with TaskFailed; with TypeError or RangeError when the lane is unknown, or the task no JSON or too large.
   */
  run(lane: string, task: unknown, { deadlineMs, owner = "", signal, note }: TaskOptions): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const queue = this.#lanes.get(lane);
      if (!queue) throw new TypeError(`Cannot run a task: there is no lane ${lane}`);
      const abort = () => queue.abort(job);
      const over = () => signal?.removeEventListener("abort", abort);
      const id = ++this.#count;
      const job: Job = {
        id,
        bytes: frame({ id, task }),
        owner,
        deadlineMs,
        note: (said) => note?.(said),
        done: (answer) => (over(), resolve(answer)),
        fail: (code, message) => (over(), reject(new TaskFailed(code, message))),
      };
      if (signal?.aborted) return job.fail("aborted", "it was called off");
      signal?.addEventListener("abort", abort);
      queue.add(job);
    });
  }

  /** Children that live, by their process ids. */
  get pids(): number[] {
    return [...this.#lanes.values()].flatMap((lane) => lane.pids);
  }

  /** Kills all children, and rejects what waits or runs with `aborted`. Resolves when they are gone. */
  async close(): Promise<void> {
    await Promise.all([...this.#lanes.values()].map((lane) => lane.close()));
  }
}

class Lane {
  /** By owner, whose turn it is first. */
  readonly #waiting = new Map<string, Set<Job>>();
  readonly #children = new Set<Child>();
  /** How many in a row could not start. */
  #failedStarts = 0;
  #pause: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  constructor(private readonly name: string, private readonly width: number, private readonly options: PoolOptions) {}

  get pids(): number[] {
    return [...this.#children].map(({ pid }) => pid);
  }

  add(job: Job): void {
    if (this.#closed) return job.fail("aborted", "the pool is closed");
    const jobs = this.#waiting.get(job.owner);
    if (jobs) jobs.add(job);
    else this.#waiting.set(job.owner, new Set([job]));
    this.#serve();
  }

  abort(job: Job): void {
    const jobs = this.#waiting.get(job.owner);
    if (jobs?.delete(job) && jobs.size === 0) this.#waiting.delete(job.owner);
    for (const child of this.#children) if (child.job === job) child.kill();
    job.fail("aborted", "it was called off");
  }

  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#pause);
    this.#failAll("aborted", "the pool is closed");
    const gone = [...this.#children].map((child) => {
      child.job?.fail("aborted", "the pool is closed");
      child.kill();
      return child.gone;
    });
    await Promise.all(gone);
  }

  #failAll(code: TaskFailure, message: string): void {
    const waiting = [...this.#waiting.values()].flatMap((jobs) => [...jobs]);
    this.#waiting.clear();
    for (const job of waiting) job.fail(code, message);
  }

  #next(): Job | undefined {
    for (const [owner, jobs] of this.#waiting) {
      const [job] = jobs;
      jobs.delete(job);
      // Whoever has more goes to the end of the line.
      this.#waiting.delete(owner);
      if (jobs.size > 0) this.#waiting.set(owner, jobs);
      return job;
    }
  }

  /** Those who are idle take what waits; for the rest children are started, as far as there may be more. */
  #serve(): void {
    for (const child of this.#children) {
      if (child.state !== "idle") continue;
      const job = this.#next();
      if (!job) return;
      child.take(job);
    }
    if (this.#pause !== undefined || this.#closed) return;
    let wanted = 0;
    for (const jobs of this.#waiting.values()) wanted += jobs.size;
    for (const { state } of this.#children) if (state === "starting") wanted--;
    // While they fail, one at a time.
    const width = this.#failedStarts > 0 ? Math.min(1, this.width) : this.width;
    for (; wanted > 0 && this.#children.size < width && this.#pause === undefined; wanted--) this.#start();
  }

  #start(): void {
    try {
      const child: Child = new Child(this.options, {
        idle: () => {
          this.#failedStarts = 0;
          this.#serve();
        },
        mayEnd: () => [...this.#children].filter(({ state }) => state === "idle").length > 1,
        gone: (ending) => this.#gone(child, ending),
      });
      this.#children.add(child);
    } catch (error) {
      this.#startFailed(error);
    }
  }

  #gone(child: Child, ending: Ending): void {
    this.#children.delete(child);
    if (child.state === "starting" && !this.#closed) this.#startFailed(new Error(`${ending.how}\n${ending.errors}`));
    this.#serve();
  }

  #startFailed(error: unknown): void {
    // One that was started along with those that failed before.
    if (this.#pause !== undefined) return;
    if (++this.#failedStarts < STARTS) return;
    this.options.report(error, `starting a child for ${this.name}`);
    this.#pause = setTimeout(() => {
      this.#pause = undefined;
      this.#failedStarts = 0;
      this.#serve();
    }, this.options.pauseMs ?? 5000);
    this.#failAll("crashed", "no child process can be started");
  }
}
