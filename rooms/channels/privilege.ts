/** The case's side of privilege: what may be seen of its documents, the call on each and how it came about. Fails closed. */
import type { z } from "zod";
import { caseChannel } from "../../protocol/channels/case.ts";
import { type Decision, type Privilege, type PrivilegeAnalysis, typeOf } from "../../protocol/channels/privilege.ts";
import { Refusal } from "../../protocol/reason.ts";
import type { Role } from "../host.ts";
import type { RoomContext } from "../room.ts";
import { RIGHTS } from "../token.ts";
import type { DocumentShown, JobCall, Labour, Registration } from "./messages.ts";

export const CASE_PRIVILEGE = [
  `alter table case_document add column revision integer not null default 0;
   alter table case_document add column visible integer not null default 0;
   alter table case_document add column released integer not null default 0;
   alter table case_document add column privilege text;
   create table case_privilege (room text not null, document text not null, version integer not null, body text not null,
     primary key (room, document, version)) strict, without rowid`,
  `alter table case_document add column hash text;
   alter table case_document add column job text;
   alter table case_document add column results text;
   alter table case_document add column cleared integer not null default 0;
   alter table case_document add column decided integer not null default 0;
   alter table case_document add column doubts_above integer not null default 0;
   alter table case_document add column doubts_below integer not null default 0;
   update case_document set cleared = visible, decided = coalesce(privilege ->> '$.status' <> 'suggested', 0);
   create index case_document_hash on case_document (room, hash);
   create table case_family (room text not null, child text not null, parent text not null, primary key (room, child, parent)) strict, without rowid;
   create index case_family_parent on case_family (room, parent)`,
];

/** Whether a role sees documents that are privileged, or of which nobody has said yet that they are not. */
export function seesAll(role: Role): boolean {
  return RIGHTS[role].includes("privilege");
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
  if (event === "document:withdrawn") return !seesAll(role) && !isVisible(ctx, id);
  if (seesAll(role)) return payload.released !== true;
  // Told twice, it was first told when he could not see it.
  return isVisible(ctx, id) && (event !== "document:uploaded" || payload.released === true || !wasReleased(ctx, id));
}

export function isVisible(ctx: RoomContext, id: string): boolean {
  return ctx.sql`select visible from case_document where room = ${ctx.room} and id = ${id}`[0]?.visible === 1;
}
function wasReleased(ctx: RoomContext, id: string): boolean {
  return ctx.sql`select released from case_document where room = ${ctx.room} and id = ${id}`[0]?.released === 1;
}

/** What a case knows of a document. */
export interface Held {
  readonly document: DocumentShown;
  readonly privilege: Privilege | null;
  /** JSON text. */
  readonly results: string | null;
  /** Undefined when its content is elsewhere. */
  readonly hash: string | undefined;
  readonly job: string | undefined;
  readonly revision: number;
  readonly visible: boolean;
  readonly cleared: boolean;
  readonly doubtsBelow: number;
}

export function held(ctx: RoomContext, id: string): Held | undefined {
  const row = ctx.sql`select body, privilege, results, hash, job, revision, visible, cleared, doubts_below from case_document
    where room = ${ctx.room} and id = ${id}`[0];
  return row && {
    document: JSON.parse(String(row.body)),
    privilege: row.privilege === null ? null : JSON.parse(String(row.privilege)),
    results: row.results === null ? null : String(row.results),
    hash: row.hash === null ? undefined : String(row.hash),
    job: row.job === null ? undefined : String(row.job),
    revision: Number(row.revision),
    visible: row.visible === 1,
    cleared: row.cleared === 1,
    doubtsBelow: Number(row.doubts_below),
  };
}

function registrationOf(ctx: RoomContext, id: string): Registration {
  const { document, privilege, revision, visible } = held(ctx, id)!;
  const { filename, title, content_type, status } = document;
  return { case_id: ctx.id, revision, visible, document: { id, filename, title, content_type, status }, privilege };
}

/** What analysis says. It suggests once more until a person has decided. */
export function suggest(ctx: RoomContext, id: string, analysis: z.output<typeof PrivilegeAnalysis>): void {
  const known = held(ctx, id);
  if (!known || (known.privilege && known.privilege.status !== "suggested")) return;
  const { is_privileged, confidence } = analysis;
  // Whichever of the two says so; a word that is not ours says that there is something.
  const word = analysis.privilege_type ?? "none";
  const privileged = is_privileged || typeOf(word) !== "none";
  const type = typeOf(word) ?? "confidential";
  call(ctx, id, {
    document_id: id,
    privilege_type: privileged && type === "none" ? "confidential" : type,
    is_privileged: privileged,
    confidence,
    status: "suggested",
    version: (known.privilege?.version ?? 0) + 1,
  });
}

/** What a person says. Returns what the document's room is to know. Throws Refusal `not_found` or `version_conflict`. */
export function decide(ctx: RoomContext, id: string, { privilege_type, reason, version }: Decision, by: { id: string; name: string }): Registration {
  const known = held(ctx, id);
  if (!known) throw new Refusal("not_found");
  const before = known.privilege;
  if (version !== undefined && version !== (before?.version ?? 0)) {
    throw new Refusal("version_conflict", { message: `version: the call has been changed since; it is at ${before?.version ?? 0}` });
  }
  const type = typeOf(privilege_type)!;
  const privilege: Privilege = {
    document_id: id,
    privilege_type: type,
    is_privileged: type !== "none",
    status: (suggestionFor(ctx, id)?.privilege_type ?? type) === type ? "confirmed" : "overridden",
    reason,
    reviewed_by: by,
    reviewed_at: new Date(ctx.now()).toISOString(),
    version: (before?.version ?? 0) + 1,
  };
  call(ctx, id, privilege);
  ctx.record(caseChannel, "privilege:decided", { document_id: id, privilege });
  return registrationOf(ctx, id);
}

