/**
 * Somebody sets the machine's clock an hour on, or back. What lasts so long or happens so often goes by the time that
 * passes; what is said of a date (a token's `exp`) goes by the clock on the wall.
 */
import { assertEquals, assertGreaterOrEqual, assertLess } from "@std/assert";
import { SignJWT } from "jose";
import { z } from "zod";
import { channel, exact, lasting, passing } from "../protocol/contract.ts";
import { Refusal } from "../protocol/reason.ts";
import { rooms } from "../rooms/channels/mod.ts";
import { denoHost, Journal } from "../rooms/hosts/deno.ts";
import { packFrame } from "../rooms/hosts/deno_wire.ts";
import { serve } from "../rooms/hosts/deno_server.ts";
import { build } from "../rooms/house.ts";
import { DEFAULT_LIMITS } from "../rooms/limits.ts";
import { behave, Later, type Room, room } from "../rooms/room.ts";
import { sign, verifier } from "../rooms/token.ts";
import { TcpClient } from "./support/raw.ts";
import { BreakableSql, type CrankedClock, lab, someone, Stage, type StageOptions } from "./support/stage.ts";

const START = Date.parse("2026-01-01T00:00:00Z");
const HOUR = 3_600_000;
const JUMPS = [["forwards", HOUR], ["backwards", -HOUR]] as const;
const TOPIC = "lab:1";
const Any = z.looseObject({});

/** The same test for both ways that a clock can be set; `jump` sets it. */
function whenSet(name: string, run: (jump: (clock: CrankedClock) => void, ms: number) => void | Promise<void>): void {
  for (const [way, ms] of JUMPS) Deno.test(`clock: set an hour ${way}: ${name}`, () => run((clock) => clock.jump(ms), ms));
}

const labStage = (behaviour: Parameters<typeof lab>[0] = {}, options: StageOptions = {}, more: Parameters<typeof lab>[1] = {}) =>
  new Stage([lab({
    on: { do: (ctx, payload) => ctx.broadcast("kept", payload) },
    ...behaviour,
  }, more)], options);

// Sockets.

whenSet("a silent socket is closed 1001 after 60 s of silence, neither sooner nor later [45]", (jump) => {
  const stage = labStage();
  const [silent, pings] = [stage.client(someone("a")), stage.client(someone("b"))];
  stage.advance(30_000);
  jump(stage.clock);
  stage.advance(1000);
  assertEquals([silent.wire.code, pings.wire.code], [null, null]);
  pings.wire.received += 6;
  stage.advance(29_000);
  assertEquals([silent.wire.code, pings.wire.code], [null, null]);
  stage.advance(2000);
  assertEquals([silent.wire.code, pings.wire.code], [1001, null]);
  stage.close();
});

whenSet("a socket of nobody is closed 4002 after 10 s, neither sooner nor later", (jump) => {
  const stage = labStage();
  const early = stage.client(null);
  stage.advance(5000);
  jump(stage.clock);
  const late = stage.client(null);
  stage.advance(5000);
  assertEquals([early.wire.code, late.wire.code], [null, null]);
  stage.advance(1000);
  assertEquals([early.wire.code, late.wire.code], [4002, null]);
  stage.advance(5000);
  assertEquals(late.wire.code, 4002);
  stage.close();
});

whenSet("the journal says how long a socket was really open", (jump) => {
  const stage = labStage();
  const client = stage.client();
  stage.advance(3000);
  jump(stage.clock);
  stage.advance(2000);
  client.drop();
  assertEquals(stage.notes.filter(({ event }) => event === "socket closed").map(({ seconds }) => seconds), [5]);
  stage.close();
});

whenSet("presence is held for its grace, neither shorter nor longer", (jump) => {
  const stage = labStage({ join: (ctx) => ctx.presence.track({}) }, { graceMs: 5000 });
  const [watcher, back, gone] = [stage.client(someone("watcher")), stage.client(someone("back")), stage.client(someone("gone"))];
  for (const client of [watcher, back, gone]) client.join(TOPIC);
  stage.advance(1000);
  back.drop();
  gone.drop();
  watcher.take();
  stage.advance(1000);
  jump(stage.clock);
  stage.advance(3000);
  assertEquals(watcher.take(), []);
  stage.client(someone("back")).join(TOPIC);
  // The new session has taken the place of the held one.
  assertEquals(watcher.take().map((frame) => [Object.keys(frame[4].joins), Object.keys(frame[4].leaves)]), [[["back"], ["back"]]]);
  stage.advance(1001);
  assertEquals(watcher.take().map((frame) => [Object.keys(frame[4].joins), Object.keys(frame[4].leaves)]), [[[], ["gone"]]]);
  stage.close();
});

