/** One child of the pool: starting, idle, or busy with a task; and when it is ended because of what it does. */
import { ChildProcess, type Ending } from "./deno_process.ts";
import { OUT_OF_MEMORY } from "./deno_tasks.ts";

export type TaskFailure = "timeout" | "crashed" | "memory" | "aborted" | "failed";

/** A task that was not done. `failed`: the child says so, and why; after all others but `aborted` it has been replaced. */
export class TaskFailed extends Error {
  override readonly name = "TaskFailed";
  constructor(readonly code: TaskFailure, message: string) {
    super(message);
  }
}

/** A child that has not said so after this long cannot start. */
const START_MS = 20_000;

/** A task between being asked for and answered. */
export interface Job {
  /** What the child must give back with whatever it says of the task. */
  readonly id: number;
  /** As it is told: `{id, task}` as one message. */
  readonly bytes: Uint8Array;
  readonly owner: string;
  readonly deadlineMs: number;
  note(note: unknown): void;
  /** Once; later ones change nothing. */
  done(answer: unknown): void;
  fail(code: TaskFailure, message: string): void;
}

export interface ChildOptions {
  readonly args: readonly string[];
  readonly memoryBytes: number;
  readonly env?: Readonly<Record<string, string>>;
  readonly idleMs?: number;
  report(error: unknown, where: string): void;
}

export interface ChildEvents {
  idle(): void;
  mayEnd(): boolean;
  gone(ending: Ending): void;
}

/** One child: starting, idle or busy with a job, and dead as soon as it is killed. */
export class Child {
  state: "starting" | "idle" | "busy" | "dead" = "starting";
  job: Job | null = null;
  readonly gone: Promise<void>;
  readonly #process: ChildProcess;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(private readonly options: ChildOptions, private readonly events: ChildEvents) {
    const args = [...options.args, String(options.memoryBytes)];
    this.#process = new ChildProcess(args, options.env ?? {}, (message) => this.#hear(message));
    this.#timer = setTimeout(() => this.#process.kill(), START_MS);
    this.gone = this.#process.gone.then((ending) => this.#end(ending));
  }

  get pid(): number {
    return this.#process.pid;
  }

  take(job: Job): void {
    clearTimeout(this.#timer);
    this.state = "busy";
    this.job = job;
    this.#timer = setTimeout(() => {
      job.fail("timeout", `it took longer than ${job.deadlineMs} ms`);
      this.kill();
    }, job.deadlineMs);
    this.#process.tell(job.bytes);
  }

  kill(): void {
    this.job = null;
    if (this.state !== "starting") this.state = "dead";
    clearTimeout(this.#timer);
    this.#process.kill();
  }

  /** What it throws is the end of the child. */
  #hear(message: unknown): void {
    if (this.state === "dead") return;
    const said = (typeof message === "object" ? message : null) as Record<string, unknown> | null;
    if (this.state === "starting" && said?.ready === true) return this.#rest();
    const { job } = this;
    if (!said || !job || said.id !== job.id) throw new TypeError("it was not asked");
    if (Object.hasOwn(said, "note")) return this.#note(job, said.note);
    const answered = Object.hasOwn(said, "answer");
    if (!answered && typeof said.failed !== "string") throw new TypeError("it is neither a note nor an answer");
    this.job = null;
    clearTimeout(this.#timer);
    if (answered) job.done(said.answer);
    else job.fail("failed", String(said.failed));
    // Who has grown would be ended for the next task's little.
    if (Number(said.resident) > this.options.memoryBytes / 2) this.kill();
    else this.#rest();
  }

  #note(job: Job, note: unknown): void {
    try {
      job.note(note);
    } catch (error) {
      this.options.report(error, "hearing a child's note");
    }
  }

  #rest(): void {
    clearTimeout(this.#timer);
    this.state = "idle";
    this.events.idle();
    if (this.job === null) this.#waitIdle();
  }

  #waitIdle(): void {
    this.#timer = setTimeout(() => {
      if (this.events.mayEnd()) this.kill();
      else this.#waitIdle();
    }, this.options.idleMs ?? 60_000);
  }

  #end(ending: Ending): void {
    clearTimeout(this.#timer);
    const { job } = this;
    const crashed = this.state === "busy" || this.state === "idle";
    const memory = ending.code === OUT_OF_MEMORY || /\bout of memory\b/i.test(ending.errors);
    if (job) job.fail(memory ? "memory" : "crashed", memory ? "it took too much memory" : `its process ${ending.how}`);
    if (this.state !== "starting") this.state = "dead";
    this.job = null;
    if (crashed && !memory) this.options.report(new Error(`A child process ${ending.how}\n${ending.errors}`), "the pool of child processes");
    this.events.gone(ending);
  }
}
