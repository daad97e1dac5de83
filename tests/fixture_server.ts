/**
 * The fixture of the protocol notes (section P) over the production transport, gateway, registry and actor: for our own
 * conformance run and anybody else's.
 *
 *     deno run -A tests/fixture_server.ts --port 4000 [--quiet]
 *
 * What a declarative room cannot say, and this fixture therefore leaves out:
 * - `custom_status`: a reply is ok or an error.
 * - `bcast_int`: events are not intercepted on their way to a member; one encoding serves them all.
 * - `stop_err_reply`: an error reply leaves no trace of its turn, so that it cannot end its session as well.
 * - `test:badjoin`, `test:exit`: a join returns JSON or throws; both throw here, which looks the same on the wire.
 * - `refuse=reason`: there is no error handler that could answer 429; every refusal to connect is a 403.
 * - `/proto`: the only subprotocol is `phoenix`, there as everywhere.
 * - the long-poll transport.
 *
 * Added to section P: a join of `test:*` with `{refuse: true}` is refused as `test:err` is, so that a rejoin can be; on
 * `/auth` the token is the user's id where there is no `user_id`, so that one sees that it arrived.
 */
import { z } from "zod";
import { channel, type ChannelSpec, type EventSpec } from "../protocol/contract.ts";
import { Refusal } from "../protocol/reason.ts";
import type { Gateway } from "../rooms/gateway.ts";
import { build } from "../rooms/house.ts";
import type { User } from "../rooms/host.ts";
import { denoHost } from "../rooms/hosts/deno.ts";
import { serve } from "../rooms/hosts/deno_server.ts";
import { packFrame } from "../rooms/hosts/deno_wire.ts";
import { DEFAULT_LIMITS } from "../rooms/limits.ts";
import { behave, type Behaviour, type Context, Later, room, type Topic } from "../rooms/room.ts";
import type { Identity } from "../rooms/token.ts";

/** An error reply with a payload of its own, outside the closed list of reasons. */
class ErrorReply extends Refusal {
  constructor(readonly payload: Record<string, unknown> = {}) {
    super("internal");
  }
  override response(): Record<string, unknown> {
    return this.payload;
  }
}

interface LooseSpec extends ChannelSpec {
  readonly join: { readonly payload: z.ZodAny; readonly reply: z.ZodAny };
  readonly pushes: Record<string, { readonly payload: z.ZodAny; readonly reply: z.ZodAny; readonly silent: boolean }>;
  readonly events: Record<string, EventSpec<z.ZodAny>>;
  /** Always there for the types' sake; only `presence:*` has one. */
  readonly presence: z.ZodAny;
}

type Loose = ReturnType<typeof channel<LooseSpec>>;

/** Anybody is admitted here. */
type Manners = Omit<Behaviour<Loose>, "admit">;

/** A channel with Phoenix's own manners: any JSON or bytes, an unknown event crashes. The contract is read off the behaviour. */
function loose(topic: string, behaviour: Manners, options: { silent?: readonly string[]; presence?: z.ZodAny } = {}): Topic {
  const said = { payload: z.any(), reply: z.any() };
  const pushes = Object.keys(behaviour.on).map((event) => [event, { ...said, silent: options.silent?.includes(event) ?? false }]);
  const spec: LooseSpec = { topic, join: said, pushes: Object.fromEntries(pushes), events: {}, presence: options.presence as z.ZodAny, loose: true };
  return behave(channel(spec), { admit() {}, ...behaviour });
}

/** What a member hears is an object or bytes, never another JSON value. [19] */
function shown(payload: unknown): Record<string, unknown> | Uint8Array {
  if (typeof payload !== "object" || payload === null || Array.isArray(payload)) throw new TypeError("Cannot send a payload that is no object");
  return payload as Record<string, unknown>;
}

const sleep = (ms: number) => () => new Promise((resolve) => setTimeout(resolve, ms));

// room:* and exact

const lobby: Manners = {
  join() {},
  on: {
    shout: (ctx, payload) => ctx.broadcast("shout", shown(payload)),
    shout_from: (ctx, payload) => ctx.broadcastFrom("shout", shown(payload)),
    echo: (_ctx, payload) => payload,
  },
};

// presence:*

/** Who connected. `keys` is what Phoenix keeps in a channel's assigns: the key under which each topic shows this socket. */
interface Guest extends User {
  readonly keys: Map<string, string>;
}

const keys = (ctx: Context<Loose>) => (ctx.user as Guest).keys;

const presence: Manners = {
  join(ctx, params) {
    const key = params?.key || "anon";
    keys(ctx).set(ctx.topic, key);
    ctx.presence.track({ online_at: "x" }, key);
  },
  on: {
    update(ctx, change) {
      const ref = ctx.presence.update(change, keys(ctx).get(ctx.topic));
      if (ref === null) throw new ErrorReply({ reason: "nopresence" });
      return { ref };
    },
    untrack: (ctx) => ctx.presence.untrack(keys(ctx).get(ctx.topic)),
    track2(ctx, { key }) {
      const ref = ctx.presence.track({ online_at: "x" }, key);
      if (ref === null) throw new ErrorReply({ reason: "already_tracked" });
      return { ref };
    },
    // A room cannot read who is there; the store of members can.
    list(ctx) {
      const shown = [...host.members.of(ctx.room)].flatMap((member) => member.presence);
      const metas = (of: string) => shown.filter(({ key }) => key === of).map(({ json }) => JSON.parse(json));
      return Object.fromEntries(shown.map(({ key }) => [key, { metas: metas(key) }]));
    },
  },
};

