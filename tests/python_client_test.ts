/**
 * The Python clients that the seed page prints, under Debian's Python: the asyncio classes over python3-websockets, and the
 * sample over python3-websocket that authenticates by message. A missing module fails these tests.
 */
import { assert, assertEquals, assertLess, assertMatch, assertStringIncludes } from "@std/assert";
// @ts-types="./support/phoenix.d.ts"
import { Presence, Socket } from "phoenix";
import type { User } from "../rooms/host.ts";
import { installed, type Running, startServer } from "./support/process.ts";
import type { Heard } from "./support/raw.ts";
import { someone } from "./support/stage.ts";

const here = (path: string) => new URL(path, import.meta.url);

/** SHA-256 of the page's code: from its first import to the end of its last class. */
const PAGE = "23539ba35439a080162305009388a6e154283460d6f25b2722aa441c9dd3c510";

/** A driver script: JSON lines in, JSON lines out. */
class Python {
  readonly said: Heard[] = [];
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #reading: Promise<unknown>;
  #errors = "";
  #ended = false;
  #waiting: (() => void)[] = [];
  #asked = 0;

  constructor(script: string, args: string[]) {
    this.#child = new Deno.Command("/usr/bin/python3", {
      args: ["-B", "-W", "error::RuntimeWarning", here(`python/${script}`).pathname, ...args],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#input = this.#child.stdin.getWriter();
    this.#reading = Promise.all([this.#readSaid(), this.#readErrors()]).finally(() => this.#wake(this.#ended = true));
  }
  async #readSaid(): Promise<void> {
    let rest = "";
    for await (const text of this.#child.stdout.pipeThrough(new TextDecoderStream())) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) this.said.push(JSON.parse(line));
      this.#wake();
    }
  }
  async #readErrors(): Promise<void> {
    for await (const text of this.#child.stderr.pipeThrough(new TextDecoderStream())) this.#errors += text;
  }
  #wake(_?: unknown): void {
    for (const wake of this.#waiting.splice(0)) wake();
  }

  /** The first thing said that fits; from what was said already, or yet to come. */
  async hear(fits: (said: Heard) => boolean, ms = 10_000): Promise<Heard> {
    const end = Date.now() + ms;
    for (;;) {
      const found = this.said.find(fits);
      if (found) return found;
      const left = end - Date.now();
      if (this.#ended || left <= 0) throw new Error(`Python said only ${JSON.stringify(this.said, null, 1)}\n${this.#errors}`);
      let timer;
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
        timer = setTimeout(resolve, left);
      });
      clearTimeout(timer);
    }
  }
  async send(line: unknown): Promise<void> {
    await this.#input.write(new TextEncoder().encode(`${JSON.stringify(line)}\n`));
  }
  /** A command of asyncio_driver.py, and its answer. */
  async ask(command: Record<string, unknown>): Promise<Heard> {
    const to = ++this.#asked;
    await this.send(command);
    return await this.hear((said) => said.said === "answer" && said.to === to);
  }
  /** Sends a frame, and resolves to the reply with its ref. */
  async frame(frame: { ref: string; [key: string]: unknown }): Promise<Heard> {
    await this.send(frame);
    return (await this.hear(({ frame: heard }) => heard?.event === "phx_reply" && heard.ref === frame.ref)).frame;
  }
  events(...names: string[]): Heard[] {
    return this.said.filter(({ said, event }) => said === "event" && names.includes(event)).map(({ event, payload }) => ({ event, payload }));
  }
  /** Waits for the process to end by itself; throws what it wrote to stderr. */
  async end(): Promise<void> {
    await this.#input.close().catch(() => {});
    await this.#reading;
    const { code } = await this.#child.status;
    if (code !== 0 || this.#errors) throw new Error(`Python ended with ${code}: ${this.#errors}`);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      // It has ended by itself.
    }
    await this.#input.close().catch(() => {});
    await this.#reading;
    await this.#child.status;
  }
}

/** The page's asyncio classes on /socket, with the token in the query and no vsn. */
async function pageClient(server: Running, user: User, heartbeatSeconds = 30): Promise<Python> {
  const python = new Python("asyncio_driver.py", [server.ws, await server.token(user), String(heartbeatSeconds)]);
  await python.hear(({ said }) => said === "connected");
  return python;
}

