/** What an operator sees: `/metrics`, whose counters are compared with what the clients counted, the lines on stderr, and the memory. */
import { assert, assertEquals, assertGreater, assertLess, assertMatch, assertRejects, assertThrows } from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import { REASONS, Refusal } from "../protocol/reason.ts";
import { rooms } from "../rooms/channels/mod.ts";
import { readConfig } from "../rooms/config.ts";
import type { User } from "../rooms/host.ts";
import { Journal, sha256 } from "../rooms/hosts/deno.ts";
import { metricsPage } from "../rooms/http/metrics.ts";
import { Metrics } from "../rooms/metrics.ts";
import { type Answer, Outside } from "./support/outside.ts";
import { START, startServer } from "./support/process.ts";
import { type HttpAnswer, RawClient, TcpClient, UPGRADE } from "./support/raw.ts";
import { BreakableSql, lab, someone, Stage } from "./support/stage.ts";

/** The text format 0.0.4, read strictly: every family with its HELP, its TYPE and then its samples, nothing twice. Returns series → value. */
function parse(text: string): Map<string, number> {
  assert(text.endsWith("\n"), "the last line ends");
  const families = new Set<string>();
  const series = new Map<string, number>();
  const lines = text.slice(0, -1).split("\n");
  let family = "";
  for (let at = 0; at < lines.length; at++) {
    const help = /^# HELP (\S+) (\S.*)$/.exec(lines[at]);
    if (help) {
      family = help[1];
      assertMatch(family, /^caseroom_[a-z][a-z0-9_]*$/);
      assert(!families.has(family), `${family} stands twice`);
      families.add(family);
      const type = /^# TYPE (\S+) (counter|gauge)$/.exec(lines[++at]);
      assertEquals(type?.[1], family, lines[at]);
      // A counter is named one, and nothing else is.
      assertEquals(family.endsWith("_total"), type![2] === "counter", family);
      continue;
    }
    const sample = /^([a-z_]+)(?:\{([a-z]+)="([A-Za-z0-9_ ]+)"\})? (\d+(?:\.\d+)?(?:e[+-]?\d+)?)$/.exec(lines[at]);
    assert(sample, `no sample: ${lines[at]}`);
    const [, name, label, , value] = sample;
    assertEquals(name, family, "a sample stands below its HELP and TYPE");
    assert(label === undefined || label === "code" || label === "reason", lines[at]);
    const key = lines[at].slice(0, lines[at].lastIndexOf(" "));
    assert(!series.has(key), `${key} stands twice`);
    series.set(key, Number(value));
  }
  assertGreater(series.size, 10);
  return series;
}

async function scrape(at: Outside): Promise<Map<string, number>> {
  const response = await fetch(`${at.server.url}/metrics`);
  assertEquals([response.status, response.headers.get("content-type")], [200, "text/plain; version=0.0.4; charset=utf-8"]);
  return parse(await response.text());
}

/** The counters, once no more than so many sockets are open. */
async function emptied(at: Outside, open = 0): Promise<Map<string, number>> {
  for (const end = Date.now() + 5000;;) {
    const series = await scrape(at);
    if (series.get("caseroom_sockets") === open || Date.now() > end) return series;
  }
}

/** The labelled series of one family, without zeros. */
function labelled(series: ReadonlyMap<string, number>, family: string): Record<string, number> {
  const found = [...series].map(([key, value]) => [new RegExp(`^caseroom_${family}\\{[a-z]+="(.*)"\\}$`).exec(key)?.[1] ?? "", value] as const);
  return Object.fromEntries(found.filter(([label]) => label !== "").sort());
}

type Frame = [join_ref: unknown, ref: unknown, topic: string, event: string, payload: Record<string, unknown>];

/** A client of either version that keeps count of all that it says and hears. */
class Counted {
  sent = 0;
  readonly heard: Frame[] = [];
  #refs = 0;
  readonly #joins = new Map<string, string>();

  constructor(readonly raw: RawClient, private readonly vsn: "1" | "2") {}

  send(join_ref: unknown, ref: unknown, topic: string, event: string, payload: unknown): void {
    this.say(this.vsn === "2" ? [join_ref, ref, topic, event, payload] : { topic, event, payload, ref, join_ref });
  }
  /** Anything. */
  say(frame: unknown): void {
    this.sent++;
    this.raw.send(frame);
  }
  /** Says it and waits for the reply. */
  async ask(topic: string, event: string, payload: unknown = {}): Promise<Record<string, unknown>> {
    const ref = `r${++this.#refs}`;
    if (event === "phx_join") this.#joins.set(topic, ref);
    this.send(this.#joins.get(topic) ?? null, ref, topic, event, payload);
    return await this.until(ref);
  }
  async until(ref: string): Promise<Record<string, unknown>> {
    for (;;) {
      const frame = this.#keep(await this.raw.next(10_000));
      if (frame[3] === "phx_reply" && frame[1] === ref) return frame[4];
    }
  }
  /** Hears all that was said to it before now. */
  async settle(): Promise<void> {
    await this.ask("phoenix", "heartbeat");
  }
  /** Hears what is left, once it is closed. */
  async drained(): Promise<number> {
    const { code } = await this.raw.closed;
    for (let frame; (frame = await this.raw.next().catch(() => null));) this.#keep(frame);
    return code;
  }
  #keep(frame: Frame | Record<string, unknown>): Frame {
    const { join_ref, ref, topic, event, payload } = frame as Record<string, never>;
    const kept: Frame = Array.isArray(frame) ? frame as Frame : [join_ref, ref, topic, event, payload];
    this.heard.push(kept);
    return kept;
  }
}

