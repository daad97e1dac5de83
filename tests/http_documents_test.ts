/** Documents over HTTP: how files come in, and how what is known of them is read. [C09, X11, DESIGN §4, §7] */
import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Refusal } from "../protocol/reason.ts";
import type { User } from "../rooms/host.ts";
import { sha256 } from "../rooms/hosts/deno.ts";
import { makeApp } from "../rooms/http/app.ts";
import { DEFAULT_LIMITS, type Limits } from "../rooms/limits.ts";
import { CASE, Desk } from "./support/desk.ts";
import { CLEAR, PRIVILEGED } from "./support/labour.ts";
import type { Heard } from "./support/raw.ts";
import { someone } from "./support/stage.ts";

interface Answer {
  readonly status: number;
  readonly body: Heard;
  readonly text: string;
  readonly headers: Headers;
}

class Door {
  readonly desk = new Desk();
  readonly #users = new Map<string, User>();
  readonly #app;

  constructor(limits: Partial<Limits> = {}, allowedOrigins: string[] = []) {
    const { registry, gateway, metrics, host } = this.desk.stage;
    this.#app = makeApp({
      registry,
      gateway,
      metrics,
      limits: { ...DEFAULT_LIMITS, requests: 1e6, ...limits },
      verify: (token) => {
        const user = this.#users.get(token);
        return user ? Promise.resolve({ user, expires: Infinity }) : Promise.reject(new Refusal("token_invalid"));
      },
      channels: [],
      allowedOrigins,
      trustProxy: false,
      sha256,
      blobs: host.blobs,
      work: host.work,
      report: host.report,
      note() {},
    });
  }

  async ask(user: User | null, method: string, path: string, body?: BodyInit, headers: Record<string, string> = {}): Promise<Answer> {
    if (user) this.#users.set(user.id, user);
    const authorization: Record<string, string> = user ? { authorization: `Bearer ${user.id}` } : {};
    const answer = this.#app.request(path, { method, body, headers: { ...authorization, ...headers } }, {});
    let response: Response | undefined;
    const done = (async () => {
      response = await answer;
      const text = await response.text();
      const isJson = /json/.test(response.headers.get("content-type") ?? "");
      return { status: response.status, body: isJson ? JSON.parse(text) : undefined, text, headers: response.headers };
    })();
    const over = done.then(() => true);
    while (!await Promise.race([over, this.desk.stage.settle().then(() => false)]));
    await this.desk.stage.settle();
    return await done;
  }
  form(files: Record<string, string>, fields: Record<string, string> = {}): FormData {
    const form = new FormData();
    for (const [name, value] of Object.entries(fields)) form.set(name, value);
    for (const [name, content] of Object.entries(files)) form.append("files", new File([content], name, { type: "message/rfc822" }));
    return form;
  }
  close(): void {
    this.desk.close();
  }
}

const attorney = someone("attorney", "attorney", ["case_1"]);
const viewer = someone("viewer", "viewer", ["case_1"]);
const UPLOAD = "/api/cases/case_1/documents";

Deno.test("http documents: a form of files is taken in together; all is to be read as on the wire [X11]", async () => {
  const door = new Door();
  const { client } = door.desk.join("attorney");
  client.take();
  const metadata = JSON.stringify({ tags: ["hot"], custodian: "Ann", batch: 7 });
  const { status, body } = await door.ask(attorney, "POST", UPLOAD, door.form({ "a.eml": "one", "b.eml": "two" }, { metadata }));
  assertEquals([status, body.documents.map(({ filename }: Heard) => filename)], [201, ["a.eml", "b.eml"]]);
  assertMatch(body.upload_id, /^upload_/);
  const uploaded = client.take().filter((frame: Heard) => frame[3] === "document:uploaded").map((frame: Heard) => frame[4].document);
  assertEquals(uploaded, body.documents);
  const page = await door.ask(attorney, "GET", `${UPLOAD}?limit=1`);
  assertEquals([page.body.documents.length, page.body.next], [1, page.body.documents[0].id]);
  const rest = await door.ask(attorney, "GET", `${UPLOAD}?after=${page.body.next}&tag=hot&custodian=Ann&status=processed`);
  assertEquals([rest.body.documents.map(({ filename }: Heard) => filename), rest.body.next], [["b.eml"], null]);
  assertEquals((await door.ask(attorney, "GET", `${UPLOAD}?tag=cold`)).body.documents, []);
  const { id } = body.documents[0];
  const one = (await door.ask(attorney, "GET", `/api/documents/${id}`)).body;
  assertEquals([one.document.metadata.batch, one.document.title, one.document.author, one.privilege.status, one.results.summary], [
    7,
    "a subject",
    "a@example.com",
    "suggested",
    "a summary",
  ]);
  assertEquals((await door.ask(attorney, "GET", `/api/documents/${id}/text?from=1&length=1`)).body, { document_id: id, text: "n", from: 1, total: 3 });
  const job = door.desk.join("attorney", `processing:${body.processing_job_id}`, {}, "watcher").reply.response;
  assertEquals([job.total, job.completed], [2, 2]);
  door.close();
});

