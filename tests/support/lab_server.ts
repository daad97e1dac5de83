/**
 * A server as `main.ts` makes it, with a room of its own besides: its pushes write rows and tell lasting events, so that
 * batches have something to keep. With `LAB_SYNCHRONOUS=off` it does what the tests of durability must notice.
 *
 * On `lab:{id}`: `do {id}` keeps a row and tells `kept {id}`, once for each id; with `refuse` it is refused instead.
 */
import { Refusal } from "../../protocol/reason.ts";
import { rooms } from "../../rooms/channels/mod.ts";
import { readConfig } from "../../rooms/config.ts";
import { denoHost, holdDataDir } from "../../rooms/hosts/deno.ts";
import { tokenConfig } from "../../rooms/hosts/deno_secret.ts";
import { serve } from "../../rooms/hosts/deno_server.ts";
import { DenoSql } from "../../rooms/hosts/deno_sql.ts";
import { packFrame } from "../../rooms/hosts/deno_wire.ts";
import { build } from "../../rooms/house.ts";
import { verifier } from "../../rooms/token.ts";
import { lab } from "./stage.ts";

const labRoom = lab({
  on: {
    do(ctx, { id, refuse }) {
      if (refuse) throw new Refusal("forbidden");
      const [known] = ctx.sql`select id from lab_item where room = ${ctx.room} and id = ${String(id)}`;
      if (known) return { id };
      ctx.sql`insert into lab_item (room, id, body) values (${ctx.room}, ${String(id)}, ${`body of ${id}`})`;
      ctx.broadcast("kept", { id });
      return { id };
    },
  },
});

const config = readConfig(Deno.env.toObject());
holdDataDir(config.DATA_DIR);
const path = `${config.DATA_DIR}/caseroom.db`;
const host = denoHost(path, Deno.env.get("LAB_SYNCHRONOUS") === "off" ? { sql: new DenoSql(path, "off") } : {});
const { registry, gateway, app } = build({
  host,
  rooms: [...rooms, labRoom],
  verify: verifier(tokenConfig(config)),
  pack: packFrame,
  limits: config.limits,
  graceMs: config.PRESENCE_GRACE_MS,
  allowedOrigins: [],
  trustProxy: false,
  note() {},
});
const server = await serve(app, gateway, { host: "127.0.0.1", port: config.PORT, limits: config.limits, report: host.report });
registry.start();
gateway.start();

Deno.addSignalListener("SIGTERM", async () => {
  await gateway.drain(config.DRAIN_MS);
  registry.gate.drain();
  await Promise.race([server.stop(), new Promise((resolve) => setTimeout(resolve, 1000))]);
  host.sql.close();
  Deno.exit(0);
});
console.log(`The lab is ready on ws://127.0.0.1:${server.port}/socket`);
