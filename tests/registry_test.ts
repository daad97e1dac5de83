import { assert, assertEquals, assertLessOrEqual, assertRejects, assertThrows } from "@std/assert";
import { channel } from "../protocol/contract.ts";
import { Refusal } from "../protocol/reason.ts";
import { Actor } from "../rooms/actor.ts";
import { Metrics } from "../rooms/metrics.ts";
import type { Ground } from "../rooms/turns.ts";
import { Gate } from "../rooms/gate.ts";
import type { Host } from "../rooms/host.ts";
import { denoHost, MemoryMembers } from "../rooms/hosts/deno.ts";
import { DenoSql } from "../rooms/hosts/deno_sql.ts";
import { DEFAULT_LIMITS } from "../rooms/limits.ts";
import { behave, Later, room } from "../rooms/room.ts";
import type { Effect, Item } from "../rooms/seam.ts";
import { RoomSql } from "../rooms/sql.ts";
import { Storage } from "../rooms/storage.ts";
import { BreakableSql, CrankedClock, lab, labContract, someone, Stage } from "./support/stage.ts";
import { z } from "zod";
import { random } from "./support/random.ts";

Deno.test("registry: the first declared match wins, a room of users has one actor for each of them [53]", () => {
  const any = { join: { payload: z.object({}), reply: z.unknown() }, pushes: {}, events: {} } as const;
  const topic = (pattern: string) => behave(channel({ topic: pattern, ...any }), { admit() {}, join: () => ({}), on: {} });
  const stage = new Stage([
    room("document/{documentId}", { migrations: [], topics: [topic("document:{documentId}"), topic("ot:{documentId}")] }),
    room("search/{user}", { migrations: [], topics: [topic("search:{*}")] }),
    room("late/{id}", { migrations: [], topics: [topic("document:{id}"), topic("exact")] }),
  ]);
  const at = (name: string) => stage.registry.find(name, "u1")?.room;
  assertEquals(["document:9", "ot:9", "search:x", "search:", "document:a:b", "exact"].map(at), [
    "document/9",
    "document/9",
    "search/u1",
    "search/u1",
    "document/a:b",
    "late/",
  ]);
  for (const none of ["document:", "document", "ot", "exact:1", "", ":", "constructor", "__proto__:1", "Document:9"]) assertEquals(at(none), undefined, none);
  stage.close();
});

Deno.test("registry: publishing needs the right, a topic that matches, and an event that is published", async () => {
  const stage = new Stage([lab()]);
  const publish = async (topic: string, role: "service" | "admin", event: string, payload: unknown = {}) => {
    const answer = stage.registry.publish(topic, someone("s", role), [{ event, payload }]);
    stage.run();
    return (await assertRejects(() => answer, Refusal)).reason;
  };
  assertEquals(await publish("lab:1", "admin", "posted"), "forbidden");
  assertEquals(await publish("nope:1", "service", "posted"), "unmatched topic");
  for (const event of ["kept", "told", "nope", "constructor", "__proto__", "toString"]) {
    assertEquals(await publish("lab:1", "service", event), "unknown_event", event);
  }
  for (const payload of [null, 1, "x", []]) assertEquals(await publish("lab:1", "service", "posted", payload), "invalid_payload");
  assertEquals(await publish("lab:1", "service", "posted", { x: "x".repeat(70_000) }), "payload_too_large");
  // Who was refused for want of a right stands in the record of all who were, beside that of any room.
  assertEquals(stage.host.sql.run("select room, event from log", [], false).map((row) => Object.values(row)), [["refusals", "refused"]]);
  stage.close();
});

// A million topics.

