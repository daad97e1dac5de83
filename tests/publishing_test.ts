/** What a back end publishes over HTTP: applied as a whole or not at all, once per id, and kept once it is answered. */
import { assert, assertEquals, assertGreater, assertMatch } from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import { SignJWT } from "jose";
import type { SqlRow } from "../rooms/host.ts";
import { numbered } from "./support/lives.ts";
import { type Answer, eventsOf, Outside, type Published } from "./support/outside.ts";
import { TcpClient, UPGRADE } from "./support/raw.ts";
import { someone } from "./support/stage.ts";

type Case = [what: string, run: (at: Outside) => Promise<void>];

function against(subject: string, cases: readonly Case[], env: Record<string, string> = {}): void {
  Deno.test(`publishing: ${subject}`, async (t) => {
    await using at = await Outside.start(env);
    const before = await at.looks();
    for (const [what, run] of cases) await t.step(`publishing: ${what}`, () => run(at));
    await t.step("publishing: the server looks as before, without an error line or a token in its output", () => at.unharmed(before));
  });
}

let topics = 0;
const freshTopic = () => `case:published_${++topics}`;
const uploaded = (id: string, more: Partial<Published> = {}): Published => ({ event: "document:uploaded", payload: { document: { id } }, ...more });
const SERVICE = someone("back end", "service", []);

/** Where the log of a case stands, as somebody is told who joins now. */
async function cursor(at: Outside, topic: string): Promise<string | null> {
  await using client = await at.connect();
  return (await client.ask(["1", "1", topic, "phx_join", {}]))[4].response.cursor;
}
/** Expects a refusal that changed nothing: not the log, and nobody heard. Returns the answer. */
async function refused(at: Outside, topic: string, status: number, reason: string, ask: () => Promise<Answer>): Promise<Answer> {
  await using member = await at.member(topic);
  const before = await cursor(at, topic);
  await member.heard();
  const answer = await ask();
  assertEquals([answer.status, answer.body.reason], [status, reason], JSON.stringify(answer.body));
  assertEquals(typeof answer.body.message, "string");
  assertEquals((await member.heard()).filter((frame) => !/^(presence_diff|user:.*)$/.test(frame[3])), []);
  assertEquals(await cursor(at, topic), before);
  return answer;
}

