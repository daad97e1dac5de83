import { assert, assertEquals, assertGreater } from "@std/assert";
import { Refusal } from "../protocol/reason.ts";
import { Later } from "../rooms/room.ts";
import { lab, labContract, someone, Stage } from "./support/stage.ts";

const TOPIC = "lab:1";
const KB = 1024;

/** `do {event, size, times}` broadcasts so many characters; `also {size}` answers with as many. */
const labRoom = lab({
  on: {
    do(ctx, { event, size, times }) {
      for (let n = 0; n < Number(times ?? 1); n++) ctx.broadcast(event as "told", { text: "x".repeat(Number(size ?? 0)) });
    },
    also: (_ctx, { size }) => ({ text: "x".repeat(Number(size)) }),
    bytes: (ctx) => ctx.broadcast("told", new Uint8Array([7, 8, 9])),
  },
}, {});

const events = (frames: unknown[][]) => frames.map((frame) => frame[3]);

Deno.test("gateway: a heartbeat is answered without a channel, other events on phoenix are not known [43, 44]", () => {
  const stage = new Stage([labRoom]);
  const a = stage.client();
  assertEquals(a.send(["7", "5", "phoenix", "heartbeat", { x: 1 }]), [[null, "5", "phoenix", "phx_reply", { status: "ok", response: {} }]]);
  for (const event of ["phx_join", "phx_leave", "x"]) {
    assertEquals(a.send(["1", "1", "phoenix", event, {}]), [[null, "1", "phoenix", "phx_reply", { status: "error", response: { reason: "unmatched topic" } }]]);
  }
  const binary = new Uint8Array([0, 0, 1, 7, 9, ...new TextEncoder().encode("5phoenixheartbeat")]);
  assertEquals(a.send(binary), [[null, "5", "phoenix", "phx_reply", { status: "ok", response: {} }]]);
  stage.close();
});

Deno.test("gateway: topics that match nothing and pushes to what is not joined are answered with join_ref null [54, 65]", () => {
  const stage = new Stage([labRoom]);
  const a = stage.client();
  const unmatched = { status: "error", response: { reason: "unmatched topic" } };
  for (const topic of ["nomatch", "lab", "lab:", "", "constructor", "__proto__", "toString:1"]) {
    assertEquals(a.send(["1", "2", topic, "phx_join", {}]), [[null, "2", topic, "phx_reply", unmatched]]);
    assertEquals(a.send(["1", "3", topic, "x", {}]), [[null, "3", topic, "phx_reply", unmatched]]);
    assertEquals(a.send(["1", "4", topic, "phx_leave", {}]), [["1", "4", topic, "phx_reply", { status: "ok", response: {} }]]);
  }
  assertEquals(a.wire.code, null);
  stage.close();
});

Deno.test("gateway: refs are opaque and compared strictly [18]", () => {
  const stage = new Stage([labRoom]);
  const a = stage.client();
  a.send([1, 2, TOPIC, "phx_join", {}]);
  assertEquals(a.send(["1", 3, TOPIC, "also", { size: 0 }]), []);
  for (const ref of [3, "3", true, null, 1.5]) assertEquals(a.send([1, ref, TOPIC, "also", { size: 0 }])[0].slice(0, 2), [1, ref]);
  stage.close();
});

Deno.test("gateway: topics too long or not printable are refused, and a topic of the longest length is joined", () => {
  const stage = new Stage([labRoom]);
  const a = stage.client();
  for (const topic of [`lab:${"x".repeat(252)}`, `lab:${"é".repeat(126)}`, "lab:a\u0000", "lab:\ud800"]) {
    assertEquals(a.send(["1", "1", topic, "phx_join", {}])[0][4].response.reason, "invalid_frame", topic);
  }
  assertEquals(a.send(["1", "1", `lab:${"x".repeat(251)}`, "phx_join", {}])[0][4].status, "ok");
  assertEquals([a.wire.code, stage.registry.size], [null, 1]);
  stage.close();
});