Deno.test("registry: 20,000 topics joined and left leave the registry bounded and nothing behind", () => {
  const stage = new Stage([lab({ join: (ctx) => void ctx.presence.track({ name: "x" }) })], { graceMs: 1000 });
  for (let at = 0; at < 20_000; at += 100) {
    const client = stage.client(someone(`u${at % 700}`));
    for (let n = at; n < at + 100; n++) client.queue([null, `${n}`, `lab:${n}`, "phx_join", {}]);
    stage.run();
    assertEquals(client.take().filter((frame) => frame[4].status === "ok").length, 100);
    if (at % 200) client.drop(at % 300 === 0);
    else for (let n = at; n < at + 100; n++) client.queue([null, "x", `lab:${n}`, "phx_leave", {}]);
    stage.run();
    if (at % 200 === 0) client.drop(true);
    stage.advance(1000);
  }
  stage.advance(5000);
  assertLessOrEqual(stage.registry.size, 1000);
  assertEquals(stage.gateway.size, 0);
  let members = 0;
  for (let n = 0; n < 20_000; n++) members += [...stage.host.members.of(`lab/${n}`)].length;
  assertEquals(members, 0);
  stage.packed = 0;
  const effects = Array.from({ length: 20_000 }, (_, n): Effect => ({ kind: "broadcast", topic: `lab:${n}`, event: "told", body: "{}", durability: "exact" }));
  stage.gateway.deliver(effects);
  assertEquals(stage.packed, 0);
  stage.close();
});

Deno.test("registry: joins that were refused, or abandoned while they took their time, leave nothing behind", async () => {
  const done = Promise.withResolvers<void>();
  let slow = false;
  const stage = new Stage([lab({
    join(ctx) {
      if (ctx.id === "no") {
        ctx.presence.track({ name: "x" });
        throw new Refusal("forbidden");
      }
      return slow ? new Later(() => done.promise) : undefined;
    },
  })]);
  const client = stage.client();
  client.join("lab:no");
  client.join("lab:1");
  slow = true;
  client.join("lab:1");
  client.drop(true);
  done.resolve();
  await stage.settle();
  stage.advance(10_000);
  stage.packed = 0;
  for (const id of ["no", "1"]) {
    stage.gateway.deliver([{ kind: "broadcast", topic: `lab:${id}`, event: "told", body: "{}", durability: "exact" }]);
    assertEquals([stage.packed, [...stage.host.members.of(`lab/${id}`)]], [0, []], id);
  }
  stage.close();
});

// Timers.

const clockRoom = (ran: string[]) =>
  lab({
    on: {
      do: (ctx, { ms, timer }) => ctx.after(Number(ms), String(timer)),
    },
  }, {
    timers: {
      sweep: (ctx) => void ran.push(`sweep of ${ctx.id}`),
      crash: () => {
        ran.push("crash");
        throw new Error("ours");
      },
      refuse: () => {
        ran.push("refuse");
        throw new Refusal("busy");
      },
      again(ctx) {
        ran.push("again");
        ctx.after(1000, "again");
      },
    },
  });

Deno.test("registry: timers are many over one alarm, ring in order, and a second call moves one", () => {
  const ran: string[] = [];
  const stage = new Stage([clockRoom(ran)]);
  const client = stage.client();
  for (const id of ["1", "2", "3"]) client.join(`lab:${id}`);
  const set = (id: string, ms: number, timer = "sweep") => client.send([null, "1", `lab:${id}`, "do", { ms, timer }]);
  set("1", 3000);
  set("2", 1000);
  set("3", 2000);
  set("1", 500);
  stage.advance(499);
  assertEquals(ran, []);
  for (const _ of [1, 2, 3, 4]) stage.advance(500);
  assertEquals(ran, ["sweep of 1", "sweep of 2", "sweep of 3"]);
  stage.advance(60_000 - 4000);
  assertEquals(ran.length, 3);
  stage.close();
});

Deno.test("registry: a timer survives a restart; one that crashes or refuses is reported and not run for ever; one may set itself again", () => {
  const sql = new DenoSql(":memory:");
  const ran: string[] = [];
  const first = new Stage([clockRoom(ran)], { sql });
  const client = first.client();
  client.join("lab:1");
  for (const timer of ["sweep", "crash", "refuse", "again", "gone", "constructor", "__proto__"]) {
    client.send([null, "1", "lab:1", "do", { ms: 1000, timer }]);
  }
  const second = new Stage([clockRoom(ran)], { sql });
  second.run();
  assertEquals(ran, []);
  second.advance(1000);
  assertEquals(ran.toSorted(), ["again", "crash", "refuse", "sweep of 1"]);
  second.advance(500);
  assertEquals([ran.length, second.reported.length], [4, 2]);
  second.advance(1500);
  assertEquals(ran.slice(4), ["again", "again"]);
  // What came due while nobody was there rings at once.
  const third = new Stage([clockRoom(ran)], { sql });
  third.clock.time += 1_000_000;
  third.registry.start();
  third.advance(0);
  assertEquals(ran.slice(6), ["again"]);
  third.close();
});

