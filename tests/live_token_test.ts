/** Tokens on a live socket: the warning, the end, renewal, disconnection by hand; and no token in anything that is written. */
import { assert, assertEquals, assertGreater, assertGreaterOrEqual, assertLess, assertRejects } from "@std/assert";
import { z } from "zod";
import { channel, exact, lasting, passing } from "../protocol/contract.ts";
import { Refusal } from "../protocol/reason.ts";
import type { User } from "../rooms/host.ts";
import { NOTHING_LENT } from "../rooms/hosts/deno.ts";
import { makeApp } from "../rooms/http/app.ts";
import { DEFAULT_LIMITS } from "../rooms/limits.ts";
import { behave, Later, type Room, room } from "../rooms/room.ts";
import { type Identity, mayEnter } from "../rooms/token.ts";
import { eventsOf, Outside } from "./support/outside.ts";
import { type Heard, HttpRefusal, RawClient, TcpClient, UPGRADE } from "./support/raw.ts";
import { BreakableSql, someone, Stage, type StageClient, type StageOptions } from "./support/stage.ts";

const START = Date.parse("2026-01-01T00:00:00Z");
const iso = (time: number) => new Date(time).toISOString();
const TOPIC = "desk:1";
const VERSIONS = ["1", "2"] as const;
const Any = z.looseObject({});

const deskContract = channel({
  topic: "desk:{id}",
  join: { payload: Any, reply: z.unknown() },
  pushes: {
    say: { payload: Any },
    annotate: { payload: Any, reply: z.unknown() },
    later: { payload: Any, reply: z.unknown() },
    point: { payload: Any, budget: "cursors" },
    show: { payload: Any },
  },
  events: { kept: lasting(Any), told: exact(Any), seen: passing(Any, { per: "user" }) },
  presence: Any,
});

/** Slow work waits here, until the test ends it. */
interface Slow {
  join?: Promise<unknown>;
  push?: Promise<unknown>;
}

/** A desk is entered by the token's claim, as a case is; `annotate` and the end of `later` ask for a right. */
function desk(slow: Slow = {}): Room {
  return room("desk/{id}", {
    migrations: ["create table desk_item (room text not null, id text not null, primary key (room, id)) strict"],
    topics: [behave(deskContract, {
      admit(ctx) {
        if (!mayEnter(ctx.user, ctx.id)) throw new Refusal("forbidden", { message: "the token does not name this desk" });
      },
      join(ctx) {
        const enter = (ctx: { presence: { track(meta: object): unknown } }) => {
          ctx.presence.track({ status: "online" });
          return { desk: "state" };
        };
        return slow.join ? new Later(() => slow.join!, enter) : enter(ctx);
      },
      on: {
        say: (ctx, { event, text }) => void ctx.broadcast(event as "told", { text }),
        annotate(ctx) {
          ctx.require("annotate");
          return { role: ctx.user.role };
        },
        later: (_ctx, _payload) =>
          new Later(() => slow.push!, (ctx) => {
            ctx.require("annotate");
            return { role: ctx.user.role };
          }),
        point: (ctx, place) => ctx.broadcastFrom("seen", place),
        show: (ctx, meta) => void ctx.presence.update(meta),
      },
    })],
  });
}

/** A stage on which tokens are names of identities; nobody falls idle. */
function stageOf(tokens: Record<string, Identity | Refusal | Promise<Identity>> = {}, options: StageOptions = {}, slow: Slow = {}): Stage {
  return new Stage([desk(slow)], {
    ...options,
    limits: { idle_ms: 2 ** 30, ...options.limits },
    verify: async (token) => {
      const found = await tokens[token] ?? new Refusal("token_invalid");
      if (found instanceof Refusal) throw found;
      return found;
    },
  });
}

/** Joins in either version. */
function join(client: StageClient, vsn: "1" | "2", topic = TOPIC, payload: unknown = {}): Heard[] {
  return client.send(vsn === "1" ? { topic, event: "phx_join", payload, ref: "1", join_ref: "1" } : ["1", "1", topic, "phx_join", payload]);
}

/** Authenticates in either version and returns all that was heard then. */
async function authenticate(stage: Stage, client: StageClient, token: string, vsn: "1" | "2" = "2"): Promise<Heard[]> {
  client.queue(vsn === "1" ? { topic: "auth", event: "authenticate", payload: { token }, ref: "a" } : [null, "a", "auth", "authenticate", { token }]);
  await stage.settle();
  return client.take();
}

/** `[topic, event, payload]` of a frame of either version. */
const said = (frame: Heard) => Array.isArray(frame) ? [frame[2], frame[3], frame[4]] : [frame.topic, frame.event, frame.payload];

// The warning.

for (const vsn of VERSIONS) {
  const expiring = (expires: number) =>
    vsn === "1"
      ? { topic: "auth", event: "token_expiring", payload: { expires_at: iso(expires) }, ref: null, join_ref: null }
      : [null, null, "auth", "token_expiring", { expires_at: iso(expires) }];

  Deno.test(`live token: V${vsn} is told token_expiring once, 60 s ahead, again after a renewal, and closed 4001 at the end [99]`, async () => {
    const stage = stageOf({ next: { user: someone("a"), expires: START + 190_000 } });
    const client = stage.client(someone("a"), vsn, START + 120_000);
    join(client, vsn);
    stage.advance(59_000);
    assertEquals(client.take(), []);
    stage.advance(1000);
    assertEquals(client.take(), [expiring(START + 120_000)]);
    stage.advance(30_000);
    assertEquals(client.take(), []);
    assertEquals((await authenticate(stage, client, "next", vsn)).map(said), [
      ["auth", "phx_reply", { status: "ok", response: { user_id: "a", expires_at: iso(START + 190_000) } }],
    ]);
    stage.advance(39_000);
    assertEquals(client.take(), []);
    stage.advance(1000);
    assertEquals(client.take(), [expiring(START + 190_000)]);
    stage.advance(59_000);
    assertEquals([client.take(), client.wire.code], [[], null]);
    stage.advance(1000);
    assertEquals([client.take(), client.wire.code], [[], 4001]);
    stage.close();
  });

  Deno.test(`live token: V${vsn} is told at once of a token shorter than 60 s, in the URL or by authenticate, and once only`, async () => {
    const stage = stageOf({ short: { user: someone("b"), expires: START + 30_500 }, shorter: { user: someone("b"), expires: START + 20_500 } });
    const [byUrl, byMessage] = [stage.client(someone("a"), vsn, START + 30_500), stage.client(null, vsn)];
    await authenticate(stage, byMessage, "short", vsn);
    stage.advance(1000);
    for (const client of [byUrl, byMessage]) assertEquals(client.take(), [expiring(START + 30_500)]);
    stage.advance(10_000);
    for (const client of [byUrl, byMessage]) assertEquals(client.take(), []);
    // A renewal can end earlier: that is the user's affair, and he is told.
    await authenticate(stage, byMessage, "shorter", vsn);
    stage.advance(1000);
    assertEquals([byUrl.take(), byMessage.take()], [[], [expiring(START + 20_500)]]);
    stage.advance(9000);
    assertEquals([byUrl.wire.code, byMessage.wire.code], [null, 4001]);
    stage.close();
  });
}

