/** How a document becomes known: published to a case, listed there, and told to its own room, whatever happens in between. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import { Refusal } from "../protocol/reason.ts";
import { rooms } from "../rooms/channels/mod.ts";
import { DenoSql } from "../rooms/hosts/deno_sql.ts";
import { Outside, type Published } from "./support/outside.ts";
import { startServer } from "./support/process.ts";
import { type Heard, RawClient } from "./support/raw.ts";
import { BreakableSql, someone, Stage } from "./support/stage.ts";

const CASE = "case:case_1";
const SERVICE = someone("back end", "service");

const uploaded = (id: string, more: object = {}): Published => ({ event: "document:uploaded", payload: { document: { id, ...more } } });

/** Publishes, and lets what follows happen. */
function publish(stage: Stage, topic: string, ...events: Published[]): Promise<string[]> {
  const answer = stage.registry.publish(topic, SERVICE, events);
  stage.run();
  return answer;
}
const rows = (stage: Stage, statement: string) => stage.host.sql.run(statement, [], false).map((row) => ({ ...row }));
const registered = (stage: Stage) => rows(stage, "select room, case_id from document_registered order by room");
/** How many calls were ever made, and what has become of them. */
const calls = (stage: Stage) => ({
  made: Number(rows(stage, "select seq from sqlite_sequence where name = 'outbox'")[0]?.seq ?? 0),
  waiting: rows(stage, "select target, failed from outbox"),
  taken: rows(stage, "select target, room from called order by target, room"),
});
/** What a join of the case is told. */
const listed = (stage: Stage, topic = CASE): { documents: Heard[]; more_documents: boolean } =>
  stage.client(someone("looker")).join(topic).heard[0][4].response;
const ids = (stage: Stage, topic = CASE) => listed(stage, topic).documents.map(({ id }) => id);

/** Joins a document as somebody of those cases: `ok`, or the reason why not, however long that takes. */
async function open(stage: Stage, id: string, cases: string[] | "*" = "*"): Promise<string> {
  const client = stage.client(someone("reader", "attorney", cases));
  const { heard } = client.join(`collaboration:${id}`);
  stage.advance(1000);
  await stage.settle();
  const { status, response } = [...heard, ...client.take()].find((frame) => frame[3] === "phx_reply")[4];
  if (status === "ok") assertEquals(response.document_id, id);
  client.drop(true);
  return response.reason ?? status;
}

// Registered.

Deno.test("document: what is uploaded to a case is told to its room in one call, of which nothing stays behind [§4]", async () => {
  const stage = new Stage(rooms);
  assertEquals(await open(stage, "d1"), "not_found");
  await publish(stage, CASE, uploaded("d1"));
  assertEquals(registered(stage), [{ room: "document/d1", case_id: "case_1" }]);
  assertEquals(calls(stage), { made: 1, waiting: [], taken: [{ target: "document/d1", room: "case/case_1" }] });
  assertEquals([await open(stage, "d1"), await open(stage, "d1", ["case_1"]), await open(stage, "d1", ["case_2"])], ["ok", "ok", "not_found"]);
  assertEquals([await open(stage, "d2"), stage.reported], ["not_found", []]);
  stage.close();
});

Deno.test("document: published again to its case it is told to nobody a second time; the list shows it as it was said last", async () => {
  const stage = new Stage(rooms);
  await publish(stage, CASE, uploaded("d1", { filename: "a.pdf", size: 7, tags: ["x"], secret: "of the event" }), uploaded("d1", { filename: "b.pdf" }));
  stage.advance(1000);
  await publish(stage, CASE, uploaded("d2"));
  assertEquals(listed(stage).documents, [{ id: "d2" }, { id: "d1", filename: "b.pdf" }]);
  stage.advance(1000);
  await publish(stage, CASE, uploaded("d1", { filename: "c.pdf", title: "C", content_type: "application/pdf", status: "pending", custodian: "x" }));
  // It keeps its place: it is no newer than it was.
  assertEquals(listed(stage).documents, [{ id: "d2" }, { id: "d1", filename: "c.pdf", title: "C", content_type: "application/pdf", status: "pending" }]);
  await publish(stage, CASE, { event: "document:processed", payload: { document_id: "d1", status: "completed" } });
  await publish(stage, CASE, { event: "document:processed", payload: { document_id: "never seen", status: "failed" } });
  assertEquals(listed(stage).documents.map(({ id, status, filename }) => [id, status, filename]), [["d2", undefined, undefined], ["d1", "completed", "c.pdf"]]);
  assertEquals(calls(stage).made, 2);
  assertEquals(registered(stage).length, 2);
  stage.close();
});

