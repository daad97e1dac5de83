/**
 * The child's side of the pool. Two threads run the same program: the first one only reads stdin, writes stdout and looks
 * at the memory, so it sees at once that the server is gone or that memory runs out, whatever loop the second one is in,
 * where the tasks are done. (The server itself may not look: /proc is closed to whoever has not every permission.)
 */
import { frame, Frames, unframe } from "../documents/framing.ts";

/** The exit code that says: too much memory. */
export const OUT_OF_MEMORY = 77;
const LOOK_MS = 50;

/** Between the threads: a message for stdout, whole, and whether it is the task's last. */
interface Said {
  readonly bytes: Uint8Array<ArrayBuffer>;
  readonly last: boolean;
}
type Handle = (task: unknown, note: (note: unknown) => void) => unknown | Promise<unknown>;
type Thread = Pick<Worker, "addEventListener"> & { postMessage(message: unknown, transfer: Transferable[]): void };

/**
 * Reads tasks from stdin, one at a time, and answers on stdout what `handle` returns (JSON), or the message of what it
 * throws. `program` is the `import.meta.url` of the caller, which needs read permission for itself and what it imports, since it is
 * run once more in a thread; nothing else. What only `handle` needs is best imported inside it: the first thread never calls it.
 * Never resolves: the process ends when stdin does.
 */
export function serveTasks(program: string, handle: Handle): Promise<never> {
  return "DedicatedWorkerGlobalScope" in globalThis ? work(globalThis as unknown as Thread, handle) : relay(program);
}

async function relay(program: string): Promise<never> {
  const most = Number(Deno.args.at(-1));
  const worker = new Worker(program, { type: "module" });
  let looking: ReturnType<typeof setInterval> | undefined;
  let written = Promise.resolve();
  worker.addEventListener("message", ({ data }: MessageEvent<Said>) => {
    if (data.last) clearInterval(looking);
    written = written.then(() => writeAll(data.bytes));
  });
  // Nobody is left to do the task. What it was stands on stderr.
  worker.addEventListener("error", () => Deno.exit(1));
  // Who ends a group of processes means the server: what it is at, it wants to end by itself.
  for (const signal of ["SIGINT", "SIGTERM"] as const) Deno.addSignalListener(signal, () => {});
  const frames = new Frames();
  for await (const chunk of Deno.stdin.readable) {
    for (const task of frames.push(chunk)) {
      clearInterval(looking);
      looking = setInterval(() => {
        if (Deno.memoryUsage().rss > most) Deno.exit(OUT_OF_MEMORY);
      }, LOOK_MS);
      worker.postMessage(task, [task.buffer]);
    }
  }
  Deno.exit(0);
}

async function writeAll(bytes: Uint8Array): Promise<void> {
  try {
    for (let at = 0; at < bytes.length;) at += await Deno.stdout.write(bytes.subarray(at));
  } catch {
    // Nobody reads any more.
    Deno.exit(0);
  }
}

function work(thread: Thread, handle: Handle): Promise<never> {
  // Libraries talk. What they say must not stand between the answers.
  for (const name of ["log", "info", "debug", "dir", "dirxml", "table", "group", "groupCollapsed", "count", "timeLog", "timeEnd"] as const) {
    console[name] = console.error;
  }
  // A promise that a library forgot is not what the task waits for; if it is, there is the deadline.
  globalThis.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    console.error(event.reason);
  });
  const say = (message: unknown, last: boolean) => {
    const bytes = frame(message);
    thread.postMessage({ bytes, last }, [bytes.buffer]);
  };
  const answer = async (bytes: Uint8Array) => {
    const { id, task } = unframe(bytes) as { id: number; task: unknown };
    let over = false;
    try {
      const answer = await handle(task, (note) => over || say({ id, note }, false)) ?? null;
      over = true;
      say({ id, answer, resident: Deno.memoryUsage().rss }, true);
    } catch (error) {
      over = true;
      const failed = (error instanceof Error ? error.message : String(error)).slice(0, 1000);
      say({ id, failed, resident: Deno.memoryUsage().rss }, true);
    }
  };
  thread.addEventListener("message", (event) => void answer((event as MessageEvent<Uint8Array>).data));
  say({ ready: true }, true);
  return new Promise<never>(() => {});
}
