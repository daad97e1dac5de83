import { assert, assertEquals, assertRejects } from "@std/assert";
import { Refusal } from "../protocol/reason.ts";
import { DenoSql } from "../rooms/hosts/deno_sql.ts";
import { sha256 } from "../rooms/hosts/deno.ts";
import { verifyLog } from "../rooms/log.ts";
import { BreakableSql, lab, someone, Stage, type StageClient } from "./support/stage.ts";
import { random } from "./support/random.ts";

const UNAVAILABLE = { status: "error", response: { reason: "unavailable" } };

/** `do {id}` writes, keeps, tells and shows; `also` reads; `hush` crashes; `bytes` closes. */
const labRoom = lab({
  join: (ctx) => void ctx.presence.track({ name: ctx.user.name }),
  on: {
    do(ctx, { id }) {
      ctx.sql`insert into lab_item (room, id, body) values (${ctx.room}, ${String(id)}, ${"x".repeat(1000)})`;
      ctx.broadcast("kept", { id });
      ctx.push("pushed", { id });
      ctx.presence.update({ activity: String(id) });
      return { id };
    },
    also: (ctx) => ({ n: Number(ctx.sql`select count(*) as n from lab_item where room = ${ctx.room}`[0].n), cursor: ctx.cursor() }),
    bytes(ctx, { id }) {
      ctx.sql`insert into lab_item (room, id, body) values (${ctx.room}, ${String(id)}, '')`;
      ctx.close();
    },
    hush(ctx, { id }) {
      ctx.sql`insert into lab_item (room, id, body) values (${ctx.room}, ${String(id)}, '')`;
      throw new Error("ours");
    },
  },
}, {
  timers: {
    sweep: (ctx) => void ctx.sql`insert into lab_item (room, id, body) values (${ctx.room}, ${ctx.newId("swept")}, '')`,
  },
});

function setUp(sql: BreakableSql, graceMs = 0) {
  const stage = new Stage([labRoom], { sql, graceMs });
  const open = (user: string, id = "1") => {
    const client = stage.client(someone(user));
    client.join(`lab:${id}`);
    return client;
  };
  const ids = (id = "1") => sql.run("select id from lab_item where room = ? order by id", [`lab/${id}`], false).map((row) => row.id);
  const state = (id = "1") => {
    const client = stage.client(someone("looker"));
    const found = client.join(`lab:${id}`).heard.find((frame) => frame[3] === "presence_state")[4];
    client.drop(true);
    delete found.looker;
    return found;
  };
  return { stage, open, ids, state };
}

const queue = (client: StageClient, event: string, id: string, room = "1") => client.queue([null, id, `lab:${room}`, event, { id }]);
const reply = (frames: unknown[][], ref: string) => frames.find((frame) => frame[3] === "phx_reply" && frame[1] === ref)?.[4];
const sound = (sql: BreakableSql) =>
  verifyLog(sha256, sql.run("select * from log order by seq", [], false), sql.run("select * from log_head", [], false)).broken;

Deno.test("gate: nothing leaves before the commit, then all of the tick in one write per socket", () => {
  const sql = new BreakableSql();
  const { stage, open } = setUp(sql);
  const [a, b, c] = [open("a"), open("b"), open("c", "2")];
  for (const client of [a, b, c]) client.take();
  let looked = 0;
  sql.committing = () => {
    looked++;
    assertEquals([a, b, c].map((client) => client.wire.frames.length), [0, 0, 0]);
  };
  const writes = a.wire.writes;
  queue(a, "do", "x");
  queue(a, "also", "y");
  queue(c, "also", "z", "2");
  stage.tick();
  assertEquals(looked, 1);
  assertEquals(a.take().map((frame) => frame[3]), ["kept", "pushed", "phx_reply", "phx_reply", "presence_diff"]);
  assertEquals(b.take().map((frame) => frame[3]), ["kept", "presence_diff"]);
  assertEquals(c.take().map((frame) => frame[3]), ["phx_reply"]);
  assertEquals(a.wire.writes - writes, 1);
  stage.close();
});

Deno.test("gate: one transaction holds what all rooms wrote in a tick; a tick that only reads opens none", () => {
  const sql = new BreakableSql();
  const { stage, open } = setUp(sql);
  const [a, b] = [open("a"), open("b", "2")];
  sql.written.length = 0;
  queue(a, "also", "1");
  stage.tick();
  assertEquals(sql.written, []);
  queue(a, "do", "1");
  queue(a, "do", "2");
  queue(b, "do", "3", "2");
  stage.tick();
  // Each room's head is written once per tick.
  assertEquals(sql.written.filter((statement) => statement.includes("log_head")).length, 2);
  assertEquals(sql.written.filter((statement) => statement.startsWith("insert into log (")).length, 3);
  stage.close();
});

