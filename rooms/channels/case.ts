/** What happens on `case:{caseId}`: who may enter, who is there, which documents there are, and what becomes of them. */
import { caseChannel, type Metadata } from "../../protocol/channels/case.ts";
import type { z } from "zod";
import { Refusal } from "../../protocol/reason.ts";
import type { User } from "../host.ts";
import { behave, type Context, Later, room, type RoomContext } from "../room.ts";
import { mayEnter, require, RIGHTS } from "../token.ts";
import { CASE_DOCUMENTS, contentOf, found, list, newest, page, progress, seen } from "./documents.ts";
import type { CaseCall, CaseQuestion, Labour } from "./messages.ts";
import { appear, shown, updatePresence } from "./online.ts";
import { decide, seesAll, seesEvent, shownTo, suggest } from "./privilege.ts";
import { privilegeLog } from "./privilege_log.ts";
import { CASE_UPLOADS, issueTicket, register, ticketOf, useTicket } from "./uploads.ts";
import { CASE_INDEX, checkIndex, forJob, hear, keepSummary, run, summarizeLater } from "./workflows.ts";

/** A record of one case that speaks of another would mislead whoever reads it. */
function sameCase(ctx: RoomContext, caseId: unknown, field: string): void {
  if (caseId !== undefined && caseId !== ctx.id) throw new Refusal("invalid_payload", { message: `${field}: it is another case's` });
}

/** The same answer whether the case exists or not. */
function enter(ctx: RoomContext, user: User): void {
  if (!mayEnter(user, ctx.id)) throw new Refusal("forbidden", { message: "the token does not name this case" });
}

type Added = { file: { name?: string; type?: string; content_base64?: string }; metadata?: z.output<typeof Metadata> };

/** With its content, a document is taken in at once; otherwise its sender is told where to send that. */
function addDocument(ctx: Context<typeof caseChannel>, { file, metadata }: Added) {
  ctx.require("upload");
  const { content_base64 } = file;
  const described = { filename: file.name ?? "", content_type: file.type || "application/octet-stream", metadata };
  if (content_base64 === undefined) return { upload: issueTicket(ctx, ctx.user, described) };
  const labour: Labour = { do: "keep", content_base64 };
  type Content = { hash: string; size: number };
  return new Later((signal, outside) => outside.work<Content>(labour, signal), (ctx: Context<typeof caseChannel>, content: Content) => {
    const { documents: [{ duplicate, ...document }], processing_job_id } = register(ctx, ctx.user, [{ ...described, ...content }], "processing");
    return { document, duplicate, processing_job_id };
  });
}

/** The summary that there is, or one that can be had at once; otherwise it comes with `document:processed`. */
function summarize(ctx: Context<typeof caseChannel>, document_id: string) {
  const known = seen(ctx, ctx.user, document_id);
  const { summary, status } = known.document;
  const done = (summary: string) => ({ document_id, status: "completed" as const, summary });
  const pending = { document_id, status: "pending" as const };
  if (summary !== undefined) return done(summary);
  if (status === "failed") return { document_id, status };
  if (status !== "completed" || known.hash === undefined) return pending;
  const labour: Labour = { do: "summarize", case_id: ctx.id, document: forJob(known) };
  return new Later(
    (signal, outside) => outside.work<{ summary?: string }>(labour, signal),
    (ctx: Context<typeof caseChannel>, { summary }: { summary?: string }) => {
      // It may have been hidden from him since.
      seen(ctx, ctx.user, document_id);
      if (summary === undefined) summarizeLater(ctx, document_id);
      else keepSummary(ctx, document_id, summary);
      return summary === undefined ? pending : done(summary);
    },
  );
}

function answer(ctx: RoomContext, question: CaseQuestion): unknown {
  if (question.ask === "decide") return decide(ctx, question.document_id, question.decision, question.by);
  const { user } = question;
  enter(ctx, user);
  switch (question.ask) {
    case "upload":
      return require(user, "upload");
    case "ticket":
      return ticketOf(ctx, user, question.ticket);
    case "register":
      if (question.ticket !== undefined) useTicket(ctx, user, question.ticket);
      return register(ctx, user, question.files, question.workflow);
    case "documents":
      return page(ctx, user, question.after, question.limit, question.filters);
    case "document": {
      const { document, privilege, results } = seen(ctx, user, question.document_id);
      return { document: shownTo(ctx, document, seesAll(user.role)), privilege, results: results === null ? null : JSON.parse(results) };
    }
    case "content":
      return contentOf(ctx, user, question.document_id);
    case "workflow":
      return run(ctx, user, question.name, question.document_ids);
    case "search":
      ctx.record(caseChannel, "searched", { search_id: question.search_id, query: question.query, filters: question.filters });
      return {};
    case "found":
      checkIndex(ctx, question.indexed);
      return found(ctx, user, question.ids);
    case "privilege_log":
      return privilegeLog(ctx, user, question.after, question.limit);
  }
}

export const caseRoom = room("case/{caseId}", {
  migrations: [...CASE_DOCUMENTS, ...CASE_INDEX, ...CASE_UPLOADS],
  topics: [
    behave(caseChannel, {
      admit: (ctx) => enter(ctx, ctx.user),
      sees: seesEvent,
      join(ctx) {
        appear(ctx);
        return { case_id: ctx.id, rights: [...RIGHTS[ctx.user.role]], ...(ctx.recovered ? {} : newest(ctx, ctx.user)) };
      },
      arrive(ctx) {
        ctx.broadcastFrom("user:joined", { user: shown(ctx.user) });
      },
      depart(ctx) {
        ctx.broadcastFrom("user:left", { user: shown(ctx.user) });
      },
      on: {
        "add:document": addDocument,
        start_workflow(ctx, { name, document_ids }) {
          const job = run(ctx, ctx.user, name, document_ids);
          return { workflow_id: job, processing_job_id: job };
        },
        "request:summary": (ctx, { document_id }) => summarize(ctx, document_id),
        "presence:update": updatePresence,
      },
      published: {
        "document:uploaded"(ctx, { document, case_id, released }) {
          sameCase(ctx, document.case_id, "document.case_id");
          sameCase(ctx, case_id, "case_id");
          if (released) throw new Refusal("invalid_payload", { message: "released: that is for the case to say" });
          list(ctx, document);
        },
        "document:processed"(ctx, { document_id, status, results, case_id }) {
          sameCase(ctx, case_id, "case_id");
          progress(ctx, document_id, status);
          if (status === "completed" && results?.privilege_analysis) suggest(ctx, document_id, results.privilege_analysis);
        },
        "workflow:started": (ctx, { case_id }) => sameCase(ctx, case_id, "case_id"),
        "workflow:completed": (ctx, { case_id }) => sameCase(ctx, case_id, "case_id"),
      },
    }),
  ],
  asked: answer,
  called: (ctx, message: CaseCall) => hear(ctx, message),
});
