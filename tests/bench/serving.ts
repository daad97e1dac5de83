/** What both servers of the bench have in common: how they say that they are ready, tell their memory, and end. */
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

/** Says that the server is ready, answers each `memory` on stdin, and ends with stdin: no server outlives its bench. */
export async function stand(ready: Ready): Promise<never> {
  console.log(JSON.stringify(ready));
  for await (const line of linesOf(Deno.stdin.readable)) if (line === "memory") console.log(JSON.stringify(await memory()));
  Deno.exit(0);
}

async function memory(): Promise<Memory> {
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
