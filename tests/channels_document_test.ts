/** `document:{documentId}`: annotations, coding, and who has it open. Privilege has a file of its own. [D01 to D10] */
import { assert, assertEquals, assertMatch } from "@std/assert";
// @ts-types="./support/phoenix.d.ts"
import { Socket } from "phoenix";
import { rooms } from "../rooms/channels/mod.ts";
import type { User } from "../rooms/host.ts";
import { Outside } from "./support/outside.ts";
import type { Heard } from "./support/raw.ts";
import { someone, Stage, type StageClient } from "./support/stage.ts";

const TOPIC = "document:d1";
const OPEN = { document_id: "d1", status: "completed", results: { privilege_analysis: { is_privileged: false } } };
const EVENTS = [
  { event: "document:uploaded", payload: { document: { id: "d1", title: "Lease", filename: "lease.pdf", content_type: "application/pdf" } } },
  { event: "document:processed", payload: OPEN },
];

async function setUp() {
  const stage = new Stage(rooms);
  const answer = stage.registry.publish("case:case_1", someone("back end", "service"), EVENTS);
  await stage.settle();
  await answer;
  const open = (user: string | User, params: object = {}) => {
    const client = stage.client(typeof user === "string" ? someone(user) : user);
    const heard = client.join(TOPIC, { aliases: false, ...params }).heard;
    return { client, heard, reply: heard.find((frame) => frame[3] === "phx_reply")![4].response };
  };
  return { stage, open };
}
function push(client: StageClient, event: string, payload: object): { heard: Heard[]; reply: Heard } {
  const heard = client.send([null, "p", TOPIC, event, payload]);
  return { heard, reply: heard.find((frame) => frame[1] === "p")![4] };
}
const MARK = { text: "Important clause", position: { page: 1, x: 100, y: 200 }, type: "highlight" };
const of = (heard: Heard[], event: string) => heard.filter((frame) => frame[3] === event).map((frame) => frame[4]);

Deno.test("document: the reply says what it is, what one may do, how it stands, and who has it open [D01, D04]", async () => {
  const { stage, open } = await setUp();
  const first = open(someone("a", "viewer"));
  assertEquals({ ...first.reply, cursor: "c" }, {
    document_id: "d1",
    case_id: "case_1",
    capabilities: ["read"],
    document: { id: "d1", title: "Lease", filename: "lease.pdf", content_type: "application/pdf", status: "completed" },
    privilege: { document_id: "d1", privilege_type: "none", is_privileged: false, status: "suggested", version: 1 },
    coding: { responsive: null, hot: false, tags: [], version: 0 },
    viewing: [{ id: "a", name: "Name of a", role: "viewer" }],
    annotations: [],
    more_annotations: false,
    cursor: "c",
    recovered: false,
  });
  assertEquals(of(first.heard, "user:viewing"), []);
  first.client.take();
  const second = open("b");
  assertEquals(of(second.heard, "user:viewing").map(({ user }) => user.id), ["a"]);
  assertEquals(second.reply.viewing.map(({ id }: { id: string }) => id), ["a", "b"]);
  assertEquals(of(first.client.take(), "user:viewing").map(({ user }) => user.id), ["b"]);
  // A second tab of somebody who has it open already is nobody new.
  open("b");
  assertEquals(of(first.client.take(), "user:viewing"), []);
  stage.close();
});

Deno.test("document: of the capabilities that a session asks for it gets those of its role, and has no others [D01, D09]", async () => {
  const { stage, open } = await setUp();
  const rows = [
    [["read", "annotate"], "attorney", ["read", "annotate"]],
    [["annotate", "annotate", "nonsense", "__proto__"], "paralegal", ["annotate"]],
    [["annotate", "privilege"], "viewer", []],
    [[], "admin", []],
  ] as const;
  for (const [asked, role, granted] of rows) {
    const { reply, client } = open(someone(`${role} ${asked.length}`, role), { capabilities: asked });
    assertEquals(reply.capabilities, granted);
    const { status, response } = push(client, "add_annotation", MARK).reply;
    assertEquals([status, response.reason], (granted as readonly string[]).includes("annotate") ? ["ok", undefined] : ["error", "forbidden"]);
  }
  const viewer = open(someone("v", "viewer")).client;
  for (const [event, payload] of [["add_annotation", MARK], ["code", { hot: true }], ["update_privilege", { privilege_type: "none" }]] as const) {
    assertEquals(push(viewer, event, payload).reply.response.reason, "forbidden", event);
  }
  stage.close();
});