Deno.test("live token: nobody without a user, and nobody else's socket, is told token_expiring", () => {
  const stage = stageOf({}, { limits: { authenticate_ms: 2 ** 30 } });
  const [nobody, ends, lasts, same] = [
    stage.client(null),
    stage.client(someone("a"), "2", START + 61_000),
    stage.client(someone("b"), "2", START + 3_600_000),
    stage.client(someone("a"), "2", START + 3_600_000),
  ];
  for (const client of [ends, lasts]) join(client, "2");
  for (const client of [ends, lasts]) client.take();
  stage.advance(60_000);
  assertEquals([nobody, ends, lasts, same].map((client) => client.take().map((frame) => frame[3])), [[], ["token_expiring"], [], []]);
  stage.close();
});

Deno.test("live token: token_expiring waits for no room and no join, and a tick that is lost does not lose it", () => {
  const sql = new BreakableSql();
  const stage = stageOf({}, { sql });
  const client = stage.client(someone("a"), "2", START + 60_000);
  const writer = stage.client(someone("w"));
  writer.join(TOPIC);
  // In the tick of the warning somebody's write is lost.
  writer.queue([null, "1", TOPIC, "say", { event: "kept" }]);
  sql.failCommits = 1;
  stage.clock.time += 1000;
  stage.gateway.sweep();
  stage.run();
  assertEquals(writer.take().at(-1)[4].response?.reason, "unavailable");
  assertEquals(client.take().map((frame) => frame[3]), ["token_expiring"]);
  stage.close();
});

// The end: `exp` counts to the millisecond, whatever the sweep does.

/** A reader whose token ends between two sweeps, and somebody who goes on. */
function ending(vsn: "1" | "2", slow: Slow = {}, options: StageOptions = {}) {
  const stage = stageOf({}, options, slow);
  const expires = START + 5500;
  const [reader, other] = [stage.client(someone("reader"), vsn, expires), stage.client(someone("other"))];
  join(other, "2");
  const enter = (payload: unknown = {}) => {
    const heard = join(reader, vsn, TOPIC, payload);
    reader.take();
    return heard;
  };
  /** So long before (or after) the end, without a sweep in between; what was heard so far is forgotten. */
  const at = (ms: number) => {
    stage.advance(expires + ms - stage.clock.time);
    assertEquals(reader.wire.code, null);
    reader.take();
  };
  return { stage, reader, other, enter, at };
}

for (const vsn of VERSIONS) {
  for (
    const [what, say] of [
      ["a lasting event and its update", ["say", { event: "kept", text: "x" }]],
      ["an exact event", ["say", { event: "told", text: "x" }]],
      ["a passing event", ["point", { x: 1 }]],
      ["a presence_diff", ["show", { status: "busy" }]],
    ] as const
  ) {
    Deno.test(`live token: V${vsn} hears ${what} a millisecond before its exp, and not at it`, () => {
      for (const [ms, hears] of [[-1, true], [0, false], [300, false]] as const) {
        const { stage, reader, other, enter, at } = ending(vsn);
        enter();
        at(ms);
        assertEquals(eventsOf(other.send([null, "1", TOPIC, ...say]), "phx_reply")[0][4].status, "ok");
        assertEquals(reader.take().length > 0, hears, `${ms} ms`);
        stage.advance(1000);
        assertEquals([reader.take(), reader.wire.code], [[], 4001]);
        stage.close();
      }
    });
  }

  Deno.test(`live token: V${vsn} hears no cursor that was held back for its pace until after exp`, () => {
    for (const [ms, hears] of [[-60, true], [-10, false]] as const) {
      const { stage, reader, other, enter, at } = ending(vsn);
      enter();
      at(ms);
      other.send([null, "1", TOPIC, "point", { x: 1 }], [null, "2", TOPIC, "point", { x: 2 }]);
      assertEquals(reader.take().map((frame) => said(frame)[2]), [{ x: 1 }]);
      stage.advance(50);
      assertEquals(reader.take().map((frame) => said(frame)[2]), hears ? [{ x: 2 }] : []);
      stage.close();
    }
  });

  /** The reader is too slow for a passing event, until its token has ended. */
  const behind = (slow: Slow = {}) => {
    const on = ending(vsn, slow, { limits: { passing_outbox_bytes: 1000 } });
    on.enter();
    on.other.send([null, "1", TOPIC, "say", { event: "told", text: "x".repeat(2000) }]);
    on.reader.wire.backlog = 2000;
    on.at(-10);
    on.other.send([null, "2", TOPIC, "point", { x: "late" }]);
    assertEquals(on.reader.take(), []);
    return on;
  };

  Deno.test(`live token: V${vsn}, behind with its reading, hears no late passing event after exp`, () => {
    const { stage, reader } = behind();
    stage.advance(20);
    reader.wire.backlog = 0;
    stage.advance(2000);
    assertEquals([reader.take(), reader.wire.code], [[], 4001]);
    stage.close();
  });

  Deno.test(`live token: V${vsn} hears no answer of slow work that ends after exp, nor what was late behind it`, async () => {
    const done = Promise.withResolvers<void>();
    const { stage, reader } = behind({ push: done.promise });
    reader.send(vsn === "1" ? { topic: TOPIC, event: "later", payload: {}, ref: "3" } : ["1", "3", TOPIC, "later", {}]);
    stage.advance(20);
    reader.wire.backlog = 0;
    done.resolve();
    await stage.settle();
    assertEquals(reader.take(), []);
    stage.advance(1000);
    assertEquals([reader.take(), reader.wire.code], [[], 4001]);
    stage.close();
  });

  Deno.test(`live token: V${vsn} hears nothing of a slow join that ends after exp: neither reply, state nor replay`, async () => {
    const done = Promise.withResolvers<void>();
    const slow: Slow = {};
    const { stage, other, reader, enter, at } = ending(vsn, slow);
    other.send([null, "1", TOPIC, "say", { event: "kept", text: "missed" }]);
    at(-10);
    slow.join = done.promise;
    enter({ since: "0" });
    stage.advance(20);
    done.resolve();
    await stage.settle();
    assertEquals(reader.take(), []);
    stage.advance(1000);
    assertEquals([reader.take(), reader.wire.code], [[], 4001]);
    stage.close();
  });

  Deno.test(`live token: V${vsn} is not served after exp: a join with since is closed 4001, not answered`, () => {
    const { stage, other, enter, at, reader } = ending(vsn);
    other.send([null, "1", TOPIC, "say", { event: "kept", text: "missed" }]);
    at(0);
    assertEquals([enter({ since: "0" }), reader.wire.code], [[], 4001]);
    stage.close();
  });
}