/** What analysis said last. */
function suggestionFor(ctx: RoomContext, id: string): Privilege | undefined {
  const row = ctx.sql`select body from case_privilege where room = ${ctx.room} and document = ${id} and body ->> '$.status' = 'suggested'
    order by version desc limit 1`[0];
  return row && JSON.parse(String(row.body));
}

/** A new call on a document: whoever may see it, or what hangs together with it, follows from that. */
function call(ctx: RoomContext, id: string, privilege: Privilege): void {
  const [body, cleared] = [JSON.stringify(privilege), privilege.is_privileged ? 0 : 1];
  const before = held(ctx, id)!.cleared;
  ctx.sql`insert into case_privilege (room, document, version, body) values (${ctx.room}, ${id}, ${privilege.version}, ${body})`;
  ctx.sql`update case_document set privilege = ${body}, cleared = ${cleared}, decided = ${privilege.status === "suggested" ? 0 : 1}
    where room = ${ctx.room} and id = ${id}`;
  if (before !== (cleared === 1)) {
    const change = cleared === 1 ? -1 : 1;
    ctx.sql`update case_document set doubts_above = doubts_above + ${change} where room = ${ctx.room} and id in
      (select child from case_family where room = ${ctx.room} and parent = ${id})`;
    ctx.sql`update case_document set doubts_below = doubts_below + ${change} where room = ${ctx.room} and id in
      (select parent from case_family where room = ${ctx.room} and child = ${id})`;
  }
  if (!settle(ctx, id)) changed(ctx, id);
}

/**
 * A document is attached to another one, and inherits: as long as no person has decided on it, it is seen only with all that
 * it is attached to. Each counts those above and below it of which it is not known that they may be seen; whoever may not
 * see all of what is below has not its original either, which holds it.
 */
export function attach(ctx: RoomContext, child: string, parent: string): void {
  const [above, below] = [[parent, ...relatives(ctx, parent).parents], [child, ...relatives(ctx, child).children]];
  for (const lower of below) {
    for (const upper of above) {
      const isNew = lower !== upper && ctx.sql`insert into case_family (room, child, parent) values (${ctx.room}, ${lower}, ${upper})
        on conflict do nothing returning child`.length > 0;
      if (!isNew) continue;
      if (!held(ctx, upper)!.cleared) ctx.sql`update case_document set doubts_above = doubts_above + 1 where room = ${ctx.room} and id = ${lower}`;
      if (!held(ctx, lower)!.cleared) ctx.sql`update case_document set doubts_below = doubts_below + 1 where room = ${ctx.room} and id = ${upper}`;
    }
  }
  settle(ctx, child);
}

/** What a document is attached to, and what is attached to it, however deep. */
export function relatives(ctx: RoomContext, id: string): { parents: string[]; children: string[] } {
  const parents = ctx.sql`select parent from case_family where room = ${ctx.room} and child = ${id}`.map(({ parent }) => String(parent));
  const children = ctx.sql`select child from case_family where room = ${ctx.room} and parent = ${id}`.map(({ child }) => String(child));
  return { parents, children };
}

/** Who may see a document and what is attached to it, once something about it has changed. Returns whether that is new for itself. */
function settle(ctx: RoomContext, id: string): boolean {
  const rows = ctx.sql`select id, visible from case_document where room = ${ctx.room}
    and visible <> (cleared and (decided or doubts_above = 0))
    and (id = ${id} or id in (select child from case_family where room = ${ctx.room} and parent = ${id}))`;
  for (const row of rows) show(ctx, String(row.id), row.visible !== 1);
  return rows.some((row) => row.id === id);
}

function show(ctx: RoomContext, id: string, visible: boolean): void {
  const is = visible ? 1 : 0;
  ctx.sql`update case_document set visible = ${is}, released = max(released, ${is}) where room = ${ctx.room} and id = ${id}`;
  const { document, hash, job, revision } = held(ctx, id)!;
  if (visible) ctx.announce(caseChannel, "document:uploaded", { document: shownTo(ctx, document, false), released: true });
  else ctx.announce(caseChannel, "document:withdrawn", { document_id: id });
  changed(ctx, id);
  if (hash === undefined) return;
  const labour: Labour = { do: "mark", case_id: ctx.id, changes: [{ id, revision: revision + 1, visible }] };
  ctx.work(labour);
  const message: JobCall = { tell: "visible", document_id: id, visible };
  if (job !== undefined) ctx.call(`job/${job}`, message);
}

/** Something of a document has changed: its room is told. */
export function changed(ctx: RoomContext, id: string): void {
  ctx.sql`update case_document set revision = revision + 1 where room = ${ctx.room} and id = ${id}`;
  ctx.call(`document/${id}`, registrationOf(ctx, id));
}

/** A document as somebody may see it: of what it is attached to, he hears what he may see. */
export function shownTo(ctx: RoomContext, { archive, ...document }: DocumentShown, all: boolean): DocumentShown {
  if (all && archive) document.archive = archive;
  const parents = relatives(ctx, document.id).parents.filter((id) => all || isVisible(ctx, id));
  return parents.length > 0 ? { ...document, parent_ids: parents } : document;
}
