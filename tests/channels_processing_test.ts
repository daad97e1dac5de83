/** Jobs: how documents are read, what is told of that and to whom. [P01-P08, C02, C05, C06, C09, DESIGN §4] */
import { assert, assertEquals, assertGreaterOrEqual } from "@std/assert";
import { sha256 } from "../rooms/hosts/deno.ts";
import { CASE, Desk } from "./support/desk.ts";
import { CLEAR, PRIVILEGED } from "./support/labour.ts";
import type { Heard } from "./support/raw.ts";
import { someone, type StageClient } from "./support/stage.ts";

const events = (client: StageClient, name: RegExp): Heard[] => client.take().filter((frame: Heard) => name.test(frame[3]));

Deno.test("processing: a document in a push is taken in, read, called and told of, on the case and on the job [C09, C01, C02, C05, C06, P08]", async () => {
  const desk = new Desk();
  const { client } = desk.join("attorney");
  client.take();
  const { document, processing_job_id, duplicate } = await desk.add(client, "hello");
  assertEquals([document.filename, document.status, document.case_id, document.hash, duplicate], [
    "hello.eml",
    "pending",
    "case_1",
    `sha256:${sha256("hello")}`,
    undefined,
  ]);
  const heard = events(client, /^(document|workflow)/);
  assertEquals(heard.map((frame) => frame[3]), ["document:uploaded", "workflow:started", "document:processed", "workflow:completed"]);
  assertEquals(heard[1][4].workflow_id, processing_job_id);
  assertEquals([heard[2][4].document_id, heard[2][4].status, heard[2][4].results.summary], [document.id, "completed", "a summary"]);
  const { reply: { response: job } } = desk.join("attorney", `processing:${processing_job_id}`, {}, "late");
  assertEquals([job.status, job.percentage, job.completed, job.failed, job.total, job.summary.total_documents, job.exceptions], [
    "completed",
    100,
    1,
    0,
    1,
    1,
    [],
  ]);
  desk.close();
});

Deno.test("processing: progress is told under both names, never turns, and ends at 100 before job:completed, once [P01, P02, P05, P06, X02, X30]", async () => {
  const desk = new Desk();
  const { client } = desk.join("attorney");
  desk.labour.holding = true;
  const inner = ["i1", "i2", "i3"].map((name) => ({ filename: name, content_type: "text/plain", size: 2, hash: sha256(name), kind: "attachment" as const }));
  client.queue(["j1", "a", CASE, "add:document", { file: { content_base64: btoa("mail") } }]);
  desk.labour.found.set(sha256("mail"), { ...CLEAR, inner });
  desk.labour.found.set(sha256("i2"), { trouble: { code: "encrypted", error: "a password" } });
  await desk.stage.settle();
  desk.labour.release();
  await desk.stage.settle();
  const { processing_job_id: job } = client.take().find((frame: Heard) => frame[1] === "a")[4].response;
  const watcher = desk.join("attorney", `processing:${job}`, { aliases: true }, "watcher");
  assertEquals([watcher.reply.response.status, watcher.reply.response.percentage, watcher.reply.response.current_operation], ["running", 0, "text_extraction"]);
  for (let step = 0; step < 8; step++) {
    desk.labour.release(1);
    await desk.stage.settle();
  }
  const heard = watcher.client.take();
  const named = (name: string) => heard.filter((frame: Heard) => frame[3] === name).map((frame: Heard) => frame[4]);
  const percentages = named("progress").map(({ percentage }: Heard) => percentage);
  assertEquals(percentages, percentages.toSorted((a: number, b: number) => a - b));
  assertEquals(percentages.at(-1), 100);
  assertEquals(named("processing:progress"), named("progress"));
  assertEquals(named("job:completed").map(({ summary }: Heard) => [summary.total_documents, summary.completed, summary.failed, summary.errors.length]), [[
    4,
    3,
    1,
    1,
  ]]);
  assertEquals(heard.at(-1)[3], "job:completed");
  assertEquals(named("error").map(({ code, error }: Heard) => [code, error]), [["encrypted", "a password"]]);
  assertGreaterOrEqual(named("document:completed").length, 3);
  const failed = named("error")[0].document_id;
  desk.labour.holding = false;
  desk.labour.found.delete(sha256("i2"));
  // Retried as a job of its own.
  const retried = await desk.push(watcher.client, "retry_exceptions", {}, `processing:${job}`);
  assertEquals([retried.status, retried.response.document_ids], ["ok", [failed]]);
  const again = desk.join("attorney", `processing:${retried.response.processing_job_id}`, {}, "later").reply.response;
  assertEquals([again.status, again.total, again.completed], ["completed", 1, 1]);
  assertEquals((await desk.push(watcher.client, "retry_exceptions", { document_ids: ["doc_none"] }, `processing:${job}`)).response.reason, "not_found");
  assert(client);
  desk.close();
});

