import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Refusal } from "../protocol/reason.ts";
import type { Context, RoomContext } from "../rooms/room.ts";
import { Later } from "../rooms/room.ts";
import { BreakableSql, lab, type LabContract, labContract, someone, Stage, type StageClient } from "./support/stage.ts";

type Ctx = Context<LabContract>;

const TOPIC = "lab:1";
const bodies = (stage: Stage) => stage.host.sql.run("select body from lab_item order by id", [], false).map(({ body }) => body);
const count = (stage: Stage, table: string) => Number(stage.host.sql.run(`select count(*) as n from ${table}`, [], false)[0].n);
const events = (frames: unknown[][]) => frames.map((frame) => frame[3]);

/** A push with ref 9; every frame that the sender heard, and the reply's payload. */
function push(client: StageClient, event = "do", payload: unknown = {}, ref = "9") {
  const heard = client.send([null, ref, TOPIC, event, payload]);
  return { heard, reply: heard.find((frame) => frame[1] === ref && frame[3] === "phx_reply")?.[4] };
}

function put(ctx: Ctx | RoomContext, id: string, body = id) {
  ctx.sql`insert into lab_item (room, id, body) values (${ctx.room}, ${id}, ${body})`;
}

/** All that a turn can do, at once. */
function everything(ctx: Ctx) {
  put(ctx, "x");
  ctx.broadcast("kept", { a: 1 });
  ctx.broadcast("told", { a: 2 });
  ctx.broadcastFrom("seen", { a: 3 });
  ctx.push("hello", {});
  ctx.presence.update({ activity: "writing" });
  ctx.presence.track({ name: "second" }, "another key");
  ctx.presence.untrack();
  ctx.after(1000, "sweep");
  ctx.call("lab/2", { hello: true });
  ctx.close();
}

function traceless(stage: Stage) {
  assertEquals(bodies(stage), []);
  for (const table of ["timer", "outbox", "called"]) assertEquals(count(stage, table), 0, table);
  for (const table of ["log", "log_head"]) assertEquals(count(stage, `${table} where room <> 'refusals'`), 0, table);
}

Deno.test("actor: a Refusal leaves no trace: no write, effect, presence, timer, call or close", () => {
  const stage = new Stage([lab({
    join: (ctx) => void ctx.presence.track({ name: ctx.user.name }),
    on: {
      do(ctx) {
        everything(ctx);
        throw new Refusal("version_conflict", { message: "no" });
      },
    },
  })]);
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  a.join(TOPIC);
  b.join(TOPIC);
  a.take();
  const { heard, reply } = push(a);
  assertEquals(heard.length, 1);
  assertEquals(reply, { status: "error", response: { reason: "version_conflict", message: "no" } });
  assertEquals(b.take(), []);
  stage.advance(10_000);
  assertEquals([a.take(), b.take(), stage.reported], [[], [], []]);
  traceless(stage);
  const state = stage.client(someone("c")).join(TOPIC).heard.find((frame) => frame[3] === "presence_state")[4];
  assertEquals([state.a.metas[0].name, Object.keys(state).sort()], ["Name of a", ["a", "b", "c"]]);
  stage.close();
});

Deno.test("actor: a refused update leaves the metas of a key in their order, the oldest first [89]", () => {
  let refuse = false;
  const stage = new Stage([lab({
    join: (ctx) => void ctx.presence.track({ name: ctx.user.name }),
    on: {
      do(ctx) {
        ctx.presence.update({ activity: "writing" });
        if (refuse) throw new Refusal("version_conflict");
      },
    },
  })]);
  const [first, second] = [stage.client(someone("a")), stage.client(someone("a"))];
  first.join(TOPIC);
  second.join(TOPIC);
  const refs = () => {
    const watcher = stage.client(someone("w"));
    const state = watcher.join(TOPIC).heard.find((frame) => frame[3] === "presence_state")[4];
    watcher.drop(true);
    return state.a.metas.map((meta: { phx_ref: string }) => meta.phx_ref);
  };
  const before = refs();
  refuse = true;
  push(first);
  assertEquals(refs(), before);
  stage.close();
});

Deno.test("actor: a refused track is told to nobody, also when a state went out in the same tick [94, 111]", () => {
  const stage = new Stage([lab({
    on: {
      do(ctx) {
        ctx.presence.track({ name: "ghost" });
        throw new Refusal("forbidden");
      },
    },
  })]);
  const [a, b, c] = [stage.client(someone("a")), stage.client(someone("b")), stage.client(someone("c"))];
  a.join(TOPIC);
  b.join(TOPIC);
  a.take();
  b.take();
  c.queue(["1", "1", TOPIC, "phx_join", {}]);
  a.queue([null, "9", TOPIC, "do", {}]);
  stage.run();
  assertEquals(b.take(), []);
  assertEquals(events(a.take()), ["phx_reply"]);
  stage.close();
});

Deno.test("actor: a refused join leaves no trace and answers with its reason; phx_close is not sent [55]", () => {
  const stage = new Stage([lab({
    join(ctx) {
      if (ctx.user.id === "b") return void ctx.presence.track({ name: "b" });
      everything(ctx);
      throw new Refusal("forbidden");
    },
  })]);
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  b.join(TOPIC);
  assertEquals(a.join(TOPIC).heard, [["j1", "j1", TOPIC, "phx_reply", { status: "error", response: { reason: "forbidden" } }]]);
  assertEquals(b.take(), []);
  traceless(stage);
  assertEquals([...stage.host.members.of("lab/1")].map((member) => member.user.id), ["b"]);
  assertEquals(push(a).reply.response, { reason: "unmatched topic" });
  stage.close();
});

