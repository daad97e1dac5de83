/** `deno task log`: heads that are kept elsewhere show what a chain alone cannot: that it was computed anew, or cut short. */
import { assert, assertEquals, assertGreater, assertMatch, assertStringIncludes } from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import { sha256 } from "../rooms/hosts/deno.ts";
import { chainHash } from "../rooms/log.ts";
import { Outside } from "./support/outside.ts";
import { someone } from "./support/stage.ts";

interface Run {
  readonly code: number;
  readonly out: string;
  readonly error: string;
}

/** `deno task log …`, or what that runs without the task runner in front. */
async function log(dataDir: string, args: readonly string[], byTask = false): Promise<Run> {
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: byTask ? ["task", "--quiet", "log", ...args] : ["run", "--allow-read", "--allow-write", "--allow-env", "--allow-sys", "rooms/tasks/log.ts", ...args],
    cwd: new URL("..", import.meta.url),
    env: { DATA_DIR: dataDir, NO_COLOR: "1" },
  }).output();
  return { code, out: new TextDecoder().decode(stdout), error: new TextDecoder().decode(stderr) };
}

interface Head {
  readonly room: string;
  readonly seq: number;
  readonly hash: string;
}
const headsOf = ({ out }: Run): Head[] => out.split("\n").filter(Boolean).map((line) => JSON.parse(line));
const uploaded = (id: string) => ({ event: "document:uploaded", payload: { document: { id } } });

/** A folder of its own; the server on it, with a record of three cases. */
async function filled(): Promise<
  { at: Outside; dir: string; publish: (id: string, from: number, count: number) => Promise<void>; [Symbol.asyncDispose](): Promise<void> }
> {
  const dir = Deno.makeTempDirSync({ prefix: "caseroom-log-" });
  const at = await Outside.start({ DATA_DIR: `${dir}/data` });
  const token = await at.token(someone("back end", "service", []));
  const publish = async (id: string, from: number, count: number) => {
    assertEquals((await at.publish(`case:${id}`, Array.from({ length: count }, (_, n) => uploaded(`${id}${from + n}`)), token)).status, 200);
  };
  await publish("a", 0, 5);
  await publish("b", 0, 3);
  await publish("c é", 0, 2);
  await publish("a", 5, 4);
  return {
    at,
    dir,
    publish,
    async [Symbol.asyncDispose]() {
      await at[Symbol.asyncDispose]();
      Deno.removeSync(dir, { recursive: true });
    },
  };
}

/** A copy of the data as it is now, to be tampered with. */
function copied(dir: string, name: string, tamper: (db: DatabaseSync) => void): string {
  const copy = `${dir}/${name}`;
  Deno.mkdirSync(copy);
  const from = new DatabaseSync(`${dir}/data/caseroom.db`, { readOnly: true });
  from.exec(`vacuum into '${copy}/caseroom.db'`);
  from.close();
  const db = new DatabaseSync(`${copy}/caseroom.db`);
  tamper(db);
  db.close();
  return copy;
}

/** Computes a room's chain anew, and its head, as its owner could. */
function recompute(db: DatabaseSync, room: string): void {
  let end = { seq: 0, hash: "" };
  const rows = db.prepare("select * from log where room = ? order by seq").all(room) as Record<string, string | number | null>[];
  for (const { seq, at, user, topic, event, payload, dedupe } of rows) {
    const entry = {
      at: Number(at),
      user: String(user),
      topic: String(topic),
      event: String(event),
      payload: String(payload),
      id: dedupe === null ? undefined : String(dedupe),
    };
    const hash = chainHash(sha256, room, entry, sha256(entry.payload), end.hash);
    db.prepare("update log set previous = ?, previous_hash = ?, hash = ? where seq = ?").run(end.seq, end.hash, hash, seq);
    end = { seq: Number(seq), hash };
  }
  db.prepare("delete from log_head where room = ?").run(room);
  if (end.seq > 0) db.prepare("insert into log_head (room, seq, hash, number) values (?, ?, ?, ?)").run(room, end.seq, end.hash, rows.length);
}

