/** What a child process is asked to do, by the server that started it: plain data, files by their paths. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { type Operation, OPERATIONS } from "../../protocol/channels/processing.ts";
import { Exception, type ExceptionCode, type Extracted } from "./extract.ts";
import type { Change, Found } from "./indexed.ts";
import { parseQuery } from "./query.ts";
import { type Results, type Step, STEPS } from "./results.ts";
import { SearchIndex } from "./search_index.ts";

interface Indexing {
  /** The file of the case's index. */
  readonly index: string;
}

/** A document to be read. */
export interface Original {
  readonly path: string;
  readonly id: string;
  readonly filename: string;
  readonly content_type: string;
  readonly tags: readonly string[];
  readonly custodian: string;
}

export type Task =
  /** `out`: a folder for what is found inside. `wants_text`: how much of the text comes back, in UTF-16 units. */
  | Indexing & {
    readonly do: "process";
    readonly original: Original;
    readonly out: string;
    readonly operations: readonly Operation[];
    readonly wants_text?: number;
    /** It is in no index afterwards. */
    readonly discard?: true;
  }
  | Indexing & { readonly do: "mark"; readonly changes: readonly Change[] }
  | Indexing & { readonly do: "text"; readonly id: string; readonly from: number; readonly length: number }
  | Indexing & {
    readonly do: "search";
    readonly query: string;
    readonly all: boolean;
    readonly dates: { readonly start?: string; readonly end?: string };
    readonly limit: number;
    readonly candidates: number;
    readonly after?: number;
  };

/** What was found inside a document. */
export interface InnerFile {
  readonly path: string;
  readonly filename: string;
  readonly content_type: string;
  readonly kind: "attachment" | "member";
}

/** What came of reading one. */
export interface Read {
  readonly facts?: Omit<Extracted, "text">;
  readonly results?: Results;
  readonly trouble?: { readonly code: ExceptionCode; readonly error: string };
  readonly inner: readonly InnerFile[];
  readonly text?: string;
}

/** Indexes are kept open: the next task is often of the same case. */
const OPEN = 4;
const open = new Map<string, SearchIndex>();

function indexAt(path: string): SearchIndex {
  const index = open.get(path) ?? SearchIndex.open(path, {});
  open.delete(path);
  open.set(path, index);
  for (const [oldest, other] of open) {
    if (open.size <= OPEN) break;
    open.delete(oldest);
    other.close();
  }
  return index;
}

export async function perform(task: Task, note: (note: { operation: Operation }) => void): Promise<unknown> {
  switch (task.do) {
    case "process":
      return await read(task, note);
    case "mark":
      indexAt(task.index).mark(task.changes);
      return {};
    case "text":
      return indexAt(task.index).text(task.id, task.from, task.length) ?? null;
    case "search":
      return search(task);
  }
}

function search({ index, query, ...options }: Extract<Task, { do: "search" }>): Found {
  return indexAt(index).search(parseQuery(query), options);
}

async function read(
  { original, index, out, operations, wants_text, discard }: Extract<Task, { do: "process" }>,
  note: (note: { operation: Operation }) => void,
): Promise<Read> {
  const inner: InnerFile[] = [];
  // What is inside was found when the text was: its documents are there.
  const keeps = operations.includes("text_extraction") && !discard;
  // That a job which does nothing else does that is no news.
  if (operations.length > 1) note({ operation: OPERATIONS[0] });
  let extracted: Extracted;
  try {
    // Only who reads files needs what reads them.
    const { extract } = await import("./extract.ts");
    const { path, filename, content_type } = original;
    extracted = await extract({ bytes: plainBytes(readFileSync(path)), filename, content_type }, ({ bytes, ...found }) => {
      if (!keeps) return;
      if (inner.length === 0) mkdirSync(out, { recursive: true });
      const path = `${out}/${inner.length}`;
      writeFileSync(path, bytes, { mode: 0o600 });
      inner.push({ path, ...found });
    });
  } catch (error) {
    if (!(error instanceof Exception)) throw error;
    return { trouble: { code: error.code, error: error.message }, inner: [] };
  }
  const { text, ...facts } = extracted;
  if (keeps) put(index, original, extracted);
  // An archive says nothing itself: its members do.
  const steps = extracted.kind === "archive" ? [] : STEPS.filter((step) => operations.includes(step));
  let results: Results = {};
  if (steps.length > 0) {
    const { analyze } = await import("./analyze.ts");
    results = analyze({ ...extracted, filename: original.filename }, steps, (operation: Step) => note({ operation }));
  }
  return { facts, results, inner, text: wants_text === undefined ? undefined : text.slice(0, wants_text) };
}

/** Some libraries take no Buffer. */
function plainBytes({ buffer, byteOffset, length }: Uint8Array): Uint8Array {
  return new Uint8Array(buffer, byteOffset, length);
}

function put(
  index: string,
  { id, filename, tags, custodian }: Original,
  { text, title, subject, author, from, to = [], cc = [], bcc = [], kind, date }: Extracted,
): void {
  indexAt(index).put([{
    id,
    text,
    title: title ?? "",
    subject: subject ?? "",
    from: from ?? author ?? "",
    to: [...to, ...cc, ...bcc].join(", "),
    type: kind,
    date: date?.slice(0, 10) ?? null,
    tags: [...tags],
    custodian,
    filename,
  }]);
}