Deno.test("gate: a failing commit answers unavailable to the room that wrote, its readers too, and other rooms' effects leave", () => {
  const sql = new BreakableSql();
  const { stage, open, ids, state } = setUp(sql);
  const [a, b, c] = [open("a"), open("b"), open("c", "2")];
  for (const client of [a, b, c]) client.take();
  const before = state();
  for (const client of [a, b]) client.take();
  queue(b, "also", "before");
  queue(a, "do", "x");
  queue(b, "also", "after");
  queue(b, "nope", "refused");
  queue(c, "also", "other", "2");
  a.queue([null, "beat", "phoenix", "heartbeat", {}]);
  sql.failCommits = 1;
  stage.tick();
  assertEquals(a.take(), [["j1", "x", "lab:1", "phx_reply", UNAVAILABLE], [null, "beat", "phoenix", "phx_reply", { status: "ok", response: {} }]]);
  const heard = b.take();
  assertEquals(heard.map((frame) => [frame[1], frame[4]]), ["before", "after", "refused"].map((ref) => [ref, UNAVAILABLE]));
  assertEquals(c.take(), [["j1", "other", "lab:2", "phx_reply", { status: "ok", response: { n: 0, cursor: "0" } }]]);
  assertEquals(stage.reported.length, 1);
  assertEquals([ids(), state()], [[], before]);
  // The next tick works, and says it all.
  for (const client of [a, b]) client.take();
  queue(a, "do", "x");
  stage.run();
  assertEquals(a.take().map((frame) => frame[3]), ["kept", "pushed", "phx_reply", "presence_diff"]);
  assertEquals([ids(), state().a.metas[0].activity, sound(sql)], [["x"], "x", null]);
  stage.close();
});