// Calls.

/** `lab/x` calls `far/y` with `do {to, n}`; a far room keeps what it took, in order. */
function callers(how: (n: number) => void = () => {}) {
  const far = lab({}, {
    called(ctx, { n }, from) {
      how(n);
      const count = Number(ctx.sql`select count(*) as n from far_item where room = ${ctx.room}`[0].n);
      ctx.sql`insert into far_item (room, id, body) values (${ctx.room}, ${String(count).padStart(6, "0")}, ${`${from} ${n}`})`;
    },
  }, "far");
  const near = lab({
    on: {
      do: (ctx, { to, n }) => ctx.call(`far/${to}`, { n }),
      also(ctx, { to, n }) {
        ctx.call(`far/${to}`, { n });
        throw new Refusal("busy");
      },
      hush: (ctx) => {
        for (const n of [1, 2, 3]) ctx.call("far/1", { n });
        ctx.call("nowhere/1", {});
        ctx.call("far", {});
      },
    },
  });
  return [near, far];
}

const taken = (sql: { run: DenoSql["run"] }, id = "1") =>
  sql.run("select body from far_item where room = ? order by id", [`far/${id}`], false).map(({ body }) => body);
const waiting = (sql: { run: DenoSql["run"] }) => sql.run("select target, failed from outbox order by id", [], false).map((row) => Object.values(row));

Deno.test("registry: a call is delivered once, in order for each pair of rooms, and leaves no row; a refused turn calls nobody", () => {
  const sql = new DenoSql(":memory:");
  const stage = new Stage(callers(), { sql });
  const client = stage.client();
  for (const id of ["a", "b"]) client.join(`lab:${id}`);
  for (let n = 0; n < 20; n++) client.queue([null, "1", `lab:${n % 2 ? "a" : "b"}`, n % 5 ? "do" : "also", { to: n % 3, n }]);
  for (let time = 0; time < 20; time++) stage.run();
  const sent = (near: number, to: number) =>
    Array.from({ length: 20 }, (_, n) => n).filter((n) => n % 5 && n % 2 === near && n % 3 === to).map((n) => `lab/${near ? "a" : "b"} ${n}`);
  for (const to of [0, 1, 2]) {
    const arrived = taken(sql, String(to));
    for (const near of [0, 1]) assertEquals(arrived.filter((body) => String(body).startsWith(near ? "lab/a" : "lab/b")), sent(near, to));
  }
  assertEquals(waiting(sql), []);
  stage.close();
});

Deno.test("registry: a call survives a restart before it was delivered, and is taken once when the restart came after", () => {
  for (const ticks of [1, 2]) {
    const sql = new DenoSql(":memory:");
    const first = new Stage(callers(), { sql });
    const client = first.client();
    client.join("lab:a");
    client.queue([null, "1", "lab:a", "do", { to: 1, n: 1 }]);
    client.queue([null, "2", "lab:a", "do", { to: 1, n: 2 }]);
    for (let tick = 0; tick < ticks; tick++) first.tick();
    assertEquals([client.take().filter((frame) => frame[4].status === "ok").length >= 2, waiting(sql).length], [true, 2]);
    assertEquals(taken(sql).length, ticks - 1);
    const second = new Stage(callers(), { sql });
    for (let time = 0; time < 5; time++) second.run();
    assertEquals([taken(sql), waiting(sql)], [["lab/a 1", "lab/a 2"], []], `after ${ticks} ticks`);
    second.close();
  }
});

Deno.test("registry: a call that is refused is settled, one that crashes its target stands aside, and those behind arrive", () => {
  const sql = new DenoSql(":memory:");
  const stage = new Stage(
    callers((n) => {
      if (n === 1) throw new Refusal("busy");
      if (n === 2) throw new RangeError("ours");
    }),
    { sql },
  );
  const client = stage.client();
  client.join("lab:a");
  client.send([null, "1", "lab:a", "hush", {}]);
  for (let time = 0; time < 5; time++) stage.run();
  assertEquals(taken(sql), ["lab/a 3"]);
  assertEquals(waiting(sql).length, 3);
  assertEquals(waiting(sql)[0], ["far/1", "RangeError"]);
  assert(waiting(sql).every(([, failed]) => failed !== null));
  assertEquals(stage.reported.length, 1);
  // Nothing of it comes back after a restart.
  const second = new Stage(callers(), { sql });
  for (let time = 0; time < 5; time++) second.run();
  assertEquals([taken(sql).length, second.reported], [1, []]);
  second.close();
});