const tampered: Record<string, { tamper: (db: DatabaseSync) => void; room: string }> = {
  "a payload changed and the chain computed anew": {
    tamper(db) {
      db.exec(`update log set payload = '{"document":{"id":"forged"}}' where seq = 2`);
      recompute(db, "case/a");
    },
    room: "case/a",
  },
  "the newest entry of all cut off": {
    tamper(db) {
      db.exec("delete from log where seq = (select max(seq) from log)");
      recompute(db, "case/a");
    },
    room: "case/a",
  },
  "all after the first of a room cut off, and what stood between renumbered": {
    tamper(db) {
      // Numbers run on without a gap, as if nothing had been there.
      db.exec("delete from log where room = 'case/a' and seq > 1; update log set seq = -seq where seq > 1");
      const rest = db.prepare("select seq from log where seq < 0 order by seq desc").all() as { seq: number }[];
      rest.forEach(({ seq }, index) => db.prepare("update log set seq = ? where seq = ?").run(index + 2, seq));
      for (const room of ["case/a", "case/b", "case/c é"]) recompute(db, room);
    },
    room: "case/a",
  },
  "the newest entry written again with another time": {
    tamper(db) {
      db.exec("update log set at = at - 86400000 where seq = (select max(seq) from log)");
      recompute(db, "case/a");
    },
    room: "case/a",
  },
  "an entry of another room put in front": {
    tamper(db) {
      db.exec("update log set room = 'case/b', topic = 'case:b' where seq = 1");
      for (const room of ["case/a", "case/b"]) recompute(db, room);
    },
    room: "case/a",
  },
};

Deno.test("log heads: one JSON line for each room, by its name; while the server runs, and it goes on", async () => {
  await using record = await filled();
  const { at, dir, publish } = record;
  const run = await log(`${dir}/data`, ["heads"], true);
  assertEquals([run.code, run.error], [0, ""]);
  const heads = headsOf(run);
  assertEquals(heads.map(({ room, seq }) => [room, seq]), [["case/a", 14], ["case/b", 8], ["case/c é", 10]]);
  for (const head of heads) {
    assertEquals(Object.keys(head), ["room", "seq", "hash"]);
    assertMatch(head.hash, /^[0-9a-f]{64}$/);
  }
  // What a client calls the cursor is of the same place, by the number in its own room.
  const client = await at.member("case:a");
  const reply = await client.ask(["2", "2", "case:b", "phx_join", {}]);
  assertMatch(reply[4].response.cursor, new RegExp(`^[0-9a-z]+-${heads[1].hash.slice(0, 16)}$`));
  Deno.writeTextFileSync(`${dir}/heads`, run.out);
  const holds = await log(`${dir}/data`, ["verify", `${dir}/heads`], true);
  assertEquals([holds.code, holds.error], [0, ""]);
  assertMatch(holds.out, /^14 entries in 3 rooms: every chain holds, and has the 3 ends of .*heads\n$/);
  // Older heads stand in a chain that has gone on, and so do newer ones.
  await publish("a", 9, 20);
  await publish("d", 0, 1);
  const more = await log(`${dir}/data`, ["heads"]);
  assertEquals(headsOf(more).map(({ room, seq }) => [room, seq]), [["case/a", 34], ["case/b", 8], ["case/c é", 10], ["case/d", 35]]);
  Deno.writeTextFileSync(`${dir}/both`, run.out + more.out + "\n");
  for (const [file, count] of [["heads", 3], ["both", 7]] as const) {
    const { code, out } = await log(`${dir}/data`, ["verify", `${dir}/${file}`]);
    assertEquals(code, 0, out);
    assertStringIncludes(out, `35 entries in 4 rooms: every chain holds, and has the ${count} ends`);
  }
  assertEquals(await at.server.stop(), 0);
  // And when it does not run.
  assertEquals((await log(`${dir}/data`, ["verify", `${dir}/both`])).code, 0);
  assertEquals((await log(`${dir}/data`, ["heads"])).out, more.out);
});

Deno.test("log verify FILE: finds what a chain that was computed anew hides from `log verify`, and exits with 1", async () => {
  await using record = await filled();
  const { at, dir } = record;
  Deno.writeTextFileSync(`${dir}/heads`, (await log(`${dir}/data`, ["heads"])).out);
  const runs = await Promise.all(
    Object.entries(tampered).map(async ([what, { tamper, room }], index) => {
      const copy = copied(dir, `copy${index}`, tamper);
      return { what, room, plain: await log(copy, ["verify"]), held: await log(copy, ["verify", `${dir}/heads`]) };
    }),
  );
  for (const { what, room, plain, held } of runs) {
    assertEquals([plain.code, /every chain holds/.test(plain.out)], [0, true], `${what}: ${plain.out}`);
    assertEquals([held.code, held.out.startsWith("BROKEN: entry ")], [1, true], `${what}: ${held.out}`);
    assertStringIncludes(held.out, ` of ${room}: `, what);
  }
  // A whole room, the newest, is gone without a trace.
  const token = await at.token(someone("back end", "service", []));
  await at.publish("case:z", [uploaded("z")], token);
  Deno.writeTextFileSync(`${dir}/heads`, (await log(`${dir}/data`, ["heads"])).out);
  const gone = copied(dir, "gone", (db) => db.exec("delete from log where room = 'case/z'; delete from log_head where room = 'case/z'"));
  const [plain, held] = [await log(gone, ["verify"]), await log(gone, ["verify", `${dir}/heads`])];
  assertEquals([plain.code, held.code], [0, 1], plain.out + held.out);
  assertStringIncludes(held.out, "of case/z: ");
  // An end of one room is none of another.
  const [a, b] = headsOf(await log(`${dir}/data`, ["heads"]));
  Deno.writeTextFileSync(`${dir}/swapped`, JSON.stringify({ ...a, room: b.room }));
  const swapped = await log(`${dir}/data`, ["verify", `${dir}/swapped`]);
  assertEquals(swapped.code, 1, swapped.out);
  // The copy as it is, and the original, hold.
  for (const folder of [copied(dir, "same", () => {}), `${dir}/data`]) assertEquals((await log(folder, ["verify", `${dir}/heads`])).code, 0);
});

