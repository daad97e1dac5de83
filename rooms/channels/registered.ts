/** What all topics of a document's room share: whose it is, who may see it, and the case's call on its privilege. */
import { documentChannel } from "../../protocol/channels/document.ts";
import { Refusal } from "../../protocol/reason.ts";
import type { User } from "../host.ts";
import type { RoomContext } from "../room.ts";
import { may, mayEnter } from "../token.ts";
import type { Registration } from "./messages.ts";

export const REGISTERED = [
  "create table document_registered (room text not null primary key, case_id text not null) strict, without rowid",
  `alter table document_registered add column revision integer not null default 0;
   alter table document_registered add column visible integer not null default 0;
   alter table document_registered add column document text;
   alter table document_registered add column privilege text`,
];

/** How long a join waits for a document that is not known yet, in milliseconds: its upload may be on its way. */
export const PATIENCE_MS = 1000;

/** Undefined when no case has spoken of it. */
export function registered(ctx: RoomContext): Registration | undefined {
  const row = ctx.sql`select case_id, revision, visible, document, privilege from document_registered where room = ${ctx.room}`[0];
  if (!row) return undefined;
  const read = (json: unknown) => json === null ? null : JSON.parse(String(json));
  const { case_id, revision, visible } = row;
  return {
    case_id: String(case_id),
    revision: Number(revision),
    visible: visible === 1,
    document: read(row.document) ?? { id: ctx.id },
    privilege: read(row.privilege),
  };
}

/** The first case that speaks of a document has it: no other case can open it to its own people. */
export function register(ctx: RoomContext, told: Registration): void {
  const known = registered(ctx);
  if (known && known.case_id !== told.case_id) throw new Refusal("duplicate", { message: "the document is another case's" });
  // It was told in another way already.
  if (known && known.revision >= told.revision) return;
  const { case_id, revision, visible, document, privilege } = told;
  const [listing, call] = [JSON.stringify(document), privilege && JSON.stringify(privilege)];
  ctx.sql`insert into document_registered (room, case_id, revision, visible, document, privilege)
    values (${ctx.room}, ${case_id}, ${revision}, ${visible ? 1 : 0}, ${listing}, ${call})
    on conflict (room) do update set revision = excluded.revision, visible = excluded.visible, document = excluded.document, privilege = excluded.privilege`;
  if (!known || (visible && !known.visible)) ctx.admitAgain();
  if (known?.visible && !visible) ctx.readmit();
  if (privilege && privilege.version !== (known?.privilege?.version ?? 0)) ctx.announce(documentChannel, "privilege:updated", { privilege });
}

/** A document that one may not see looks like one that does not exist, down to what is written of it. */
export function admitToDocument(ctx: RoomContext, user: User): Registration {
  const known = registered(ctx);
  const sees = known && mayEnter(user, known.case_id) && (known.visible || may(user, "privilege"));
  if (!sees) throw new Refusal("not_found", {}, { ofAuthority: true });
  return known;
}
