/** Several pushes in one: all in their order, or none. [B01 to B05, X28] */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { z } from "zod";
import { channel, exact, lasting } from "../protocol/contract.ts";
import { channels } from "../protocol/channels/mod.ts";
import { Refusal } from "../protocol/reason.ts";
import { rooms } from "../rooms/channels/mod.ts";
import { sha256 } from "../rooms/hosts/deno.ts";
import { verifyLog } from "../rooms/log.ts";
import { behave, Later, room } from "../rooms/room.ts";
import { oneOfEach } from "./support/desk.ts";
import { batchedChannel, Notes, Phone } from "./support/page.ts";
import { startServer } from "./support/process.ts";
import { BreakableSql, someone, Stage, type StageClient } from "./support/stage.ts";

const Any = z.looseObject({});
const TOPIC = "lab:1";

const contract = channel({
  topic: "lab:{id}",
  join: { payload: Any, reply: z.unknown() },
  pushes: {
    put: { payload: z.looseObject({ id: z.string() }), reply: z.object({ id: z.string(), before: z.int() }) },
    ghost: { payload: Any },
    hush: { payload: Any, silent: true },
    sealed: { payload: Any, encrypted: true },
    later: { payload: Any },
    crash: { payload: Any },
    uncodable: { payload: Any },
    close: { payload: Any },
    forbidden: { payload: Any },
    conflict: { payload: Any },
  },
  events: { kept: lasting(Any), told: exact(Any) },
  presence: Any,
});

const lab = room("lab/{id}", {
  migrations: ["create table lab_item (room text not null, id text not null, primary key (room, id)) strict"],
  topics: [behave(contract, {
    admit() {},
    join(ctx) {
      ctx.presence.track({ name: ctx.user.name });
      return {};
    },
    on: {
      /** All that a turn can do. */
      put(ctx, { id, ...more }) {
        const before = ctx.sql`select id from lab_item where room = ${ctx.room}`.length;
        ctx.sql`insert into lab_item (room, id) values (${ctx.room}, ${id})`;
        ctx.broadcast("kept", { id, ...more });
        ctx.broadcastFrom("told", { id });
        ctx.push("pushed", { id });
        ctx.presence.update({ activity: id });
        ctx.after(1000, id);
        ctx.call("lab/2", { id });
        return { id, before };
      },
      ghost(ctx) {
        ctx.presence.track({ name: "ghost" }, "ghost");
      },
      hush() {},
      sealed: (ctx, payload) => ctx.broadcast("told", payload),
      later: () => new Later(() => Promise.resolve()),
      crash() {
        throw new RangeError("ours");
      },
      uncodable: () => ({ n: 1n }) as never,
      close: (ctx) => ctx.close(),
      forbidden: (ctx) => ctx.require("publish"),
      conflict() {
        throw new Refusal("version_conflict", { message: "somebody was faster", limit: 7 });
      },
    },
  })],
  timers: {},
  called() {},
});

function setUp() {
  const stage = new Stage([lab]);
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  const { ref } = a.join(TOPIC);
  b.join(TOPIC);
  a.take();
  return { stage, a, b, ref };
}

interface Inner {
  readonly event?: unknown;
  readonly payload?: unknown;
}

const put = (id: string, more: object = {}) => ({ event: "put", payload: { id, ...more } });
const ok = (response: unknown = {}) => ({ status: "ok", response });

/** What the sender heard, and the reply's payload. */
function push(client: StageClient, payload: unknown, event = "batch", topic = TOPIC) {
  const heard = client.send([null, "9", topic, event, payload]);
  return { heard, reply: heard.find((frame) => frame[1] === "9" && frame[3] === "phx_reply")?.[4] };
}
const batch = (client: StageClient, messages: readonly Inner[], topic = TOPIC) => push(client, { messages }, "batch", topic);

const rows = (stage: Stage, statement: string) => stage.host.sql.run(statement, [], false).map((row) => Object.values(row));
const TABLES = ["lab_item", "log", "log_head", "timer", "outbox", "called"];