Deno.test("actor: another throw ends the sender's session with phx_error, is reported, and nobody else notices [76]", () => {
  const stage = new Stage([lab({
    on: {
      do(ctx) {
        everything(ctx);
        throw new RangeError("ours");
      },
    },
  })]);
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  const { ref } = a.join(TOPIC);
  b.join(TOPIC);
  const other = a.join("lab:2");
  assertEquals(push(a).heard, [[ref, ref, TOPIC, "phx_error", { reason: "channel_crash" }]]);
  assertEquals(b.take(), []);
  assertEquals(stage.reported.map(({ error }) => (error as Error).message), ["ours"]);
  traceless(stage);
  assertEquals(push(a).heard, [[null, "9", TOPIC, "phx_reply", { status: "error", response: { reason: "unmatched topic" } }]]);
  assertEquals(a.send([other.ref, "10", "lab:2", "also", {}])[0][4].status, "ok");
  assertEquals(a.join(TOPIC).heard[0][4].status, "ok");
  stage.close();
});

Deno.test("actor: a join that throws is answered `join crashed`, and the socket lives [56]", () => {
  const stage = new Stage([lab({
    join() {
      throw new RangeError("ours");
    },
  })]);
  const a = stage.client();
  assertEquals(a.join(TOPIC).heard, [["j1", "j1", TOPIC, "phx_reply", { status: "error", response: { reason: "join crashed" } }]]);
  assertEquals([a.wire.code, stage.reported.length], [null, 1]);
  stage.close();
});

Deno.test("actor: what cannot be encoded is answered internal, the turn leaves no trace and the session lives", () => {
  const circular: Record<string, unknown> = {};
  circular.self = circular;
  const cases: Record<string, (ctx: Ctx) => unknown> = {
    "a BigInt as reply": () => ({ n: 1n }),
    "a circle as reply": () => circular,
    "a function as reply": () => () => {},
    "a symbol as reply": () => Symbol("x"),
    "a BigInt in a broadcast": (ctx) => ctx.broadcast("told", { n: 1n }),
    "a circle in a lasting event": (ctx) => ctx.broadcast("kept", circular),
    "a list as a lasting event": (ctx) => ctx.broadcast("kept", [] as never),
    "bytes as a lasting event": (ctx) => ctx.broadcast("kept", new Uint8Array(1)),
    "a circle in a push": (ctx) => ctx.push("hello", circular),
    "a circle in a call": (ctx) => ctx.call("lab/2", circular),
    "a toJSON that throws": () => ({
      toJSON() {
        throw new Error("x");
      },
    }),
  };
  for (const [what, act] of Object.entries(cases)) {
    const stage = new Stage([lab({
      on: {
        do(ctx) {
          put(ctx, "x");
          ctx.broadcast("told", {});
          return act(ctx);
        },
      },
    })]);
    const a = stage.client();
    a.join(TOPIC);
    const { heard, reply } = push(a);
    assertEquals([heard.length, reply], [1, { status: "error", response: { reason: "internal" } }], what);
    traceless(stage);
    assertEquals(stage.reported.length, 1, what);
    assertEquals(push(a, "also").reply.status, "ok", what);
    stage.close();
  }
});

Deno.test("actor: a name too long for a binary frame fails its turn, never the delivery [34]", () => {
  const stage = new Stage([lab({ on: { do: (ctx) => ctx.push("x".repeat(256), new Uint8Array(1)) } })]);
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  a.join(TOPIC);
  b.join(TOPIC);
  a.queue([null, "9", TOPIC, "do", {}]);
  b.queue([null, "9", TOPIC, "also", {}]);
  stage.run();
  assertEquals(b.take().map((frame) => frame[4].status), ["ok"]);
  assertEquals(stage.reported.length, 1);
  stage.close();
});

Deno.test("actor: the sender hears broadcast, push, broadcast, reply in the order of the handler; others the broadcasts [71, 72]", () => {
  const stage = new Stage([lab({
    on: {
      do(ctx) {
        ctx.broadcast("told", { n: 1 });
        ctx.push("pushed", { n: 2 });
        ctx.broadcast("seen", { n: 3 });
        ctx.broadcastFrom("told", { n: 4 });
        ctx.broadcast("kept", { n: 5 });
        return { n: 6 };
      },
    },
  })]);
  const [a, again, b] = [stage.client(someone("a")), stage.client(someone("a")), stage.client(someone("b"))];
  const { ref } = a.join(TOPIC);
  again.join(TOPIC);
  b.join(TOPIC);
  const { heard } = push(a);
  const cursor = heard[3][4].cursor;
  assertEquals(heard, [
    [null, null, TOPIC, "told", { n: 1 }],
    [ref, null, TOPIC, "pushed", { n: 2 }],
    [null, null, TOPIC, "seen", { n: 3 }],
    [null, null, TOPIC, "kept", { n: 5, cursor }],
    [ref, "9", TOPIC, "phx_reply", { status: "ok", response: { n: 6 } }],
  ]);
  assertMatch(cursor, /^[0-9a-z]+-[0-9a-f]{16}$/);
  const others = [{ n: 1 }, { n: 3 }, { n: 4 }, { n: 5, cursor }];
  assertEquals([again, b].map((client) => client.take().map((frame) => frame[4])), [others, others]);
  stage.close();
});

