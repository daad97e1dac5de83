/** What all topics of a document's room share: to which case it belongs, and who may therefore be here. */
import { Refusal } from "../../protocol/reason.ts";
import type { Context, RoomContext } from "../room.ts";
import { mayEnter } from "../token.ts";

export const REGISTERED = "create table document_registered (room text not null primary key, case_id text not null) strict, without rowid";

/** What a case tells its document. */
export interface Registration {
  readonly case_id: string;
}

/** How long a join waits for a document that is not known yet, in milliseconds: its upload may be on its way. */
export const PATIENCE_MS = 1000;

function caseOf(ctx: RoomContext): string | undefined {
  return ctx.sql`select case_id from document_registered where room = ${ctx.room}`[0]?.case_id as string | undefined;
}

/** The first case that speaks of a document has it: no other case can open it to its own people. */
export function register(ctx: RoomContext, { case_id }: Registration): void {
  const known = caseOf(ctx);
  if (known === case_id) return;
  if (known !== undefined) throw new Refusal("duplicate", { message: "the document is another case's" });
  ctx.sql`insert into document_registered (room, case_id) values (${ctx.room}, ${case_id})`;
  ctx.admitAgain();
}

/** A document of a case that the token does not name looks like one that does not exist, down to what is written of it. */
export function admitToDocument(ctx: Context): void {
  const caseId = caseOf(ctx);
  if (caseId === undefined || !mayEnter(ctx.user, caseId)) throw new Refusal("not_found", {}, { ofAuthority: true });
}