whenSet("a drain takes the time that it was given", async (jump) => {
  const stage = labStage();
  const clients = Array.from({ length: 40 }, (_, index) => stage.client(someone(`u${index}`)));
  let over = false;
  const drained = stage.gateway.drain(1000).then(() => over = true);
  const closed = () => clients.filter(({ wire }) => wire.code === 1012).length;
  for (let passed = 0; passed < 1000; passed += 25) {
    if (passed === 500) {
      jump(stage.clock);
      assertGreaterOrEqual(closed(), 15);
      assertLess(closed(), 25);
    }
    if (passed < 900) assertEquals(over, false);
    stage.advance(25);
    await stage.settle();
  }
  await drained;
  assertEquals([closed(), stage.gateway.size], [40, 0]);
  stage.close();
});

// Budgets.

const BUDGETS: [what: string, limit: object, frame: (n: number) => unknown][] = [
  ["requests", { requests: 3 }, (n) => [null, n, TOPIC, "also", {}]],
  ["joins", { joins: 4 }, (n) => [`${n}`, n, `lab:${n + 10}`, "phx_join", {}]],
  ["batches", { batches: 3 }, (n) => [null, n, TOPIC, "batch", { messages: [{ event: "also", payload: {} }] }]],
  ["batched messages", { batched_messages: 3 }, (n) => [null, n, TOPIC, "batch", { messages: [{ event: "also", payload: {} }] }]],
];

for (const [what, limits, frame] of BUDGETS) {
  whenSet(`what was spent of the budget of ${what} comes back after a minute, neither sooner nor later`, (jump) => {
    const stage = labStage({}, { limits });
    const client = stage.client();
    client.join(TOPIC);
    client.take();
    const ask = (n: number) => {
      const { status, response } = client.send(frame(n)).find((heard) => heard[3] === "phx_reply")![4];
      return status === "ok" ? "ok" : [response.reason, response.retry_after_ms];
    };
    assertEquals([1, 2, 3].map(ask), ["ok", "ok", "ok"]);
    stage.advance(10_000);
    jump(stage.clock);
    assertEquals(ask(4), ["rate_limited", 50_000]);
    stage.advance(40_000);
    // It is not silent, only poor.
    client.wire.received++;
    assertEquals(ask(5), ["rate_limited", 10_000]);
    stage.advance(10_000);
    assertEquals([ask(6), client.wire.code], ["ok", null]);
    stage.close();
  });
}

whenSet("messages of any kind are counted for a minute: a flood in parts is none", (jump) => {
  const stage = labStage({}, { limits: { frames: 10 } });
  const client = stage.client();
  const beat = () => client.send(...Array.from({ length: 8 }, () => [null, "1", "phoenix", "heartbeat", {}]));
  beat();
  stage.advance(30_000);
  jump(stage.clock);
  stage.advance(31_000);
  beat();
  assertEquals(client.wire.code, null);
  beat();
  assertEquals(client.wire.code, 1008);
  stage.close();
});

whenSet("of a user's refusals the first ten of a minute are in the record, and the next minute's too", (jump) => {
  const stage = labStage({ on: { do: (ctx, payload) => ctx.broadcast("kept", payload), also: () => forbid() } });
  const client = stage.client();
  client.join(TOPIC);
  client.send([null, "1", TOPIC, "do", {}]);
  const logged = () => Number(stage.host.sql.run("select count(*) as n from log where event = 'refused'", [], false)[0].n);
  const reach = () => client.send(...Array.from({ length: 15 }, () => [null, "1", TOPIC, "also", {}]));
  reach();
  assertEquals(logged(), 10);
  jump(stage.clock);
  stage.advance(61_000);
  reach();
  assertEquals(logged(), 20);
  stage.close();
});

function forbid(): never {
  throw new Refusal("forbidden");
}

