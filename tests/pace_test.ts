/** Passing events told at most so often: each sender's first at once, then his newest, and his last one always. */
import { assert, assertEquals, assertGreater, assertGreaterOrEqual, assertLessOrEqual } from "@std/assert";
import { z } from "zod";
import { channel, exact, passing } from "../protocol/contract.ts";
import { Refusal } from "../protocol/reason.ts";
import { Pace } from "../rooms/pace.ts";
import { behave, room } from "../rooms/room.ts";
import type { Effect } from "../rooms/seam.ts";
import { mayEnter } from "../rooms/token.ts";
import { random } from "./support/random.ts";
import type { Heard } from "./support/raw.ts";
import { BreakableSql, CrankedClock, someone, Stage, type StageClient, type StageOptions } from "./support/stage.ts";

type Broadcast = Extract<Effect, { kind: "broadcast" }>;

/** Counts the callbacks that a clock owes from now on. */
function counting(clock: CrankedClock): { owed: number } {
  const count = { owed: 0 };
  const after = clock.after.bind(clock);
  clock.after = (ms, callback) => {
    let over = false;
    const end = () => {
      if (!over) count.owed--;
      over = true;
    };
    count.owed++;
    const cancel = after(ms, () => {
      end();
      callback();
    });
    return () => {
      end();
      cancel();
    };
  };
  return count;
}

/** No second, wherever it begins, has more of these moments than that. */
function assertRate(moments: readonly number[], most: number, what: string): void {
  moments.forEach((at, index) => {
    const within = moments.slice(index).filter((later) => later - at < 1000).length;
    assertLessOrEqual(within, most, `${what}: ${within} within the second after ${at}`);
  });
}

// Alone. The clock counts whole milliseconds: a thirtieth of a second is 34 of them.

interface Told {
  readonly at: number;
  readonly body: string;
  readonly except: string | undefined;
  /** What had been said last then. */
  readonly newest: string;
}

/** A Pace with nothing around it; `told` has what was told, and when, in milliseconds since its start. */
function alone(perSecond = 30) {
  const clock = new CrankedClock();
  const start = clock.time;
  const timers = counting(clock);
  const told: Told[] = [];
  const newest = new Map<string, string>();
  const tell = (effects: readonly Broadcast[]) => {
    for (const { body, except, key } of effects) told.push({ at: clock.time - start, body: String(body), except, newest: newest.get(key!)! });
  };
  const pace = new Pace(clock, 1000 / perSecond, tell);
  const say = (body: string, key = "a", session = "s1") => {
    const effect: Broadcast = { kind: "broadcast", topic: "t", event: "moved", body, durability: "passing", except: session, key };
    newest.set(key, body);
    if (!pace.holds(effect)) tell([effect]);
  };
  /** Cranks on to so many milliseconds after the start. */
  const until = (at: number) => clock.advance(start + at - clock.time);
  return { timers, told, pace, say, until };
}

const times = (told: readonly Told[]) => told.map(({ at, body }) => `${at}: ${body}`);

Deno.test("pace: the first is told at once; of what follows too soon the newest, when its time has come", () => {
  const { told, say, until } = alone();
  say("1");
  until(5);
  say("2");
  until(10);
  say("3");
  until(33);
  assertEquals(times(told), ["0: 1"]);
  until(40);
  say("4");
  until(200);
  // Long after the last one: at once again.
  say("5");
  until(1000);
  assertEquals(times(told), ["0: 1", "34: 3", "68: 4", "200: 5"]);
});

Deno.test("pace: what comes when the time is just over is told at once, a millisecond earlier it waits", () => {
  const { told, say, until } = alone(10);
  say("1");
  until(100);
  say("2");
  until(199);
  say("3");
  assertEquals(times(told), ["0: 1", "100: 2"]);
  until(1000);
  assertEquals(times(told), ["0: 1", "100: 2", "200: 3"]);
});

