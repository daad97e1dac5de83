/** `GET /health`: the process lives. `GET /ready`: it takes sockets. `GET /asyncapi.json`: what may be said here. */
import { Hono } from "hono";
import { asyncapi } from "../../protocol/asyncapi.ts";
import type { Channel } from "../../protocol/contract.ts";
import type { Gateway } from "../gateway.ts";

export function health(gateway: Gateway, channels: readonly Channel[]): Hono {
  const app = new Hono();
  const page = asyncapi(channels);
  app.get("/health", (c) => c.json({ status: "ok" }));
  app.get("/ready", (c) => gateway.draining ? c.json({ status: "draining" }, 503) : c.json({ status: "ready" }));
  app.get("/asyncapi.json", (c) => c.json(page));
  return app;
}
