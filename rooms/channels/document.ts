/** The room `document/{documentId}`: one actor, and one order, for all that is said about a document. */
import { room } from "../room.ts";
import { collaboration } from "./collaboration.ts";
import { register, REGISTERED } from "./registered.ts";

export const documentRoom = room("document/{documentId}", {
  migrations: [REGISTERED],
  topics: [collaboration],
  called: register,
});