const inner = (name: string, kind: "attachment" | "member" = "attachment") => ({
  filename: name,
  content_type: "text/plain",
  size: 2,
  hash: sha256(name),
  kind,
});
const listed = (desk: Desk, role: "viewer" | "attorney", id = "fresh") =>
  desk.join(role, CASE, {}, id).reply.response.documents.map(({ filename }: Heard) => filename);

Deno.test("processing: whoever may not see what is privileged knows of a job what he may see, and of his own files that they are read [DESIGN §4]", async () => {
  const desk = new Desk();
  const paralegal = desk.join("paralegal").client;
  paralegal.take();
  const { processing_job_id: job, document } = await desk.add(paralegal, "secret", PRIVILEGED);
  assertEquals(document.status, "pending");
  assertEquals(events(paralegal, /^document/), []);
  const seenBy = (role: "paralegal" | "viewer" | "attorney") => {
    const { status, percentage, total, completed, failed, summary } = desk.join(role, `processing:${job}`, {}).reply.response;
    return [status, percentage, total, completed, failed, summary.total_documents];
  };
  assertEquals(seenBy("paralegal"), ["completed", 100, 1, 1, 0, 1]);
  assertEquals(seenBy("viewer"), ["completed", 100, 0, 0, 0, 0]);
  assertEquals(seenBy("attorney"), ["completed", 100, 1, 1, 0, 1]);
  // Released by a person, it counts.
  const attorney = desk.join("attorney", `document:${document.id}`, {}, "decider").client;
  assertEquals((await desk.push(attorney, "update_privilege", { privilege_type: "none", reason: "r" }, `document:${document.id}`)).status, "ok");
  await desk.stage.settle();
  assertEquals(seenBy("viewer"), ["completed", 100, 1, 1, 0, 1]);
  assertEquals(events(paralegal, /^document/).map((frame) => [frame[3], frame[4].released]), [["document:uploaded", true]]);
  desk.close();
});

Deno.test("processing: of a hidden document's progress nobody hears who may not see it, how often it may be [DESIGN §4]", async () => {
  const desk = new Desk();
  const attorney = desk.join("attorney").client;
  desk.labour.holding = true;
  desk.labour.found.set(sha256("secret"), PRIVILEGED);
  attorney.queue(["j1", "a", CASE, "add:document", { file: { name: "s.eml", content_base64: btoa("secret") } }]);
  await desk.stage.settle();
  desk.labour.release();
  await desk.stage.settle();
  const { processing_job_id: job } = attorney.take().find((frame: Heard) => frame[1] === "a")[4].response;
  const [watcher, viewer] = (["attorney", "viewer"] as const).map((role) => desk.join(role, `processing:${job}`, {}, `watching ${role}`).client);
  for (const client of [watcher, viewer]) client.take();
  desk.labour.holding = false;
  for (let step = 0; step < 8; step++) {
    desk.labour.release(1);
    await desk.stage.settle();
  }
  const told = (client: typeof viewer) => client.take().map((frame: Heard) => frame[3]).filter((name: string) => !name.startsWith("presence"));
  assertEquals(told(viewer), ["progress", "job:completed"]);
  assertGreaterOrEqual(told(watcher).length, 4);
  desk.close();
});