whenSet("cursors keep their pace: the first at once, the last of a burst a thirtieth of a second later", (jump) => {
  const deskContract = channel({
    topic: "desk:{id}",
    join: { payload: Any, reply: z.unknown() },
    pushes: { point: { payload: Any, budget: "cursors" } },
    events: { kept: lasting(Any), told: exact(Any), seen: passing(Any, { per: "user" }) },
  });
  const desk: Room = room("desk/{id}", {
    migrations: [],
    topics: [behave(deskContract, { admit() {}, join: () => ({}), on: { point: (ctx, place) => ctx.broadcastFrom("seen", place) } })],
  });
  const stage = new Stage([desk]);
  const [speaker, hearer] = [stage.client(someone("a")), stage.client(someone("b"))];
  for (const client of [speaker, hearer]) client.join("desk:1");
  hearer.take();
  const point = (x: number) => speaker.send([null, null, "desk:1", "point", { x }]);
  const heard = () => hearer.take().map((frame) => frame[4].x);
  point(1);
  point(2);
  assertEquals(heard(), [1]);
  stage.advance(10);
  jump(stage.clock);
  point(3);
  assertEquals(heard(), []);
  stage.advance(23);
  assertEquals(heard(), []);
  stage.advance(1);
  assertEquals(heard(), [3]);
  stage.advance(1000);
  point(4);
  assertEquals(heard(), [4]);
  stage.close();
});

// Work.

whenSet("slow work is given up after its four seconds, neither sooner nor later", async (jump) => {
  const stage = labStage({ on: { do: () => new Later(() => new Promise(() => {})) } });
  const client = stage.client();
  client.join(TOPIC);
  client.send([null, "1", TOPIC, "do", {}]);
  stage.advance(2000);
  jump(stage.clock);
  stage.advance(1999);
  await stage.settle();
  assertEquals(client.take().filter((frame) => frame[1] === "1"), []);
  stage.advance(1);
  await stage.settle();
  assertEquals(client.take().filter((frame) => frame[1] === "1").map((frame) => frame[4].response.reason), ["timeout"]);
  stage.close();
});

whenSet("a join for a document that is on its way waits a second, neither shorter nor longer", async (jump) => {
  const stage = new Stage(rooms);
  const client = stage.client();
  client.queue(["1", "1", "collaboration:doc", "phx_join", {}]);
  stage.run();
  stage.advance(500);
  jump(stage.clock);
  stage.advance(499);
  await stage.settle();
  assertEquals(client.take(), []);
  stage.advance(1);
  await stage.settle();
  assertEquals(client.take().map((frame) => frame[4].response.reason), ["not_found"]);
  stage.close();
});

whenSet("what met a lost tick is tried again soon", (jump) => {
  const sql = new BreakableSql();
  const stage = labStage({ join: (ctx) => ctx.presence.track({}), depart: (ctx) => ctx.broadcast("kept", { left: ctx.user.id }) }, { sql });
  const [watcher, gone] = [stage.client(someone("watcher")), stage.client(someone("gone"))];
  for (const client of [watcher, gone]) client.join(TOPIC);
  watcher.take();
  sql.failCommits = 1;
  gone.drop();
  assertEquals(watcher.take(), []);
  jump(stage.clock);
  stage.advance(200);
  assertEquals(watcher.take().map((frame) => frame[3]).sort(), ["kept", "presence_diff"]);
  stage.close();
});

/** A room whose `do` sets a timer of that name for so many ms. */
function ringing(options: StageOptions = {}) {
  const rung: string[] = [];
  const timers = { sweep: () => void rung.push("sweep"), other: () => void rung.push("other") };
  const stage = labStage({ on: { do: (ctx, { ms, name }) => ctx.after(Number(ms), String(name)) } }, options, { timers });
  const client = stage.client();
  client.join(TOPIC);
  const set = (name: string, ms: number) => client.send([null, "1", TOPIC, "do", { name, ms }]);
  return { stage, rung, set };
}

whenSet("a timer rings when its time has passed, once, no later", (jump) => {
  const { stage, rung, set } = ringing();
  set("sweep", 10_000);
  stage.advance(5000);
  jump(stage.clock);
  stage.advance(4999);
  assertEquals(rung, []);
  stage.advance(1);
  assertEquals(rung, ["sweep"]);
  stage.advance(30_000);
  assertEquals(rung, ["sweep"]);
  stage.close();
});

whenSet("timers ring in their order and time though others are set meanwhile", (jump) => {
  const { stage, rung, set } = ringing();
  set("sweep", 10_000);
  stage.advance(5000);
  jump(stage.clock);
  set("other", 8000);
  stage.advance(4800);
  assertEquals(rung, []);
  stage.advance(400);
  assertEquals(rung, ["sweep"]);
  stage.advance(2500);
  assertEquals(rung, ["sweep"]);
  stage.advance(500);
  assertEquals(rung, ["sweep", "other"]);
  stage.close();
});

// The record.

