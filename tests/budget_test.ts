/** How much a user may ask for, over all his sockets, and what becomes of who asks for more. [V05, V06, X10] */
import { assert, assertEquals, assertLessOrEqual, assertThrows } from "@std/assert";
import { z } from "zod";
import { channel, exact, passing } from "../protocol/contract.ts";
import { Refusal } from "../protocol/reason.ts";
import { type Budget, Purse, Purses } from "../rooms/budget.ts";
import { DEFAULT_LIMITS, type Limits } from "../rooms/limits.ts";
import { behave, room } from "../rooms/room.ts";
import { outcome, Phone, rateLimiter } from "./support/page.ts";
import { startServer } from "./support/process.ts";
import { random } from "./support/random.ts";
import { RawClient } from "./support/raw.ts";
import { someone, Stage, type StageClient } from "./support/stage.ts";

// The windows.

const WINDOWS: readonly (readonly [Budget, number, number])[] = [
  ["requests", 100, 60_000],
  ["joins", 300, 60_000],
  ["authentications", 10, 60_000],
  ["batches", 600, 60_000],
  ["batched_messages", 2000, 60_000],
  ["operations", 50, 1000],
  ["rate_refusals", 5000, 60_000],
  ["frames", 20_000, 60_000],
];

/** What is spent within a thousandth of the window may stand together. */
const GRAIN_MS = 60;

const purse = (limits: Partial<Limits> = {}) => new Purse({ ...DEFAULT_LIMITS, ...limits });

for (const [budget, limit, ms] of WINDOWS) {
  Deno.test(`budget: ${limit} ${budget} in ${ms} ms; one more works when that is over, and not 1 ms before [V05]`, () => {
    const spent = purse();
    for (let n = 0; n < limit; n++) assertEquals(spent.spend(budget, 5000), 0);
    assertEquals(spent.spend(budget, 5000), ms);
    assertEquals(spent.spend(budget, 5000 + ms - 1), 1);
    assertEquals(spent.spend(budget, 5000 + ms), 0);
  });
}

Deno.test("budget: the window slides: what was spent first is free first", () => {
  const spent = purse();
  for (let n = 0; n < 60; n++) spent.spend("requests", 0);
  for (let n = 0; n < 40; n++) spent.spend("requests", 30_000);
  assertEquals(spent.spend("requests", 59_999), 1);
  for (let n = 0; n < 60; n++) assertEquals(spent.spend("requests", 60_000), 0);
  assertEquals(spent.spend("requests", 60_000), 30_000);
});

Deno.test("budget: several at once wait until all of them are free, and spend nothing until then", () => {
  const spent = purse({ batched_messages: 10 });
  for (const [now, count] of [[0, 4], [10_000, 4], [20_000, 2]]) assertEquals(spent.spend("batched_messages", now, count), 0);
  assertEquals([3, 4, 5, 8, 9, 10].map((count) => spent.spend("batched_messages", 30_000, count)), [30_000, 30_000, 40_000, 40_000, 50_000, 50_000]);
  // More than the limit never fits.
  assertEquals(spent.spend("batched_messages", 30_000, 11), 60_000);
  assertEquals(spent.spend("batched_messages", 90_000, 11), 60_000);
  assertEquals(spent.spend("batched_messages", 90_000, 10), 0);
});

Deno.test("budget: budgets do not touch each other", () => {
  const spent = purse({ requests: 1, joins: 1 });
  assertEquals([spent.spend("requests", 0), spent.spend("requests", 0), spent.spend("joins", 0), spent.spend("joins", 0)], [0, 60_000, 0, 60_000]);
});

