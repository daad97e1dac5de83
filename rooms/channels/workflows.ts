/** The jobs of a case, from its side: how they begin, and what becomes of a document by them. */
import { caseChannel } from "../../protocol/channels/case.ts";
import { Refusal } from "../../protocol/reason.ts";
import type { User } from "../host.ts";
import type { RoomContext } from "../room.ts";
import { require } from "../token.ts";
import { add, describe, put, seen, twin } from "./documents.ts";
import type { CaseCall, DocumentShown, Facts, Inner, JobCall, JobDocument, Labour, Workflow } from "./messages.ts";
import { attach, type Held, held, suggest } from "./privilege.ts";

export const CASE_INDEX = [
  `alter table case_document add column indexed integer not null default 0;
   create table case_index (room text not null primary key, documents integer not null) strict, without rowid`,
];

/** Documents of one job that makes a lost index again. */
const REBUILT = 1000;

/** Throws Refusal `not_found` when its content is elsewhere. */
export function forJob({ document, visible, hash }: Held): JobDocument {
  const { id, filename = "", content_type = "", tags = [], custodian = "" } = document;
  if (hash === undefined) throw new Refusal("not_found", { message: `${id}: its content is not kept here` });
  return { id, hash, filename, content_type, visible, own: false, tags, custodian };
}

/** Runs a workflow on documents that are there. */
export function run(ctx: RoomContext, user: User, name: Workflow, ids: readonly string[]): string {
  require(user, "upload");
  const job = ctx.newId("job");
  const documents = [...new Set(ids)].map((id) => forJob(seen(ctx, user, id)));
  for (const { id } of documents) ctx.sql`update case_document set job = ${job} where room = ${ctx.room} and id = ${id}`;
  begin(ctx, job, name, user.id, documents);
  return job;
}

/** Has a document summarised that was not, in its own time. */
export function summarizeLater(ctx: RoomContext, id: string): void {
  const known = held(ctx, id);
  if (!known || known.document.status !== "completed") return;
  put(ctx, { ...known.document, status: "processing" });
  begin(ctx, ctx.newId("job"), "summarization", "", [forJob(known)]);
}

/** What came of one that was done at once. */
export function keepSummary(ctx: RoomContext, id: string, summary: string): void {
  const known = held(ctx, id);
  if (known) put(ctx, { ...known.document, summary });
}

/** Starts a job. */
export function begin(ctx: RoomContext, job: string, name: Workflow, user_id: string, documents: readonly JobDocument[]): void {
  const started_at = new Date(ctx.now()).toISOString();
  ctx.announce(caseChannel, "workflow:started", { workflow_id: job, case_id: ctx.id, name, status: "running", started_at });
  const message: JobCall = { tell: "begin", case_id: ctx.id, name, user_id, documents };
  ctx.call(`job/${job}`, message);
}

/** What a job tells of a document. */
export function hear(ctx: RoomContext, message: CaseCall): void {
  switch (message.tell) {
    case "inner":
      return takeInner(ctx, message.job_id, message.document_id, message.files);
    case "processed":
      return takeProcessed(ctx, message);
    case "ended": {
      const { job_id: workflow_id, name, duration_ms } = message;
      const completed_at = new Date(ctx.now()).toISOString();
      ctx.announce(caseChannel, "workflow:completed", { workflow_id, case_id: ctx.id, name, status: "completed", completed_at, duration_ms });
    }
  }
}

/** What was found in a document is one itself; what the case has already is read no second time. */
function takeInner(ctx: RoomContext, job_id: string, document_id: string, files: readonly Inner[]): void {
  const outer = held(ctx, document_id)!.document;
  const more: JobDocument[] = [];
  for (const file of files) more.push(...takeOne(ctx, job_id, outer, file));
  const message: JobCall = { tell: "more", documents: more };
  ctx.call(`job/${job_id}`, message);
}