Deno.test("document: a case lists its newest hundred, the newest first, and says when there are more", async () => {
  const stage = new Stage(rooms);
  const all: string[] = [];
  const add = async (count: number) => {
    for (let n = 0; n < count; n++) {
      stage.clock.advance(1);
      // Not in the order of their names.
      const id = `d${(all.length * 37) % 101}`;
      all.unshift(id);
      await publish(stage, CASE, uploaded(id));
    }
  };
  await add(99);
  assertEquals([ids(stage), listed(stage).more_documents], [all, false]);
  await add(1);
  assertEquals([ids(stage), listed(stage).more_documents], [all, false]);
  await add(1);
  assertEquals([ids(stage), listed(stage).more_documents], [all.slice(0, 100), true]);
  // The one that is not listed is there all the same.
  assertEquals([await open(stage, all[100]), ids(stage, "case:case_2")], ["ok", []]);
  stage.close();
});

Deno.test("document: of those published in one request the last one is the newest", async () => {
  const stage = new Stage(rooms);
  await publish(stage, CASE, uploaded("b"), uploaded("c"), uploaded("a"));
  assertEquals(ids(stage), ["a", "c", "b"]);
  stage.close();
});

Deno.test("document: another case that publishes its id does not get it: its people find nothing, those of the first stay", async () => {
  const stage = new Stage(rooms);
  await publish(stage, CASE, uploaded("d1"));
  const inside = stage.client(someone("inside", "attorney", ["case_1"]));
  inside.join("collaboration:d1");
  inside.take();
  // Its publication stands: what a case says of itself is its own affair.
  const [cursor] = await publish(stage, "case:case_2", uploaded("d1"));
  assertEquals(typeof cursor, "string");
  assertEquals(registered(stage), [{ room: "document/d1", case_id: "case_1" }]);
  assertEquals(calls(stage), {
    made: 2,
    waiting: [],
    taken: [{ target: "document/d1", room: "case/case_1" }, { target: "document/d1", room: "case/case_2" }],
  });
  assertEquals([await open(stage, "d1", ["case_2"]), await open(stage, "d1", ["case_1"]), await open(stage, "d1", ["case_2", "case_1"])], [
    "not_found",
    "ok",
    "ok",
  ]);
  assertEquals(inside.send([null, "1", "collaboration:d1", "cursor:move", { x: 1, y: 2 }]).find((frame) => frame[1] === "1")[4].status, "ok");
  assertEquals([inside.take().filter((frame) => frame[3] === "phx_close"), stage.reported], [[], []]);
  stage.close();
});

Deno.test("document: both cases in one tick: the first one has it", async () => {
  const stage = new Stage(rooms);
  const answers = ["case:case_2", "case:case_1"].map((topic) => stage.registry.publish(topic, SERVICE, [uploaded("d1")]));
  stage.run();
  await Promise.all(answers);
  assertEquals(registered(stage), [{ room: "document/d1", case_id: "case_2" }]);
  stage.close();
});

Deno.test("document: a request that is refused registers nothing, nor does one whose tick is lost; sent again, it does", async () => {
  const sql = new BreakableSql();
  const stage = new Stage(rooms, { sql });
  const nothing = async () => {
    stage.advance(1000);
    assertEquals([registered(stage), calls(stage), ids(stage)], [[], { made: 0, waiting: [], taken: [] }, []]);
    assertEquals(await open(stage, "d1"), "not_found");
  };
  await assertRejects(() => publish(stage, CASE, uploaded("d1"), uploaded("d2", { case_id: "case_2" })), Refusal, "document.case_id");
  await nothing();
  sql.failCommits = 1;
  const again = { ...uploaded("d1"), id: "upload 1" };
  assertEquals((await assertRejects(() => publish(stage, CASE, again), Refusal)).reason, "unavailable");
  await nothing();
  const cursors = await publish(stage, CASE, again);
  assertEquals(await publish(stage, CASE, again), cursors);
  assertEquals([registered(stage).length, calls(stage).made, await open(stage, "d1")], [1, 1, "ok"]);
  stage.close();
});