Deno.test("registry: a call to a kind that takes none stands aside; to oneself, and in circles, it arrives", () => {
  const said: string[] = [];
  const stage = new Stage([
    lab({ on: { do: (ctx, { to }) => ctx.call(String(to), { n: 3 }) } }, {
      called(ctx, { n }, from) {
        said.push(`${ctx.room} from ${from}: ${n}`);
        if (n > 0) ctx.call(from, { n: n - 1 });
      },
    }),
    lab({}, {}, "far"),
  ]);
  const client = stage.client();
  client.join("lab:1");
  for (const to of ["lab/1", "lab/2", "far/1"]) {
    client.send([null, "1", "lab:1", "do", { to }]);
    for (let time = 0; time < 5; time++) stage.run();
  }
  assertEquals(said.slice(0, 4), [3, 2, 1, 0].map((n) => `lab/1 from lab/1: ${n}`));
  assertEquals(said.slice(4), ["lab/2 from lab/1: 3", "lab/1 from lab/2: 2", "lab/2 from lab/1: 1", "lab/1 from lab/2: 0"]);
  assertEquals(stage.host.sql.run("select target, failed from outbox", [], false).map((row) => Object.values(row)), [["far/1", "TypeError"]]);
  stage.close();
});

Deno.test("registry: a call that was taken leaves its row in the end, although the tick of the removal was lost", () => {
  const sql = new BreakableSql();
  const stage = new Stage(callers(), { sql });
  const client = stage.client();
  client.join("lab:a");
  client.queue([null, "1", "lab:a", "do", { to: 1, n: 1 }]);
  stage.tick();
  stage.tick();
  assertEquals(taken(sql), ["lab/a 1"]);
  sql.failCommits = 1;
  stage.tick();
  assertEquals([sql.failCommits, waiting(sql).length], [0, 1]);
  for (let time = 0; time < 20; time++) stage.advance(1000);
  assertEquals([taken(sql), waiting(sql)], [["lab/a 1"], []]);
  stage.close();
});

for (const seed of [1, 2, 3, Date.now() % 100_000]) {
  Deno.test(`registry: calls arrive once and in order whatever ticks are lost and whenever it restarts, seed ${seed}`, () => {
    const next = random(seed);
    const sql = new BreakableSql();
    let stage = new Stage(callers(), { sql });
    const sent = new Map<string, string[]>();
    let n = 0;
    let time = stage.clock.now();
    for (let round = 0; round < 60; round++) {
      const clients = ["a", "b"].map((id) => {
        const client = stage.client();
        for (let time = 0; time < 20 && client.join(`lab:${id}`).heard[0][4].status !== "ok"; time++);
        return { id, client };
      });
      for (let tick = next(10); tick >= 0; tick--) {
        const asked = [];
        for (let frame = next(4); frame > 0; frame--) {
          const { id, client } = clients[next(2)];
          const [ref, to] = [`${++n}`, `${next(2)}`];
          client.queue([null, ref, `lab:${id}`, "do", { to, n }]);
          asked.push({ id, client, ref, to });
        }
        if (next(4) === 0) sql.failCommits = 1;
        if (next(3) === 0) stage.clock.advance(50);
        stage.tick();
        const heard = new Map(clients.map(({ client }) => [client, client.take()]));
        for (const { id, client, ref, to } of asked) {
          if (heard.get(client)!.find((frame) => frame[1] === ref)![4].status !== "ok") continue;
          const pair = `${to} lab/${id}`;
          sent.set(pair, [...sent.get(pair) ?? [], `lab/${id} ${ref}`]);
        }
      }
      sql.failCommits = 0;
      time = stage.clock.now();
      if (next(3) > 0) continue;
      stage = new Stage(callers(), { sql });
      stage.clock.time = time;
    }
    for (let time = 0; time < 300; time++) stage.advance(100);
    // Rows whose removal was lost go with a restart at the latest.
    stage = new Stage(callers(), { sql });
    for (let time = 0; time < 100; time++) stage.advance(100);
    for (const [pair, bodies] of sent) {
      const [to, from] = pair.split(" ");
      assertEquals(taken(sql, to).filter((body) => String(body).startsWith(`${from} `)), bodies);
    }
    assertEquals(waiting(sql), []);
    stage.close();
  });
}

