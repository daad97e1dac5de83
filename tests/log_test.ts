import { assertEquals, assertMatch, assertNotEquals, assertRejects, assertThrows } from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import { Refusal } from "../protocol/reason.ts";
import type { SqlRow } from "../rooms/host.ts";
import { denoHost, sha256 } from "../rooms/hosts/deno.ts";
import { chainHash, cursorOf, type Entry, verifyLog } from "../rooms/log.ts";
import { Storage } from "../rooms/storage.ts";
import { lab, someone, Stage } from "./support/stage.ts";

const entry = (n: number, more: Partial<Entry> = {}): Entry => ({ at: 1000 + n, user: `u${n}`, topic: "t:1", event: "e", payload: `{"n":${n}}`, ...more });

function open(path = ":memory:") {
  const host = denoHost(path, { report: () => {} });
  const storage = new Storage(host, new Map());
  return { sql: host.sql, storage, log: storage.log };
}

const verify = (sql: { run: (text: string, values: [], writes: boolean) => SqlRow[] }) =>
  verifyLog(sha256, sql.run("select * from log order by seq", [], false), sql.run("select * from log_head", [], false));

/** Nine entries of rooms a and b and one of c: a has 1, 3, 5, 7, 9; b has 2, 4, 6, 8; c has 10. */
function filled() {
  const opened = open();
  for (let n = 1; n <= 9; n++) opened.log.append(n % 2 ? "a" : "b", entry(n, n === 5 ? { id: "five" } : {}));
  opened.log.append("c", entry(10));
  opened.storage.commit();
  return opened;
}

Deno.test("log: each row carries its room's previous row and hash, each room its head", () => {
  const { sql, log, storage } = filled();
  const rows = sql.run("select seq, room, previous, previous_hash, hash from log order by seq", [], false);
  assertEquals(rows.map(({ seq, room, previous }) => `${room}${seq}<${previous}`).join(" "), "a1<0 b2<0 a3<1 b4<2 a5<3 b6<4 a7<5 b8<6 a9<7 c10<0");
  const hash = (seq: number) => rows[seq - 1].hash;
  assertEquals(rows.map((row) => row.previous_hash), ["", "", hash(1), hash(2), hash(3), hash(4), hash(5), hash(6), hash(7), ""]);
  assertEquals(sql.run("select room, seq, hash from log_head order by room", [], false).map((row) => Object.values(row)), [
    ["a", 9, hash(9)],
    ["b", 8, hash(8)],
    ["c", 10, hash(10)],
  ]);
  assertEquals(verify(sql), { rooms: 3, entries: 10, broken: null });
  assertEquals(log.head("nobody"), { seq: 0, number: 0, hash: "" });
  storage.sql.close();
});

Deno.test("log: the hash is that of a literal chain, so that another program can check it", () => {
  // sha256 of the JSON list of previous hash, room, at, user, topic, event, the payload's digest, and the sender's id.
  const digest = "9eca5fbf9e6c95f8a4c0d7f6b0dbf7b9a0ab1ba0cdb8e1bbf0c4d0d1f4b0e4a1";
  const one: Entry = { at: 1, user: "u", topic: "t:1", event: "e", payload: "{}" };
  assertEquals(chainHash(sha256, "r/1", one, digest, ""), sha256(`["","r/1",1,"u","t:1","e","${digest}",null]`));
  assertEquals(chainHash(sha256, "r/1", { ...one, id: "x" }, digest, "ab"), sha256(`["ab","r/1",1,"u","t:1","e","${digest}","x"]`));
  assertEquals(sha256("{}"), "44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a");
});