Deno.test("http documents: an original is handed out to be saved, and never to be shown", async () => {
  const door = new Door();
  const name = 'räport"; x=.html';
  const { body } = await door.ask(attorney, "POST", UPLOAD, door.form({ [name]: "<script>alert(1)</script>" }));
  const answer = await door.ask(attorney, "GET", `/api/documents/${body.documents[0].id}/content`);
  assertEquals([answer.status, answer.text], [200, "<script>alert(1)</script>"]);
  assertEquals(answer.headers.get("x-content-type-options"), "nosniff");
  assertMatch(answer.headers.get("content-disposition")!, /^attachment; filename\*=UTF-8''[\w%.~-]+$/);
  assertStringIncludes(answer.headers.get("content-security-policy")!, "sandbox");
  door.close();
});

Deno.test("http documents: what may not be seen is not there, by any route, as is what does not exist [DESIGN §4]", async () => {
  const door = new Door();
  door.desk.labour.found.set(sha256("secret"), PRIVILEGED);
  const { body: { documents: [{ id }] } } = await door.ask(attorney, "POST", UPLOAD, door.form({ "s.eml": "secret" }));
  const stranger = { ...attorney, id: "stranger", cases: ["case_2"] };
  for (const path of ["", "/content", "/text"]) {
    const none = await door.ask(viewer, "GET", `/api/documents/doc_none${path}`);
    assertEquals([none.status, none.body.reason], [404, "not_found"], path);
    for (const user of [viewer, stranger]) assertEquals((await door.ask(user, "GET", `/api/documents/${id}${path}`)).body, none.body, `${user.id} ${path}`);
    assertEquals((await door.ask(attorney, "GET", `/api/documents/${id}${path}`)).status, 200, path);
    assertEquals((await door.ask(null, "GET", `/api/documents/${id}${path}`)).body.reason, "unauthenticated");
  }
  assertEquals((await door.ask(viewer, "GET", UPLOAD)).body, { documents: [], next: null });
  assertEquals((await door.ask(viewer, "GET", `${UPLOAD}?after=${id}`)).body, (await door.ask(viewer, "GET", `${UPLOAD}?after=doc_none`)).body);
  for (const [method, path] of [["GET", UPLOAD], ["POST", UPLOAD], ["GET", "/api/cases/case_1/privilege-log.csv"], ["POST", "/api/cases/case_1/workflows"]]) {
    const body = method === "POST" ? (path === UPLOAD ? door.form({ x: "x" }) : JSON.stringify({ document_ids: [id] })) : undefined;
    assertEquals((await door.ask(stranger, method, path, body)).body.reason, "forbidden", path);
  }
  assertEquals((await door.ask(viewer, "POST", "/api/cases/case_1/workflows", JSON.stringify({ document_ids: [id] }))).body.reason, "forbidden");
  const paralegal = someone("p", "paralegal", ["case_1"]);
  assertEquals((await door.ask(paralegal, "POST", "/api/cases/case_1/workflows", JSON.stringify({ document_ids: [id] }))).body.reason, "not_found");
  assertEquals((await door.ask(viewer, "POST", UPLOAD, door.form({ x: "x" }))).body.reason, "forbidden");
  assertEquals((await door.ask(viewer, "GET", "/api/cases/case_1/privilege-log.csv")).body.reason, "forbidden");
  door.close();
});