/** Nothing on disk, nothing in presence, nothing told. */
function traceless({ stage, a, b }: { stage: Stage; a: StageClient; b: StageClient }, what = "") {
  for (const table of TABLES) {
    const elsewhere = table.startsWith("log") ? "where room <> 'refusals'" : "";
    assertEquals(rows(stage, `select * from ${table} ${elsewhere}`), [], `${what}: ${table}`);
  }
  stage.advance(2000);
  assertEquals([a.take(), b.take()], [[], []], what);
  const state = stage.client(someone("c")).join(TOPIC).heard.find((frame) => frame[3] === "presence_state")[4];
  assertEquals(Object.entries<{ metas: { activity?: string }[] }>(state).sort().map(([key, { metas }]) => [key, metas.map(({ activity }) => activity)]), [
    ["a", [undefined]],
    ["b", [undefined]],
    ["c", [undefined]],
  ], what);
  a.take();
  b.take();
}

Deno.test("batch: its messages are taken in their order, in one turn and one write, and answered in one reply, in that order [B01, B04]", () => {
  const { stage, a, b, ref } = setUp();
  const { heard, reply } = batch(a, [put("x"), { event: "ghost", payload: {} }, put("y"), { event: "hush", payload: {} }, put("z")]);
  assertEquals(reply, ok({ results: [ok({ id: "x", before: 0 }), ok(), ok({ id: "y", before: 1 }), ok(), ok({ id: "z", before: 2 })] }));
  assertEquals(heard.map((frame) => [frame[0], frame[1], frame[3], frame[4].id]), [
    ...["x", "y", "z"].flatMap((id) => [[null, null, "kept", id], [ref, null, "pushed", id]]),
    [ref, "9", "phx_reply", undefined],
    [null, null, "presence_diff", undefined],
  ]);
  const told = b.take();
  assertEquals(told.map((frame) => [frame[3], frame[4].id]), [
    ...["x", "y", "z"].flatMap((id) => [["kept", id], ["told", id]]),
    ["presence_diff", undefined],
  ]);
  assertEquals([told.at(-1)[4].joins.a.metas.length, told.at(-1)[4].joins.a.metas[0].activity, Object.keys(told.at(-1)[4].joins)], [1, "z", ["ghost", "a"]]);
  assertEquals(rows(stage, "select id from lab_item order by id"), [["x"], ["y"], ["z"]]);
  // One entry for each lasting event, and none for the batch.
  assertEquals(rows(stage, "select user, event, payload from log order by seq"), ["x", "y", "z"].map((id) => ["a", "kept", `{"id":"${id}"}`]));
  assertEquals(rows(stage, "select name from timer order by name"), [["x"], ["y"], ["z"]]);
  assertEquals(stage.reported, []);
  stage.close();
});

const REFUSED: readonly (readonly [string, Inner, Record<string, unknown>])[] = [
  ["an unknown event", { event: "nope", payload: {} }, { reason: "unknown_event" }],
  ["a name of every object", { event: "constructor", payload: {} }, { reason: "unknown_event" }],
  ["a join", { event: "phx_join", payload: {} }, { reason: "unknown_event" }],
  ["a batch", { event: "batch", payload: { messages: [put("inner")] } }, { reason: "invalid_payload", message: "a batch in a batch" }],
  ["what takes its time", { event: "later", payload: {} }, { reason: "invalid_payload", message: "later takes its time: it cannot stand in a batch" }],
  ["a refusal of the room", { event: "conflict", payload: {} }, { reason: "version_conflict", message: "somebody was faster", limit: 7 }],
  ["a lack of rights", { event: "forbidden", payload: {} }, { reason: "forbidden", message: "the role attorney may not publish" }],
  ["a payload of the wrong form", { event: "put", payload: { id: 1 } }, { reason: "invalid_payload" }],
  ["a payload that is no object", { event: "put", payload: [] }, { reason: "invalid_frame", message: "the payload is no object" }],
  ["an encrypted payload that the room must read", { event: "put", payload: { encrypted: { iv: [1], data: [2] } } }, { reason: "encrypted_not_supported" }],
  ["a wrong encrypted payload", { event: "sealed", payload: { encrypted: { iv: [256], data: [2] } } }, { reason: "invalid_payload" }],
];

for (const [what, message, expected] of REFUSED) {
  Deno.test(`batch: ${what} refuses all of it: nothing is written, shown or told; the reply names the message [B03]`, () => {
    for (const [index, messages] of [[0, [message, put("x")]], [2, [put("x"), put("y"), message, put("z"), { event: "nope", payload: {} }]]] as const) {
      const at = setUp();
      const { heard, reply } = batch(at.a, messages);
      const { response } = reply;
      assertEquals([heard.length, reply.status, response.reason, response.index], [1, "error", "batch_rejected", index]);
      for (const [field, value] of Object.entries(expected)) assertEquals(response.refused[field], value);
      assertStringIncludes(response.message, `messages.${index}: `);
      traceless(at, `at ${index}`);
      assertEquals(at.stage.reported, []);
      // It can be sent again.
      assertEquals(batch(at.a, [put("x"), put("y")]).reply.status, "ok");
      at.stage.close();
    }
  });
}