async function publish(server: Running, topic: string, events: { event: string; payload: object }[]): Promise<string[]> {
  const response = await fetch(`${server.url}/api/topics/${topic}/events`, {
    method: "POST",
    headers: { authorization: `Bearer ${await server.token(someone("backend", "service"))}` },
    body: JSON.stringify({ events }),
  });
  const body = await response.json();
  assertEquals(response.status, 200, JSON.stringify(body));
  return body.events.map(({ cursor }: { cursor: string }) => cursor);
}

const EVENTS = [
  { event: "document:uploaded", payload: { document: { id: "doc_1", filename: "Ärger „contract“.pdf", tags: ["x"] } } },
  { event: "document:processed", payload: { document_id: "doc_1", status: "completed", results: { entities: [], summary: "…" } } },
  { event: "workflow:started", payload: { workflow_id: "w_1", case_id: "case_1" } },
  { event: "workflow:completed", payload: { workflow_id: "w_1" } },
];
const NAMES = EVENTS.map(({ event }) => event);

const PACKAGES = "/usr/lib/python3/dist-packages";

/** Skipped by name without Debian's python3-websockets and python3-websocket; `.ci/run` installs them and allows no skip. */
function pythonTest(name: string, fn: () => Promise<void>): void {
  Deno.test({ name, fn, ignore: !installed(`${PACKAGES}/websockets`) || !installed(`${PACKAGES}/websocket`) });
}

Deno.test("python: the page's classes are under test word for word", async () => {
  const source = Deno.readTextFileSync(here("python/seed_client.py"));
  const page = /^# >>> the page\n([^]*?)^# <<< the page$/m.exec(source)?.[1] ?? "";
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(page));
  assertEquals(new Uint8Array(digest).toHex(), PAGE);
});

pythonTest("python: the page's classes work beside a phoenix 1.8 client: one order, one presence [L04 to L09, W02, W09 to W20, X07]", async () => {
  await using server = await startServer({});
  const socket = new Socket(server.ws, { params: { token: await server.token(someone("alice")) } });
  socket.connect();
  const channel = socket.channel("case:case_1");
  const presence = new Presence(channel);
  const wakes: (() => void)[] = [];
  const byAlice: Heard[] = [];
  for (const event of [...NAMES, "user:joined", "user:left"]) {
    channel.on(event, (payload) => {
      byAlice.push({ event, payload });
      for (const wake of wakes.splice(0)) wake();
    });
  }
  presence.onSync(() => {
    for (const wake of wakes.splice(0)) wake();
  });
  const alice = async (condition: () => boolean) => {
    while (!condition()) await new Promise<void>((resolve) => wakes.push(resolve));
  };
  const present = () => presence.list((id, { metas }) => [id, metas[0].status, metas[0].activity, metas.length]).toSorted();
  await new Promise((resolve, reject) => channel.join().receive("ok", resolve).receive("error", reject));
  await alice(() => present().length === 1);

  await using python = await pageClient(server, someone("snake"), 0.05);
  // ref "2", join_ref "1": they differ. [W20, L05]
  const { response, ...joined } = await python.ask({ do: "join", topic: "case:case_1", params: { user_id: "snake" } });
  assertEquals([joined.status, response.case_id, response.cursor], ["ok", "case_1", "0"]);

  const state = await python.hear(({ event }) => event === "presence_state");
  assertEquals(Object.keys(state.payload).toSorted(), ["alice", "snake"]);
  await alice(() => present().length === 2);
  assertEquals(present(), [["alice", "online", "", 1], ["snake", "online", "", 1]]);
  await alice(() => byAlice.length === 1);
  assertEquals(byAlice, [{ event: "user:joined", payload: { user: { id: "snake", name: "Name of snake", role: "attorney" } } }]);

  const cursors = (await Promise.all(Array.from({ length: 5 }, () => publish(server, "case:case_1", EVENTS)))).flat();
  await python.hear(({ payload }) => payload?.cursor === cursors.at(-1));
  for (const cursor of cursors) await python.hear(({ payload }) => payload?.cursor === cursor);
  await alice(() => byAlice.length === 21);
  assertEquals(python.events(...NAMES), byAlice.slice(1));
  assertEquals(byAlice.slice(1).map(({ payload }) => payload.cursor).toSorted(), cursors.toSorted());
  const { cursor: _, ...payload } = python.events("document:uploaded")[0].payload;
  assertEquals(payload, EVENTS[0].payload);

  // The page's push returns the whole reply frame. [L06]
  const push = (event: string, payload: object) => python.ask({ do: "push", topic: "case:case_1", event, payload });
  const update = await push("presence:update", { status: "reviewing", activity: "Reviewing privileged documents", location: "document_list" });
  const { ref, ...frame } = update.frame;
  assertEquals(frame, { topic: "case:case_1", event: "phx_reply", payload: { status: "ok", response: {} }, join_ref: "1" });
  assertMatch(ref, /^\d+$/);
  await alice(() => present()[1][1] === "reviewing");
  assertEquals(present()[1], ["snake", "reviewing", "Reviewing privileged documents", 1]);
  const diff = await python.hear(({ event, payload }) => event === "presence_diff" && payload.joins.snake?.metas[0].status === "reviewing");
  assertEquals(diff.payload.leaves.snake.metas[0].phx_ref, diff.payload.joins.snake.metas[0].phx_ref_prev);
  // … and the other way round.
  channel.push("presence:update", { activity: "elsewhere" });
  await python.hear(({ event, payload }) => event === "presence_diff" && payload.joins.alice?.metas[0].activity === "elsewhere");

  // The page pushes this one; the Python class gives up after 5 s. [Y10, W18]
  const asked = Date.now();
  const unknown = await push("no_such_event", { document_id: "doc_123" });
  assertLess(Date.now() - asked, 5000);
  assertEquals([unknown.frame.payload.status, unknown.frame.payload.response.reason], ["error", "unknown_event"]);

  // A heartbeat's reply is found by its ref alone, and the loop that reads is alive.
  await python.ask({ do: "heartbeats", count: 3 });
  const left = await push("phx_leave", {});
  assertEquals(left.frame.payload, { status: "ok", response: {} });
  await python.hear(({ event }) => event === "phx_close");
  await alice(() => byAlice.length === 22);
  assertEquals(byAlice[21], { event: "user:left", payload: { user: { id: "snake", name: "Name of snake", role: "attorney" } } });
  await alice(() => present().length === 1);
  await publish(server, "case:case_1", EVENTS.slice(2, 3));
  await alice(() => byAlice.length === 23);
  await python.ask({ do: "heartbeats", count: 5 });
  assertEquals(python.events(...NAMES).length, 20);
  await python.end();

  const { conn } = socket;
  const closed = new Promise((resolve) => conn!.addEventListener("close", resolve, { once: true }));
  await new Promise<void>((resolve) => socket.disconnect(resolve));
  await closed;
});

