/** The documents of a case: how they come in, what is known of each, and the jobs that read them. */
import type { z } from "zod";
import { caseChannel, type Listed, type Metadata } from "../../protocol/channels/case.ts";
import { Refusal } from "../../protocol/reason.ts";
import { filename as plainName } from "../documents/formats/extracted.ts";
import type { User } from "../host.ts";
import type { RoomContext } from "../room.ts";
import { require } from "../token.ts";
import type { CaseCall, DocumentShown, Facts, Filters, Inner, JobCall, JobDocument, Kept, Labour, Uploaded, Workflow } from "./messages.ts";
import { attach, CASE_PRIVILEGE, changed, type Held, held, isVisible, seesAll, shownTo, suggest } from "./privilege.ts";

export const CASE_DOCUMENTS = [
  `create table case_document (room text not null, id text not null, body text not null, primary key (room, id)) strict;
   create index case_document_room on case_document (room)`,
  ...CASE_PRIVILEGE,
  `alter table case_document add column indexed integer not null default 0;
   create table case_index (room text not null primary key, documents integer not null) strict, without rowid`,
  `create table case_ticket (room text not null, ticket text not null, user text not null, file text not null, due integer not null,
     primary key (room, ticket)) strict, without rowid`,
];

/** How many documents, the newest first, a join is told of at once. */
const LISTED = 100;
/** How long an upload URL is good for, in milliseconds. */
const TICKET_MS = 3_600_000;
/** JSON of the metadata of one document, in UTF-16 units. */
const METADATA_UNITS = 16_384;
/** Documents of one job that makes a lost index again. */
const REBUILT = 1000;

/** The newest documents that the user may see. */
export function newest(ctx: RoomContext, user: User) {
  const rows = ctx.sql`select body from case_document where room = ${ctx.room} and visible >= ${seesAll(user.role) ? 0 : 1} order by rowid desc limit ${
    LISTED + 1
  }`;
  return { documents: rows.slice(0, LISTED).map(({ body }) => listing(JSON.parse(String(body)))), more_documents: rows.length > LISTED };
}

function listing({ id, filename, title, content_type, status }: DocumentShown): z.input<typeof Listed> {
  return { id, filename, title, content_type, status };
}

/** The document, when the user may see it. Throws Refusal `not_found`, as for one that is not there. */
export function seen(ctx: RoomContext, user: User, id: string): Held {
  const known = held(ctx, id);
  if (!known || !(known.visible || seesAll(user.role))) throw new Refusal("not_found", {}, { ofAuthority: true });
  return known;
}

function put(ctx: RoomContext, document: DocumentShown, { hash, job }: { hash?: string; job?: string } = {}): void {
  const body = JSON.stringify(document);
  ctx.sql`insert into case_document (room, id, body, hash, job) values (${ctx.room}, ${document.id}, ${body}, ${hash ?? null}, ${job ?? null})
    on conflict (room, id) do update set body = excluded.body`;
  changed(ctx, document.id);
}

/** Lists a document that a back end tells of, or what has become of one. */
export function list(ctx: RoomContext, document: DocumentShown): void {
  const known = held(ctx, document.id);
  // What was uploaded here is known better.
  put(ctx, known?.hash === undefined ? document : { ...document, ...known.document });
}

/** How far the processing of a document is that a back end has told of. */
export function progress(ctx: RoomContext, id: string, status: DocumentShown["status"]): void {
  const known = held(ctx, id);
  if (known) put(ctx, { ...known.document, status });
}

/** One of a case's own, or undefined. */
function twin(ctx: RoomContext, hash: string): string | undefined {
  const row = ctx.sql`select id from case_document where room = ${ctx.room} and hash = ${hash} order by rowid limit 1`[0];
  return row && String(row.id);
}

function describe(ctx: RoomContext, user: string, { filename, content_type, size, hash, metadata = {} }: Kept): DocumentShown {
  const { tags = [], title, custodian, ...more } = metadata;
  if (JSON.stringify(metadata).length > METADATA_UNITS) throw new Refusal("payload_too_large", { limit: METADATA_UNITS, message: "metadata: it is too long" });
  const created_at = new Date(ctx.now()).toISOString();
  const described = {
    id: ctx.newId("doc"),
    case_id: ctx.id,
    filename: plainName(filename, "document"),
    content_type,
    size,
    hash: `sha256:${hash}`,
    created_at,
  };
  return { ...described, status: "pending", tags, title, custodian, metadata: more, uploaded_by: user };
}