for (const [how, end] of [["4001", "expired"], ["4002", "refused"], ["1001 by hand", "disconnected"]] as const) {
  Deno.test(`live token: whoever is closed ${how} has left at once: nothing of him is held`, async () => {
    const stage = stageOf({}, { graceMs: 60_000 });
    const [client, other] = [stage.client(someone("a"), "2", START + 5500), stage.client(someone("b"))];
    for (const one of [other, client]) join(one, "2");
    other.take();
    if (end === "expired") stage.advance(6000);
    if (end === "refused") await authenticate(stage, client, "bad");
    if (end === "disconnected") stage.gateway.disconnect("a");
    stage.run();
    assertEquals(other.take().filter((frame) => frame[3] === "presence_diff").map((frame) => Object.keys(frame[4].leaves)), [["a"]]);
    assertEquals([...stage.host.members.of("desk/1")].map((member) => member.user.id), ["b"]);
    stage.close();
  });
}

// Renewal.

for (const vsn of VERSIONS) {
  Deno.test(`live token: V${vsn}: a renewal with fewer cases closes those topics with the reason, and touches no other [102]`, async () => {
    const user = someone("a", "attorney", ["1", "2", "3"]);
    const stage = stageOf({ fewer: { user: { ...user, cases: ["2"] }, expires: START + 1e6 } });
    const [client, other] = [stage.client(user, vsn), stage.client(someone("b"))];
    for (const id of ["1", "2", "3"]) join(other, "2", `desk:${id}`);
    for (const id of ["1", "2", "3"]) join(client, vsn, `desk:${id}`);
    const before = [...stage.host.members.of("desk/2")].map(({ session, presence }) => [session, presence]);
    other.take();
    const heard = await authenticate(stage, client, "fewer", vsn);
    const closed = { reason: "forbidden", message: "the token does not name this desk" };
    assertEquals(heard.map(said), [
      ["auth", "phx_reply", { status: "ok", response: { user_id: "a", expires_at: iso(START + 1e6) } }],
      ["desk:1", "phx_close", closed],
      ["desk:3", "phx_close", closed],
    ]);
    // phx_close says which join it ends. [76]
    for (const frame of heard.slice(1)) assertEquals(vsn === "1" ? [frame.join_ref ?? "1", frame.ref] : frame.slice(0, 2), ["1", "1"]);
    // The session that stays is the same one, with the same metas: nobody heard that it left or came back.
    assertEquals([...stage.host.members.of("desk/2")].map(({ session, presence }) => [session, presence]), before);
    assertEquals(other.take().map((frame) => [frame[2], frame[3], Object.keys(frame[4].leaves)]), [
      ["desk:1", "presence_diff", ["a"]],
      ["desk:3", "presence_diff", ["a"]],
    ]);
    other.send([null, "1", "desk:1", "say", { event: "told" }], [null, "1", "desk:2", "say", { event: "told" }]);
    assertEquals(client.take().map((frame) => said(frame).slice(0, 2)), [["desk:2", "told"]]);
    assertEquals(client.wire.code, null);
    stage.close();
  });
}

Deno.test("live token: of 100 topics a renewal closes just those that it does not name, and their places are free again", async () => {
  const ids = Array.from({ length: 100 }, (_, index) => String(index));
  const kept = ids.filter((id) => Number(id) % 3 === 0);
  const stage = stageOf({ fewer: { user: someone("a", "attorney", [...kept, "new"]), expires: START + 1e6 } });
  const client = stage.client(someone("a", "attorney", ids));
  for (const id of ids) join(client, "2", `desk:${id}`);
  client.take();
  const closed = (await authenticate(stage, client, "fewer")).filter((frame) => frame[3] === "phx_close").map((frame) => frame[2]);
  assertEquals(closed, ids.filter((id) => !kept.includes(id)).map((id) => `desk:${id}`));
  for (const id of kept) assertEquals(client.send([null, "2", `desk:${id}`, "annotate", {}])[0][4].status, "ok");
  // What it names besides can be joined now.
  assertEquals(join(client, "2", "desk:new")[0][4].status, "ok");
  stage.close();
});

