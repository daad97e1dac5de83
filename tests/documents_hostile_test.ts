/** Files that are made to do harm, and analyzers that are no help: each costs its own document, and the job completes. [issue 4, bad input] */
import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import { zipSync } from "fflate";
import { bytesOf, docx, eml, pdf } from "./support/files.ts";
import { CASE, Office, until } from "./support/office.ts";
import type { Heard } from "./support/raw.ts";
import { someone } from "./support/stage.ts";

const ann = someone("ann", "attorney", [CASE]);
const PLAIN = eml(
  { From: "ann@example.com", To: "bo@example.com", Subject: "The harbour" },
  "The harbour is open again, says the office. Ships may come in on Monday.",
);

/** Millions of zeroes in a few kilobytes. */
const bomb = (megabytes: number) =>
  zipSync({ "word/document.xml": new Uint8Array(megabytes * 1_048_576).fill(32), "[Content_Types].xml": bytesOf("<Types/>") }, { level: 9 });

const whole = pdf(["A page of words that is long enough to be one", "And another one"]);
const part = (index: number) => `Content-Type: multipart/mixed; boundary=b${index}\n\n--b${index}\n`;
/** Each with the code of its exception, or null when it can be read. */
const HOSTILE: Record<string, [string | Uint8Array, string | null]> = {
  "nested.eml": ["From: a@b.c\n" + Array.from({ length: 50_000 }, (_, index) => part(index)).join(""), "too_deep"],
  "headers.eml": ["From: a@b.c\n" + "X: y\n".repeat(500_000), "too_large"],
  "attachments.eml": ["From: a@b.c\nContent-Type: multipart/mixed; boundary=b\n\n" + "--b\nContent-Type: image/png\n\nx\n".repeat(1001), "too_large"],
  "bomb.docx": [bomb(600), "too_large"],
  "tags.html": ["<div><b>".repeat(25_000) + "words in the middle" + "</i>".repeat(50_000), null],
  "deep.docx": [docx("<w:p>".repeat(50_000) + "<w:t>words</w:t>"), null],
  "cut.pdf": [whole.slice(0, 60), "damaged"],
  "cut.docx": [docx("<w:p><w:t>words</w:t></w:p>").slice(0, 80), "damaged"],
  "locked.pdf": [pdf(["secret"], { encrypted: true }), "encrypted"],
  "scan.pdf": [pdf(["", ""]), "no_text"],
  "empty.txt": [new Uint8Array(0), "empty"],
  "program.pdf": [Uint8Array.from({ length: 500 }, (_, index) => index % 7), "wrong_type"],
  "picture.bin": [Uint8Array.from({ length: 500 }, (_, index) => index % 5), "unsupported"],
};

Deno.test("hostile files: each is an exception with its code or is read; the job completes, and what came with them is read", async () => {
  await using office = await Office.start();
  const before = await office.outside.looks();
  const files: Record<string, string | Uint8Array> = { "first.eml": PLAIN };
  for (const [name, [bytes]] of Object.entries(HOSTILE)) files[name] = bytes;
  files["last.eml"] = PLAIN.replace("Monday", "Tuesday");
  const { ids, watched } = await office.take(ann, files);
  const codes = Object.fromEntries(watched.summary.errors.map(({ filename, code }: Heard) => [filename, code]));
  assertEquals(codes, Object.fromEntries(Object.entries(HOSTILE).flatMap(([name, [, code]]) => code ? [[name, code]] : [])));
  const { total_documents, completed, failed } = watched.summary;
  assertEquals([total_documents, completed + failed, failed], [Object.keys(files).length, total_documents, Object.keys(codes).length]);
  for (const { error } of watched.summary.errors) assertEquals(/[/\\]|\bat \w|Error/.test(error), false, error);
  const status = Object.fromEntries((await office.documents(ann)).map((document) => [document.filename, document.status]));
  for (const name of Object.keys(files)) assertEquals(status[name], codes[name] ? "failed" : "completed", name);
  for (const name of ["first.eml", "last.eml"]) assertStringIncludes((await office.get(ann, `/api/documents/${ids[name]}/text`)).body.text, "harbour");
  // What could not be read is not released to those who may not see what is privileged.
  const seen = (await office.documents(someone("v", "viewer", [CASE]))).map(({ filename }) => filename);
  assertEquals(seen.filter((name) => codes[name]), []);
  await office.nothingWaits();
  assertGreater(office.children().length, 0);
  await office.outside.unharmed(before);
});