Deno.test("gateway: garbage closes 1003; what has the right form and a wrong type is answered [16, 20]", () => {
  const stage = new Stage([labRoom]);
  for (const frame of ["", "x", "{}", "[1]", new Uint8Array([1, 0, 0, 0, 0]), new Uint8Array()]) {
    const a = stage.client();
    assertEquals(a.send(frame), []);
    assertEquals(a.wire.code, 1003);
    assertEquals(a.send(["1", "1", TOPIC, "phx_join", {}]), []);
  }
  const a = stage.client();
  assertEquals(a.send(["1", "2", TOPIC, 7, {}])[0], [null, "2", TOPIC, "phx_reply", {
    status: "error",
    response: { reason: "invalid_frame", message: "event is not a string" },
  }]);
  assertEquals([a.wire.code, stage.gateway.size], [null, 1]);
  stage.close();
});

Deno.test("gateway: the 101st join is refused; a rejoin of one of the 100 is not [47]", () => {
  const stage = new Stage([labRoom]);
  const a = stage.client();
  for (let n = 1; n <= 100; n++) assertEquals(a.send([`${n}`, `${n}`, `lab:${n}`, "phx_join", {}])[0][4].status, "ok");
  assertEquals(a.send(["101", "101", "lab:101", "phx_join", {}]), [
    ["101", "101", "lab:101", "phx_reply", { status: "error", response: { reason: "too many channels joined", limit: 100 } }],
  ]);
  assertEquals(a.send(["102", "102", "lab:7", "phx_join", {}])[0][4].status, "ok");
  a.send(["102", "103", "lab:7", "phx_leave", {}]);
  assertEquals(a.send(["104", "104", "lab:101", "phx_join", {}])[0][4].status, "ok");
  stage.close();
});

Deno.test("gateway: a payload too large or too deep is refused, the socket stays; the largest passes [46]", () => {
  const stage = new Stage([labRoom]);
  const a = stage.client();
  a.join(TOPIC);
  const ask = (payload: unknown) => a.send([null, "1", TOPIC, "do", payload])[0][4];
  const units = (n: number) => ({ event: "told", size: 0, text: "\u00e9".repeat(n - JSON.stringify({ event: "told", size: 0, text: "" }).length) });
  assertEquals(ask(units(65_537)).response, { reason: "payload_too_large", limit: 65_536 });
  assertEquals(events(a.send([null, "1", TOPIC, "do", units(65_536)])), ["told", "phx_reply"]);
  let deep: unknown = 1;
  for (let level = 0; level < 70; level++) deep = [deep];
  assertEquals(ask({ deep }).response.reason, "invalid_payload");
  assertEquals([a.wire.code, a.send([null, "2", "phoenix", "heartbeat", {}]).length], [null, 1]);
  stage.close();
});

Deno.test("gateway: V1 and V2 sockets share a topic, each hears its own form; bytes are skipped for V1 [40, 41]", () => {
  const stage = new Stage([labRoom]);
  const [old, young] = [stage.client(someone("a"), "1"), stage.client(someone("b"), "2")];
  assertEquals(old.send({ topic: TOPIC, event: "phx_join", payload: {}, ref: "1", join_ref: "1" })[0], {
    topic: TOPIC,
    event: "phx_reply",
    payload: { status: "ok", response: { cursor: "0", recovered: false } },
    ref: "1",
    join_ref: "1",
  });
  young.join(TOPIC);
  old.take();
  young.send([null, "2", TOPIC, "do", { event: "told" }]);
  assertEquals(old.take(), [{ topic: TOPIC, event: "told", payload: { text: "" }, ref: null, join_ref: null }]);
  const heard = young.send([null, "3", TOPIC, "bytes", {}]);
  assertEquals(heard[0], new Uint8Array([2, 5, 4, ...new TextEncoder().encode("lab:1told"), 7, 8, 9]));
  assertEquals(heard[1][4].status, "ok");
  assertEquals([old.take(), old.wire.code], [[], null]);
  stage.close();
});