Deno.test("live token: what was sent behind the renewal is served with its claims, in one burst", async () => {
  const stage = stageOf({ fewer: { user: someone("a", "viewer", ["2"]), expires: START + 1e6 } });
  const client = stage.client(someone("a", "attorney", ["1", "2", "3"]));
  for (const id of ["1", "2"]) join(client, "2", `desk:${id}`);
  client.take();
  client.queue([null, "a", "auth", "authenticate", { token: "fewer" }]);
  client.queue(["1", "p1", "desk:1", "annotate", {}]);
  client.queue(["1", "p2", "desk:2", "annotate", {}]);
  client.queue(["3", "j3", "desk:3", "phx_join", {}]);
  await stage.settle();
  const replies = Object.fromEntries(client.take().filter((frame) => frame[3] === "phx_reply").map((frame) => [frame[1], frame[4].response.reason ?? "ok"]));
  assertEquals(replies, { a: "ok", p1: "unmatched topic", p2: "forbidden", j3: "forbidden" });
  stage.close();
});

Deno.test("live token: a renewal with another role takes effect at once, for what is asked and for slow work under way", async () => {
  const done = Promise.withResolvers<void>();
  const as = (role: User["role"]): Identity => ({ user: someone("a", role), expires: START + 1e6 });
  const stage = stageOf({ viewer: as("viewer"), client: as("client") }, {}, { push: done.promise });
  const client = stage.client(someone("a"));
  join(client, "2");
  client.take();
  const ask = () => client.send([null, "1", TOPIC, "annotate", {}])[0][4];
  assertEquals(ask(), { status: "ok", response: { role: "attorney" } });
  client.send([null, "slow", TOPIC, "later", {}]);
  await authenticate(stage, client, "viewer");
  assertEquals(ask(), { status: "error", response: { reason: "forbidden", message: "the role viewer may not annotate" } });
  done.resolve();
  await stage.settle();
  assertEquals(client.take().map((frame) => [frame[1], frame[4].response.reason]), [["slow", "forbidden"]]);
  await authenticate(stage, client, "client");
  assertEquals(ask(), { status: "ok", response: { role: "client" } });
  stage.close();
});

Deno.test("live token: a renewal concerns its own socket only", async () => {
  const user = someone("a", "attorney", ["1"]);
  const stage = stageOf({ none: { user: { ...user, cases: [] }, expires: START + 1e6 } });
  const [renewed, twin] = [stage.client(user, "2", START + 5500), stage.client(user, "2", START + 5500)];
  for (const client of [renewed, twin]) join(client, "2");
  twin.take();
  await authenticate(stage, renewed, "none");
  assertEquals(twin.send([null, "1", TOPIC, "annotate", {}]).at(-1)[4].status, "ok");
  stage.advance(6000);
  assertEquals([renewed.wire.code, twin.wire.code], [null, 4001]);
  stage.close();
});

for (
  const [id, other] of [["a", "A"], ["a", "a "], ["a", "а"], ["caf\u00e9", "cafe\u0301"], ["1", "01"], ["__proto__", "constructor"], ["a/b", "a%2Fb"]] as const
) {
  Deno.test(`live token: ${JSON.stringify(other)} is not ${JSON.stringify(id)}: his token is refused user_mismatch, then 4002`, async () => {
    const stage = stageOf({ other: { user: someone(other), expires: START + 1e6 } });
    const [client, watcher] = [stage.client(someone(id)), stage.client(someone("watcher"))];
    for (const one of [watcher, client]) join(one, "2");
    client.take();
    const heard = await authenticate(stage, client, "other");
    assertEquals(heard, [[null, "a", "auth", "phx_reply", { status: "error", response: { reason: "user_mismatch" } }]]);
    assertEquals([client.wire.code, [...stage.host.members.of("desk/1")].map((member) => member.user.id)], [4002, ["watcher"]]);
    stage.close();
  });
}

for (const [token, reason] of [["other", "user_mismatch"], ["bad", "token_invalid"], ["old", "token_expired"]] as const) {
  Deno.test(`live token: what was sent behind a token refused ${reason} is not said in the name of the user before`, async () => {
    const stage = stageOf({ other: { user: someone("b"), expires: START + 1e6 }, old: new Refusal("token_expired") });
    const [client, watcher] = [stage.client(someone("a")), stage.client(someone("watcher"))];
    for (const one of [watcher, client]) join(one, "2");
    for (const one of [watcher, client]) one.take();
    client.queue([null, "a", "auth", "authenticate", { token }]);
    client.queue(["1", "p", TOPIC, "say", { event: "kept", text: "as whom?" }]);
    await stage.settle();
    assertEquals([client.take().map((frame) => [frame[1], frame[4].response?.reason]), client.wire.code], [[["a", reason]], 4002]);
    assertEquals(eventsOf(watcher.take(), "kept"), []);
    stage.close();
  });
}

Deno.test("live token: two tokens in one burst: the second must be the first one's user; a bad one first is the end", async () => {
  const stage = stageOf({ a: { user: someone("a"), expires: START + 1e6 }, b: { user: someone("b"), expires: START + 1e6 } });
  const rows: [tokens: string[], replies: string[], code: number | null][] = [
    [["a", "a"], ["ok", "ok"], null],
    [["a", "b"], ["ok", "user_mismatch"], 4002],
    [["b", "a"], ["ok", "user_mismatch"], 4002],
    [["x", "a"], ["token_invalid"], 4002],
    [["a", "x", "a"], ["ok", "token_invalid"], 4002],
  ];
  for (const [tokens, replies, code] of rows) {
    const client = stage.client(null);
    for (const [index, token] of tokens.entries()) client.queue([null, index, "auth", "authenticate", { token }]);
    await stage.settle();
    await stage.settle();
    assertEquals([client.take().map((frame) => frame[4].response.reason ?? "ok"), client.wire.code], [replies, code], tokens.join());
  }
  stage.close();
});

Deno.test("live token: a socket that goes while its token is checked becomes nobody's, and the log does not say that it did", async () => {
  const checked = Promise.withResolvers<Identity>();
  const stage = stageOf({ slow: checked.promise });
  const [gone, late] = [stage.client(null), stage.client(null)];
  for (const client of [gone, late]) client.send([null, "a", "auth", "authenticate", { token: "slow" }], ["1", "1", TOPIC, "phx_join", {}]);
  gone.drop();
  stage.advance(11_000);
  assertEquals(late.wire.code, 4002);
  checked.resolve({ user: someone("a"), expires: START + 1e6 });
  await stage.settle();
  assertEquals([gone.take(), late.take(), stage.gateway.size, stage.reported], [[], [], 0, []]);
  assertEquals([...stage.host.members.of("desk/1")], []);
  assertEquals(stage.notes.filter(({ event }) => event === "authenticated"), []);
  stage.close();
});