const count = (counts: Record<string, number>, key: string) => void (counts[key] = (counts[key] ?? 0) + 1);
const sorted = (counts: Record<string, number>) => Object.fromEntries(Object.entries(counts).sort());

/** A V2 push whose payload is bytes. */
function binary(join_ref: string, ref: string, topic: string, event: string, data: Uint8Array): Uint8Array {
  const names = [join_ref, ref, topic, event].map((name) => new TextEncoder().encode(name));
  return Uint8Array.of(0, ...names.map(({ length }) => length), ...names.flatMap((name) => [...name]), ...data);
}

/** No events of a topic: answers, and what is said to one session alone; nor second names. */
const APART = new Set(["phx_reply", "phx_close", "phx_error", "presence_state", "token_expiring", "update"]);
const LASTING = /^(?:document|workflow):/;

Deno.test("metrics: after a load of every kind each counter is what the clients counted, and no topic, user or room stands in the text", async () => {
  await using at = await Outside.start({ PRESENCE_GRACE_MS: "0", LIMIT_REQUESTS: "25", LIMIT_AUTHENTICATE_MS: "60000" });
  const clients: Counted[] = [];
  const closes: Record<string, number> = {};
  const refusals: Record<string, number> = {};
  const connect = async (user: User, vsn: "1" | "2" = "2", ttlSeconds = 600) => {
    const token = at.secret(await at.server.token(user, ttlSeconds));
    const client = new Counted(await RawClient.open(at.url(token, `${vsn}.0.0`)), vsn);
    clients.push(client);
    return client;
  };
  const backEnd = await at.token(someone("secretbackend", "service", []));
  const publish = async (topic: string, events: { event: string; payload: unknown }[], token = backEnd): Promise<Answer> => {
    const answer = await at.publish(topic, events, token);
    if (answer.status !== 200) count(refusals, answer.body.reason);
    return answer;
  };
  const uploads = (from: number, to: number) =>
    Array.from({ length: to - from }, (_, n) => ({ event: "document:uploaded", payload: { document: { id: `secretdocument${from + n}` } } }));
  const [alpha, beta, documents] = ["case:secretalpha", "case:secretbeta", "collaboration:secretdocument0"];

  // One whose token ends meanwhile.
  const short = await connect(someone("secretshort"), "2", 3);
  // Before anybody is there: kept, and told to nobody.
  const before = await publish(alpha, uploads(0, 12));
  // Those who are there first, and stay.
  const watchers = [await connect(someone("secretwatcher1")), await connect(someone("secretwatcher2"), "1")];
  for (const [index, watcher] of watchers.entries()) {
    for (const topic of [alpha, beta, documents]) assertEquals((await watcher.ask(topic, "phx_join", { aliases: index === 0 })).status, "ok");
  }
  // Members who come, show something, speak, and leave one topic.
  const members = await Promise.all(Array.from({ length: 8 }, (_, n) => connect(someone(`secretmember${n}`), n % 2 ? "1" : "2")));
  await Promise.all(members.map(async (member, n) => {
    for (const topic of [alpha, beta, documents]) await member.ask(topic, "phx_join", { aliases: n < 4 });
    for (let turn = 0; turn < 3; turn++) await member.ask(alpha, "presence:update", { activity: `secretpayload ${n} ${turn}` });
    await member.ask(documents, "cursor:move", { x: n, y: n });
    if (n % 3 === 0) await member.ask(beta, "phx_leave");
  }));
  for (let request = 0; request < 4; request++) await publish(request % 2 ? beta : alpha, uploads(100 + request * 5, 105 + request * 5));
  await publish(alpha, [{ event: "document:uploaded", payload: { document: { id: "" } } }]);
  await publish(alpha, [{ event: "nope", payload: {} }]);
  await publish(alpha, uploads(0, 1), await at.token(someone("secretintruder")));
  // Two who get everything wrong.
  await Promise.all((["1", "2"] as const).map(async (vsn) => {
    const clumsy = await connect(someone(`secretclumsy${vsn}`, "viewer", ["secretalpha"]), vsn);
    await clumsy.ask(alpha, "phx_join", { aliases: false });
    await clumsy.ask(beta, "phx_join");
    await clumsy.ask("nonsense:1", "phx_join");
    await clumsy.ask("collaboration:secretunknown", "phx_join");
    await clumsy.ask("case:secretgamma", "phx_join", { user_id: "somebody else" });
    await clumsy.ask("case:secretgamma", "phx_join", { since: 5 });
    await clumsy.ask("case:secretgamma", "presence:update", {});
    await clumsy.ask("phoenix", "nope");
    await clumsy.ask(alpha, "nope");
    await clumsy.ask(alpha, "presence:update", { status: 5 });
    await clumsy.ask(alpha, "presence:update", { status: "x".repeat(70_000) });
    await clumsy.ask(alpha, "presence:update", []);
    await clumsy.ask(alpha, "presence:update", { encrypted: { iv: [1], data: [] } });
    await clumsy.ask(alpha, "batch", { messages: [{ event: "presence:update", payload: {} }, { event: "nope", payload: {} }] });
    assertEquals((await clumsy.ask(alpha, "batch", { messages: [{ event: "presence:update", payload: { status: `s${vsn}` } }] })).status, "ok");
    if (vsn === "2") {
      clumsy.say(binary("r1", "bytes", alpha, "presence:update", Uint8Array.of(1, 2, 3)));
      await clumsy.until("bytes");
    }
    for (let n = 0; n < 25; n++) await clumsy.ask(alpha, "presence:update", {});
  }));
  const nobody = new Counted(await RawClient.open(at.url(null)), "2");
  clients.push(nobody);
  await nobody.ask(alpha, "phx_join");
  // Two who come back to what they missed.
  const returning = [await connect(someone("secretreturner1")), await connect(someone("secretreturner2"), "1")];
  for (const client of returning) await client.ask(alpha, "phx_join", { since: before.body.events[4].cursor });
  // And those who go, in all ways.
  const goes = async (user: string, code: number, how: (client: Counted) => Promise<void> | void) => {
    const client = await connect(someone(user));
    await client.ask(alpha, "phx_join");
    await how(client);
    count(closes, String(code));
    const heard = await client.drained();
    // Nobody is told 1006: that is a connection that broke.
    if (code !== 1006) assertEquals(heard, code);
  };
  await goes("secretgone1", 1000, ({ raw }) => raw.ws.close(1000));
  await goes("secretgone2", 1005, ({ raw }) => raw.ws.close());
  await goes("secretgone3", 1001, ({ raw }) => raw.ws.close(1001));
  await goes("secretgone4", 1006, ({ raw }) => raw.ws.terminate());
  await goes("secretgone5", 1003, (client) => client.say("no frame"));
  await goes("secretgone6", 1001, async () => {
    assertEquals((await at.post("/api/users/secretgone6/disconnect", "", backEnd)).body, { disconnected: 1 });
  });
  await goes("secretgone7", 4002, async (client) => {
    assertEquals((await client.ask("auth", "authenticate", { token: "secrettoken" })).status, "error");
  });
  assertEquals(await short.drained(), 4001);
  count(closes, "4001");

  // Quiet: all who are gone are gone, and those who are here have heard it.
  const open = clients.length - Object.values(closes).reduce((sum, n) => sum + n, 0);
  await emptied(at, open);
  for (const client of clients) if (client.raw.ws.readyState === 1) await client.settle();
  const text = await (await fetch(`${at.server.url}/metrics`)).text();
  const series = parse(text);

  const frames = clients.flatMap(({ heard }) => heard);
  const replies = frames.filter(([, , , event]) => event === "phx_reply").map(([, , , , payload]) =>
    payload as { status: string; response: { reason: string } }
  );
  for (const { status, response } of replies) if (status === "error") count(refusals, response.reason);
  const replayed = returning.flatMap(({ heard }) => heard).filter(([, , , event]) => LASTING.test(event)).length;
  const told = frames.filter(([, , , event]) => !APART.has(event));
  const joins =
    frames.filter(([join_ref, ref, , event, payload]) => event === "phx_reply" && join_ref === ref && payload.status === "ok" && ref !== null).length;
  const db = new DatabaseSync(`${at.server.dataDir}/caseroom.db`, { readOnly: true });
  const { kept } = db.prepare("select count(*) as kept from log").get() as { kept: number };
  db.close();
  // One who is the first in a case is told to nobody else: that is a broadcast as well, of which no client knows.
  const alone = 2;
  // What each session heard at once is one broadcast; none was told twice.
  const distinct = new Set(told.filter(([, , , event]) => !LASTING.test(event)).map(([, , topic, event, payload]) => JSON.stringify([topic, event, payload])));
  const lasting = 4 * 5;
  assertEquals(
    Object.fromEntries([...series].filter(([key]) => /^caseroom_[a-z_]+_total$/.test(key) && !/commit/.test(key))),
    {
      caseroom_sockets_opened_total: clients.length,
      caseroom_messages_received_total: clients.reduce((sum, { sent }) => sum + sent, 0),
      caseroom_messages_sent_total: frames.length,
      caseroom_joins_total: joins,
      caseroom_replies_ok_total: replies.filter(({ status }) => status === "ok").length,
      caseroom_replies_error_total: replies.filter(({ status }) => status === "error").length,
      caseroom_broadcasts_total: distinct.size + lasting + alone,
      caseroom_deliveries_total: told.length - replayed,
      caseroom_events_replayed_total: replayed,
      caseroom_events_kept_total: kept,
      caseroom_passing_dropped_total: 0,
      caseroom_ticks_lost_total: 0,
    },
  );
  assertEquals(replayed, 2 * (7 + 10));
  assertEquals(labelled(series, "sockets_closed_total"), sorted(closes));
  assertEquals(labelled(series, "refusals_total"), sorted(refusals));
  assertEquals(Object.keys(refusals).length, 14, JSON.stringify(refusals));
  assertEquals(Object.keys(refusals).filter((reason) => !Object.hasOwn(REASONS, reason)), []);
  assertEquals(series.get("caseroom_sockets"), open);
  // All members but three in three topics, the clumsy and the returning in one.
  assertEquals(series.get("caseroom_sessions"), (members.length + watchers.length) * 3 - 3 + 4);
  assertGreater(series.get("caseroom_commits_total")!, 0);
  assertGreater(series.get("caseroom_commit_seconds_total")!, 0);
  // No topic, room, user, document or payload.
  assertEquals(text.split("\n").filter((line) => /secret|case:|case\//i.test(line)), []);

  for (const client of clients) if (client.raw.ws.readyState === 1) await client.raw.close();
  assertEquals(await at.server.stop(), 0);
});

// What clients were told, and what was counted, where it is not plain.

Deno.test("metrics: a close by the transport is counted, and noted, under the code that the client was told: 1002, 1007, 1009", async () => {
  await using at = await Outside.start();
  const wrong: Record<string, (client: TcpClient) => Promise<void>> = {
    1002: (client) => client.frame(1, "x", { rsv: 4 }),
    1007: (client) => client.frame(1, Uint8Array.of(0xff, 0xfe)),
    1009: (client) => client.write(Uint8Array.of(0x81, 0xff, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0)),
  };
  for (const [code, say] of Object.entries(wrong)) {
    const client = await TcpClient.open(at.server.port, `/socket/websocket?vsn=2.0.0&token=${await at.token()}`);
    await say(client);
    assertEquals(await client.closeCode(), Number(code));
    client.close();
  }
  assertEquals(labelled(await emptied(at), "sockets_closed_total"), { 1002: 1, 1007: 1, 1009: 1 });
  assertEquals(await at.server.stop(), 0);
  assertEquals(linesOf(at).filter(({ event }) => event === "socket closed").map(({ code }) => code).sort(), [1002, 1007, 1009]);
});

Deno.test("metrics: clients that make up close codes make no series of their own", async () => {
  await using at = await Outside.start();
  const token = await at.token();
  for (let code = 3000; code < 3030; code++) {
    const client = await RawClient.open(at.url(token));
    client.ws.close(code);
    await client.closed;
  }
  const closed = labelled(await emptied(at), "sockets_closed_total");
  assertEquals(Object.values(closed).reduce((sum, n) => sum + n, 0), 30);
  assertLess(Object.keys(closed).length, 3, JSON.stringify(closed));
});

/** What a turn of a lab room does, and the reason with which it is refused. */
const ours: Record<string, { reason: string; event?: string; fails?: "commit" | "statement" }> = {
  "a lost commit": { reason: "unavailable", fails: "commit" },
  "a full disk under a statement": { reason: "unavailable", fails: "statement" },
  "a reply that cannot be encoded": { reason: "internal", event: "also" },
  "a join that crashes": { reason: "join crashed", event: "phx_join" },
  "a refusal": { reason: "forbidden", event: "bytes" },
};
for (const [what, { reason, event = "do", fails }] of Object.entries(ours)) {
  Deno.test(`metrics: ${what} is counted as it is answered: ${reason}`, () => {
    const sql = new BreakableSql();
    const room = lab({
      join(_, { crash }) {
        if (crash) throw new Error("ours");
        return {};
      },
      on: {
        do: (ctx) => void ctx.sql`insert into lab_item (room, id, body) values (${ctx.room}, 'x', '')`,
        also: () => ({ n: 1n }),
        bytes() {
          throw new Refusal("forbidden");
        },
      },
    });
    const stage = new Stage([room], { sql });
    const client = stage.client();
    client.join("lab:1");
    if (fails === "commit") sql.failCommits = 1;
    if (fails === "statement") sql.failing = /^insert into lab_item/;
    const heard = client.send([event === "phx_join" ? "2" : null, "2", event === "phx_join" ? "lab:2" : "lab:1", event, { crash: true }]);
    assertEquals(heard.map((frame) => frame[4].response.reason), [reason]);
    assertEquals([Object.fromEntries(stage.metrics.refusals), stage.metrics.counts.replies_error], [{ [reason]: 1 }, 1]);
    assertEquals(stage.metrics.counts.ticks_lost, fails ? 1 : 0);
    stage.close();
  });
}

Deno.test("metrics: every refusal over HTTP is counted under the reason that it was answered with", async () => {
  await using at = await Outside.start({ LIMIT_PUBLISH_BYTES: "2000", LIMIT_REQUESTS: "2" });
  const [backEnd, lawyer, stranger] = [at.fresh("service"), at.fresh(), at.fresh("viewer", [])];
  const tokens = await Promise.all([backEnd, lawyer, stranger].map((user) => at.token(user)));
  const [service, member, other] = tokens;
  const post = (body: unknown, token: string | null, topic = "case:1") => at.post(`/api/topics/${topic}/events`, JSON.stringify(body), token);
  const get = (path: string, token: string | null) => at.post(path, "", token, "GET");
  const document = (id: unknown) => ({ events: [{ event: "document:uploaded", payload: { document: { id } } }] });
  const answers = [
    await post(document("d"), null),
    await post(document("d"), "nonsense"),
    await post(document("d"), member),
    await post(document("d"), service, "nonsense:1"),
    await post(document(5), service),
    await post({ events: [] }, service),
    await post({ events: [{ event: "nope", payload: {} }] }, service),
    await post(document("x".repeat(3000)), service),
    await post({ events: [{ ...document("a").events[0], id: "one" }, { ...document("b").events[0], id: "one" }] }, service),
    await get("/api/cases/1/log", null),
    await get("/api/cases/1/log", other),
    await get("/api/cases/1/log?limit=0", member),
    await get("/api/cases/1/log?after=x", member),
    await get("/api/cases/1/log", member),
    await at.post("/api/users/x/disconnect", "", member),
    await asked(at, { via: "1.1 x" }).then(({ status, body }) => ({ status, body: JSON.parse(body) })),
  ];
  const counts: Record<string, number> = {};
  for (const { status, body } of answers) {
    assertGreater(status, 399, JSON.stringify(body));
    count(counts, body.reason);
  }
  assertEquals(labelled(await scrape(at), "refusals_total"), sorted(counts));
  assertEquals(Object.keys(sorted(counts)), [
    "duplicate",
    "forbidden",
    "invalid_payload",
    "payload_too_large",
    "rate_limited",
    "token_invalid",
    "unauthenticated",
    "unknown_event",
    "unmatched topic",
  ]);
});

/** A document that is known, and two who look at it. */
function collaboration() {
  const stage = new Stage(rooms, { limits: { passing_outbox_bytes: 10 } });
  void stage.registry.publish("case:1", someone("s", "service"), [{ event: "document:uploaded", payload: { document: { id: "d" } } }]);
  stage.run();
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  for (const client of [a, b]) client.join("collaboration:d");
  return { stage, a, b };
}

Deno.test("metrics: messages sent are those that arrive: a passing event that a slow reader gets later counts once he gets it", () => {
  const { stage, a, b } = collaboration();
  const { counts } = stage.metrics;
  for (const client of [a, b]) client.take();
  const before = counts.messages_sent;
  b.wire.backlog = 1000;
  for (let x = 0; x < 3; x++) {
    const heard = a.send([null, `c${x}`, "collaboration:d", "cursor:move", { x, y: 0 }]).length;
    assertEquals([heard, b.take().length], [1, 0]);
    stage.clock.advance(100, () => stage.run());
  }
  assertEquals([counts.messages_sent - before, counts.passing_dropped], [3, 3]);
  b.wire.backlog = 0;
  stage.advance(2000);
  assertEquals(b.take().map((frame) => frame[4]), [{ user_id: "a", x: 2, y: 0 }]);
  assertEquals(counts.messages_sent - before, 4);
  stage.close();
});

Deno.test("metrics: what a slow reader did not get was not delivered to him", () => {
  const { stage, a, b } = collaboration();
  const before = stage.metrics.counts.deliveries;
  b.wire.backlog = 1000;
  a.send([null, "c", "collaboration:d", "cursor:move", { x: 1, y: 0 }]);
  assertEquals([b.take().filter((frame) => frame[3] === "cursor:position"), stage.metrics.counts.passing_dropped], [[], 1]);
  assertEquals(stage.metrics.counts.deliveries - before, 0);
  stage.close();
});

Deno.test("metrics: nothing counts as sent to a socket that was closed in the same tick", () => {
  const stage = new Stage([lab({ on: { do: (ctx) => ctx.push("pushed", {}) } })]);
  const client = stage.client();
  client.join("lab:1");
  const { messages_sent, replies_ok, joins } = { ...stage.metrics.counts };
  assertEquals(client.send([null, "1", "lab:1", "do", {}], ["2", "2", "lab:2", "phx_join", {}], "no frame"), []);
  assertEquals(client.wire.code, 1003);
  const { counts } = stage.metrics;
  assertEquals([counts.messages_sent, counts.replies_ok, counts.joins], [messages_sent, replies_ok, joins]);
  stage.close();
});

Deno.test("metrics: entries and commits count once they are kept, lost ticks when they are lost", () => {
  const sql = new BreakableSql();
  const stage = new Stage([lab({ on: { do: (ctx) => ctx.broadcast("kept", {}) } })], { sql });
  const client = stage.client();
  client.join("lab:1");
  const { counts } = stage.metrics;
  const commits = counts.commits;
  sql.failCommits = 1;
  client.send([null, "1", "lab:1", "do", {}], [null, "2", "lab:1", "do", {}]);
  assertEquals([counts.events_kept, counts.commits - commits, counts.ticks_lost], [0, 0, 1]);
  client.send([null, "3", "lab:1", "do", {}], [null, "4", "lab:1", "do", {}], [null, "5", "lab:1", "do", {}]);
  assertEquals([counts.events_kept, counts.commits - commits, counts.ticks_lost], [3, 1, 1]);
  assertEquals(sql.run("select count(*) as n from log", [], false)[0].n, 3);
  stage.close();
});

// Who may look.

const TOKEN = "a token of sixteen or more".replaceAll(" ", "-");
const asked = (at: Outside, headers: Record<string, string>): Promise<HttpAnswer> =>
  TcpClient.request(at.server.port, "GET", "/metrics", { host: "127.0.0.1", connection: "close", ...headers });

Deno.test("metrics: this machine looks without a token; what a proxy on it hands on needs the METRICS_TOKEN", async () => {
  await using at = await Outside.start({ METRICS_TOKEN: TOKEN });
  const proxies: Record<string, string>[] = [
    { "x-forwarded-for": "203.0.113.7" },
    { "x-forwarded-for": "127.0.0.1" },
    { forwarded: "for=203.0.113.7" },
    { via: "1.1 proxy" },
    { "x-real-ip": "203.0.113.7" },
    { "x-forwarded-host": "app.example.com" },
    { "x-forwarded-for": "" },
  ];
  assertEquals((await asked(at, {})).status, 200);
  // A wrong token changes nothing for whoever needs none.
  assertEquals((await asked(at, { authorization: "Bearer wrong" })).status, 200);
  const user = await at.token(someone("admin", "admin"));
  for (const proxy of proxies) {
    const answers: [string | undefined, number][] = [
      [undefined, 401],
      [`Bearer ${TOKEN}`, 200],
      [`bearer   ${TOKEN}`, 200],
      [`Bearer ${TOKEN}x`, 401],
      [`Bearer ${TOKEN.slice(0, -1)}`, 401],
      [`Bearer ${TOKEN.toUpperCase()}`, 401],
      [`Basic ${TOKEN}`, 401],
      [TOKEN, 401],
      [`Bearer ${user}`, 401],
      ["Bearer ", 401],
    ];
    for (const [authorization, status] of answers) {
      const answer = await asked(at, { ...proxy, ...(authorization !== undefined && { authorization }) });
      assertEquals([authorization, answer.status, answer.body.includes("caseroom_sockets")], [authorization, status, status === 200], JSON.stringify(proxy));
      if (status === 401) assertMatch(answer.body, /"reason":"unauthenticated"/);
    }
  }
  assertEquals(at.server.output().includes(TOKEN), false);
});

Deno.test("metrics: without a METRICS_TOKEN nothing that is forwarded gets in", async () => {
  await using at = await Outside.start({ TRUST_PROXY: "1" });
  for (const authorization of ["Bearer ", "Bearer undefined", "Bearer null", `Bearer ${await at.token(someone("a", "admin"))}`]) {
    assertEquals((await asked(at, { "x-forwarded-for": "203.0.113.7", authorization })).status, 401);
  }
  assertEquals((await asked(at, {})).status, 200);
});

Deno.test("metrics: an address is this machine's own or it is not", async () => {
  const metrics = new Metrics();
  // The page alone: what it throws is answered by the app around it.
  const status = async (peer: string | undefined, token?: string, given?: string, host = "127.0.0.1:4000") => {
    const headers = { host, ...(given === undefined ? {} : { authorization: `Bearer ${given}` }) };
    const page = metricsPage(metrics, token, sha256).onError((error) =>
      new Response(null, { status: (error as Refusal).reason === "unauthenticated" ? 401 : 500 })
    );
    return (await page.request("/metrics", { headers }, { peer })).status;
  };
  for (const own of ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"]) assertEquals(await status(own), 200, own);
  for (const name of ["localhost", "LOCALHOST:4000", "127.0.0.1", "[::1]:4000"]) assertEquals(await status("127.0.0.1", undefined, undefined, name), 200, name);
  // A proxy on this machine that says nothing of itself.
  for (const name of ["app.example.com", "localhost.example.com", "x.localhost", "127.0.0.1.example.com", ""]) {
    assertEquals(await status("127.0.0.1", undefined, undefined, name), 401, name);
    assertEquals(await status("127.0.0.1", TOKEN, TOKEN, name), 200, name);
  }
  const others = ["10.0.0.1", "192.168.127.1", "128.0.0.1", "12.7.0.1", "::ffff:10.127.0.1", "::2", "fe80::1", "2001:db8::1", "::", "0.0.0.0", "", undefined];
  for (const other of others) {
    assertEquals(await status(other), 401, other);
    assertEquals(await status(other, TOKEN, TOKEN), 200, other);
    assertEquals(await status(other, TOKEN, "wrong"), 401, other);
  }
});

const own = Deno.networkInterfaces().find(({ family, address }) => family === "IPv4" && !address.startsWith("127."))?.address;
Deno.test({
  name: "metrics: on another address of this machine they need the token, where the rest is served",
  ignore: own === undefined,
  async fn() {
    await using at = await Outside.start({ HOST: "0.0.0.0", METRICS_TOKEN: TOKEN });
    const get = async (path: string, authorization?: string) => {
      const response = await fetch(`http://${own}:${at.server.port}${path}`, { headers: authorization === undefined ? {} : { authorization } });
      await response.body?.cancel();
      return response.status;
    };
    assertEquals([await get("/health"), await get("/metrics"), await get("/metrics", `Bearer ${TOKEN}`)], [200, 401, 200]);
    assertEquals((await asked(at, {})).status, 200);
  },
});

Deno.test("metrics: a METRICS_TOKEN of less than 16 characters is refused at the start and not repeated", async () => {
  const error = await assertRejects(() => startServer({ METRICS_TOKEN: "123456789012345" }), Error, "METRICS_TOKEN");
  assertEquals(error.message.includes("123456789012345"), false);
  assertEquals(readConfig({ METRICS_TOKEN: "1234567890123456" }).METRICS_TOKEN, "1234567890123456");
});

Deno.test("metrics: a METRICS_TOKEN that no bearer can carry is refused at the start", () => {
  for (const token of ["sixteen and more, with blanks", "sixteen-and-more\twith-a-tab"]) {
    assertThrows(() => readConfig({ METRICS_TOKEN: token }), TypeError, "METRICS_TOKEN");
  }
});

// The lines on stderr.

interface Line {
  readonly level: string;
  readonly at: string;
  readonly event?: string;
  readonly [field: string]: unknown;
}

/** Every line but those for whoever starts it by hand. */
function linesOf(at: Outside): Line[] {
  const lines = at.server.output().split("\n").filter((line) => line !== "" && !/^Caseroom is ready on |^Download /.test(line));
  return lines.map((line) => {
    const parsed = JSON.parse(line);
    assertMatch(parsed.level, /^(?:info|error)$/);
    assertEquals(new Date(parsed.at).toISOString(), parsed.at);
    assertEquals(typeof (parsed.level === "info" ? parsed.event : parsed.where), "string");
    return parsed;
  });
}

Deno.test("journal: one JSON line for each thing worth knowing, and never a payload or a token", async () => {
  await using at = await Outside.start({ PRESENCE_GRACE_MS: "0" });
  const [mark, topic] = ["secretpayload", "case:1"];
  const backEnd = await at.token(someone("back end", "service", []));
  const a = await at.member(topic, someone("a"));
  const nobody = await at.connect(null);
  assertEquals((await nobody.ask([null, "1", "auth", "authenticate", { token: await at.token(someone("b")) }]))[4].status, "ok");
  assertEquals((await nobody.ask([null, "2", "auth", "authenticate", { token: await at.token(someone("b")) }]))[4].status, "ok");
  for (const url of [`${at.url(mark.repeat(3))}`, at.url(await at.token(), "3.0.0")]) await assertRejects(() => RawClient.open(url));
  // All that can carry a payload, well-formed or not.
  await a.ask(["1", "3", topic, "presence:update", { activity: mark }]);
  await a.ask(["1", "4", topic, "presence:update", { activity: [mark] }]);
  await a.ask(["1", "5", topic, mark, { [mark]: mark }]);
  await a.ask(["1", "6", topic, "batch", { messages: [{ event: mark, payload: mark }] }]);
  await a.ask(["9", "9", topic, "phx_join", { user_id: mark }]);
  await a.ask(["10", "10", topic, "phx_join", {}]);
  const upload = { event: "document:uploaded", payload: { document: { id: "d", title: mark } } };
  assertEquals((await at.publish(topic, [upload], backEnd)).status, 200);
  assertEquals((await at.publish(topic, [{ event: mark, payload: mark }], backEnd)).status, 422);
  assertEquals((await at.post(`/api/topics/${topic}/events`, `{"${mark}"`, backEnd)).status, 422);
  // An error of ours, with a payload under way: somebody else holds the file.
  const db = new DatabaseSync(`${at.server.dataDir}/caseroom.db`);
  db.exec("begin immediate");
  assertEquals((await at.publish(topic, [upload], backEnd)).body, { reason: "unavailable", message: "not known to be kept; try again with the same id" });
  db.exec("rollback");
  db.close();
  const garbled = await at.connect(someone("c"));
  garbled.send(mark);
  assertEquals((await garbled.closed).code, 1003);
  const gone = await at.member(topic, someone("d"));
  assertEquals((await at.post("/api/users/d/disconnect", "", backEnd)).body, { disconnected: 1 });
  assertEquals((await gone.closed).code, 1001);
  const left = at.server.stop();
  assertEquals([(await a.closed).code, (await nobody.closed).code, await left], [1012, 1012, 0]);

  const lines = linesOf(at);
  const of = (event: string, ...fields: string[]) => lines.filter((line) => line.event === event).map((line) => fields.map((field) => line[field]));
  assertEquals(of("ready", "port", "development"), [[at.server.port, false]]);
  assertEquals(of("socket open", "user", "vsn").map(([user]) => user), ["a", undefined, "c", "d"]);
  assertEquals(of("socket closed", "user", "code", "topics"), [["c", 1003, 0], ["d", 1001, 1], ["a", 1012, 1], ["b", 1012, 0]]);
  assertEquals(of("socket closed", "seconds").filter(([seconds]) => typeof seconds !== "number" || seconds > 60), []);
  assertEquals(of("socket refused", "status", "reason"), [[403, "token_invalid"], [403, "vsn"]]);
  assertEquals([of("authenticated", "user"), of("token renewed", "user")], [[["b"]], [["b"]]]);
  assertEquals(of("user disconnected", "user", "by", "sockets"), [["d", "back end", 1]]);
  assertEquals([of("draining", "sockets"), of("ended")], [[[2]], [[]]]);
  const errors = lines.filter(({ level }) => level === "error");
  assertEquals(errors.map(({ where }) => where), ["a commit: the tick is lost"]);
  assertEquals((errors[0].causes as string[]).at(-1), "database is locked");
  assertEquals(lines.length, 1 + 4 + 4 + 2 + 2 + 1 + 2 + 1);
  assertEquals(lines.at(-1)?.event, "ended");
  const { output } = at.server;
  assertEquals(output().includes(mark) || output().includes(backEnd.slice(-20)), false, output());
});

Deno.test("journal: no socket opens in it that did not open: a handshake that is refused late is none", async () => {
  await using at = await Outside.start();
  const path = `/socket/websocket?vsn=2.0.0&token=${await at.token()}`;
  const wrongs: Record<string, string>[] = [{ "sec-websocket-key": "x" }, { "sec-websocket-version": "8" }];
  for (const wrong of wrongs) {
    assertEquals((await TcpClient.request(at.server.port, "GET", path, { ...UPGRADE, ...wrong })).status, 400);
  }
  const series = await scrape(at);
  assertEquals(series.get("caseroom_sockets_opened_total"), 0);
  assertEquals(await at.server.stop(), 0);
  assertEquals(linesOf(at).map(({ event }) => event), ["ready", "draining", "ended"]);
});

Deno.test("journal: however many sockets are closed at once, its last line says that the process has ended", async () => {
  await using at = await Outside.start({ DRAIN_MS: "0" });
  const token = await at.token();
  const clients = await Promise.all(Array.from({ length: 600 }, () => RawClient.open(at.url(token))));
  const closed = Promise.all(clients.map((client) => client.closed));
  assertEquals(await at.server.stop(), 0);
  assertEquals((await closed).filter(({ code }) => code !== 1012), []);
  assertEquals(linesOf(at).map(({ event }) => event).filter((event) => event === "draining" || event === "ended"), ["draining", "ended"]);
});

Deno.test("journal: a flush while a write is under way waits for it, and for what was noted since: the last line of a process is not lost", async () => {
  let written = "";
  const taken: (() => void)[] = [];
  const journal = new Journal(async (bytes) => {
    await new Promise<void>((resolve) => taken.push(resolve));
    written += new TextDecoder().decode(bytes);
    return bytes.length;
  });
  journal.note("first", {});
  const first = journal.flush();
  journal.note("last", {}, true);
  let flushed = false;
  const last = journal.flush().then(() => flushed = true);
  await new Promise((resolve) => setTimeout(resolve, 0));
  const early = flushed;
  for (let turn = 0; turn < 5; turn++) {
    taken.splice(0).forEach((take) => take());
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  // Ends what a journal that does not wait has left to its timer.
  if (!written.includes("last")) void journal.flush();
  taken.splice(0).forEach((take) => take());
  await Promise.all([first, last]);
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals([early, written.split("\n").filter(Boolean).map((line) => JSON.parse(line).event)], [false, ["first", "last"]]);
});

// Memory.

Deno.test("memory: 60,000 topics that came and went leave at most 1,100 rooms behind, and the heap as it was", async () => {
  const users = 4;
  // Little room: garbage is collected before the limit, a leak runs into it.
  const start = START.map((argument) => argument === "run" ? ["run", "--v8-flags=--max-old-space-size=64"] : argument).flat();
  const limits = { LIMIT_JOINS: "100000000", LIMIT_FRAMES: "100000000", PRESENCE_GRACE_MS: "0" };
  await using server = await startServer(limits, start);
  const gauges = async () => parse(await (await fetch(`${server.url}/metrics`)).text());
  const clients = await Promise.all(Array.from({ length: users }, async (_, n) => {
    // One of them may enter none.
    const token = await server.token(someone(`u${n}`, "attorney", n > 0 ? "*" : []));
    return await RawClient.open(`${server.ws}/websocket?vsn=2.0.0&token=${token}`);
  }));
  let next = 0;
  const visit = async (count: number) => {
    const end = next + count;
    await Promise.all(clients.map(async (client) => {
      while (next < end) {
        const frames = [];
        for (let n = 0; n < 250 && next < end; n++) {
          const [ref, topic] = [String(++next), `case:${next}`];
          frames.push([ref, ref, topic, "phx_join", {}], [ref, "l", topic, "phx_leave", {}]);
        }
        client.burst(frames);
        const heard = await client.heard();
        assertEquals(heard.filter((frame) => frame[3] === "phx_reply").length, frames.length);
      }
    }));
  };
  // What is left once garbage is collected: the least that is seen while a little more happens, until that is less than asked.
  const heap = async (asked: number, ms: number) => {
    let least = Infinity;
    for (const end = Date.now() + ms; least > asked && Date.now() < end;) {
      least = Math.min(least, (await gauges()).get("caseroom_heap_used_bytes")!);
      await visit(250);
    }
    return least;
  };
  await visit(8_000);
  const before = await heap(0, 500);
  await visit(60_000);
  const now = await gauges();
  assertEquals([now.get("caseroom_sessions"), now.get("caseroom_sockets")], [0, users]);
  assertLess(now.get("caseroom_rooms")!, 1100);
  const most = before + 3_500_000;
  assertLess(await heap(most, 5000), most);
  for (const client of clients) await client.close();
  assertEquals(await server.stop(), 0);
});