Deno.test("document: a call whose tick is lost comes again", async () => {
  const sql = new BreakableSql();
  const stage = new Stage(rooms, { sql });
  const answer = stage.registry.publish(CASE, SERVICE, [uploaded("d1")]);
  stage.tick();
  await answer;
  sql.failCommits = 2;
  stage.run();
  assertEquals([registered(stage), calls(stage).waiting.length], [[], 1]);
  stage.advance(1000);
  assertEquals([registered(stage).length, calls(stage).waiting, sql.failCommits, await open(stage, "d1")], [1, [], 0, "ok"]);
  stage.close();
});

// Ids.

const ODD = [
  "a b c",
  "a:b:c",
  ":",
  "a/b/../c",
  "/",
  "document/d1",
  "Akte №7 – Müller & Söhne",
  "書類",
  "🗂️📎",
  "e\u0301",
  "\u00e9",
  "%2F%00",
  "?x=1#y",
  "'; drop table document_registered; --",
  '"quoted"\\',
  "\u2028\u202e<b>",
  "__proto__",
  "constructor",
  "0",
  "null",
  " ",
  // The longest that a topic of 255 bytes has room for.
  "x".repeat(255 - "collaboration:".length),
  "é".repeat(120),
];

Deno.test("document: an id is taken verbatim, whatever stands in it, and is nobody else's", async () => {
  const stage = new Stage(rooms);
  for (const [index, id] of ODD.entries()) {
    assertEquals(await open(stage, id), "not_found", id);
    await publish(stage, CASE, uploaded(id, { title: `number ${index}` }));
    assertEquals(await open(stage, id), "ok", id);
  }
  assertEquals(registered(stage).map(({ room }) => room).toSorted(), ODD.map((id) => `document/${id}`).toSorted());
  assertEquals(listed(stage).documents.map(({ id, title }) => [id, title]).toSorted(), ODD.map((id, index) => [id, `number ${index}`]).toSorted());
  assertEquals([calls(stage).waiting, stage.reported], [[], []]);
  stage.close();
});

Deno.test("document: an id of 255 characters is registered and listed, and the topics that have room for it are", async () => {
  const stage = new Stage(rooms);
  const id = "x".repeat(255);
  await publish(stage, CASE, uploaded(id));
  assertEquals([ids(stage), registered(stage)], [[id], [{ room: `document/${id}`, case_id: "case_1" }]]);
  // The wire's own bound.
  assertEquals(await open(stage, id), "invalid_frame");
  stage.close();
});

// Processes.

/** What a file says, read from beside the server. */
function peek(dataDir: string, statement: string): Record<string, unknown>[] {
  const db = new DatabaseSync(`${dataDir}/caseroom.db`, { readOnly: true });
  try {
    return db.prepare(statement).all().map((row) => ({ ...row }));
  } finally {
    db.close();
  }
}

Deno.test("document: it survives a restart, and its case's list with it", async () => {
  const path = Deno.makeTempFileSync({ suffix: ".db" });
  const before = new Stage(rooms, { sql: new DenoSql(path) });
  await publish(before, CASE, uploaded("d1", { title: "one" }));
  before.clock.advance(1);
  await publish(before, CASE, uploaded("d2"));
  before.close();
  const after = new Stage(rooms, { sql: new DenoSql(path) });
  assertEquals(listed(after).documents, [{ id: "d2" }, { id: "d1", title: "one" }]);
  assertEquals([await open(after, "d1", ["case_1"]), await open(after, "d2", ["case_2"])], ["ok", "not_found"]);
  await publish(after, "case:case_2", uploaded("d1"));
  await publish(after, CASE, uploaded("d1"));
  assertEquals([registered(after).map(({ case_id }) => case_id), calls(after).made], [["case_1", "case_1"], 3]);
  after.close();
  Deno.removeSync(path);
});

