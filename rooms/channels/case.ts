/** What happens on `case:{caseId}`: who may enter, who is there, which documents there are. The rest is told by back ends. */
import { caseChannel, Listed } from "../../protocol/channels/case.ts";
import type { Decision } from "../../protocol/channels/privilege.ts";
import { Refusal } from "../../protocol/reason.ts";
import { behave, room, type RoomContext } from "../room.ts";
import { mayEnter, RIGHTS } from "../token.ts";
import { appear, shown, updatePresence } from "./online.ts";
import { CASE_DOCUMENTS, decide, documentsOf, list, progress, seesEvent, suggest } from "./privilege.ts";

/** A record of one case that speaks of another would mislead whoever reads it. */
function sameCase(ctx: RoomContext, caseId: unknown, field: string): void {
  if (caseId !== undefined && caseId !== ctx.id) throw new Refusal("invalid_payload", { message: `${field}: it is another case's` });
}

/** What a document's room asks of its case. */
export interface Decide {
  readonly document_id: string;
  readonly decision: Decision;
  readonly by: { readonly id: string; readonly name: string };
}

export const caseRoom = room("case/{caseId}", {
  migrations: CASE_DOCUMENTS,
  topics: [
    behave(caseChannel, {
      // The same answer whether the case exists or not.
      admit(ctx) {
        if (!mayEnter(ctx.user, ctx.id)) throw new Refusal("forbidden", { message: "the token does not name this case" });
      },
      sees: seesEvent,
      join(ctx) {
        appear(ctx);
        return { case_id: ctx.id, rights: [...RIGHTS[ctx.user.role]], ...(ctx.recovered ? {} : documentsOf(ctx, ctx.user.role)) };
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
        "document:uploaded"(ctx, { document, case_id, released }) {
          sameCase(ctx, document.case_id, "document.case_id");
          sameCase(ctx, case_id, "case_id");
          if (released) throw new Refusal("invalid_payload", { message: "released: that is for the case to say" });
          list(ctx, Listed.parse(document));
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
  asked: (ctx, { document_id, decision, by }: Decide) => decide(ctx, document_id, decision, by),
});
