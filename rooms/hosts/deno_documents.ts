/** What Deno lends for documents: originals on disk, and child processes that read, analyse and search them. */
import type { Labour, Processed, Searched } from "../channels/messages.ts";
import type { OutsideAnalyzer } from "../documents/analyzer.ts";
import { type Results, STEPS } from "../documents/results.ts";
import type { Step } from "../documents/results.ts";
import type { Read, Task } from "../documents/tasks.ts";
import type { Host, Work } from "../host.ts";
import type { Limits } from "../limits.ts";
import { Buffer } from "node:buffer";
import { fileURLToPath } from "node:url";
import { EXCEPTIONS } from "../../protocol/channels/processing.ts";
import { Refusal } from "../../protocol/reason.ts";
import { sha256 } from "./deno.ts";
import { DenoBlobs } from "./deno_blobs.ts";
import { Pool, TaskFailed } from "./deno_pool.ts";

/** Resident bytes of a child; megabytes of its heap. */
const MEMORY_BYTES = 1_073_741_824;
const HEAP_MB = 512;
/** Where the children's programs are: they run one more time in a thread, which reads them anew. */
const PROGRAMS = ["../../protocol", "../documents", "."].map((folder) => fileURLToPath(new URL(folder, import.meta.url)));
/** Of a text, in UTF-16 units, what an outside analyzer is shown. */
const SHOWN = 1_000_000;
/** How long a summary is waited for that somebody asked for, in milliseconds. */
const AT_ONCE_MS = 3000;
/** What is short. */
const SHORT_MS = 10_000;
/** Files from inside a document that are kept together. */
const ADOPTED = 64;
/** Documents that are read within so many milliseconds are told together: the server commits once for all of them. */
const TOGETHER_MS = 15;

type Process = Extract<Labour, { do: "process" }>;

export interface DocumentsOptions {
  readonly dataDir: string;
  readonly limits: Limits;
  /** A team's own model, when it has one. */
  readonly analyzer?: OutsideAnalyzer;
  report(error: unknown, where: string): void;
}

export class DenoDocuments {
  readonly blobs: DenoBlobs;
  readonly #pool: Pool;
  readonly #indexes: string;
  #gathered: Promise<void> | null = null;

  constructor(private readonly options: DocumentsOptions) {
    const { dataDir, limits, report } = options;
    this.blobs = new DenoBlobs(dataDir);
    Deno.mkdirSync(`${dataDir}/search`, { recursive: true, mode: 0o700 });
    this.#indexes = Deno.realPathSync(`${dataDir}/search`);
    const [written, read] = [[this.#indexes, this.blobs.uploads], [this.blobs.folder, ...PROGRAMS]];
    const args = [
      ...["--no-prompt", "--cached-only", "--frozen", "--deny-import", "--ignore-env", `--v8-flags=--max-old-space-size=${HEAP_MB}`],
      ...[`--allow-read=${[...written, ...read]}`, `--allow-write=${written}`, fileURLToPath(new URL("deno_documents_child.ts", import.meta.url))],
    ];
    this.#pool = new Pool({ args, lanes: { read: limits.readers, search: limits.searchers }, memoryBytes: MEMORY_BYTES, report });
  }

  get host(): Pick<Host, "work" | "blobs"> {
    return { blobs: this.blobs, work: (task, work) => this.#work(task as Labour, work) };
  }

  async #work(labour: Labour, work: Work): Promise<unknown> {
    switch (labour.do) {
      case "keep":
        return await this.#keep(labour.content_base64);
      case "process":
        return await this.#process(labour, work);
      case "summarize":
        return await this.#summarize(labour, work);
      case "mark":
        return await this.#run("search", { do: "mark", index: this.#index(labour.case_id), changes: labour.changes }, SHORT_MS, work);
      case "text": {
        const { case_id, document_id: id, from, length } = labour;
        return await this.#run("search", { do: "text", index: this.#index(case_id), id, from, length }, SHORT_MS, work);
      }
      case "search":
        return await this.#search(labour, work);
    }
  }
  #index(caseId: string): string {
    return `${this.#indexes}/${sha256(caseId)}.db`;
  }

  async #run<T>(lane: "read" | "search", task: Task, deadlineMs: number, { owner, signal, note }: Work): Promise<T> {
    return await this.#pool.run(lane, task, { deadlineMs, owner, signal, note }) as T;
  }