/** A form as bytes, so that it can be cut. */
async function raw(form: FormData): Promise<{ bytes: Uint8Array; type: string }> {
  const request = new Request("http://x", { method: "POST", body: form });
  return { type: request.headers.get("content-type")!, bytes: new Uint8Array(await request.arrayBuffer()) };
}

Deno.test("http documents: what is cut off, too large, too many or no form registers nothing at all", async () => {
  const door = new Door({ upload_bytes: 100, upload_files: 3 });
  const { bytes, type } = await raw(door.form({ "a.eml": "one", "b.eml": "two" }));
  const cases: [string, BodyInit, Record<string, string>, string][] = [
    ["cut in a file", bytes.slice(0, bytes.length - 60) as BodyInit, { "content-type": type }, "invalid_payload"],
    ["cut in the first header", bytes.slice(0, 50) as BodyInit, { "content-type": type }, "invalid_payload"],
    ["without its last line", bytes.slice(0, bytes.length - 6) as BodyInit, { "content-type": type }, "invalid_payload"],
    ["no boundary", bytes as BodyInit, { "content-type": "multipart/form-data" }, "invalid_payload"],
    ["JSON", "{}", { "content-type": "application/json" }, "invalid_payload"],
    ["no files", door.form({}, { a: "b" }), {}, "invalid_payload"],
    ["the second is too large", door.form({ a: "one", b: "x".repeat(101) }), {}, "payload_too_large"],
    ["too many", door.form({ a: "1", b: "2", c: "3", d: "4" }), {}, "payload_too_large"],
    ["metadata that is no JSON", door.form({ a: "1" }, { metadata: "{" }), {}, "invalid_payload"],
    ["metadata of another shape", door.form({ a: "1" }, { metadata: '{"tags":"x"}' }), {}, "invalid_payload"],
    ["too much metadata", door.form({ a: "1" }, { metadata: JSON.stringify({ x: "y".repeat(40_000) }) }), {}, "payload_too_large"],
    ["another workflow", door.form({ a: "1" }, { workflow: "nope" }), {}, "invalid_payload"],
  ];
  for (const [name, body, headers, reason] of cases) {
    assertEquals((await door.ask(attorney, "POST", UPLOAD, body, headers)).body.reason, reason, name);
    assertEquals((await door.ask(attorney, "GET", UPLOAD)).body.documents, [], name);
  }
  assertEquals((await door.ask(attorney, "POST", UPLOAD, door.form({ a: "1", b: "2", c: "3" }))).status, 201);
  door.close();
});

Deno.test("http documents: a name is only a name: paths and what would mislead are cut off", async () => {
  const door = new Door();
  const names = ["../../etc/passwd", "C:\\Windows\\system.ini", "a\u202efdp.exe", "..", "x".repeat(300)];
  const { client } = door.desk.join("attorney");
  for (const [index, name] of names.entries()) {
    const { response } = await door.desk.push(client, "add:document", { file: { name, content_base64: btoa(`content ${index}`) } });
    assertMatch(response.document.filename, /^(passwd|system\.ini|afdp\.exe|document|x{1,255})$/, name);
  }
  door.close();
});

Deno.test("http documents: a ticket is good for one file, by the user to whom it was given, for an hour [X11]", async () => {
  const door = new Door({ upload_bytes: 100 });
  const { client } = door.desk.join("attorney");
  const issue = async () => (await door.desk.push(client, "add:document", { file: {}, metadata: { tags: ["t"] } })).response.upload;
  const { url, method } = await issue();
  assertEquals(method, "PUT");
  assertEquals((await door.ask({ ...attorney, id: "other" }, "PUT", url, "content")).body.reason, "not_found");
  assertEquals((await door.ask(null, "PUT", url, "content")).body.reason, "unauthenticated");
  assertEquals((await door.ask(attorney, "PUT", url, "x".repeat(101))).body.reason, "payload_too_large");
  const { status, body } = await door.ask(attorney, "PUT", url, "content");
  assertEquals([status, body.documents[0].hash, body.documents[0].tags], [201, `sha256:${sha256("content")}`, ["t"]]);
  assertEquals((await door.ask(attorney, "PUT", url, "content")).body.reason, "not_found");
  // Two at once: one of them.
  const twice = (await issue()).url;
  const both = await Promise.all([door.ask(attorney, "PUT", twice, "first"), door.ask(attorney, "PUT", twice, "second")]);
  assertEquals(both.map((answer) => answer.status).toSorted(), [201, 404]);
  const late = (await issue()).url;
  door.desk.stage.advance(3_600_001);
  assertEquals((await door.ask(attorney, "PUT", late, "content")).body.reason, "not_found");
  for (const path of ["/api/uploads/x", "/api/uploads/case_1.none", "/api/uploads/.x", "/api/uploads/case_2.x"]) {
    assert([403, 404].includes((await door.ask(attorney, "PUT", path, "content")).status), path);
  }
  door.close();
});