against("order", [
  ["several events reach all members, V1 too, in one order and with the answered cursors", async (at) => {
    const topic = freshTopic();
    await using first = await at.member(topic);
    await using second = await at.member(topic);
    await using old = await at.connect(at.fresh(), "1.0.0");
    old.send({ topic, event: "phx_join", payload: {}, ref: "1" });
    const sent: Published[] = [
      uploaded("d1"),
      {
        event: "document:processed",
        payload: { document_id: "d1", status: "completed", results: { entities: [{ text: "Müller", type: "person" }], pages: 3 } },
      },
      { event: "workflow:started", payload: { workflow_id: "w", case_id: topic.slice("case:".length), started_at: "2026-01-01T00:00:00Z" } },
      { event: "workflow:completed", payload: { workflow_id: "w", duration_ms: 1.5 } },
      uploaded("d2"),
    ];
    const { status, body } = await at.publish(topic, sent);
    assertEquals(status, 200);
    const want = sent.map(({ event, payload }, index) => [event, { ...payload as object, cursor: body.events[index].cursor }]);
    const names = sent.map(({ event }) => event);
    for (const member of [first, second]) {
      const heard = eventsOf(await member.heard(), ...names);
      assertEquals(heard.map((frame) => [frame[3], frame[4]]), want);
      assertEquals(heard.map((frame) => frame.slice(0, 3)), heard.map(() => [null, null, topic]));
    }
    const heard = [];
    while (heard.length < sent.length) {
      const frame = await old.next();
      if (names.includes(frame.event)) heard.push([frame.event, frame.payload]);
    }
    assertEquals(heard, want);
    assertEquals(await cursor(at, topic), body.events.at(-1).cursor);
  }],
  ["ten back ends at once: every member hears one order, and it is that of the record", async (at) => {
    const topic = freshTopic();
    await using first = await at.member(topic);
    await using second = await at.member(topic);
    const answers = await Promise.all(Array.from({ length: 10 }, async (_, publisher) => {
      const token = await at.token(at.fresh("service"));
      const cursors = [];
      for (let round = 0; round < 10; round++) {
        const { body } = await at.publish(topic, [uploaded(`${publisher}.${round}.0`), uploaded(`${publisher}.${round}.1`)], token);
        cursors.push(...body.events.map((event: { cursor: string }, index: number) => [`${publisher}.${round}.${index}`, event.cursor]));
      }
      return cursors;
    }));
    const [one, two] = await Promise.all([first, second].map(async (member) => eventsOf(await member.heard(), "document:uploaded").map((frame) => frame[4])));
    assertEquals(one, two);
    assertEquals(one.length, 200);
    const recorded = await at.post(`/api/cases/${topic.slice("case:".length)}/log?limit=1000`, "", await at.token(at.fresh("attorney")), "GET");
    assertEquals(one.map(({ cursor }) => cursor), recorded.body.events.map(({ cursor }: { cursor: string }) => cursor));
    assertEquals(Object.fromEntries(one.map((payload) => [payload.document.id, payload.cursor])), Object.fromEntries(answers.flat()));
    // A request is one turn: nothing stands between its events.
    for (const [index, payload] of one.entries()) {
      if (payload.document.id.endsWith(".0")) assertEquals(one[index + 1].document.id, payload.document.id.replace(/0$/, "1"));
    }
  }],
  ["a service publishes to every case, whatever its token names; the event is for that topic alone", async (at) => {
    const [topic, other] = [freshTopic(), freshTopic()];
    await using member = await at.member(topic);
    await using elsewhere = await at.member(other);
    await using same = await at.member(`${topic}0`);
    assertEquals((await at.publish(topic, [uploaded("d")], await at.token(SERVICE))).status, 200);
    assertEquals(eventsOf(await member.heard(), "document:uploaded").length, 1);
    for (const client of [elsewhere, same]) assertEquals(eventsOf(await client.heard(), "document:uploaded"), []);
  }],
  ["100 events are one request, and unknown keys are no matter", async (at) => {
    const topic = freshTopic();
    const events = Array.from({ length: 100 }, (_, index) => ({ ...uploaded(`d${index}`), surplus: true }));
    const { status, body } = await at.publish(topic, events);
    assertEquals([status, new Set(body.events.map((event: { cursor: string }) => event.cursor)).size], [200, 100]);
  }],
]);

const BODIES: [what: string, body: string, place: RegExp][] = [
  ["no body", "", /no JSON/],
  ["text that is no JSON", "hello", /no JSON/],
  ["half of JSON", '{"events":[', /no JSON/],
  ["null", "null", /object/],
  ["an array", "[]", /object/],
  ["a text", '"events"', /object/],
  ["no events", "{}", /^events/],
  ["events that are an object", '{"events":{}}', /^events/],
  ["inherited events", '{"__proto__":{"events":[]}}', /^events/],
  ["no event at all", '{"events":[]}', /^events/],
  ["101 events", JSON.stringify({ events: Array(101).fill(uploaded("d")) }), /^events/],
  ["an event that is null", '{"events":[null]}', /^events\.0/],
  ["an event without a name", '{"events":[{"payload":{}}]}', /^events\.0\.event/],
  ["an event whose name is a number", '{"events":[{"event":1,"payload":{}}]}', /^events\.0\.event/],
  ["an event without a payload", '{"events":[{"event":"document:uploaded"}]}', /^events\.0/],
  ...[0, 1, null, {}, "", "x".repeat(256), "a\0b", "a\ud800"].map((id): [string, string, RegExp] => [
    `the id ${JSON.stringify(id).slice(0, 20)}`,
    JSON.stringify({ events: [uploaded("d", { id: id as string })] }),
    /^events\.0\.id/,
  ]),
  ["JSON nested 100,000 deep", `{"events":[{"event":"document:uploaded","payload":${"[".repeat(100_000)}${"]".repeat(100_000)}}]}`, /^events\.0/],
];

const NOT_PUBLISHED = [
  "user:joined",
  "user:left",
  "presence_diff",
  "presence_state",
  "presence:update",
  "phx_join",
  "phx_close",
  "phx_reply",
  "update",
  "refused",
  "__proto__",
  "constructor",
  "",
  "document:uploaded\0",
];