for (const seed of [Math.trunc(Math.random() * 2 ** 31), 1]) {
  Deno.test(`budget: it agrees with a plain list of moments that are a grain apart (seed ${seed})`, () => {
    const pick = random(seed);
    const [spent, limit] = [purse({ requests: 50 }), 50];
    let times: number[] = [];
    for (let now = 0, step = 0; step < 5000; step++, now += GRAIN_MS + pick(pick(10) === 0 ? 10_000 : 200)) {
      const count = 1 + pick(3);
      times = times.filter((at) => now - at < 60_000);
      const over = times.length + count - limit;
      const wait = over <= 0 ? 0 : times[over - 1] + 60_000 - now;
      assertEquals(spent.spend("requests", now, count), wait, `seed ${seed}, step ${step}, at ${now}`);
      if (wait === 0) times.push(...Array(count).fill(now));
    }
  });

  Deno.test(`budget: however close the moments, no window holds more than the limit (seed ${seed})`, () => {
    const pick = random(seed);
    const [spent, limit] = [purse({ requests: 50 }), 50];
    const times: number[] = [];
    for (let now = 0, step = 0; step < 20_000; step++, now += pick(40)) if (spent.spend("requests", now) === 0) times.push(now);
    assert(times.length > limit);
    for (let n = limit; n < times.length; n++) assert(times[n] - times[n - limit] >= 60_000 - GRAIN_MS, `seed ${seed}: ${times[n - limit]} to ${times[n]}`);
  });
}

for (const gap of [1, 10, 50, 59]) {
  Deno.test(`budget: what comes steadily, every ${gap} ms, is forgotten one by one too, and the wait says so [V05]`, () => {
    const spent = purse();
    for (let n = 0; n < 100; n++) assertEquals(spent.spend("requests", n * gap), 0);
    const wait = spent.spend("requests", 100 * gap);
    assert(wait > 0);
    assertLessOrEqual(wait, 60_000 + GRAIN_MS - 100 * gap);
    for (let n = 0; n < 100; n++) assertEquals(spent.spend("requests", 60_000 + GRAIN_MS + n * gap), 0, `after ${n}`);
  });

  Deno.test(`budget: who stays below a limit, steadily every ${gap} ms, never meets it`, () => {
    const spent = purse({ frames: Math.ceil(60_000 / gap) + 2 * GRAIN_MS });
    for (let now = 0; now < 300_000; now += gap) assertEquals(spent.spend("frames", now), 0, `at ${now}`);
  });
}

Deno.test("budget: purses are forgotten once their windows are over, and not before", () => {
  const purses = new Purses(DEFAULT_LIMITS);
  for (let user = 0; user < 1000; user++) purses.of(`user_${user}`).spend("requests", user);
  purses.of("late").spend("requests", 50_000);
  purses.of("quick").spend("operations", 59_000);
  purses.of("nothing");
  assertEquals(purses.size, 1003);
  assertEquals(purses.of("late"), purses.of("late"));
  purses.sweep(59_999);
  assertEquals(purses.size, 1002);
  purses.sweep(60_499);
  assertEquals(purses.size, 501);
  purses.sweep(61_000);
  assertEquals(purses.size, 1);
  assertEquals(purses.of("late").spend("requests", 109_999, 100), 1);
  purses.sweep(110_000);
  assertEquals(purses.size, 0);
});

// Through the gateway.

const Any = z.looseObject({});
const contract = channel({
  topic: "lab:{id}",
  join: { payload: Any, reply: z.unknown() },
  pushes: {
    ask: { payload: Any },
    operation: { payload: Any, budget: "operations" },
    point: { payload: Any, budget: "cursors" },
  },
  events: { asked: exact(Any), pointed: passing(Any, { per: "user" }) },
});
const lab = room("lab/{id}", {
  migrations: [],
  topics: [behave(contract, {
    admit() {},
    join: () => ({}),
    on: {
      ask: (ctx) => ctx.broadcastFrom("asked", {}),
      operation: () => {},
      point: (ctx, payload) => ctx.broadcastFrom("pointed", payload),
    },
  })],
});

/** The limits of the design, but for those named; nobody is closed for being silent. */
function setUp(limits: Partial<Limits> = {}) {
  const { requests, joins, batches, batched_messages } = DEFAULT_LIMITS;
  const stage: Stage = new Stage([lab], {
    limits: { requests, joins, batches, batched_messages, idle_ms: 2 ** 31 - 1, ...limits },
    // A token is its user's id.
    verify: (token) => Promise.resolve({ user: someone(token), expires: stage.clock.now() + 3_600_000 }),
  });
  const member = (user: string, topic = "lab:1") => {
    const client = stage.client(someone(user));
    assertEquals(client.join(topic).heard[0][4].status, "ok");
    return client;
  };
  return { stage, member };
}

