/** The documents of a case: what is known of each, and what of that somebody may see. */
import type { z } from "zod";
import { caseChannel, type Listed } from "../../protocol/channels/case.ts";
import { Refusal } from "../../protocol/reason.ts";
import { filename as plainName } from "../documents/formats/extracted.ts";
import type { User } from "../host.ts";
import type { RoomContext } from "../room.ts";
import type { DocumentShown, Filters, Kept } from "./messages.ts";
import { CASE_PRIVILEGE, changed, type Held, held, seesAll, shownTo } from "./privilege.ts";

export const CASE_DOCUMENTS = [
  `create table case_document (room text not null, id text not null, body text not null, primary key (room, id)) strict;
   create index case_document_room on case_document (room)`,
  ...CASE_PRIVILEGE,
];

/** How many documents, the newest first, a join is told of at once. */
const LISTED = 100;

/** JSON of the metadata of one document, in UTF-16 units. */
const METADATA_UNITS = 16_384;

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

export function put(ctx: RoomContext, document: DocumentShown, { hash, job }: { hash?: string; job?: string } = {}): void {
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
export function twin(ctx: RoomContext, hash: string): string | undefined {
  const row = ctx.sql`select id from case_document where room = ${ctx.room} and hash = ${hash} order by rowid limit 1`[0];
  return row && String(row.id);
}

/** A file as a document of the case, not read yet. */
export function describe(ctx: RoomContext, user: string, { filename, content_type, size, hash, metadata = {} }: Kept): DocumentShown {
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

/** Takes a document in, and tells of it. `attached`: says what it hangs on before that. */
export function add(ctx: RoomContext, document: DocumentShown, hash: string, job: string, attached: () => void = () => {}): void {
  put(ctx, document, { hash, job });
  attached();
  ctx.announce(caseChannel, "document:uploaded", { document: shownTo(ctx, document, true) });
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

/** Of the documents that a search found, those that the user may see now. */
export function found(
  ctx: RoomContext,
  user: User,
  ids: readonly string[],
): (Pick<DocumentShown, "id" | "title" | "filename" | "content_type" | "author" | "date_created"> & { kind?: unknown })[] {
  const rows = ctx.sql`select body from case_document where room = ${ctx.room} and visible >= ${seesAll(user.role) ? 0 : 1}
    and id in (select value from json_each(${JSON.stringify(ids)}))`;
  return rows.map(({ body }) => {
    const { id, title, filename, content_type, author, date_created, metadata }: DocumentShown = JSON.parse(String(body));
    return { id, title, filename, content_type, author, date_created, kind: metadata?.kind };
  });
}