pythonTest("python: two clients in one case hear the same, and a third in another nothing of it [C11, R04, R05]", async () => {
  await using server = await startServer({});
  const clients = await Promise.all(["one", "two", "three"].map((id) => pageClient(server, someone(id))));
  const [one, two, three] = clients;
  for (const client of [one, two]) assertEquals((await client.ask({ do: "join", topic: "case:case_1" })).status, "ok");
  assertEquals((await three.ask({ do: "join", topic: "case:case_2" })).status, "ok");
  const cursors = await publish(server, "case:case_1", EVENTS);
  for (const client of [one, two]) await client.hear(({ payload }) => payload?.cursor === cursors[3]);
  assertEquals(one.events(...NAMES).map(({ payload }) => payload.cursor), cursors);
  assertEquals(two.events(...NAMES), one.events(...NAMES));
  await publish(server, "case:case_2", EVENTS.slice(0, 1));
  await three.hear(({ event }) => event === "document:uploaded");
  assertEquals(three.events(...NAMES).length, 1);
  // The socket closes without a leave: presence goes at once, for that was no accident. [R07]
  await two.end();
  await one.hear(({ event }) => event === "user:left");
  await one.hear(({ event, payload }) => event === "presence_diff" && payload.leaves.two !== undefined);
  for (const client of clients) await client[Symbol.asyncDispose]();
});