// Eviction.

const evictable = lab({
  admit(ctx) {
    if (ctx.user.role === "viewer") throw new Refusal("forbidden");
  },
  join(ctx) {
    ctx.presence.track({ name: ctx.user.id });
    return { cursor: ctx.cursor() };
  },
  arrive: (ctx) => ctx.broadcast("kept", { arrived: ctx.user.id }),
  depart: (ctx) => ctx.broadcast("kept", { departed: ctx.user.id }),
  on: {
    do(ctx, { id }) {
      ctx.sql`insert into lab_item (room, id, body) values (${ctx.room}, ${String(id)}, '')`;
      ctx.broadcast("kept", { id });
      ctx.presence.update({ activity: String(id) });
    },
    also: (ctx) => ({ n: Number(ctx.sql`select count(*) as n from lab_item where room = ${ctx.room}`[0].n), cursor: ctx.cursor() }),
    bytes(ctx, { id }) {
      ctx.presence.untrack();
      ctx.presence.track({ name: String(id) });
      throw new Refusal("busy");
    },
    hush(ctx) {
      ctx.presence.untrack();
      throw new Error("ours");
    },
  },
}, {
  timers: { sweep: (ctx) => ctx.announce(labContract("lab"), "kept", { swept: ctx.now() }) },
  called: (ctx, message) => ctx.announce(labContract("lab"), "kept", message),
});

/** A log makes its cursors with a random key of its own; this one has the same as any other. */
function sameCursors(host: Host, owners: ReadonlyMap<string, readonly string[]>): Storage {
  new Storage(host, owners);
  host.sql.run("update log_key set key = 'the same'", [], true);
  host.sql.commit();
  return new Storage(host, owners);
}

/** One room over a gate of its own. With `evicting`, a fresh actor serves every turn. */
class Bare {
  readonly members = new MemoryMembers();
  readonly #clock = new CrankedClock();
  #ids = 0;
  readonly #host = denoHost(":memory:", { clock: this.#clock, members: this.members, id: () => `id${++this.#ids}`, soon: () => {}, report: () => {} });
  readonly #storage = sameCursors(this.#host, new Map([["lab", evictable.migrations]]));
  #effects: Effect[] = [];
  readonly #gate = new Gate(this.#host, this.#storage, (effects) => void this.#effects.push(...effects), () => {}, new Metrics());
  readonly #sql = new RoomSql(this.#host.sql, "lab_");
  #actor: Actor | undefined;

  constructor(private readonly evicting: boolean) {}

  do(act: (actor: Actor) => unknown): unknown[] {
    if (this.evicting || !this.#actor) {
      const ground: Ground = {
        metrics: new Metrics(),
        host: this.#host,
        storage: this.#storage,
        gate: this.#gate,
        limits: DEFAULT_LIMITS,
        graceMs: 0,
        mayLogRefusal: () => true,
        ask: () => Promise.reject(new Error("not here")),
        rooms: () => Promise.resolve([]),
        stirred: () => Promise.resolve(),
        stir: () => {},
        carry: () => {},
        labour: () => {},
        armTimers: () => {},
        rested: () => {},
      };
      this.#storage.log.forget("lab/1");
      this.#actor = new Actor(evictable, "1", this.#sql, ground);
    }
    const actor = this.#actor;
    this.#gate.post(() => act(actor));
    this.#gate.tick();
    return this.#effects.splice(0).map((effect) => ({ ...effect, body: "body" in effect ? JSON.parse(String(effect.body)) : null }));
  }
  close(): void {
    this.#host.sql.close();
  }
}

/** The metas of a key in the order of their refs: their own order has a test of its own. */
function sorted(effects: unknown): unknown {
  return JSON.parse(JSON.stringify(effects), (key, value) => {
    return key === "metas" ? value.toSorted((a: { phx_ref: string }, b: { phx_ref: string }) => a.phx_ref < b.phx_ref ? -1 : 1) : value;
  });
}

