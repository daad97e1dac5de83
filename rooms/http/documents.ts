/** The documents of a case over HTTP: a page of them, one, its original, its text, and the case's privilege log. */
import { Hono } from "hono";
import Papa from "papaparse";
import { z } from "zod";
import { Status } from "../../protocol/channels/case.ts";
import { Id } from "../../protocol/channels/common.ts";
import { WORKFLOWS } from "../../protocol/channels/processing.ts";
import { check } from "../../protocol/contract.ts";
import { Refusal } from "../../protocol/reason.ts";
import type { CaseQuestion, DocumentShown, Labour } from "../channels/messages.ts";
import type { Withheld } from "../channels/privilege_log.ts";
import type { User } from "../host.ts";
import { bearer, nameIn, pageSize } from "./bearer.ts";
import type { DocumentRoutes } from "./uploads.ts";
import type { HostBindings } from "./upgrade.ts";

/** UTF-16 units of a document's text in one answer, at most. */
const TEXT_UNITS = 1_000_000;
/** Rows of the privilege log that are asked for at once. */
const ROWS = 500;

/** As a query says it; `processed` is what other pages call it. */
const Filters = z.object({
  status: z.preprocess((status) => status === "processed" ? "completed" : status, Status.optional()),
  content_type: z.string().max(255).optional(),
  tag: z.string().max(255).optional(),
  custodian: z.string().max(255).optional(),
});

const Start = z.object({ name: z.enum(WORKFLOWS).default("processing"), document_ids: z.array(Id).min(1).max(1000) });

export function documents(
  { registry, gateway, verify, limits, blobs, work }: DocumentRoutes & { work(labour: Labour, user: User): Promise<unknown> },
): Hono<{ Bindings: HostBindings }> {
  const app = new Hono<{ Bindings: HostBindings }>();

  async function asker(authorization: string | undefined): Promise<User> {
    const user = await bearer(authorization, verify);
    gateway.spend(user, "requests");
    return user;
  }
  const ask = <T>(user: User, caseId: string, question: CaseQuestion) => registry.ask<T>(`case/${caseId}`, question, user);
  /** The case of a document that the user may see. Rejects with Refusal `not_found`. */
  const caseOf = async (user: User, id: string) => (await registry.ask<{ case_id: string }>(`document/${id}`, { user }, user)).case_id;

  // `?after=&limit=&status=&content_type=&tag=&custodian=` → `{documents, next}`, in the order in which they came.
  app.get("/api/cases/:id/documents", async (c) => {
    const user = await asker(c.req.header("authorization"));
    const filters = check(Filters, c.req.query());
    const question = { ask: "documents", user, after: c.req.query("after") || null, limit: pageSize(c.req.query("limit")), filters } as const;
    return c.json(await ask<object>(user, nameIn(c.req.url, 3, "case", limits), question));
  });

  // `{name?, document_ids}` → 201 `{workflow_id, processing_job_id}`
  app.post("/api/cases/:id/workflows", async (c) => {
    const user = await asker(c.req.header("authorization"));
    const said = await c.req.json().catch(() => {
      throw new Refusal("invalid_payload", { message: "the body is no JSON" });
    });
    const { name, document_ids } = check(Start, said);
    const job = await ask<string>(user, nameIn(c.req.url, 3, "case", limits), { ask: "workflow", user, name, document_ids });
    return c.json({ workflow_id: job, processing_job_id: job }, 201);
  });

  // `{document, privilege, results}`
  app.get("/api/documents/:id", async (c) => {
    const user = await asker(c.req.header("authorization"));
    const document_id = nameIn(c.req.url, 3, "document", limits);
    return c.json(await ask<object>(user, await caseOf(user, document_id), { ask: "document", user, document_id }));
  });

  // Whatever it is, a browser saves it, and does not guess.
  app.get("/api/documents/:id/content", async (c) => {
    const user = await asker(c.req.header("authorization"));
    const document_id = nameIn(c.req.url, 3, "document", limits);
    const content = await ask<{ hash: string; filename: string; content_type: string }>(user, await caseOf(user, document_id), {
      ask: "content",
      user,
      document_id,
    });
    const blob = await blobs.open(content.hash);
    if (!blob) throw new Refusal("unavailable", { message: "the original is not to be had" });
    c.env.allow?.(limits.upload_ms);
    return c.body(blob.stream, 200, {
      "content-type": /^[\w.+-]+\/[\w.+-]+$/.test(content.content_type) ? content.content_type : "application/octet-stream",
      "content-length": String(blob.size),
      "content-disposition": `attachment; filename*=UTF-8''${
        encodeURIComponent(content.filename).replace(/['()*]/g, (sign) => `%${sign.charCodeAt(0).toString(16)}`)
      }`,
      "x-content-type-options": "nosniff",
      "content-security-policy": "sandbox; default-src 'none'",
      "cache-control": "private, no-store",
    });
  });

  // `?from=&length=` → `{document_id, text, from, total}`, in UTF-16 units
  app.get("/api/documents/:id/text", async (c) => {
    const user = await asker(c.req.header("authorization"));
    const document_id = nameIn(c.req.url, 3, "document", limits);
    const from = whole(c.req.query("from") ?? "0", "from");
    const length = Math.min(whole(c.req.query("length") ?? String(TEXT_UNITS), "length"), TEXT_UNITS);
    const case_id = await caseOf(user, document_id);
    const found = await work({ do: "text", case_id, document_id, from, length }, user) as { text: string; total: number } | null;
    // Asked last: what he may see can have changed while it was read.
    await ask(user, case_id, { ask: "document", user, document_id });
    if (!found) throw new Refusal("not_found", { message: "there is no text of it, or not yet" });
    return c.json({ document_id, text: found.text, from, total: found.total });
  });

  app.get("/api/cases/:id/privilege-log.csv", async (c) => {
    const user = await asker(c.req.header("authorization"));
    const caseId = nameIn(c.req.url, 3, "case", limits);
    const page = (after: number) => ask<{ rows: Withheld[]; next: number | null }>(user, caseId, { ask: "privilege_log", user, after, limit: ROWS });
    const first = await page(0);
    async function* lines() {
      // Without its mark a spreadsheet takes UTF-8 for something else.
      yield `\ufeff${csv([COLUMNS])}`;
      for (let { rows, next } = first;; { rows, next } = await page(next)) {
        if (rows.length > 0) yield csv(rows.map(rowOf));
        if (next === null) return;
      }
    }
    c.env.allow?.(limits.upload_ms);
    return c.body(ReadableStream.from(lines()).pipeThrough(new TextEncoderStream()), 200, {
      "content-type": "text/csv; charset=utf-8; header=present",
      "content-disposition": 'attachment; filename="privilege-log.csv"',
      "x-content-type-options": "nosniff",
    });
  });
  return app;
}

