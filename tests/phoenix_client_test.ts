/** The real npm client, four versions of it, against a server process started as a user starts it. [K, 97 to 113] */
import { assert, assertEquals, assertGreater, assertMatch } from "@std/assert";
// @ts-types="./support/phoenix.d.ts"
import * as phoenix18 from "phoenix";
// @ts-types="./support/phoenix.d.ts"
import * as phoenix17 from "phoenix-1.7";
// @ts-types="./support/phoenix.d.ts"
import * as phoenix16 from "phoenix-1.6";
// @ts-types="./support/phoenix.d.ts"
import phoenix15 from "phoenix-1.5";
import type { Channel, Here, Presence, Push, Socket, SocketOptions } from "./support/phoenix.d.ts";
import type { User } from "../rooms/host.ts";
import { type Running, SECRET, startServer } from "./support/process.ts";
import { type Heard, RawClient } from "./support/raw.ts";
import { someone } from "./support/stage.ts";
import { sign } from "../rooms/token.ts";

type Phoenix = Pick<typeof phoenix18, "Socket" | "Presence">;

const CLIENTS: Record<string, Phoenix> = { "1.8.16": phoenix18, "1.7.21": phoenix17, "1.6.16": phoenix16, "1.5.14": phoenix15 };

const SERVICE = someone("backend", "service");

/** What happened, in its order, and a way to wait for what is yet to come. */
class Diary {
  readonly entries: { what: string; value: Heard }[] = [];
  #waiting: (() => void)[] = [];

  note(what: string, value: Heard = null): void {
    // A copy: clients go on changing what they hand out.
    this.entries.push({ what, value: structuredClone(value) });
    for (const wake of this.#waiting.splice(0)) wake();
  }
  of(what: string): Heard[] {
    return this.entries.filter((entry) => entry.what === what).map((entry) => entry.value);
  }
  /** Resolves to the values of `what` once there are `count` of them. */
  async until(what: string, count = 1, ms = 10_000): Promise<Heard[]> {
    const end = Date.now() + ms;
    while (this.of(what).length < count) {
      const left = end - Date.now();
      if (left <= 0) throw new Error(`waited ${ms} ms for ${what} × ${count}, had ${JSON.stringify(this.entries)}`);
      let timer;
      await new Promise<void>((resolve) => {
        this.#waiting.push(resolve);
        timer = setTimeout(resolve, left);
      });
      clearTimeout(timer);
    }
    return this.of(what);
  }
}

const EVENTS = ["document:uploaded", "document:processed", "workflow:started", "workflow:completed", "user:joined", "user:left"];

/** One socket of one user; its diary has what its channels and presences heard, too. */
class Caller {
  readonly diary = new Diary();
  readonly socket: Socket;

  constructor(private readonly phoenix: Phoenix, endpoint: string, options: SocketOptions) {
    this.socket = new phoenix.Socket(endpoint, options);
    this.socket.onOpen(() => this.diary.note("open"));
    this.socket.onError(() => this.diary.note("error"));
    this.socket.onClose(({ code, wasClean }) => this.diary.note("close", { code, wasClean }));
    this.socket.onMessage(({ topic, event }) => this.diary.note(`${topic} ${event}`));
    this.socket.connect();
  }

  channel(topic: string, params: object = {}): { channel: Channel; presence: Presence; joining: Promise<Outcome> } {
    const channel = this.socket.channel(topic, params);
    const presence = new this.phoenix.Presence(channel);
    presence.onJoin((id, current, joined) => this.diary.note("onJoin", { id, before: current?.metas.length, metas: joined.metas }));
    presence.onLeave((id, current, left) => this.diary.note("onLeave", { id, after: current.metas.length, metas: left.metas }));
    presence.onSync(() => this.diary.note("onSync"));
    for (const event of EVENTS) channel.on(event, (payload) => this.diary.note(event, payload));
    channel.onClose(() => this.diary.note("closed", topic));
    channel.onError(() => this.diary.note("errored", topic));
    // Called again by every rejoin.
    const push = channel.join().receive("ok", (response) => this.diary.note("joined", response));
    return { channel, presence, joining: outcome(push) };
  }