const deep = (levels: number): unknown => levels === 0 ? 1 : [deep(levels - 1)];
const UNFIT: [what: string, payload: unknown, place: RegExp][] = [
  ["null", null, /^events\.1\.payload: /],
  ["an array", [], /^events\.1\.payload: /],
  ["no document", {}, /^events\.1\.payload: document/],
  ["an inherited document", JSON.parse('{"__proto__":{"document":{"id":"d"}}}'), /^events\.1\.payload: document/],
  ["a document without an id", { document: {} }, /^events\.1\.payload: document\.id/],
  ["an empty id", { document: { id: "" } }, /^events\.1\.payload: document\.id/],
  ["an id of 256 characters", { document: { id: "x".repeat(256) } }, /^events\.1\.payload: document\.id/],
  ["a negative size", { document: { id: "d", size: -1 } }, /^events\.1\.payload: document\.size/],
  ["an unknown status", { document: { id: "d", status: "constructor" } }, /^events\.1\.payload: document\.status/],
  ["a time that is none", { document: { id: "d", created_at: "yesterday" } }, /^events\.1\.payload: document\.created_at/],
  ["tags that are numbers", { document: { id: "d", tags: ["a", 1] } }, /^events\.1\.payload: document\.tags\.1/],
  ["metadata that is an array", { document: { id: "d", metadata: [] } }, /^events\.1\.payload: document\.metadata/],
  ["65 levels", { document: { id: "d", deep: deep(63) } }, /^events\.1\.payload: /],
];

against("refusals", [
  ["who is no service is refused 403 forbidden, who is nobody 401, and nothing is applied", async (at) => {
    const topic = freshTopic();
    const path = `/api/topics/${topic}/events`;
    const body = JSON.stringify({ events: [uploaded("d")] });
    const post = (token: string | null) => at.post(path, body, token);
    for (const role of ["admin", "attorney", "paralegal", "client", "viewer"] as const) {
      await refused(at, topic, 403, "forbidden", async () => post(await at.token(at.fresh(role))));
    }
    await refused(at, topic, 401, "unauthenticated", () => post(null));
    await refused(at, topic, 401, "token_invalid", () => post("nonsense"));
    await refused(at, topic, 401, "token_expired", async () => post(await at.token(at.fresh("service"), -60)));
    const foreign = await new SignJWT({ role: "service" }).setProtectedHeader({ alg: "HS256" }).setSubject("s").setExpirationTime("1h")
      .sign(new TextEncoder().encode("another secret of at least 32 bytes!"));
    await refused(at, topic, 401, "token_invalid", () => post(at.secret(foreign)));
    const good = await at.token(SERVICE);
    for (const authorization of [`Basic ${good}`, good, "Bearer", "Bearer ", `Token ${good}`, `Bearer ${good} ${good}`]) {
      const response = await fetch(at.server.url + path, { method: "POST", headers: { authorization }, body });
      assertEquals([response.status, (await response.json()).reason], [401, "unauthenticated"], authorization);
    }
    // The token belongs into the header, not into an address that others log.
    await refused(at, topic, 401, "unauthenticated", () => at.post(`${path}?token=${good}`, body, null));
  }],
  ["unknown and unfit topics are 404", async (at) => {
    const token = await at.token(SERVICE);
    for (
      const topic of [
        "nope",
        "nope:1",
        "case",
        "case:",
        "Case:1",
        "__proto__",
        "constructor",
        "phoenix",
        "auth",
        "case:\0",
        `case:${"x".repeat(251)}`,
        `case:${"é".repeat(126)}`,
      ]
    ) {
      const { status, body } = await at.publish(topic, [uploaded("d")], token);
      assertEquals([status, body.reason], [404, "unmatched topic"], topic);
    }
    assertEquals((await at.post("/api/topics//events", "{}", token)).status, 404);
    assertEquals((await at.post("/api/topics/case:1/events/more", "{}", token)).status, 404);
  }],
  ["a path that is not UTF-8 is 404, and no case of that name comes to be", async (at) => {
    const token = await at.token(SERVICE);
    const body = JSON.stringify({ events: [uploaded("d")] });
    for (const path of ["case:%ff%fe", "case%3A%ED%A0%80", "case:%E0%A4%A", "case:%", "case:%zz"]) {
      const { status } = await at.post(`/api/topics/${path}/events`, body, token);
      assert([400, 404].includes(status), `${path} is ${status}`);
    }
  }],
  ...BODIES.map(([what, text, place]): Case => [`${what} as a body is 422 invalid_payload, and the message says where`, async (at) => {
    const topic = freshTopic();
    const { body } = await refused(at, topic, 422, "invalid_payload", async () => at.post(`/api/topics/${topic}/events`, text, await at.token(SERVICE)));
    assertMatch(body.message, place);
  }]),
  ["events that the contract does not publish are 422 unknown_event, and the good ones around them are not applied", async (at) => {
    const topic = freshTopic();
    const token = await at.token(SERVICE);
    for (const event of NOT_PUBLISHED) {
      const payload = { document: { id: "d" }, user: { id: "u", name: "U", role: "admin" }, joins: {}, leaves: {} };
      const { body } = await refused(at, topic, 422, "unknown_event", () => at.publish(topic, [uploaded("a"), { event, payload }, uploaded("b")], token));
      assertMatch(body.message, /^events\.1: /);
    }
  }],
  ...UNFIT.map(([what, payload, place]): Case => [`a payload with ${what} is 422 with its place, and the good ones around it are not applied`, async (at) => {
    const topic = freshTopic();
    await at.publish(topic, [uploaded("first")]);
    const bad = { event: "document:uploaded", payload };
    const { body } = await refused(at, topic, 422, "invalid_payload", () => at.publish(topic, [uploaded("a", { id: "i" }), bad, uploaded("b")]));
    assertMatch(body.message, place);
  }]),
  ["a payload of 65,536 UTF-16 units is taken, 65,537 are 413 with the limit and the place", async (at) => {
    const topic = freshTopic();
    const event = (units: number) => ({ event: "document:uploaded", payload: { document: { id: "d", summary: "é".repeat(units - 36) } } });
    assertEquals(JSON.stringify(event(65_536).payload).length, 65_536);
    assertEquals((await at.publish(topic, [event(65_536)])).status, 200);
    const { body } = await refused(at, topic, 413, "payload_too_large", () => at.publish(topic, [uploaded("d"), event(65_537)]));
    assertEquals(body.limit, 65_536);
    assertMatch(body.message, /^events\.1\.payload/);
  }],
  ["other methods on the route are no page, and the page lives on", async (at) => {
    const token = await at.token(SERVICE);
    for (const method of ["GET", "PUT", "DELETE", "PATCH"]) {
      const { status, body } = await at.post("/api/topics/case:case_1/events", "{}", token, method);
      assert([404, 405].includes(status) && body.reason === "not_found", `${method} is ${status}`);
    }
    assertEquals((await fetch(`${at.server.url}/api/topics/case:case_1/events`, { method: "HEAD" })).status, 404);
  }],
]);