Deno.test("gateway: a broadcast is packed once per serializer, whatever the number of its receivers [22]", () => {
  const stage = new Stage([labRoom]);
  const clients = Array.from({ length: 50 }, (_, n) => stage.client(someone(`u${n}`), n % 2 ? "1" : "2"));
  for (const [n, client] of clients.entries()) {
    client.send(n % 2 ? { topic: TOPIC, event: "phx_join", payload: {}, ref: "1" } : ["1", "1", TOPIC, "phx_join", {}]);
  }
  stage.packed = 0;
  clients[0].send([null, "2", TOPIC, "do", { event: "told" }]);
  assertEquals(stage.packed, 2);
  stage.close();
});

// Tokens.

Deno.test("gateway: without a user only heartbeats and authenticate are served; then 4002", async () => {
  const stage = new Stage([labRoom], {
    verify: (token) =>
      token === "good" ? Promise.resolve({ user: someone("a"), expires: Date.parse("2026-01-01T01:00:00Z") }) : Promise.reject(new Refusal("token_invalid")),
  });
  const [a, b, c] = [stage.client(null), stage.client(null), stage.client(null)];
  for (const event of ["phx_join", "x", "phx_leave"]) {
    assertEquals(a.send(["1", "2", TOPIC, event, {}]), [["1", "2", TOPIC, "phx_reply", { status: "error", response: { reason: "unauthenticated" } }]]);
  }
  assertEquals(a.send([null, "3", "phoenix", "heartbeat", {}])[0][4].status, "ok");
  // What follows in the same burst waits for the check.
  a.queue([null, "4", "auth", "authenticate", { token: "good" }]);
  a.queue(["5", "5", TOPIC, "phx_join", {}]);
  await stage.settle();
  const heard = a.take();
  assertEquals(heard[0], [null, "4", "auth", "phx_reply", { status: "ok", response: { user_id: "a", expires_at: "2026-01-01T01:00:00.000Z" } }]);
  assertEquals(heard[1].slice(0, 4), ["5", "5", TOPIC, "phx_reply"]);
  assertEquals(heard[1][4].status, "ok");
  c.queue([null, "1", "auth", "authenticate", { token: "bad" }]);
  c.queue(["2", "2", TOPIC, "phx_join", {}]);
  await stage.settle();
  assertEquals(c.take().find((frame) => frame[2] === "auth"), [null, "1", "auth", "phx_reply", { status: "error", response: { reason: "token_invalid" } }]);
  assertEquals(c.wire.code, 4002);
  stage.advance(10_000);
  assertEquals([a.wire.code, b.wire.code], [null, null]);
  stage.advance(1000);
  assertEquals([a.wire.code, b.wire.code], [null, 4002]);
  stage.close();
});

for (const payload of [{}, { token: 1 }, { token: null }, null, "x", [], JSON.parse('{"__proto__":{"token":"good"}}')]) {
  Deno.test(`gateway: authenticate with ${JSON.stringify(payload)} is refused, answered and closed`, async () => {
    const stage = new Stage([labRoom], { verify: () => Promise.resolve({ user: someone("a"), expires: 1e15 }) });
    const a = stage.client(null);
    const heard = a.send([null, "1", "auth", "authenticate", payload]);
    await stage.settle();
    assertEquals([[...heard, ...a.take()][0][4].response.reason, a.wire.code], ["token_invalid", 4002]);
    stage.close();
  });
}

Deno.test("gateway: a renewing token must be the same user's", async () => {
  let user = someone("b");
  const stage = new Stage([labRoom], { verify: () => Promise.resolve({ user, expires: Date.parse("2026-01-01T00:02:00Z") }) });
  const a = stage.client(someone("a"), "2", Date.parse("2026-01-01T00:00:30Z"));
  user = someone("a");
  a.send([null, "1", "auth", "authenticate", { token: "t" }]);
  await stage.settle();
  assertEquals(a.take()[0][4].status, "ok");
  user = someone("b");
  a.send([null, "2", "auth", "authenticate", { token: "t" }]);
  await stage.settle();
  assertEquals([a.take()[0][4].response.reason, a.wire.code], ["user_mismatch", 4002]);
  stage.close();
});

