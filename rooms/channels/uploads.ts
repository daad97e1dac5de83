/** How files come into a case: each once, by whoever may upload, at once or with a ticket. */
import type { z } from "zod";
import type { Metadata } from "../../protocol/channels/case.ts";
import { Refusal } from "../../protocol/reason.ts";
import type { User } from "../host.ts";
import type { RoomContext } from "../room.ts";
import { require } from "../token.ts";
import { add, describe, twin } from "./documents.ts";
import type { JobDocument, Kept, Uploaded, Workflow } from "./messages.ts";
import { held, isVisible, seesAll, shownTo } from "./privilege.ts";
import { begin } from "./workflows.ts";

export const CASE_UPLOADS = [
  `create table case_ticket (room text not null, ticket text not null, user text not null, file text not null, due integer not null,
     primary key (room, ticket)) strict, without rowid`,
];

/** How long an upload URL is good for, in milliseconds. */
const TICKET_MS = 3_600_000;
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