Deno.test("batch: the first of several refusals is the one that is told", () => {
  const { stage, a } = setUp();
  const { index, refused } = batch(a, [put("x"), { event: "conflict", payload: {} }, { event: "forbidden", payload: {} }]).reply.response;
  assertEquals([index, refused.reason], [1, "version_conflict"]);
  stage.close();
});

const MALFORMED: readonly (readonly [string, unknown, string, string?])[] = [
  ["no messages", {}, "invalid_payload", "messages: "],
  ["none at all", { messages: [] }, "invalid_payload", "messages: "],
  ["an object of messages", { messages: { 0: put("x") } }, "invalid_payload", "messages: "],
  ["a text", { messages: "put" }, "invalid_payload", "messages: "],
  ["null", { messages: null }, "invalid_payload", "messages: "],
  ["a message that is none", { messages: [put("x"), null] }, "invalid_payload", "messages.1: "],
  ["a list as message", { messages: [["put", {}]] }, "invalid_payload", "messages.0"],
  ["an event that is no text", { messages: [put("x"), { event: 1, payload: {} }] }, "invalid_payload", "messages.1.event: "],
  ["a message without a payload", { messages: [put("x"), { event: "put" }] }, "invalid_payload", "messages.1.payload: "],
  ["101 messages", { messages: Array(101).fill(put("x")) }, "batch_rejected", "a batch of 101 messages"],
  ["2,000 messages", { messages: Array(2000).fill({ event: "", payload: 0 }) }, "batch_rejected", "a batch of 2000 messages"],
  ["10,000 messages", { messages: Array(10_000).fill(put("x")) }, "payload_too_large"],
  ["10,000 that are none", { messages: Array(10_000).fill(0) }, "invalid_payload", "messages.0: "],
  ["messages nested too deep", { messages: [put("x"), { event: "put", payload: JSON.parse('{"a":'.repeat(62) + "1" + "}".repeat(62)) }] }, "invalid_payload"],
  ["more than 65,536 units in all", { messages: Array(10).fill(put("x".repeat(6600))) }, "payload_too_large"],
  ["a list for the payload", [], "invalid_frame"],
];

for (const [what, payload, reason, message = ""] of MALFORMED) {
  Deno.test(`batch: ${what} is refused ${reason} at once, and leaves no trace [B05]`, () => {
    const at = setUp();
    const begun = performance.now();
    const { heard, reply } = push(at.a, payload);
    assertEquals([heard.length, reply.status, reply.response.reason], [1, "error", reason]);
    assertStringIncludes(reply.response.message ?? "", message);
    if (reason === "batch_rejected") assertEquals(reply.response.limit, 100);
    if (reason === "payload_too_large") assertEquals(reply.response.limit, 65_536);
    assertEquals(performance.now() - begun < 500, true);
    traceless(at);
    at.stage.close();
  });
}

Deno.test("batch: 100 messages are taken; a limit of its own can be set", () => {
  const { stage, a } = setUp();
  const { results } = batch(a, Array.from({ length: 100 }, (_, n) => put(`${n}`))).reply.response;
  assertEquals(results.map(({ response }: { response: { before: number } }) => response.before), Array.from({ length: 100 }, (_, n) => n));
  stage.close();
  const small = new Stage([lab], { limits: { batch_messages: 2 } });
  const b = small.client();
  b.join(TOPIC);
  assertEquals(batch(b, [put("x"), put("y"), put("z")]).reply.response, { reason: "batch_rejected", message: "a batch of 3 messages", limit: 2 });
  assertEquals(batch(b, [put("x"), put("y")]).reply.status, "ok");
  small.close();
});

Deno.test("batch: bytes for a batch are refused", () => {
  const at = setUp();
  const text = new TextEncoder();
  // V2's binary push: sizes of join_ref, ref, topic and event, these, and the rest.
  const parts = [at.ref, "9", TOPIC, "batch"].map((part) => text.encode(part));
  const heard = at.a.send(Uint8Array.of(0, ...parts.map(({ length }) => length), ...parts.flatMap((part) => [...part]), 1, 2, 3));
  assertEquals(heard.map((frame) => frame[4]), [{ status: "error", response: { reason: "binary_not_supported" } }]);
  traceless(at);
  at.stage.close();
});