Deno.test("actor: a broadcast in a join is not heard by the joiner, and what he was pushed follows his reply [59, 60]", () => {
  const stage = new Stage([lab({
    join(ctx) {
      ctx.push("hello", { n: 1 });
      ctx.broadcast("told", { n: 2 });
      ctx.presence.track({ name: "x" });
      return { joined: true };
    },
  })]);
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  a.join(TOPIC);
  a.take();
  const { heard } = b.join(TOPIC);
  assertEquals(events(heard), ["phx_reply", "presence_state", "hello", "presence_diff"]);
  assertEquals(heard[2], ["j1", null, TOPIC, "hello", { n: 1 }]);
  assertEquals(events(a.take()), ["told", "presence_diff"]);
  stage.close();
});

Deno.test("actor: a duplicate join is answered, then the old one closes, then come the new one's pushes [61, 63]", () => {
  const said: string[] = [];
  const stage = new Stage([lab({
    join(ctx) {
      said.push("join");
      ctx.push("hello", {});
      ctx.presence.track({ name: "x" });
    },
    arrive: () => void said.push("arrive"),
    depart: () => void said.push("depart"),
  })]);
  const a = stage.client();
  a.send(["1", "1", TOPIC, "phx_join", {}]);
  const heard = a.send(["2", "2", TOPIC, "phx_join", {}]);
  assertEquals(heard.map((frame) => frame.slice(0, 4)), [
    ["2", "2", TOPIC, "phx_reply"],
    ["1", "1", TOPIC, "phx_close"],
    ["2", null, TOPIC, "presence_state"],
    ["2", null, TOPIC, "hello"],
    [null, null, TOPIC, "presence_diff"],
  ]);
  // The state does not show the old session, and the diff says so.
  assertEquals(heard[2][4].user_1.metas.length, 1);
  assertEquals([heard[4][4].joins.user_1.metas.length, heard[4][4].leaves.user_1.metas.length], [1, 1]);
  assertEquals(a.send(["1", "3", TOPIC, "do", {}]), []);
  assertEquals(a.send(["2", "4", TOPIC, "do", {}], [null, "5", TOPIC, "do", {}]).map((frame) => frame.slice(0, 2)), [["2", "4"], ["2", "5"]]);
  assertEquals(said, ["join", "arrive", "join"]);
  stage.close();
});

Deno.test("actor: a refused duplicate join is answered, then the old one closes, and the topic is not joined [62]", () => {
  let refuse = false;
  const said: string[] = [];
  const stage = new Stage([lab({
    join() {
      if (refuse) throw new Refusal("busy");
    },
    arrive: () => void said.push("arrive"),
    depart: () => void said.push("depart"),
  })]);
  const a = stage.client();
  a.send(["1", "1", TOPIC, "phx_join", {}]);
  refuse = true;
  assertEquals(a.send(["2", "2", TOPIC, "phx_join", {}]), [
    ["2", "2", TOPIC, "phx_reply", { status: "error", response: { reason: "busy" } }],
    ["1", "1", TOPIC, "phx_close", {}],
  ]);
  for (const join_ref of ["1", "2", null]) assertEquals(a.send([join_ref, "3", TOPIC, "do", {}])[0][4].response, { reason: "unmatched topic" });
  assertEquals([said, [...stage.host.members.of("lab/1")]], [["arrive", "depart"], []]);
  stage.close();
});

Deno.test("actor: a duplicate join refused at the door, for its size, ends the old one too [62]", () => {
  const stage = new Stage([lab()]);
  const a = stage.client();
  a.send(["1", "1", TOPIC, "phx_join", {}]);
  const heard = a.send(["2", "2", TOPIC, "phx_join", { text: "x".repeat(70_000) }]);
  assertEquals(heard.map((frame) => [frame[0], frame[3]]), [["2", "phx_reply"], ["1", "phx_close"]]);
  stage.close();
});

Deno.test("actor: ctx.close() ends the session after its reply; the user departs [78]", () => {
  const said: string[] = [];
  const stage = new Stage([lab({
    depart: () => void said.push("depart"),
    on: {
      do(ctx) {
        ctx.close();
        ctx.push("bye", {});
        return { bye: 1 };
      },
    },
  })]);
  const a = stage.client();
  const { ref } = a.join(TOPIC);
  assertEquals(push(a).heard, [
    [ref, null, TOPIC, "bye", {}],
    [ref, "9", TOPIC, "phx_reply", { status: "ok", response: { bye: 1 } }],
    [ref, ref, TOPIC, "phx_close", {}],
  ]);
  assertEquals([said, push(a).reply.response], [["depart"], { reason: "unmatched topic" }]);
  stage.close();
});

Deno.test("actor: ctx.close() in a join ends it after its reply; who arrived departs [78]", () => {
  const said: string[] = [];
  const stage = new Stage([lab({
    join: (ctx) => ctx.close(),
    arrive: () => void said.push("arrive"),
    depart: () => void said.push("depart"),
  })]);
  const { heard } = stage.client().join(TOPIC);
  assertEquals(events(heard), ["phx_reply", "presence_state", "phx_close"]);
  assertEquals(said, ["arrive", "depart"]);
  stage.close();
});