Deno.test("document: an annotation is answered and heard once by everybody, its author too, and is there for whoever comes later [D02, D06, D10]", async () => {
  const { stage, open } = await setUp();
  const [a, b] = [open("a").client, open("b").client];
  for (const client of [a, b]) client.take();
  const { heard, reply } = push(a, "add_annotation", MARK);
  const { annotation } = reply.response;
  const { id, created_at, ...rest } = annotation;
  assertMatch(id, /^annotation_/);
  assertEquals([rest, new Date(created_at).toISOString()], [{ ...MARK, document_id: "d1", user: { id: "a", name: "Name of a" }, version: 1 }, created_at]);
  for (const events of [heard, b.take()]) assertEquals(of(events, "annotation:added").map((payload) => payload.annotation), [annotation]);
  const answered = push(b, "add_annotation", { type: "note", text: "Why?", reply_to: id }).reply.response.annotation;
  assertEquals([answered.reply_to, answered.user.id], [id, "b"]);
  const quoted = {
    selector: [{ type: "TextQuoteSelector", exact: "clause", prefix: "the " }, { type: "TextPositionSelector", start: 3, end: 9 }],
    type: "redaction",
  };
  const third = push(a, "add_annotation", quoted).reply.response.annotation;
  assertEquals([third.selector, third.text], [quoted.selector, ""]);
  assertEquals(open("c").reply.annotations.map(({ annotation }: Heard) => annotation), [annotation, answered, third]);
  stage.close();
});

Deno.test("document: what is no annotation is refused with the place, and nobody hears of it", async () => {
  const { stage, open } = await setUp();
  const [a, b] = [open("a").client, open("b").client];
  for (const client of [a, b]) client.take();
  const rows: [object, string, RegExp][] = [
    [{ ...MARK, type: "scribble" }, "invalid_payload", /^type/],
    [{ ...MARK, position: { page: 0, x: 1, y: 1 } }, "invalid_payload", /^position.page/],
    [{ ...MARK, position: { page: 1, x: "1", y: 1 } }, "invalid_payload", /^position.x/],
    [{ ...MARK, text: "x".repeat(20_001) }, "invalid_payload", /^text/],
    [{ ...MARK, reply_to: "annotation_nobody" }, "not_found", /annotation/],
    [{ ...MARK, selector: { type: "XPathSelector", value: "//" } }, "invalid_payload", /^selector/],
    [{ encrypted: { iv: [], data: [1] } }, "invalid_payload", /iv/],
  ];
  for (const [payload, reason, message] of rows) {
    const { heard, reply } = push(a, "add_annotation", payload);
    assertEquals([reply.response.reason, heard.length], [reason, 1]);
    assertMatch(reply.response.message, message);
  }
  assertEquals(b.take(), []);
  stage.close();
});

Deno.test("document: an author changes his annotation, at the version that he saw; nobody else does", async () => {
  const { stage, open } = await setUp();
  const [a, b, other] = [open("a").client, open("b").client, open(someone("a")).client];
  const { id } = push(a, "add_annotation", MARK).reply.response.annotation;
  b.take();
  const change = (client: StageClient, version: number, more: object = { text: "Clause 7" }) =>
    push(client, "update_annotation", { annotation_id: id, version, ...more }).reply;
  const { annotation } = change(a, 1).response;
  assertEquals([annotation.text, annotation.position, annotation.version, typeof annotation.updated_at], ["Clause 7", MARK.position, 2, "string"]);
  assertEquals(of(b.take(), "annotation:updated").map(({ annotation: { text } }) => text), ["Clause 7"]);
  assertEquals([change(other, 1).response.reason, change(other, 2).response.annotation.version], ["version_conflict", 3]);
  assertEquals([change(b, 3).response.reason, change(a, 3, { annotation_id: "x" }).response.reason], ["forbidden", "not_found"]);
  assertEquals(open("late").reply.annotations[0].annotation.version, 3);
  stage.close();
});

Deno.test("document: an author or a moderator removes an annotation; removed it is gone [D03, D07]", async () => {
  const { stage, open } = await setUp();
  const paralegal = open(someone("p", "paralegal")).client;
  const [client, attorney] = [open(someone("c", "client")).client, open("a").client];
  const add = (by: StageClient) => push(by, "add_annotation", MARK).reply.response.annotation.id;
  const remove = (by: StageClient, id: string) => push(by, "remove_annotation", { annotation_id: id }).reply;
  const [one, two] = [add(paralegal), add(paralegal)];
  assertEquals(remove(client, one).response.reason, "forbidden");
  attorney.take();
  assertEquals(remove(paralegal, one), { status: "ok", response: {} });
  const [{ annotation_id, user }] = of(attorney.take(), "annotation:removed");
  assertEquals([annotation_id, user.id], [one, "p"]);
  assertEquals(remove(attorney, two).status, "ok");
  assertEquals([remove(paralegal, one).response.reason, open("late").reply.annotations], ["not_found", []]);
  stage.close();
});