Deno.test("batch: encrypted itself, it is refused encrypted_not_supported [V09]", () => {
  const at = setUp();
  const encrypted = { iv: [1], data: [2] };
  assertEquals(push(at.a, { encrypted }).reply.response.reason, "encrypted_not_supported");
  assertEquals(push(at.a, { encrypted, messages: [put("x")] }).reply.response.reason, "encrypted_not_supported");
  traceless(at);
  at.stage.close();
});

Deno.test("batch: an encrypted message is relayed where its push takes it, and what stands beside it is not [V07]", () => {
  const { stage, a, b } = setUp();
  const encrypted = { iv: [1, 2], data: [3, 0, 255] };
  assertEquals(batch(a, [put("x"), { event: "sealed", payload: { encrypted, user_id: "somebody else" } }]).reply.status, "ok");
  assertEquals(b.take().filter((frame) => frame[3] === "told").map((frame) => frame[4]), [{ id: "x" }, { encrypted }]);
  stage.close();
});

Deno.test("batch: html in its messages is cleaned, at whatever depth [V04]", () => {
  const { stage, a, b } = setUp();
  const html = "<b onclick=go()>x</b><script>y</script>";
  batch(a, [put("x", { html }), put("y", { note: { html, list: [{ html }] } })]);
  const told = b.take().filter((frame) => frame[3] === "kept").map(({ 4: { cursor: _, ...payload } }) => payload);
  const clean = "<b>x</b>";
  assertEquals(told, [{ id: "x", html: clean }, { id: "y", note: { html: clean, list: [{ html: clean }] } }]);
  assertEquals(rows(stage, "select payload from log").flat().join().includes("onclick"), false);
  stage.close();
});

Deno.test("batch: a message that crashes ends the session with phx_error, and nothing of the batch has happened [76]", () => {
  const at = setUp();
  const { heard } = batch(at.a, [put("x"), { event: "crash", payload: {} }]);
  assertEquals(heard, [[at.ref, at.ref, TOPIC, "phx_error", { reason: "channel_crash" }]]);
  assertEquals(at.stage.reported.map(({ error }) => (error as Error).message), ["ours"]);
  // The others see that its user has left, and nothing else.
  assertEquals(at.b.take().map((frame) => [frame[3], Object.keys(frame[4].joins), frame[4].leaves.a.metas[0].activity]), [["presence_diff", [], undefined]]);
  for (const table of TABLES) assertEquals(rows(at.stage, `select * from ${table}`), []);
  assertEquals(at.a.join(TOPIC).heard[0][4].status, "ok");
  at.stage.close();
});

Deno.test("batch: a result that cannot be encoded is answered internal, and nothing of the batch has happened", () => {
  const at = setUp();
  assertEquals(batch(at.a, [put("x"), { event: "uncodable", payload: {} }]).reply, { status: "error", response: { reason: "internal" } });
  assertEquals(at.stage.reported.length, 1);
  traceless(at);
  at.stage.close();
});

Deno.test("batch: a message that closes the session: the rest is done and answered first, then phx_close [78]", () => {
  const { stage, a, b, ref } = setUp();
  const { heard } = batch(a, [put("x"), { event: "close", payload: {} }, put("y")]);
  assertEquals(heard.map((frame) => frame[3]), ["kept", "pushed", "kept", "pushed", "phx_reply", "phx_close"]);
  assertEquals(heard[4][4].response.results.length, 3);
  assertEquals(heard[5], [ref, ref, TOPIC, "phx_close", {}]);
  assertEquals(b.take().filter((frame) => frame[3] === "kept").length, 2);
  assertEquals(batch(a, [put("z")]).reply, { status: "error", response: { reason: "unmatched topic" } });
  stage.close();
});

Deno.test("batch: silent messages are listed, a batch is always answered; without a ref it is done all the same", () => {
  const { stage, a, b } = setUp();
  const hush = { event: "hush", payload: {} };
  assertEquals(batch(a, [hush, hush]).reply, ok({ results: [ok(), ok()] }));
  a.send([null, null, TOPIC, "batch", { messages: [put("x")] }]);
  assertEquals(b.take().filter((frame) => frame[3] === "kept").length, 1);
  stage.close();
});