Deno.test("live token: a socket that is closed while its token is checked is read on, or the client's answer to the close would never be heard", async () => {
  const checked = Promise.withResolvers<Identity>();
  const stage = stageOf({ slow: checked.promise });
  const [late, known] = [stage.client(null), stage.client(someone("a"))];
  for (const client of [late, known]) client.send([null, "a", "auth", "authenticate", { token: "slow" }]);
  stage.gateway.disconnect("a");
  stage.advance(11_000);
  assertEquals([late.wire.code, known.wire.code], [4002, 1001]);
  checked.resolve({ user: someone("a"), expires: START + 1e6 });
  await stage.settle();
  assertEquals([late.wire.paused, known.wire.paused], [false, false]);
  stage.close();
});

Deno.test("live token: a renewal when the keys cannot be had is answered unavailable, and the socket keeps the token that it has", async () => {
  const stage = stageOf({ later: new Refusal("unavailable", { message: "the keys cannot be had now" }) });
  const client = stage.client(someone("a"), "2", START + 30_000);
  join(client, "2");
  client.take();
  assertEquals((await authenticate(stage, client, "later")).map((frame) => frame[4].response.reason), ["unavailable"]);
  assertEquals(client.wire.code, null);
  assertEquals(client.send([null, "1", TOPIC, "annotate", {}])[0][4].status, "ok");
  stage.advance(30_000);
  assertEquals(client.wire.code, 4001);
  stage.close();
});

Deno.test("live token: a renewal whose tick is lost neither closes a topic that it covers nor leaves one open that it does not", async () => {
  const sql = new BreakableSql();
  const stage = stageOf({ fewer: { user: someone("a", "attorney", ["2"]), expires: START + 1e6 } }, { sql });
  const [client, writer] = [stage.client(someone("a", "attorney", ["1", "2"])), stage.client(someone("w"))];
  for (const id of ["1", "2"]) for (const one of [client, writer]) join(one, "2", `desk:${id}`);
  client.take();
  // Both rooms write in every tick from now on, and no commit is kept until the renewal is over.
  sql.committing = () => sql.failCommits = 1;
  client.queue([null, "a", "auth", "authenticate", { token: "fewer" }]);
  for (let round = 0; round < 5; round++) {
    for (const id of ["1", "2"]) writer.queue([null, "1", `desk:${id}`, "say", { event: "kept" }]);
    await new Promise((resolve) => setTimeout(resolve, 0));
    stage.tick();
  }
  sql.committing = () => {};
  sql.failCommits = 0;
  stage.advance(1000);
  assertEquals(stage.metrics.counts.ticks_lost, 5);
  const closed = client.take().filter((frame) => frame[3] === "phx_close").map((frame) => [frame[2], frame[4].reason]);
  assertEquals(closed, [["desk:1", "forbidden"]]);
  assertEquals([1, 2].map((id) => [...stage.host.members.of(`desk/${id}`)].map((member) => member.user.id).sort()), [["w"], ["a", "w"]]);
  stage.close();
});

Deno.test("live token: a renewal while the disk cannot be read closes nothing for that reason: rights are asked again", async () => {
  const sql = new BreakableSql();
  const reading: Room = room("desk/{id}", {
    migrations: ["create table desk_item (room text not null, id text not null, primary key (room, id)) strict"],
    topics: [behave(deskContract, {
      // As a document asks to which case it belongs.
      admit: (ctx) => void ctx.sql`select id from desk_item where room = ${ctx.room}`,
      join: () => ({}),
      on: { say: () => {}, annotate: () => ({}), later: () => ({}), point: () => {}, show: () => {} },
    })],
  });
  const stage = new Stage([reading], { sql, verify: () => Promise.resolve({ user: someone("a"), expires: START + 1e6 }) });
  const client = stage.client(someone("a"));
  join(client, "2");
  client.take();
  sql.failing = /select id from desk_item/;
  const heard = await authenticate(stage, client, "token");
  sql.failing = null;
  stage.advance(1000);
  assertEquals([...heard, ...client.take()].map((frame) => [frame[3], frame[4].status ?? frame[4].reason]), [["phx_reply", "ok"]]);
  assertEquals(client.send(["1", "2", TOPIC, "annotate", {}]).map((frame) => frame[4].status), ["ok"]);
  stage.close();
});

// The real clock.

Deno.test("live token: a process, the real clock: told at once, closed 4001 at exp, no passing or exact event after exp", async () => {
  await using at = await Outside.start();
  const topic = "collaboration:doc";
  await at.publish("case:1", [{ event: "document:uploaded", payload: { document: { id: "doc" } } }]);
  await using speaker = await at.member(topic);
  const token = await at.token(at.fresh(), 3);
  const exp: number = JSON.parse(atob(token.split(".")[1])).exp * 1000;
  const readers = await Promise.all(["1.0.0", "2.0.0"].map(async (vsn) => {
    const client = await RawClient.open(at.url(token, vsn));
    client.send(vsn === "1.0.0" ? { topic, event: "phx_join", payload: {}, ref: "1", join_ref: "1" } : ["1", "1", topic, "phx_join", {}]);
    return { client, closed: client.closed.then(({ code }) => ({ code, at: Date.now() })) };
  }));
  const over = Promise.all(readers.map(({ closed }) => closed));
  let ended = false;
  over.then(() => ended = true);
  for (let round = 0; !ended && Date.now() < exp + 5000; round++) {
    speaker.send(["1", "1", topic, "cursor:move", { x: Date.now(), y: 0 }]);
    if (round % 4 === 0) speaker.send(["1", "2", topic, "presence:update", { status: String(Date.now()) }]);
    await new Promise((resolve) => setTimeout(resolve, 30));
  }
  for (const { code, at } of await over) {
    assertEquals(code, 4001);
    assertGreaterOrEqual(at, exp);
    assertLess(at, exp + 3000);
  }
  for (const { client } of readers) {
    const heard: [topic: string, event: string, payload: Heard][] = [];
    for (let frame; (frame = await client.next().catch(() => null));) heard.push(said(frame) as [string, string, Heard]);
    assertEquals(heard.filter(([, event]) => event === "token_expiring"), [["auth", "token_expiring", { expires_at: iso(exp) }]]);
    // When each was said, by the same clock.
    const cursors = heard.filter(([, event]) => event === "cursor:position").map(([, , { x }]) => x);
    const statuses = heard.filter(([, event]) => event === "presence_diff").flatMap(([, , { joins }]) =>
      Object.values(joins).map((key) => (key as Heard).metas[0].status)
    );
    for (const times of [cursors, statuses.map(Number).filter(Boolean)]) {
      assertGreater(times.length, 3);
      assertEquals(times.filter((time) => time >= exp), []);
    }
  }
  const refusal = await assertRejects(() => RawClient.open(at.url(token)), HttpRefusal);
  assertEquals([refusal.status, refusal.reason], [403, "token_expired"]);
});

