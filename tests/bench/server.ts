/** Scripts of the bench as child processes, each on its core; servers are such. */
import { linesOf, pinned } from "./machine.ts";
import type { Memory, Ready } from "./serving.ts";

/** It says one line when it is ready, and answers each line that it is asked with one. */
export class Child {
  readonly #child: Deno.ChildProcess;
  readonly #lines: AsyncGenerator<string>;
  readonly #stdin: WritableStreamDefaultWriter<Uint8Array>;

  constructor(readonly core: number, private readonly script: string, args: readonly string[], private readonly errors: string, flags: readonly string[] = []) {
    this.#child = pinned(core, script, args, errors, flags);
    this.#lines = linesOf(this.#child.stdout);
    this.#stdin = this.#child.stdin.getWriter();
  }

  get pid(): number {
    return this.#child.pid;
  }

  async next(): Promise<unknown> {
    const { value, done } = await this.#lines.next();
    if (done) throw new Error(`${this.script} ended: ${Deno.readTextFileSync(this.errors).slice(-1000)}`);
    return JSON.parse(value);
  }

  async ask(what: string, argument?: unknown): Promise<unknown> {
    await this.#stdin.write(new TextEncoder().encode(`${what}${argument === undefined ? "" : ` ${JSON.stringify(argument)}`}\n`));
    return await this.next();
  }

  /** The end of its stdin is its end. */
  async end(): Promise<void> {
    await this.#stdin.close().catch(() => {});
    const timer = setTimeout(() => this.#child.kill("SIGKILL"), 5000);
    await this.#child.status;
    clearTimeout(timer);
    await this.#lines.return(undefined);
  }
}

/** What `deno task start` tells V8. */
const V8_FLAGS = /--v8-flags=(\S+)/.exec(JSON.parse(Deno.readTextFileSync(new URL("../../deno.json", import.meta.url))).tasks.start)![1];

export class Server {
  private constructor(
    private readonly child: Child,
    /** Its database is in here. */
    readonly folder: string,
    readonly ready: Ready,
  ) {}

  /** `folder`: what another server has left, to go on with. `args`: what the script is told besides. */
  static async start(
    script: string,
    core: number,
    parent: string,
    folder = Deno.makeTempDirSync({ dir: parent }),
    args: readonly string[] = [],
  ): Promise<Server> {
    const child = new Child(core, script, [folder, ...args], `${parent}/errors`, [`--v8-flags=--expose-gc,${V8_FLAGS}`]);
    return new Server(child, folder, await child.next() as Ready);
  }

  get pid(): number {
    return this.child.pid;
  }
  get core(): number {
    return this.child.core;
  }

  memory(): Promise<Memory> {
    return this.child.ask("memory") as Promise<Memory>;
  }
  /** What it has counted so far, by the names of `rooms/metrics.ts`. */
  counts(): Promise<Record<string, number>> {
    return this.child.ask("counts") as Promise<Record<string, number>>;
  }
  /** Closes all its sockets within a second, as before a restart. */
  async drain(): Promise<void> {
    await this.child.ask("drain");
  }
  end(): Promise<void> {
    return this.child.end();
  }
}
