/** A server process at work on documents: who sends, watches and reads them, and which processes and files it has because of them. */
import { assert, assertEquals } from "@std/assert";
import type { User } from "../../rooms/host.ts";
import { Outside } from "./outside.ts";
import type { Running } from "./process.ts";
import type { Heard, RawClient } from "./raw.ts";

/** Budgets have tests of their own. */
const PLENTY = Object.fromEntries(["REQUESTS", "JOINS", "FRAMES", "RATE_REFUSALS", "REFUSALS_LOGGED"].map((name) => [`LIMIT_${name}`, "1000000"]));

export interface Read {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** When it is JSON. */
  readonly body: Heard;
}

/** What the topic of a job said to somebody: the reply to his join, then everything until its end. */
export interface Watched {
  readonly state: Heard;
  readonly frames: readonly Heard[];
  readonly summary: Heard;
}

export const CASE = "matter_1";

export class Office {
  #refs = 0;

  private constructor(readonly outside: Outside) {}

  static async start(env: Record<string, string> = {}): Promise<Office> {
    return new Office(await Outside.start({ ...PLENTY, ...env }));
  }

  get server(): Running {
    return this.outside.server;
  }
  get dataDir(): string {
    return this.server.dataDir;
  }

  async ask(user: User, method: string, path: string, body?: BodyInit, headers: Record<string, string> = {}): Promise<Read> {
    const authorization = `Bearer ${await this.outside.token(user)}`;
    const response = await fetch(this.server.url + path, { method, body, headers: { authorization, ...headers }, redirect: "error" });
    const text = await response.text();
    return { status: response.status, headers: response.headers, text, body: text.startsWith("{") ? JSON.parse(text) : undefined };
  }
  get(user: User, path: string): Promise<Read> {
    return this.ask(user, "GET", path);
  }
  /** Sends files by name as one form. */
  async send(user: User, files: Readonly<Record<string, string | Uint8Array>>, fields: Readonly<Record<string, string>> = {}, caseId = CASE): Promise<Read> {
    return await this.ask(user, "POST", `/api/cases/${caseId}/documents`, formOf(files, fields));
  }
  /** Sends them and waits until they are read. Returns their ids by the names that they came with, and how it went. */
  async take(
    user: User,
    files: Readonly<Record<string, string | Uint8Array>>,
    caseId = CASE,
  ): Promise<{ ids: Record<string, string>; watched: Watched; job: string }> {
    const { status, body, text } = await this.send(user, files, {}, caseId);
    assertEquals(status, 201, text);
    const ids = Object.fromEntries(Object.keys(files).map((name, index) => [name, body.documents[index].id]));
    return { ids, job: body.processing_job_id, watched: await this.watch(user, body.processing_job_id) };
  }
  /** Every document that the user may see, oldest first. */
  async documents(user: User, caseId = CASE): Promise<Heard[]> {
    const all = [];
    for (let after = "";;) {
      const { body } = await this.get(user, `/api/cases/${caseId}/documents?limit=1000&after=${after}`);
      all.push(...body.documents);
      if (body.next === null) return all;
      after = body.next;
    }
  }

  /** A topic joined without second names; `reply` is the answer, of whatever kind. */
  async enter(user: User, topic: string, params: object = {}): Promise<{ client: RawClient; reply: Heard }> {
    const client = await this.outside.connect(user);
    return { client, reply: (await client.ask(["1", "join", topic, "phx_join", { aliases: false, ...params }]))[4] };
  }
  /** Pushes on a topic that the client has joined; other frames before the reply are dropped. */
  async push(client: RawClient, topic: string, event: string, payload: object): Promise<Heard> {
    return (await client.ask(["1", `p${++this.#refs}`, topic, event, payload]))[4];
  }
  async watch(user: User, job: string, ms = 60_000): Promise<Watched> {
    const { client, reply } = await this.enter(user, `processing:${job}`);
    await using _ = client;
    assertEquals(reply.status, "ok", JSON.stringify(reply));
    const frames: Heard[] = [];
    const deadline = Date.now() + ms;
    while (reply.response.status === "running" && frames.at(-1)?.[3] !== "job:completed") {
      assert(Date.now() < deadline, `the job has not ended within ${ms} ms: ${JSON.stringify(frames.at(-1) ?? reply)}`);
      frames.push(await client.next(Math.max(1, deadline - Date.now())));
    }
    return { state: reply.response, frames, summary: frames.at(-1)?.[4].summary ?? reply.response.summary };
  }

  /** Child processes that live now, by their ids. */
  children(): number[] {
    return childrenOf(this.server.pid);
  }
  /** Nothing is half written. */
  async nothingWaits(): Promise<void> {
    await until("nothing is under uploads", () => [...Deno.readDirSync(`${this.dataDir}/uploads`)].length === 0);
  }
  [Symbol.asyncDispose](): Promise<void> {
    return this.outside[Symbol.asyncDispose]();
  }
}

export function formOf(files: Readonly<Record<string, string | Uint8Array>>, fields: Readonly<Record<string, string>> = {}): FormData {
  const form = new FormData();
  for (const [name, value] of Object.entries(fields)) form.set(name, value);
  for (const [name, content] of Object.entries(files)) form.append("files", new File([content as BlobPart], name, { type: "application/octet-stream" }));
  return form;
}

/** Whichever of a process's threads started them. */
export function childrenOf(pid: number): number[] {
  const found = [];
  for (const { name } of Deno.readDirSync(`/proc/${pid}/task`)) {
    try {
      found.push(...Deno.readTextFileSync(`/proc/${pid}/task/${name}/children`).split(" ").filter(Boolean).map(Number));
    } catch {
      // A thread that has ended.
    }
  }
  return found;
}

/** Whether the process still is what it was: pids are used again. */
export function lives(pid: number, dataDir: string): boolean {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/cmdline`).includes(dataDir);
  } catch {
    return false;
  }
}

/** Looks again and again until it is so. */
export async function until(what: string, isSo: () => boolean | Promise<boolean>, ms = 20_000): Promise<void> {
  for (const deadline = Date.now() + ms; !await isSo();) {
    assert(Date.now() < deadline, `not within ${ms} ms: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