Deno.test("gateway: an expired token closes 4001 at the next sweep, before any frame is served and before any delivery", () => {
  const stage = new Stage([labRoom]);
  const expires = stage.clock.now() + 5000;
  const [sweeped, asks, hears, other] = [
    stage.client(someone("a"), "2", expires),
    stage.client(someone("b"), "2", expires),
    stage.client(someone("c"), "2", expires),
    stage.client(someone("d")),
  ];
  for (const client of [sweeped, asks, hears, other]) client.join(TOPIC);
  stage.clock.time = expires - 1;
  assertEquals(asks.send([null, "1", "phoenix", "heartbeat", {}]).length, 1);
  stage.clock.time = expires;
  assertEquals(asks.send([null, "1", "phoenix", "heartbeat", {}]), []);
  assertEquals(asks.wire.code, 4001);
  other.send([null, "1", TOPIC, "do", { event: "kept" }]);
  assertEquals([hears.take(), hears.wire.code], [[], null]);
  stage.advance(1000);
  assertEquals([sweeped.wire.code, hears.wire.code, other.wire.code], [4001, 4001, null]);
  stage.close();
});

// Idle, drain, disconnect.

Deno.test("gateway: a silent socket is closed 1001 after 60 s; any byte from the client counts, ours do not [45]", () => {
  const stage = new Stage([labRoom]);
  const [silent, pings, talks] = [stage.client(someone("a")), stage.client(someone("b")), stage.client(someone("c"))];
  silent.join(TOPIC);
  for (let second = 0; second < 60; second += 10) {
    pings.wire.received += 6;
    talks.send([null, "1", TOPIC, "phx_join", {}], [null, "2", TOPIC, "do", { event: "told" }]);
    stage.advance(10_000);
    if (second < 40) assertEquals(silent.wire.code, null);
  }
  stage.advance(2000);
  assertEquals([silent.wire.code, pings.wire.code, talks.wire.code], [1001, null, null]);
  stage.close();
});

Deno.test("gateway: drain flushes and closes every socket with 1012, without channel frames [50]", async () => {
  const stage = new Stage([labRoom]);
  const clients = [stage.client(someone("a")), stage.client(someone("b")), stage.client(null)];
  clients[0].join(TOPIC);
  clients[0].take();
  await stage.gateway.drain(0);
  stage.run();
  assertEquals(clients.map((client) => client.wire.code), [1012, 1012, 1012]);
  assertEquals([clients[0].take(), stage.gateway.size, stage.gateway.draining, [...stage.host.members.of("lab/1")]], [[], 0, true, []]);
  stage.close();
});

Deno.test("gateway: disconnecting a user closes all his sockets with 1001 and nobody else's [49]", () => {
  const stage = new Stage([labRoom]);
  const clients = [stage.client(someone("a")), stage.client(someone("a"), "1"), stage.client(someone("b"))];
  clients[0].join(TOPIC);
  clients[2].join(TOPIC);
  assertEquals(stage.gateway.disconnect("a"), 2);
  stage.run();
  assertEquals(clients.map((client) => client.wire.code), [1001, 1001, null]);
  assertEquals([...stage.host.members.of("lab/1")].map((member) => member.user.id), ["b"]);
  stage.close();
});

Deno.test("gateway: a socket that is gone hears nothing more, and what it still sent is not served", () => {
  const stage = new Stage([labRoom]);
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  a.join(TOPIC);
  b.join(TOPIC);
  a.take();
  a.queue([null, "1", TOPIC, "do", { event: "told" }]);
  stage.gateway.closed(a.socket, 1000);
  a.queue([null, "2", TOPIC, "do", { event: "told" }]);
  stage.run();
  stage.gateway.closed(a.socket, 1000);
  stage.gateway.close(a.socket, 1001, "again");
  stage.run();
  assertEquals([a.take(), b.take(), a.wire.code], [[], [], null]);
  stage.close();
});

