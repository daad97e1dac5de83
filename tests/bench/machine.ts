/** The machine as the bench needs it: two cores, processes pinned to them, and how much CPU a process has used. */

/** Clock ticks per second in /proc: 100 on every Linux of today (`getconf CLK_TCK`). */
const TICKS = 100;

/** CPU seconds that a process has used, all threads, user and system. */
export function cpuSeconds(pid: number): number {
  const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
  // The second field is a name in parentheses that may hold spaces; utime and stime are fields 14 and 15.
  const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}

/** Seconds for which a core was busy since the machine started, whoever it worked for. */
export function busySeconds(core: number): number {
  const [user, nice, system, , , irq, softirq, steal] = new RegExp(`^cpu${core} +(.*)$`, "m").exec(Deno.readTextFileSync("/proc/stat"))![1].split(" ").map(
    Number,
  );
  return (user + nice + system + irq + softirq + steal) / TICKS;
}

/** What a stretch of time has cost, in seconds; CPU where nothing else is said. */
export interface Spent {
  /** By the clock. */
  readonly seconds: number;
  readonly server: number;
  /** This process, that asks. */
  readonly generator: number;
  /** What else ran on the server's core. */
  readonly others: number;
}

/** Up to now; what counts is the difference of two. */
export function spent({ pid, core }: { readonly pid: number; readonly core: number }): Spent {
  const server = cpuSeconds(pid);
  return { seconds: performance.now() / 1000, server, generator: cpuSeconds(Deno.pid), others: busySeconds(core) - server };
}

/** How often, since the machine started, somebody who dialled found a server's queue full, and had to try again a second later. */
export function overflows(): number {
  const [names, values] = Deno.readTextFileSync("/proc/net/netstat").split("\n").filter((line) => line.startsWith("TcpExt:")).map((line) => line.split(" "));
  return Number(values[names.indexOf("ListenOverflows")]);
}

/** Number by number. */
export function since<T extends { readonly [K in keyof T]: number }>(before: T, after: T): T {
  return Object.fromEntries(Object.entries<number>(after).map(([key, value]) => [key, value - before[key as keyof T]])) as T;
}

export function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

/** The first two cores that this process may use: one for the server, one for the generator. */
export function twoCores(): [server: number, generator: number] {
  const list = /Cpus_allowed_list:\s*(\S+)/.exec(Deno.readTextFileSync("/proc/self/status"))![1];
  const cores = list.split(",").flatMap((part) => {
    const [first, last = first] = part.split("-").map(Number);
    return Array.from({ length: last - first + 1 }, (_, index) => first + index);
  });
  if (cores.length < 2) throw new Error(`The bench needs two cores, one for the server and one for the generator; here is ${list}`);
  return [cores[0], cores[1]];
}

/** Runs a script of this folder on one core; its stderr goes to the end of a file. The child's pid is the script's own. */
export function pinned(core: number, script: string, args: readonly string[], errors: string, flags: readonly string[] = []): Deno.ChildProcess {
  const path = new URL(script, import.meta.url).pathname;
  return new Deno.Command("sh", {
    args: ["-c", 'errors=$1; shift; exec taskset -c "$@" 2>>"$errors"', "sh", errors, String(core), Deno.execPath(), "run", "-A", ...flags, path, ...args],
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
}

/** Lines of a stream. */
export async function* linesOf(stream: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = "";
  for await (const text of stream.pipeThrough(new TextDecoderStream())) {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    yield* lines;
  }
}

export function machineLine(): string {
  const cpu = /model name\s*:\s*(.*)/.exec(Deno.readTextFileSync("/proc/cpuinfo"))?.[1] ?? "unknown CPU";
  const memory = Math.round(Deno.systemMemoryInfo().total / 2 ** 30);
  return `${navigator.hardwareConcurrency} cores (${cpu}), ${memory} GB, Linux ${Deno.osRelease()}, Deno ${Deno.version.deno}, V8 ${Deno.version.v8}`;
}
