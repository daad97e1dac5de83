/** What reviewers mark and say on one document. Each is its author's; a moderator may take it away. */
import type { z } from "zod";
import type { documentChannel } from "../../protocol/channels/document.ts";
import { Refusal } from "../../protocol/reason.ts";
import type { EventPayload, PushPayload } from "../../protocol/contract.ts";
import type { Context, RoomContext } from "../room.ts";
import { may } from "../token.ts";

export const ANNOTATIONS = `create table document_annotation (room text not null, id text not null, author text not null, body text not null,
   primary key (room, id)) strict;
   create index document_annotation_room on document_annotation (room)`;

type Contract = typeof documentChannel;
type Ctx = Context<Contract>;
/** As everybody hears it. */
export type Shown = EventPayload<Contract, "annotation:added">;

/** How many of them, the newest, a join is told of at once, and how many bytes of JSON. */
const SHOWN = 500;
const SHOWN_UNITS = 1_000_000;
/** So many may stand on one document. */
const MOST = 10_000;

/** The newest, oldest first. */
export function annotationsOf(ctx: RoomContext): { annotations: Shown[]; more_annotations: boolean } {
  const rows = ctx.sql`select body from document_annotation where room = ${ctx.room} order by rowid desc limit ${SHOWN + 1}`;
  let units = 0;
  const shown = rows.slice(0, SHOWN).map(({ body }) => String(body)).filter((body) => (units += body.length) <= SHOWN_UNITS);
  return { annotations: shown.reverse().map((body) => JSON.parse(body)), more_annotations: shown.length < rows.length };
}

function find(ctx: Ctx, id: string): { author: string; shown: Shown } {
  const [row] = ctx.sql`select author, body from document_annotation where room = ${ctx.room} and id = ${id}`;
  if (!row) throw new Refusal("not_found", { message: "annotation_id: there is no such annotation" });
  return { author: String(row.author), shown: JSON.parse(String(row.body)) };
}

const nameOf = ({ user: { id, name } }: Ctx) => ({ id, name });

export function add(ctx: Ctx, said: PushPayload<Contract, "add_annotation">): Shown {
  ctx.require("annotate");
  const [{ count }] = ctx.sql`select count(*) as count from document_annotation where room = ${ctx.room}`;
  if (Number(count) >= MOST) throw new Refusal("document_full", { message: "the document has as many annotations as it may have", limit: MOST });
  const made = { id: ctx.newId("annotation"), document_id: ctx.id, user: nameOf(ctx), created_at: new Date(ctx.now()).toISOString(), version: 1 };
  if (!("encrypted" in said) && said.reply_to !== undefined) find(ctx, said.reply_to);
  const shown: Shown = "encrypted" in said ? { annotation: made, encrypted: said.encrypted } : { annotation: { ...made, ...said } };
  ctx.sql`insert into document_annotation (room, id, author, body) values (${ctx.room}, ${made.id}, ${ctx.user.id}, ${JSON.stringify(shown)})`;
  ctx.broadcast("annotation:added", shown);
  return shown;
}

export function update(ctx: Ctx, { annotation_id, version, ...change }: z.output<Contract["pushes"]["update_annotation"]["payload"]>): Shown {
  ctx.require("annotate");
  const { author, shown } = find(ctx, annotation_id);
  if (author !== ctx.user.id) throw new Refusal("forbidden", { message: "the annotation is somebody else's" });
  if ("encrypted" in shown) throw new Refusal("invalid_payload", { message: "an encrypted annotation cannot be changed: remove it, and add another" });
  const { annotation } = shown;
  if (version !== annotation.version) throw new Refusal("version_conflict", { message: `version: the annotation is at ${annotation.version}` });
  const next: Shown = { annotation: { ...annotation, ...change, updated_at: new Date(ctx.now()).toISOString(), version: version + 1 } };
  ctx.sql`update document_annotation set body = ${JSON.stringify(next)} where room = ${ctx.room} and id = ${annotation_id}`;
  ctx.broadcast("annotation:updated", next);
  return next;
}

export function remove(ctx: Ctx, id: string): void {
  const { author } = find(ctx, id);
  if (author === ctx.user.id) ctx.require("annotate");
  else if (!may(ctx.user, "moderate")) throw new Refusal("forbidden", { message: "the annotation is somebody else's" });
  else ctx.require("moderate");
  ctx.sql`delete from document_annotation where room = ${ctx.room} and id = ${id}`;
  ctx.broadcast("annotation:removed", { annotation_id: id, user: nameOf(ctx) });
}