Deno.test("http documents: the privilege log has every call on what was ever privileged, and no formulas", async () => {
  const door = new Door();
  door.desk.labour.found.set(sha256("secret"), { ...PRIVILEGED, facts: { ...PRIVILEGED.facts!, from: "=cmd|' /C calc'!A0", to: ["+1", "b@example.com"] } });
  door.desk.labour.found.set(sha256("open"), CLEAR);
  const { body: { documents } } = await door.ask(attorney, "POST", UPLOAD, door.form({ '@s,"x".eml': "secret", "o.eml": "open" }));
  const topic = `document:${documents[0].id}`;
  const room = door.desk.join("attorney", topic, {}, "decider").client;
  await door.desk.push(room, "update_privilege", { privilege_type: "work-product", reason: "=HYPERLINK(1)" }, topic);
  await door.desk.push(room, "update_privilege", { privilege_type: "none", reason: "released" }, topic);
  await door.desk.stage.settle();
  const { text, headers } = await door.ask(attorney, "GET", "/api/cases/case_1/privilege-log.csv");
  assertMatch(headers.get("content-type")!, /^text\/csv/);
  const [head, ...rows] = text.trim().split("\r\n");
  assertMatch(head, /^\ufeff?document_id,filename,title,document_date,author,recipients,privilege_type,status,basis,reviewer,reviewed_at,history$/);
  assertEquals(rows.length, 1);
  assertStringIncludes(rows[0], "1: attorney-client, suggested by analysis");
  assertStringIncludes(rows[0], "2: work-product, overridden by Name of decider (decider)");
  assertStringIncludes(rows[0], "3: none, overridden");
  assertEquals(/(^|,)"?[=+@-]/.test(rows[0]), false, rows[0]);
  door.close();
});

Deno.test("http documents: a case without documents has an empty page and an empty log", async () => {
  const door = new Door();
  assertEquals((await door.ask(attorney, "GET", UPLOAD)).body, { documents: [], next: null });
  assertEquals((await door.ask(attorney, "GET", "/api/cases/case_1/privilege-log.csv")).text.trim().split("\r\n").length, 1);
  assertEquals((await door.ask(attorney, "GET", `${UPLOAD}?limit=0`)).body.reason, "invalid_payload");
  assertEquals((await door.ask(attorney, "GET", `${UPLOAD}?status=nope`)).body.reason, "invalid_payload");
  assert(CASE);
  door.close();
});

Deno.test("http documents: pages that may open a socket may ask for documents, and no others", async () => {
  const door = new Door({}, ["https://app.example.com"]);
  for (const [origin, allowed] of [["https://app.example.com", "https://app.example.com"], ["https://evil.example.com", null]] as const) {
    const asked = await door.ask(null, "OPTIONS", UPLOAD, undefined, {
      origin,
      "access-control-request-method": "POST",
      "access-control-request-headers": "authorization",
    });
    assertEquals([asked.headers.get("access-control-allow-origin"), asked.status], [allowed, 204]);
    const answer = await door.ask(attorney, "GET", UPLOAD, undefined, { origin });
    assertEquals([answer.status, answer.headers.get("access-control-allow-origin"), answer.headers.get("access-control-allow-credentials")], [
      200,
      allowed,
      null,
    ]);
  }
  door.close();
});
