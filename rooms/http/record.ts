/** `GET /api/cases/:id/log?after=&limit=`: a case's record, page by page, as the asker may see it today. */
import { Hono } from "hono";
import { byteLength, isName } from "../../protocol/frame.ts";
import { Refusal } from "../../protocol/reason.ts";
import type { Gateway } from "../gateway.ts";
import type { Limits } from "../limits.ts";
import type { Registry } from "../registry.ts";
import type { Verify } from "../token.ts";
import { bearer, pathPart } from "./bearer.ts";

/** Entries of one page: unless said otherwise, and at most. */
const [DEFAULT, MOST] = [100, 1000];

/**
 * `{events: [{cursor, at, user, event, payload}], next}`, oldest first, after the cursor `after` (without it from the start).
 * `next` is what to ask for next, null at the end. A page can be empty and have a next one. Costs one of the user's requests.
 */
export function record(registry: Registry, gateway: Gateway, verify: Verify, limits: Limits): Hono {
  const app = new Hono();
  app.get("/api/cases/:id/log", async (c) => {
    const user = await bearer(c.req.header("authorization"), verify);
    gateway.spend(user, "requests");
    const id = pathPart(c.req.url, 3);
    const topic = `case:${id}`;
    if (!id || !isName(id) || byteLength(topic) > limits.topic_bytes) throw new Refusal("not_found");
    const limit = c.req.query("limit") ?? String(DEFAULT);
    if (!/^[1-9]\d{0,3}$/.test(limit) || Number(limit) > MOST) {
      throw new Refusal("invalid_payload", { message: `limit: it is no number from 1 to ${MOST}`, limit: MOST });
    }
    return c.json(await registry.read(topic, user, c.req.query("after") || null, Number(limit)));
  });
  return app;
}