Deno.test("pace: of a thousand a second thirty are told, evenly, each the newest, and the last one arrives [K05]", () => {
  const { told, say, until } = alone();
  for (let at = 0; at <= 5000; at++) {
    until(at);
    say(`${at}`);
  }
  until(6000);
  assertRate(told.map(({ at }) => at), 30, "told");
  // Fewer would be needless.
  assertGreaterOrEqual(told.length, 5 * 29);
  for (const { body, newest } of told) assertEquals(body, newest);
  assertEquals(told.at(-1)!.body, "5000");
  assertLessOrEqual(told.at(-1)!.at, 5000 + 34);
});

Deno.test("pace: each key has its own time; what has no key never waits, and needs no timer", () => {
  const { told, timers, pace, say, until } = alone();
  for (let n = 0; n < 5; n++) assert(!pace.holds({ kind: "broadcast", topic: "t", event: "told", body: "{}", durability: "exact" }));
  assertEquals(timers.owed, 0);
  say("a1", "a");
  until(20);
  say("b1", "b");
  say("a2", "a");
  say("b2", "b");
  until(1000);
  assertEquals(times(told), ["0: a1", "20: b1", "34: a2", "54: b2"]);
});

Deno.test("pace: the sessions of one key share its time; the newest is told, and not to who said it", () => {
  const { told, say, until } = alone();
  say("1", "a", "s1");
  until(5);
  say("2", "a", "s2");
  say("3", "a", "s1");
  say("4", "a", "s2");
  until(1000);
  assertEquals(told.map(({ body, except }) => [body, except]), [["1", "s1"], ["4", "s2"]]);
});

Deno.test("pace: what a session that is gone would have said is not said, under any key; others' is", () => {
  const { told, pace, say, until } = alone();
  for (const [key, session] of [["a", "s1"], ["b", "s1"], ["c", "s2"]]) {
    say(`${key}1`, key, session);
    say(`${key}2`, key, session);
  }
  until(10);
  pace.drop("s1");
  pace.drop("never heard of");
  // The user is back: his time goes on, or coming and going would be a way around it.
  say("a3", "a", "s3");
  until(1000);
  assertEquals(times(told).toSorted(), ["0: a1", "0: b1", "0: c1", "34: a3", "34: c2"]);
});

Deno.test("pace: one timer at most, whatever the number of keys, and none once nothing moves", () => {
  const { timers, pace, say, until } = alone();
  assertEquals(timers.owed, 0);
  for (let at = 0; at < 500; at++) {
    until(at);
    say("x", `key ${at % 50}`, "s1");
    assertEquals(timers.owed, 1);
  }
  until(499 + 2 * 34);
  assertEquals(timers.owed, 0);
  // What waits for a sender that goes needs none either.
  say("y", "a");
  say("z", "a");
  pace.drop("s1");
  until(2000);
  assertEquals(timers.owed, 0);
});

for (const seed of [1, 20260101]) {
  Deno.test(`pace: whatever is said when: never too often, in order, the newest, and the last one arrives; seed ${seed}`, () => {
    const next = random(seed);
    const { timers, told, pace, say, until } = alone();
    const last = new Map<string, { body: string; session: string; n: number }>();
    const goneAt = new Map<string, number>();
    for (let at = 0, n = 0; n < 3000; n++) {
      until(at += next(4) === 0 ? next(60) : next(3));
      const key = `key${next(4)}`;
      const session = `${key}/${next(2)}`;
      if (next(40) === 0) {
        pace.drop(session);
        goneAt.set(session, n);
        continue;
      }
      const body = `${key} ${session} ${n}`;
      say(body, key, session);
      last.set(key, { body, session, n });
    }
    until(1_000_000);
    assertEquals(timers.owed, 0);
    for (const [key, { body, session, n }] of last) {
      const heard = told.filter(({ body }) => body.startsWith(`${key} `));
      assertRate(heard.map(({ at }) => at), 30, key);
      for (const { at, body, newest } of heard) assertEquals(body, newest, `told at ${at}`);
      assertEquals(new Set(heard.map(({ body }) => body)).size, heard.length, "once");
      if ((goneAt.get(session) ?? -1) < n) assertEquals(heard.at(-1)!.body, body);
    }
  });
}