Deno.test("document: an encrypted annotation shows who made it and when, and the sealed bytes as they came [V07]", async () => {
  const { stage, open } = await setUp();
  const [a, b] = [open("a").client, open("b").client];
  const encrypted = { iv: [1, 2, 3], data: [255, 0, 7], key_id: "k1" };
  const { response } = push(a, "add_annotation", { encrypted, text: "in the clear" }).reply;
  assertEquals([response.encrypted, Object.keys(response.annotation).toSorted()], [encrypted, ["created_at", "document_id", "id", "user", "version"]]);
  assertEquals(of(b.take(), "annotation:added").map(({ encrypted }) => encrypted), [encrypted]);
  assertEquals(open("late").reply.annotations, [response]);
  assertEquals(push(a, "update_annotation", { annotation_id: response.annotation.id, version: 1, text: "x" }).reply.response.reason, "invalid_payload");
  assertEquals(JSON.stringify(stage.host.sql.run("select payload from log", [], false)).includes("in the clear"), false);
  stage.close();
});

Deno.test("document: coding merges what is said of it, and its tags are a set", async () => {
  const { stage, open } = await setUp();
  const [p, b] = [open(someone("p", "paralegal")).client, open("b").client];
  b.take();
  const code = (change: object) => push(p, "code", change).reply.response.coding;
  assertEquals(code({ responsive: true, tags: ["issue 1", " issue 1 ", "b"] }), { responsive: true, hot: false, tags: ["issue 1", "b"], version: 1 });
  assertEquals(code({ hot: true }), { responsive: true, hot: true, tags: ["issue 1", "b"], version: 2 });
  assertEquals(code({ responsive: null, tags: [] }), { responsive: null, hot: true, tags: [], version: 3 });
  assertEquals(of(b.take(), "document:coded").map(({ coding, user }) => [coding.version, user.id]), [[1, "p"], [2, "p"], [3, "p"]]);
  assertEquals(open("late").reply.coding.version, 3);
  stage.close();
});

Deno.test("document: whoever comes back with a cursor is told what he missed, in its order, and no state [promise 4]", async () => {
  const { stage, open } = await setUp();
  const [a, b] = [open("a"), open("b").client];
  const since = a.reply.cursor;
  a.client.drop();
  const { id } = push(b, "add_annotation", MARK).reply.response.annotation;
  push(b, "code", { hot: true });
  push(b, "remove_annotation", { annotation_id: id });
  const { reply, heard } = open("a", { since });
  assertEquals([reply.recovered, "annotations" in reply, reply.coding.hot], [true, false, true]);
  const lasting = heard.map((frame) => frame[3]).filter((event) => /^(?:annotation:|document:|privilege:)/.test(event));
  assertEquals(lasting, ["annotation:added", "document:coded", "annotation:removed"]);
  stage.close();
});

Deno.test("document: a batch of annotations stands together or not at all [B03]", async () => {
  const { stage, open } = await setUp();
  const [a, b] = [open("a").client, open("b").client];
  b.take();
  const messages = [{ event: "add_annotation", payload: MARK }, { event: "add_annotation", payload: { ...MARK, type: "?" } }];
  assertEquals(push(a, "batch", { messages }).reply.response.reason, "batch_rejected");
  assertEquals([b.take(), open("c").reply.annotations], [[], []]);
  const { results } = push(a, "batch", { messages: [messages[0], messages[0]] }).reply.response;
  assertEquals([results.length, of(b.take(), "annotation:added").length], [2, 2]);
  // The case answers for privilege in a turn of its own: that cannot stand in a batch.
  const decide = [{ event: "update_privilege", payload: { privilege_type: "none" } }];
  assertEquals(push(a, "batch", { messages: decide }).reply.response.refused.reason, "invalid_payload");
  stage.close();
});

Deno.test("document: the page's own sample works with the real phoenix client, against a server process", async () => {
  await using at = await Outside.start();
  assertEquals((await at.publish("case:case_1", EVENTS)).status, 200);
  const socket = new Socket(at.server.ws, { params: { token: await at.token(at.fresh("paralegal")) } });
  socket.connect();
  try {
    const doc = socket.channel(TOPIC, { capabilities: ["read", "annotate"] });
    const added = new Promise<Heard>((resolve) => doc.on("annotation:added", resolve));
    const joined = await new Promise<Heard>((resolve, reject) => doc.join().receive("ok", resolve).receive("error", reject));
    assertEquals(joined.capabilities, ["read", "annotate"]);
    const answer = await new Promise<Heard>((resolve, reject) => doc.push("add_annotation", MARK).receive("ok", resolve).receive("error", reject));
    assert(answer.annotation.id);
    assertEquals((await added).annotation, answer.annotation);
    const coded = await new Promise<Heard>((resolve) => doc.push("code", { hot: true }).receive("ok", resolve).receive("error", resolve));
    assertEquals(coded.reason, "forbidden");
  } finally {
    await new Promise<void>((resolve) => socket.disconnect(resolve));
  }
});