let refs = 0;

/** What the frames were answered, in their order: "ok", or why not. */
function say(client: StageClient, topic: string, event: string, payload: unknown = {}, times = 1): unknown[] {
  const sent = Array.from({ length: times }, () => `r${++refs}`);
  const heard = client.send(...sent.map((ref) => [event === "phx_join" ? ref : null, ref, topic, event, payload]));
  const replies = heard.filter((frame) => frame[3] === "phx_reply" && sent.includes(frame[1]));
  assertEquals(replies.map((frame) => frame[1]), sent.slice(0, replies.length), "out of order");
  return replies.map((frame) => frame[4].status === "ok" ? "ok" : frame[4].response);
}
const ask = (client: StageClient, times = 1) => say(client, "lab:1", "ask", {}, times);
const oks = (times: number) => Array(times).fill("ok");
const limited = (limit: number, retry_after_ms: number) => [{ reason: "rate_limited", limit, retry_after_ms }];
/** What is kept back comes in a tick of its own, behind a promise. */
async function advance(stage: Stage, ms: number) {
  stage.advance(ms);
  await stage.settle();
}
const isAlive = (client: StageClient) => assertEquals([say(client, "phoenix", "heartbeat"), client.wire.code], [["ok"], null]);

Deno.test("budget: 100 requests in 60 s; the 101st is refused with the limit and the time to wait, which is right to the millisecond [V05]", () => {
  const { stage, member } = setUp();
  const [a, b] = [member("a"), member("b")];
  assertEquals(ask(a, 100), oks(100));
  assertEquals(b.take().length, 100);
  stage.advance(1000);
  assertEquals(ask(a), limited(100, 59_000));
  assertEquals(b.take(), []);
  stage.advance(58_999);
  assertEquals(ask(a), limited(100, 1));
  stage.advance(1);
  assertEquals(ask(a), ["ok"]);
  assertEquals(b.take().length, 1);
  isAlive(a);
  stage.close();
});

Deno.test("budget: what was refused does not count [V06]", () => {
  const { stage, member } = setUp();
  const a = member("a");
  assertEquals(ask(a, 100), oks(100));
  for (let second = 1; second < 60; second++) {
    stage.advance(1000);
    assertEquals(ask(a), limited(100, 60_000 - 1000 * second));
  }
  stage.advance(1000);
  assertEquals(ask(a, 101), [...oks(100), ...limited(100, 60_000)]);
  stage.close();
});

Deno.test("budget: it is one for all sockets and topics of a user, new ones too, and no other user's [V05]", () => {
  const { stage, member } = setUp();
  const [a, again, b] = [member("a"), member("a", "lab:2"), member("b")];
  assertEquals(ask(a, 60), oks(60));
  assertEquals(say(again, "lab:2", "ask", {}, 40), oks(40));
  assertEquals([ask(a), say(again, "lab:2", "ask")], [limited(100, 60_000), limited(100, 60_000)]);
  for (const client of [a, again]) isAlive(client);
  a.drop();
  assertEquals(ask(member("a")), limited(100, 60_000));
  assertEquals(ask(b, 100), oks(100));
  stage.close();
});

Deno.test("budget: a push to a topic that is not joined is a request; one that fails its check is, too", () => {
  const { stage, member } = setUp({ requests: 3 });
  const a = member("a");
  assertEquals(say(a, "lab:2", "ask"), [{ reason: "unmatched topic" }]);
  assertEquals(say(a, "lab:1", "nope"), [{ reason: "unknown_event" }]);
  assertEquals((say(a, "lab:1", "ask", [])[0] as { reason: string }).reason, "invalid_frame");
  assertEquals([say(a, "lab:2", "ask"), say(a, "lab:1", "nope"), ask(a)], [limited(3, 60_000), limited(3, 60_000), limited(3, 60_000)]);
  stage.close();
});

