/** What happens on `case:{caseId}`: who may enter, who is there. The rest of a case is told by its back ends. */
import { caseChannel } from "../../protocol/channels/case.ts";
import { Refusal } from "../../protocol/reason.ts";
import type { User } from "../host.ts";
import { behave, room, type RoomContext } from "../room.ts";
import { mayEnter, RIGHTS } from "../token.ts";

/** A record of one case that speaks of another would mislead whoever reads it. */
function sameCase(ctx: RoomContext, caseId: string | undefined, field: string): void {
  if (caseId !== undefined && caseId !== ctx.id) throw new Refusal("invalid_payload", { message: `${field}: it is another case's` });
}

const shown = ({ id, name, role }: User) => ({ id, name, role });

export const caseRoom = room("case/{caseId}", {
  migrations: [],
  topics: [
    behave(caseChannel, {
      // The same answer whether the case exists or not.
      admit(ctx) {
        if (!mayEnter(ctx.user, ctx.id)) throw new Refusal("forbidden", { message: "the token does not name this case" });
      },
      join(ctx) {
        const online_at = new Date(ctx.now()).toISOString();
        ctx.presence.track({ name: ctx.user.name, status: "online", activity: "", location: "", online_at });
        return { case_id: ctx.id, cursor: ctx.cursor(), rights: [...RIGHTS[ctx.user.role]] };
      },
      arrive(ctx) {
        ctx.broadcastFrom("user:joined", { user: shown(ctx.user) });
      },
      depart(ctx) {
        ctx.broadcastFrom("user:left", { user: shown(ctx.user) });
      },
      on: {
        "presence:update"(ctx, change) {
          if (Object.keys(change).length > 0) ctx.presence.update(change);
        },
      },
      published: {
        "document:uploaded": (ctx, { document }) => sameCase(ctx, document.case_id, "document.case_id"),
        "workflow:started": (ctx, { case_id }) => sameCase(ctx, case_id, "case_id"),
        "workflow:completed": (ctx, { case_id }) => sameCase(ctx, case_id, "case_id"),
      },
    }),
  ],
});
