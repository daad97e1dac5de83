/** Puts rooms, gateway and routes together over one host: what `main.ts` serves, and what tests and the fixture serve too. */
import type { Channel } from "../protocol/contract.ts";
import { Gateway } from "./gateway.ts";
import type { Host } from "./host.ts";
import { type App, type AppOptions, makeApp } from "./http/app.ts";
import type { Limits } from "./limits.ts";
import { Metrics } from "./metrics.ts";
import { Registry } from "./registry.ts";
import type { Room } from "./room.ts";
import type { Pack } from "./socket.ts";
import type { Verify } from "./token.ts";

export interface HouseOptions extends Pick<AppOptions, "allowedOrigins" | "trustProxy" | "endpoints" | "metricsToken" | "note"> {
  readonly host: Host;
  readonly rooms: readonly Room[];
  readonly verify: Verify;
  readonly pack: Pack;
  readonly limits: Limits;
  readonly graceMs: number;
}

export interface House {
  readonly registry: Registry;
  readonly gateway: Gateway;
  readonly app: App;
  readonly metrics: Metrics;
}

export function build({ host, rooms, verify, pack, limits, graceMs, note, ...options }: HouseOptions): House {
  const metrics = new Metrics();
  const registry = new Registry({ host, rooms, limits, graceMs, metrics });
  const gateway = new Gateway({ id: "g", host, rooms: registry, gate: registry.gate, limits, metrics, verify, pack, note });
  registry.connect((effects) => gateway.deliver(effects), () => gateway.flush());
  const channels: Channel[] = rooms.flatMap((room) => room.topics.map(({ contract }) => contract));
  const app = makeApp({
    registry,
    gateway,
    verify,
    limits,
    channels,
    metrics,
    note,
    report: host.report,
    sha256: host.sha256,
    blobs: host.blobs,
    work: host.work,
    ...options,
  });
  return { registry, gateway, app, metrics };
}