  async #keep(base64: string): Promise<{ hash: string; size: number }> {
    const { limits } = this.options;
    const upload = await this.blobs.receive(ReadableStream.from([Buffer.from(base64, "base64")]), limits.upload_bytes);
    try {
      await this.blobs.keepAll([upload]);
      return { hash: upload.hash, size: upload.size };
    } finally {
      await upload.drop();
    }
  }

  #task(
    { case_id, document: { hash, id, filename, content_type, tags, custodian, phantom: discard } }: Pick<Process, "case_id" | "document">,
    operations: Process["operations"],
  ) {
    const original = { path: this.blobs.path(hash), id, filename, content_type, tags, custodian };
    return { do: "process", index: this.#index(case_id), original, operations, out: this.blobs.scratch(), discard } as const;
  }

  async #process(labour: Process, work: Work): Promise<Processed> {
    const { analyzer, limits } = this.options;
    const steps = STEPS.filter((step) => labour.operations.includes(step));
    const theirs = analyzer !== undefined && steps.length > 0;
    // With a model of the team's own, the child only reads.
    const task = this.#task(labour, theirs ? labour.operations.filter((operation) => operation === "text_extraction") : labour.operations);
    // Only what has something in it leaves something.
    let leaves = true;
    try {
      const read = await this.#run<Read>("read", theirs ? { ...task, wants_text: SHOWN } : task, limits.document_ms, work);
      const { facts, trouble } = read;
      leaves = trouble !== undefined || read.inner.length > 0;
      if (trouble) return { trouble };
      const results = theirs && facts!.kind !== "archive" ? await this.#askAnalyzer(labour, read, steps, work) : read.results;
      const kept = await this.#adopt(read.inner.map(({ path }) => path));
      const inner = read.inner.map(({ filename, content_type, kind }, index) => ({ filename, content_type, kind, ...kept[index] }));
      return { facts, results, inner };
    } catch (error) {
      if (!(error instanceof TaskFailed) || error.code === "aborted") throw error;
      // Not what it said: that may be of the document.
      this.options.report(new Error(`${labour.document.id}: ${error.code}`), "reading a document");
      return { trouble: { code: error.code, error: EXCEPTIONS[error.code] } };
    } finally {
      if (leaves) await this.blobs.discard(task.out);
      await this.#together();
    }
  }

  #together(): Promise<void> {
    return this.#gathered ??= new Promise((resolve) =>
      setTimeout(() => {
        this.#gathered = null;
        resolve();
      }, TOGETHER_MS)
    );
  }

  async #adopt(paths: readonly string[]): Promise<{ hash: string; size: number }[]> {
    const adopted = [];
    for (let at = 0; at < paths.length; at += ADOPTED) adopted.push(...await this.blobs.adopt(paths.slice(at, at + ADOPTED), this.options.limits.upload_bytes));
    return adopted;
  }

  /** Without an answer, our own rules are better than none. */
  async #askAnalyzer(labour: Process, { facts, text = "" }: Read, steps: readonly Step[], work: Work): Promise<Results | undefined> {
    const { id: document_id, filename } = labour.document;
    try {
      const signal = work.signal ?? new AbortController().signal;
      return await this.options.analyzer!({ ...facts, text, filename, document_id, case_id: labour.case_id }, steps, signal);
    } catch (error) {
      this.options.report(error, "the outside analyzer");
      const task = this.#task(labour, steps);
      return (await this.#run<Read>("read", task, this.options.limits.document_ms, work)).results;
    }
  }

  /** Nothing when it takes longer than somebody waits. */
  async #summarize(labour: Extract<Labour, { do: "summarize" }>, work: Work): Promise<{ summary?: string }> {
    const soon = AbortSignal.timeout(AT_ONCE_MS);
    const signal = work.signal ? AbortSignal.any([work.signal, soon]) : soon;
    const task = this.#task(labour, ["summarization"]);
    try {
      return { summary: (await this.#run<Read>("search", task, AT_ONCE_MS, { ...work, signal })).results?.summary };
    } catch (error) {
      if (error instanceof TaskFailed) return {};
      throw error;
    } finally {
      await this.blobs.discard(task.out);
    }
  }

  async #search({ case_id, deadline_ms, do: _, ...search }: Extract<Labour, { do: "search" }>, work: Work): Promise<Searched> {
    try {
      return await this.#run("search", { do: "search", index: this.#index(case_id), ...search }, deadline_ms, work);
    } catch (error) {
      if (!(error instanceof TaskFailed)) throw error;
      if (error.code === "timeout" || error.code === "aborted") throw new Refusal("timeout", { message: "the case took too long to search" });
      this.options.report(new Error(error.code), "a search");
      throw new Refusal("unavailable", { message: "the case cannot be searched now" });
    }
  }

  async close(): Promise<void> {
    await this.#pool.close();
  }
}