for (let ticks = 1; ticks <= 4; ticks++) {
  Deno.test(`document: a process that ends ${ticks} ticks after the publication loses nothing and does nothing twice`, async () => {
    const path = Deno.makeTempFileSync({ suffix: ".db" });
    const before = new Stage(rooms, { sql: new DenoSql(path) });
    const answer = before.registry.publish(CASE, SERVICE, [uploaded("d1")]);
    for (let tick = 0; tick < ticks; tick++) before.tick();
    await answer;
    if (ticks === 1) assertEquals([registered(before), calls(before).waiting.length], [[], 1]);
    before.close();
    const after = new Stage(rooms, { sql: new DenoSql(path) });
    after.run();
    assertEquals(registered(after), [{ room: "document/d1", case_id: "case_1" }]);
    assertEquals(calls(after), { made: 1, waiting: [], taken: [{ target: "document/d1", room: "case/case_1" }] });
    assertEquals([await open(after, "d1"), after.reported], ["ok", []]);
    after.close();
    Deno.removeSync(path);
  });
}

/** `main.ts` in a process that kills itself as soon as a commit has made the statement count anything. */
const killedOnce = (statement: string) => `
  import { DenoSql } from "./rooms/hosts/deno_sql.ts";
  const { commit } = DenoSql.prototype;
  DenoSql.prototype.commit = function () {
    const kept = commit.call(this);
    if (this.run(${JSON.stringify(statement)}, [], false)[0].n > 0) Deno.kill(Deno.pid, "SIGKILL");
    return kept;
  };
  await import("./main.ts");
`;

const MOMENTS = {
  "between the publication and its call": "select count(*) as n from outbox",
  "between the call and the end of its row": "select count(*) as n from called",
};

for (const [moment, statement] of Object.entries(MOMENTS)) {
  Deno.test(`document: a server killed with -9 ${moment} has registered it when it is back`, async () => {
    const dataDir = Deno.makeTempDirSync({ prefix: "caseroom-document-" });
    {
      await using dying = await startServer({ DATA_DIR: dataDir }, ["eval", killedOnce(statement)]);
      const events = [{ ...uploaded("d1"), id: "upload 1" }];
      const headers = { authorization: `Bearer ${await dying.token(SERVICE)}`, "content-type": "application/json" };
      const asked = fetch(`${dying.url}/api/topics/${CASE}/events`, { method: "POST", headers, body: JSON.stringify({ events }) });
      await asked.then((response) => response.body?.cancel(), () => {});
      // Were it not dead, or about to be, it would end with 0.
      assertEquals(await dying.stop("SIGTERM"), 137, dying.output());
    }
    assertEquals(peek(dataDir, "select event from log"), [{ event: "document:uploaded" }]);
    assertEquals(peek(dataDir, "select target from outbox"), [{ target: "document/d1" }]);
    await using server = await startServer({ DATA_DIR: dataDir });
    const token = await server.token(someone("reader", "viewer", ["case_1"]));
    await using client = await RawClient.open(`${server.ws}/websocket?vsn=2.0.0&token=${token}`);
    assertEquals((await client.ask(["1", "1", "collaboration:d1", "phx_join", {}]))[4], { status: "ok", response: { document_id: "d1" } });
    for (const end = Date.now() + 5000; peek(dataDir, "select id from outbox").length > 0 && Date.now() < end;) {
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    assertEquals([peek(dataDir, "select id from outbox"), peek(dataDir, "select id from called").length], [[], 1]);
    assertEquals(await server.stop(), 0, server.output());
    Deno.removeSync(dataDir, { recursive: true });
  });
}

Deno.test("document: over HTTP an id that is no name is refused with 422 and registers nothing, an odd one is registered", async () => {
  await using at = await Outside.start();
  const none: unknown[] = ["", "a\u0000", "\n", "a\tb", "\u007f", "\ud800", "a\udc00b", "x".repeat(256), 7, null, {}, ["d1"], undefined];
  for (const id of none) {
    const answer = await at.publish(CASE, [uploaded("good"), { event: "document:uploaded", payload: { document: { id } } }]);
    assertEquals([answer.status, answer.body.reason], [422, "invalid_payload"], JSON.stringify(id));
    assertStringIncludes(answer.body.message, "events.1.payload: document.id: ");
  }
  assertEquals(peek(at.server.dataDir, "select room from document_registered"), []);
  const odd = ODD.slice(0, 20);
  assertEquals((await at.publish(CASE, odd.map((id) => uploaded(id)))).status, 200);
  await using client = await at.connect();
  for (const id of odd) assertEquals((await client.ask(["1", id, `collaboration:${id}`, "phx_join", {}]))[4], { status: "ok", response: { document_id: id } });
  assert(!at.server.output().includes('"level":"error"'), at.server.output());
});
