/** What happens on `case:{caseId}`: who may enter, who is there, which documents there are. The rest is told by back ends. */
import type { z } from "zod";
import { caseChannel, type Document, Listed } from "../../protocol/channels/case.ts";
import { Refusal } from "../../protocol/reason.ts";
import type { User } from "../host.ts";
import { behave, room, type RoomContext } from "../room.ts";
import { mayEnter, RIGHTS } from "../token.ts";
import { appear, updatePresence } from "./online.ts";
import type { Registration } from "./registered.ts";

/** A record of one case that speaks of another would mislead whoever reads it. */
function sameCase(ctx: RoomContext, caseId: unknown, field: string): void {
  if (caseId !== undefined && caseId !== ctx.id) throw new Refusal("invalid_payload", { message: `${field}: it is another case's` });
}

const shown = ({ id, name, role }: User) => ({ id, name, role });

/** How many documents, the newest first, a join is told of at once. */
const LISTED = 100;

function documents(ctx: RoomContext) {
  const rows = ctx.sql`select body from case_document where room = ${ctx.room} order by rowid desc limit ${LISTED + 1}`;
  return { documents: rows.slice(0, LISTED).map(({ body }) => JSON.parse(String(body))), more_documents: rows.length > LISTED };
}

/** Lists the document, and tells its room whose it is. */
function uploaded(ctx: RoomContext, document: z.input<typeof Document>): void {
  const body = JSON.stringify(Listed.parse(document));
  const [known] = ctx.sql`select id from case_document where room = ${ctx.room} and id = ${document.id}`;
  if (known) return void ctx.sql`update case_document set body = ${body} where room = ${ctx.room} and id = ${document.id}`;
  ctx.sql`insert into case_document (room, id, body) values (${ctx.room}, ${document.id}, ${body})`;
  const registration: Registration = { case_id: ctx.id };
  ctx.call(`document/${document.id}`, registration);
}

export const caseRoom = room("case/{caseId}", {
  migrations: [
    `create table case_document (room text not null, id text not null, body text not null, primary key (room, id)) strict;
     create index case_document_room on case_document (room)`,
  ],
  topics: [
    behave(caseChannel, {
      // The same answer whether the case exists or not.
      admit(ctx) {
        if (!mayEnter(ctx.user, ctx.id)) throw new Refusal("forbidden", { message: "the token does not name this case" });
      },
      join(ctx) {
        appear(ctx);
        return { case_id: ctx.id, rights: [...RIGHTS[ctx.user.role]], ...(ctx.recovered ? {} : documents(ctx)) };
      },
      arrive(ctx) {
        ctx.broadcastFrom("user:joined", { user: shown(ctx.user) });
      },
      depart(ctx) {
        ctx.broadcastFrom("user:left", { user: shown(ctx.user) });
      },
      on: {
        "presence:update": updatePresence,
      },
      published: {
        "document:uploaded"(ctx, { document, case_id }) {
          sameCase(ctx, document.case_id, "document.case_id");
          sameCase(ctx, case_id, "case_id");
          uploaded(ctx, document);
        },
        "document:processed"(ctx, { document_id, status, case_id }) {
          sameCase(ctx, case_id, "case_id");
          ctx.sql`update case_document set body = json_set(body, '$.status', ${status}) where room = ${ctx.room} and id = ${document_id}`;
        },
        "workflow:started": (ctx, { case_id }) => sameCase(ctx, case_id, "case_id"),
        "workflow:completed": (ctx, { case_id }) => sameCase(ctx, case_id, "case_id"),
      },
    }),
  ],
});