  /** Joins, and waits until presence is there. */
  async enter(topic: string, params: object = {}): Promise<{ channel: Channel; presence: Presence }> {
    const syncs = this.diary.of("onSync").length;
    const { channel, presence, joining } = this.channel(topic, params);
    assertEquals((await joining).status, "ok");
    await this.diary.until("onSync", syncs + 1);
    return { channel, presence };
  }

  async hangUp(): Promise<void> {
    const { conn } = this.socket;
    const closed = conn && conn.readyState !== WebSocket.CLOSED && new Promise((resolve) => conn.addEventListener("close", resolve, { once: true }));
    await new Promise<void>((resolve) => this.socket.disconnect(resolve));
    await closed;
  }
}

interface Outcome {
  status: "ok" | "error" | "timeout";
  response: Heard;
}

/** The first reply. */
function outcome(push: Push): Promise<Outcome> {
  return new Promise((resolve) => {
    for (const status of ["ok", "error", "timeout"] as const) push.receive(status, (response) => resolve({ status, response }));
  });
}

/** A server and its callers; ends them all, and what timers they forget (1.5 loses that of its heartbeat). */
class Scene {
  readonly #callers: Caller[] = [];
  readonly #timers: ReturnType<typeof setTimeout>[] = [];
  readonly #setTimeout = globalThis.setTimeout;
  readonly dataDir = Deno.makeTempDirSync({ prefix: "caseroom-phoenix-" });
  #server: Running | null = null;