// In a room.

const N = z.object({ n: z.int() });
const Said = z.object({ user: z.string(), n: z.int() });

/** Two kinds of moves, something exact, and who comes and goes. */
const floor = (name: string) =>
  channel({
    topic: `${name}:{id}`,
    join: { payload: z.object({}), reply: z.unknown() },
    pushes: {
      move: { payload: N, budget: "cursors" },
      choose: { payload: N, budget: "cursors" },
      tell: { payload: N },
      write: { payload: N },
      /** Moves, and is refused. */
      stumble: { payload: N },
      /** Moves, and crashes. */
      crash: { payload: N },
      /** Moves, and closes its session. */
      close: { payload: N },
    },
    events: {
      moved: passing(Said, { per: "user" }),
      chosen: passing(Said, { per: "user" }),
      told: exact(Said),
      came: exact(z.object({ user: z.string() })),
      left: exact(z.object({ user: z.string() })),
    },
    presence: z.object({}),
  });

const walk = (name: string) =>
  behave(floor(name), {
    admit(ctx) {
      if (!mayEnter(ctx.user, "1")) throw new Refusal("forbidden");
    },
    join: (ctx) => void ctx.presence.track({}),
    arrive: (ctx) => ctx.broadcastFrom("came", { user: ctx.user.id }),
    depart: (ctx) => ctx.broadcastFrom("left", { user: ctx.user.id }),
    on: {
      move: (ctx, { n }) => ctx.broadcastFrom("moved", { user: ctx.user.id, n }),
      choose: (ctx, { n }) => ctx.broadcastFrom("chosen", { user: ctx.user.id, n }),
      tell: (ctx, { n }) => ctx.broadcast("told", { user: ctx.user.id, n }),
      write: (ctx, { n }) => void ctx.sql`insert into house_item (room, n) values (${ctx.room}, ${n})`,
      stumble(ctx, { n }) {
        ctx.broadcastFrom("moved", { user: ctx.user.id, n });
        throw new Refusal("version_conflict");
      },
      crash(ctx, { n }) {
        ctx.broadcastFrom("moved", { user: ctx.user.id, n });
        throw new Error("ours");
      },
      close(ctx, { n }) {
        ctx.broadcastFrom("moved", { user: ctx.user.id, n });
        ctx.close();
      },
    },
  });

const house = room("house/{id}", {
  migrations: ["create table house_item (room text not null, n integer not null) strict"],
  topics: [walk("floor"), walk("attic")],
});

const TOPIC = "floor:1";

function setUp(options: StageOptions = {}) {
  const stage = new Stage([house], options);
  const open = (user: string, topic = TOPIC) => {
    const client = stage.client(someone(user));
    client.join(topic);
    client.take();
    return client;
  };
  return { stage, open };
}

const queue = (client: StageClient, event: string, n = 0, topic = TOPIC) => client.queue([null, `${n}`, topic, event, { n }]);
/** The status, and the reason of a refusal. */
function replyIn(frames: readonly Heard[], ref: string): string[] {
  const { status, response } = frames.find((frame) => frame[3] === "phx_reply" && frame[1] === ref)[4];
  return [status, response.reason].filter(Boolean);
}
/** Pushes; returns the reply. What else has been heard by then is forgotten. */
const push = (client: StageClient, event: string, n = 0, topic = TOPIC) => replyIn(client.send([null, `${n}`, topic, event, { n }]), `${n}`);
/** What was heard of others: `moved 1`, `left`. */
const heard = (client: StageClient) =>
  client.take().filter((frame) => ["moved", "chosen", "told", "left"].includes(frame[3])).map((frame) => [frame[3], frame[4].n].join(" ").trim());