against("too many bytes", [
  ["a request above LIMIT_PUBLISH_BYTES is 413, with a length and without", async (at) => {
    const topic = freshTopic();
    const token = await at.token(SERVICE);
    const body = JSON.stringify({ events: [uploaded("d")] }) + " ".repeat(2000);
    const { body: told } = await refused(at, topic, 413, "payload_too_large", () => at.post(`/api/topics/${topic}/events`, body, token));
    assertEquals(told.limit, 2000);
    const stream = () => ReadableStream.from([body.slice(0, 100), body.slice(100)]).pipeThrough(new TextEncoderStream());
    await refused(at, topic, 413, "payload_too_large", () => at.post(`/api/topics/${topic}/events`, stream(), token));
    assertEquals((await at.publish(topic, [uploaded("d")], token)).status, 200);
  }],
  ["a request that says it is large is 413 before it is sent", async (at) => {
    const client = await TcpClient.connect(at.server.port);
    const headers = { authorization: `Bearer ${await at.token(SERVICE)}`, "content-length": "1000000000", connection: "close" };
    await client.ask("POST", "/api/topics/case:case_1/events", headers);
    assertEquals((await client.answer()).status, 413);
    client.close();
  }],
], { LIMIT_PUBLISH_BYTES: "2000" });

const ODD_IDS = [
  "case_1",
  "a/b",
  "a//b",
  "100%",
  "%41",
  "%2F",
  "é",
  "e\u0301",
  "😀",
  "a b",
  "a+b",
  "a?b#c",
  "a:b",
  "..",
  "__proto__",
  "constructor",
  "'\"; drop table log; --",
];