function takeOne(ctx: RoomContext, job: string, outer: DocumentShown, file: Inner): JobDocument[] {
  const known = twin(ctx, file.hash);
  const { tags, custodian, uploaded_by } = outer;
  const id = known ?? ctx.newId("doc");
  const from = file.kind === "member" ? { archive: { id: outer.id, filename: outer.filename ?? "" } } : {};
  const hang = () => {
    if (file.kind === "attachment" && id !== outer.id) attach(ctx, id, outer.id);
  };
  if (known === undefined) add(ctx, { ...describe(ctx, "", file), id, tags, custodian, uploaded_by, ...from }, file.hash, job, hang);
  else hang();
  return known === undefined ? [forJob(held(ctx, id)!)] : [];
}

function takeProcessed(ctx: RoomContext, { job_id, document_id, facts, results, trouble, inner = [] }: Extract<CaseCall, { tell: "processed" }>): void {
  const known = held(ctx, document_id)!;
  const status = trouble ? "failed" : "completed";
  put(ctx, { ...known.document, ...(facts && read(known.document, facts)), status, ...(results?.summary !== undefined && { summary: results.summary }) });
  if (facts) countIndexed(ctx, document_id);
  if (results) {
    const all = JSON.stringify({ ...JSON.parse(known.results ?? "{}"), ...results });
    ctx.sql`update case_document set results = ${all} where room = ${ctx.room} and id = ${document_id}`;
    if (results.privilege_analysis) suggest(ctx, document_id, results.privilege_analysis);
  }
  // In one turn: it is not to be had without it being known what is in it.
  if (inner.length > 0) takeInner(ctx, job_id, document_id, inner);
  ctx.announce(caseChannel, "document:processed", { document_id, status, results: results ?? {}, ...(trouble && { error: trouble.error }) });
  const message: JobCall = { tell: "done", document_id };
  ctx.call(`job/${job_id}`, message);
}

/** What was read in a document, in the fields of one; what its uploader said of it stands. */
function read(document: DocumentShown, facts: Facts): Partial<DocumentShown> {
  const { content_type, title, author, date, kind, pages, truncated, from, to, cc, bcc, subject, message_id } = facts;
  const metadata = { ...document.metadata, kind, pages, truncated, from, to, cc, bcc, subject, message_id };
  return { content_type, title: document.title ?? title ?? subject, author: author ?? from, date_created: date, metadata };
}

/** A document's text has come into the index. */
function countIndexed(ctx: RoomContext, id: string): void {
  const isNew = ctx.sql`update case_document set indexed = 1 where room = ${ctx.room} and id = ${id} and indexed = 0 returning id`.length > 0;
  if (isNew) ctx.sql`insert into case_index (room, documents) values (${ctx.room}, 1) on conflict (room) do update set documents = documents + 1`;
}

/** The index is derived: when it has fewer documents than were put there, it was lost, and is made again from the originals. */
export function checkIndex(ctx: RoomContext, indexed: number): void {
  const [row] = ctx.sql`select documents from case_index where room = ${ctx.room}`;
  if (!row || indexed >= Number(row.documents)) return;
  const ids = ctx.sql`select id from case_document where room = ${ctx.room} and indexed = 1 order by rowid`.map(({ id }) => String(id));
  ctx.sql`update case_document set indexed = 0 where room = ${ctx.room}`;
  ctx.sql`update case_index set documents = 0 where room = ${ctx.room}`;
  for (let at = 0; at < ids.length; at += REBUILT) {
    const some = ids.slice(at, at + REBUILT).map((id) => ({ id, known: held(ctx, id)! }));
    const labour: Labour = { do: "mark", case_id: ctx.id, changes: some.map(({ id, known }) => ({ id, revision: known.revision, visible: known.visible })) };
    ctx.work(labour);
    begin(ctx, ctx.newId("job"), "text_extraction", "", some.map(({ known }) => forJob(known)));
  }
}
