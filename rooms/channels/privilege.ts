/** The case's side of privilege: its documents, what may be seen of them, the call on each and how it came about. Fails closed. */
import type { z } from "zod";
import { caseChannel, type Listed } from "../../protocol/channels/case.ts";
import { type Decision, type Privilege, type PrivilegeAnalysis, typeOf } from "../../protocol/channels/privilege.ts";
import { Refusal } from "../../protocol/reason.ts";
import type { Role } from "../host.ts";
import type { RoomContext } from "../room.ts";
import { RIGHTS } from "../token.ts";
import type { Registration } from "./registered.ts";

export const CASE_DOCUMENTS = [
  `create table case_document (room text not null, id text not null, body text not null, primary key (room, id)) strict;
   create index case_document_room on case_document (room)`,
  `alter table case_document add column revision integer not null default 0;
   alter table case_document add column visible integer not null default 0;
   alter table case_document add column released integer not null default 0;
   alter table case_document add column privilege text;
   create table case_privilege (room text not null, document text not null, version integer not null, body text not null,
     primary key (room, document, version)) strict, without rowid`,
];

/** How many documents, the newest first, a join is told of at once. */
const LISTED = 100;

/** Whether a role sees documents that are privileged, or of which nobody has said yet that they are not. */
export function seesAll(role: Role): boolean {
  return RIGHTS[role].includes("privilege");
}

/** The newest documents that the role may see. */
export function documentsOf(ctx: RoomContext, role: Role) {
  const rows = ctx.sql`select body from case_document where room = ${ctx.room} and visible >= ${seesAll(role) ? 0 : 1} order by rowid desc limit ${LISTED + 1}`;
  return { documents: rows.slice(0, LISTED).map(({ body }) => JSON.parse(String(body))), more_documents: rows.length > LISTED };
}

/** Whether a role may see an event of the case today. What tells of no document is for all. */
export function seesEvent(
  ctx: RoomContext,
  role: Role,
  event: string,
  payload: { document?: { id: string }; document_id?: string; released?: boolean },
): boolean {
  const id = payload.document?.id ?? payload.document_id;
  if (id === undefined) return true;
  if (event === "document:withdrawn") return !seesAll(role) && !visible(ctx, id);
  if (seesAll(role)) return payload.released !== true;
  // Told twice, it was first told when he could not see it.
  return visible(ctx, id) && (event !== "document:uploaded" || payload.released === true || !wasReleased(ctx, id));
}

function visible(ctx: RoomContext, id: string): boolean {
  return ctx.sql`select visible from case_document where room = ${ctx.room} and id = ${id}`[0]?.visible === 1;
}
function wasReleased(ctx: RoomContext, id: string): boolean {
  return ctx.sql`select released from case_document where room = ${ctx.room} and id = ${id}`[0]?.released === 1;
}

function stateOf(ctx: RoomContext, id: string): Registration | undefined {
  const row = ctx.sql`select body, revision, visible, privilege from case_document where room = ${ctx.room} and id = ${id}`[0];
  return row && {
    case_id: ctx.id,
    revision: Number(row.revision),
    visible: row.visible === 1,
    document: JSON.parse(String(row.body)),
    privilege: row.privilege === null ? null : JSON.parse(String(row.privilege)),
  };
}

/** Lists a document, or what has become of one that is listed, and tells its room. */
export function list(ctx: RoomContext, document: z.output<typeof Listed>): void {
  const known = stateOf(ctx, document.id);
  if (!known) ctx.sql`insert into case_document (room, id, body) values (${ctx.room}, ${document.id}, '')`;
  put(ctx, document.id, JSON.stringify(document), known?.privilege ?? null);
}

/** How far its processing is. */
export function progress(ctx: RoomContext, id: string, status: z.output<typeof Listed>["status"]): void {
  const known = stateOf(ctx, id);
  if (known) put(ctx, id, JSON.stringify({ ...known.document, status }), known.privilege);
}

/** What analysis says. It suggests once more until a person has decided. */
export function suggest(ctx: RoomContext, id: string, analysis: z.output<typeof PrivilegeAnalysis>): void {
  const known = stateOf(ctx, id);
  if (!known || (known.privilege && known.privilege.status !== "suggested")) return;
  const { is_privileged, confidence } = analysis;
  // Whichever of the two says so; a word that is not ours says that there is something.
  const word = analysis.privilege_type ?? "none";
  const privileged = is_privileged || typeOf(word) !== "none";
  const type = typeOf(word) ?? "confidential";
  const privilege: Privilege = {
    document_id: id,
    privilege_type: privileged && type === "none" ? "confidential" : type,
    is_privileged: privileged,
    confidence,
    status: "suggested",
    version: (known.privilege?.version ?? 0) + 1,
  };
  decideOn(ctx, id, privilege);
}

/** What a person says. Returns what the document's room is to know. Throws Refusal `not_found` or `version_conflict`. */
export function decide(ctx: RoomContext, id: string, { privilege_type, reason, version }: Decision, by: { id: string; name: string }): Registration {
  const known = stateOf(ctx, id);
  if (!known) throw new Refusal("not_found");
  const before = known.privilege;
  if (version !== undefined && version !== (before?.version ?? 0)) {
    throw new Refusal("version_conflict", { message: `version: the call has been changed since; it is at ${before?.version ?? 0}` });
  }
  const type = typeOf(privilege_type)!;
  decideOn(ctx, id, {
    document_id: id,
    privilege_type: type,
    is_privileged: type !== "none",
    confidence: before?.confidence,
    status: !before || before.privilege_type === type ? "confirmed" : "overridden",
    reason,
    reviewed_by: by,
    reviewed_at: new Date(ctx.now()).toISOString(),
    version: (before?.version ?? 0) + 1,
  });
  return stateOf(ctx, id)!;
}

function decideOn(ctx: RoomContext, id: string, privilege: Privilege): void {
  const body = JSON.stringify(privilege);
  ctx.sql`insert into case_privilege (room, document, version, body) values (${ctx.room}, ${id}, ${privilege.version}, ${body})`;
  put(ctx, id, JSON.stringify(stateOf(ctx, id)!.document), privilege);
}

/** Every change of a document goes through here: who may see it follows from what is known, and whoever is concerned is told. */
function put(ctx: RoomContext, id: string, body: string, privilege: Privilege | null): void {
  const before = visible(ctx, id);
  const after = privilege !== null && !privilege.is_privileged;
  ctx.sql`update case_document set body = ${body}, revision = revision + 1, visible = ${after ? 1 : 0}, released = max(released, ${after ? 1 : 0}),
    privilege = ${privilege && JSON.stringify(privilege)} where room = ${ctx.room} and id = ${id}`;
  if (after && !before) ctx.announce(caseChannel, "document:uploaded", { document: JSON.parse(body), released: true });
  if (before && !after) ctx.announce(caseChannel, "document:withdrawn", { document_id: id });
  ctx.call(`document/${id}`, stateOf(ctx, id)!);
}