Deno.test("log verify FILE: a broken chain is named before its heads are looked at", async () => {
  await using record = await filled();
  const { dir } = record;
  Deno.writeTextFileSync(`${dir}/heads`, (await log(`${dir}/data`, ["heads"])).out);
  const copy = copied(dir, "copy", (db) => db.exec("update log set payload = '{}' where seq = 7"));
  for (const args of [["verify"], ["verify", `${dir}/heads`]]) {
    const { code, out } = await log(copy, args);
    assertEquals(code, 1);
    assertMatch(out, /^BROKEN: entry 7 of case\/b: its content does not match its hash\n$/);
  }
});

Deno.test("log verify FILE: a file that is no list of heads, or cannot be read, verifies nothing: exit code 2", async () => {
  await using record = await filled();
  const { dir } = record;
  const [head] = headsOf(await log(`${dir}/data`, ["heads"]));
  const files: Record<string, string> = {
    "not JSON": "garbage\n",
    "half a line": JSON.stringify(head).slice(0, 30),
    "null": "null\n",
    "a number": "5\n",
    "a list": `[${JSON.stringify(head)}]\n`,
    "no hash": JSON.stringify({ ...head, hash: undefined }),
    "no room": JSON.stringify({ ...head, room: null }),
    "a seq that is no number": JSON.stringify({ ...head, seq: "1" }),
    "a seq that is not whole": JSON.stringify({ ...head, seq: 1.5 }),
    "one good line and one bad": `${JSON.stringify(head)}\n{}\n`,
  };
  const runs = await Promise.all(
    Object.entries(files).map(async ([what, content], index) => {
      Deno.writeTextFileSync(`${dir}/file${index}`, content);
      return { what, run: await log(`${dir}/data`, ["verify", `${dir}/file${index}`]) };
    }),
  );
  for (const { what, run: { code, out, error } } of runs) {
    assertEquals([what, code, out], [what, 2, ""]);
    assertMatch(error, /^Cannot read the log: /, what);
  }
  for (const args of [["verify", `${dir}/none`], ["verify", dir]]) assertEquals((await log(`${dir}/data`, args)).code, 2);
  // No log, or one that is not there.
  for (const args of [["verify"], ["heads"], ["verify", `${dir}/file0`]]) {
    const { code, out } = await log(`${dir}/nowhere`, args);
    assertEquals([code, out], [2, ""]);
  }
});

Deno.test("log: what it is told wrongly it answers with its usage and exit code 2", async () => {
  const runs = await Promise.all([[], ["nope"], ["heads", "file"], ["verify", "a", "b"], ["--help"]].map((args) => log("/nowhere", args)));
  for (const { code, out, error } of runs) {
    assertEquals([code, out], [2, ""]);
    assertStringIncludes(error, "deno task log heads");
    assertStringIncludes(error, "deno task log verify");
  }
});

Deno.test("log heads: a record without entries has none, and a chain of refusals has one like any other", async () => {
  const dir = Deno.makeTempDirSync({ prefix: "caseroom-log-" });
  await using at = await Outside.start({ DATA_DIR: dir });
  assertEquals(await log(dir, ["heads"]), { code: 0, out: "", error: "" });
  await at.publish("case:1", [uploaded("d")]);
  const before = headsOf(await log(dir, ["heads"]));
  const intruder = await at.connect(someone("intruder", "attorney", []));
  assertEquals((await intruder.ask(["1", "1", "case:1", "phx_join", {}]))[4].response.reason, "forbidden");
  const after = headsOf(await log(dir, ["heads"]));
  assertEquals([before.map(({ seq }) => seq), after.map(({ seq }) => seq)], [[1], [2]]);
  assert(before[0].hash !== after[0].hash);
  assertGreater(after[0].seq, before[0].seq);
  assertEquals(await at.server.stop(), 0);
  Deno.removeSync(dir, { recursive: true });
});
