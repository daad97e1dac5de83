/** What happens on `collaboration:{documentId}`: cursors and selections go to the others, and are forgotten. */
import { collaborationChannel } from "../../protocol/channels/collaboration.ts";
import { behave } from "../room.ts";
import { appear, updatePresence } from "./online.ts";
import { admitToDocument, PATIENCE_MS } from "./registered.ts";

export const collaboration = behave(collaborationChannel, {
  admit: (ctx) => void admitToDocument(ctx, ctx.user),
  patienceMs: PATIENCE_MS,
  join(ctx) {
    appear(ctx);
    return { document_id: ctx.id };
  },
  on: {
    "cursor:move": (ctx, place) => ctx.broadcastFrom("cursor:position", { user_id: ctx.user.id, ...place }),
    "selection:share": (ctx, selection) => ctx.broadcastFrom("selection:shared", { user_id: ctx.user.id, ...selection }),
    "presence:update": updatePresence,
  },
});