Deno.test("log: a cursor is opaque text of position and hash; 0 before the first entry", () => {
  assertEquals(cursorOf(sha256, "key", { number: 0, hash: "" }), "0");
  const mask = parseInt(sha256("key0123456789abcdef").slice(0, 8), 16);
  assertEquals(cursorOf(sha256, "key", { number: 37, hash: "0123456789abcdef0123" }), `${((37 ^ mask) >>> 0).toString(36)}-0123456789abcdef`);
  const [one, other] = [open(), open()];
  const cursor = one.log.append("a", entry(1));
  assertMatch(cursor, /^[0-9a-z]{1,7}-[0-9a-f]{16}$/);
  // Another log's, though it has the same entry in the same place.
  assertNotEquals(other.log.append("a", entry(1)), cursor);
  assertEquals([one.log.positionOf("a", cursor), other.log.positionOf("a", cursor)], [1, undefined]);
  // Nobody counts by it: a thousand in a row are in no order.
  const shown = Array.from({ length: 1000 }, (_, n) => parseInt(one.log.append("a", entry(n)), 36));
  const risen = shown.filter((value, index) => index > 0 && value > shown[index - 1]).length;
  assertEquals(risen > 350 && risen < 650, true, String(risen));
  // A restored backup with other content does not match.
  assertNotEquals(open().log.append("a", entry(2)), cursor);
  assertEquals(one.log.positionOf("a", one.log.cursorOf(one.log.head("a"))), 1001);
  for (const { sql } of [one, other]) sql.close();
});

Deno.test("log: a restart goes on where the chain ended", () => {
  const dir = Deno.makeTempDirSync();
  const first = open(`${dir}/x.db`);
  first.log.append("a", entry(1));
  first.storage.commit();
  first.log.append("a", entry(99));
  // Never committed: the process ends here.
  first.sql.close();
  const second = open(`${dir}/x.db`);
  second.log.append("a", entry(2));
  second.log.append("b", entry(3));
  second.storage.commit();
  assertEquals(verify(second.sql), { rooms: 2, entries: 3, broken: null });
  assertEquals(second.sql.run("select payload from log order by seq", [], false).map(({ payload }) => payload), ['{"n":1}', '{"n":2}', '{"n":3}']);
  second.sql.close();
  Deno.removeSync(dir, { recursive: true });
});

Deno.test("log: a lost tick is forgotten; what follows stands in the chain that was kept", () => {
  const { sql, storage, log } = filled();
  const before = log.head("a");
  log.append("a", entry(11));
  log.append("d", entry(12));
  sql.lose(new Error("disk"));
  assertEquals(storage.commit().how, "lost");
  storage.recover();
  assertEquals([log.head("a"), log.head("d").seq], [before, 0]);
  log.append("a", entry(13));
  assertEquals(storage.commit().how, "kept");
  assertEquals(verify(sql), { rooms: 3, entries: 11, broken: null });
  sql.close();
});

const SWAP =
  `update log set payload = case seq when 3 then (select payload from log where seq = 5) else (select payload from log where seq = 3) end where seq in (3, 5)`;
