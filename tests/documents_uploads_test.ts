/** Uploads that are too large or break off, and what names and fields say, against a server process. [issue 4, bad input] */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import type { User } from "../rooms/host.ts";
import { docx, eml } from "./support/files.ts";
import { CASE, formOf, Office, until } from "./support/office.ts";
import { type Heard, reset, TcpClient } from "./support/raw.ts";
import { someone } from "./support/stage.ts";

const LIMIT = 100_000;
const ann = someone("ann", "attorney", [CASE]);
const UPLOAD = `/api/cases/${CASE}/documents`;

/** A request as bytes, its end left out. */
async function request(office: Office, method: string, path: string, body: Uint8Array, type: string, chunked: boolean): Promise<[string, Uint8Array]> {
  const authorization = `Bearer ${await office.outside.token(ann)}`;
  const length: Record<string, string> = chunked ? { "transfer-encoding": "chunked" } : { "content-length": String(body.length) };
  const lines = Object.entries({ host: "127.0.0.1", authorization, "content-type": type, ...length }).map(([name, value]) => `${name}: ${value}\r\n`);
  const half = body.subarray(0, body.length >> 1);
  const framed = chunked ? [new TextEncoder().encode(`${half.length.toString(16)}\r\n`), half, new TextEncoder().encode("\r\n")] : [half];
  return [`${method} ${path} HTTP/1.1\r\n${lines.join("")}\r\n`, new Uint8Array(await new Blob(framed as BlobPart[]).arrayBuffer())];
}

async function ticket(office: Office): Promise<string> {
  const { client } = await office.enter(ann, `case:${CASE}`);
  await using _ = client;
  return (await office.push(client, `case:${CASE}`, "add:document", { file: { name: "a.txt" } })).response.upload.url;
}

/** How many files are being written. */
const written = (office: Office) => [...Deno.readDirSync(`${office.dataDir}/uploads`)].length;
const kept = (office: Office) => [...Deno.readDirSync(`${office.dataDir}/blobs`)].length;

Deno.test("uploads: what is cut off on its way leaves nothing: no document, no file, no job, and the server goes on", async () => {
  await using office = await Office.start({ LIMIT_UPLOAD_BYTES: String(LIMIT) });
  const before = await office.outside.looks();
  const form = new Request("http://x", {
    method: "POST",
    body: formOf({ "a.txt": "a".repeat(60_000), "b.txt": "b".repeat(60_000), "c.txt": "c".repeat(60_000) }),
  });
  const [type, whole] = [form.headers.get("content-type")!, new Uint8Array(await form.arrayBuffer())];
  const ways: [string, string, string, Uint8Array, string][] = [["form", "POST", UPLOAD, whole, type]];
  ways.push(["ticket", "PUT", await ticket(office), new TextEncoder().encode("t".repeat(90_000)), "text/plain"]);
  for (const [name, method, path, body, type] of ways) {
    for (const chunked of [false, true]) {
      const what = `${name}, ${chunked ? "chunked" : "with its length"}`;
      const [head, half] = await request(office, method, path, body, type, chunked);
      // The connection ends in the ordinary way.
      const client = await TcpClient.connect(office.server.port);
      await client.write(head);
      await client.write(half);
      await until(`${what}: it is being written`, () => written(office) > 0);
      client.close();
      await office.nothingWaits();
      // It breaks.
      await reset(office.server.port, [head, half]);
      await office.nothingWaits();
      assertEquals([(await office.documents(ann)).length, kept(office)], [0, 0], what);
    }
  }
  // The ticket is as good as before.
  const { status, body } = await office.ask(ann, "PUT", ways[1][2], "content");
  assertEquals([status, body.documents[0].filename], [201, "a.txt"]);
  assertEquals((await office.watch(ann, body.processing_job_id)).summary.completed, 1);
  const { body: { events } } = await office.get(ann, `/api/cases/${CASE}/log`);
  assertEquals(
    events.map(({ event }: Heard) => event),
    ["workflow:started", "document:uploaded", "document:processed", "workflow:completed"].toSorted(order(events)),
  );
  await office.outside.unharmed(before);
});

/** Of the record, the order in which it has them is its own affair. */
function order(events: readonly Heard[]) {
  const places = events.map(({ event }) => event);
  return (one: string, other: string) => places.indexOf(one) - places.indexOf(other);
}