Deno.test("gateway: frames that waited behind a slow join go when the socket goes", async () => {
  const done = Promise.withResolvers<void>();
  const seen: unknown[] = [];
  const stage = new Stage([lab({ join: (ctx) => ctx.id === "slow" ? new Later(() => done.promise) : void seen.push(ctx.id) })]);
  const a = stage.client();
  a.send(["1", "1", "lab:slow", "phx_join", {}], ["2", "2", "lab:2", "phx_join", {}]);
  a.drop();
  done.resolve();
  await stage.settle();
  assertEquals([seen, stage.reported, stage.gateway.size], [[], [], 0]);
  stage.close();
});

// Slow readers.

/** A reader who takes nothing, and a speaker. */
function slow() {
  const stage = new Stage([labRoom]);
  const [reader, speaker] = [stage.client(someone("r")), stage.client(someone("s"))];
  reader.join(TOPIC);
  speaker.join(TOPIC);
  reader.take();
  /** So much was flushed and stays with the network. */
  const tell = (event: string, size: number, times = 1) => {
    const before = reader.wire.frames.length;
    speaker.send([null, "1", TOPIC, "do", { event, size, times }]);
    const heard = reader.wire.frames.length - before;
    if (heard > 0) reader.wire.backlog += size * heard;
    return heard;
  };
  return { stage, reader, speaker, tell };
}

Deno.test("gateway: passing events are dropped above 256 KiB that wait, lasting and exact ones are not", () => {
  const { stage, reader, tell } = slow();
  for (let n = 0; n < 5; n++) assertEquals(tell("told", 51 * KB), 1);
  assertEquals(tell("seen", 10), 1);
  assertEquals(tell("told", 3 * KB), 1);
  assertGreater(reader.wire.backlog, 256 * KB);
  assertEquals([tell("seen", 10), tell("kept", 10), tell("told", 10), tell("seen", 10)], [0, 1, 1, 0]);
  // The network took it all.
  reader.wire.backlog = 0;
  assertEquals([tell("seen", 10), reader.wire.code], [1, null]);
  stage.close();
});

Deno.test("gateway: above 1 MiB that waits, an event that must not be missed closes 1013; a passing one is only dropped", () => {
  const { stage, reader, speaker, tell } = slow();
  while (reader.wire.backlog <= 1024 * KB) assertEquals(tell("told", 60 * KB), 1);
  assertEquals([tell("seen", 10), reader.wire.code], [0, null]);
  tell("told", 10);
  assertEquals(reader.wire.code, 1013);
  stage.run();
  assertEquals([[...stage.host.members.of("lab/1")].map((member) => member.user.id), stage.gateway.size], [["s"], 1]);
  assertEquals(speaker.wire.code, null);
  stage.close();
});

Deno.test("gateway: a push and a presence diff close a slow socket too", () => {
  for (const by of ["push", "presence"]) {
    const stage: Stage = new Stage([lab({
      join: (ctx) => void ctx.presence.track({}),
      on: {
        do: (ctx, { size }) => ctx.broadcast("told", { text: "x".repeat(Number(size)) }),
        also(ctx) {
          reader.wire.backlog = behind;
          ctx.push("hello", {});
        },
      },
    })]);
    const reader = stage.client();
    reader.join(TOPIC);
    for (let n = 0; n < 18; n++) {
      reader.send([null, "1", TOPIC, "do", { size: 60 * KB }]);
      reader.wire.backlog += 60 * KB;
    }
    const behind = reader.wire.backlog;
    assertEquals(reader.wire.code, null);
    if (by === "presence") stage.client(someone("other")).join(TOPIC);
    else {
      // It was served because nothing seemed to wait.
      reader.wire.backlog = 0;
      reader.send([null, "2", TOPIC, "also", {}]);
    }
    assertEquals(reader.wire.code, 1013, by);
    stage.close();
  }
});

