/** The main way, from a folder of files to a privilege log, against a server process with its own children and disk. [issue 4] */
import { assert, assertEquals, assertGreater, assertMatch, assertStringIncludes } from "@std/assert";
// @ts-types="./support/phoenix.d.ts"
import { type Channel, Socket } from "phoenix";
import { docx, eml, mbox, pdf } from "./support/files.ts";
import { CASE, formOf, Office, until } from "./support/office.ts";
import type { Heard } from "./support/raw.ts";
import { someone } from "./support/stage.ts";

const paragraph = (text: string) => `<w:p><w:r><w:t>${text}</w:t></w:r></w:p>`;
const SPEECH = "The supplier did not deliver the turbines on time. This is a breach of contract under section 4. " +
  "John Smith demands $250,000 until March 3, 2024. The parties met in Boston to discuss the delay. ";
const FOLDER: Record<string, string | Uint8Array> = {
  "notice.eml": eml(
    { From: "John Smith <john.smith@acme.com>", To: "Ann Lee <ann@buyer.com>", Subject: "Notice of breach", Date: "Mon, 04 Mar 2024 10:00:00 +0000" },
    SPEECH.repeat(3),
    [{ name: "terms.docx", bytes: docx(paragraph("Delivery within thirty days of the order.")) }, {
      name: "plan.pdf",
      bytes: pdf(["Delivery plan of turbines"]),
    }],
  ),
  "advice.eml": eml(
    { From: "Jane Roe <jane.roe@roe-law.com>", To: "Ann Lee <ann@buyer.com>", Subject: "PRIVILEGED & CONFIDENTIAL: Attorney-Client Communication" },
    "You asked for my legal advice. As your attorney I advise you to terminate. This communication is protected by attorney-client privilege.",
  ),
  "export.mbox": mbox([
    eml(
      { From: "bob@acme.com", To: "john.smith@acme.com", Subject: "Lunch", Date: "Tue, 05 Mar 2024 10:00:00 +0000" },
      "Shall we have lunch on Tuesday at the harbour?",
    ),
    eml({ From: "eve@acme.com", To: "bob@acme.com", Subject: "Contract" }, "No breach of contract can be seen here, says Eve of the sales team."),
  ]),
  "report.pdf": pdf(["Quarterly report of the turbine works", "Revenue rose to $3 million in 2023"]),
  "memo.docx": docx(paragraph("Memo on the schedule of deliveries in the spring.")),
  "page.html": "<html><body><h1>Press release</h1><p>Acme opens a new harbour in Boston.</p></body></html>",
  "notes.txt": "Notes of the meeting: nobody spoke of the contract.",
};
/** With the two attachments and the two mails of the archive. */
const ALL = Object.keys(FOLDER).length + 4;

/** The npm client, and all that its channels heard, by topic and event. */
class Reader {
  readonly heard: { topic: string; event: string; payload: Heard }[] = [];
  readonly #socket: Socket;

  constructor(ws: string, token: string) {
    this.#socket = new Socket(ws, { params: { token } });
    this.#socket.onMessage(({ topic, event, payload }) => void this.heard.push(structuredClone({ topic, event, payload })));
    this.#socket.connect();
  }
  async join(topic: string, params: object = {}): Promise<{ channel: Channel; reply: Heard }> {
    const channel = this.#socket.channel(topic, params);
    return { channel, reply: await answer(channel.join()) };
  }
  of(topic: string, event: string): Heard[] {
    return this.heard.filter((said) => said.topic === topic && said.event === event).map(({ payload }) => payload);
  }
  async until(topic: string, event: string, count = 1): Promise<Heard[]> {
    await until(`${count} times ${event} on ${topic}`, () => this.of(topic, event).length >= count, 60_000);
    return this.of(topic, event);
  }
  close(): Promise<void> {
    return new Promise((resolve) => this.#socket.disconnect(resolve));
  }
}

function answer(push: ReturnType<Channel["join"]>): Promise<Heard> {
  return new Promise((resolve, reject) => {
    push.receive("ok", resolve).receive("error", (error) => reject(new Error(JSON.stringify(error)))).receive("timeout", () => reject(new Error("timeout")));
  });
}

async function verifyLog(dataDir: string): Promise<string> {
  const args = ["task", "--quiet", "log", "verify"];
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args,
    cwd: new URL("..", import.meta.url),
    env: { DATA_DIR: dataDir, NO_COLOR: "1" },
  }).output();
  const said = new TextDecoder().decode(stdout);
  assertEquals(code, 0, said + new TextDecoder().decode(stderr));
  return said;
}