Deno.test("pace: a room tells a sender's first move at once, then thirty a second, and his last one; all are answered ok [K05]", () => {
  const { stage, open } = setUp();
  const [a, b] = [open("a"), open("b")];
  const moments: number[] = [];
  let last = "";
  for (let n = 0; n < 400; n++) {
    assertEquals(push(a, "move", n), ["ok"]);
    for (let ms = 0; ms < 5; ms++) {
      for (const move of heard(b)) {
        moments.push(stage.clock.time);
        last = move;
      }
      stage.advance(1);
    }
  }
  assertRate(moments, 30, "heard");
  assertGreaterOrEqual(moments.length, 58);
  stage.advance(100);
  assertEquals([...heard(b)].pop() ?? last, "moved 399");
  stage.close();
});

Deno.test("pace: LIMIT_CURSORS is how many a second, by a clock that nobody sets", () => {
  const { stage, open } = setUp({ limits: { cursors: 2 } });
  const [a, b] = [open("a"), open("b")];
  push(a, "move", 1);
  stage.clock.jump(3_600_000);
  push(a, "move", 2);
  stage.advance(499);
  assertEquals(heard(b), ["moved 1"]);
  stage.clock.jump(-7_200_000);
  push(a, "move", 3);
  stage.advance(1);
  assertEquals(heard(b), ["moved 3"]);
  stage.close();
});

Deno.test("pace: the sockets of a user share his time; each hears what the other said last, never itself", () => {
  const { stage, open } = setUp();
  const [one, two, b] = [open("a"), open("a"), open("b")];
  push(one, "move", 1);
  assertEquals([heard(one), heard(two), heard(b)], [[], ["moved 1"], ["moved 1"]]);
  push(two, "move", 2);
  push(one, "move", 3);
  stage.advance(34);
  assertEquals([heard(one), heard(two), heard(b)], [[], ["moved 3"], ["moved 3"]]);
  stage.advance(1000);
  assertEquals([heard(one), heard(two), heard(b)], [[], [], []]);
  stage.close();
});

Deno.test("pace: users, events, topics and rooms do not slow each other down", () => {
  const { stage, open } = setUp();
  const topics = [TOPIC, "attic:1", "floor:2"];
  const [a, c, b] = ["a", "c", "b"].map((user) => open(user));
  for (const client of [a, c, b]) for (const topic of topics.slice(1)) client.join(topic);
  b.take();
  let n = 0;
  for (const topic of topics) for (const client of [a, c]) for (const event of ["move", "choose"]) push(client, event, ++n, topic);
  assertEquals(heard(b).length, 12);
  // The second of each waits, for itself.
  for (const topic of topics) for (const client of [a, c]) for (const event of ["move", "choose"]) push(client, event, ++n, topic);
  assertEquals(heard(b), []);
  stage.advance(34);
  assertEquals(heard(b).map((move) => Number(move.split(" ")[1])).toSorted((x, y) => x - y), Array.from({ length: 12 }, (_, index) => index + 13));
  stage.close();
});

Deno.test("pace: what waits keeps nothing else back, and is told after it", () => {
  const { stage, open } = setUp();
  const [a, b] = [open("a"), open("b")];
  push(a, "move", 1);
  push(a, "move", 2);
  push(a, "tell", 3);
  push(a, "choose", 4);
  push(a, "tell", 5);
  stage.advance(34);
  push(a, "tell", 6);
  assertEquals(heard(b), ["moved 1", "told 3", "chosen 4", "told 5", "moved 2", "told 6"]);
  stage.close();
});

Deno.test("pace: of a batch the first move is told at once, the last one when its time has come", () => {
  const { stage, open } = setUp();
  const [a, b] = [open("a"), open("b")];
  const messages = Array.from({ length: 100 }, (_, n) => ({ event: "move", payload: { n } }));
  const batch = (...more: typeof messages) => replyIn(a.send([null, "1", TOPIC, "batch", { messages: more }]), "1");
  assertEquals(batch(...messages), ["ok"]);
  stage.advance(1000);
  assertEquals(heard(b), ["moved 0", "moved 99"]);
  // A refused one tells nothing.
  assertEquals(push(a, "move", 1000), ["ok"]);
  assertEquals(batch(messages[0], { event: "stumble", payload: { n: 100 } }), ["error", "batch_rejected"]);
  stage.advance(1000);
  assertEquals(heard(b), ["moved 1000"]);
  stage.close();
});