Deno.test("registry: an actor comes back with the metas of a key in the same order [89]", () => {
  const states = [new Bare(false), new Bare(true)].map((bare) => {
    const at = { room: "lab/1", topic: "lab:1", ref: "1", payload: { id: "x" }, size: 20 };
    const join = (session: string) => bare.do((actor) => actor.inbox({ ...at, kind: "join", session, user: someone("u") }));
    join("g.1.1");
    join("g.2.1");
    bare.do((actor) => actor.inbox({ ...at, kind: "push", session: "g.1.1", event: "do" }));
    const effects = join("g.3.1") as { event?: string; body: { u: { metas: { phx_ref: string }[] } } }[];
    bare.close();
    return effects.find(({ event }) => event === "presence_state")!.body.u.metas.map(({ phx_ref }) => phx_ref);
  });
  assertEquals(states[1], states[0]);
});

for (const seed of [1, 2, 3, 4, Date.now() % 100_000]) {
  Deno.test(`registry: an actor evicted after any turn comes back equal, seed ${seed}`, () => {
    const next = random(seed);
    const [kept, evicted] = [new Bare(false), new Bare(true)];
    const at = { room: "lab/1", topic: "lab:1", size: 20 };
    let sessions = 0;
    const open: string[] = [];
    const users = new Map<string, string>();
    for (let step = 0; step < 500; step++) {
      const user = someone(`u${next(4)}`, next(10) === 0 ? "viewer" : "attorney");
      const some = open[next(open.length)] ?? "g.0.0";
      const session = `g.${next(5)}.${++sessions}`;
      const item = [
        () => {
          const replaces = next(3) === 0 && open.length > 0 ? open.splice(next(open.length), 1)[0] : undefined;
          if (user.role !== "viewer") open.push(session);
          users.set(session, user.id);
          return { kind: "join", session, ref: `${step}`, payload: {}, user, replaces } as const;
        },
        ...["do", "do", "also", "bytes", "nope"].map((event) => () => ({ kind: "push", session: some, ref: `${step}`, event, payload: { id: step } }) as const),
        () => ({ kind: next(2) ? "gone" : "leave", session: open.splice(open.indexOf(some), 1)[0] ?? "g.0.0", ref: `${step}`, held: false }) as const,
        () => ({ kind: "renew", session: some, user: { ...user, id: users.get(some)! } }) as const,
        () => ({ kind: "push", session: some, ref: `${step}`, event: "hush", payload: {} }) as const,
        () => null,
      ][next(10)]();
      const act = (actor: Actor) => {
        if (item) return actor.inbox({ ...at, ...item } as Item);
        if (step % 2) return actor.timer("sweep");
        return actor.called({ id: step + 1, room: "far/1", target: "lab/1", message: `{"step":${step}}` }, () => {});
      };
      assertEquals(sorted(evicted.do(act)), sorted(kept.do(act)), `step ${step}: ${JSON.stringify(item)}`);
      assertEquals([...evicted.members.of("lab/1")], [...kept.members.of("lab/1")]);
    }
    kept.close();
    evicted.close();
  });
}

Deno.test("registry: an actor with somebody in it, or with work under way, is not evicted", async () => {
  const done = Promise.withResolvers<void>();
  const stage = new Stage([lab({ join: (ctx) => ctx.id === "slow" ? new Later(() => done.promise) : undefined })]);
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  a.join("lab:here");
  b.join("lab:slow");
  const passing = stage.client(someone("c"));
  for (let n = 0; n < 2500; n++) {
    passing.queue([null, "1", `lab:${n}`, "phx_join", {}]);
    passing.queue([null, "1", `lab:${n}`, "phx_leave", {}]);
    if (n % 50 === 0) stage.tick();
  }
  stage.run();
  assertLessOrEqual(stage.registry.size, 1002);
  assertEquals(a.send([null, "9", "lab:here", "do", {}])[0][4].status, "ok");
  done.resolve();
  await stage.settle();
  assertEquals(b.take()[0][4].status, "ok");
  stage.close();
});

Deno.test("registry: data of a newer program is not opened", () => {
  const sql = new DenoSql(":memory:");
  new Stage([lab({}, { migrations: ["create table lab_a (x text) strict", "create table lab_b (x text) strict"] })], { sql });
  assertThrows(() => new Stage([lab({}, { migrations: ["create table lab_a (x text) strict"] })], { sql }), TypeError, "newer version");
  sql.close();
});
