/** `POST /api/users/:sub/disconnect`: a back end or an administrator closes all sockets of a user. */
import { Hono } from "hono";
import { Refusal } from "../../protocol/reason.ts";
import type { Gateway } from "../gateway.ts";
import { Claims, type Verify } from "../token.ts";
import { bearer, pathPart } from "./bearer.ts";

/**
 * → `{disconnected: <how many sockets>}`. They are closed with 1001 and may come back: whoever must stay out gets no new
 * token, and his old one ends at its `exp`.
 */
export function users(gateway: Gateway, verify: Verify, note: (event: string, fields: Record<string, unknown>) => void): Hono {
  const app = new Hono();
  app.post("/api/users/:sub/disconnect", async (c) => {
    const by = await bearer(c.req.header("authorization"), verify);
    if (by.role !== "service" && by.role !== "admin") throw new Refusal("forbidden", { message: `the role ${by.role} may not disconnect users` });
    const { data: user } = Claims.shape.sub.safeParse(pathPart(c.req.url, 3));
    if (user === undefined) throw new Refusal("not_found", { message: "no user can have that id" });
    const disconnected = gateway.disconnect(user);
    if (disconnected > 0) note("user disconnected", { user, by: by.id, sockets: disconnected });
    return c.json({ disconnected });
  });
  return app;
}