/** Throws Refusal `not_found` when its content is elsewhere. */
export function forJob({ document, visible, hash }: Held): JobDocument {
  const { id, filename = "", content_type = "", tags = [], custodian = "" } = document;
  if (hash === undefined) throw new Refusal("not_found", { message: `${id}: its content is not kept here` });
  return { id, hash, filename, content_type, visible, own: false, tags, custodian };
}

/**
 * Takes files whose content is kept into the case, each once, and starts the job that reads them. Who may not see a
 * document is not told that the case has it already: he is answered as if it were new.
 */
export function register(ctx: RoomContext, user: User, files: readonly Kept[], name: Workflow): Uploaded {
  require(user, "upload");
  const [job, own]: [string, JobDocument[]] = [ctx.newId("job"), []];
  const here = new Set<string>();
  const documents = files.map((file) => {
    const known = twin(ctx, file.hash);
    if (known !== undefined && (here.has(known) || seesAll(user.role) || isVisible(ctx, known))) {
      return { ...shownTo(ctx, held(ctx, known)!.document, seesAll(user.role)), duplicate: true as const };
    }
    const document = describe(ctx, user.id, file);
    if (known === undefined) {
      add(ctx, document, file.hash, job);
      here.add(document.id);
    }
    const { id, filename = "", content_type = "" } = document;
    const forJob = { id, hash: file.hash, filename, content_type, visible: false, own: true, tags: document.tags ?? [], custodian: document.custodian ?? "" };
    own.push(known === undefined ? forJob : { ...forJob, phantom: true });
    return document;
  });
  begin(ctx, job, name, user.id, own);
  return { upload_id: ctx.newId("upload"), documents, processing_job_id: job };
}

