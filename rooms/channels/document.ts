/** The room `document/{documentId}`: one actor, and one order, for all that is said about a document. */
import type { z } from "zod";
import { documentChannel } from "../../protocol/channels/document.ts";
import type { User } from "../host.ts";
import { behave, type Context, room, type RoomContext } from "../room.ts";
import { RIGHTS } from "../token.ts";
import { add, ANNOTATIONS, annotationsOf, remove, update } from "./annotations.ts";
import { collaboration } from "./collaboration.ts";
import type { CaseQuestion, Labour, Registration } from "./messages.ts";
import { appear, shown, updatePresence } from "./online.ts";
import { admitToDocument, PATIENCE_MS, register, REGISTERED, registered } from "./registered.ts";

const CODING = "create table document_coding (room text not null primary key, body text not null) strict, without rowid";

type Coding = z.input<(typeof documentChannel)["events"]["document:coded"]["payload"]>["coding"];

function codingOf(ctx: RoomContext): Coding {
  const [row] = ctx.sql`select body from document_coding where room = ${ctx.room}`;
  return row ? JSON.parse(String(row.body)) : { responsive: null, hot: false, tags: [], version: 0 };
}

function code(ctx: Context<typeof documentChannel>, change: Partial<Coding>): Coding {
  ctx.require("code");
  const before = codingOf(ctx);
  const coding = { ...before, ...change, tags: [...new Set(change.tags ?? before.tags)], version: before.version + 1 };
  ctx.sql`insert into document_coding (room, body) values (${ctx.room}, ${JSON.stringify(coding)}) on conflict (room) do update set body = excluded.body`;
  const labour: Labour = { do: "mark", case_id: registered(ctx)!.case_id, changes: [{ id: ctx.id, coding: coding.version, coded: coding.tags }] };
  ctx.work(labour);
  ctx.broadcast("document:coded", { coding, user: { id: ctx.user.id, name: ctx.user.name } });
  return coding;
}

const document = behave(documentChannel, {
  admit: (ctx) => void admitToDocument(ctx, ctx.user),
  patienceMs: PATIENCE_MS,
  join(ctx, { capabilities }) {
    const { case_id, document, privilege } = admitToDocument(ctx, ctx.user);
    const here = ctx.present().map(shown);
    appear(ctx);
    for (const user of here) if (user.id !== ctx.user.id) ctx.push("user:viewing", { user });
    return {
      document_id: ctx.id,
      case_id,
      capabilities: capabilities ? ctx.grant(capabilities) : [...RIGHTS[ctx.user.role]],
      document,
      privilege,
      coding: codingOf(ctx),
      viewing: [...here.filter(({ id }) => id !== ctx.user.id), shown(ctx.user)],
      ...(ctx.recovered ? {} : annotationsOf(ctx)),
    };
  },
  arrive: (ctx) => ctx.broadcastFrom("user:viewing", { user: shown(ctx.user) }),
  on: {
    add_annotation: add,
    update_annotation: update,
    remove_annotation: (ctx, { annotation_id }) => remove(ctx, annotation_id),
    // The case decides: it owns the call, and knows who may see what because of it.
    update_privilege(ctx, decision) {
      ctx.require("privilege");
      const question: CaseQuestion = { ask: "decide", document_id: ctx.id, decision, by: { id: ctx.user.id, name: ctx.user.name } };
      return ctx.ask(`case/${registered(ctx)!.case_id}`, question, (ctx, answer: Registration) => {
        register(ctx, answer);
        return { privilege: answer.privilege! };
      });
    },
    code: (ctx, change) => ({ coding: code(ctx, change) }),
    "presence:update": updatePresence,
  },
});

export const documentRoom = room("document/{documentId}", {
  migrations: [...REGISTERED, ANNOTATIONS, CODING],
  topics: [document, collaboration],
  called: register,
  asked: (ctx, { user }: { user: User }) => ({ case_id: admitToDocument(ctx, user).case_id }),
});
