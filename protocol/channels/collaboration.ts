/** `collaboration:{documentId}`: where the others are looking in a document, as it happens. Nothing of it is kept. */
import { z } from "zod";
import { channel, Encrypted, passing } from "../contract.ts";
import { Activity, Id, Meta } from "./common.ts";

const Page = z.union([z.int(), z.string().max(64)]);
const Place = z.object({ x: z.number(), y: z.number(), page: Page.optional() });
/** `range` is the client's own: any JSON. */
const Selection = z.object({ text: z.string().max(10_000), range: z.unknown().optional() });

/** The sender, with what he said in the clear or encrypted. */
const from = <S extends z.ZodObject>(said: S) => z.union([z.object({ user_id: Id, ...said.shape }), z.object({ user_id: Id, encrypted: Encrypted })]);

export const collaborationChannel = channel({
  topic: "collaboration:{documentId}",
  join: {
    payload: z.object({}),
    reply: z.object({ document_id: Id }),
  },
  pushes: {
    "cursor:move": { payload: Place, encrypted: true, budget: "cursors" },
    "selection:share": { payload: Selection, encrypted: true, budget: "cursors" },
    "presence:update": { payload: Activity },
  },
  events: {
    "cursor:position": passing(from(Place), { per: "user" }),
    "selection:shared": passing(from(Selection), { per: "user" }),
  },
  presence: Meta,
});