Deno.test("processing: nobody of another case finds the job, nor one that does not exist", async () => {
  const desk = new Desk();
  const { processing_job_id: job } = await desk.add(desk.join("attorney").client, "mail");
  for (const topic of [`processing:${job}`, "processing:job_none"]) {
    const stranger = desk.stage.client({ id: "s", name: "s", role: "admin", cases: ["case_2"] });
    const { ref } = stranger.join(topic, {});
    desk.stage.advance(1000);
    await desk.stage.settle();
    assertEquals(stranger.take().find((frame: Heard) => frame[1] === ref)[4], { status: "error", response: { reason: "not_found" } }, topic);
  }
  desk.close();
});

Deno.test("processing: the same bytes are recorded once; whoever may not see the twin is answered as for something new [DESIGN §4]", async () => {
  const desk = new Desk();
  const [attorney, paralegal] = [desk.join("attorney").client, desk.join("paralegal").client];
  const first = await desk.add(attorney, "secret", PRIVILEGED);
  const again = await desk.add(attorney, "secret", PRIVILEGED);
  assertEquals([again.document.id, again.duplicate], [first.document.id, true]);
  for (const client of [attorney, paralegal]) client.take();
  const hidden = await desk.add(paralegal, "secret", PRIVILEGED);
  const fresh = await desk.add(paralegal, "other", PRIVILEGED);
  const shape = ({ document, ...rest }: Heard) => [Object.keys(document), Object.keys(rest), document.status, document.tags];
  assertEquals(shape(hidden), shape(fresh));
  assertEquals(hidden.document.id === first.document.id, false);
  const jobs = [hidden, fresh].map(({ processing_job_id }) => {
    const { job_id: _, started_at: _1, summary, ...state } = desk.join("paralegal", `processing:${processing_job_id}`, {}).reply.response;
    return { ...state, summary: { ...summary, duration_ms: 0 } };
  });
  assertEquals(jobs[0], jobs[1]);
  // What is read for nothing takes as long, and is no document of anybody's.
  assertEquals(desk.labour.asked.filter((labour) => labour.do === "process").map(({ document: { phantom } }) => phantom), [undefined, true, undefined]);
  assertEquals(desk.join("attorney", `processing:${hidden.processing_job_id}`, {}, "curious").reply.response.total, 0);
  assertEquals(listed(desk, "attorney").length, 2);
  // Once it may be seen, it is told.
  const open = await desk.add(attorney, "open");
  assertEquals((await desk.add(paralegal, "open")).document.id, open.document.id);
  desk.close();
});