Deno.test("actor: a leave is answered, then closed; without a join_ref too, never with a stale one [79, 80, 81]", () => {
  const stage = new Stage([lab({ join: (ctx) => void ctx.presence.track({ name: "x" }) })]);
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  b.join(TOPIC);
  for (const join_ref of ["1", null]) {
    a.send(["1", "1", TOPIC, "phx_join", {}]);
    b.take();
    assertEquals(a.send(["0", "2", TOPIC, "phx_leave", {}]), []);
    assertEquals(a.send([join_ref, "3", TOPIC, "phx_leave", {}]), [
      ["1", "3", TOPIC, "phx_reply", { status: "ok", response: {} }],
      ["1", "1", TOPIC, "phx_close", {}],
    ]);
    assertEquals(events(b.take()), ["presence_diff"]);
  }
  assertEquals(a.send(["7", "8", TOPIC, "phx_leave", {}]), [["7", "8", TOPIC, "phx_reply", { status: "ok", response: {} }]]);
  stage.close();
});

Deno.test("actor: a leave and a join in one burst end joined, the late close does not kill the new one [82]", () => {
  const stage = new Stage([lab()]);
  const a = stage.client();
  a.send(["1", "1", TOPIC, "phx_join", {}]);
  const heard = a.send(["1", "2", TOPIC, "phx_leave", {}], ["3", "3", TOPIC, "phx_join", {}]);
  assertEquals(heard.map((frame) => [frame[0], frame[3]]), [["1", "phx_reply"], ["1", "phx_close"], ["3", "phx_reply"], ["3", "presence_state"]]);
  assertEquals(a.send(["3", "4", TOPIC, "do", {}])[0][4].status, "ok");
  stage.close();
});

Deno.test("actor: an unknown event is refused and the session lives; `constructor` and `__proto__` are unknown too [67]", () => {
  const stage = new Stage([lab()]);
  const a = stage.client();
  a.join(TOPIC);
  for (const event of ["nope", "constructor", "__proto__", "toString", "hasOwnProperty", "", "phx_reply", "phx_close"]) {
    assertEquals(push(a, event).reply.response, { reason: "unknown_event" }, event);
  }
  assertEquals(push(a).reply.status, "ok");
  stage.close();
});

Deno.test("actor: payloads that are no object are refused invalid_frame, bytes without leave binary_not_supported [19]", () => {
  const stage = new Stage([lab({ on: { bytes: (_ctx, payload) => payload } })]);
  const a = stage.client();
  a.join(TOPIC);
  for (const payload of ["text", 1, null, [1], true]) assertEquals(push(a, "do", payload).reply.response.reason, "invalid_frame");
  const frame = (event: string) => new Uint8Array([0, 2, 1, 5, event.length, ...new TextEncoder().encode("j19lab:1" + event), 1, 2]);
  assertEquals(a.send(frame("do")), [["j1", "9", TOPIC, "phx_reply", { status: "error", response: { reason: "binary_not_supported" } }]]);
  // Bytes come back as bytes. [27, 29]
  assertEquals(a.send(frame("bytes")), [new Uint8Array([1, 2, 1, 5, 2, ...new TextEncoder().encode("j19lab:1ok"), 1, 2])]);
  stage.close();
});

Deno.test("actor: a silent push is never answered unless it is refused [66]", () => {
  const stage = new Stage([lab({ on: { hush: (ctx, { bad }) => bad ? ctx.require("publish") : undefined } })]);
  const a = stage.client();
  a.join(TOPIC);
  assertEquals(push(a, "hush").heard, []);
  assertEquals(push(a, "hush", { bad: true }).reply.response.reason, "forbidden");
  stage.close();
});

Deno.test("actor: join_ref null is answered with the join's ref, phx_close carries null [38, 52]", () => {
  const stage = new Stage([lab({ join: (ctx) => ctx.push("hello", {}) })]);
  const a = stage.client();
  assertEquals(a.send([null, "1", TOPIC, "phx_join", {}]).map((frame) => frame.slice(0, 4)), [
    [null, "1", TOPIC, "phx_reply"],
    ["1", null, TOPIC, "presence_state"],
    ["1", null, TOPIC, "hello"],
  ]);
  assertEquals(a.send([null, "2", TOPIC, "phx_leave", {}]).map((frame) => frame.slice(0, 4)), [
    ["1", "2", TOPIC, "phx_reply"],
    [null, null, TOPIC, "phx_close"],
  ]);
  stage.close();
});

// The context.

Deno.test("actor: the context throws after its turn, whatever is asked of it", async () => {
  let kept: Ctx | undefined;
  const stage = new Stage([lab({
    on: {
      do: (ctx) => void (kept = ctx),
      also(ctx) {
        kept = ctx;
        throw new Refusal("busy");
      },
      bytes: (ctx) => new Later(() => Promise.resolve(kept = ctx)),
    },
  })]);
  const a = stage.client();
  a.join(TOPIC);
  const uses: Record<string, (ctx: Ctx) => unknown> = {
    sql: (ctx) => put(ctx, "x"),
    broadcast: (ctx) => ctx.broadcast("told", {}),
    broadcastFrom: (ctx) => ctx.broadcastFrom("told", {}),
    announce: (ctx) => ctx.announce(labContract("lab"), "told", {}),
    push: (ctx) => ctx.push("x", {}),
    close: (ctx) => ctx.close(),
    after: (ctx) => ctx.after(1, "x"),
    call: (ctx) => ctx.call("lab/2", {}),
    cursor: (ctx) => ctx.cursor(),
    track: (ctx) => ctx.presence.track({}, "key"),
    update: (ctx) => ctx.presence.update({}),
    untrack: (ctx) => ctx.presence.untrack(),
  };
  const still: string[] = [];
  for (const event of ["do", "also", "bytes"]) {
    push(a, event);
    await stage.settle();
    for (const [name, use] of Object.entries(uses)) {
      try {
        use(kept!);
        still.push(`${name} after ${event}`);
      } catch (error) {
        assert(error instanceof TypeError, name);
        assertStringIncludes(error.message, "after its turn");
      }
    }
  }
  assertEquals(still, []);
  stage.run();
  traceless(stage);
  stage.close();
});