against("topics", [
  ["a topic is the percent-decoded part of the path, once: case%3Acase_1 is case:case_1", async (at) => {
    await using member = await at.member("case:case_1");
    const token = await at.token(SERVICE);
    for (const path of ["case%3Acase_1", "case:case_1", "%63%61%73%65%3a%63ase_1"]) {
      const { status } = await at.post(`/api/topics/${path}/events`, JSON.stringify({ events: [uploaded(path)] }), token);
      assertEquals(status, 200, path);
      assertEquals(eventsOf(await member.heard(), "document:uploaded").map((frame) => [frame[2], frame[4].document.id]), [["case:case_1", path]]);
    }
  }],
  ...ODD_IDS.map((id): Case => [`the case ${JSON.stringify(id)} is heard of under that name and no other`, async (at) => {
    await using member = await at.member(`case:${id}`);
    const others = await Promise.all([`case:${encodeURIComponent(id)}!`, "case:a", "case:A", "case:b"].map((topic) => at.member(topic)));
    assertEquals((await at.publish(`case:${id}`, [uploaded("d")])).status, 200);
    assertEquals(eventsOf(await member.heard(), "document:uploaded").map((frame) => frame[2]), [`case:${id}`]);
    for (const other of others) {
      assertEquals(eventsOf(await other.heard(), "document:uploaded"), []);
      await other.close();
    }
  }]),
]);

/** Cursors of an answer. */
const cursors = ({ body }: Answer): string[] => body.events.map((event: { cursor: string }) => event.cursor);

against("repeated ids", [
  ["a repeated id is applied once and answered with the same cursor, alone, in a batch, and within one request", async (at) => {
    const topic = freshTopic();
    await using member = await at.member(topic);
    const token = await at.token(SERVICE);
    const a = uploaded("a", { id: "a" });
    const [first] = cursors(await at.publish(topic, [a], token));
    assertEquals(cursors(await at.publish(topic, [a], token)), [first]);
    const batch = cursors(await at.publish(topic, [uploaded("b", { id: "b" }), a, uploaded("b", { id: "b" }), uploaded("c")], token));
    assertEquals([batch[1], batch[2]], [first, batch[0]]);
    assertEquals(new Set(batch).size, 3);
    assertEquals(eventsOf(await member.heard(), "document:uploaded").map((frame) => [frame[4].document.id, frame[4].cursor]), [
      ["a", first],
      ["b", batch[0]],
      ["c", batch[3]],
    ]);
  }],
  ["twenty repetitions at once are one event", async (at) => {
    const topic = freshTopic();
    await using member = await at.member(topic);
    const token = await at.token(SERVICE);
    const answers = await Promise.all(Array.from({ length: 20 }, () => at.publish(topic, [uploaded("a", { id: "same" })], token)));
    assertEquals(new Set(answers.flatMap(cursors)).size, 1);
    assertEquals(eventsOf(await member.heard(), "document:uploaded").length, 1);
  }],
  ["an id that stood for something else is 409 duplicate: another payload, another event, and within one request", async (at) => {
    const topic = freshTopic();
    const token = await at.token(SERVICE);
    await at.publish(topic, [uploaded("a", { id: "x" })], token);
    const others: Published[][] = [
      [uploaded("b", { id: "x" })],
      [{ event: "document:processed", payload: { document_id: "a", status: "completed" }, id: "x" }],
      [uploaded("c"), uploaded("b", { id: "x" }), uploaded("d")],
      [uploaded("e", { id: "y" }), uploaded("f", { id: "y" })],
    ];
    for (const events of others) await refused(at, topic, 409, "duplicate", () => at.publish(topic, events, token));
    // Nothing of the refused requests is remembered: y is free.
    assertEquals((await at.publish(topic, [uploaded("f", { id: "y" })], token)).status, 200);
  }],
  ["an id of a batch that was refused is free", async (at) => {
    const topic = freshTopic();
    const token = await at.token(SERVICE);
    await refused(at, topic, 422, "invalid_payload", () => at.publish(topic, [uploaded("a", { id: "z" }), { event: "document:uploaded", payload: {} }], token));
    const answer = await at.publish(topic, [uploaded("b", { id: "z" })], token);
    assertEquals([answer.status, cursors(answer)], [200, [await cursor(at, topic)]]);
  }],
  ["ids are each sender's own, whatever they are called", async (at) => {
    const topic = freshTopic();
    const [one, two] = [await at.token(at.fresh("service")), await at.token(at.fresh("service"))];
    for (const id of ["1", "__proto__", "constructor", "x".repeat(255), "é", "a\u2028b", "%", "'"]) {
      const mine = cursors(await at.publish(topic, [uploaded("one", { id })], one));
      const theirs = cursors(await at.publish(topic, [uploaded("two", { id })], two));
      assertEquals(cursors(await at.publish(topic, [uploaded("one", { id })], one)), mine);
      assertEquals(cursors(await at.publish(topic, [uploaded("two", { id })], two)), theirs);
      assert(mine[0] !== theirs[0]);
    }
  }],
  ["no id, no memory: the same content twice is two events", async (at) => {
    const topic = freshTopic();
    const token = await at.token(SERVICE);
    const [first, second] = [cursors(await at.publish(topic, [uploaded("a")], token)), cursors(await at.publish(topic, [uploaded("a")], token))];
    assert(first[0] !== second[0]);
  }],
]);