Deno.test("processing: attachments are documents that inherit from their mail, from before anybody may see either [DESIGN §4]", async () => {
  const desk = new Desk();
  const attorney = desk.join("attorney").client;
  const viewer = desk.join("viewer").client;
  const add = async (name: string, itself: Heard, attached: Heard) => {
    desk.labour.found.set(sha256(`${name} attached`), attached);
    return await desk.add(attorney, name, { ...itself, inner: [inner(`${name} attached`)] });
  };
  await add("both clear", CLEAR, CLEAR);
  await add("mail privileged", PRIVILEGED, CLEAR);
  await add("attachment privileged", CLEAR, PRIVILEGED);
  await add("attachment unreadable", CLEAR, { trouble: { code: "encrypted", error: "" } });
  const open = ["attachment privileged.eml", "attachment unreadable.eml", "both clear attached", "both clear.eml"];
  assertEquals(listed(desk, "viewer").toSorted(), open);
  assertEquals(listed(desk, "attorney").length, 8);
  // Never more than that, not even between two ticks.
  const told = events(viewer, /^document/).filter((frame) => frame[3] !== "document:processed");
  assertEquals(told.map((frame) => [frame[3], frame[4].document?.filename]).toSorted(), open.map((name) => ["document:uploaded", name]));
  const all = (await desk.ask(someone("a"), { ask: "documents", after: null, limit: 100, filters: {} } as never)).documents;
  const mail = all.find(({ filename }: Heard) => filename === "mail privileged.eml");
  const attached = all.find(({ filename }: Heard) => filename === "mail privileged attached");
  assertEquals(attached.parent_ids, [mail.id]);
  const say = async (id: string, privilege_type: string) => {
    const room = desk.join("attorney", `document:${id}`, {}, `decider of ${id}`).client;
    await desk.push(room, "update_privilege", { privilege_type, reason: "r" }, `document:${id}`);
    await desk.stage.settle();
  };
  // A person's word on one of them is about that one.
  await say(attached.id, "none");
  const seen = (await desk.ask(someone("v", "viewer"), { ask: "document", document_id: attached.id } as never)).document;
  assertEquals([seen.filename, seen.parent_ids], ["mail privileged attached", undefined]);
  assertEquals(await desk.ask(someone("v", "viewer"), { ask: "document", document_id: mail.id } as never), { refused: "not_found" });
  // A mail that is hidden takes with it what hangs on it.
  viewer.take();
  await say(all.find(({ filename }: Heard) => filename === "both clear.eml").id, "work-product");
  assertEquals(events(viewer, /^document/).map((frame) => frame[3]), ["document:withdrawn", "document:withdrawn"]);
  assertEquals(listed(desk, "viewer", "last").toSorted(), ["attachment privileged.eml", "attachment unreadable.eml", "mail privileged attached"]);
  desk.close();
});

Deno.test("processing: what hangs on several mails is seen only when all of them may be; nested ones count", async () => {
  const desk = new Desk();
  const attorney = desk.join("attorney").client;
  const nested = { ...CLEAR, inner: [inner("leaf")] };
  desk.labour.found.set(sha256("leaf"), CLEAR);
  desk.labour.found.set(sha256("middle"), nested);
  await desk.add(attorney, "outer", { ...PRIVILEGED, inner: [inner("middle")] });
  assertEquals(listed(desk, "viewer"), []);
  await desk.add(attorney, "other", nested);
  assertEquals(listed(desk, "viewer", "second"), ["other.eml"]);
  const all = (await desk.ask(someone("a"), { ask: "documents", after: null, limit: 100, filters: {} } as never)).documents;
  assertEquals(all.map(({ filename, parent_ids = [] }: Heard) => [filename, parent_ids.length]), [["outer.eml", 0], ["middle", 1], ["leaf", 3], [
    "other.eml",
    0,
  ]]);
  const { id } = all[0];
  const room = desk.join("attorney", `document:${id}`, {}, "decider").client;
  await desk.push(room, "update_privilege", { privilege_type: "none", reason: "r" }, `document:${id}`);
  await desk.stage.settle();
  assertEquals(listed(desk, "viewer", "third").toSorted(), ["leaf", "middle", "other.eml", "outer.eml"]);
  desk.close();
});

Deno.test("processing: an original with something hidden in it is not to be had, though it may be seen itself", async () => {
  const desk = new Desk();
  const attorney = desk.join("attorney").client;
  desk.labour.found.set(sha256("hidden"), PRIVILEGED);
  const { document } = await desk.add(attorney, "mail", { ...CLEAR, inner: [inner("hidden")] });
  const room = desk.join("attorney", `document:${document.id}`, {}, "decider").client;
  await desk.push(room, "update_privilege", { privilege_type: "none", reason: "r" }, `document:${document.id}`);
  const ask = (role: "viewer" | "attorney", what: string, id = document.id) => desk.ask(someone(role, role), { ask: what, document_id: id } as never);
  assertEquals((await ask("viewer", "document")).document.id, document.id);
  assertEquals([await ask("viewer", "content"), (await ask("attorney", "content")).hash], [{ refused: "not_found" }, sha256("mail")]);
  const box = await desk.add(attorney, "box", {
    ...CLEAR,
    facts: { kind: "archive", content_type: "application/mbox", truncated: false },
    inner: [inner("member", "member")],
  });
  assertEquals([await ask("viewer", "content", box.document.id), (await ask("attorney", "content", box.document.id)).size], [{ refused: "not_found" }, 3]);
  desk.close();
});

