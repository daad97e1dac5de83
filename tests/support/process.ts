/** A server process, started as a user starts it. */
import { sign } from "../../rooms/token.ts";
import type { User } from "../../rooms/host.ts";
import { someone } from "./stage.ts";

export const SECRET = "a secret of the tests, at least 32 bytes";

/** What `deno task start` runs, without the task runner in front. */
export const START: readonly string[] = JSON.parse(Deno.readTextFileSync(new URL("../../deno.json", import.meta.url))).tasks.start.split(" ").slice(1);

/** `deno task start` itself. */
export const TASK: readonly string[] = ["task", "--quiet", "start"];

export interface Running {
  readonly pid: number;
  readonly port: number;
  readonly url: string;
  readonly ws: string;
  readonly dataDir: string;
  /** Everything that it has written so far. */
  output(): string;
  token(user?: User, ttlSeconds?: number): Promise<string>;
  /** Sends the signal and waits for the end; resolves to the exit code. */
  stop(signal?: Deno.Signal): Promise<number>;
  [Symbol.asyncDispose](): Promise<void>;
}

/** Runs what `deno task start` runs (or something else) on a free port and waits until it says that it is ready. */
export async function startServer(env: Record<string, string> = {}, script = START, program = Deno.execPath()): Promise<Running> {
  const dataDir = env.DATA_DIR ?? Deno.makeTempDirSync({ prefix: "caseroom-test-" });
  const child = new Deno.Command(program, {
    args: [...script],
    cwd: new URL("../..", import.meta.url),
    env: { PORT: "0", DATA_DIR: dataDir, AUTH_SECRET: SECRET, NO_COLOR: "1", ...env },
    stdout: "piped",
    stderr: "piped",
    stdin: "null",
  }).spawn();
  let output = "";
  const read = async (stream: ReadableStream<Uint8Array>) => {
    for await (const text of stream.pipeThrough(new TextDecoderStream())) output += text;
  };
  const reading = Promise.all([read(child.stdout), read(child.stderr)]);
  let code: number | null = null;
  const ended = child.status.then((status) => code = status.code);
  const deadline = Date.now() + 30_000;
  let port = 0;
  while (port === 0) {
    port = Number(/ready on \S+?:(\d+)\//.exec(output)?.[1] ?? 0);
    if (code !== null || Date.now() > deadline) {
      await reading;
      throw new Error(`The server did not start (${code}): ${output}`);
    }
    if (port === 0) await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const secret = new TextEncoder().encode(env.AUTH_SECRET ?? SECRET);
  const running: Running = {
    pid: child.pid,
    port,
    url: `http://127.0.0.1:${port}`,
    ws: `ws://127.0.0.1:${port}/socket`,
    dataDir,
    output: () => output,
    token: (user = someone("user_1"), ttlSeconds = 600) => sign(secret, user, ttlSeconds, Date.now()),
    async stop(signal = "SIGTERM") {
      // `deno task` hands SIGTERM on to the server, but cannot hand on a SIGKILL.
      if (code === null && signal === "SIGKILL") { for (const pid of descendants(child.pid)) killed(pid); }
      else if (code === null) child.kill(signal);
      await ended;
      await reading;
      return code!;
    },
    async [Symbol.asyncDispose]() {
      await running.stop("SIGKILL").catch(() => {});
      if (!env.DATA_DIR) Deno.removeSync(dataDir, { recursive: true });
    },
  };
  return running;
}

/** The processes that a process started, and theirs, youngest first, itself last. */
function descendants(pid: number): number[] {
  let children = "";
  try {
    children = Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`);
  } catch {
    // It is gone.
  }
  return [...children.split(" ").filter(Boolean).flatMap((child) => descendants(Number(child))), pid];
}

function killed(pid: number): void {
  try {
    Deno.kill(pid, "SIGKILL");
  } catch {
    // It ended by itself.
  }
}

/** Whether something of Debian's is there. A test that needs what is not is skipped by name; `.ci/run` installs all and allows no skip. */
export function installed(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}