whenSet("a room's events keep their order, for members, for who comes back, and in the chain; `at` is what the clock said", async (jump, ms) => {
  const stage = labStage();
  const client = stage.client();
  client.join(TOPIC);
  const tell = (n: number) => client.send([null, `${n}`, TOPIC, "do", { n }]).filter((frame) => frame[3] === "kept").map((frame) => frame[4].cursor)[0];
  const first = tell(1);
  const more = [2, 3, 4].map((n) => {
    jump(stage.clock);
    stage.advance(10);
    return tell(n);
  });
  assertEquals(new Set([first, ...more]).size, 4);
  const back = stage.client(someone("b"));
  const { heard } = back.join(TOPIC, { since: first, aliases: false });
  assertEquals(heard.filter((frame) => frame[3] === "kept").map((frame) => [frame[4].n, frame[4].cursor]), [2, 3, 4].map((n, index) => [n, more[index]]));
  const rows = stage.host.sql.run("select at from log order by seq", [], false);
  assertEquals(rows.map(({ at }) => Number(at) - START), [0, 1, 2, 3].map((jumps) => jumps * (ms + 10)));
  const reading = stage.registry.read(TOPIC, someone("b"), null, 100);
  stage.run();
  assertEquals((await reading).events.map(({ payload }) => (payload as { n: number }).n), [1, 2, 3, 4]);
  stage.close();
});

whenSet("a case lists its newest documents first, in the order in which they came", async (jump) => {
  const stage = new Stage(rooms);
  const upload = async (id: string) => {
    const answer = stage.registry.publish("case:1", someone("back end", "service", []), [{ event: "document:uploaded", payload: { document: { id } } }]);
    stage.advance(10);
    await answer;
  };
  await upload("a");
  await upload("b");
  jump(stage.clock);
  await upload("c");
  const listed = stage.client().join("case:1").heard[0][4].response.documents;
  assertEquals(listed.map(({ id }: { id: string }) => id), ["c", "b", "a"]);
  stage.close();
});

// Tokens: these go by the clock on the wall.

Deno.test("clock: set an hour forwards: a token that has thereby ended closes 4001 within a second, and hears nothing before", () => {
  const stage = labStage();
  const [short, long, other] = [
    stage.client(someone("a"), "2", START + 1_800_000),
    stage.client(someone("b"), "2", START + 2 * HOUR),
    stage.client(someone("c")),
  ];
  for (const client of [short, long, other]) client.join(TOPIC);
  short.take();
  stage.clock.jump(HOUR);
  other.send([null, "1", TOPIC, "do", {}]);
  assertEquals([short.take(), short.wire.code], [[], null]);
  stage.advance(1000);
  assertEquals([short.take(), short.wire.code, long.wire.code], [[], 4001, null]);
  // Set right again, it stays closed: the client had to ask for another token.
  stage.clock.jump(-HOUR);
  stage.advance(1000);
  assertEquals([short.wire.code, long.wire.code, other.wire.code], [4001, null, null]);
  stage.close();
});

Deno.test("clock: set forwards into the last minute of a token: token_expiring comes at once, and its end at exp", () => {
  const stage = labStage({}, { limits: { idle_ms: 2 ** 30 } });
  const client = stage.client(someone("a"), "2", START + HOUR + 30_000);
  stage.advance(1000);
  assertEquals(client.take(), []);
  stage.clock.jump(HOUR);
  stage.advance(1000);
  assertEquals(client.take().map((frame) => frame[3]), ["token_expiring"]);
  stage.advance(27_000);
  assertEquals([client.take(), client.wire.code], [[], null]);
  stage.advance(1000);
  assertEquals(client.wire.code, 4001);
  stage.close();
});

Deno.test("clock: set an hour back: a token lasts until the clock says its exp, and is warned of once", () => {
  const stage = labStage({}, { limits: { idle_ms: 2 ** 30 } });
  const client = stage.client(someone("a"), "2", START + 120_000);
  stage.advance(70_000);
  assertEquals(client.take().map((frame) => frame[3]), ["token_expiring"]);
  stage.clock.jump(-HOUR);
  stage.advance(HOUR);
  assertEquals([client.take(), client.wire.code], [[], null]);
  stage.advance(49_000);
  assertEquals(client.wire.code, null);
  stage.advance(1000);
  assertEquals([client.take(), client.wire.code], [[], 4001]);
  stage.close();
});