// Later.

Deno.test("actor: a Later is answered when it is done, its result goes through a turn that may write", async () => {
  const done = Promise.withResolvers<number>();
  const stage = new Stage([lab({
    on: {
      do: () =>
        new Later(() => done.promise, (ctx, n: number) => {
          put(ctx, "x", String(n));
          ctx.announce(labContract("lab"), "kept", { n });
          return { n };
        }),
    },
  })]);
  const a = stage.client();
  a.join(TOPIC);
  assertEquals(push(a).heard, []);
  // Others need not wait. [68]
  assertEquals(push(a, "also", {}, "10").reply.status, "ok");
  done.resolve(7);
  await stage.settle();
  const heard = a.take();
  assertEquals(events(heard), ["kept", "phx_reply"]);
  assertEquals(heard[1], ["j1", "9", TOPIC, "phx_reply", { status: "ok", response: { n: 7 } }]);
  assertEquals(bodies(stage), ["7"]);
  stage.close();
});

Deno.test("actor: a Later that refuses is an error reply, one that throws ends the session; both at once or later", async () => {
  for (const late of [true, false]) {
    const fail = (error: Error) =>
      new Later(async () => {
        if (late) await Promise.resolve();
        throw error;
      });
    const stage = new Stage([lab({ on: { do: () => fail(new Refusal("invalid_query")), also: () => fail(new RangeError("ours")) } })]);
    const a = stage.client();
    a.join(TOPIC);
    push(a);
    await stage.settle();
    assertEquals(a.take()[0][4], { status: "error", response: { reason: "invalid_query" } });
    push(a, "also");
    await stage.settle();
    assertEquals(events(a.take()), ["phx_error"]);
    assertEquals(stage.reported.length, 1);
    stage.close();
  }
});

Deno.test("actor: a Later is aborted after later_ms and answered timeout; its late result is discarded", async () => {
  const done = Promise.withResolvers<number>();
  let signal: AbortSignal | undefined;
  const stage = new Stage([lab({
    on: {
      do: () =>
        new Later((given) => {
          signal = given;
          return done.promise;
        }, (ctx) => put(ctx, "late")),
    },
  })], { limits: { later_ms: 500 } });
  const a = stage.client();
  a.join(TOPIC);
  push(a);
  stage.advance(499);
  assertEquals([a.take(), signal?.aborted], [[], false]);
  stage.advance(1);
  assertEquals(a.take()[0][4], { status: "error", response: { reason: "timeout" } });
  assertEquals(signal?.aborted, true);
  done.resolve(1);
  await stage.settle();
  assertEquals([a.take(), bodies(stage), stage.reported], [[], [], []]);
  stage.close();
});

Deno.test("actor: a Later whose member is gone meanwhile, or came back, is discarded", async () => {
  for (const back of [false, true]) {
    const done = Promise.withResolvers<number>();
    const stage = new Stage([lab({ on: { do: () => new Later(() => done.promise, (ctx) => put(ctx, "late")) } })]);
    const a = stage.client();
    a.join(TOPIC);
    push(a);
    a.send([null, "10", TOPIC, "phx_leave", {}]);
    if (back) a.join(TOPIC);
    done.resolve(1);
    await stage.settle();
    assertEquals([a.take(), bodies(stage), stage.reported], [[], [], []]);
    stage.close();
  }
});

Deno.test("actor: a Later that finishes in another Later fails its turn, and no broken frame leaves", async () => {
  const stage = new Stage([lab({ on: { do: () => new Later(() => Promise.resolve(1), () => new Later(() => Promise.resolve(2))) } })]);
  const a = stage.client();
  a.join(TOPIC);
  push(a);
  await stage.settle();
  const heard = a.take();
  assert(heard.length === 1 && (heard[0][3] === "phx_error" || heard[0][4].status === "error"), JSON.stringify(heard));
  stage.close();
});

Deno.test("actor: a slow join holds up its own socket, in order, and nobody else's [57, 58]", async () => {
  const done = Promise.withResolvers<number>();
  const stage = new Stage([lab({ join: (ctx) => ctx.id === "slow" ? new Later(() => done.promise, (_ctx, n: number) => ({ n })) : undefined })]);
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  a.queue(["1", "1", "lab:slow", "phx_join", {}]);
  a.queue(["1", "2", "lab:slow", "do", {}]);
  a.queue([null, "3", "phoenix", "heartbeat", {}]);
  a.queue(["4", "4", "lab:fast", "phx_join", {}]);
  stage.run();
  // He is read on, or nobody would hear that he goes.
  assertEquals([a.take(), a.wire.paused], [[], false]);
  assertEquals(b.join("lab:fast").heard[0][4].status, "ok");
  done.resolve(1);
  await stage.settle();
  const heard = a.take();
  assertEquals(heard.filter((frame) => frame[3] === "phx_reply").map((frame) => frame[1]), ["1", "2", "3", "4"]);
  assertEquals(heard[0][4], { status: "ok", response: { n: 1, cursor: "0", recovered: false } });
  assertEquals(a.wire.paused, false);
  stage.close();
});

