/** Caseroom as `main.ts` builds it, with one room of the bench beside the real ones: `caseroom.ts FOLDER [default]`. */
import { z } from "zod";
import { channel, lasting, passing } from "../../protocol/contract.ts";
import { rooms } from "../../rooms/channels/mod.ts";
import { build } from "../../rooms/house.ts";
import { denoHost, Journal } from "../../rooms/hosts/deno.ts";
import { serve } from "../../rooms/hosts/deno_server.ts";
import { packFrame } from "../../rooms/hosts/deno_wire.ts";
import { LIMITS, type Limits } from "../../rooms/limits.ts";
import { behave, room } from "../../rooms/room.ts";
import { verifier } from "../../rooms/token.ts";
import { memory, SECRET, stand } from "./serving.ts";

const Id = z.string().min(1).max(255);

/** Where somebody is looking: what cursors and selections are like. */
const Viewing = z.object({
  document_id: Id,
  page: z.int().nonnegative(),
  x: z.number(),
  y: z.number(),
  tool: z.enum(["pointer", "highlighter", "note"]),
});

/** What a small annotation is like. */
const Note = z.object({
  document_id: Id,
  page: z.int().nonnegative(),
  type: z.enum(["highlight", "comment", "redaction"]),
  text: z.string().max(10_000),
  tags: z.array(z.string().max(255)).max(100).optional(),
});

/** What fills the buffers between the server and who does not read. */
const Filling = z.object({ text: z.string() });

const benchChannel = channel({
  topic: "bench:{id}",
  join: { payload: z.object({}), reply: z.object({}) },
  pushes: { shout: { payload: Viewing }, echo: { payload: Viewing, reply: Viewing }, keep: { payload: Note }, fill: { payload: Filling } },
  events: { shouted: passing(Viewing), kept: lasting(Note), filled: passing(Filling) },
});

const benchRoom = room("bench/{id}", {
  migrations: [],
  topics: [
    behave(benchChannel, {
      admit() {},
      join: () => ({}),
      on: {
        shout: (ctx, viewing) => ctx.broadcast("shouted", viewing),
        echo: (_ctx, viewing) => viewing,
        keep: (ctx, note) => ctx.broadcast("kept", note),
        fill: (ctx, filling) => ctx.broadcast("filled", filling),
      },
    }),
  ],
});

// A bench asks more of one user than a person does: what is counted per user is raised, and named in the table.
// `default` leaves all limits as they are.
const raised = Deno.args[1] === "default"
  ? []
  : Object.entries(LIMITS).filter(([name, { unit }]) => /\bper\b/.test(unit) && name !== "refusals_logged").map(([name]) => name);
const limits = Object.fromEntries(Object.entries(LIMITS).map(([name, { value }]) => [name, raised.includes(name) ? 2 ** 31 - 1 : value])) as Limits;

const journal = new Journal();
const host = denoHost(`${Deno.args[0]}/log.db`);
const { registry, gateway, app, metrics } = build({
  host,
  rooms: [...rooms, benchRoom],
  verify: verifier({ secret: SECRET, maxBytes: limits.token_bytes, now: () => Date.now() }),
  pack: packFrame,
  limits,
  graceMs: 5000,
  allowedOrigins: [],
  trustProxy: false,
  note: (event, fields) => journal.note(event, fields),
});
const { port } = await serve(app, gateway, { host: "127.0.0.1", port: 0, limits, report: host.report });
registry.start();
gateway.start();
await stand({ port, raised }, {
  memory,
  counts: () => metrics.counts,
  async drain() {
    await gateway.drain(1000);
    registry.gate.drain();
  },
});