// Durability.

interface Kept {
  topic: string;
  document: string;
  cursor: string;
}

function tempDir(): { path: string; [Symbol.dispose](): void } {
  const path = Deno.makeTempDirSync({ prefix: "caseroom-publishing-" });
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

async function verifyLog(dataDir: string): Promise<void> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["task", "--quiet", "log", "verify"],
    cwd: new URL("..", import.meta.url),
    env: { DATA_DIR: dataDir, NO_COLOR: "1" },
  }).output();
  const said = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  assertEquals(code, 0, said);
  assertMatch(said, /every chain holds/);
}

/** The log's events by cursor, read beside the server. */
function readLog(dataDir: string): Map<string, Kept> {
  const db = new DatabaseSync(`${dataDir}/caseroom.db`, { readOnly: true });
  const rows = numbered(
    db.prepare("select key from log_key").get() as SqlRow,
    db.prepare("select room, hash, topic, event, payload from log order by seq").all() as SqlRow[],
  );
  db.close();
  return new Map(
    rows.filter(({ event }) => event === "document:uploaded").map((
      { cursor, topic, payload },
    ) => [cursor, { topic: String(topic), document: JSON.parse(String(payload)).document.id, cursor }]),
  );
}

Deno.test("publishing: what was answered is in the log after kill -9, in every round, and the chain holds", async () => {
  using dir = tempDir();
  const acknowledged: Kept[] = [];
  const token = await (async () => {
    await using at = await Outside.start({ DATA_DIR: dir.path });
    return await at.token(SERVICE);
  })();
  for (let round = 0; round < 5; round++) {
    const at = await Outside.start({ DATA_DIR: dir.path });
    let ending = false;
    const publishers = Array.from({ length: 8 }, async (_, publisher) => {
      for (let count = 0; !ending; count++) {
        const topic = `case:kill_${publisher % 4}`;
        const documents = Array.from({ length: 1 + count % 3 }, (_, index) => `${round}.${publisher}.${count}.${index}`);
        const answer = await at.publish(topic, documents.map((id) => uploaded(id, { id })), token).catch(() => null);
        if (answer?.status === 200) cursors(answer).forEach((cursor, index) => acknowledged.push({ topic, document: documents[index], cursor }));
      }
    });
    // At once after some answer, whatever else is under way.
    const enough = acknowledged.length + 20 + 60 * Math.random();
    while (acknowledged.length < enough) await new Promise((resolve) => setTimeout(resolve, 1));
    ending = true;
    await at.server.stop("SIGKILL");
    await Promise.all(publishers);
    const log = readLog(dir.path);
    assertEquals(acknowledged.filter((kept) => JSON.stringify(log.get(kept.cursor)) !== JSON.stringify(kept)), [], `round ${round}`);
    // Once each, also those that were not answered any more.
    const documents = [...log.values()].map(({ topic, document }) => `${topic} ${document}`);
    assertEquals(new Set(documents).size, documents.length);
    await verifyLog(dir.path);
  }
  assertGreater(acknowledged.length, 100);
});