Deno.test("budget: what is asked over HTTP comes out of the same purse", () => {
  const { stage, member } = setUp({ requests: 3 });
  const a = member("a");
  ask(a, 2);
  stage.gateway.spend(someone("a"), "requests");
  assertEquals(ask(a), limited(3, 60_000));
  const refusal = assertThrows(() => stage.gateway.spend(someone("a"), "requests"), Refusal);
  assertEquals([refusal.response()], limited(3, 60_000));
  stage.gateway.spend(someone("b"), "requests");
  stage.close();
});

Deno.test("budget: whoever keeps to the page's own rate limiter is never refused [V05]", () => {
  const { stage, member } = setUp();
  const a = member("a");
  // A grain more than 60 s: networks are not exact either.
  const limiter = new (rateLimiter(() => stage.clock.time))(100, 60_000 + GRAIN_MS);
  let said = 0;
  for (const end = stage.clock.time + 150_000; stage.clock.time < end; stage.advance(50)) {
    if (!limiter.canSend()) continue;
    said++;
    assertEquals(ask(a), ["ok"], `request ${said}`);
  }
  assertEquals(said, 300);
  stage.close();
});

Deno.test("budget: 300 joins and leaves in 60 s; more joins are refused, leaves never are", () => {
  const { stage, member } = setUp();
  const a = member("a", "lab:stays");
  for (let n = 0; n < 149; n++) assertEquals([say(a, "lab:1", "phx_join"), say(a, "lab:1", "phx_leave")], [["ok"], ["ok"]]);
  assertEquals(say(a, "lab:1", "phx_join"), ["ok"]);
  assertEquals(say(a, "lab:2", "phx_join"), limited(300, 60_000));
  assertEquals(say(a, "case:unknown", "phx_join"), limited(300, 60_000));
  // Those that stand go on, and can be left.
  assertEquals([say(a, "lab:stays", "ask"), say(a, "lab:1", "phx_leave"), say(a, "lab:never", "phx_leave", {}, 300)], [["ok"], ["ok"], oks(300)]);
  assertEquals(say(a, "lab:1", "ask"), [{ reason: "unmatched topic" }]);
  member("b");
  stage.advance(59_999);
  assertEquals(say(a, "lab:2", "phx_join"), limited(300, 1));
  stage.advance(1);
  assertEquals(say(a, "lab:2", "phx_join"), ["ok"]);
  stage.close();
});

Deno.test("budget: leaves use up what joins may, over all sockets; requests are not touched", () => {
  const { stage, member } = setUp({ joins: 10 });
  const [a, again] = [member("a"), member("a")];
  assertEquals(say(a, "lab:never", "phx_leave", {}, 8), oks(8));
  assertEquals(say(again, "lab:2", "phx_join"), limited(10, 60_000));
  assertEquals(ask(again, 100), oks(100));
  stage.close();
});

Deno.test("budget: 10 authenticates in 60 s; the 11th is refused and closes nothing", async () => {
  const { stage, member } = setUp();
  const [a, b] = [member("a"), member("b")];
  const renew = async (client: StageClient) => {
    const ref = `r${++refs}`;
    client.queue([null, ref, "auth", "authenticate", { token: client === b ? "b" : "a" }]);
    await stage.settle();
    const { status, response } = client.take().find((frame) => frame[1] === ref)[4];
    return status === "ok" ? ["ok"] : [response];
  };
  for (let n = 0; n < 10; n++) assertEquals(await renew(a), ["ok"]);
  assertEquals([await renew(a), await renew(member("a"))], [limited(10, 60_000), limited(10, 60_000)]);
  assertEquals(await renew(b), ["ok"]);
  stage.advance(59_999);
  assertEquals(await renew(a), limited(10, 1));
  stage.advance(1);
  assertEquals(await renew(a), ["ok"]);
  isAlive(a);
  stage.close();
});

const batch = (client: StageClient, messages: number, times = 1) =>
  say(client, "lab:1", "batch", { messages: Array(messages).fill({ event: "ask", payload: {} }) }, times);