// test:*

function crash(): never {
  throw new TypeError("Cannot go on: told to crash");
}

/** The joins that do something besides succeeding, by the id of their topic. */
const joins = new Map<string, Behaviour<Loose>["join"]>(Object.entries({
  err() {
    throw new ErrorReply({ reason: "unauthorized" });
  },
  joincrash: crash,
  badjoin: crash,
  exit: crash,
  payload: (_ctx, params) => params,
  pushafter: (ctx) => ctx.push("hello", { a: 1 }),
  slow: () => new Later(sleep(1000)),
  bcastjoin: (ctx) => ctx.broadcast("injoin", {}),
}));

const test: Manners = {
  join(ctx, params) {
    if (params?.refuse) throw new ErrorReply({ reason: "unauthorized" });
    return joins.get(ctx.id)?.(ctx, params);
  },
  on: {
    crash,
    stop_normal: (ctx) => ctx.close(),
    stop_shutdown: (ctx) => ctx.close(),
    stop_shutdown_t: (ctx) => ctx.close(),
    stop_err: crash,
    stop_reply(ctx) {
      ctx.close();
      return { bye: 1 };
    },
    delay_stop: (ctx) => ctx.close(),
    noreply() {},
    push: (ctx, payload) => ctx.push("pushed", shown(payload)),
    pushbin(ctx) {
      ctx.push("pushed", Uint8Array.of(1, 2, 3));
      return Uint8Array.of(4, 5, 6);
    },
    bcastbin: (ctx) => ctx.broadcast("bin", Uint8Array.of(7, 8, 9)),
    binecho: (_ctx, payload) => payload,
    bininfo: (_ctx, payload) => ({ size: payload.length }),
    bcast_then_push(ctx) {
      ctx.broadcast("b1", {});
      ctx.push("p1", {});
      ctx.broadcast("b2", {});
    },
    err() {
      throw new ErrorReply();
    },
    errp() {
      throw new ErrorReply({ reason: "bad" });
    },
    async: () => new Later(sleep(50), () => ({ later: true })),
    listreply: () => [1, 2],
    disconnect: (_ctx, { id }) => void gateway.disconnect(String(id).replace(/^users:/, "")),
    echo: (_ctx, payload) => payload,
  },
};

const rooms = [
  room("room/{id}", { migrations: [], topics: [loose("room:{*}", lobby)] }),
  room("exact/{id}", { migrations: [], topics: [loose("exact", lobby)] }),
  room("presence/{id}", { migrations: [], topics: [loose("presence:{*}", presence, { presence: z.any() })] }),
  room("test/{id}", {
    migrations: [],
    topics: [loose("test:{*}", test, { silent: ["noreply", "stop_normal", "stop_shutdown", "stop_shutdown_t"] })],
  }),
];

// Sockets

let guests = 0;

/** Everybody may connect who does not ask to be refused. Without `user_id` a socket is nobody that `disconnect` could name. */
function connect(query: URLSearchParams, token?: string): Identity {
  const refuse = query.get("refuse");
  if (refuse === "raise") throw new TypeError("Cannot connect: told to raise");
  if (refuse) throw new Refusal("forbidden");
  const id = query.get("user_id") ?? token ?? `guest ${++guests}`;
  const guest: Guest = { id, name: id, role: "viewer", cases: "*", keys: new Map() };
  return { user: guest, expires: Infinity };
}

const anyone = { connect: (query: URLSearchParams) => connect(query) };
// Silent sockets are looked for ten times within the shorter of two limits; nobody waits for authentication here.
// A conformance run says more in a minute than a user does: budgets have their own tests.
const much = 2 ** 31 - 1;
const limits = { ...DEFAULT_LIMITS, authenticate_ms: 1000, requests: much, joins: much, authentications: much };

const dataDir = Deno.makeTempDirSync({ prefix: "caseroom-fixture-" });
// Quiet: the crashes that a test asks for are not reported.
const host = denoHost(`${dataDir}/caseroom.db`, Deno.args.includes("--quiet") ? { report() {} } : {});
const house = build({
  host,
  rooms,
  limits,
  pack: packFrame,
  verify: () => Promise.reject(new Refusal("token_invalid")),
  graceMs: 0,
  allowedOrigins: ["http://localhost", "https://localhost", "http://*.example.com", "https://*.example.com"],
  trustProxy: false,
  note() {},
  endpoints: {
    "/socket": anyone,
    "/short": { ...anyone, limits: { ...limits, idle_ms: 1500, frame_bytes: 2000 } },
    "/proto": anyone,
    "/auth": { connect },
  },
});
const gateway: Gateway = house.gateway;
const flag = Deno.args.indexOf("--port");
const port = flag < 0 ? 4000 : Number(Deno.args[flag + 1]);
const server = await serve(house.app, gateway, { host: "127.0.0.1", port, limits, report: host.report });
house.registry.start();
gateway.start();
console.log(`The fixture is ready on ws://127.0.0.1:${server.port}/socket`);

let ending = false;
const end = async () => {
  if (ending) return;
  ending = true;
  await gateway.drain(0);
  house.registry.gate.drain();
  await Promise.race([server.stop(), new Promise((resolve) => setTimeout(resolve, 1000))]);
  host.sql.close();
  Deno.removeSync(dataDir, { recursive: true });
  Deno.exit(0);
};
Deno.addSignalListener("SIGTERM", end);
Deno.addSignalListener("SIGINT", end);