Deno.test("batch: a refusal of authority stands in the log once, by its own reason, with nothing of the batch", () => {
  const { stage, a } = setUp();
  const forbidden = { event: "forbidden", payload: {} };
  push(a, { id: "first" }, "put");
  batch(a, [put("x"), forbidden, forbidden, put("y")]);
  batch(a, [put("x"), { event: "conflict", payload: {} }, forbidden]);
  assertEquals(rows(stage, "select user, topic, event, json_extract(payload, '$.reason') from log order by seq"), [
    ["a", TOPIC, "kept", null],
    ["a", TOPIC, "refused", "forbidden"],
  ]);
  const { broken } = verifyLog(
    sha256,
    stage.host.sql.run("select * from log order by seq", [], false),
    stage.host.sql.run("select * from log_head", [], false),
  );
  assertEquals(broken, null);
  stage.close();
});

Deno.test("batch: a lost tick loses it whole, and it can be sent again [promise 2]", () => {
  const sql = new BreakableSql();
  const stage = new Stage([lab], { sql });
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  a.join(TOPIC);
  b.join(TOPIC);
  a.take();
  sql.failCommits = 1;
  assertEquals(batch(a, [put("x"), put("y")]).reply, { status: "error", response: { reason: "unavailable" } });
  stage.reported.length = 0;
  traceless({ stage, a, b });
  assertEquals(batch(a, [put("x"), put("y")]).reply.status, "ok");
  assertEquals(rows(stage, "select id from lab_item order by id"), [["x"], ["y"]]);
  stage.close();
});

Deno.test("batch: every channel takes it [B01]", async () => {
  const stage = new Stage(rooms);
  const topics = await oneOfEach(stage);
  for (const { name, presence } of channels) {
    const topic = topics[name];
    const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
    for (const client of [a, b]) assertEquals(client.join(topic).heard[0][4].status, "ok", topic);
    a.take();
    assertEquals(batch(a, [{ event: "no such event", payload: {} }], topic).reply.response.refused, { reason: "unknown_event" }, topic);
    if (!presence) continue;
    const update = (status: string) => ({ event: "presence:update", payload: { status } });
    assertEquals(batch(a, [update("one"), update("two")], topic).reply, ok({ results: [ok(), ok()] }), topic);
    assertEquals(
      b.take().map((frame) => [frame[3], frame[4].joins.a.metas.map(({ status }: { status: string }) => status)]),
      [["presence_diff", ["two"]]],
      topic,
    );
    for (const client of [a, b]) client.drop(true);
  }
  stage.close();
});

Deno.test("batch: the page's BatchedChannel over the real client: one push for all, and after an error all are queued again [L507]", async () => {
  await using server = await startServer();
  await using phone = await Phone.dial(server, someone("user_1"));
  await using other = await Phone.dial(server, someone("user_2"));
  const channel = await phone.enter("case:case_1");
  const seen = new Notes<string>();
  const watched = other.socket.channel("case:case_1");
  watched.on("presence_diff", ({ joins }) => joins.user_1 && seen.add(joins.user_1.metas[0].activity));
  await new Promise((resolve) => watched.join().receive("ok", resolve));

  const printed = new Notes<string>();
  const batched = new (batchedChannel({ log: (text) => printed.add(text), error: (text, response) => printed.add(`${text} ${JSON.stringify(response)}`) }))(
    channel,
  );
  const update = (activity: unknown) => batched.push("presence:update", { activity });
  for (const activity of ["one", "two", "three"]) update(activity);
  assertEquals(await printed.first(1), ["Sent 3 messages"]);
  assertEquals([await seen.first(1), batched.messageQueue], [["three"], []]);

  update("four");
  update(5);
  const failed = (await printed.first(2))[1];
  assertStringIncludes(failed, "Batch send failed:");
  assertStringIncludes(failed, '"reason":"batch_rejected"');
  assertStringIncludes(failed, '"index":1');
  assertEquals(batched.messageQueue, [4, 5].map((n) => ({ event: "presence:update", payload: { activity: n === 4 ? "four" : 5 } })));
  // The poisoned one taken out, the next push sends all that is left.
  batched.messageQueue.pop();
  update("six");
  assertEquals((await printed.first(3))[2], "Sent 2 messages");
  assertEquals([await seen.first(2), batched.messageQueue], [["three", "six"], []]);
});