// Disconnection by hand.

const ODD_USERS = [
  "a/b",
  "a%2Fb",
  "a?b=c#d",
  "é😀 \u200f",
  "caf\u00e9",
  "cafe\u0301",
  "__proto__",
  "*",
  "a+b c",
  "x".repeat(255),
  "😀".repeat(127),
  "...",
  "'; --",
];

Deno.test("live token: disconnecting a user over HTTP", async (t) => {
  await using at = await Outside.start();
  const path = (user: string) => `/api/users/${encodeURIComponent(user)}/disconnect`;
  const lines = () => at.server.output().split("\n").filter((line) => line.includes('"user disconnected"')).map((line) => JSON.parse(line));

  for (const role of ["service", "admin"] as const) {
    await t.step(`live token: ${role} disconnects all sockets of the user, V1 and V2, joined or not, and nobody else's: 1001 [49]`, async () => {
      const [user, by] = [at.fresh(), at.fresh(role, [])];
      await using watcher = await at.member("case:1");
      await using bystander = await at.member("case:1", { ...at.fresh(), id: `${user.id}0` });
      const clients = [await at.member("case:1", user), await at.connect(user), await at.connect(user, "1.0.0")];
      await watcher.heard();
      assertEquals(await at.post(path(user.id), "", await at.token(by)), { status: 200, body: { disconnected: 3 } });
      assertEquals(await Promise.all(clients.map((client) => client.closed)), Array(3).fill({ code: 1001, reason: "disconnected" }));
      assertEquals(eventsOf(await watcher.heard(), "user:left").map((frame) => frame[4].user.id), [user.id]);
      await bystander.heard();
      // He may come back, and is then disconnected anew.
      await using again = await at.member("case:1", user);
      await again.heard();
      assertEquals((await at.post(path(user.id), "", await at.token(by))).body, { disconnected: 1 });
      assertEquals((await again.closed).code, 1001);
      assertEquals((await at.post(path(user.id), "", await at.token(by))).body, { disconnected: 0 });
    });
  }

  await t.step("live token: 401 without a good token, 403 for other roles, 404 for what is no user, and nobody is disconnected", async () => {
    const user = at.fresh();
    await using client = await at.connect(user);
    const good = await at.token(at.fresh("admin"));
    const [head, body, signature] = good.split(".");
    const rows: [status: number, reason: string, token: string | null][] = [
      [401, "unauthenticated", null],
      [401, "unauthenticated", ""],
      [401, "token_invalid", "nonsense"],
      [401, "token_invalid", `${head}.${body}.${signature.slice(0, -6)}`],
      [401, "token_expired", await at.token(at.fresh("admin"), -60)],
    ];
    for (const role of ["attorney", "paralegal", "client", "viewer"] as const) rows.push([403, "forbidden", await at.token(at.fresh(role))]);
    // Nor may he do it to himself.
    rows.push([403, "forbidden", await at.token(user)]);
    for (const [status, reason, token] of rows) {
      const answer = await at.post(path(user.id), "", token);
      assertEquals([answer.status, answer.body.reason], [status, reason]);
    }
    for (
      const where of [
        "/api/users/%ff%fe/disconnect",
        "/api/users/a%00b/disconnect",
        "/api/users/a%0Ab/disconnect",
        "/api/users//disconnect",
        "/api/users/a/b/disconnect",
      ]
    ) {
      assertEquals((await at.post(where, "", good)).status, 404, where);
    }
    for (const method of ["GET", "PUT", "DELETE"]) assertEquals((await at.post(path(user.id), "", good, method)).status, 404, method);
    // Wherever else a token may stand, it is not looked for.
    assertEquals((await at.post(`${path(user.id)}?token=${good}`, JSON.stringify({ token: good }), null)).status, 401);
    await client.heard();
  });

  await t.step("live token: ids with slashes, per cent signs, emoji, and of 255 characters are found, look-alikes are not", async () => {
    const token = await at.token(at.fresh("service"));
    const clients = new Map(
      await Promise.all(ODD_USERS.map(async (id): Promise<[string, RawClient]> => [id, await at.connect({ ...someone(id), name: "x" })])),
    );
    for (const id of ODD_USERS) {
      assertEquals(await at.post(path(id), "", token), { status: 200, body: { disconnected: 1 } }, id);
      assertEquals((await clients.get(id)!.closed).code, 1001);
      clients.delete(id);
      await Promise.all([...clients.values()].map((client) => client.heard()));
    }
  });

  await t.step("live token: each disconnection is a line of the journal: who, by whom, how many; no token", async () => {
    const by = at.fresh("admin");
    const [user, token] = [at.fresh(), await at.token(by)];
    await using client = await at.connect(user);
    const before = lines().length;
    assertEquals((await at.post(path(user.id), "", token)).status, 200);
    await client.closed;
    for (const end = Date.now() + 5000; lines().length <= before && Date.now() < end;) await new Promise((resolve) => setTimeout(resolve, 20));
    const { at: time, ...line } = lines().at(-1)!;
    assertEquals(line, { level: "info", event: "user disconnected", user: user.id, by: by.id, sockets: 1 });
    assert(Math.abs(Date.parse(time) - Date.now()) < 60_000);
  });

  await t.step("live token: an id that is longer than any user's disconnects nobody, and is not written down", async () => {
    const { status, body } = await at.post(path("y".repeat(4000)), "", await at.token(at.fresh("service")));
    assert(status === 404 || body.disconnected === 0);
    assertEquals(await at.server.stop(), 0);
    assertEquals(at.server.output().includes("y".repeat(300)), false);
    assertEquals(at.server.output().includes('"level":"error"'), false, at.server.output());
  });
});

