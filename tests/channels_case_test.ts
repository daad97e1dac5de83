import { assert, assertEquals, assertRejects } from "@std/assert";
import { Refusal } from "../protocol/reason.ts";
import { channels } from "../protocol/channels/mod.ts";
import { rooms } from "../rooms/channels/mod.ts";
import { BreakableSql, someone, Stage } from "./support/stage.ts";

const meta = (phx_ref: string, name: string) => ({ name, status: "online", activity: "", location: "", online_at: "2026-01-01T00:00:00.000Z", phx_ref });

Deno.test("case: a join is answered, then presence_state, then the diff [R01, R02, 87]", () => {
  const stage = new Stage(rooms);
  const { ref, heard } = stage.client().join("case:case_1");
  const presence = { user_1: { metas: [meta("id1", "Name of user_1")] } };
  assertEquals(heard.map((frame) => frame[3]), ["phx_reply", "presence_state", "presence_diff"]);
  assertEquals(heard[0].slice(0, 4), [ref, ref, "case:case_1", "phx_reply"]);
  assertEquals(heard[0][4].response.case_id, "case_1");
  assertEquals(heard[1], [ref, null, "case:case_1", "presence_state", presence]);
  assertEquals(heard[2], [null, null, "case:case_1", "presence_diff", { joins: presence, leaves: {} }]);
  stage.close();
});

Deno.test("case: user:joined and user:left once per user, not per socket, and never to the user himself [C12]", () => {
  const stage = new Stage(rooms);
  const watcher = stage.client(someone("watcher"));
  watcher.join("case:case_1");
  const names = () => watcher.take().map((frame) => frame[3]).filter((event) => event.startsWith("user:"));
  const [first, second] = [stage.client(someone("user_2")), stage.client(someone("user_2"))];
  assertEquals(first.join("case:case_1").heard.filter((frame) => frame[3] === "user:joined"), []);
  second.join("case:case_1");
  assertEquals(names(), ["user:joined"]);
  first.drop(true);
  assertEquals(names(), []);
  second.drop(true);
  assertEquals(names(), ["user:left"]);
  stage.close();
});

const TOPIC = "case:case_1";
const published = (stage: Stage, events: { event: string; payload: unknown; id?: string }[], topic = TOPIC) => {
  const answer = stage.registry.publish(topic, someone("service_1", "service"), events);
  stage.run();
  return answer;
};

Deno.test("case: the join's reply says where the log stands and what one may do [C01]", async () => {
  const stage = new Stage(rooms);
  const join = (role: "attorney" | "viewer" | "client") => stage.client(someone(role, role)).join(TOPIC).heard[0][4].response;
  assertEquals(join("viewer"), {
    case_id: "case_1",
    rights: ["read"],
    documents: [],
    more_documents: false,
    cursor: "0",
    recovered: false,
  });
  await published(stage, [{ event: "document:uploaded", payload: { document: { id: "d1" } } }]);
  // Until it is known not to be privileged it is only for those who may see what is.
  assertEquals([join("client").documents, join("attorney").documents], [[], [{ id: "d1" }]]);
  const analysed = { document_id: "d1", status: "completed", results: { privilege_analysis: { is_privileged: false } } };
  const [cursor] = await published(stage, [{ event: "document:processed", payload: analysed }]);
  assertEquals(join("client"), {
    case_id: "case_1",
    rights: ["read", "annotate"],
    documents: [{ id: "d1", status: "completed" }],
    more_documents: false,
    cursor,
    recovered: false,
  });
  assertEquals(join("attorney").rights, ["read", "annotate", "code", "edit", "upload", "privilege", "moderate"]);
  stage.close();
});

