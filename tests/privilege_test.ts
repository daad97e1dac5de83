/** Privilege fails closed: what may be privileged is absent for whoever may not see it, by every way there is so far. [S13, D05, D08, DESIGN §4] */
import { assert, assertEquals } from "@std/assert";
import { rooms } from "../rooms/channels/mod.ts";
import type { Role } from "../rooms/host.ts";
import type { Heard } from "./support/raw.ts";
import { BreakableSql, someone, Stage, type StageClient, type StageOptions } from "./support/stage.ts";

const CASE = "case:case_1";
const uploaded = (id: string, more: object = {}) => ({ event: "document:uploaded", payload: { document: { id, title: `Title of ${id}` }, ...more } });
const processed = (id: string, privilege_analysis?: object) => ({
  event: "document:processed",
  payload: { document_id: id, status: "completed", results: { summary: "s", ...(privilege_analysis && { privilege_analysis }) } },
});
const OPEN = { is_privileged: false, confidence: 0.9 };
const PRIVILEGED = { is_privileged: true, privilege_type: "attorney_client", confidence: 0.8 };

async function publish(stage: Stage, ...events: object[]): Promise<void> {
  const answer = stage.registry.publish(CASE, someone("back end", "service"), events as never);
  await stage.settle();
  await answer;
}

function setUp(options: StageOptions = {}) {
  const stage = new Stage(rooms, options);
  const join = (role: Role, topic = CASE, params: object = {}, id: string = role) => {
    const client = stage.client(someone(id, role, ["case_1"]));
    const { heard } = client.join(topic, { aliases: false, ...params });
    return { client, heard, reply: heard.find((frame) => frame[3] === "phx_reply")?.[4] };
  };
  return { stage, join, attorney: join("attorney").client, paralegal: join("paralegal").client };
}
const told = (client: StageClient) => client.take().filter((frame) => /^(?:document|workflow|privilege|update)/.test(frame[3])).map((frame) => frame[3]);
/** Asks for a topic and waits as long as anybody would. */
async function reach(stage: Stage, client: StageClient, topic: string): Promise<Heard> {
  const { ref } = client.join(topic, {});
  stage.advance(1000);
  await stage.settle();
  return client.take().concat().find((frame) => frame[1] === ref)?.[4] ?? "joined";
}
const REFUSED = { status: "error", response: { reason: "not_found" } };

Deno.test("privilege: a document of which nobody has said that it is not privileged is absent for whoever may not see what is", async () => {
  const { stage, join, attorney, paralegal } = setUp();
  // With second names and mirrors, too.
  const viewer = join("viewer", CASE, { aliases: true }).client;
  for (const client of [attorney, paralegal, viewer]) client.take();
  await publish(stage, uploaded("d1"), processed("d1"), { event: "document:processed", payload: { document_id: "d1", status: "processing" } });
  assertEquals([told(attorney), told(paralegal), told(viewer)], [["document:uploaded", "document:processed", "document:processed"], [], []]);
  for (const role of ["paralegal", "client", "viewer"] as const) {
    const { reply, heard } = join(role, CASE, { since: "0" }, `late ${role}`);
    assertEquals([reply.response.recovered, heard.filter((frame) => frame[3].startsWith("document:"))], [true, []]);
    const fresh = join(role, CASE, {}, `fresh ${role}`).reply.response;
    assertEquals([fresh.documents, fresh.more_documents], [[], false]);
    for (const topic of ["document:d1", "collaboration:d1"]) assertEquals(await reach(stage, stage.client(someone("x", role, ["case_1"])), topic), REFUSED);
    // The record too, and the same as for one that does not exist.
    const page = stage.registry.read(CASE, someone("reader", role, ["case_1"]), null, 100);
    await stage.settle();
    assertEquals((await page).events, []);
  }
  for (const role of ["attorney", "admin"] as const) assertEquals(join(role, CASE, {}, `fresh ${role}`).reply.response.documents.length, 1);
  stage.close();
});

Deno.test("privilege: once it is known not to be, they are told of it before anything else of it, and the others not twice", async () => {
  const { stage, join, attorney, paralegal } = setUp();
  await publish(stage, uploaded("d1"));
  for (const client of [attorney, paralegal]) client.take();
  await publish(stage, processed("d1", OPEN));
  const heard = paralegal.take().filter((frame) => frame[3].startsWith("document:"));
  assertEquals(heard.map((frame) => frame[3]), ["document:uploaded", "document:processed"]);
  assertEquals([heard[0][4].document, heard[0][4].released], [{ id: "d1", title: "Title of d1", status: "completed" }, true]);
  assertEquals(told(attorney), ["document:processed"]);
  for (const topic of ["document:d1", "collaboration:d1"]) {
    assertEquals((await reach(stage, stage.client(someone("x", "viewer", ["case_1"])), topic)) !== REFUSED, true);
  }
  // Replayed as it was told to each.
  const replayed = (role: Role) => join(role, CASE, { since: "0" }, `late ${role}`).heard.filter((frame) => frame[3].startsWith("document:"));
  assertEquals(replayed("viewer").map((frame) => [frame[3], frame[4].released]), [["document:uploaded", true], ["document:processed", undefined]]);
  assertEquals(replayed("attorney").map((frame) => [frame[3], frame[4].released]), [["document:uploaded", undefined], ["document:processed", undefined]]);
  stage.close();
});