Deno.test("actor: slow joins in one burst run one after the other", async () => {
  const log: string[] = [];
  const stage = new Stage([lab({
    join: (ctx) => {
      const { id } = ctx;
      log.push(`begin ${id}`);
      return new Later(() => Promise.resolve(), () => {
        log.push(`end ${id}`);
      });
    },
  })]);
  const a = stage.client();
  for (const id of ["1", "2", "3"]) a.queue([id, id, `lab:${id}`, "phx_join", {}]);
  for (let turn = 0; turn < 4; turn++) await stage.settle();
  assertEquals(log, ["begin 1", "end 1", "begin 2", "end 2", "begin 3", "end 3"]);
  assertEquals(a.take().filter((frame) => frame[3] === "phx_reply").map((frame) => frame[1]), ["1", "2", "3"]);
  stage.close();
});

Deno.test("actor: a slow join is cancelled when its socket goes", async () => {
  const done = Promise.withResolvers<number>();
  let signal: AbortSignal | undefined;
  const said: string[] = [];
  const stage = new Stage([lab({
    join: () =>
      new Later((given) => {
        signal = given;
        return done.promise;
      }, (ctx) => put(ctx, "x")),
    arrive: () => void said.push("arrive"),
  })]);
  const a = stage.client();
  a.join(TOPIC);
  a.drop();
  assertEquals(signal?.aborted, true);
  done.resolve(1);
  await stage.settle();
  assertEquals([bodies(stage), said, [...stage.host.members.of("lab/1")]], [[], [], []]);
  stage.close();
});

Deno.test("actor: a slow join that sends or shows something before its work has finished is our error", async () => {
  const early: Record<string, (ctx: Context) => unknown> = {
    push: (ctx) => ctx.push("hello", {}),
    presence: (ctx) => ctx.presence.track({ name: "slow" } as never),
    close: (ctx) => ctx.close(),
  };
  for (const [what, act] of Object.entries(early)) {
    const stage = new Stage([lab({
      join(ctx) {
        act(ctx as unknown as Context);
        return new Later(() => Promise.resolve({}));
      },
    })]);
    const a = stage.client();
    const { heard } = a.join(TOPIC);
    await stage.settle();
    assertEquals([...heard, ...a.take()].map((frame) => frame[4].response), [{ reason: "join crashed" }], what);
    assertEquals([stage.reported.length, [...stage.host.members.of("lab/1")]], [1, []], what);
    stage.close();
  }
});

Deno.test("actor: presence tracked when a slow join finishes is in the joiner's state", async () => {
  const stage = new Stage([lab({ join: () => new Later(() => Promise.resolve({}), (ctx) => void ctx.presence.track({ name: "slow" })) })]);
  const a = stage.client();
  a.join(TOPIC);
  await stage.settle();
  assertEquals(Object.keys(a.take().find((frame) => frame[3] === "presence_state")[4]), ["user_1"]);
  stage.close();
});

Deno.test("actor: arrive and depart alternate, also around a slow rejoin that is refused, kept or abandoned [61, 62]", async () => {
  for (const end of ["ok", "refused", "gone"]) {
    const done = Promise.withResolvers<unknown>();
    const said: string[] = [];
    let slow = false;
    const stage = new Stage([lab({
      join: () =>
        slow
          ? new Later(() => done.promise, () => {
            if (end === "refused") throw new Refusal("busy");
          })
          : undefined,
      arrive: () => void said.push("arrive"),
      depart: () => void said.push("depart"),
    })]);
    const a = stage.client();
    a.join(TOPIC);
    slow = true;
    a.join(TOPIC);
    if (end === "gone") a.drop(true);
    done.resolve(1);
    await stage.settle();
    if (end === "ok") a.drop(true);
    const expected = said.length === 4 ? ["arrive", "depart", "arrive", "depart"] : ["arrive", "depart"];
    assertEquals(said, expected, end);
    stage.close();
  }
});

Deno.test("actor: work begun by a turn whose tick was lost is not acknowledged", async () => {
  const sql = new BreakableSql();
  const stage = new Stage([lab({
    on: {
      do(ctx) {
        put(ctx, "x");
        return new Later(() => Promise.resolve({}), (ctx) => ({ n: Number(ctx.sql`select count(*) as n from lab_item where room = ${ctx.room}`[0].n) }));
      },
    },
  })], { sql });
  const a = stage.client();
  a.join(TOPIC);
  sql.failCommits = 1;
  const { heard } = push(a);
  await stage.settle();
  assertEquals([...heard, ...a.take()].map((frame) => frame[4]), [{ status: "error", response: { reason: "unavailable" } }]);
  stage.close();
});

// Facts.