Deno.test("budget: 600 batches in 60 s, and they are no requests [X10]", () => {
  const { stage, member } = setUp();
  const [a, b] = [member("a"), member("b")];
  assertEquals(batch(a, 1, 600), oks(600));
  assertEquals([batch(a, 1), batch(b, 1)], [limited(600, 60_000), ["ok"]]);
  assertEquals(ask(a, 100), oks(100));
  stage.advance(60_000);
  assertEquals(batch(a, 1), ["ok"]);
  stage.close();
});

Deno.test("budget: 2,000 messages in batches in 60 s; a batch that does not fit is refused whole [X10]", () => {
  const { stage, member } = setUp();
  const [a, b] = [member("a"), member("b")];
  assertEquals([batch(a, 100, 19), batch(a, 99)], [oks(19), ["ok"]]);
  b.take();
  assertEquals(batch(a, 2), limited(2000, 60_000));
  assertEquals(b.take(), []);
  assertEquals([batch(a, 1), batch(a, 1)], [["ok"], limited(2000, 60_000)]);
  stage.advance(60_000);
  assertEquals(batch(a, 100, 20), oks(20));
  stage.close();
});

Deno.test("budget: a batch that is too long costs one batch and none of its messages", () => {
  const { stage, member } = setUp({ batches: 3, batched_messages: 100 });
  const a = member("a");
  assertEquals(batch(a, 101, 2).map((answer) => (answer as { reason: string }).reason), ["batch_rejected", "batch_rejected"]);
  assertEquals([batch(a, 100), batch(a, 1)], [["ok"], limited(3, 60_000)]);
  stage.close();
});

Deno.test("budget: a batch refused for its messages does not count as a batch either [V06]", () => {
  const { stage, member } = setUp({ batches: 3, batched_messages: 10 });
  const a = member("a");
  assertEquals(batch(a, 10), ["ok"]);
  stage.advance(30_000);
  assertEquals(batch(a, 10, 3), [...limited(10, 30_000), ...limited(10, 30_000), ...limited(10, 30_000)]);
  stage.advance(30_000);
  assertEquals(batch(a, 3, 3), oks(3));
  stage.close();
});

Deno.test("budget: 50 operations a second, apart from requests [X10]", () => {
  const { stage, member } = setUp();
  const [a, b] = [member("a"), member("b")];
  const operate = (client: StageClient, times = 1) => say(client, "lab:1", "operation", {}, times);
  assertEquals([operate(a, 50), operate(a)], [oks(50), limited(50, 1000)]);
  assertEquals([ask(a, 100), operate(b)], [oks(100), ["ok"]]);
  stage.advance(999);
  assertEquals(operate(a), limited(50, 1));
  stage.advance(1);
  assertEquals(operate(a, 50), oks(50));
  stage.close();
});

Deno.test("budget: cursors are never refused and cost nothing; heartbeats are free [X10, K01]", () => {
  const { stage, member } = setUp();
  const a = member("a");
  assertEquals(say(a, "lab:1", "point", {}, 1000), oks(1000));
  assertEquals(say(a, "phoenix", "heartbeat", {}, 1000), oks(1000));
  assertEquals([ask(a, 100), ask(a)], [oks(100), limited(100, 60_000)]);
  assertEquals([say(a, "lab:1", "point", {}, 1000), say(a, "phoenix", "heartbeat", {}, 1000)], [oks(1000), oks(1000)]);
  stage.close();
});

Deno.test("budget: a cursor every 50 ms is taken for as long as the mouse moves [K01]", () => {
  // 1,200 of them in a minute.
  const { stage, member } = setUp({ frames: 1500 });
  const a = member("a");
  for (const end = stage.clock.time + 180_000; stage.clock.time < end; stage.advance(50)) {
    assertEquals([say(a, "lab:1", "point"), a.wire.code], [["ok"], null], `at ${end - stage.clock.time}`);
  }
  stage.close();
});

