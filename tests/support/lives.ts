/** A server over several lives: who talks to it, and what it left on disk when it ended in whatever way. */
import { assertEquals } from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import type { SqlRow } from "../../rooms/host.ts";
import { sha256 } from "../../rooms/hosts/deno.ts";
import { cursorOf, verifyLog } from "../../rooms/log.ts";
import type { Answer, Published } from "./outside.ts";
import { installed, type Running, START } from "./process.ts";
import { type Heard, RawClient } from "./raw.ts";
import { someone } from "./stage.ts";

/** What `startServer` runs for `lab_server.ts`. */
export const LAB: readonly string[] = [...START.slice(0, -1), "tests/support/lab_server.ts"];

export const STRACE = "/usr/bin/strace";

/** Whether there is strace and it may trace: a container may forbid it. What needs it is skipped by name otherwise. */
export const traces = installed(STRACE) && new Deno.Command(STRACE, { args: ["-qq", "-o", "/dev/null", "true"], stderr: "null" }).outputSync().success;

/** What `startServer` runs with `STRACE`: the script under it, with these options. The server is then strace's only child. */
export const traced = (options: readonly string[], script: readonly string[]) => ["-f", "--seccomp-bpf", "-qq", ...options, Deno.execPath(), ...script];

/** `document:uploaded` with an id of its own: sent again, it is applied once. */
export const uploaded = (id: string, more: object = {}): Published => ({ event: "document:uploaded", payload: { document: { id, ...more } }, id });

/** Publishes as a back end does. */
export async function publish(server: Running, topic: string, events: readonly Published[], token?: string): Promise<Answer> {
  const headers = { "content-type": "application/json", authorization: `Bearer ${token ?? await server.token(someone("back end", "service", []))}` };
  const response = await fetch(`${server.url}/api/topics/${topic}/events`, { method: "POST", headers, body: JSON.stringify({ events }) });
  return { status: response.status, body: await response.json() };
}

/** A socket that has asked to join the topic, with join_ref "1", and what it was answered. */
export async function enter(server: Running, user: string, topic: string, params: object): Promise<{ client: RawClient; status: string; response: Heard }> {
  const client = await RawClient.open(`${server.ws}/websocket?vsn=2.0.0&token=${await server.token(someone(user))}`);
  client.send(["1", "1", topic, "phx_join", params]);
  const [, , , event, payload] = await client.next();
  assertEquals(event, "phx_reply");
  return { client, ...payload };
}

/** A folder that is gone when its block ends. */
export function tempDir(): { readonly path: string; [Symbol.dispose](): void } {
  const path = Deno.makeTempDirSync({ prefix: "caseroom-disk-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** Copies what SQLite reads after a crash: the database and its write-ahead log. */
export function copyDisk(from: string, to: string): void {
  for (const name of ["caseroom.db", "caseroom.db-wal"]) {
    try {
      Deno.copyFileSync(`${from}/${name}`, `${to}/${name}`);
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
}

/** The rows of a log in their order, each with its cursor. `key`: what `log_key` has. */
export function numbered<R extends SqlRow>(key: SqlRow, log: readonly R[]): (R & { readonly cursor: string })[] {
  const numbers = new Map<string, number>();
  return log.map((row) => {
    const number = (numbers.get(String(row.room)) ?? 0) + 1;
    numbers.set(String(row.room), number);
    return { ...row, cursor: cursorOf(sha256, String(key.key), { number, hash: String(row.hash) }) };
  });
}

/**
 * Reads a copy, so that the next server has to mend the original by itself. The file must be whole and every chain hold.
 * `log`: the entries in their order, with their cursors, without refusals. `all` runs another query.
 */
export function readDisk<T>(dataDir: string, read: (log: (SqlRow & { readonly cursor: string })[], all: (sql: string) => SqlRow[]) => T): T {
  using copy = tempDir();
  copyDisk(dataDir, copy.path);
  const db = new DatabaseSync(`${copy.path}/caseroom.db`);
  try {
    const all = (sql: string) => db.prepare(sql).all() as SqlRow[];
    assertEquals(all("pragma quick_check").map((row) => row.quick_check), ["ok"]);
    const log = all("select * from log order by seq");
    assertEquals(verifyLog(sha256, log, all("select * from log_head")).broken, null);
    return read(
      numbered(all("select key from log_key")[0], log).filter(({ event }) => event !== "refused"),
      all,
    );
  } finally {
    db.close();
  }
}
