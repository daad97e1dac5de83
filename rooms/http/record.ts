/** `GET /api/cases/:id/log?after=&limit=`, `GET /api/documents/:id/log`: a record, page by page, as the asker may see it today. */
import { Hono } from "hono";
import type { Gateway } from "../gateway.ts";
import type { Limits } from "../limits.ts";
import type { Registry } from "../registry.ts";
import type { Verify } from "../token.ts";
import { bearer, nameIn, pageSize } from "./bearer.ts";

/**
 * `{events: [{cursor, at, user, event, payload}], next}`, oldest first, after the cursor `after` (without it from the start).
 * `next` is what to ask for next, null at the end. A page can be empty and have a next one. Costs one of the user's requests.
 */
export function record(registry: Registry, gateway: Gateway, verify: Verify, limits: Limits): Hono {
  const app = new Hono();
  for (const [path, kind] of [["cases", "case"], ["documents", "document"]]) {
    app.get(`/api/${path}/:id/log`, async (c) => {
      const user = await bearer(c.req.header("authorization"), verify);
      gateway.spend(user, "requests");
      const id = nameIn(c.req.url, 3, kind, limits);
      const limit = pageSize(c.req.query("limit"));
      return c.json(await registry.read(`${kind}:${id}`, user, c.req.query("after") || null, limit));
    });
  }
  return app;
}
