/** `collaboration:{documentId}`: who may look at a document, what the others hear of it, and that nothing of it is kept. */
import { assert, assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
// @ts-types="./support/phoenix.d.ts"
import { type Channel, Presence, Socket } from "phoenix";
import { rooms } from "../rooms/channels/mod.ts";
import { DEFAULT_LIMITS } from "../rooms/limits.ts";
import type { User } from "../rooms/host.ts";
import { Outside } from "./support/outside.ts";
import type { Heard } from "./support/raw.ts";
import { BreakableSql, someone, Stage, type StageClient, type StageOptions } from "./support/stage.ts";

const TOPIC = "collaboration:d1";

const uploaded = (id: string) => ({ event: "document:uploaded", payload: { document: { id } } });

/** Publishes, and lets what follows happen. */
async function upload(stage: Stage, id: string, caseId = "case_1"): Promise<void> {
  const answer = stage.registry.publish(`case:${caseId}`, someone("back end", "service"), [uploaded(id)]);
  await stage.settle();
  await answer;
}

/** A stage on which d1 and d2 are documents of case_1. `open` joins somebody; `all` joins several to d1, and forgets what they heard of that. */
async function setUp(options: StageOptions = {}) {
  const stage = new Stage(rooms, options);
  for (const id of ["d1", "d2"]) await upload(stage, id);
  const open = (user: string | User, topic = TOPIC, client = stage.client(typeof user === "string" ? someone(user) : user)) => {
    client.join(topic);
    client.take();
    return client;
  };
  const all = (...users: string[]) => {
    const clients = users.map((user) => open(user));
    for (const client of clients) client.take();
    return clients;
  };
  return { stage, open, all };
}

let refs = 0;
/** Pushes; returns the reply. What else was heard before it is forgotten. */
function push(client: StageClient, event: string, payload: unknown, topic = TOPIC): { status: string; response: Heard } {
  const ref = `push ${++refs}`;
  return client.send([null, ref, topic, event, payload]).find((frame) => frame[1] === ref)[4];
}
const OK = { status: "ok", response: {} };
const move = (client: StageClient, x: number, topic = TOPIC) => assertEquals(push(client, "cursor:move", { x, y: 0 }, topic), OK);

/** The frames of cursors and selections. */
const passing = (client: StageClient): Heard[] => client.take().filter((frame) => frame[3] === "cursor:position" || frame[3] === "selection:shared");
/** Them, as `a 1` and `a "text"`, with the topic where it is not d1's. */
const seen = (client: StageClient) =>
  passing(client).map(([, , topic, , { user_id, x, text }]) =>
    [...topic === TOPIC ? [] : [topic], user_id, text === undefined ? x : `"${text.slice(0, 9)}"`].join(" ")
  );

/** Every row of every table. */
function everything(stage: Stage): Record<string, unknown[]> {
  const names = stage.host.sql.run("select name from sqlite_master where type = 'table'", [], false).map(({ name }) => String(name));
  return Object.fromEntries(names.map((name) => [name, stage.host.sql.run(`select * from "${name}"`, [], false).map((row) => ({ ...row }))]));
}

const unlogged = (stage: Stage) => Object.entries(everything(stage)).filter(([table]) => !table.startsWith("log"));

// Joining.

Deno.test("collaboration: a join is answered, then presence_state, then the diff, as on a case; nothing is kept, so there is no cursor [K06, 87]", async () => {
  const { stage, open } = await setUp();
  const b = open("b");
  const { ref, heard } = stage.client(someone("a", "attorney", ["case_1"])).join(TOPIC, {});
  assertEquals(heard[0], [ref, ref, TOPIC, "phx_reply", { status: "ok", response: { document_id: "d1" } }]);
  assertEquals(heard.map((frame) => frame[3]), ["phx_reply", "presence_state", "presence_diff"]);
  assertEquals(Object.keys(heard[1][4]), ["b", "a"]);
  const [meta] = heard[1][4].a.metas;
  assertEquals(meta, {
    name: "Name of a",
    status: "online",
    activity: "",
    location: "",
    online_at: new Date(stage.clock.time).toISOString(),
    phx_ref: meta.phx_ref,
  });
  assertEquals(b.take(), [[null, null, TOPIC, "presence_diff", { joins: { a: { metas: [meta] } }, leaves: {} }]]);
  stage.close();
});

Deno.test("collaboration: presence:update merges into the own meta; who leaves is told, so that his cursor can go [K06, R03]", async () => {
  const { stage, open, all } = await setUp({ graceMs: 5000 });
  const [a, b] = all("a", "b");
  assertEquals(push(a, "presence:update", { activity: "reading <b>page 3", name: "Somebody Else", user_id: "b" }), OK);
  const { joins, leaves } = b.take()[0][4];
  const [meta] = joins.a.metas;
  assertEquals([meta.name, meta.status, meta.activity, meta.phx_ref_prev], ["Name of a", "online", "reading bpage 3", leaves.a.metas[0].phx_ref]);
  assertEquals(push(a, "presence:update", { status: 7 }).response.reason, "invalid_payload");
  assertEquals(b.take(), []);
  const left = (client: StageClient) => client.take().filter((frame) => frame[3] === "presence_diff").map((frame) => Object.keys(frame[4].leaves));
  a.send([null, "l", TOPIC, "phx_leave", {}]);
  assertEquals(left(b), [["a"]]);
  // After an accident it is held for a while.
  open("a", TOPIC, a);
  b.take();
  a.drop();
  stage.advance(4999);
  assertEquals(left(b), []);
  stage.advance(1);
  assertEquals(left(b), [["a"]]);
  stage.close();
});

Deno.test("collaboration: a join for a document that is not known waits a second for it, then not_found, and makes nothing", async () => {
  const { stage } = await setUp();
  const before = unlogged(stage);
  const client = stage.client();
  const { ref, heard } = client.join("collaboration:d9");
  stage.advance(999);
  await stage.settle();
  assertEquals([heard, client.take()], [[], []]);
  stage.advance(1);
  await stage.settle();
  assertEquals(client.take(), [[ref, ref, "collaboration:d9", "phx_reply", { status: "error", response: { reason: "not_found" } }]]);
  assertEquals(unlogged(stage), before);
  // It can be tried again as often as one likes.
  client.join("collaboration:d9");
  await upload(stage, "d9");
  assertEquals(client.take()[0][4], { status: "ok", response: { document_id: "d9" } });
  stage.close();
});

Deno.test("collaboration: a document that comes within that second is joined at once, by all who waited, in their order", async () => {
  const { stage } = await setUp();
  const people = ["a", "b", "c"].map((user) => stage.client(someone(user, "attorney", ["case_1"])));
  for (const client of people) assertEquals(client.join("collaboration:d9").heard, []);
  stage.advance(300);
  await upload(stage, "d8");
  assertEquals(people.map((client) => client.take()), [[], [], []]);
  const before = stage.clock.time;
  await upload(stage, "d9");
  assertEquals(stage.clock.time, before);
  for (const [index, client] of people.entries()) {
    const heard = client.take();
    assertEquals(heard[0][4], { status: "ok", response: { document_id: "d9" } });
    assertEquals(Object.keys(heard[1][4]), ["a", "b", "c"].slice(0, index + 1));
  }
  // Nothing is left of the second that they would have waited.
  stage.advance(5000);
  await stage.settle();
  assertEquals(people.map((client) => client.take()), [[], [], []]);
  stage.close();
});

Deno.test("collaboration: a join whose form or user is wrong waits for nothing", async () => {
  const { stage } = await setUp();
  for (const [payload, reason] of [[{ user_id: "b" }, "user_mismatch"], [{ since: 7 }, "invalid_payload"], [[], "invalid_frame"]]) {
    for (const id of ["d1", "d9"]) assertEquals(stage.client(someone("a")).join(`collaboration:${id}`, payload).heard[0][4].response.reason, reason);
  }
  stage.close();
});

/** What happens while somebody asks for a document that he may not see; he must not notice any of it. */
const HIDDEN: Record<string, { before?: (stage: Stage) => Promise<void>; after300ms?: (stage: Stage) => Promise<void> }> = {
  "one of another case": { before: (stage) => upload(stage, "hidden") },
  "one with people on it": {
    async before(stage) {
      await upload(stage, "hidden");
      for (const user of ["x", "y"]) stage.client(someone(user)).join("collaboration:hidden");
    },
  },
  "one with a record": {
    async before(stage) {
      await upload(stage, "hidden");
      record(stage, "document/hidden");
    },
  },
  "one that is uploaded to another case meanwhile": { after300ms: (stage) => upload(stage, "hidden") },
  "one that is uploaded again meanwhile": { before: (stage) => upload(stage, "hidden"), after300ms: (stage) => upload(stage, "hidden") },
  "one that somebody else waits for as well": {
    before: (stage) => Promise.resolve(void stage.client(someone("x")).join("collaboration:hidden")),
    after300ms: (stage) => upload(stage, "hidden"),
  },
};

/** Something that lasts has happened in a room. */
function record(stage: Stage, room: string): void {
  stage.registry.storage.log.append(room, { at: stage.clock.now(), user: "x", topic: "document:x", event: "annotation:added", payload: "{}" });
  stage.registry.storage.commit();
}

/** What an outsider hears when, and whether he is served, while he asks for a document. */
async function asked({ before, after300ms }: (typeof HIDDEN)[string]): Promise<unknown[]> {
  const { stage, open } = await setUp();
  await before?.(stage);
  const outsider = open(someone("outsider", "admin", ["case_2"]), "case:case_2");
  const start = stage.clock.time;
  const transcript: unknown[] = [];
  const listen = async (what: string) => {
    await stage.settle();
    transcript.push([stage.clock.time - start, what, outsider.take(), outsider.wire.paused]);
  };
  outsider.queue(["7", "7", "collaboration:hidden", "phx_join", {}]);
  outsider.queue([null, "8", "collaboration:hidden", "cursor:move", { x: 1, y: 1 }]);
  stage.run();
  await listen("joins");
  for (const at of [100, 300]) {
    stage.advance(start + at - stage.clock.time);
    await listen("waits");
  }
  await after300ms?.(stage);
  await listen("something may have happened");
  for (const at of [301, 350, 600, 999, 1000, 1001, 1300, 3000]) {
    stage.advance(start + at - stage.clock.time);
    await listen("waits");
  }
  outsider.send([null, "9", "collaboration:hidden", "cursor:move", { x: 1, y: 1 }], [null, "10", "collaboration:hidden", "phx_leave", {}]);
  await listen("pushes and leaves");
  stage.close();
  return transcript;
}

let none: Promise<unknown[]> | undefined;
const nobodys = () => none ??= asked({});

for (const [what, scene] of Object.entries(HIDDEN)) {
  Deno.test(`collaboration: whoever may not see a document hears the same at the same time as if there were none: ${what}`, async () => {
    assertEquals(await asked(scene), await nobodys());
  });
}

Deno.test("collaboration: that answer is not_found after a second, and what was sent meanwhile is served then, in its order [57]", async () => {
  const refused = (await nobodys() as [number, string, Heard[], boolean][]).map((
    [at, , frames, paused],
  ) => [at, frames.map((frame) => [frame[1], frame[4].response.reason]), paused]);
  assertEquals(refused.filter(([, frames]) => (frames as unknown[]).length > 0).slice(0, 1), [[1000, [["7", "not_found"], ["8", "unmatched topic"]], false]]);
});

Deno.test("collaboration: whoever waits is held, and nobody else: his frames are served in their order once he is in [57]", async () => {
  const { stage, open } = await setUp();
  const b = open("b");
  const a = open("a");
  const TOPIC9 = "collaboration:d9";
  const heartbeat = (ref: string) => [null, ref, "phoenix", "heartbeat", {}];
  assertEquals(a.send(["9", "9", TOPIC9, "phx_join", {}], heartbeat("10"), ["9", "11", TOPIC9, "cursor:move", { x: 1, y: 1 }], heartbeat("12")), []);
  assertEquals(a.send([null, "13", TOPIC9, "phx_leave", {}]), []);
  // What others do is heard meanwhile.
  move(b, 5);
  assertEquals([seen(a), b.send(heartbeat("1")).length], [["b 5"], 1]);
  await upload(stage, "d9");
  const order = a.take().map((frame) => [frame[2], frame[3], frame[1]].join(" "));
  assertEquals(order.filter((line) => line.includes("phx_reply")), [
    `${TOPIC9} phx_reply 9`,
    "phoenix phx_reply 10",
    `${TOPIC9} phx_reply 11`,
    "phoenix phx_reply 12",
    `${TOPIC9} phx_reply 13`,
  ]);
  assertEquals([order[0], order.at(-1)], [`${TOPIC9} phx_reply 9`, `${TOPIC9} phx_close 9`]);
  stage.close();
});

for (const clean of [true, false]) {
  Deno.test(`collaboration: a socket that ${clean ? "closes" : "breaks"} while it waits leaves nothing behind`, async () => {
    const { stage, open } = await setUp({ graceMs: 5000 });
    const before = everything(stage);
    let owed = 0;
    const after = stage.clock.after.bind(stage.clock);
    stage.clock.after = (ms, callback) => {
      owed++;
      const cancel = after(ms, () => {
        owed--;
        callback();
      });
      return () => {
        owed--;
        cancel();
      };
    };
    // More than are kept warm.
    const [rooms, size] = [1100, stage.registry.size];
    for (let n = 0; n < rooms; n++) {
      const client = stage.client(someone(`u${n % 7}`));
      client.queue([null, "1", `collaboration:none ${n}`, "phx_join", {}]);
      stage.tick();
      if (n === 0) assertGreater(owed, 0);
      stage.gateway.closed(client.socket, clean ? 1000 : 1006);
      stage.tick();
      if (n === 0) assertEquals(stage.registry.size, size + 1);
    }
    await stage.settle();
    // Not so much as a timer.
    assertEquals([owed, stage.gateway.size], [0, 0]);
    assertLessOrEqual(stage.registry.size, 1000);
    assertEquals(everything(stage), before);
    // Nor is he there when the document comes.
    const waiting = stage.client(someone("a"));
    waiting.join("collaboration:none 1099");
    const gone = stage.client(someone("gone"));
    gone.join("collaboration:none 1099");
    gone.drop(clean);
    await upload(stage, "none 1099");
    assertEquals(waiting.take().map((frame) => [frame[3], Object.keys(frame[4].joins ?? frame[4])]), [
      ["phx_reply", ["status", "response"]],
      ["presence_state", ["a"]],
      ["presence_diff", ["a"]],
    ]);
    assertEquals([...stage.host.members.of("document/none 1099")].map(({ user }) => user.id), ["a"]);
    stage.advance(10_000);
    await stage.settle();
    assertEquals([waiting.take(), stage.reported], [[], []]);
    open("b", "collaboration:none 1099");
    stage.close();
  });
}

Deno.test("collaboration: a join that waits in a tick that is lost is answered unavailable, once", async () => {
  const sql = new BreakableSql();
  const { stage } = await setUp({ sql });
  const client = stage.client();
  const answer = stage.registry.publish("case:case_1", someone("back end", "service"), [uploaded("d9")]);
  stage.tick();
  await answer;
  // The call is about to be taken, behind the join.
  client.queue(["1", "1", "collaboration:d9", "phx_join", {}]);
  sql.failCommits = 1;
  stage.tick();
  await stage.settle();
  const heard = client.take();
  assertEquals(heard.map((frame) => frame[4]), [{ status: "error", response: { reason: "unavailable" } }]);
  stage.advance(5000);
  await stage.settle();
  assertEquals(client.take(), []);
  assertEquals(client.join("collaboration:d9").heard[0][4].status, "ok");
  stage.close();
});

// Authority.

const refusals = (stage: Stage) =>
  stage.host.sql.run("select room, user, topic, payload from log where event = 'refused' order by seq", [], false).map((row) => ({ ...row }));

Deno.test("collaboration: who reaches for a document that is not his stands in its record, once, when it has one, or else beside all; one that is nobody's too", async () => {
  const { stage } = await setUp();
  const ask = async (id: string, cases: string[] | "*" = ["case_2"]) => {
    const client = stage.client(someone("outsider", "attorney", cases));
    client.join(`collaboration:${id}`);
    stage.advance(1000);
    await stage.settle();
    return client.take().length;
  };
  const before = unlogged(stage);
  const refusal = (topic: string, room = "refusals") => ({
    room,
    user: "outsider",
    topic: room === "refusals" ? stage.host.sha256(topic) : topic,
    payload: '{"reason":"not_found"}',
  });
  // Nothing has ever happened on d1, and d9 is nobody's.
  assertEquals([await ask("d1"), await ask("d9"), await ask("d9", "*")], [1, 1, 1]);
  const first = [refusal(TOPIC), refusal("collaboration:d9"), refusal("collaboration:d9")];
  assertEquals([refusals(stage), unlogged(stage)], [first, before]);
  record(stage, "document/d1");
  assertEquals([await ask("d1"), await ask("d2")], [1, 1]);
  assertEquals(refusals(stage), [...first, refusal(TOPIC, "document/d1"), refusal("collaboration:d2")]);
  // Whoever goes before the second is over was refused nothing.
  stage.client(someone("hasty", "attorney", [])).join(TOPIC);
  const hasty = stage.client(someone("hasty", "attorney", []));
  hasty.join(TOPIC);
  hasty.drop(true);
  stage.advance(1000);
  await stage.settle();
  assertEquals(refusals(stage).slice(5).map(({ user }) => user), ["hasty"]);
  stage.close();
});

Deno.test("collaboration: a renewed token that does not name the case any more closes the session, and nothing else [102]", async () => {
  let cases: string[] = ["case_1", "case_2"];
  const { stage, open } = await setUp({ verify: () => Promise.resolve({ user: someone("a", "attorney", cases), expires: Date.parse("2030-01-01") }) });
  await upload(stage, "d3", "case_2");
  const b = open("b");
  const a = open("a");
  open("a", "collaboration:d3", a);
  const renew = async () => {
    a.send([null, "r", "auth", "authenticate", { token: "t" }]);
    await stage.settle();
    return a.take();
  };
  assertEquals((await renew()).map((frame) => frame[3]), ["phx_reply"]);
  assertEquals(push(a, "cursor:move", { x: 1, y: 1 }), OK);
  assertEquals(seen(b), ["a 1"]);
  cases = ["case_2"];
  assertEquals(push(a, "cursor:move", { x: 2, y: 1 }), OK);
  b.take();
  const heard = await renew();
  assertEquals(heard.map((frame) => [frame[2], frame[3]]), [["auth", "phx_reply"], [TOPIC, "phx_close"]]);
  assertEquals(heard[1][4], { reason: "not_found" });
  assertEquals(b.take().map((frame) => [frame[3], Object.keys(frame[4].leaves)]), [["presence_diff", ["a"]]]);
  // What he said last is not told after that, nor is he told anything.
  move(b, 3);
  stage.advance(1000);
  assertEquals([seen(b), seen(a)], [[], []]);
  assertEquals(push(a, "cursor:move", { x: 1, y: 1 }).response.reason, "unmatched topic");
  assertEquals(push(a, "cursor:move", { x: 1, y: 1 }, "collaboration:d3"), OK);
  stage.close();
});

// Cursors and selections.

Deno.test("collaboration: a cursor goes to all others with its user, to one's own other tab, never to the socket that said it [K02, K03]", async () => {
  const { stage, open } = await setUp();
  const [a, tab, b, elsewhere] = [open("a"), open("a"), open("b"), open("c", "collaboration:d2")];
  const old = stage.client(someone("old"), "1");
  old.send({ topic: TOPIC, event: "phx_join", payload: {}, ref: "1" });
  const clear = () => [a, tab, b, elsewhere, old].forEach((client) => client.take());
  const said: [string, string, object][] = [
    ["cursor:move", "cursor:position", { x: 10.5, y: -3 }],
    ["cursor:move", "cursor:position", { x: 0, y: 1e308, page: 7 }],
    ["cursor:move", "cursor:position", { x: 1, y: 2, page: "iv" }],
    ["cursor:move", "cursor:position", { x: 1, y: 2, page: "" }],
    ["selection:share", "selection:shared", { text: "some text" }],
    ["selection:share", "selection:shared", { text: "", range: { start: [0, null], end: { offset: 3.5 }, __proto__: null } }],
    ["selection:share", "selection:shared", { text: "x".repeat(10_000), range: null }],
    ["selection:share", "selection:shared", { text: "\u202e<script>", range: [["a"], "b", 1, true] }],
  ];
  for (const [event, told, fields] of said) {
    stage.advance(1000);
    clear();
    assertEquals(a.send(["j1", "1", TOPIC, event, fields]), [["j1", "1", TOPIC, "phx_reply", OK]]);
    const payload = JSON.parse(JSON.stringify({ user_id: "a", ...fields }));
    const frame = [null, null, TOPIC, told, payload];
    assertEquals([tab.take(), b.take(), elsewhere.take()], [[frame], [frame], []]);
    assertEquals(old.take(), [{ topic: TOPIC, event: told, payload, ref: null, join_ref: null }]);
    stage.advance(1000);
    assertEquals([a.take(), tab.take(), b.take()], [[], [], []]);
  }
  stage.close();
});

Deno.test("collaboration: a range is anything that JSON can say, and comes out as it went in [K04]", async () => {
  const { stage, all } = await setUp();
  const [a, b] = all("a", "b");
  const ranges = ['{"__proto__":{"x":1},"constructor":[],"\\u0000":"\\ud800"}', '"text"', "0", "-1.5e-7", "false", `[${"[".repeat(50)}${"]".repeat(50)}]`];
  for (const range of ranges) {
    stage.advance(1000);
    b.take();
    a.send(`[null,"1","${TOPIC}","selection:share",{"text":"t","range":${range}}]`);
    assertEquals(JSON.stringify(b.take()[0][4].range), JSON.stringify(JSON.parse(range)));
  }
  assertEquals(({} as Record<string, unknown>).x, undefined);
  stage.close();
});

const SEALED = { encrypted: { iv: [1, 2, 3], data: [255, 0], alg: "AES-GCM" } };

/** By event: what is refused, as JSON text, and why. */
const WRONG: Record<string, [payload: string, reason: string, message?: string][]> = {
  "cursor:move": [
    ["{}", "invalid_payload", "x: "],
    ['{"x":1}', "invalid_payload", "y: "],
    ['{"y":1,"page":1}', "invalid_payload", "x: "],
    ['{"x":"1","y":1}', "invalid_payload", "x: "],
    ['{"x":1,"y":null}', "invalid_payload", "y: "],
    ['{"x":1,"y":[2]}', "invalid_payload", "y: "],
    ['{"x":true,"y":1}', "invalid_payload", "x: "],
    // JSON has no NaN; this is Infinity once it is parsed.
    ['{"x":1e999,"y":1}', "invalid_payload", "x: "],
    ['{"x":1,"y":-1e999}', "invalid_payload", "y: "],
    ['{"x":1,"y":1,"page":1.5}', "invalid_payload", "page: "],
    ['{"x":1,"y":1,"page":null}', "invalid_payload", "page: "],
    ['{"x":1,"y":1,"page":{}}', "invalid_payload", "page: "],
    [`{"x":1,"y":1,"page":"${"x".repeat(65)}"}`, "invalid_payload", "page: "],
    ['{"__proto__":{"x":1,"y":1}}', "invalid_payload", "x: "],
    ['{"constructor":{"x":1,"y":1}}', "invalid_payload", "x: "],
    ["null", "invalid_frame"],
    ["[1,2]", "invalid_frame"],
    ['"x"', "invalid_frame"],
    ["7", "invalid_frame"],
    [`{"x":1,"y":1,"more":"${"x".repeat(66_000)}"}`, "payload_too_large"],
    [`{"x":1,"y":1,"more":${"[".repeat(70)}${"]".repeat(70)}}`, "invalid_payload"],
    ['{"encrypted":null}', "invalid_payload", "encrypted: "],
    ['{"encrypted":{"iv":[],"data":[]},"x":1,"y":1}', "invalid_payload", "encrypted.iv: "],
    ['{"encrypted":{"iv":[256],"data":[]}}', "invalid_payload", "encrypted.iv.0: "],
    ['{"encrypted":{"iv":[1]}}', "invalid_payload", "encrypted.data: "],
    ['{"encrypted":"AAAA"}', "invalid_payload", "encrypted: "],
  ],
  "selection:share": [
    ["{}", "invalid_payload", "text: "],
    ['{"range":{}}', "invalid_payload", "text: "],
    ['{"text":7}', "invalid_payload", "text: "],
    ['{"text":null}', "invalid_payload", "text: "],
    ['{"text":["a"]}', "invalid_payload", "text: "],
    [`{"text":"${"x".repeat(10_001)}"}`, "invalid_payload", "text: "],
    [`{"text":"","range":"${"x".repeat(66_000)}"}`, "payload_too_large"],
    [`{"text":"","range":${"[".repeat(64)}${"]".repeat(64)}}`, "invalid_payload"],
    ['{"__proto__":{"text":"t"}}', "invalid_payload", "text: "],
    ['{"encrypted":[]}', "invalid_payload", "encrypted: "],
    ["[]", "invalid_frame"],
  ],
};

for (const [event, wrong] of Object.entries(WRONG)) {
  Deno.test(`collaboration: ${event}: what does not fit is refused with the place named, and nobody hears of it [K04]`, async () => {
    const { stage, all } = await setUp();
    const [a, b] = all("a", "b");
    for (const [payload, reason, message = ""] of wrong) {
      const [, , , , { status, response }] = a.send(`["j1","1","${TOPIC}","${event}",${payload}]`)[0];
      assertEquals([status, response.reason], ["error", reason], payload.slice(0, 100));
      assert((response.message ?? "").startsWith(message), `${payload.slice(0, 100)}: ${response.message}`);
    }
    stage.advance(1000);
    assertEquals([b.take(), a.take(), a.wire.code, stage.reported], [[], [], null, []]);
    stage.close();
  });
}

Deno.test("collaboration: bytes, and the events that only the server says, are refused", async () => {
  const { stage, all } = await setUp();
  const [a, b] = all("a", "b");
  const head = ["j1", "1", TOPIC, "cursor:move"].map((text) => new TextEncoder().encode(text));
  const binary = new Uint8Array([0, ...head.map(({ length }) => length), ...head.flatMap((bytes) => [...bytes]), 1, 2]);
  assertEquals(a.send(binary)[0][4].response.reason, "binary_not_supported");
  for (const event of ["cursor:position", "selection:shared", "presence_diff", "update", "__proto__", "toString"]) {
    assertEquals(push(a, event, { user_id: "b", x: 1, y: 1, text: "t" }).response.reason, "unknown_event", event);
  }
  stage.advance(1000);
  assertEquals(b.take(), []);
  stage.close();
});

Deno.test("collaboration: nobody speaks for another; keys that the contract does not name are not relayed", async () => {
  const { stage, all } = await setUp();
  const [a, b] = all("a", "b");
  const said: [event: string, payload: string, told: object][] = [
    ["cursor:move", '{"x":1,"y":2,"user_id":"b","page":3,"name":"x","__proto__":{"z":1},"constructor":1,"html":"<b>"}', { x: 1, y: 2, page: 3 }],
    ["selection:share", '{"text":"t","user_id":"b","color":"red","__proto__":[]}', { text: "t" }],
    ["cursor:move", JSON.stringify({ x: 1, y: 2, user_id: "b", ...SEALED }), SEALED],
    ["selection:share", JSON.stringify({ text: "in the clear", ...SEALED, user_id: "b" }), SEALED],
  ];
  for (const [event, payload, told] of said) {
    stage.advance(1000);
    b.take();
    assertEquals(a.send(`["j1","1","${TOPIC}","${event}",${payload}]`)[0][4], OK);
    const [[, , , , heard]] = b.take();
    assertEquals(JSON.stringify(heard), JSON.stringify({ user_id: "a", ...told }));
  }
  stage.close();
});

Deno.test("collaboration: nothing of it is ever written: not a row of any table differs [K05]", async () => {
  const { stage, all } = await setUp();
  record(stage, "document/d1");
  const before = everything(stage);
  const [a, b] = all("a", "b");
  for (let n = 0; n < 50; n++) {
    move(a, n);
    push(b, "selection:share", { text: `secret ${n}`, range: { n } });
    push(b, "cursor:move", SEALED);
    push(a, "presence:update", { activity: `secret ${n}` });
    push(a, "batch", { messages: [{ event: "cursor:move", payload: { x: n, y: n } }, { event: "selection:share", payload: { text: "secret" } }] });
    stage.advance(10);
  }
  a.send([null, "1", TOPIC, "phx_leave", {}]);
  b.drop();
  stage.advance(10_000);
  assertEquals(everything(stage), before);
  stage.close();
});

Deno.test("collaboration: a mouse that moves for five minutes, twenty times a second, is never refused and always heard [K01]", async () => {
  const { stage, all } = await setUp({ limits: DEFAULT_LIMITS });
  const [a, b] = all("a", "b");
  for (let n = 0; n < 5 * 60 * 20; n++) {
    a.queue(["j1", "1", TOPIC, "cursor:move", { x: n, y: 0 }]);
    stage.tick();
    const replies = a.take().filter((frame) => frame[3] === "phx_reply");
    assertEquals([replies.length, replies[0][4].status], [1, "ok"]);
    // It is slower than what is told of anybody: each is heard at once.
    assertEquals(passing(b).map((frame) => frame[4].x), [n]);
    stage.clock.advance(50, () => stage.tick());
    if (n % 100 === 0) b.send([null, "h", "phoenix", "heartbeat", {}]);
  }
  // Selections do not count against it, nor does it count against what else he does.
  for (let n = 0; n < 100; n++) assertEquals(push(a, "presence:update", { activity: `${n}` }).status, "ok");
  assertEquals(push(a, "presence:update", {}).response.reason, "rate_limited");
  assertEquals(push(a, "selection:share", { text: "t" }), OK);
  move(a, -1);
  assertEquals([a.wire.code, b.wire.code], [null, null]);
  stage.close();
});

Deno.test("collaboration: a thousand moves in a second are all answered ok, thirty are heard, and the last one is among them [K05]", async () => {
  const { stage, all } = await setUp({ limits: DEFAULT_LIMITS });
  const [a, b] = all("a", "b");
  const xs: number[] = [];
  for (let n = 0; n < 1000; n++) {
    move(a, n);
    stage.advance(1);
    xs.push(...passing(b).map((frame) => frame[4].x));
  }
  assertLessOrEqual(xs.length, 31);
  assertGreater(xs.length, 25);
  stage.advance(100);
  xs.push(...passing(b).map((frame) => frame[4].x));
  assertEquals([xs, xs.at(-1)], [xs.toSorted((x, y) => x - y), 999]);
  stage.close();
});

// Slow readers.

/** Readers and speakers; `stall` makes one fall behind, so that passing events are kept back from it. */
async function slow(options: StageOptions = {}) {
  const { stage, open } = await setUp({ limits: { passing_outbox_bytes: 2000 }, ...options });
  const [a, b, reader, quick] = [open("a"), open("b"), open("reader"), open("quick")];
  const stall = () => {
    push(quick, "selection:share", { text: "x".repeat(3000) });
    assertEquals(seen(reader), ['quick "xxxxxxxxx"']);
    reader.wire.backlog = 1_000_000;
    stage.advance(1000);
    for (const client of [a, b, reader, quick]) client.take();
  };
  stall();
  /** Its network has taken everything. */
  const recover = () => void (reader.wire.backlog = 0);
  return { stage, open, a, b, reader, quick, recover };
}

/** Moves that are far enough apart for all to be told. */
function moves(stage: Stage, client: StageClient, xs: number[], topic = TOPIC): void {
  for (const x of xs) {
    move(client, x, topic);
    stage.advance(40);
  }
}

Deno.test("collaboration: a reader who was too slow gets each sender's newest cursor and selection when he has caught up, once", async () => {
  const { stage, a, b, reader, quick, recover } = await slow();
  moves(stage, a, [1, 2, 3]);
  moves(stage, b, [11, 12]);
  push(a, "selection:share", { text: "one" });
  stage.advance(40);
  push(a, "selection:share", { text: "two" });
  moves(stage, a, [4]);
  assertEquals(seen(quick).slice(-4), ["b 12", 'a "one"', 'a "two"', "a 4"]);
  stage.advance(3000);
  assertEquals(seen(reader), []);
  recover();
  // Nothing else happens: the gateway looks after him.
  stage.advance(1000);
  assertEquals(seen(reader).toSorted(), ['a "two"', "a 4", "b 12"]);
  stage.advance(3000);
  assertEquals([seen(reader), reader.wire.code], [[], null]);
  stage.close();
});

Deno.test("collaboration: what he was too slow for comes before what is newer", async () => {
  const { stage, a, b, reader, recover } = await slow();
  moves(stage, a, [1, 2]);
  moves(stage, b, [11]);
  recover();
  move(a, 3);
  assertEquals(seen(reader), ["a 2", "b 11", "a 3"]);
  stage.close();
});

Deno.test("collaboration: his own question is enough to be told, before its answer", async () => {
  const { stage, a, reader, recover } = await slow();
  moves(stage, a, [1, 2]);
  const ask = () => reader.send([null, "1", "phoenix", "heartbeat", {}]).map((frame) => frame[3]);
  assertEquals(ask(), ["phx_reply"]);
  recover();
  assertEquals([ask(), ask()], [["cursor:position", "phx_reply"], ["phx_reply"]]);
  stage.close();
});

Deno.test("collaboration: while he is too slow he misses nothing exact: who comes and who goes", async () => {
  const { stage, open, a, reader } = await slow();
  moves(stage, a, [1]);
  const c = open("c");
  c.drop(true);
  const diffs = reader.take().map((frame) => [frame[3], Object.keys(frame[4].joins), Object.keys(frame[4].leaves)]);
  assertEquals(diffs, [["presence_diff", ["c"], []], ["presence_diff", [], ["c"]]]);
  stage.close();
});

Deno.test("collaboration: nothing late arrives of a topic that he has left, or that was closed for him", async () => {
  const verify = () => Promise.resolve({ user: someone("reader", "attorney", ["case_2"]), expires: Date.parse("2030-01-01") });
  for (const leave of ["phx_leave", "authenticate"]) {
    const { stage, a, reader, recover } = await slow({ verify });
    moves(stage, a, [1, 2]);
    reader.queue(leave === "phx_leave" ? [null, "l", TOPIC, "phx_leave", {}] : [null, "l", "auth", "authenticate", { token: "t" }]);
    await stage.settle();
    assert(reader.take().some((frame) => frame[3] === "phx_close"));
    recover();
    stage.advance(3000);
    reader.queue([null, "h", "phoenix", "heartbeat", {}]);
    stage.run();
    assertEquals(reader.take().map((frame) => frame[3]), ["phx_reply"]);
    stage.close();
  }
});

Deno.test("collaboration: of the topics that he has not left, what was late still arrives", async () => {
  const { stage, open, a, reader, recover } = await slow();
  open("", "collaboration:d2", a);
  open("", "collaboration:d2", reader);
  moves(stage, a, [1, 2]);
  moves(stage, a, [21, 22], "collaboration:d2");
  reader.send([null, "l", TOPIC, "phx_leave", {}]);
  reader.take();
  recover();
  stage.advance(3000);
  assertEquals(seen(reader), ["collaboration:d2 a 22"]);
  stage.close();
});

Deno.test("collaboration: a join that is refused costs nothing of what was late", async () => {
  const { stage, a, reader, recover } = await slow();
  moves(stage, a, [1, 2]);
  assertEquals(reader.send(["9", "9", "case:case_1", "phx_join", { user_id: "somebody else" }])[0][4].response.reason, "user_mismatch");
  recover();
  stage.advance(3000);
  assertEquals(seen(reader), ["a 2"]);
  stage.close();
});

Deno.test("collaboration: a sender who has left meanwhile does not appear again when the reader catches up [K06]", async () => {
  const { stage, a, b, reader, recover } = await slow();
  moves(stage, a, [1, 2]);
  moves(stage, b, [11]);
  a.drop(true);
  assertEquals(reader.take().map((frame) => [frame[3], Object.keys(frame[4].leaves)]), [["presence_diff", ["a"]]]);
  recover();
  stage.advance(3000);
  assertEquals(seen(reader), ["b 11"]);
  stage.close();
});

Deno.test("collaboration: nothing late is told after the reader's token has ended", async () => {
  const { stage, open } = await setUp({ limits: { passing_outbox_bytes: 2000 } });
  const start = stage.clock.time;
  const until = (at: number) => stage.advance(start + at - stage.clock.time);
  const [a, reader] = [open("a"), stage.client(someone("reader"), "2", start + 1200)];
  open("", TOPIC, reader);
  push(a, "selection:share", { text: "x".repeat(3000) });
  reader.wire.backlog = 1_000_000;
  moves(stage, a, [1, 2]);
  assertEquals(seen(reader), ['a "xxxxxxxxx"']);
  // Something that he has asked for is answered after that end, and before the gateway has looked.
  until(500);
  reader.send(["9", "9", "collaboration:none", "phx_join", {}]);
  until(1300);
  reader.wire.backlog = 0;
  until(1600);
  await stage.settle();
  assertEquals([seen(reader), reader.wire.code], [[], 4001]);
  stage.close();
});

// With the real client.

/** The page's sample, word for word (L315 to L345). */
const SAMPLE = `
const collaborationChannel = socket.channel(\`collaboration:\${documentId}\`);

// Share cursor position
document.addEventListener('mousemove', throttle((e) => {
  collaborationChannel.push('cursor:move', {
    x: e.pageX,
    y: e.pageY,
    page: currentPage
  });
}, 50));

// Display other users' cursors
collaborationChannel.on('cursor:position', (payload) => {
  updateUserCursor(payload.user_id, payload.x, payload.y);
});

// Selection sharing
document.addEventListener('mouseup', () => {
  const selection = window.getSelection();
  if (selection.toString()) {
    collaborationChannel.push('selection:share', {
      text: selection.toString(),
      range: getSelectionRange()
    });
  }
});
`;
const runSample = new Function(
  "socket, documentId, document, window, currentPage, throttle, getSelectionRange, updateUserCursor",
  `${SAMPLE}; return collaborationChannel;`,
);

function throttle(callback: (event: unknown) => void, ms: number): (event: unknown) => void {
  let last = -Infinity;
  return (event) => {
    const now = performance.now();
    if (now - last < ms) return;
    last = now;
    callback(event);
  };
}

/** A browser with the sample's page open. */
class Tab {
  readonly cursors = new Map<string, string>();
  readonly path: string[] = [];
  readonly selections: Heard[] = [];
  readonly joined: Promise<Heard>;
  selection = "";
  readonly channel: Channel;
  readonly presence: Presence;
  readonly #socket: Socket;
  readonly #listeners = new Map<string, (event: unknown) => void>();
  #wake: () => void = () => {};

  constructor(endpoint: string, token: string, documentId: string) {
    this.#socket = new Socket(endpoint, { params: { token } });
    this.#socket.connect();
    this.channel = runSample(
      this.#socket,
      documentId,
      { addEventListener: (event: string, listener: (event: unknown) => void) => this.#listeners.set(event, listener) },
      { getSelection: () => ({ toString: () => this.selection }) },
      3,
      throttle,
      () => ({ start: 4, end: 4 + this.selection.length }),
      (user: string, x: number, y: number) => {
        this.cursors.set(user, `${x},${y}`);
        this.path.push(`${x},${y}`);
      },
    );
    // What the page leaves to its reader: to hear selections, to drop the cursors of who is gone, and to join.
    this.channel.on("selection:shared", (payload) => this.selections.push(payload));
    this.presence = new Presence(this.channel);
    this.presence.onLeave((id, current) => {
      if (current.metas.length === 0) this.cursors.delete(id);
    });
    this.#socket.onMessage(() => queueMicrotask(() => this.#wake()));
    this.joined = new Promise((resolve, reject) => void this.channel.join().receive("ok", resolve).receive("error", reject));
  }
  mouse(event: "mousemove" | "mouseup", pageX = 0, pageY = 0): void {
    this.#listeners.get(event)!({ pageX, pageY });
  }
  get people(): string[] {
    return this.presence.list((id) => id).toSorted();
  }
  /** Waits for frames until it is so. */
  async until(what: string, so: () => boolean): Promise<void> {
    const end = Date.now() + 5000;
    while (!so()) {
      assert(Date.now() < end, `waited in vain until ${what}`);
      let timer;
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
        timer = setTimeout(resolve, 100);
      });
      clearTimeout(timer);
    }
  }
  /** Once all that it has said is answered: phoenix.js would forget to stop the clocks of what is not. */
  async leave(): Promise<void> {
    await new Promise((resolve) => void this.channel.push("presence:update", {}).receive("ok", resolve));
    this.channel.leave();
  }
  async close(): Promise<void> {
    const { conn } = this.#socket;
    const closed = new Promise((resolve) => conn!.addEventListener("close", resolve, { once: true }));
    await new Promise<void>((resolve) => this.#socket.disconnect(resolve));
    await closed;
  }
}

Deno.test("collaboration: two browsers with the page's sample see each other's cursors and selections, and that one leaves [K01, K02, K03, K06]", async () => {
  await using at = await Outside.start();
  const tab = async (user: string) => new Tab(at.server.ws, await at.token(someone(user, "attorney", ["case_1"])), "doc 1");
  const alice = await tab("alice");
  // Her page is open before the upload has arrived.
  assertEquals(await Promise.race([alice.joined, new Promise((resolve) => setTimeout(resolve, 150, "waits"))]), "waits");
  assertEquals((await at.publish("case:case_1", [uploaded("doc 1")])).status, 200);
  assertEquals(await alice.joined, { document_id: "doc 1" });
  const bob = await tab("bob");
  assertEquals(await bob.joined, { document_id: "doc 1" });
  await alice.until("bob is there", () => alice.people.join() === "alice,bob");
  await bob.until("alice is there", () => bob.people.join() === "alice,bob");

  for (let x = 0; x < 10; x++) {
    alice.mouse("mousemove", x, 2 * x);
    alice.mouse("mousemove", -1, -1);
    bob.mouse("mousemove", 100 + x, 0);
    await new Promise((resolve) => setTimeout(resolve, 55));
  }
  await bob.until("alice's last cursor", () => bob.cursors.get("alice") === "9,18");
  await alice.until("bob's last cursor", () => alice.cursors.get("bob") === "109,0");
  // Nobody hears himself, nor anything twice or out of order.
  assertEquals([[...alice.cursors.keys()], [...bob.cursors.keys()]], [["bob"], ["alice"]]);
  assertEquals(new Set(bob.path).size, bob.path.length);
  assertEquals(bob.path, bob.path.toSorted((a, b) => parseInt(a) - parseInt(b)));

  bob.mouse("mouseup");
  bob.selection = "privileged & confidential";
  bob.mouse("mouseup");
  await alice.until("bob's selection", () => alice.selections.length > 0);
  assertEquals(alice.selections, [{ user_id: "bob", text: "privileged & confidential", range: { start: 4, end: 29 } }]);
  assertEquals(bob.selections, []);

  await bob.leave();
  await alice.until("bob is gone", () => alice.people.join() === "alice");
  assertEquals([...alice.cursors], []);
  // Nor does bob hear anything any more.
  alice.mouse("mousemove", 50, 50);
  await alice.leave();
  await bob.close();
  await alice.close();
  assertEquals([bob.cursors.get("alice"), await at.server.stop()], ["9,18", 0]);
});