Deno.test("gateway: what a socket asked for does not count, however much of it waits", async () => {
  const { stage, reader, tell } = slow();
  for (let n = 0; reader.wire.backlog <= 1024 * KB; n++) {
    assertEquals(reader.send([null, "1", TOPIC, "also", { size: 60 * KB }])[0][4].status, "ok");
    reader.wire.backlog += 60 * KB;
  }
  assertEquals([tell("told", 10), tell("seen", 10), tell("kept", 10)], [1, 1, 1]);
  assertEquals([reader.wire.code, reader.wire.paused], [null, false]);
  reader.take();
  // But he is asked for no more until he has read them.
  assertEquals([reader.send([null, "1", TOPIC, "also", { size: 10 }]), reader.wire.paused], [[], true]);
  reader.wire.drain();
  await stage.settle();
  assertEquals([reader.take().length, reader.wire.paused, reader.wire.code], [1, false, null]);
  stage.close();
});

Deno.test("gateway: what was once taken does not count: years of events, then a backlog of replies", () => {
  const { stage, reader, tell } = slow();
  // A reader who is always a little behind, but takes everything.
  for (let n = 0; n < 40; n++) {
    tell("told", 60 * KB);
    reader.wire.backlog = 10;
  }
  for (let n = 0; n < 30; n++) {
    reader.send([null, "1", TOPIC, "also", { size: 60 * KB }]);
    reader.wire.backlog += 60 * KB;
  }
  assertEquals([tell("told", 10), reader.wire.code], [1, null]);
  stage.close();
});

Deno.test("gateway: one tick's burst says nothing about the reader", () => {
  const { stage, reader, tell } = slow();
  assertEquals([tell("told", 60 * KB, 30), reader.wire.code], [30, null]);
  stage.close();
});

Deno.test("gateway: a delivery for sessions and topics that are gone is nothing", () => {
  const stage = new Stage([labRoom]);
  stage.gateway.deliver([
    { kind: "reply", session: "g.1.1", ref: "1", status: "ok", body: "{}" },
    { kind: "joined", session: "g.1.1", ref: "1", body: "{}" },
    { kind: "push", session: "g.1.1", event: "x", body: "{}" },
    { kind: "end", session: "g.1.1", event: "phx_close", body: "{}" },
    { kind: "direct", socket: "g.1", frame: "x" },
    { kind: "broadcast", topic: "x", event: "x", body: "{}", durability: "exact" },
  ]);
  stage.gateway.flush();
  assertEquals(stage.reported, []);
  stage.close();
});

Deno.test("gateway: a random order of joins, leaves and drops leaves every subscriber hearing what it should, seed 1", () => {
  let seed = 1;
  const next = (below: number) => (seed = (seed * 48271) % 2147483647) % below;
  const stage = new Stage([labRoom]);
  const open: { client: ReturnType<Stage["client"]>; joined: Set<string> }[] = [];
  for (let step = 0; step < 2000; step++) {
    const one = open[next(open.length || 1)];
    const topic = `lab:${next(3)}`;
    const kind = next(8);
    if (!one || kind === 0) open.push({ client: stage.client(someone(`u${step}`)), joined: new Set() });
    else if (kind === 1 && open.length > 5) {
      open.splice(open.indexOf(one), 1);
      one.client.drop(next(2) === 0);
    } else if (kind < 5) {
      one.client.join(topic);
      one.joined.add(topic);
    } else if (kind < 6) {
      one.client.send([null, "l", topic, "phx_leave", {}]);
      one.joined.delete(topic);
    } else {
      for (const { client } of open) client.take();
      stage.registry.gate.finish({ actor: null, undo: [], effects: [{ kind: "broadcast", topic, event: "told", body: "{}", durability: "exact" }] });
      stage.tick();
      for (const { client, joined } of open) assertEquals(events(client.take()), joined.has(topic) ? ["told"] : [], `step ${step}`);
    }
  }
  assert(labContract("lab").idOf("lab:1") === "1");
  stage.close();
});