Deno.test("documents: from a folder of real files to a privilege log, over the npm client [issue 4, outcome]", async () => {
  await using office = await Office.start();
  const before = await office.outside.looks();
  const [ann, bob] = [someone("ann", "attorney", [CASE]), someone("bob", "attorney", [CASE])];
  const [reader, other] = [new Reader(office.server.ws, await office.outside.token(ann)), new Reader(office.server.ws, await office.outside.token(bob))];
  await reader.join(`case:${CASE}`);

  // One upload, one bar.
  const { status, body } = await office.ask(
    ann,
    "POST",
    `/api/cases/${CASE}/documents`,
    formOf(FOLDER, { metadata: '{"custodian":"Smith","tags":["first"]}' }),
  );
  assertEquals([status, body.documents.length], [201, Object.keys(FOLDER).length]);
  const processing = `processing:${body.processing_job_id}`;
  const job = (await reader.join(processing)).reply;
  const [{ summary }] = job.status === "completed" ? [job] : await reader.until(processing, "job:completed");
  assertEquals([summary.total_documents, summary.completed, summary.failed, summary.errors], [ALL, ALL, 0, []]);
  const bar = [job, ...reader.of(processing, "progress")].map(({ percentage }) => percentage);
  assertEquals(bar, bar.toSorted((a, b) => a - b));
  assertEquals(bar.at(-1), 100);
  assertEquals(reader.of(processing, "processing:progress"), reader.of(processing, "progress"));

  // Each document arrives, and what was found in it.
  const arrived = (await reader.until(`case:${CASE}`, "document:uploaded", ALL)).map(({ document }) => document);
  const processed = await reader.until(`case:${CASE}`, "document:processed", ALL);
  assertEquals(new Set(arrived.map(({ id }) => id)).size, ALL);
  assertEquals(processed.map(({ document_id }) => document_id).toSorted(), arrived.map(({ id }) => id).toSorted());
  const idOf = (filename: string): string => arrived.find((document) => document.filename === filename).id;
  const resultsOf = (filename: string) => processed.find(({ document_id }) => document_id === idOf(filename)).results;
  const notice = resultsOf("notice.eml");
  assert(notice.entities.some(({ text, type }: Heard) => /John Smith/.test(text) && type === "PERSON"), JSON.stringify(notice.entities));
  assertEquals(notice.monetary_amounts[0].amount, 250_000);
  assertEquals(notice.key_dates[0].date, "2024-03-03");
  assertStringIncludes(SPEECH, notice.summary.split(". ")[0]);
  assertEquals(notice.privilege_analysis.is_privileged, false);
  const advice = resultsOf("advice.eml").privilege_analysis;
  assertEquals([advice.is_privileged, advice.privilege_type], [true, "attorney-client"]);
  assertGreater(advice.factors.length, 0);
  for (const inner of ["terms.docx", "plan.pdf"]) assertEquals(arrived.find(({ filename }) => filename === inner).parent_ids, [idOf("notice.eml")]);
  await reader.until(`case:${CASE}`, "workflow:completed");
  const pages = await office.documents(ann);
  assertEquals(pages.map(({ id, custodian, tags, status }) => [id, custodian, tags, status]), arrived.map(({ id }) => [id, "Smith", ["first"], "completed"]));

  // Found while it streams in.
  const live = (await reader.join("search:live")).channel;
  const { search_id } = await answer(live.push("search", { query: '"breach of contract" AND from:smith' }));
  const [complete] = await reader.until("search:live", "search:complete");
  assertEquals([complete.search_id, complete.total_results, complete.total_is_exact], [search_id, 1, true]);
  const [hit] = reader.of("search:live", "result");
  assertEquals([hit.document.id, hit.document.title, hit.total_so_far], [idOf("notice.eml"), "Notice of breach", 1]);
  assertMatch(hit.document.snippets[0], /<mark>breach/);

  // Opened by two; a mark is seen by both.
  const topic = `document:${idOf("notice.eml")}`;
  const { channel } = await reader.join(topic);
  await other.join(topic);
  const selector = { type: "TextQuoteSelector", exact: "breach of contract", prefix: "This is a " };
  const { annotation } = await answer(channel.push("add_annotation", { type: "highlight", text: "here", position: { page: 1, x: 1, y: 2 }, selector }));
  assertEquals((await other.until(topic, "annotation:added"))[0].annotation, annotation);
  assertEquals([annotation.user.id, annotation.selector], ["ann", selector]);

  // The suggestion is corrected by a person; the log has both.
  const [mine, theirs] = [await reader.join(`document:${idOf("advice.eml")}`), await other.join(`document:${idOf("advice.eml")}`)];
  assertEquals([mine.reply.privilege.status, mine.reply.privilege.privilege_type, theirs.reply.privilege.version], ["suggested", "attorney-client", 1]);
  const { privilege } = await answer(mine.channel.push("update_privilege", { privilege_type: "work-product", reason: "made for the suit", version: 1 }));
  assertEquals([privilege.status, privilege.version], ["overridden", 2]);
  assertEquals((await other.until(`document:${idOf("advice.eml")}`, "privilege:updated"))[0].privilege, privilege);
  const lines = (await office.get(ann, `/api/cases/${CASE}/privilege-log.csv`)).text.trim().split("\r\n");
  // The heading, and a line for each that was ever called privileged: short ones are, out of doubt.
  const withheld = processed.filter(({ results }) => results.privilege_analysis?.is_privileged).map(({ document_id }) => document_id);
  assertEquals(lines.slice(1).map((line) => line.split(",")[0]).toSorted(), withheld.toSorted());
  const line = lines.find((line) => line.includes(idOf("advice.eml")))!;
  const calls = ["made for the suit", "1: attorney-client, suggested by analysis", "2: work-product, overridden by Name of ann (ann)"];
  for (const part of ["jane.roe@roe-law.com", ...calls]) assertStringIncludes(line, part);

  const original = await office.get(ann, `/api/documents/${idOf("notes.txt")}/content`);
  assertEquals(original.text, FOLDER["notes.txt"]);
  assertStringIncludes((await office.get(ann, `/api/documents/${idOf("report.pdf")}/text`)).body.text, "Revenue rose");
  await office.nothingWaits();
  assertMatch(await verifyLog(office.dataDir), /every chain holds/);
  await Promise.all([reader.close(), other.close()]);
  const children = office.children();
  assertGreater(children.length, 0);
  await office.outside.unharmed(before);
  assertMatch(await verifyLog(office.dataDir), /every chain holds/);
});