Deno.test("actor: a clean close, a leave and a crash are told once; two sockets of a user are one", () => {
  const said: string[] = [];
  const stage = new Stage([lab({
    arrive: (ctx) => void said.push(`+${ctx.user.id}`),
    depart: (ctx) => void said.push(`-${ctx.user.id}`),
    on: {
      do() {
        throw new Error("ours");
      },
    },
  })]);
  const [a, again, b] = [stage.client(someone("a")), stage.client(someone("a")), stage.client(someone("b"))];
  a.join(TOPIC);
  again.join(TOPIC);
  b.join(TOPIC);
  a.drop(true);
  push(again);
  push(b, "phx_leave");
  b.drop(true);
  assertEquals(said, ["+a", "+b", "-a", "-b"]);
  stage.close();
});

Deno.test("actor: a fact that throws is reported and undone, and the join or end that it follows stands", () => {
  const fail = (ctx: Ctx) => {
    put(ctx, "x");
    throw new Error("ours");
  };
  const stage = new Stage([lab({ arrive: fail, depart: fail })]);
  const a = stage.client();
  assertEquals(a.join(TOPIC).heard[0][4].status, "ok");
  assertEquals(events(push(a, "phx_leave").heard), ["phx_reply", "phx_close"]);
  assertEquals([stage.reported.length, bodies(stage)], [2, []]);
  stage.close();
});

Deno.test("actor: presence is held after a break: ended by time", () => {
  const said: string[] = [];
  const stage = new Stage([lab({ join: (ctx) => void ctx.presence.track({ name: "x" }), depart: () => void said.push("depart") })], { graceMs: 5000 });
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  b.join(TOPIC);
  a.join(TOPIC);
  b.take();
  a.drop();
  stage.advance(4999);
  assertEquals([b.take(), said], [[], []]);
  stage.advance(1);
  const [diff, ...more] = b.take();
  assertEquals([Object.keys(diff[4].leaves), diff[4].joins, more, said], [["a"], {}, [], ["depart"]]);
  assertEquals([...stage.host.members.of("lab/1")].length, 1);
  stage.close();
});

Deno.test("actor: presence is held after a break: the user's return replaces it in one diff, and nobody saw him leave", () => {
  const said: string[] = [];
  const stage = new Stage([lab({
    join: (ctx) => void ctx.presence.track({ name: "x" }),
    arrive: (ctx) => void said.push(`+${ctx.user.id}`),
    depart: (ctx) => void said.push(`-${ctx.user.id}`),
  })], { graceMs: 5000 });
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  b.join(TOPIC);
  a.join(TOPIC);
  b.take();
  a.drop();
  stage.advance(1000);
  const back = stage.client(someone("a"));
  back.join(TOPIC);
  const [diff, ...more] = b.take();
  assertEquals([Object.keys(diff[4].joins), Object.keys(diff[4].leaves), more], [["a"], ["a"], []]);
  stage.advance(60_000 - 2000);
  assertEquals([b.take(), said], [[], ["+b", "+a"]]);
  assertEquals([...stage.host.members.of("lab/1")].length, 2);
  stage.close();
});

Deno.test("actor: presence is not held after a clean close, a leave, or where nothing was tracked", () => {
  const stage = new Stage([lab({ join: (ctx) => ctx.user.id === "shy" ? undefined : void ctx.presence.track({ name: "x" }) })], { graceMs: 5000 });
  const b = stage.client(someone("b"));
  b.join(TOPIC);
  const gone = (act: (client: StageClient) => void, user = "a") => {
    const a = stage.client(someone(user));
    a.join(TOPIC);
    b.take();
    act(a);
    assertEquals([...stage.host.members.of("lab/1")].map((member) => member.user.id), ["b"]);
    assertEquals(events(b.take()), user === "shy" ? [] : ["presence_diff"]);
  };
  gone((client) => client.drop(true));
  gone((client) => push(client, "phx_leave"));
  gone((client) => client.drop(), "shy");
  stage.close();
});

Deno.test("actor: a held member hears nothing and cannot speak; the same for a user of two sockets", () => {
  const stage = new Stage([lab({ join: (ctx) => void ctx.presence.track({ name: "x" }) })], { graceMs: 5000 });
  const [a, again, b] = [stage.client(someone("a")), stage.client(someone("a")), stage.client(someone("b"))];
  for (const client of [a, again, b]) client.join(TOPIC);
  b.take();
  a.drop();
  stage.advance(5000);
  const [diff] = b.take();
  assertEquals(diff[4].leaves.a.metas.length, 1);
  assertEquals(push(again).reply.status, "ok");
  stage.close();
});

// Rights.

Deno.test("actor: a renewed token whose rights are gone closes the topic with phx_close and a reason, others stay [102]", async () => {
  let rights: readonly string[] = ["1", "2"];
  const stage = new Stage([lab({
    admit(ctx) {
      if (ctx.user.cases !== "*" && !ctx.user.cases.includes(ctx.id)) throw new Refusal("forbidden");
    },
    join: (ctx) => void ctx.presence.track({ name: "x" }),
  })], { verify: () => Promise.resolve({ user: someone("a", "attorney", rights), expires: Date.parse("2030-01-01") }) });
  const [a, w] = [stage.client(someone("a", "attorney", rights)), stage.client(someone("w"))];
  w.join("lab:1");
  const { ref } = a.join("lab:1");
  const two = a.join("lab:2");
  w.take();
  rights = ["2"];
  a.send([null, "7", "auth", "authenticate", { token: "t" }]);
  await stage.settle();
  const heard = a.take();
  assertEquals(heard.map((frame) => [frame[0], frame[1], frame[2], frame[3]]), [
    [null, "7", "auth", "phx_reply"],
    [ref, ref, "lab:1", "phx_close"],
  ]);
  assertEquals(heard[1][4], { reason: "forbidden" });
  assertEquals(events(w.take()), ["presence_diff"]);
  assertEquals(a.send([two.ref, "8", "lab:2", "do", {}])[0][4].status, "ok");
  assertEquals(a.join("lab:1").heard[0][4].response, { reason: "forbidden" });
  stage.close();
});