Deno.test("case: only those whose token names it may enter, with the same answer whether it exists or not, and none is made", async () => {
  const stage = new Stage(rooms);
  await published(stage, [{ event: "document:uploaded", payload: { document: { id: "d1" } } }]);
  const entries = () => stage.host.sql.run("select event, user from log", [], false).length;
  const answers = (cases: string[], role: "admin" | "service" = "admin") => {
    const client = stage.client(someone("u", role, cases));
    return ["case_1", "case_2", "__proto__"].map((id) => client.join(`case:${id}`).heard[0][4]);
  };
  const before = entries();
  const refused = { status: "error", response: { reason: "forbidden", message: "the token does not name this case" } };
  assertEquals(answers([]), [refused, refused, refused]);
  assertEquals(answers(["case_10", "*"]), [refused, refused, refused]);
  // The refusals of the case that exists stand in its log, those of the others beside it: as much is written for either.
  assertEquals(entries(), before + 6);
  const heads = stage.host.sql.run("select room, number from log_head order by room", [], false).map((row) => Object.values(row));
  assertEquals(heads, [["case/case_1", 3], ["refusals", 4]]);
  assertEquals(answers(["case_1"]).map(({ status }) => status), ["ok", "error", "error"]);
  stage.close();
});

Deno.test("case: what a back end publishes is heard by all with its cursor, validated and relayed", async () => {
  const stage = new Stage(rooms);
  const client = stage.client();
  client.join(TOPIC);
  client.take();
  const document = { id: "d1", filename: "a.pdf", tags: ["x"], extra: { kept: true } };
  const cursors = await published(stage, [
    { event: "document:uploaded", payload: { document, more: 1 } },
    { event: "workflow:started", payload: { workflow_id: "w", case_id: "case_1" } },
  ]);
  assertEquals(client.take(), [
    [null, null, TOPIC, "document:uploaded", { document, more: 1, cursor: cursors[0] }],
    [null, null, TOPIC, "workflow:started", { workflow_id: "w", case_id: "case_1", cursor: cursors[1] }],
  ]);
  stage.close();
});

Deno.test("case: one wrong event of a request refuses all of it, and names its place", async () => {
  const stage = new Stage(rooms);
  const client = stage.client();
  client.join(TOPIC);
  client.take();
  const good = { event: "document:uploaded", payload: { document: { id: "d1" } } };
  const wrong: [{ event: string; payload: unknown }, string][] = [
    [{ event: "document:uploaded", payload: { document: {} } }, "events.1.payload: document.id: "],
    [{ event: "document:processed", payload: { document_id: "d1", status: "done" } }, "events.1.payload: status: "],
    [{ event: "user:joined", payload: { user: { id: "u", name: "n", role: "admin" } } }, "events.1: "],
    [{ event: "__proto__", payload: {} }, "events.1: "],
  ];
  for (const [event, message] of wrong) {
    const error = await assertRejects(() => published(stage, [good, event]), Refusal);
    assert(error.message.startsWith(message), error.message);
  }
  assertEquals(client.take(), []);
  stage.close();
});

Deno.test("case: presence:update merges into the own meta, shown texts are cleaned, and nothing else can be said of oneself", () => {
  const stage = new Stage(rooms);
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  a.join(TOPIC);
  b.join(TOPIC);
  a.take();
  b.take();
  const heard = a.send([null, "2", TOPIC, "presence:update", { status: "busy <b>\u202e", name: "Somebody Else", phx_ref: "x", online_at: "y" }]);
  assertEquals(heard.map((frame) => frame[3]), ["phx_reply", "presence_diff"]);
  const { joins, leaves } = b.take()[0][4];
  const [fresh] = joins.a.metas;
  assertEquals([fresh.status, fresh.name, fresh.online_at, fresh.phx_ref_prev], ["busy b", "Name of a", "2026-01-01T00:00:00.000Z", leaves.a.metas[0].phx_ref]);
  assertEquals(a.send([null, "3", TOPIC, "presence:update", { activity: "reading" }])[0][4].status, "ok");
  const [next] = b.take()[0][4].joins.a.metas;
  assertEquals([next.status, next.activity], ["busy b", "reading"]);
  for (const payload of [{ status: 1 }, { status: null }, { status: "x".repeat(201) }]) {
    assertEquals(a.send([null, "4", TOPIC, "presence:update", payload])[0][4].response.reason, "invalid_payload");
  }
  stage.close();
});

