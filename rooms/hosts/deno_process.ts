/** One child process as the pool sees it: what it says, what it is told, and how it ended. */
import { setPriority } from "node:os";
import { Frames, unframe } from "../documents/framing.ts";

/** How much of what a child last wrote to stderr is kept, in UTF-16 units. */
const ERRORS_KEPT = 4000;
/** Politeness towards the server, which must answer while its children are busy. */
const NICENESS = 10;
/** Where Deno finds its cache of packages. The child's program cannot read them, nor anything else of the environment. */
const CACHE = ["DENO_DIR", "HOME", "XDG_CACHE_HOME"];

export interface Ending {
  /** Says in a sentence what became of it. */
  readonly how: string;
  readonly code: number;
  /** The end of its stderr. */
  readonly errors: string;
}

export class ChildProcess {
  /** Resolves when the process is gone and its pipes are closed. Never rejects. */
  readonly gone: Promise<Ending>;
  readonly #process: Deno.ChildProcess;
  readonly #stdin: WritableStreamDefaultWriter<Uint8Array>;
  #errors = "";
  #garbage: unknown;

  /** `hear` is given what the child says; what it throws is the child's fault and its end. Throws what `Deno.Command` throws. */
  constructor(args: readonly string[], env: Readonly<Record<string, string>>, private readonly hear: (message: unknown) => void) {
    this.#process = new Deno.Command(Deno.execPath(), {
      args: ["run", ...args],
      clearEnv: true,
      env: { ...cacheOf(), NO_COLOR: "1", ...env },
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#stdin = this.#process.stdin.getWriter();
    this.#stdin.closed.catch(() => {});
    try {
      // Its first thread is its only one yet; those to come inherit this.
      setPriority(this.#process.pid, NICENESS);
    } catch {
      // It is gone already, or this system has no such thing.
    }
    this.gone = this.#live();
  }

  get pid(): number {
    return this.#process.pid;
  }

  tell(bytes: Uint8Array): void {
    // That it is gone is heard elsewhere.
    this.#stdin.write(bytes).catch(() => {});
  }

  /** For good, and at once: whatever it is at. */
  kill(): void {
    try {
      this.#process.kill("SIGKILL");
    } catch {
      // It was faster.
    }
  }

  async #live(): Promise<Ending> {
    await Promise.all([this.#read(), this.#readErrors()]);
    const { code, signal } = await this.#process.status;
    await this.#stdin.abort().catch(() => {});
    const how = this.#garbage ? `said what is no answer (${this.#garbage})` : signal ? `ended by ${signal}` : `ended with ${code}`;
    return { how, code, errors: this.#errors };
  }

  async #read(): Promise<void> {
    const frames = new Frames();
    try {
      for await (const chunk of this.#process.stdout) {
        for (const body of frames.push(chunk)) this.hear(unframe(body));
      }
    } catch (error) {
      this.#garbage = error;
    }
    // Who does not speak any more is of no use.
    this.kill();
  }

  async #readErrors(): Promise<void> {
    const decoder = new TextDecoder();
    try {
      for await (const chunk of this.#process.stderr) {
        const tail = chunk.length > ERRORS_KEPT ? chunk.subarray(-ERRORS_KEPT) : chunk;
        this.#errors = (this.#errors + decoder.decode(tail, { stream: true })).slice(-ERRORS_KEPT);
      }
    } catch {
      // What was kept is enough.
    }
  }
}

function cacheOf(): Record<string, string> {
  return Object.fromEntries(CACHE.flatMap((name) => Deno.env.has(name) ? [[name, Deno.env.get(name)!]] : []));
}