Deno.test("budget: sustained abuse closes the socket that goes on, 1008; new ones fare no better until it is over", () => {
  const { stage, member } = setUp({ requests: 1, rate_refusals: 5 });
  const [a, again, b] = [member("a"), member("a"), member("b")];
  assertEquals([ask(a), ask(a, 3), ask(again, 2)].flat(), ["ok", ...Array(5).fill(limited(1, 60_000)[0])]);
  assertEquals([a.wire.code, again.wire.code], [null, null]);
  ask(a);
  assertEquals([a.wire.code, again.wire.code], [1008, null]);
  isAlive(again);
  const next = member("a");
  ask(next);
  assertEquals([next.wire.code, ask(b)], [1008, ["ok"]]);
  stage.advance(60_000);
  assertEquals([ask(again), ask(member("a"))], [["ok"], limited(1, 60_000)]);
  stage.close();
});

Deno.test("budget: too many messages of any kind in a minute close the socket, 1008; also over several sockets", () => {
  const { stage } = setUp({ frames: 100 });
  const beat = (client: StageClient, times = 1) => say(client, "phoenix", "heartbeat", {}, times);
  const [a, again, b] = [stage.client(someone("a")), stage.client(someone("a")), stage.client(someone("b"))];
  assertEquals([beat(a, 60), beat(again, 40), beat(b, 100)], [oks(60), oks(40), oks(100)]);
  assertEquals([a.wire.code, again.wire.code, b.wire.code], [null, null, null]);
  beat(a);
  assertEquals([a.wire.code, again.wire.code, b.wire.code], [1008, null, null]);
  const next = stage.client(someone("a"));
  beat(next);
  assertEquals(next.wire.code, 1008);
  stage.advance(60_000);
  assertEquals([beat(again), beat(stage.client(someone("a")))], [["ok"], ["ok"]]);
  stage.close();
});

Deno.test("budget: who has not said who he is may not flood either", () => {
  const { stage } = setUp({ frames: 100 });
  const [a, b] = [stage.client(null), stage.client(null)];
  assertEquals(say(a, "phoenix", "heartbeat", {}, 100), oks(100));
  assertEquals(a.wire.code, null);
  say(a, "phoenix", "heartbeat");
  assertEquals(a.wire.code, 1008);
  isAlive(b);
  stage.close();
});

Deno.test("budget: after 100 refusals a socket is kept back for 100 ms; then all is answered, in its order", async () => {
  const { stage, member } = setUp({ requests: 1 });
  const [a, b] = [member("a"), member("b")];
  let pauses = 0;
  a.wire.pause = () => void pauses++;
  a.wire.resume = () => void pauses--;
  const sent = Array.from({ length: 260 }, (_, n) => String(n));
  for (const ref of sent) a.queue(ref === "259" ? [null, ref, "phoenix", "heartbeat", {}] : [null, ref, "lab:1", "ask", {}]);
  stage.run();
  const answered = () => a.wire.frames.filter((frame) => frame[3] === "phx_reply").map((frame) => frame[1]);
  assertEquals([answered(), pauses], [sent.slice(0, 101), 1]);
  // It costs its sender only.
  assertEquals(ask(b), ["ok"]);
  await advance(stage, 99);
  assertEquals([answered().length, pauses], [101, 1]);
  await advance(stage, 1);
  assertEquals([answered().length, pauses], [201, 1]);
  await advance(stage, 100);
  assertEquals([answered(), pauses, a.wire.code], [sent, 0, null]);
  stage.close();
});

Deno.test("budget: with too many messages waiting, a socket's reading pauses until they are served", async () => {
  const { stage, member } = setUp({ frames_waiting: 200, requests: 1 });
  const a = member("a");
  let pauses = 0;
  a.wire.pause = () => void pauses++;
  a.wire.resume = () => void pauses--;
  const beats = (count: number) => {
    for (let n = 0; n < count; n++) a.queue([null, "1", "phoenix", "heartbeat", {}]);
    return pauses;
  };
  assertEquals([beats(199), beats(1), beats(50)], [0, 1, 1]);
  stage.run();
  assertEquals([pauses, a.take().length], [0, 250]);
  // Two reasons to pause: it goes on when neither is left.
  for (let n = 0; n < 301; n++) a.queue([null, "1", "lab:1", "ask", {}]);
  stage.run();
  assertEquals([pauses, a.take().length], [2, 101]);
  await advance(stage, 100);
  assertEquals([pauses, a.take().length], [2, 100]);
  await advance(stage, 100);
  assertEquals([pauses, a.take().length], [1, 100]);
  await advance(stage, 100);
  assertEquals(pauses, 0);
  isAlive(a);
  stage.close();
});