Deno.test("pace: a refused turn tells nothing, neither at once nor later, takes no time, and leaves what waits as it was", () => {
  const { stage, open } = setUp();
  const [a, b] = [open("a"), open("b")];
  assertEquals(push(a, "stumble", 1), ["error", "version_conflict"]);
  push(a, "move", 2);
  assertEquals(heard(b), ["moved 2"]);
  push(a, "move", 3);
  assertEquals(push(a, "stumble", 4), ["error", "version_conflict"]);
  stage.advance(1000);
  assertEquals(heard(b), ["moved 3"]);
  stage.close();
});

Deno.test("pace: a room that nobody moves in owes the clock nothing", () => {
  const { stage, open } = setUp();
  const timers = counting(stage.clock);
  const people = ["a", "b", "c"].map((user) => open(user));
  stage.advance(2000);
  // The gateway's sweep.
  assertEquals(timers.owed, 1);
  for (let n = 0; n < 300; n++) {
    push(people[n % 3], n % 2 ? "move" : "choose", n);
    assertLessOrEqual(timers.owed, 2);
    stage.advance(3);
  }
  stage.advance(2 * 34);
  assertEquals(timers.owed, 1);
  push(people[0], "move", 1);
  push(people[0], "move", 2);
  people.forEach((client) => client.drop(true));
  stage.advance(2 * 34);
  assertEquals(timers.owed, 1);
  stage.close();
});

// Who leaves.

type Leaving = (scene: { stage: Stage; a: StageClient; b: StageClient; sql: BreakableSql }) => void | Promise<void>;

const WAYS: Record<string, Leaving> = {
  "he leaves the topic": ({ a }) => void a.send([null, "l", TOPIC, "phx_leave", {}]),
  "his socket closes": ({ a }) => a.drop(true),
  "his connection breaks": ({ a }) => a.drop(),
  "he is disconnected": ({ stage }) => {
    stage.gateway.disconnect("a");
    stage.run();
  },
  "his session is closed by what he moves for": ({ a }) => void push(a, "close", 3),
  "his session crashes": ({ a }) => void a.send([null, "3", TOPIC, "crash", { n: 3 }]),
  "his new token does not open the room": async ({ stage, a }) => {
    a.send([null, "r", "auth", "authenticate", { token: "t" }]);
    await stage.settle();
  },
  "his rejoin is refused": ({ a }) => void a.send(["2", "2", TOPIC, "phx_join", { user_id: "b" }]),
  "he leaves in a tick that is lost": ({ stage, a, b, sql }) => {
    a.queue([null, "l", TOPIC, "phx_leave", {}]);
    queue(b, "write");
    sql.failCommits = 1;
    stage.run();
  },
  "he leaves in the tick in which it comes due": ({ stage, a }) => {
    a.queue([null, "l", TOPIC, "phx_leave", {}]);
    stage.clock.advance(34);
    stage.run();
  },
  "he leaves, and the tick in which it comes due is the next one": ({ stage, a }) => {
    a.queue([null, "l", TOPIC, "phx_leave", {}]);
    stage.tick();
    stage.clock.advance(34);
    stage.run();
  },
};

for (const [way, leave] of Object.entries(WAYS)) {
  Deno.test(`pace: nothing is told of a sender who has left: ${way} [K06]`, async () => {
    const sql = new BreakableSql();
    const { stage, open } = setUp({ sql, verify: () => Promise.resolve({ user: someone("a", "attorney", []), expires: Date.parse("2030-01-01") }) });
    const [a, b] = [open("a"), open("b")];
    push(a, "move", 1);
    push(a, "move", 2);
    push(a, "choose", 1);
    push(a, "choose", 2);
    await leave({ stage, a, b, sql });
    stage.advance(1000);
    const all = heard(b);
    assert(all.includes("left"), all.join());
    assertEquals(all.slice(all.indexOf("left") + 1), []);
    stage.close();
  });
}