for (
  const [what, failing] of [
    ["an insert of the room", /^insert into lab_item/],
    ["the append to the log", /^insert into log \(/],
    ["the write of the log's heads", /^insert into log_head/],
  ] as const
) {
  Deno.test(`gate: ${what} that meets a full disk costs the tick: nothing more is written in it, nothing of it is kept`, () => {
    const sql = new BreakableSql();
    const { stage, open, ids, state } = setUp(sql);
    const [a, b, c] = [open("a"), open("b", "2"), open("c", "3")];
    queue(a, "do", "kept");
    stage.run();
    for (const client of [a, b, c]) client.take();
    const before = state();
    a.take();
    queue(b, "bytes", "early", "2");
    queue(a, "do", "x");
    queue(b, "do", "late", "2");
    queue(c, "also", "reader", "3");
    sql.failing = failing;
    stage.tick();
    sql.failing = null;
    assertEquals(a.take().map((frame) => frame[4]), [UNAVAILABLE]);
    assertEquals(b.take().filter((frame) => frame[1] === "early").map((frame) => frame[4]), [UNAVAILABLE]);
    assertEquals(reply(c.take(), "reader"), { status: "ok", response: { n: 0, cursor: "0" } });
    assertEquals([ids(), ids("2"), state()], [["kept"], [], before]);
    queue(a, "do", "y");
    stage.run();
    assertEquals(reply(a.take(), "y"), { status: "ok", response: { id: "y" } });
    assertEquals([ids(), sound(sql)], [["kept", "y"], null]);
    stage.close();
  });
}

Deno.test("gate: a real full disk (SQLITE_FULL rolls all back by itself) costs the tick and not the next one", () => {
  const dir = Deno.makeTempDirSync();
  const sql = new BreakableSql(new DenoSql(`${dir}/full.db`));
  const { stage, open, ids } = setUp(sql);
  const [a, b] = [open("a"), open("b", "2")];
  queue(a, "do", "kept");
  stage.run();
  const pages = Number(sql.run("pragma page_count", [], false)[0].page_count);
  sql.run(`pragma max_page_count = ${pages + 2}`, [], false);
  for (const client of [a, b]) client.take();
  queue(b, "do", "early", "2");
  for (let n = 0; n < 20; n++) queue(a, "do", `n${n}`);
  queue(b, "do", "late", "2");
  stage.tick();
  assertEquals(a.take().map((frame) => frame[4]), Array(20).fill(UNAVAILABLE));
  assertEquals(b.take().map((frame) => frame[4]), Array(2).fill(UNAVAILABLE));
  assertEquals([ids(), ids("2")], [["kept"], []]);
  sql.run("pragma max_page_count = 100000", [], false);
  queue(b, "do", "late", "2");
  queue(a, "do", "n0");
  stage.run();
  assertEquals([reply(a.take(), "n0"), reply(b.take(), "late")].map((answer) => (answer as { status: string }).status), ["ok", "ok"]);
  assertEquals([ids(), ids("2"), sound(sql)], [["kept", "n0"], ["late"], null]);
  stage.close();
  Deno.removeSync(dir, { recursive: true });
});

Deno.test("gate: a real COMMIT that fails (a deferred constraint leaves the transaction open) costs the tick and not the next one", () => {
  const sql = new BreakableSql();
  sql.run("pragma foreign_keys = on", [], false);
  const stage = new Stage([lab({
    on: {
      do(ctx, { parent }) {
        ctx.sql`insert into lab_child (room, parent) values (${ctx.room}, ${String(parent)})`;
        ctx.broadcast("kept", {});
      },
      also: (ctx) => ({ n: Number(ctx.sql`select count(*) as n from lab_child where room = ${ctx.room}`[0].n) }),
    },
  }, {
    migrations: [
      `create table lab_parent (id text primary key) strict;
       create table lab_child (room text not null, parent text references lab_parent (id) deferrable initially deferred) strict`,
    ],
  })], { sql });
  sql.run("insert into lab_parent (id) values ('here')", [], true);
  const a = stage.client();
  a.join("lab:1");
  for (let time = 0; time < 3; time++) {
    assertEquals(a.send([null, "1", "lab:1", "do", { parent: "nowhere" }]).map((frame) => frame[4]), [UNAVAILABLE]);
    assertEquals(reply(a.send([null, "2", "lab:1", "do", { parent: "here" }]), "2"), { status: "ok", response: {} });
    assertEquals(reply(a.send([null, "3", "lab:1", "also", {}]), "3"), { status: "ok", response: { n: time + 1 } });
  }
  assertEquals([sound(sql), stage.reported.length], [null, 3]);
  stage.close();
});

Deno.test("gate: a join in a lost tick is unavailable, leaves no member and no presence, and may be tried again", () => {
  const sql = new BreakableSql();
  const { stage, open, state } = setUp(sql);
  const a = open("a");
  a.take();
  const b = stage.client(someone("b"));
  b.queue(["1", "1", "lab:1", "phx_join", {}]);
  queue(a, "do", "x");
  sql.failCommits = 1;
  stage.run();
  assertEquals(b.take(), [["1", "1", "lab:1", "phx_reply", UNAVAILABLE]]);
  assertEquals([...stage.host.members.of("lab/1")].map((member) => member.user.id), ["a"]);
  assertEquals(Object.keys(state()).sort(), ["a"]);
  assertEquals(b.join("lab:1").heard[0][4].status, "ok");
  stage.close();
});

Deno.test("gate: a rejoin in a lost tick ends the old join too, once it can be kept [62]", () => {
  const sql = new BreakableSql();
  const { stage, open, state } = setUp(sql);
  const [a, b] = [open("a"), open("b")];
  for (const client of [a, b]) client.take();
  a.queue(["2", "2", "lab:1", "phx_join", {}]);
  queue(b, "do", "x");
  sql.failCommits = 1;
  stage.run();
  const heard = a.take();
  assertEquals(heard.map((frame) => [frame[0], frame[3]]), [["2", "phx_reply"], ["j1", "phx_close"]]);
  stage.advance(1000);
  assertEquals(Object.keys(state()).sort(), ["b"]);
  assertEquals([...stage.host.members.of("lab/1")].map((member) => member.user.id), ["b"]);
  stage.close();
});

Deno.test("gate: facts happen later: a leave and a broken connection of a lost tick", () => {
  const said: string[] = [];
  const sql = new BreakableSql();
  const behaviour = labRoom.topics[0].behaviour;
  const stage = new Stage([{
    ...labRoom,
    topics: [{ ...labRoom.topics[0], behaviour: { ...behaviour, depart: (ctx: { user: { id: string } }) => void said.push(ctx.user.id) } }],
  }], { sql });
  const [a, b, c] = ["a", "b", "c"].map((user) => stage.client(someone(user)));
  for (const client of [a, b, c]) client.join("lab:1");
  for (const client of [a, b, c]) client.take();
  b.queue(["j1", "9", "lab:1", "phx_leave", {}]);
  stage.gateway.closed(c.socket, 1006);
  queue(a, "do", "x");
  sql.failCommits = 3;
  stage.tick();
  assertEquals([a.take().map((frame) => frame[4]), b.take()], [[UNAVAILABLE], []]);
  said.length = 0;
  // Two more ticks are lost on the way.
  for (let time = 0; time < 2; time++) {
    queue(a, "do", "x");
    stage.clock.advance(100);
    stage.tick();
  }
  a.take();
  assertEquals(b.take(), []);
  said.length = 0;
  stage.advance(1000);
  assertEquals(b.take().map((frame) => [frame[0], frame[1], frame[3]]), [["j1", "9", "phx_reply"], ["j1", "j1", "phx_close"]]);
  assertEquals(a.take().flatMap((frame) => Object.keys(frame[4].leaves)).sort(), ["b", "c"]);
  assertEquals(said.sort(), ["b", "c"]);
  assertEquals([...stage.host.members.of("lab/1")].map((member) => member.user.id), ["a"]);
  stage.close();
});

Deno.test("gate: facts happen later: a timer of a lost tick", () => {
  const sql = new BreakableSql();
  const { stage, open, ids } = setUp(sql);
  open("a");
  stage.registry.storage.setTimer("lab/1", "sweep", stage.clock.now() + 1000);
  stage.run();
  stage.registry.start();
  sql.failCommits = 1;
  stage.clock.advance(1000);
  stage.tick();
  assertEquals([sql.failCommits, ids()], [0, []]);
  stage.advance(1000);
  assertEquals(ids().length, 1);
  assertEquals(sql.run("select * from timer", [], false), []);
  stage.close();
});

Deno.test("gate: ctx.close() in a lost tick does not happen: the push is unavailable and the session stays", () => {
  const sql = new BreakableSql();
  const { stage, open } = setUp(sql);
  const a = open("a");
  a.take();
  sql.failCommits = 1;
  queue(a, "bytes", "x");
  stage.tick();
  stage.advance(1000);
  assertEquals(a.take().map((frame) => frame[4]), [UNAVAILABLE]);
  queue(a, "also", "y");
  stage.run();
  assertEquals(reply(a.take(), "y"), { status: "ok", response: { n: 0, cursor: "0" } });
  stage.close();
});

Deno.test("gate: a crash in a lost tick ends the session all the same", () => {
  const sql = new BreakableSql();
  const { stage, open } = setUp(sql);
  const [a, b] = [open("a"), open("b")];
  a.take();
  sql.failCommits = 1;
  queue(b, "do", "y");
  queue(a, "hush", "x");
  stage.tick();
  stage.advance(1000);
  const heard = a.take();
  assertEquals(heard.filter((frame) => frame[3] === "phx_error").length, 1, JSON.stringify(heard));
  queue(a, "also", "z");
  stage.run();
  assertEquals(reply(a.take(), "z"), { status: "error", response: { reason: "unmatched topic" } });
  stage.close();
});

Deno.test("gate: a leave of a session that crashed in the same lost tick is told in the end, and nothing is left", () => {
  const sql = new BreakableSql();
  const { stage, open } = setUp(sql);
  const [a, b] = [open("a"), open("b")];
  sql.failCommits = 1;
  queue(b, "do", "y");
  queue(a, "hush", "x");
  a.queue(["j1", "9", "lab:1", "phx_leave", {}]);
  a.take();
  stage.tick();
  stage.advance(1000);
  assert(a.take().some((frame) => frame[3] === "phx_close" || frame[3] === "phx_error"));
  assertEquals([...stage.host.members.of("lab/1")].map((member) => member.user.id), ["b"]);
  stage.close();
});

Deno.test("gate: a publication in a lost tick is unavailable, and is applied once when it is tried again", async () => {
  const sql = new BreakableSql();
  const { stage } = setUp(sql);
  const service = someone("s", "service");
  const publish = () => stage.registry.publish("lab:1", service, [{ event: "posted", payload: { n: 1 }, id: "one" }]);
  sql.failCommits = 1;
  const lost = publish();
  stage.tick();
  const error = await assertRejects(() => lost, Refusal);
  assertEquals(error.reason, "unavailable");
  const kept = publish();
  stage.tick();
  const again = publish();
  stage.tick();
  assertEquals(await kept, await again);
  assertEquals([sql.run("select count(*) as n from log", [], false)[0].n, sound(sql)], [1, null]);
  stage.close();
});

Deno.test("gate: a job that throws is reported, and those behind it run", () => {
  const { stage } = setUp(new BreakableSql());
  const ran: number[] = [];
  const { gate } = stage.registry;
  gate.post(() => void ran.push(1));
  gate.post(() => {
    throw new Error("ours");
  });
  gate.post(() => void ran.push(2));
  stage.tick();
  assertEquals([ran, stage.reported.length], [[1, 2], 1]);
  stage.close();
});

Deno.test("gate: what is posted in a tick runs in the next one; one callback is asked for at a time", () => {
  let asked = 0;
  const stage = new Stage([labRoom], { host: { soon: () => void asked++ } });
  const { gate } = stage.registry;
  const ran: string[] = [];
  gate.post(() => {
    ran.push("first");
    gate.post(() => void ran.push("second"));
    gate.post(() => void ran.push("third"));
  });
  gate.post(() => {});
  assertEquals(asked, 1);
  gate.tick();
  assertEquals([ran, asked], [["first"], 2]);
  gate.tick();
  assertEquals(ran, ["first", "second", "third"]);
  stage.close();
});

Deno.test("gate: drain runs what is queued and what that queues, and takes no more", () => {
  const { stage, open } = setUp(new BreakableSql());
  const a = open("a");
  a.take();
  const { gate } = stage.registry;
  queue(a, "do", "x");
  const ran: string[] = [];
  gate.post(() => gate.post(() => gate.post(() => void ran.push("last"))));
  gate.drain();
  assertEquals([ran, a.take().length], [["last"], 4]);
  stage.close();
});

for (const seed of [1, 2, 3, 4, Date.now() % 100_000]) {
  Deno.test(`gate: what was acknowledged or heard is on disk and nothing else, whatever fails, seed ${seed}`, () => {
    const next = random(seed);
    const sql = new BreakableSql();
    const { stage, open, ids } = setUp(sql);
    const rooms = ["1", "2", "3"];
    const clients = rooms.flatMap((room) => [{ room, client: open("a", room) }, { room, client: open("b", room) }]);
    for (const { client } of clients) client.take();
    const acknowledged = new Map<string, string[]>(rooms.map((room) => [room, []]));
    /** As it was heard. */
    const kept = new Map<string, string[]>(rooms.map((room) => [room, []]));
    let count = 0;
    for (let tick = 0; tick < 300; tick++) {
      const asked: { room: string; client: StageClient; ref: string; writes: boolean }[] = [];
      for (let frame = next(6); frame >= 0; frame--) {
        const { room, client } = clients[next(clients.length)];
        const ref = `r${++count}`;
        const writes = next(3) > 0;
        queue(client, writes ? "do" : "also", ref, room);
        asked.push({ room, client, ref, writes });
      }
      const how = next(8);
      if (how === 0) sql.failCommits = 1;
      if (how === 1) sql.failing = [/^insert into lab_item/, /^insert into log \(/, /^insert into log_head/][next(3)];
      stage.tick();
      sql.failing = null;
      sql.failCommits = 0;
      const heard = new Map(clients.map(({ client }) => [client, client.take()]));
      for (const { room, client, ref, writes } of asked) {
        const answer = reply(heard.get(client)!, ref) as { status: string };
        assert(answer, `no answer to ${ref}`);
        if (writes && answer.status === "ok") acknowledged.get(room)!.push(ref);
      }
      for (const room of rooms) {
        const [told, other] = clients.filter((one) => one.room === room).map(({ client }) =>
          heard.get(client)!.filter((frame) => frame[3] === "kept").map((frame) => frame[4].id)
        );
        // One order for all members, and each sender's own order within it.
        assertEquals(told, other);
        for (const { client } of clients) {
          const own = asked.filter((one) => one.room === room && one.client === client && acknowledged.get(room)!.includes(one.ref)).map(({ ref }) => ref);
          assertEquals(told.filter((ref) => own.includes(ref)), own);
        }
        kept.get(room)!.push(...told);
      }
    }
    for (const room of rooms) assertEquals(kept.get(room)!.toSorted(), acknowledged.get(room)!.toSorted());
    for (const room of rooms) {
      assertEquals(ids(room), kept.get(room)!.toSorted());
      const logged = sql.run("select payload from log where room = ? order by seq", [`lab/${room}`], false).map((row) => JSON.parse(String(row.payload)).id);
      assertEquals(logged, kept.get(room));
    }
    assertEquals(sound(sql), null);
    stage.close();
  });
}