Deno.test("budget: a wall clock that jumps by an hour neither frees nor blocks anybody", () => {
  const { stage, member } = setUp();
  const [a, b] = [member("a"), member("b")];
  ask(a, 100);
  ask(b, 50);
  let elapsed = 0;
  for (const jump of [3_600_000, -7_200_000, 3_600_000]) {
    stage.clock.jump(jump);
    stage.advance(1000);
    elapsed += 1000;
    assertEquals([ask(a), ask(b)], [limited(100, 60_000 - elapsed), ["ok"]]);
  }
  stage.advance(56_999);
  assertEquals(ask(a), limited(100, 1));
  stage.advance(1);
  assertEquals(ask(a, 100), oks(100));
  stage.close();
});

Deno.test("budget: the gateway forgets the purses of those who have gone quiet", () => {
  const { stage } = setUp();
  let all: Purses | undefined;
  const { of } = Purses.prototype;
  Purses.prototype.of = function (user) {
    all = this;
    return of.call(this, user);
  };
  try {
    for (let user = 0; user < 500; user++) {
      const client = stage.client(someone(`user_${user}`));
      client.join("lab:1");
      client.drop(true);
    }
  } finally {
    Purses.prototype.of = of;
  }
  assertEquals(all!.size, 500);
  stage.advance(62_000);
  assertEquals(all!.size, 0);
  stage.close();
});

// A server process, with the limits that it comes with.

Deno.test("budget: the real client, 101 pushes: 100 are ok, one is rate_limited, and all goes on; 1,000 joins and leaves at once are answered within 5 s [V05, W18]", async () => {
  await using server = await startServer();
  await using phone = await Phone.dial(server, someone("user_1"));
  const channel = await phone.enter("case:case_1");
  const answers = await Promise.all(Array.from({ length: 101 }, (_, n) => outcome(channel.push("presence:update", { activity: `page ${n}` }))));
  assertEquals(answers.slice(0, 100).map(({ status }) => status), oks(100));
  const { status, response } = answers[100];
  assertEquals([status, response.reason, response.limit, channel.state], ["error", "rate_limited", 100, "joined"]);
  assert(response.retry_after_ms > 55_000 && response.retry_after_ms <= 60_000, String(response.retry_after_ms));
  // Other budgets, and other users.
  assertEquals((await outcome(channel.push("batch", { messages: [{ event: "presence:update", payload: {} }] }))).status, "ok");
  await using other = await Phone.dial(server, someone("user_2"));
  assertEquals((await outcome((await other.enter("case:case_1")).push("presence:update", {}))).status, "ok");

  await using client = await RawClient.open(`${server.ws}/websocket?vsn=2.0.0&token=${await server.token(someone("user_3"))}`);
  const frames = Array.from({ length: 500 }, (_, n) => [
    [`j${n}`, `j${n}`, `case:case_${n}`, "phx_join", {}],
    [`j${n}`, `l${n}`, `case:case_${n}`, "phx_leave", {}],
  ]).flat();
  const waiting = new Set(frames.map((frame) => frame[1] as string));
  const reasons = new Map<string, number>();
  const begun = Date.now();
  client.burst(frames);
  while (waiting.size > 0) {
    const [, ref, , event, payload] = await client.next();
    if (event !== "phx_reply") continue;
    assert(waiting.delete(ref), `${ref} was answered twice`);
    const reason = payload.status === "ok" ? "ok" : payload.response.reason;
    reasons.set(reason, (reasons.get(reason) ?? 0) + 1);
  }
  assertLessOrEqual(Date.now() - begun, 5000);
  // 150 joins and 150 leaves, and leaves are never refused.
  assertEquals([...reasons].sort(), [["ok", 650], ["rate_limited", 350]]);
});