  private constructor(private readonly phoenix: Phoenix) {
    globalThis.setTimeout = ((...args: Parameters<typeof setTimeout>) => {
      const timer = this.#setTimeout(...args);
      this.#timers.push(timer);
      return timer;
    }) as typeof setTimeout;
  }
  static async open(phoenix: Phoenix): Promise<Scene> {
    const scene = new Scene(phoenix);
    await scene.start(0);
    return scene;
  }
  get server(): Running {
    return this.#server!;
  }
  async start(port: number): Promise<void> {
    this.#server = await startServer({ DATA_DIR: this.dataDir, PORT: String(port) });
  }
  /** Ends the server with a signal; the same port and data again. */
  async restart(signal: Deno.Signal): Promise<number> {
    const { port } = this.server;
    const code = await this.server.stop(signal);
    await this.start(port);
    return code;
  }
  dial(options: SocketOptions): Caller {
    const caller = new Caller(this.phoenix, this.server.ws, options);
    this.#callers.push(caller);
    return caller;
  }
  async user(user: User | string, options: SocketOptions = {}): Promise<Caller> {
    const token = await this.server.token(typeof user === "string" ? someone(user) : user);
    const caller = this.dial({ params: { token, client_version: "1.0.0" }, ...options });
    await caller.diary.until("open");
    return caller;
  }
  /** Publishes as a back end does; returns the cursors. */
  async publish(topic: string, ...events: { event: string; payload: object }[]): Promise<string[]> {
    const response = await fetch(`${this.server.url}/api/topics/${topic}/events`, {
      method: "POST",
      headers: { authorization: `Bearer ${await this.server.token(SERVICE)}`, "content-type": "application/json" },
      body: JSON.stringify({ events }),
    });
    const body = await response.json();
    assertEquals(response.status, 200, JSON.stringify(body));
    return body.events.map(({ cursor }: { cursor: string }) => cursor);
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.#callers.map((caller) => caller.hangUp()));
    globalThis.setTimeout = this.#setTimeout;
    for (const timer of this.#timers) clearTimeout(timer);
    await this.#server?.[Symbol.asyncDispose]();
    Deno.removeSync(this.dataDir, { recursive: true });
  }
}

const processed = (document_id: string) => ({ event: "document:processed", payload: { document_id, status: "completed" } });
const started = (workflow_id: string) => ({ event: "workflow:started", payload: { workflow_id, case_id: "case_1" } });
const completed = (workflow_id: string) => ({ event: "workflow:completed", payload: { workflow_id } });
const uploaded = (id: string) => ({ event: "document:uploaded", payload: { document: { id, filename: `${id}.pdf` } } });

/** The page's own way of listing who is there (L275-289). */
const byPage = (id: string, { metas: [first, ...rest] }: Here) => ({
  id,
  name: first.name,
  status: first.status,
  activity: first.activity,
  location: first.location,
  more: rest.length,
});

for (const [version, phoenix] of Object.entries(CLIENTS)) {
  const test = (name: string, body: (scene: Scene) => Promise<void>) =>
    Deno.test(`phoenix ${version}: ${name}`, async () => {
      await using scene = await Scene.open(phoenix);
      await body(scene);
    });

  test("two people see each other come, change and go; a second tab is no second person [R01 to R06, C03, C04, C12]", async (scene) => {
    const alice = await scene.user("alice");
    const { presence } = await alice.enter("case:case_1", { user_id: "alice" });
    assertEquals(presence.list(byPage), [{ id: "alice", name: "Name of alice", status: "online", activity: "", location: "", more: 0 }]);

    const [first, second] = [await scene.user("bob"), await scene.user("bob")];
    const tab = await first.enter("case:case_1");
    assertEquals(await alice.diary.until("user:joined"), [{ user: { id: "bob", name: "Name of bob", role: "attorney" } }]);
    const joinsOfBob = () => alice.diary.of("onJoin").filter(({ id }) => id === "bob").map(({ before }) => before);
    await alice.diary.until("case:case_1 presence_diff", 2);
    assertEquals(joinsOfBob(), [undefined]);

    await second.enter("case:case_1");
    await alice.diary.until("case:case_1 presence_diff", 3);
    await first.diary.until("case:case_1 presence_diff", 2);
    assertEquals(joinsOfBob(), [undefined, 1]);
    assertEquals(presence.list((id, { metas }) => [id, metas.length]).toSorted(), [["alice", 1], ["bob", 2]]);
    assertEquals(tab.presence.list((id, { metas }) => [id, metas.length]).toSorted(), [["alice", 1], ["bob", 2]]);
    const before = presence.list((id, { metas }) => ({ id, metas })).find(({ id }) => id === "bob")!.metas;

    const change = { status: "reviewing", activity: "Reviewing privileged documents", location: "document_list" };
    assertEquals(await outcome(tab.channel.push("presence:update", change)), { status: "ok", response: {} });
    await alice.diary.until("case:case_1 presence_diff", 4);
    const after = presence.list((id, { metas }) => ({ id, metas })).find(({ id }) => id === "bob")!.metas;
    assertEquals(after.length, 2);
    // The other tab is untouched; the new meta says which one it replaces. [90]
    assertEquals(after.find(({ phx_ref }) => phx_ref === before[1].phx_ref), before[1]);
    const updated = after.find(({ phx_ref_prev }) => phx_ref_prev === before[0].phx_ref);
    assertEquals({ ...updated, phx_ref: "" }, { ...before[0], ...change, phx_ref: "", phx_ref_prev: before[0].phx_ref });

    await second.hangUp();
    await alice.diary.until("case:case_1 presence_diff", 5);
    const leavesOfBob = () => alice.diary.of("onLeave").filter(({ id }) => id === "bob").map(({ after }) => after);
    // The update took the old meta away, beside two others; then a tab went.
    assertEquals(leavesOfBob(), [2, 1]);
    assertEquals(presence.list(byPage).find(({ id }) => id === "bob"), { id: "bob", name: "Name of bob", ...change, more: 0 });
    assertEquals(alice.diary.of("user:left"), []);

    await first.hangUp();
    assertEquals(await alice.diary.until("user:left"), [{ user: { id: "bob", name: "Name of bob", role: "attorney" } }]);
    await alice.diary.until("case:case_1 presence_diff", 6);
    assertEquals(leavesOfBob(), [2, 1, 0]);
    assertEquals(presence.list((id) => id), ["alice"]);
    assertEquals(alice.diary.of("user:joined").length, 1);
    // Nobody is told of himself. [C12]
    assertEquals(first.diary.of("user:joined"), []);
  });

  test("everybody hears every published event once, in one order, with rising cursors [74, C01, C02, C05, C06, C11]", async (scene) => {
    const [alice, bob, elsewhere] = await Promise.all(["alice", "bob", "carol"].map((id) => scene.user(id)));
    await Promise.all([alice.enter("case:case_1"), bob.enter("case:case_1"), elsewhere.enter("case:case_2")]);
    const cursors = await Promise.all(
      Array.from({ length: 12 }, (_, n) => scene.publish("case:case_1", uploaded(`doc_${n}`), processed(`doc_${n}`), started(`w_${n}`), completed(`w_${n}`))),
    );
    const heard = async ({ diary }: Caller) => {
      for (const event of EVENTS.slice(0, 4)) await diary.until(event, 12);
      return diary.entries.filter(({ what }) => EVENTS.slice(0, 4).includes(what));
    };
    const [byAlice, byBob] = [await heard(alice), await heard(bob)];
    assertEquals(byAlice.length, 48);
    assertEquals(byBob, byAlice);
    // What was answered to the publishers is what was heard; each request's events stand together.
    assertEquals(byAlice.map(({ value }) => value.cursor).toSorted(), cursors.flat().toSorted());
    const at = new Map(byAlice.map(({ value }, place) => [value.cursor, place]));
    for (const [first, ...rest] of cursors) rest.forEach((cursor, index) => assertEquals(at.get(cursor), at.get(first)! + index + 1));
    assertEquals(at.size, 48);
    const { cursor: _, ...payload } = byAlice[at.get(cursors[3][1])!].value;
    assertEquals(payload, processed("doc_3").payload);
    // The next join learns where the log stands.
    const late = await scene.user("dora");
    await late.enter("case:case_1");
    assertEquals(late.diary.of("joined")[0].cursor, byAlice.at(-1)!.value.cursor);
    assertEquals(elsewhere.diary.entries.filter(({ what }) => EVENTS.slice(0, 4).includes(what)), []);
  });

  test("refusals say why and disturb nothing; leaving, and a second channel of one topic [54, 55, 67, 79, 82, 104, A09]", async (scene) => {
    const alice = await scene.user(someone("alice", "attorney", ["case_1"]));
    const { channel } = await alice.enter("case:case_1");
    const refused = async (topic: string, params: object = {}) => {
      const { channel, joining } = alice.channel(topic, params);
      const { status, response } = await joining;
      // It would try again for ever. [100]
      channel.leave();
      return [status, response.reason];
    };
    assertEquals(await refused("case:case_2"), ["error", "forbidden"]);
    assertEquals(await refused("nonsense:1"), ["error", "unmatched topic"]);
    assertEquals(await refused("case:case_1b", { user_id: "alice" }), ["error", "forbidden"]);
    const diffs = () => alice.diary.of("case:case_1 presence_diff").length;
    const unknown = await outcome(channel.push("no_such_event", {}));
    assertEquals([unknown.status, unknown.response.reason], ["error", "unknown_event"]);
    const malformed = await outcome(channel.push("presence:update", { status: 5 }));
    assertEquals([malformed.status, malformed.response.reason], ["error", "invalid_payload"]);
    assertMatch(malformed.response.message, /status/);
    const seen = diffs();
    assertEquals((await outcome(channel.push("presence:update", { status: "here" }))).status, "ok");
    await alice.diary.until("case:case_1 presence_diff", seen + 1);
    assertEquals(channel.state, "joined");

    // A second object for the topic: leave and join in one burst, and the late phx_close does not touch the second.
    const replacement = await alice.enter("case:case_1");
    assertEquals(await alice.diary.until("closed", 4), ["case:case_2", "nonsense:1", "case:case_1b", "case:case_1"]);
    await scene.publish("case:case_1", processed("doc_1"));
    await alice.diary.until("document:processed");
    assertEquals((await outcome(replacement.channel.push("presence:update", { status: "still here" }))).status, "ok");
    assertEquals([channel.state, replacement.channel.state], ["closed", "joined"]);
    assertEquals(alice.diary.of("document:processed").length, 1);
    assertEquals(replacement.presence.list(byPage).map(({ id, more }) => [id, more]), [["alice", 0]]);

    assertEquals(await outcome(replacement.channel.leave()), { status: "ok", response: {} });
    await alice.diary.until("closed", 5);
    await scene.publish("case:case_1", processed("doc_2"));
    const again = await alice.enter("case:case_1");
    assertEquals(alice.diary.of("document:processed").length, 1);
    // A foreign user_id ends what was joined before, for a refused rejoin does. [62, A09]
    assertEquals(await refused("case:case_1", { user_id: "bob" }), ["error", "user_mismatch"]);
    assertEquals(again.channel.state, "closed");
    assertEquals(alice.diary.of("close"), []);
  });

  // Not tested: that the client itself forgets its first session. Its diff may still be on its way when the second channel
  // object is made, and the leaver hears no diff [93]; Phoenix has the same race.
  test("a second channel object right after the first leaves no ghost of it for others [82, 93]", async (scene) => {
    const bob = await scene.user("bob");
    const watching = await bob.enter("case:case_1");
    const alice = await scene.user("alice");
    const first = alice.channel("case:case_1");
    assertEquals((await first.joining).status, "ok");
    const { channel } = await alice.enter("case:case_1");
    assertEquals((await outcome(channel.push("presence:update", { status: "here" }))).status, "ok");
    while (!watching.presence.list((_, { metas }) => metas.some(({ status }) => status === "here")).includes(true)) {
      await bob.diary.until("onSync", bob.diary.of("onSync").length + 1);
    }
    assertEquals(watching.presence.list((id, { metas }) => [id, metas.length]).toSorted(), [["alice", 1], ["bob", 1]]);
  });

  test("heartbeats are answered, and a token that is asked for at each attempt gets the client in [43, 107, A02]", async (scene) => {
    const tokens = [await scene.server.token(someone("alice"), -60), await scene.server.token(someone("alice"))];
    let asked = 0;
    const alice = scene.dial({ params: () => ({ token: tokens[Math.min(asked++, 1)] }), heartbeatIntervalMs: 50 });
    await alice.diary.until("open");
    assertEquals(asked, 2);
    assertGreater(alice.diary.of("error").length, 0);
    const closes = alice.diary.of("close").length;
    const { channel } = await alice.enter("case:case_1");
    await alice.diary.until("phoenix phx_reply", 5);
    assertEquals([channel.state, alice.socket.isConnected()], ["joined", true]);
    assertEquals(alice.diary.of("close").length, closes);
  });

  test("after SIGTERM (1012) and after kill -9 it comes back and rejoins by itself, and nothing acknowledged is lost [50, 101, 106, E02]", async (scene) => {
    const [alice, bob] = await Promise.all(["alice", "bob"].map((id) => scene.user(id)));
    const [{ presence }] = await Promise.all([alice.enter("case:case_1"), bob.enter("case:case_1")]);
    let opens = 1, documents = 0;
    for (const signal of ["SIGTERM", "SIGKILL"] as const) {
      const cursors = await scene.publish("case:case_1", processed(`doc_${++documents}`), processed(`doc_${++documents}`));
      for (const { diary } of [alice, bob]) await diary.until("document:processed", documents);
      const [syncs, closes] = [alice.diary.of("onSync").length, alice.diary.of("close").length];
      const code = await scene.restart(signal);
      opens++;
      assertEquals(code, signal === "SIGTERM" ? 0 : 137);
      for (const { diary } of [alice, bob]) {
        const close = (await diary.until("close", closes + 1))[closes];
        // Deno says 0 where browsers say 1006.
        assertEquals({ ...close, code: close.code || 1006 }, signal === "SIGTERM" ? { code: 1012, wasClean: true } : { code: 1006, wasClean: false });
        await diary.until("open", opens);
        assertEquals((await diary.until("joined", opens))[opens - 1].cursor, cursors[1]);
      }
      await alice.diary.until("onSync", syncs + 1);
      while (presence.list((id) => id).length < 2) await alice.diary.until("onSync", alice.diary.of("onSync").length + 1);
      assertEquals(presence.list((id, { metas }) => [id, metas.length]).toSorted(), [["alice", 1], ["bob", 1]]);
      // phx_close would have ended the channel for good. [102]
      assertEquals(alice.diary.of("closed"), []);
    }
    await scene.publish("case:case_1", processed("doc_last"));
    for (const { diary } of [alice, bob]) {
      const heard = await diary.until("document:processed", documents + 1);
      assertEquals(heard.map(({ document_id }) => document_id), ["doc_1", "doc_2", "doc_3", "doc_4", "doc_last"]);
    }
  });
}

Deno.test("phoenix 1.8.16: the option authToken, in the subprotocol [12, X09]", async () => {
  await using scene = await Scene.open(phoenix18);
  const alice = scene.dial({ authToken: await scene.server.token(someone("alice", "paralegal", ["case_1"])) });
  await alice.diary.until("open");
  assertEquals(alice.socket.conn?.protocol, "phoenix");
  await alice.enter("case:case_1", { user_id: "alice" });
  const forged = scene.dial({
    authToken: await sign(new TextEncoder().encode(SECRET.toUpperCase()), someone("alice"), 60, Date.now()),
    reconnectAfterMs: () => 60_000,
  });
  await forged.diary.until("close");
  assertEquals(forged.diary.of("open"), []);
  assert(!scene.server.output().includes("bearer"));
});

/** V1 by hand, for phoenix.js sends arrays whatever its vsn. [42] */
Deno.test("a V1 client of one's own: five keys, null refs in broadcasts, one case with a phoenix 1.8 client [36 to 41, 96, W09, W12 to W16]", async () => {
  await using scene = await Scene.open(phoenix18);
  const alice = await scene.user("alice");
  const { presence } = await alice.enter("case:case_1");
  const token = await scene.server.token(someone("old"));
  const old = await RawClient.open(`${scene.server.ws}?token=${token}`);
  const next = async () => {
    const frame = await old.next();
    assertEquals(Object.keys(frame).toSorted(), ["event", "join_ref", "payload", "ref", "topic"]);
    return frame;
  };
  const topic = "case:case_1";
  // No join_ref, as vsn 1 never had one. [38]
  old.send({ topic, event: "phx_join", payload: {}, ref: "1" });
  const joined = await next();
  assertEquals([joined.topic, joined.event, joined.ref, joined.join_ref, joined.payload.status], [topic, "phx_reply", "1", null, "ok"]);
  const state = await next();
  assertEquals([state.event, state.ref, Object.keys(state.payload).toSorted()], ["presence_state", null, ["alice", "old"]]);
  const diff = await next();
  assertEquals([diff.event, diff.ref, diff.join_ref, Object.keys(diff.payload.joins)], ["presence_diff", null, null, ["old"]]);
  await alice.diary.until("case:case_1 presence_diff", 2);
  assertEquals(presence.list((id) => id).toSorted(), ["alice", "old"]);

  const [cursor] = await scene.publish(topic, processed("doc_1"));
  const event = { topic, event: "document:processed", payload: { ...processed("doc_1").payload, cursor }, ref: null, join_ref: null };
  assertEquals(await next(), event);
  assertEquals(await next(), { ...event, event: "update", payload: { event: event.event, payload: event.payload } });
  assertEquals(await alice.diary.until("document:processed"), [event.payload]);

  old.send({ topic: "phoenix", event: "heartbeat", payload: {}, ref: "2" });
  assertEquals(await next(), { topic: "phoenix", event: "phx_reply", payload: { status: "ok", response: {} }, ref: "2", join_ref: null });
  old.send({ topic, event: "no_such_event", payload: {}, ref: "3" });
  const refused = await next();
  assertEquals([refused.ref, refused.payload.status, refused.payload.response.reason], ["3", "error", "unknown_event"]);
  old.send({ topic, event: "phx_leave", payload: {}, ref: "4" });
  const left = await next();
  assertEquals([left.event, left.ref, left.payload], ["phx_reply", "4", { status: "ok", response: {} }]);
  let closed = await next();
  // Whether the leaver still hears that he is gone is the server's affair. [93]
  if (closed.event === "presence_diff") closed = await next();
  assertEquals(closed, { topic, event: "phx_close", payload: {}, ref: null, join_ref: null });
  await alice.diary.until("user:left");
  await old.close();
});
