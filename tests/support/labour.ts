/** What processes and a disk lend, in memory and by hand: rooms that work on documents are tested over it. */
import { Refusal } from "../../protocol/reason.ts";
import { sha256 } from "../../rooms/hosts/deno.ts";
import type { Blobs, Host, Work } from "../../rooms/host.ts";
import type { Facts, Labour, Mark, Processed, Searched } from "../../rooms/channels/messages.ts";

type Process = Extract<Labour, { do: "process" }>;

export class FakeLabour {
  /** What reading a file of that content finds; without it, a clear mail. */
  readonly found = new Map<string, Processed>();
  /** Everything asked for, in order. */
  readonly asked: Labour[] = [];
  /** Work that is held back until `release`. */
  holding = false;
  /** Summaries take longer than anybody waits. */
  noSummary = false;
  readonly #held: (() => void)[] = [];
  readonly texts = new Map<string, { case_id: string; text: string; visible: boolean; revision: number; change: number }>();
  #change = 0;
  readonly contents = new Map<string, Uint8Array>();

  readonly blobs: Blobs = {
    receive: async (stream, limit) => {
      const chunks: Uint8Array[] = [];
      let received = 0;
      for await (const chunk of stream) {
        if ((received += chunk.length) > limit) throw new Refusal("payload_too_large", { limit });
        chunks.push(chunk);
      }
      const bytes = new Uint8Array(chunks.flatMap((chunk) => [...chunk]));
      const hash = sha256(bytes);
      this.contents.set(hash, bytes);
      return { hash, size: bytes.length, drop: () => Promise.resolve() };
    },
    keepAll: () => Promise.resolve(),
    open: (hash) => {
      const bytes = this.contents.get(hash);
      return Promise.resolve(bytes && { size: bytes.length, stream: ReadableStream.from([bytes]) });
    },
  };

  get host(): Pick<Host, "work" | "blobs"> {
    return { work: (task, options) => this.work(task as Labour, options), blobs: this.blobs };
  }

  async work(labour: Labour, { note }: Work): Promise<unknown> {
    this.asked.push(labour);
    if (this.holding) await new Promise<void>((resolve) => this.#held.push(resolve));
    switch (labour.do) {
      case "keep": {
        const bytes = Uint8Array.from(atob(labour.content_base64), (sign) => sign.charCodeAt(0));
        const { hash, size } = await this.blobs.receive(
          (async function* () {
            yield await Promise.resolve(bytes);
          })(),
          1e9,
        );
        return { hash, size };
      }
      case "process":
        note?.({ operation: labour.operations[0] });
        return this.#process(labour);
      case "summarize":
        return this.noSummary ? {} : { summary: `summary of ${labour.document.id}` };
      case "mark":
        for (const mark of labour.changes) this.#mark(labour.case_id, mark);
        return {};
      case "text": {
        const known = this.texts.get(labour.document_id);
        return known ? { text: known.text.slice(labour.from, labour.from + labour.length), total: known.text.length } : null;
      }
      case "search":
        return this.#search(labour);
    }
  }

  /** One held piece of work goes on; all of them without a number. */
  release(count = Infinity): void {
    for (const go of this.#held.splice(0, count)) go();
  }

  #process({ case_id, document, operations }: Process): Processed {
    const result = this.found.get(document.hash) ?? CLEAR;
    if (result.trouble || document.phantom) return result;
    const text = new TextDecoder().decode(this.contents.get(document.hash));
    const known = this.texts.get(document.id);
    this.texts.set(document.id, { case_id, text, visible: known?.visible ?? false, revision: known?.revision ?? -1, change: ++this.#change });
    const { privilege_analysis, summary, ...results } = result.results ?? {};
    return {
      ...result,
      results: {
        ...results,
        ...(operations.includes("privilege_detection") && { privilege_analysis }),
        ...(operations.includes("summarization") && { summary }),
      },
    };
  }

  #mark(case_id: string, { id, revision = -1, visible }: Mark): void {
    const known = this.texts.get(id) ?? { case_id, text: "", visible: false, revision: -1, change: 0 };
    if (visible !== undefined && revision > known.revision) this.texts.set(id, { ...known, visible, revision, change: ++this.#change });
  }

  #search({ case_id, query, all, limit, after = 0 }: Extract<Labour, { do: "search" }>): Searched {
    const here = [...this.texts].filter(([, text]) => text.case_id === case_id);
    const hits = here.filter(([, { text, visible, change }]) => change > after && (all || visible) && text.includes(query));
    const results = hits.slice(0, limit).map(([id, { text }]) => ({ id, score: 1, snippets: [text.slice(0, 20)] }));
    return { results, total: hits.length, exact: true, documents: here.length, change: this.#change };
  }
}

const analysis = (is_privileged: boolean) => ({ is_privileged, privilege_type: is_privileged ? "attorney-client" : "none", confidence: 0.9 });
const facts: Facts = {
  truncated: false,
  kind: "email",
  content_type: "message/rfc822",
  subject: "a subject",
  from: "a@example.com",
  to: ["b@example.com"],
  date: "2024-01-02T03:04:05Z",
};
export const CLEAR: Processed = { facts, results: { summary: "a summary", privilege_analysis: analysis(false) } };
export const PRIVILEGED: Processed = { facts, results: { summary: "a summary", privilege_analysis: analysis(true) } };