const HASHES = `update log set hash = 'x' || seq where seq = 3`;
const tampered: Record<string, { statement: string; room: string; seq: number; why: RegExp }> = {
  "a changed payload": { statement: `update log set payload = '{"n":55}' where seq = 5`, room: "a", seq: 5, why: /content/ },
  "a changed user": { statement: "update log set user = 'someone else' where seq = 4", room: "b", seq: 4, why: /content/ },
  "a changed event": { statement: "update log set event = 'other' where seq = 4", room: "b", seq: 4, why: /content/ },
  "a changed topic": { statement: "update log set topic = 't:2' where seq = 4", room: "b", seq: 4, why: /content/ },
  "a changed time": { statement: "update log set at = at + 1 where seq = 4", room: "b", seq: 4, why: /content/ },
  "a changed id of the sender": { statement: "update log set dedupe = 'six' where seq = 5", room: "a", seq: 5, why: /content/ },
  "a removed id of the sender": { statement: "update log set dedupe = null where seq = 5", room: "a", seq: 5, why: /content/ },
  "a changed hash": { statement: HASHES, room: "a", seq: 3, why: /content/ },
  "a deleted first row": { statement: "delete from log where seq = 2", room: "b", seq: 4, why: /missing/ },
  "a deleted middle row": { statement: "delete from log where seq = 5", room: "a", seq: 7, why: /missing/ },
  "a deleted middle row, relinked by number": {
    statement: "delete from log where seq = 5; update log set previous = 3 where seq = 7",
    room: "a",
    seq: 7,
    why: /hash of the entry before/,
  },
  "a deleted tail": { statement: "delete from log where seq = 9", room: "a", seq: 9, why: /missing/ },
  "a deleted tail, with the head moved back by number": {
    statement: "delete from log where seq = 9; update log_head set seq = 7 where room = 'a'",
    room: "a",
    seq: 7,
    why: /./,
  },
  "all rows of a room deleted": { statement: "delete from log where room = 'b'", room: "b", seq: 8, why: /missing/ },
  "an inserted row": {
    statement: "insert into log select 100, room, previous, at, user, topic, event, payload, dedupe, previous_hash, hash from log where seq = 4",
    room: "b",
    seq: 100,
    why: /put in/,
  },
  "swapped rows": {
    statement: "update log set seq = -1 where seq = 3; update log set seq = 3 where seq = 5; update log set seq = 5 where seq = -1",
    room: "a",
    seq: 3,
    why: /missing|put in/,
  },
  "swapped payloads": { statement: SWAP, room: "a", seq: 3, why: /content/ },
  "a row moved to another room": { statement: "update log set room = 'c' where seq = 9", room: "c", seq: 9, why: /missing|put in/ },
  "a changed head": { statement: "update log_head set hash = 'x' where room = 'b'", room: "b", seq: 8, why: /end here/ },
  "a deleted head": { statement: "delete from log_head where room = 'c'", room: "c", seq: 10, why: /no head/ },
};
for (const [what, { statement, room, seq, why }] of Object.entries(tampered)) {
  Deno.test(`log: verifying finds ${what}, and names the first broken entry`, () => {
    const { sql } = filled();
    for (const part of statement.split(";")) sql.run(part, [], true);
    sql.commit();
    const { broken } = verify(sql);
    assertEquals([broken?.room, broken?.seq], [room, seq]);
    assertMatch(broken!.why, why);
    sql.close();
  });
}

// Deduplication.

function publisher() {
  const seen: unknown[] = [];
  const stage = new Stage([lab()]);
  stage.host.sql.run("delete from log", [], true);
  const watcher = stage.client(someone("w"));
  watcher.join("lab:1");
  watcher.take();
  const publish = (events: { payload: unknown; id?: string; event?: string }[], user = "s", room = "1") => {
    const answer = stage.registry.publish(`lab:${room}`, someone(user, "service"), events.map((one) => ({ event: "posted", ...one })));
    stage.run();
    return answer;
  };
  const heard = () => watcher.take().map((frame) => frame[4].n);
  return { stage, publish, heard, seen, rows: () => Number(stage.host.sql.run("select count(*) as n from log", [], false)[0].n) };
}

Deno.test("log: the same id with the same content is applied once and answered with the same cursor, for good", async () => {
  const { stage, publish, heard, rows } = publisher();
  const first = await publish([{ payload: { n: 1 }, id: "one" }]);
  await publish([{ payload: { n: 2 } }]);
  assertEquals(await publish([{ payload: { n: 1 }, id: "one" }]), first);
  assertEquals([heard(), rows()], [[1, 2], 2]);
  // Time does not make it another event, nor does a restart.
  stage.clock.time += 1_000_000;
  const restarted = new Stage([lab()], { sql: stage.host.sql });
  const again = restarted.registry.publish("lab:1", someone("s", "service"), [{ event: "posted", payload: { n: 1 }, id: "one" }]);
  restarted.run();
  assertEquals([await again, rows()], [first, 2]);
  stage.close();
});