Deno.test("live token: while the server drains, a disconnection is answered and takes what is still there; both come to an end", async () => {
  const stage = stageOf();
  const app = makeApp({
    ...NOTHING_LENT,
    registry: stage.registry,
    gateway: stage.gateway,
    metrics: stage.metrics,
    verify: () => Promise.resolve({ user: someone("admin", "admin"), expires: START + 1e6 }),
    limits: DEFAULT_LIMITS,
    channels: [deskContract],
    allowedOrigins: [],
    trustProxy: false,
    sha256: stage.host.sha256,
    report: stage.host.report,
    note: () => {},
  });
  const clients = Array.from({ length: 8 }, (_, index) => stage.client(someone(index % 2 ? "a" : "b")));
  const drained = stage.gateway.drain(100);
  const answer = await app.request("/api/users/a/disconnect", { method: "POST", headers: { authorization: "Bearer admin" } });
  assertEquals(answer.status, 200);
  for (let step = 0; step < 10; step++) {
    stage.advance(25);
    await stage.settle();
  }
  await drained;
  assertEquals(new Set(clients.filter((_, index) => index % 2 === 0).map(({ wire }) => wire.code)), new Set([1012]));
  assertEquals(clients.filter(({ wire }) => wire.code !== 1012 && wire.code !== 1001), []);
  assertEquals([stage.gateway.size, stage.reported], [0, []]);
  stage.close();
});

// Nothing that is written has a token in it.

/** What of a token would be enough to know it by: itself, its signature, and the same as `authToken` carries them. */
function traces(token: string): string[] {
  const signature = token.split(".").at(-1)!;
  const encoded = btoa(token).replace(/=+$/, "");
  return [token, signature, encoded, encoded.slice(-40), encodeURIComponent(token)];
}

/** Every file below a folder, as a string of bytes. */
function bytesOf(dir: string): [path: string, bytes: string][] {
  return [...Deno.readDirSync(dir)].flatMap((entry): [string, string][] => {
    const path = `${dir}/${entry.name}`;
    return entry.isDirectory ? bytesOf(path) : [[path, new TextDecoder("latin1").decode(Deno.readFileSync(path))]];
  });
}