Deno.test("clock: tokens are checked by the clock on the wall: exp and nbf, before and after it is set", async () => {
  const clock = new Stage([]).clock;
  const secret = new TextEncoder().encode("a secret of the tests, at least 32 bytes");
  const verify = verifier({ secret, maxBytes: 8192, now: () => clock.now() });
  const outcome = (token: string) => verify(token).then(() => "ok", (error) => error.reason);
  const claims = { sub: "a", role: "viewer", nbf: (START + HOUR / 2) / 1000, exp: (START + 2 * HOUR) / 1000 };
  const now = await sign(secret, someone("a"), 600, START);
  const later = await new SignJWT(claims).setProtectedHeader({ alg: "HS256" }).sign(secret);
  assertEquals([await outcome(now), await outcome(later)], ["ok", "token_invalid"]);
  clock.jump(HOUR);
  assertEquals([await outcome(now), await outcome(later)], ["token_expired", "ok"]);
  clock.jump(-HOUR);
  assertEquals([await outcome(now), await outcome(later)], ["ok", "token_invalid"]);
});

// Deno's own: its server looks at its connections, and its journal counts lines.

/** The wall clock of this process, set by so much until the end of the block. */
class WallSet implements Disposable {
  readonly #now = Date.now;
  #jumped = 0;
  constructor() {
    Date.now = () => this.#now() + this.#jumped;
  }
  jump(ms: number): void {
    this.#jumped += ms;
  }
  [Symbol.dispose](): void {
    Date.now = this.#now;
  }
}

async function served(request_ms: number) {
  const host = denoHost(":memory:");
  const reported: unknown[] = [];
  const limits = { ...DEFAULT_LIMITS, request_ms };
  const [begun, answers] = [Promise.withResolvers<void>(), Promise.withResolvers<void>()];
  const { app, gateway } = build({
    host: { ...host, report: (error) => void reported.push(error) },
    rooms: [],
    verify: () => Promise.reject(new Refusal("token_invalid")),
    pack: packFrame,
    limits,
    graceMs: 0,
    allowedOrigins: [],
    trustProxy: false,
    note: () => {},
  });
  app.get("/slow", async (c) => {
    begun.resolve();
    await answers.promise;
    return c.text("here");
  });
  const server = await serve(app, gateway, { host: "127.0.0.1", port: 0, limits, report: (error) => void reported.push(error) });
  const stop = async () => {
    await server.stop();
    host.sql.close();
    assertEquals(reported, []);
  };
  return { port: server.port, begun, answers, stop };
}

Deno.test("clock: set an hour forwards: a request under way is answered, not cut", async () => {
  using wall = new WallSet();
  const { port, begun, answers, stop } = await served(30_000);
  const client = await TcpClient.connect(port);
  await client.ask("GET", "/slow", { connection: "close" });
  await begun.promise;
  wall.jump(HOUR);
  // It looks at its connections once a second.
  await new Promise((resolve) => setTimeout(resolve, 1200));
  answers.resolve();
  const answer = await client.answer().catch((error) => error.message);
  client.close();
  await stop();
  assertEquals(answer.status, 200, JSON.stringify(answer));
});

Deno.test("clock: set an hour back: a request that never ends is cut after its time all the same", async () => {
  using wall = new WallSet();
  const { port, stop } = await served(300);
  const client = await TcpClient.connect(port);
  await client.write("GET /health HTTP/1.1\r\nhost: x\r\n");
  // Connections are taken in their order: once a second one has been answered, the first one is known.
  assertEquals((await TcpClient.request(port, "GET", "/health", { connection: "close" })).status, 200);
  wall.jump(-HOUR);
  const since = performance.now();
  // The answer ends with the connection, or is given up after five seconds.
  await client.answer().catch(() => {});
  const took = performance.now() - since;
  client.close();
  await stop();
  assertLess(took, 3000);
});

for (const [way, ms] of JUMPS) {
  Deno.test(`clock: set an hour ${way}: the journal writes on, and counts the lines of its second anew`, async () => {
    using wall = new WallSet();
    let text = "";
    const journal = new Journal((bytes) => {
      text += new TextDecoder().decode(bytes);
      return Promise.resolve(bytes.length);
    });
    for (let line = 0; line < 600; line++) journal.note("before", { line });
    wall.jump(ms);
    journal.note("after", {});
    journal.report(new Error("one"), "here");
    await journal.flush();
    const lines = text.trim().split("\n").map((line) => JSON.parse(line));
    assertEquals(lines.filter(({ event }) => event === "after").length, 1);
    assertEquals(lines.filter(({ level }) => level === "error").length, 1);
  });
}