Deno.test("log: the same id with other content is refused duplicate and nothing of the request is applied", async () => {
  const { stage, publish, heard, rows } = publisher();
  await publish([{ payload: { n: 1 }, id: "one" }]);
  const error = await assertRejects(() => publish([{ payload: { n: 2 }, id: "two" }, { payload: { n: 3 }, id: "one" }]), Refusal);
  assertEquals([error.reason, heard(), rows()], ["duplicate", [1], 1]);
  assertEquals((await publish([{ payload: { n: 2 }, id: "two" }])).length, 1);
  stage.close();
});

Deno.test("log: within one request too: the same twice is one event, the same id for two events is refused", async () => {
  const { stage, publish, heard, rows } = publisher();
  const cursors = await publish([{ payload: { n: 1 }, id: "one" }, { payload: { n: 2 } }, { payload: { n: 1 }, id: "one" }, {
    payload: { n: 3 },
    id: "three",
  }]);
  assertEquals(cursors[0], cursors[2]);
  assertEquals([new Set(cursors).size, heard(), rows()], [3, [1, 2, 3], 3]);
  const error = await assertRejects(() => publish([{ payload: { n: 4 }, id: "four" }, { payload: { n: 5 }, id: "four" }]), Refusal);
  assertEquals([error.reason, heard(), rows()], ["duplicate", [], 3]);
  // Old and new ones together, in their places.
  const mixed = await publish([{ payload: { n: 6 } }, { payload: { n: 1 }, id: "one" }, { payload: { n: 7 } }]);
  assertEquals([mixed[1], heard()], [cursors[0], [6, 7]]);
  stage.close();
});

Deno.test("log: an id is its sender's and its room's: `__proto__` is one like any other", async () => {
  const { stage, publish, rows } = publisher();
  for (const id of ["one", "__proto__", "constructor", ""]) {
    await publish([{ payload: { n: 1 }, id }]);
    await publish([{ payload: { n: 1 }, id }]);
    await publish([{ payload: { n: 2 }, id }], "another");
    await publish([{ payload: { n: 3 }, id }], "s", "2");
  }
  assertEquals(rows(), 12);
  stage.close();
});

Deno.test("log: a refused request leaves its ids free", async () => {
  const { stage, publish } = publisher();
  await assertRejects(() => publish([{ payload: { n: 1 }, id: "one" }, { payload: null }]), Refusal);
  assertEquals((await publish([{ payload: { n: 2 }, id: "one" }])).length, 1);
  stage.close();
});

Deno.test("log: half an entry is never kept: a failing dedupe row costs the tick", () => {
  const { sql, storage, log } = open();
  log.append("a", entry(1, { id: "one" }));
  assertThrows(() => log.append("a", entry(2, { user: "u1", id: "one" })));
  assertEquals(storage.commit().how, "lost");
  storage.recover();
  assertEquals(verify(sql), { rooms: 0, entries: 0, broken: null });
  sql.close();
});

Deno.test("log: `deno task log verify` says the first broken entry and exits 1, else 0", async () => {
  const dir = Deno.makeTempDirSync();
  const { sql, log, storage } = open(`${dir}/caseroom.db`);
  for (let n = 1; n <= 3; n++) log.append("a", entry(n));
  storage.commit();
  const run = async () => {
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "rooms/tasks/log.ts", "verify"],
      cwd: new URL("..", import.meta.url),
      env: { DATA_DIR: dir, NO_COLOR: "1" },
    });
    const { code, stdout } = await child.output();
    return [code, new TextDecoder().decode(stdout).trim()];
  };
  // While the server has the file open.
  assertEquals(await run(), [0, "3 entries in 1 rooms: every chain holds"]);
  sql.close();
  const db = new DatabaseSync(`${dir}/caseroom.db`);
  db.exec("update log set user = 'x' where seq = 2");
  db.close();
  const [code, said] = await run();
  assertEquals(code, 1);
  assertMatch(String(said), /^BROKEN: entry 2 of a: /);
  Deno.removeSync(dir, { recursive: true });
});
