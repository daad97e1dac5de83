/** `GET /metrics`, in Prometheus' text format: for this machine itself, or whoever has the `METRICS_TOKEN`. */
import { Hono } from "hono";
import { Refusal } from "../../protocol/reason.ts";
import type { Host } from "../host.ts";
import type { Metrics } from "../metrics.ts";
import { bearerToken } from "./bearer.ts";
import type { HostBindings } from "./upgrade.ts";

const LOOPBACK = /^(?:::ffff:)?127\.|^::1$/;
const LOCAL_NAME = /^(?:127\.\d+\.\d+\.\d+|localhost|\[::1\])(?::\d+)?$/i;

export function metricsPage(metrics: Metrics, token: string | undefined, sha256: Host["sha256"]): Hono<{ Bindings: HostBindings }> {
  const app = new Hono<{ Bindings: HostBindings }>();
  app.get("/metrics", (c) => {
    // What a proxy on this machine hands on comes from elsewhere, and was asked of another name.
    const forwarded = ["x-forwarded-for", "x-forwarded-host", "forwarded", "x-real-ip", "via"].some((name) => c.req.header(name) !== undefined);
    const isLocal = !forwarded && LOOPBACK.test(c.env.peer ?? "") && LOCAL_NAME.test(c.req.header("host") ?? "");
    // By their hashes, so that the time it takes tells nothing.
    const given = bearerToken(c.req.header("authorization"));
    if (!isLocal && !(token && given && sha256(given) === sha256(token))) {
      const message = token ? "send the METRICS_TOKEN as a bearer" : "for this machine itself only: others need a METRICS_TOKEN, which is not set";
      throw new Refusal("unauthenticated", { message });
    }
    return c.text(metrics.text(), 200, { "content-type": "text/plain; version=0.0.4; charset=utf-8" });
  });
  return app;
}