Deno.test("privilege: suggested to be privileged, it stays absent; whatever word or flag says so", async () => {
  const { stage, attorney, paralegal, join } = setUp();
  const said = [PRIVILEGED, { is_privileged: false, privilege_type: "work-product" }, { is_privileged: true, privilege_type: "none" }, {
    is_privileged: false,
    privilege_type: "something new",
  }];
  for (const [index, analysis] of said.entries()) await publish(stage, uploaded(`d${index}`), processed(`d${index}`, analysis));
  assertEquals([told(attorney).length, told(paralegal)], [2 * said.length, []]);
  assertEquals(join("viewer").reply.response.documents, []);
  const calls = said.map((_, index) => join("attorney", `document:d${index}`, {}, `a${index}`).reply.response.privilege);
  assertEquals(calls.map(({ privilege_type, is_privileged, status }) => [privilege_type, is_privileged, status]), [
    ["attorney-client", true, "suggested"],
    ["work-product", true, "suggested"],
    ["confidential", true, "suggested"],
    ["confidential", true, "suggested"],
  ]);
  stage.close();
});

Deno.test("privilege: a back end cannot release a document by saying so", async () => {
  const { stage, paralegal } = setUp();
  const answer = stage.registry.publish(CASE, someone("back end", "service"), [uploaded("d1", { released: true })]);
  answer.catch(() => {});
  await stage.settle();
  assertEquals(await answer.catch((refusal) => refusal.reason), "invalid_payload");
  assertEquals(told(paralegal), []);
  stage.close();
});

/** Pushes on a joined topic and lets all that follows happen. */
async function push(stage: Stage, client: StageClient, topic: string, event: string, payload: object): Promise<{ heard: Heard[]; reply: Heard }> {
  client.queue([null, "p", topic, event, payload]);
  await stage.settle();
  const heard = client.take();
  return { heard, reply: heard.find((frame) => frame[1] === "p" && frame[3] === "phx_reply")?.[4] };
}

Deno.test("privilege: a person decides: the case first, then the document; the history is kept, analysis does not overrule it [D05, D08]", async () => {
  const { stage, join, attorney, paralegal } = setUp();
  await publish(stage, uploaded("d1"), processed("d1", PRIVILEGED));
  const a = join("attorney", "document:d1", {}, "a");
  assertEquals(a.reply.response.privilege, {
    document_id: "d1",
    privilege_type: "attorney-client",
    is_privileged: true,
    confidence: 0.8,
    status: "suggested",
    version: 1,
  });
  for (const client of [attorney, paralegal]) client.take();
  const confirmed = await push(stage, a.client, "document:d1", "update_privilege", { privilege_type: "attorney_client", version: 1 });
  const { reviewed_at, ...privilege } = confirmed.reply.response.privilege;
  assertEquals(privilege, {
    document_id: "d1",
    privilege_type: "attorney-client",
    is_privileged: true,
    status: "confirmed",
    reviewed_by: { id: "a", name: "Name of a" },
    version: 2,
  });
  assertEquals(typeof reviewed_at, "string");
  assertEquals(confirmed.heard.filter((frame) => frame[3] === "privilege:updated").map((frame) => frame[4].privilege.version), [2]);
  assertEquals([
    told(paralegal),
    (await push(stage, a.client, "document:d1", "update_privilege", { privilege_type: "none", version: 1 })).reply.response.reason,
  ], [
    [],
    "version_conflict",
  ]);
  const released = await push(stage, a.client, "document:d1", "update_privilege", { privilege_type: "not_privileged", reason: "A newsletter" });
  assertEquals([released.reply.response.privilege.status, released.reply.response.privilege.reason], ["overridden", "A newsletter"]);
  assertEquals(told(paralegal), ["document:uploaded"]);
  await publish(stage, processed("d1", PRIVILEGED));
  assertEquals([told(paralegal), join("viewer", "document:d1", {}, "v").reply.response.privilege.version], [["document:processed"], 3]);
  const history = stage.host.sql.run("select body from case_privilege where document = 'd1' order by version", [], false);
  assertEquals(history.map(({ body }) => JSON.parse(String(body)).status), ["suggested", "confirmed", "overridden"]);
  // Decisions stand in the case's record, for moderators.
  const read = async (role: Role) => {
    const page = stage.registry.read(CASE, someone("r", role, ["case_1"]), null, 100);
    await stage.settle();
    return (await page).events.filter(({ event }) => event === "privilege:decided").map(({ user, payload }) => [user, (payload as Heard).privilege.version]);
  };
  assertEquals([await read("attorney"), await read("viewer")], [[["a", 2], ["a", 3]], []]);
  stage.close();
});