function add(ctx: RoomContext, document: DocumentShown, hash: string, job: string): void {
  put(ctx, document, { hash, job });
  ctx.announce(caseChannel, "document:uploaded", { document: shownTo(ctx, document, true) });
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

function begin(ctx: RoomContext, job: string, name: Workflow, user_id: string, documents: readonly JobDocument[]): void {
  const started_at = new Date(ctx.now()).toISOString();
  ctx.announce(caseChannel, "workflow:started", { workflow_id: job, case_id: ctx.id, name, status: "running", started_at });
  const message: JobCall = { tell: "begin", case_id: ctx.id, name, user_id, documents };
  ctx.call(`job/${job}`, message);
}

/** What a job tells of a document. */
export function hear(ctx: RoomContext, message: CaseCall): void {
  switch (message.tell) {
    case "inner":
      return takeInner(ctx, message);
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
function takeInner(ctx: RoomContext, { job_id, document_id, files }: Extract<CaseCall, { tell: "inner" }>): void {
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
  if (known === undefined) {
    const document = { ...describe(ctx, "", file), id, tags, custodian, uploaded_by };
    put(ctx, document, { hash: file.hash, job });
  }
  if (file.kind === "attachment" && id !== outer.id) attach(ctx, id, outer.id);
  if (known !== undefined) return [];
  const own = held(ctx, id)!;
  ctx.announce(caseChannel, "document:uploaded", { document: shownTo(ctx, own.document, true) });
  return [forJob(own)];
}

function takeProcessed(ctx: RoomContext, { job_id, document_id, facts, results, trouble }: Extract<CaseCall, { tell: "processed" }>): void {
  const known = held(ctx, document_id)!;
  const status = trouble ? "failed" : "completed";
  put(ctx, { ...known.document, ...(facts && read(known.document, facts)), status, ...(results?.summary !== undefined && { summary: results.summary }) });
  if (facts) countIndexed(ctx, document_id);
  if (results) {
    const all = JSON.stringify({ ...JSON.parse(known.results ?? "{}"), ...results });
    ctx.sql`update case_document set results = ${all} where room = ${ctx.room} and id = ${document_id}`;
    if (results.privilege_analysis) suggest(ctx, document_id, results.privilege_analysis);
  }
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

/** A page of the documents that the user may see, oldest first. `next`: what to ask for next. */
export function page(ctx: RoomContext, user: User, after: string | null, limit: number, filters: Filters) {
  const all = seesAll(user.role);
  const from = after === null ? 0 : placeOf(ctx, user, after);
  const { status = null, content_type = null, tag = null, custodian = null } = filters;
  const rows = ctx.sql`select body from case_document where room = ${ctx.room} and rowid > ${from} and visible >= ${all ? 0 : 1}
    and (${status} is null or body ->> '$.status' = ${status}) and (${content_type} is null or body ->> '$.content_type' = ${content_type})
    and (${custodian} is null or body ->> '$.custodian' = ${custodian})
    and (${tag} is null or exists (select value from json_each(body, '$.tags') where value = ${tag})) order by rowid limit ${limit + 1}`;
  const documents = rows.slice(0, limit).map(({ body }) => shownTo(ctx, JSON.parse(String(body)), all));
  return { documents, next: rows.length > limit ? documents.at(-1)!.id : null };
}

function placeOf(ctx: RoomContext, user: User, id: string): number {
  const row = ctx.sql`select rowid as place, visible from case_document where room = ${ctx.room} and id = ${id}`[0];
  if (!row || !(row.visible === 1 || seesAll(user.role))) throw new Refusal("invalid_payload", { message: "after: it is no document of this case" });
  return Number(row.place);
}

/** Where the original is. Throws Refusal `not_found`, also when something inside it is not to be seen by the user. */
export function contentOf(ctx: RoomContext, user: User, id: string) {
  const { document, hash, doubtsBelow } = seen(ctx, user, id);
  const { filename = "document", content_type = "application/octet-stream", size = 0, metadata } = document;
  const isSealed = !seesAll(user.role) && (doubtsBelow > 0 || metadata?.kind === "archive");
  if (hash === undefined || isSealed) throw new Refusal("not_found", { message: "its content is not to be had" }, { ofAuthority: isSealed });
  return { hash, filename, content_type, size };
}

/** A one-time way to send the content of a file. */
export function issueTicket(ctx: RoomContext, user: User, file: { filename: string; content_type: string; metadata?: z.output<typeof Metadata> }) {
  require(user, "upload");
  ctx.sql`delete from case_ticket where room = ${ctx.room} and due < ${ctx.now()}`;
  const [ticket, due] = [ctx.newId("ticket"), ctx.now() + TICKET_MS];
  ctx.sql`insert into case_ticket (room, ticket, user, file, due) values (${ctx.room}, ${ticket}, ${user.id}, ${JSON.stringify(file)}, ${due})`;
  return { url: `/api/uploads/${encodeURIComponent(`${ctx.id}.${ticket}`)}`, method: "PUT" as const, expires_at: new Date(due).toISOString() };
}

/** What a ticket is for. Throws Refusal `not_found`: it is used, too old, or another user's. */
export function ticketOf(ctx: RoomContext, user: User, ticket: string): Omit<Kept, "size" | "hash"> {
  require(user, "upload");
  const row = ctx.sql`select file, user from case_ticket where room = ${ctx.room} and ticket = ${ticket} and due >= ${ctx.now()}`[0];
  if (!row || row.user !== user.id) {
    throw new Refusal("not_found", { message: "the ticket is used, too old, or somebody else's" }, { ofAuthority: row !== undefined });
  }
  return JSON.parse(String(row.file));
}

/** A ticket is good for one file. */
export function useTicket(ctx: RoomContext, user: User, ticket: string): void {
  ticketOf(ctx, user, ticket);
  ctx.sql`delete from case_ticket where room = ${ctx.room} and ticket = ${ticket}`;
}

/** Of the documents that a search found, those that the user may see now. */
export function found(
  ctx: RoomContext,
  user: User,
  ids: readonly string[],
  indexed: number,
): (Pick<DocumentShown, "id" | "title" | "filename" | "content_type" | "author" | "date_created"> & { kind?: unknown })[] {
  checkIndex(ctx, indexed);
  const rows = ctx.sql`select body from case_document where room = ${ctx.room} and visible >= ${seesAll(user.role) ? 0 : 1}
    and id in (select value from json_each(${JSON.stringify(ids)}))`;
  return rows.map(({ body }) => {
    const { id, title, filename, content_type, author, date_created, metadata }: DocumentShown = JSON.parse(String(body));
    return { id, title, filename, content_type, author, date_created, kind: metadata?.kind };
  });
}

/** A document's text has come into the index. */
function countIndexed(ctx: RoomContext, id: string): void {
  const isNew = ctx.sql`update case_document set indexed = 1 where room = ${ctx.room} and id = ${id} and indexed = 0 returning id`.length > 0;
  if (isNew) ctx.sql`insert into case_index (room, documents) values (${ctx.room}, 1) on conflict (room) do update set documents = documents + 1`;
}

/** The index is derived: when it has fewer documents than were put there, it was lost, and is made again from the originals. */
function checkIndex(ctx: RoomContext, indexed: number): void {
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