Deno.test("pace: a sender whose connection broke, and whose presence is held, is still heard", () => {
  const { stage, open } = setUp({ graceMs: 5000 });
  const [a, b] = [open("a"), open("b")];
  push(a, "move", 1);
  push(a, "move", 2);
  a.drop();
  stage.advance(10_000);
  assertEquals(heard(b), ["moved 1", "moved 2", "left"]);
  stage.close();
});

Deno.test("pace: a user's other socket is heard when one of his has left", () => {
  const { stage, open } = setUp();
  const [one, two, b] = [open("a"), open("a"), open("b")];
  push(one, "move", 1);
  push(one, "move", 2);
  push(two, "move", 3);
  one.drop(true);
  stage.advance(1000);
  assertEquals(heard(b), ["moved 1", "moved 3"]);
  stage.close();
});

// Lost ticks, and ticks that come late.

/** A tick in which the room writes and the disk fails. */
function lose({ stage, sql, b }: { stage: Stage; sql: BreakableSql; b: StageClient }): void {
  queue(b, "write", 77);
  sql.failCommits = 1;
  stage.tick();
  assertEquals([sql.failCommits, replyIn(b.take(), "77")], [0, ["error", "unavailable"]]);
}

Deno.test("pace: a move in a lost tick is answered unavailable and not told, neither at once nor later", () => {
  const sql = new BreakableSql();
  const { stage, open } = setUp({ sql });
  const [a, b, c] = [open("a"), open("b"), open("c")];
  queue(a, "move", 1);
  lose({ stage, sql, b });
  assertEquals(replyIn(a.take(), "1"), ["error", "unavailable"]);
  stage.advance(1000);
  assertEquals(heard(c), []);
  push(a, "move", 2);
  stage.advance(1000);
  assertEquals(heard(c), ["moved 2"]);
  stage.close();
});

Deno.test("pace: a move that waits is not told when its tick was lost; what waited before it is", () => {
  const sql = new BreakableSql();
  const { stage, open } = setUp({ sql });
  const [a, b, c] = [open("a"), open("b"), open("c")];
  push(a, "move", 1);
  assertEquals(push(a, "move", 2), ["ok"]);
  queue(a, "move", 3);
  lose({ stage, sql, b });
  assertEquals(replyIn(a.take(), "3"), ["error", "unavailable"]);
  stage.advance(1000);
  assertEquals(heard(c), ["moved 1", "moved 2"]);
  stage.close();
});

Deno.test("pace: a move that comes due in a lost tick arrives all the same: it was answered ok", () => {
  const sql = new BreakableSql();
  const { stage, open } = setUp({ sql });
  const [a, b, c] = [open("a"), open("b"), open("c")];
  push(a, "move", 1);
  assertEquals(push(a, "move", 2), ["ok"]);
  stage.clock.advance(34);
  lose({ stage, sql, b });
  stage.advance(1000);
  assertEquals(heard(c), ["moved 1", "moved 2"]);
  stage.close();
});

Deno.test("pace: a move in a lost tick is not told either when its time comes within that tick", () => {
  const sql = new BreakableSql();
  const { stage, open } = setUp({ sql });
  const [a, b, c] = [open("a"), open("b"), open("c")];
  // Its clock rings for the room 34 ms from here, and a's own time is over in the middle of that tick.
  push(c, "move", 100);
  stage.advance(1);
  push(a, "move", 1);
  assertEquals(push(a, "move", 2), ["ok"]);
  queue(a, "move", 3);
  stage.registry.gate.post(() => void (stage.clock.time += 1));
  stage.clock.advance(33);
  lose({ stage, sql, b });
  assertEquals(replyIn(a.take(), "3"), ["error", "unavailable"]);
  stage.advance(1000);
  assertEquals(heard(c), ["moved 1", "moved 2"]);
  stage.close();
});