Deno.test("privilege: decided to be, everybody who may not see it is closed before the push is answered, and told that it is withdrawn", async () => {
  const { stage, join, paralegal, attorney } = setUp();
  await publish(stage, uploaded("d1"), processed("d1", OPEN));
  const topics = ["document:d1", "collaboration:d1"];
  const readers = topics.map((topic) => join("paralegal", topic, {}, "p").client);
  const [a, other] = [join("attorney", "document:d1", {}, "a").client, join("admin", "collaboration:d1", {}, "b").client];
  for (const client of [...readers, a, other, paralegal, attorney]) client.take();
  const order: string[] = [];
  for (const [index, client] of [...readers, a].entries()) {
    const say = client.wire.say.bind(client.wire);
    client.wire.say = (frame) => {
      order.push(`${index} ${JSON.parse(String(frame))[3]}`);
      say(frame);
    };
  }
  const { reply } = await push(stage, a, "document:d1", "update_privilege", { privilege_type: "work-product", reason: "Counsel's notes" });
  assertEquals(reply.response.privilege.version, 2);
  assertEquals(order, ["0 phx_close", "1 phx_close", "2 phx_reply"]);
  for (const [index, client] of readers.entries()) {
    const [close, ...more] = client.take().filter((frame) => frame[3] !== "presence_diff");
    assertEquals([close[2], close[3], close[4], more], [topics[index], "phx_close", { reason: "not_found" }, []]);
    assertEquals(await reach(stage, client, topics[index]), REFUSED);
  }
  assertEquals(other.take().filter((frame) => frame[3] === "phx_close"), []);
  assertEquals([told(paralegal), told(attorney)], [["document:withdrawn"], []]);
  // Whoever was away hears it when he comes back, and nothing else of it; whoever may see it hears nothing of that.
  const late = join("paralegal", CASE, { since: "0" }, "late").heard.filter((frame) => frame[3].startsWith("document:"));
  assertEquals(late.map((frame) => frame[3]), ["document:withdrawn"]);
  assertEquals(join("viewer", CASE, {}, "v").reply.response.documents, []);
  stage.close();
});

Deno.test("privilege: only who has the right decides, and only if his session asked for it; on a document of another case nobody of this one", async () => {
  const { stage, join } = setUp();
  await publish(stage, uploaded("d1"), processed("d1", OPEN));
  const decide = { privilege_type: "confidential" };
  const reasons = [];
  for (const [role, params] of [["paralegal", {}], ["viewer", {}], ["attorney", { capabilities: ["read", "annotate"] }]] as const) {
    const { client } = join(role, "document:d1", params, `${role} d1`);
    reasons.push((await push(stage, client, "document:d1", "update_privilege", decide)).reply.response.reason);
  }
  assertEquals(reasons, ["forbidden", "forbidden", "forbidden"]);
  const elsewhere = stage.client(someone("elsewhere", "admin", ["case_2"]));
  assertEquals(await reach(stage, elsewhere, "document:d1"), REFUSED);
  stage.close();
});

Deno.test("privilege: a decision whose tick is lost has not happened: nobody is closed or told, and the push is answered unavailable", async () => {
  const sql = new BreakableSql();
  const { stage, join, paralegal } = setUp({ sql });
  await publish(stage, uploaded("d1"), processed("d1", OPEN));
  const [reader, a] = [join("viewer", "document:d1", {}, "v").client, join("attorney", "document:d1", {}, "a").client];
  for (const client of [reader, a, paralegal]) client.take();
  await stage.settle();
  sql.failing = /^insert into case_privilege/;
  const { reply } = await push(stage, a, "document:d1", "update_privilege", { privilege_type: "confidential" });
  assertEquals(reply.response.reason, "unavailable");
  assertEquals([reader.take(), told(paralegal), stage.host.sql.run("select count(*) as n from case_privilege", [], false)[0].n], [[], [], 1]);
  sql.failing = null;
  assert((await push(stage, a, "document:d1", "update_privilege", { privilege_type: "confidential", version: 1 })).reply.status === "ok");
  assertEquals(reader.take().map((frame) => frame[3]).filter((event) => event === "phx_close"), ["phx_close"]);
  stage.close();
});
