/** `POST /api/topics/:topic/events`: a back end publishes to a room. */
import { Hono } from "hono";
import { bodyLimit } from "hono/body-limit";
import { z } from "zod";
import { check } from "../../protocol/contract.ts";
import { byteLength, isName } from "../../protocol/frame.ts";
import { Refusal } from "../../protocol/reason.ts";
import type { User } from "../host.ts";
import type { Limits } from "../limits.ts";
import type { Registry } from "../registry.ts";
import { may, type Verify } from "../token.ts";
import { bearer, pathPart } from "./bearer.ts";

/**
 * `{events: [{event, payload, id?}]}` → `{events: [{cursor}]}`, in the same order: validated by the topic's contract, all or
 * nothing, answered when durable. A repeated `id` of the same sender is applied once and answered the same.
 */
export function publishing(registry: Registry, verify: Verify, limits: Limits, draining: () => boolean) {
  const Body = z.object({
    events: z.array(z.object({ event: z.string(), payload: z.unknown(), id: z.string().min(1).max(255).refine(isName).optional() })).min(1).max(
      limits.publish_events,
    ),
  });
  const app = new Hono<{ Variables: { user: User } }>();
  const tooLarge = bodyLimit({
    maxSize: limits.publish_bytes,
    onError: () => {
      throw new Refusal("payload_too_large", { limit: limits.publish_bytes, message: "bytes of one request" });
    },
  });
  const path = "/api/topics/:topic/events";
  // Nothing is read of a body before its sender is known.
  app.post(path, async (c, next) => {
    if (draining()) throw new Refusal("draining");
    c.set("user", await bearer(c.req.header("authorization"), verify));
    await next();
  });
  app.post(path, tooLarge, async (c) => {
    const user = c.get("user");
    const topic = pathPart(c.req.url, 3);
    if (!isName(topic) || byteLength(topic) > limits.topic_bytes) throw new Refusal("unmatched topic");
    // Whoever may not publish is not read; the room refuses him, and keeps it in its record.
    if (!may(user, "publish")) return c.json(await registry.publish(topic, user, []));
    const body = await c.req.json().catch(() => {
      throw new Refusal("invalid_payload", { message: "the body is no JSON" });
    });
    const { events } = check(Body, body);
    const cursors = await registry.publish(topic, user, events);
    return c.json({ events: cursors.map((cursor) => ({ cursor })) });
  });
  return app;
}