Deno.test("uploads: above the limit is refused as soon as it is, with the limit, and nothing is left of the whole form", async () => {
  await using office = await Office.start({ LIMIT_UPLOAD_BYTES: String(LIMIT), LIMIT_UPLOAD_FILES: "3" });
  const before = await office.outside.looks();
  const refused = { reason: "payload_too_large", limit: LIMIT };
  const [much, fits] = ["x".repeat(LIMIT + 1), "y".repeat(LIMIT)];
  const forms: Record<string, string>[] = [{ "a.txt": much }, { "a.txt": fits, "b.txt": much }, { "a.txt": "x".repeat(5_000_000) }];
  for (const files of forms) {
    const { status, body: { message: _, ...body } } = await office.send(ann, files);
    assertEquals([status, body], [413, refused]);
    await office.nothingWaits();
  }
  const four = await office.send(ann, { a: "1", b: "2", c: "3", d: "4" });
  assertEquals([four.status, four.body.reason, four.body.limit], [413, "payload_too_large", 3]);
  const url = await ticket(office);
  const { status, body } = await office.ask(ann, "PUT", url, much);
  assertEquals([status, body.reason, body.limit], [413, "payload_too_large", LIMIT]);
  await office.nothingWaits();
  assertEquals([await office.documents(ann), kept(office)], [[], 0]);
  assertEquals((await office.ask(ann, "PUT", url, fits)).status, 201);
  assertEquals((await office.ask(ann, "PUT", url, fits)).status, 404);
  await office.outside.unharmed(before);
});

Deno.test("uploads: who sends without a right to, or to a case that is not his, has nothing of it written", async () => {
  await using office = await Office.start();
  const before = await office.outside.looks();
  const url = await ticket(office);
  const strangers: [User, string][] = [[someone("v", "viewer", [CASE]), "forbidden"], [someone("s", "attorney", ["matter_2"]), "forbidden"]];
  for (const [user, reason] of strangers) {
    assertEquals((await office.send(user, { "a.txt": "words" })).body.reason, reason);
    assertEquals((await office.ask(user, "PUT", url, "words")).body.reason, reason);
  }
  assertEquals((await office.ask(someone("other", "attorney", [CASE]), "PUT", url, "words")).body.reason, "not_found");
  assertEquals([written(office), kept(office), await office.documents(ann)], [0, 0, []]);
  await office.outside.unharmed(before);
});

const EVIL = `<script>alert("x")</script><img src=x onerror=alert(1)>`;
/** Markup that is no markup: every sign of it escaped but the marks. */
const NO_MARKUP = /<(?!\/?mark>)|>(?<!<\/?mark>)|"/;

Deno.test("uploads: markup in any text is data on the way back, and escaped where it is told as HTML", async () => {
  await using office = await Office.start();
  const before = await office.outside.looks();
  const metadata = JSON.stringify({ title: EVIL, tags: [EVIL], custodian: EVIL, [EVIL]: EVIL });
  const mail = eml({ From: `"${EVIL.replaceAll('"', "'")}" <eve@example.com>`, Subject: `harbour ${EVIL}` }, `The harbour ${EVIL} is closed & shut.`, [
    { name: "x<script>.docx", bytes: docx(`<w:p><w:t>The harbour ${EVIL.replaceAll("<", "&lt;").replaceAll(">", "&gt;")} again</w:t></w:p>`) },
  ]);
  const { status, body } = await office.ask(ann, "POST", UPLOAD, formOf({ [`${EVIL.replaceAll("/", "").replaceAll('"', "'")}.eml`]: mail }, { metadata }));
  assertEquals(status, 201);
  const { id } = body.documents[0];
  assertEquals((await office.watch(ann, body.processing_job_id)).summary.completed, 2);
  const read = await office.get(ann, `/api/documents/${id}`);
  const { document } = read.body;
  assertEquals([document.title, document.tags, document.custodian, document.metadata[EVIL]], [EVIL, [EVIL], EVIL, EVIL]);
  assertStringIncludes(document.metadata.subject, EVIL);
  assertStringIncludes((await office.get(ann, `/api/documents/${id}/text`)).body.text, EVIL);
  // Nothing of it is ever a page.
  for (const path of ["", "/content", "/text"]) {
    const { headers } = await office.get(ann, `/api/documents/${id}${path}`);
    assert(!/html/.test(headers.get("content-type")!), path);
    assertEquals(path === "/content" ? headers.get("content-disposition")!.startsWith("attachment;") : true, true);
  }
  for (const query of ["harbour", "alert", "subject:harbour", "closed shut", `onerror`]) {
    const { client } = await office.enter(ann, "search:live");
    await using _ = client;
    const { response } = await office.push(client, "search:live", "search", { query, stream: false });
    assert(response.results.length > 0, query);
    for (const { snippets, title } of response.results) {
      for (const snippet of snippets) assert(!NO_MARKUP.test(snippet), `${query}: ${snippet}`);
      assert(["x<script>.docx", EVIL].includes(title), title);
    }
  }
  const { client } = await office.enter(ann, `document:${id}`);
  await using _ = client;
  const { response: { annotation } } = await office.push(client, `document:${id}`, "add_annotation", { text: EVIL, type: "note" });
  assertEquals(annotation.text, EVIL);
  const { response: { privilege } } = await office.push(client, `document:${id}`, "update_privilege", { privilege_type: "work_product", reason: EVIL });
  assertEquals(privilege.reason, EVIL);
  const { response: { coding } } = await office.push(client, `document:${id}`, "code", { tags: ["<b>hot</b>"] });
  assertEquals(coding.tags, ["<b>hot</b>"]);
  await office.outside.unharmed(before);
});
