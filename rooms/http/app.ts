/** All routes. The same app runs on every host. */
import { Hono } from "hono";
import type { Channel } from "../../protocol/contract.ts";
import { Refusal } from "../../protocol/reason.ts";
import type { Gateway } from "../gateway.ts";
import type { Host } from "../host.ts";
import type { Limits } from "../limits.ts";
import type { Metrics } from "../metrics.ts";
import type { Registry } from "../registry.ts";
import type { Verify } from "../token.ts";
import { answerRefusal } from "./answer.ts";
import { documents } from "./documents.ts";
import { health } from "./health.ts";
import { metricsPage } from "./metrics.ts";
import { sharing } from "./origin.ts";
import { publishing } from "./publishing.ts";
import { record } from "./record.ts";
import { connectByToken, type EndpointOptions, type HostBindings, upgrade } from "./upgrade.ts";
import { uploads } from "./uploads.ts";
import { users } from "./users.ts";

export interface AppOptions {
  readonly registry: Registry;
  readonly gateway: Gateway;
  readonly verify: Verify;
  readonly limits: Limits;
  readonly channels: readonly Channel[];
  readonly allowedOrigins: readonly string[];
  readonly trustProxy: boolean;
  readonly metrics: Metrics;
  /** What others than this machine show to read the metrics; without it they cannot. */
  readonly metricsToken?: string;
  readonly sha256: Host["sha256"];
  readonly blobs: Host["blobs"];
  readonly work: Host["work"];
  report(error: unknown, where: string): void;
  note(event: string, fields: Record<string, unknown>): void;
  /** Endpoints beside `/socket`, by path: for conformance runs. */
  readonly endpoints?: Readonly<Record<string, Partial<EndpointOptions>>>;
}

export type App = Hono<{ Bindings: HostBindings }>;

export function makeApp(options: AppOptions): App {
  const { registry, gateway, verify, limits } = options;
  const app: App = new Hono();
  const endpoint: EndpointOptions = { ...options, connect: connectByToken(verify), limits: undefined };
  for (const [path, other] of Object.entries({ "/socket": {}, ...options.endpoints })) {
    const open = upgrade({ ...endpoint, ...other });
    // phoenix.js appends /websocket, the page's Python class does not.
    for (const suffix of ["", "/websocket", "/websocket/"]) app.all(path + suffix, open);
  }
  app.use("/api/*", sharing(options));
  app.route("/", publishing(registry, verify, limits, () => gateway.draining));
  app.route("/", record(registry, gateway, verify, limits));
  const routes = { registry, gateway, verify, limits, blobs: options.blobs };
  app.route("/", uploads(routes));
  app.route("/", documents({ ...routes, work: (labour, user) => options.work(labour, { owner: `user/${user.id}` }) }));
  app.route("/", users(gateway, verify, options.note));
  app.route("/", metricsPage(options.metrics, options.metricsToken, options.sha256));
  app.route("/", health(gateway, options.channels));
  app.notFound((c) => c.json({ reason: "not_found", message: "there is no such page" }, 404));
  app.onError((error, c) => {
    if (error instanceof Refusal) {
      options.metrics.refused(error.reason);
      return answerRefusal(c, error);
    }
    // The client went away in the middle of its request.
    if (error.message === "aborted") return c.body(null, 400);
    options.report(error, `${c.req.method} ${c.req.routePath}`);
    return answerRefusal(c, new Refusal("internal"));
  });
  return app;
}