Deno.test("pace: a move told at once in a lost tick takes nothing of what waited with it", () => {
  const sql = new BreakableSql();
  const { stage, open } = setUp({ sql });
  const [a, b, c] = [open("a"), open("b"), open("c")];
  push(a, "move", 1);
  assertEquals(push(a, "move", 2), ["ok"]);
  // Served before the second one comes due, in the same tick.
  queue(a, "move", 3);
  stage.clock.advance(34);
  lose({ stage, sql, b });
  assertEquals(replyIn(a.take(), "3"), ["error", "unavailable"]);
  stage.advance(1000);
  assertEquals(heard(c), ["moved 1", "moved 2"]);
  stage.close();
});

Deno.test("pace: when a tick comes late, a newer move is not followed by the one before it", () => {
  const { stage, open } = setUp();
  const [a, b] = [open("a"), open("b")];
  push(a, "move", 1);
  push(a, "move", 2);
  queue(a, "move", 3);
  // The second one comes due, and then the process is busy with something else.
  stage.clock.advance(34);
  stage.clock.time += 40;
  stage.run();
  stage.advance(1000);
  assertEquals(heard(b).at(-1), "moved 3");
  stage.close();
});

// All of it.

for (const seed of [3, 77]) {
  Deno.test(`pace: whoever moves, comes and goes: all who stay end with each sender's last move, never too often; seed ${seed}`, () => {
    const next = random(seed);
    const { stage, open } = setUp();
    const topics = [TOPIC, "attic:1", "floor:2"];
    const watchers = topics.map((topic) => ({ topic, client: open("watcher", topic), here: new Set<string>() }));
    for (const { client } of watchers) client.take();
    const people = Array.from({ length: 6 }, (_, index) => ({ user: `u${index % 3}`, client: null as StageClient | null, joined: new Set<string>() }));
    /** Of each topic, event and user: the last move said, and by whom. */
    const said = new Map<string, { n: number; by: StageClient }>();
    const told = new Map<string, { n: number; at: number }[]>();
    const listen = () => {
      for (const { topic, client, here } of watchers) {
        for (const [, , , event, { user, n }] of client.take()) {
          if (event === "came") here.add(user);
          if (event === "left") here.delete(user);
          if (event !== "moved" && event !== "chosen") continue;
          assert(here.has(user), `${event} ${n} of ${user}, who is not on ${topic}`);
          const key = `${topic} ${event} ${user}`;
          assertEquals(n, said.get(key)!.n, `${key} is not the newest`);
          const all = told.get(key) ?? [];
          told.set(key, [...all, { n, at: stage.clock.time }]);
        }
      }
    };
    for (let n = 1; n <= 1500; n++) {
      const one = people[next(people.length)];
      const topic = topics[next(topics.length)];
      const kind = next(30);
      one.client ??= stage.client(someone(one.user));
      if (kind === 0) {
        one.client.drop(true);
        one.client = null;
        one.joined.clear();
      } else if (!one.joined.has(topic)) {
        one.client.join(topic);
        one.joined.add(topic);
      } else if (kind === 1) {
        one.client.send([null, "l", topic, "phx_leave", {}]);
        one.joined.delete(topic);
      } else {
        const event = next(2) ? "move" : "choose";
        said.set(`${topic} ${event === "move" ? "moved" : "chosen"} ${one.user}`, { n, by: one.client });
        push(one.client, event, n, topic);
      }
      listen();
      for (let ms = next(3) ? 0 : next(40); ms > 0; ms--) {
        stage.advance(1);
        listen();
      }
    }
    for (let ms = 0; ms < 40; ms++) {
      stage.advance(1);
      listen();
    }
    let ended = 0;
    for (const [key, { n, by }] of said) {
      assertRate((told.get(key) ?? []).map(({ at }) => at), 30, key);
      const still = people.some(({ client, joined }) => client === by && joined.has(key.split(" ")[0]));
      if (!still) continue;
      ended++;
      assertEquals(told.get(key)?.at(-1)?.n, n, `${key} did not arrive`);
    }
    assertGreater(ended, 5);
    stage.close();
  });
}