/** A model of a team's own, which does whatever is wanted of it. */
class Analyzer implements AsyncDisposable {
  readonly asked: Heard[] = [];
  readonly #server: Deno.HttpServer<Deno.NetAddr>;

  /** Resolves when nobody needs an answer any more. */
  readonly #over = Promise.withResolvers<Response>();

  constructor(answer: (over: Promise<Response>) => Response | Promise<Response>) {
    this.#server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
      const question = await request.json();
      this.asked.push(question);
      return await answer(this.#over.promise);
    });
  }
  get url(): string {
    return `http://127.0.0.1:${this.#server.addr.port}/analyze`;
  }
  async [Symbol.asyncDispose](): Promise<void> {
    this.#over.resolve(new Response());
    await this.#server.shutdown();
  }
}

const MAILS = Object.fromEntries([1, 2, 3].map((number) => [`mail ${number}.eml`, PLAIN.replace("Monday", `day ${number}`)]));
const MODEL = {
  entities: [{ text: "The Harbour", type: "ORGANIZATION", confidence: 0.75, count: 2 }],
  privilege_analysis: { is_privileged: true, privilege_type: "work_product", confidence: 0.6, factors: [{ factor: "the model says so", weight: 1 }] },
  summary: "A summary of the model's own.",
};

async function analysed(office: Office): Promise<Heard[]> {
  const { ids, watched } = await office.take(ann, MAILS);
  assertEquals([watched.summary.completed, watched.summary.failed], [3, 0]);
  return await Promise.all(Object.values(ids).map(async (id) => (await office.get(ann, `/api/documents/${id}`)).body));
}

Deno.test("analyzer: a model that works is asked once a document, and what it says is what is told", async () => {
  await using model = new Analyzer(() => Response.json(MODEL));
  await using office = await Office.start({ ANALYZER_URL: model.url });
  const before = await office.outside.looks();
  for (const { document, results, privilege } of await analysed(office)) {
    assertEquals([document.summary, results.summary], [MODEL.summary, MODEL.summary]);
    assertEquals(results.entities.map(({ text, type }: Heard) => [text, type]), [["The Harbour", "ORGANIZATION"]]);
    assertEquals([privilege.privilege_type, privilege.is_privileged, privilege.status], ["work-product", true, "suggested"]);
  }
  assertEquals(model.asked.map(({ filename }) => filename).toSorted(), Object.keys(MAILS));
  assert(model.asked.every(({ case_id, text, subject }) => case_id === CASE && text.includes("Ships may come in") && subject === "The harbour"));
  // Still found by its words.
  const { client } = await office.enter(ann, "search:live");
  assertEquals((await office.push(client, "search:live", "search", { query: "ships", stream: false })).response.total_results, 3);
  await client.close();
  await office.outside.unharmed(before);
});

const BAD: Record<string, ((over: Promise<Response>) => Response | Promise<Response>) | null> = {
  "is down": null,
  "answers an error": () => new Response("no", { status: 500 }),
  "answers no JSON": () => new Response("<html>"),
  "answers another shape": () => Response.json({ entities: "many", summary: 7 }),
  "never ends its answer": () => new Response(new ReadableStream({ start: (controller) => controller.enqueue(bytesOf('{"summary":"')) })),
  "never answers": (over) => over,
};

for (const [name, answer] of Object.entries(BAD)) {
  Deno.test(`analyzer: one that ${name} is done without, and the job completes`, async () => {
    await using model = new Analyzer(answer ?? (() => new Response()));
    const url = answer ? model.url : "http://127.0.0.1:1/";
    await using office = await Office.start({ ANALYZER_URL: url, LIMIT_ANALYZER_MS: "300" });
    for (const { document, results, privilege } of await analysed(office)) {
      assertStringIncludes(document.summary, "harbour");
      assertEquals([privilege.status, results.summary], ["suggested", document.summary]);
    }
    if (answer) assertEquals(model.asked.length, 3);
    // Said to whoever runs the server, without a word of the documents.
    await until("it is reported", () => office.server.output().includes("Cannot use the analyzer"));
    assertEquals(/Ships may come/.test(office.server.output()), false);
    assertEquals(await office.server.stop(), 0);
  });
}