pythonTest("python: the page's classes are refused with a reason: token, case, user_id, topic [A02, A09, Y01, Y08, 55]", async () => {
  await using server = await startServer({});
  await using forged = new Python("asyncio_driver.py", [server.ws, "YOUR_AUTH_TOKEN"]);
  const refused = await forged.hear(({ said }) => said === "refused");
  assertEquals(refused.error, "InvalidStatusCode");
  assertStringIncludes(refused.message, "403");
  await forged.end();

  await using python = await pageClient(server, someone("snake", "viewer", ["case_1"]));
  const join = async (topic: string, params?: object) => (await python.ask({ do: "join", topic, params })).message ?? "ok";
  assertMatch(await join("case:case_2"), /^Failed to join channel: .*'reason': 'forbidden'/);
  assertMatch(await join("case:case_1", { user_id: "alice" }), /'reason': 'user_mismatch'/);
  assertMatch(await join("nonsense:1"), /'reason': 'unmatched topic'/);
  assertEquals(await join("case:case_1", { user_id: "snake" }), "ok");
  assertEquals(await join("case:case_1", { user_id: "snake" }), "ok");
  await python.end();
});

pythonTest("python: the websocket-client sample dials without a query and authenticates by message [A03, A04, W03]", async () => {
  await using server = await startServer({});
  await using python = new Python("websocket_app_driver.py", [`${server.ws}/websocket`, await server.token(someone("snake"), 600)]);
  const { frame } = await python.hear(({ said }) => said === "frame");
  assertEquals(Object.keys(frame).toSorted(), ["event", "join_ref", "payload", "ref", "topic"]);
  assertEquals([frame.topic, frame.event, frame.ref, frame.join_ref, frame.payload.status], ["auth", "phx_reply", "1", null, "ok"]);
  assertEquals(frame.payload.response.user_id, "snake");
  const lasts = Date.parse(frame.payload.response.expires_at) - Date.now();
  assert(lasts > 590_000 && lasts <= 601_000, `${lasts}`);

  const joined = await python.frame({ topic: "case:case_1", event: "phx_join", payload: {}, ref: "2" });
  assertEquals([joined.payload.status, joined.payload.response.case_id], ["ok", "case_1"]);
  const [cursor] = await publish(server, "case:case_1", EVENTS.slice(1, 2));
  const heard = await python.hear(({ frame }) => frame?.event === "document:processed");
  assertEquals(heard.frame, { topic: "case:case_1", ...EVENTS[1], payload: { ...EVENTS[1].payload, cursor }, ref: null, join_ref: null });
  // Authenticating again renews. [A07]
  const renewed = await python.frame({ topic: "auth", event: "authenticate", payload: { token: await server.token(someone("snake"), 900) }, ref: "3" });
  assertEquals(renewed.payload.status, "ok");
  const left = await python.frame({ topic: "case:case_1", event: "phx_leave", payload: {}, ref: "4" });
  assertEquals(left.payload, { status: "ok", response: {} });
  await python.end();
});

pythonTest("python: a wrong token by message gets a reply, then 4002; before a good one nothing is joined [A05, A06, A10]", async () => {
  await using server = await startServer({ LIMIT_AUTHENTICATE_MS: "2000" });
  await using forged = new Python("websocket_app_driver.py", [`${server.ws}/websocket`, "YOUR_AUTH_TOKEN"]);
  const { frame } = await forged.hear(({ said }) => said === "frame");
  assertEquals([frame.topic, frame.event, frame.ref, frame.payload.status], ["auth", "phx_reply", "1", "error"]);
  assertEquals(frame.payload.response.reason, "token_invalid");
  assertEquals((await forged.hear(({ said }) => said === "close")).code, 4002);

  await using expired = new Python("websocket_app_driver.py", [`${server.ws}/websocket`, await server.token(someone("snake"), -60)]);
  assertEquals((await expired.hear(({ said }) => said === "frame")).frame.payload.response.reason, "token_expired");
  assertEquals((await expired.hear(({ said }) => said === "close")).code, 4002);

  await using nobody = new Python("websocket_app_driver.py", [`${server.ws}/websocket`]);
  await nobody.hear(({ said }) => said === "open");
  const heartbeat = await nobody.frame({ topic: "phoenix", event: "heartbeat", payload: {}, ref: "1" });
  assertEquals(heartbeat.payload, { status: "ok", response: {} });
  const join = await nobody.frame({ topic: "case:case_1", event: "phx_join", payload: {}, ref: "2", join_ref: "2" });
  assertEquals([join.payload.status, join.payload.response.reason], ["error", "unauthenticated"]);
  // Nor does it stay for ever without a user.
  assertEquals((await nobody.hear(({ said }) => said === "close")).code, 4002);
  assert(!server.output().includes("YOUR_AUTH_TOKEN"));
});