function whole(said: string, name: string): number {
  if (!/^\d{1,9}$/.test(said)) throw new Refusal("invalid_payload", { message: `${name}: it is no whole number` });
  return Number(said);
}

const COLUMNS = [
  "document_id",
  "filename",
  "title",
  "document_date",
  "author",
  "recipients",
  "privilege_type",
  "status",
  "basis",
  "reviewer",
  "reviewed_at",
  "history",
];

/** A cell that a spreadsheet would take for a formula is text. */
function csv(rows: readonly (readonly string[])[]): string {
  return Papa.unparse(rows as string[][], { escapeFormulae: true, newline: "\r\n" }) + "\r\n";
}

function rowOf({ document, privilege, history, factors }: Withheld): string[] {
  const { id, filename = "", title = "", date_created = "", author = "" } = document;
  const { privilege_type, status, reason = status === "suggested" ? factors.join("; ") : "", reviewed_by, reviewed_at = "" } = privilege;
  const calls = history.map((call) => {
    const by = call.reviewed_by ? `${call.reviewed_by.name} (${call.reviewed_by.id}) at ${call.reviewed_at}` : "analysis";
    return `${call.version}: ${call.privilege_type}, ${call.status} by ${by}${call.reason ? `: ${call.reason}` : ""}`;
  });
  const reviewer = reviewed_by ? `${reviewed_by.name} (${reviewed_by.id})` : "";
  return [id, filename, title, date_created, author, recipientsOf(document), privilege_type, status, reason, reviewer, reviewed_at, calls.join("\n")];
}

function recipientsOf({ metadata = {} }: DocumentShown): string {
  return [metadata.to, metadata.cc, metadata.bcc].flatMap((names) => Array.isArray(names) ? names.map(String) : []).join("; ");
}