Deno.test("live token: no token is written down, good, forged or expired, by whatever way it came: not in the output, not in DATA_DIR", async () => {
  await using at = await Outside.start();
  const service = await at.token(at.fresh("service"));
  const admin = await at.token(at.fresh("admin"));
  const topic = "case:1";
  const document = { event: "document:uploaded", payload: { document: { id: "d" } } };
  // A case with a record: there refusals are kept.
  assertEquals((await at.publish(topic, [document], service)).status, 200);
  /** Where each token was put. */
  const sent = new Map<string, string>();
  const http = (method: string, path: string, headers: Record<string, string> = {}) =>
    TcpClient.request(at.server.port, method, path, { connection: "close", ...headers }).catch(() => null);
  const upgrade = (path: string, headers: Record<string, string> = {}) => http("GET", path, { ...UPGRADE, ...headers });
  const socket = (query: string) => `/socket/websocket?vsn=2.0.0${query}`;
  const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
  /** Says the frames on a socket with a user, and waits until they have been served. */
  const tell = async (vsn: "1.0.0" | "2.0.0", ...frames: unknown[]) => {
    const client = await at.connect(at.fresh("attorney", ["1"]), vsn);
    client.send(vsn === "1.0.0" ? { topic, event: "phx_join", payload: {}, ref: "1", join_ref: "1" } : ["1", "1", topic, "phx_join", {}]);
    for (const frame of frames) client.send(frame);
    client.send(vsn === "1.0.0" ? { topic: "phoenix", event: "heartbeat", payload: {}, ref: "end" } : [null, "end", "phoenix", "heartbeat", {}]);
    for (let frame; (frame = await client.next().catch(() => null));) if ((Array.isArray(frame) ? frame[1] : frame.ref) === "end") break;
    await client.close();
  };
  const authenticate = async (token: string, user: User | null, more: object = {}) => {
    const client = await at.connect(user);
    await client.ask([null, "1", "auth", "authenticate", { token, ...more }]);
    await client.close();
  };
  const ways: Record<string, (token: string) => Promise<unknown>> = {
    "the URL": (token) => upgrade(socket(`&token=${token}`)),
    "the URL, twice": (token) => upgrade(socket(`&token=${token}&token=${token}`)),
    "the URL of the Python class": (token) => upgrade(`/socket?token=${token}`),
    "a URL that is no upgrade": (token) => http("GET", socket(`&token=${token}`)),
    "a URL with a wrong version": (token) => upgrade(`/socket/websocket?vsn=9.0.0&token=${token}`),
    "a URL with a strange origin": (token) => upgrade(socket(`&token=${token}`), { origin: "https://evil.example.com" }),
    "a URL with a wrong key": (token) => upgrade(socket(`&token=${token}`), { "sec-websocket-key": "short" }),
    "a URL with a host that is none": (token) => http("GET", socket(`&token=${token}`), { host: "a b" }),
    "an upgrade with a host that is none": (token) => upgrade(socket(`&token=${token}`), { host: "a b" }),
    "a URL in absolute form": (token) => http("GET", `http://[bad/socket/websocket?token=${token}`),
    "a URL with a method that is none": (token) => http("FROBNICATE", socket(`&token=${token}`)),
    "the subprotocol": (token) => upgrade(socket(""), { "sec-websocket-protocol": `phoenix, base64url.bearer.phx.${btoa(token)}` }),
    "the subprotocol, as it is": (token) => upgrade(socket(""), { "sec-websocket-protocol": `phoenix, base64url.bearer.phx.${token}` }),
    "the subprotocol, without its name": (token) => upgrade(socket(""), { "sec-websocket-protocol": `phoenix, ${token}` }),
    "authenticate": (token) => authenticate(token, null),
    "authenticate, as a renewal": (token) => authenticate(token, at.fresh()),
    "authenticate, with more": (token) => authenticate(token, null, { [token]: token, user_id: token }),
    "Authorization of a publication": (token) => at.post("/api/topics/case%3A1/events", JSON.stringify({ events: [document] }), token),
    "Authorization of a disconnection": (token) => at.post("/api/users/nobody/disconnect", "", token),
    "Authorization of a reading": (token) => at.post("/api/cases/1/log", "", token, "GET"),
    "Authorization of the metrics": (token) => at.post("/metrics", "", token, "GET"),
    "Authorization without Bearer": (token) => http("GET", "/api/cases/1/log", { authorization: token }),
    "Authorization Basic": (token) => http("GET", "/api/cases/1/log", { authorization: `Basic ${btoa(`${token}:`)}` }),
    "Authorization of an upgrade": (token) => upgrade(socket(""), bearer(token)),
    "a cookie": (token) => upgrade(socket(""), { cookie: `token=${token}` }),
    "a user agent": (token) => upgrade(socket(""), { "user-agent": token }),
    "the origin": (token) => upgrade(socket(""), { origin: `https://${token}.example.com` }),
    "the host": (token) => upgrade(socket(""), { host: token }),
    "X-Forwarded-For and -Host": (token) => upgrade(socket(""), { "x-forwarded-for": token, "x-forwarded-host": token }),
    "vsn": (token) => upgrade(`/socket/websocket?vsn=${token}`),
    "client_version": async (token) => upgrade(socket(`&token=${await at.token()}&client_version=${token}`)),
    "the path": (token) => http("GET", `/${token}`),
    "the path of a socket": (token) => upgrade(`/socket/${token}`),
    "the path of a publication": (token) => at.post(`/api/topics/${token}/events`, JSON.stringify({ events: [document] }), service),
    "the path of a publication that is refused": (token) => at.post(`/api/topics/case%3A${token}/events`, JSON.stringify({ events: [document] }), admin),
    "the path of a reading": (token) => at.post(`/api/cases/${token}/log`, "", admin, "GET"),
    "the path of a disconnection": (token) => at.post(`/api/users/${token}/disconnect`, "", admin),
    "the query of a reading": (token) => at.post(`/api/cases/1/log?after=${token}&token=${token}`, "", admin, "GET"),
    "a publication that is refused": (token) => at.post("/api/topics/case%3A1/events", JSON.stringify({ events: [{ ...document, event: token }] }), service),
    "a body that is no JSON": (token) => at.post("/api/topics/case%3A1/events", `{"events":${token}}`, service),
    "a topic": (token) => tell("2.0.0", ["2", "2", `case:${token}`, "phx_join", {}], ["3", "3", token, "phx_join", {}], ["3", "4", token, "x", {}]),
    "a topic of a user of every case": async (token) => await (await at.member(`case:${token.slice(0, 250)}`)).close(),
    "an event": (token) => tell("2.0.0", ["1", "2", topic, token, {}], ["1", "3", "auth", token, {}], ["1", "4", "phoenix", token, {}]),
    "refs": (token) => tell("2.0.0", [token, token, topic, "presence:update", {}], [token, token, "case:2", "phx_join", {}]),
    "a payload": (token) =>
      tell("2.0.0", ["1", "2", topic, "presence:update", { token, [token]: 1, status: 1 }], ["1", "3", topic, "batch", { messages: [{ event: token }] }]),
    "join params": (token) =>
      tell("2.0.0", ["2", "2", "case:1", "phx_join", { token, since: token, user_id: token }], ["3", "3", "case:2", "phx_join", { token, authToken: token }]),
    "a refused join's params": (token) =>
      tell("2.0.0", ["2", "2", "collaboration:d", "phx_join", { token }], ["3", "3", topic, "phx_join", { user_id: token }]),
    "a V1 frame": (token) => tell("1.0.0", { topic, event: token, payload: { token }, ref: token, token }),
    "text that is no frame": async (token) => {
      const client = await at.connect();
      client.send(`authenticate ${token}`);
      await client.closed;
    },
    "a binary frame": async (token) => {
      const client = await at.connect();
      client.send(new TextEncoder().encode(token));
      await client.closed;
    },
  };
  // By a socket without a user, its frames are refused before they are looked at.
  ways["a frame of nobody"] = async (token) => {
    const client = await at.connect(null);
    await client.ask(["1", "1", `case:${token}`, "phx_join", { token }]);
    await client.close();
  };
  for (const [way, put] of Object.entries(ways)) {
    const good = await at.token();
    const [head, body, signature] = (await at.token()).split(".");
    const forged = `${head}.${body}.${signature.split("").toReversed().join("")}`;
    for (const [kind, token] of Object.entries({ good, forged, expired: await at.token(at.fresh(), -3600) })) {
      sent.set(token, `${kind}, in ${way}`);
      await put(token);
    }
  }
  const running = bytesOf(at.server.dataDir);
  assertEquals(await at.server.stop("SIGTERM"), 0, at.server.output());
  const written = [["the output", at.server.output()], ...running, ...bytesOf(at.server.dataDir)];
  assert(running.some(([path, bytes]) => path.includes("caseroom.db") && bytes.includes("document:uploaded")), "the search would find what is there");
  assertGreater(at.server.output().split("\n").filter((line) => line.includes('"socket refused"')).length, 10);
  const found = [...sent].flatMap(([token, way]) =>
    written.filter(([, text]) => traces(token).some((trace) => text.includes(trace))).map(([where]) => `${way}: ${where}`)
  );
  assertEquals(found, []);
  assertEquals(at.server.output().includes('"dropped":'), false, "lines that were not written say nothing");
  for (const [, text] of written) for (const token of [service, admin]) assertEquals(traces(token).some((trace) => text.includes(trace)), false);
  assertEquals(at.server.output().split("\n").filter((line) => line !== "" && !/^Caseroom is ready|^\{"level":"info"/.test(line)), []);
});