Deno.test("actor: user_id in a join is compared with the token, never trusted", () => {
  const stage = new Stage([lab()]);
  const a = stage.client(someone("a"));
  assertEquals(a.join(TOPIC, { user_id: "a" }).heard[0][4].status, "ok");
  assertEquals(a.join(TOPIC, { user_id: "b" }).heard[0][4].response, { reason: "user_mismatch" });
  assertEquals(a.join(TOPIC, { user_id: 1 }).heard[0][4].response.reason, "invalid_payload");
  stage.close();
});

Deno.test("actor: refusals of authority stand in the chain of a room that exists, bounded per user, form not at all", () => {
  const stage = new Stage([lab({
    on: {
      do: (ctx) => ctx.broadcast("kept", {}),
      also: (ctx) => {
        put(ctx, "x");
        ctx.require("publish");
      },
      hush() {
        throw new Refusal("invalid_payload");
      },
    },
  })], { limits: { refusals_logged: 2 } });
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  a.join(TOPIC);
  b.join(TOPIC);
  const logged = (room = "lab/1") =>
    stage.host.sql.run("select user, event, payload, topic from log where event = 'refused' and room = ? order by seq", [room], false)
      .map((row) => Object.values(row));
  // Nothing is known of the room: it stands elsewhere.
  push(a, "also");
  a.send([null, "1", TOPIC, "phx_join", { user_id: "b" }]);
  assertEquals(logged(), []);
  const digest = stage.host.sha256(TOPIC);
  assertEquals(logged("refusals"), [["a", "refused", '{"reason":"forbidden"}', digest], ["a", "refused", '{"reason":"user_mismatch"}', digest]]);
  for (const half of [1, 2]) {
    stage.advance(60_001 / 2);
    for (const client of [a, b]) client.send([null, `h${half}`, "phoenix", "heartbeat", {}]);
  }
  a.join(TOPIC);
  push(a, "do");
  push(a, "hush");
  push(a, "nope");
  assertEquals(logged(), []);
  for (let time = 0; time < 5; time++) assertEquals(push(a, "also").reply.response.reason, "forbidden");
  const row = ["a", "refused", '{"reason":"forbidden"}', TOPIC];
  assertEquals(logged(), [row, row]);
  push(b, "also");
  assertEquals(logged().length, 3);
  stage.advance(60_001 / 2);
  a.send([null, "1", "phoenix", "heartbeat", {}]);
  b.send([null, "1", "phoenix", "heartbeat", {}]);
  stage.advance(60_001 / 2);
  push(a, "also");
  assertEquals(logged().length, 4);
  assertEquals(bodies(stage), []);
  stage.close();
});

Deno.test("actor: a refused join to a room that nothing happened in stands elsewhere, creates none, and costs as much as one to a room with a record", () => {
  const stage = new Stage([lab({
    admit() {
      throw new Refusal("forbidden");
    },
  })]);
  const a = stage.client();
  const commits = () => stage.metrics.counts.commits;
  for (const [index, id] of ["1", "2", "__proto__"].entries()) {
    assertEquals(a.join(`lab:${id}`).heard[0][4].response.reason, "forbidden");
    assertEquals(commits(), index + 1);
  }
  assertEquals(stage.host.sql.run("select room, number from log_head", [], false).map((row) => Object.values(row)), [["refusals", 3]]);
  assertEquals(count(stage, "lab_item"), 0);
  stage.close();
});

// Names that are not ours.

Deno.test("actor: `__proto__` and `constructor` as topic, key, field and parameter are only strings", () => {
  const before = JSON.stringify(Object.getOwnPropertyNames(Object.prototype));
  const stage = new Stage([lab({
    join(ctx, params) {
      ctx.presence.track({ name: "x" }, ctx.id);
      return { keys: Object.keys(params) };
    },
    on: {
      do(ctx, payload) {
        ctx.presence.update(payload, ctx.id);
        ctx.broadcast("kept", payload);
        return payload;
      },
    },
  })]);
  const evil = '{"__proto__":{"polluted":1},"constructor":{"prototype":{"polluted":1}},"toString":1}';
  for (const id of ["__proto__", "constructor", "toString", "prototype"]) {
    const a = stage.client(someone(id));
    const heard = a.send(`["1","1","lab:${id}","phx_join",${evil}]`);
    assertEquals(heard[0][4].status, "ok");
    assertEquals(Object.keys(heard[1][4]), [id]);
    const pushed = a.send(`["1","2","lab:${id}","do",${evil}]`);
    assertEquals([pushed.at(-2)[4].status, pushed.at(-1)[3]], ["ok", "presence_diff"]);
    a.drop();
  }
  assertEquals(({} as Record<string, unknown>).polluted, undefined);
  assertEquals(JSON.stringify(Object.getOwnPropertyNames(Object.prototype)), before);
  assertEquals(stage.reported, []);
  stage.close();
});