Deno.test("case: a client cannot say what only back ends say", () => {
  const stage = new Stage(rooms);
  const [a, b] = [stage.client(someone("a", "service")), stage.client(someone("b"))];
  a.join(TOPIC);
  b.join(TOPIC);
  a.take();
  b.take();
  for (const event of ["document:uploaded", "workflow:started", "user:joined", "update", "presence_diff", "presence_state"]) {
    assertEquals(a.send([null, "2", TOPIC, event, { document: { id: "d1" } }])[0][4].response.reason, "unknown_event", event);
  }
  assertEquals(b.take(), []);
  stage.close();
});

Deno.test("case: a user who comes back within the grace was never gone: no user:left, no user:joined [C12, 93]", () => {
  const stage = new Stage(rooms, { graceMs: 5000 });
  const watcher = stage.client(someone("watcher"));
  watcher.join(TOPIC);
  const a = stage.client(someone("a"));
  a.join(TOPIC);
  watcher.take();
  a.drop();
  stage.advance(4000);
  stage.client(someone("a")).join(TOPIC);
  stage.advance(10_000);
  assertEquals(watcher.take().map((frame) => frame[3]), ["presence_diff"]);
  stage.close();
});

Deno.test("case: a renewed token that names it no longer closes it, those behind hear user:left [102]", async () => {
  const stage = new Stage(rooms, { verify: () => Promise.resolve({ user: someone("a", "attorney", []), expires: Date.parse("2030-01-01") }) });
  const [watcher, a] = [stage.client(someone("watcher")), stage.client(someone("a"))];
  watcher.join(TOPIC);
  a.join(TOPIC);
  watcher.take();
  a.take();
  a.send([null, "2", "auth", "authenticate", { token: "t" }]);
  await stage.settle();
  const closed = a.take().at(-1);
  assertEquals([closed[3], closed[4].reason], ["phx_close", "forbidden"]);
  assertEquals(watcher.take().map((frame) => frame[3]), ["user:left", "presence_diff"]);
  stage.close();
});

Deno.test("case: what is published to one case may not speak of another: refused, with the place named", async () => {
  const stage = new Stage(rooms);
  const wrong: [string, unknown][] = [
    ["document:uploaded", { document: { id: "d1", case_id: "case_2" } }],
    ["workflow:started", { workflow_id: "w", case_id: "case_2" }],
    ["workflow:completed", { workflow_id: "w", case_id: "case_2" }],
  ];
  for (const [event, payload] of wrong) {
    const refusal = await assertRejects(
      () => published(stage, [{ event: "document:uploaded", payload: { document: { id: "d0" } } }, { event, payload }]),
      Refusal,
      "events.1.payload",
    );
    assertEquals(refusal.reason, "invalid_payload", event);
  }
  assertEquals(stage.host.sql.run("select count(*) as n from log", [], false)[0].n, 0);
  stage.close();
});

Deno.test("channels: what the contracts list is what the rooms serve, each topic once", () => {
  const served = rooms.flatMap(({ topics }) => topics.map(({ contract }) => contract.topic));
  assertEquals(served.toSorted(), channels.map(({ topic }) => topic).toSorted());
  assertEquals(new Set(channels.map(({ name }) => name)).size, channels.length);
});

Deno.test("case: a join and its leave in one lost tick: unavailable, the leave is answered, and nobody hears of somebody who never came", () => {
  const sql = new BreakableSql();
  const stage = new Stage(rooms, { sql });
  const watcher = stage.client(someone("watcher"));
  watcher.join(TOPIC);
  void published(stage, [{ event: "document:uploaded", payload: { document: { id: "d1" } } }]);
  watcher.take();
  sql.failCommits = 1;
  const zed = stage.client(someone("zed"));
  // The third one is a refusal of authority: it writes, and so takes part in the lost tick.
  const heard = zed.send(["1", "1", TOPIC, "phx_join", {}], ["1", "2", TOPIC, "phx_leave", {}], ["3", "3", TOPIC, "phx_join", { user_id: "no" }]);
  stage.advance(1000);
  const answers = [...heard, ...zed.take()].filter((frame) => frame[3] === "phx_reply").map((frame) => [frame[1], frame[4].status, frame[4].response.reason]);
  assertEquals(answers.toSorted(), [["1", "error", "unavailable"], ["2", "ok", undefined], ["3", "error", "unavailable"]]);
  assertEquals(watcher.take().map((frame) => frame[3]), []);
  stage.close();
});