Deno.test("publishing: an id is remembered across a restart and across kill -9", async () => {
  using dir = tempDir();
  const topic = freshTopic();
  const answered: string[][] = [];
  for (const signal of ["SIGTERM", "SIGKILL", "SIGKILL", "SIGTERM"] as const) {
    await using at = await Outside.start({ DATA_DIR: dir.path });
    const token = await at.token(SERVICE);
    await using member = await at.member(topic);
    await member.heard();
    const round = answered.length;
    const events = Array.from({ length: round + 1 }, (_, index) => uploaded(`d${index}`, { id: `${index}` }));
    answered.push(cursors(await at.publish(topic, events, token)));
    assertEquals(answered[round].slice(0, round), answered[round - 1] ?? []);
    assertEquals(eventsOf(await member.heard(), "document:uploaded").map((frame) => frame[4].document.id), [`d${round}`]);
    assertEquals((await at.publish(topic, [uploaded("other", { id: "0" })], token)).body.reason, "duplicate");
    await at.server.stop(signal);
  }
  assertEquals(readLog(dir.path).size, 4);
  await verifyLog(dir.path);
});

// Pages.

/** Every `$ref` of a page. */
function refsOf(value: unknown): string[] {
  if (typeof value !== "object" || value === null) return [];
  return Object.entries(value).flatMap(([key, inner]) => key === "$ref" ? [String(inner)] : refsOf(inner));
}

against("pages", [
  ["/health and /ready say so in JSON", async (at) => {
    for (const [path, status] of [["/health", "ok"], ["/ready", "ready"]]) {
      const response = await fetch(at.server.url + path);
      assertEquals([response.status, response.headers.get("content-type"), await response.json()], [200, "application/json", { status }]);
    }
  }],
  ["/asyncapi.json is AsyncAPI 3 whose refs all lead somewhere, with the lasting events of case, all but one published", async (at) => {
    const page = await (await fetch(`${at.server.url}/asyncapi.json`)).json();
    assertMatch(page.asyncapi, /^3\./);
    assertEquals(page.channels.case.address, "case:{caseId}");
    const messages = Object.values(page.channels.case.messages) as Record<string, unknown>[];
    const lasting = messages.filter((message) => message["x-durability"] === "lasting");
    assertEquals(lasting.map((message) => message.name).sort(), [
      "document:processed",
      "document:uploaded",
      "document:withdrawn",
      "workflow:completed",
      "workflow:started",
    ]);
    const byBackEnds = lasting.filter(({ name }) => name !== "document:withdrawn");
    assertEquals(messages.filter((message) => message["x-published"]).map((message) => message.name).sort(), byBackEnds.map(({ name }) => name).sort());
    for (const message of messages) assertEquals(typeof message.payload, "object");
    const refs = refsOf(page);
    assertGreater(refs.length, 10);
    for (const ref of refs) {
      let found = page;
      for (const key of ref.replace(/^#\//, "").split("/")) found = found?.[key.replaceAll("~1", "/").replaceAll("~0", "~")];
      assert(found !== undefined, ref);
    }
    // A published event's schema says what the door checks.
    assertEquals((lasting.find((message) => message.name === "document:uploaded")!.payload as Record<string, unknown>).required, ["document", "cursor"]);
  }],
  ["there is no other page, and the answer is JSON", async (at) => {
    for (const path of ["/", "/nowhere", "/__proto__", "/constructor", "/api", "/api/topics", "/socket/foo", "/health/", "/..%2f..%2fetc/passwd"]) {
      const response = await fetch(at.server.url + path);
      assertEquals([response.status, (await response.json()).reason], [404, "not_found"], path);
    }
  }],
  ["a request that would rather speak h2c is answered as if it had not said so (RFC 9110 section 7.8)", async (at) => {
    const { "sec-websocket-key": _, ...upgrade } = UPGRADE;
    const headers = { ...upgrade, connection: "Upgrade, HTTP2-Settings, close", upgrade: "h2c", "http2-settings": "AAMAAABkAARAAAAAAAIAAAAA" };
    const { status, body } = await TcpClient.request(at.server.port, "GET", "/health", headers);
    assertEquals([status, body], [200, '{"status":"ok"}']);
    const topic = freshTopic();
    const text = JSON.stringify({ events: [uploaded("d")] });
    const client = await TcpClient.connect(at.server.port);
    await client.ask("POST", `/api/topics/${topic}/events`, {
      ...headers,
      authorization: `Bearer ${await at.token(SERVICE)}`,
      "content-length": `${text.length}`,
    });
    await client.write(text);
    const answer = await client.answer();
    client.close();
    assertEquals([answer.status, Object.keys(JSON.parse(answer.body || "{}"))], [200, ["events"]]);
  }],
]);