Deno.test("processing: a summary is the one that was made, or made at once, or comes with document:processed [C08, X33]", async () => {
  const desk = new Desk();
  const { client } = desk.join("attorney");
  const ask = async (document_id: string, at = client) => (await desk.push(at, "request:summary", { document_id })).response;
  const { document: { id } } = await desk.add(client, "mail");
  assertEquals(await ask(id), { document_id: id, status: "completed", summary: "a summary" });
  // Read without analysis.
  const { facts } = CLEAR;
  const { document: { id: plain } } = await desk.add(client, "plain", { facts });
  assertEquals(await ask(plain), { document_id: plain, status: "completed", summary: `summary of ${plain}` });
  const { document: { id: slow } } = await desk.add(client, "slow", { facts, results: {} });
  desk.labour.noSummary = true;
  desk.labour.found.set(sha256("slow"), { facts, results: { summary: "at last" } });
  assertEquals(await ask(slow), { document_id: slow, status: "pending" });
  client.take();
  await desk.stage.settle();
  assertEquals(await ask(slow), { document_id: slow, status: "completed", summary: "at last" });
  const viewer = desk.join("viewer").client;
  assertEquals(await ask(slow, viewer), { reason: "not_found" });
  assertEquals(await ask("doc_none", viewer), { reason: "not_found" });
  desk.close();
});

Deno.test("processing: a workflow runs again on chosen documents, and leaves a person's call alone [X19]", async () => {
  const desk = new Desk();
  const { client } = desk.join("attorney");
  const { document: { id } } = await desk.add(client, "mail", PRIVILEGED);
  const room = desk.join("attorney", `document:${id}`, {}, "decider").client;
  await desk.push(room, "update_privilege", { privilege_type: "none", reason: "r" }, `document:${id}`);
  await desk.stage.settle();
  client.take();
  const { workflow_id, processing_job_id } = (await desk.push(client, "start_workflow", { name: "privilege_detection", document_ids: [id, id] })).response;
  await desk.stage.settle();
  assertEquals(workflow_id, processing_job_id);
  const heard = events(client, /^(workflow|document)/);
  assertEquals(heard.map((frame) => [frame[3], frame[4].name]), [
    ["workflow:started", "privilege_detection"],
    ["document:processed", undefined],
    ["workflow:completed", "privilege_detection"],
  ]);
  const { privilege, results } = await desk.ask(someone("a"), { ask: "document", document_id: id } as never);
  assertEquals([privilege.status, privilege.privilege_type, results.summary, results.privilege_analysis.is_privileged], [
    "overridden",
    "none",
    "a summary",
    true,
  ]);
  assertEquals((await desk.push(client, "start_workflow", { document_ids: ["doc_none"] })).response.reason, "not_found");
  assertEquals((await desk.push(desk.join("viewer").client, "start_workflow", { document_ids: [id] })).response.reason, "forbidden");
  desk.close();
});

Deno.test("processing: what may be seen and turns up in a mail stays in sight, unless the mail may not be seen", async () => {
  const desk = new Desk();
  const attorney = desk.join("attorney").client;
  await desk.add(attorney, "paper");
  const { client: viewer } = desk.join("viewer");
  viewer.take();
  await desk.add(attorney, "clear", { ...CLEAR, inner: [inner("paper")] });
  assertEquals(events(viewer, /^document:(uploaded|withdrawn)/).map((frame) => frame[4].document?.filename), ["clear.eml"]);
  await desk.add(attorney, "secret", { ...PRIVILEGED, inner: [inner("paper")] });
  assertEquals(events(viewer, /^document:(uploaded|withdrawn)/).map((frame) => frame[3]), ["document:withdrawn"]);
  assertEquals(listed(desk, "viewer"), ["clear.eml"]);
  desk.close();
});
