/** What servers and clients of the bench have in common: how they say that they are ready, answer what they are asked, and end. */
import { linesOf } from "./machine.ts";

/** The secret that tokens of the bench are signed with. */
export const SECRET = new TextEncoder().encode("a secret of the bench, at least 32 bytes");

/** A server's first line. `raised`: limits that are not the defaults. */
export interface Ready {
  readonly port: number;
  readonly raised: string[];
}

/** Bytes, after a full collection. */
export interface Memory {
  readonly rss: number;
  readonly heapUsed: number;
}

/** What a process can be asked on stdin, by name: a line `name` or `name {…}`, answered by one line. */
// deno-lint-ignore no-explicit-any
export type Answers = Readonly<Record<string, (argument: any) => unknown>>;

/** Says that the process is ready, answers what it is asked on stdin, and ends with stdin: nothing outlives its bench. */
export async function stand(ready: unknown, answers: Answers): Promise<never> {
  console.log(JSON.stringify(ready));
  for await (const line of linesOf(Deno.stdin.readable)) {
    const [, name, argument] = /^(\w+) ?(.*)$/.exec(line)!;
    console.log(JSON.stringify(await answers[name](JSON.parse(argument || "null")) ?? null));
  }
  Deno.exit(0);
}

/** Ends a process of the bench that cannot go on: whoever waits for its answer is told where to read why. */
export function fail(error: unknown): never {
  console.error(error);
  Deno.exit(1);
}

export async function memory(): Promise<Memory> {
  const { gc } = globalThis as { gc?: () => void };
  if (!gc) throw new Error("Start the server with --v8-flags=--expose-gc");
  // Several times: what finalizers let go of is collected by the next one.
  for (let round = 0; round < 3; round++) {
    gc();
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const { rss, heapUsed } = Deno.memoryUsage();
  return { rss, heapUsed };
}
