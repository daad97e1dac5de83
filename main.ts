/** Deno's composition root: configuration, host, rooms, server; and the way down on SIGTERM. */
import { rooms } from "./rooms/channels/mod.ts";
import { readConfig } from "./rooms/config.ts";
import { outsideAnalyzer } from "./rooms/documents/analyzer.ts";
import { build } from "./rooms/house.ts";
import { denoHost, holdDataDir, journal, measureProcess } from "./rooms/hosts/deno.ts";
import { DenoDocuments } from "./rooms/hosts/deno_documents.ts";
import { isDevelopment, signingSecret, tokenConfig } from "./rooms/hosts/deno_secret.ts";
import { packFrame } from "./rooms/hosts/deno_wire.ts";
import { serve } from "./rooms/hosts/deno_server.ts";
import { sign, verifier } from "./rooms/token.ts";

try {
  await start();
} catch (error) {
  // A configuration that cannot work, a port or a DATA_DIR that another process holds: said in a line, without a stack.
  console.error(error instanceof Error ? error.message : error);
  Deno.exit(1);
}

async function start(): Promise<void> {
  const config = readConfig(Deno.env.toObject());
  holdDataDir(config.DATA_DIR);
  const verify = verifier(tokenConfig(config));
  const analyzer = config.ANALYZER_URL ? outsideAnalyzer(config.ANALYZER_URL, { timeoutMs: config.limits.analyzer_ms }) : undefined;
  const documents = new DenoDocuments({ dataDir: config.DATA_DIR, limits: config.limits, analyzer, report: journal.report });
  const host = denoHost(`${config.DATA_DIR}/caseroom.db`, documents.host);
  const { registry, gateway, app, metrics } = build({
    host,
    rooms,
    verify,
    pack: packFrame,
    limits: config.limits,
    graceMs: config.PRESENCE_GRACE_MS,
    allowedOrigins: config.ALLOWED_ORIGINS,
    trustProxy: config.TRUST_PROXY,
    metricsToken: config.METRICS_TOKEN,
    note: (event, fields) => journal.note(event, fields),
  });
  globalThis.addEventListener("unhandledrejection", (event) => {
    event.preventDefault();
    host.report(event.reason, "an unhandled rejection");
  });
  const server = await serve(app, gateway, { host: config.HOST, port: config.PORT, limits: config.limits, report: host.report });
  registry.start();
  gateway.start();
  measureProcess(metrics);
  journal.note("ready", { port: server.port, development: isDevelopment(config) }, true);

  let ending = false;
  const end = async () => {
    // A second signal changes nothing.
    if (ending) return;
    ending = true;
    journal.note("draining", { sockets: gateway.size }, true);
    await gateway.drain(config.DRAIN_MS);
    registry.gate.drain();
    // What they were at is done again.
    await documents.close();
    await Promise.race([server.stop(), new Promise((resolve) => setTimeout(resolve, 1000))]);
    host.sql.close();
    journal.note("ended", {}, true);
    await Promise.race([journal.flush(), new Promise((resolve) => setTimeout(resolve, 500))]);
    Deno.exit(0);
  };
  Deno.addSignalListener("SIGTERM", end);
  Deno.addSignalListener("SIGINT", end);

  const address = `${config.HOST.includes(":") ? `[${config.HOST}]` : config.HOST}:${server.port}`;
  console.log(`Caseroom is ready on ws://${address}/socket`);
  if (isDevelopment(config)) {
    const user = { id: "user_1", name: "User One", role: "attorney", cases: "*" } as const;
    const token = await sign(signingSecret(config), user, 86_400, Date.now(), { issuer: config.AUTH_ISSUER, audience: config.AUTH_AUDIENCE });
    console.log(`No authentication is configured: this machine only. A token for today (user_1, attorney, every case):\n${token}`);
    console.log(`ws://${address}/socket/websocket?vsn=2.0.0&token=${token}`);
  }
}
