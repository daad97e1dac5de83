/**
 * Disks that fail: full, not writable, not syncable, and a write-ahead log that a crash cut anywhere. Nothing acknowledged is
 * lost, nobody is shown what is not kept, whoever only reads is served, and a sound disk is all that it takes to go on.
 */
import { assert, assertEquals, assertGreater, assertNotEquals, assertStringIncludes } from "@std/assert";
import type { SqlRow } from "../rooms/host.ts";
import { copyDisk, enter, LAB, publish, readDisk, STRACE, tempDir, traced, traces, uploaded } from "./support/lives.ts";
import { eventsOf } from "./support/outside.ts";
import { type Running, startServer } from "./support/process.ts";
import { random } from "./support/random.ts";
import type { Heard, RawClient } from "./support/raw.ts";
import { someone } from "./support/stage.ts";

/** Starts a server of which something fails from some time on. */
type Failing = (env: Record<string, string>) => Promise<Running>;

/** No file may grow beyond that: writes end there, and then fail with EFBIG. */
const limited = (kib: number): Failing => (env) =>
  startServer(env, ["-c", `trap '' XFSZ; ulimit -f ${kib}; exec "$0" "$@"`, Deno.execPath(), ...LAB], "/bin/bash");

/** System calls on the write-ahead log fail: strace says so instead of the kernel. */
const injected = (fault: string): Failing => (env) => {
  const options = ["-o", "/dev/null", "-P", `${env.DATA_DIR}/caseroom.db-wal`, "-e", "trace=pwrite64,fsync,fdatasync", "-e", `inject=${fault}`];
  return startServer(env, traced(options, LAB), STRACE);
};

const idsOf = (log: readonly SqlRow[], event: string): string[] =>
  log.filter((row) => row.event === event).map(({ payload }) => {
    const { id, document } = JSON.parse(String(payload));
    return id ?? document.id;
  });
const heardIds = (frames: readonly Heard[], event: string): string[] => eventsOf(frames, event).map(([, , , , { id, document }]) => id ?? document.id);

/** A back end and a member who pushes batches, and what they were answered. */
class Writing {
  readonly acknowledged: { documents: string[]; items: string[] } = { documents: [], items: [] };
  /** Not known to be kept. */
  unknown: { requests: string[][]; batches: string[][] } = { requests: [], batches: [] };
  #ref = 1;
  #count = 0;

  /** So many documents in one request, of so many bytes each. */
  constructor(readonly width = 1, readonly size = 500) {}

  get lacking(): number {
    return this.unknown.requests.length + this.unknown.batches.length;
  }
  /** A request and a batch of three, each answered as kept or as unavailable. */
  async once(server: Running, member: RawClient): Promise<void> {
    const count = ++this.#count;
    await this.#request(server, Array.from({ length: this.width }, (_, index) => `document_${count}.${index}`));
    await this.#batch(member, [1, 2, 3].map((index) => `item_${count}.${index}`));
  }
  /** Asks once more for all that was unavailable. */
  async again(server: Running, member: RawClient): Promise<void> {
    const { requests, batches } = this.unknown;
    this.unknown = { requests: [], batches: [] };
    for (const ids of requests) await this.#request(server, ids);
    for (const ids of batches) await this.#batch(member, ids);
  }
  async #request(server: Running, ids: string[]): Promise<void> {
    const { status, body } = await publish(server, "case:one", ids.map((id) => uploaded(id, { notes: "x".repeat(this.size) })));
    if (status === 200) return void this.acknowledged.documents.push(...ids);
    assertEquals([status, body.reason], [503, "unavailable"], JSON.stringify(body));
    this.unknown.requests.push(ids);
  }
  async #batch(member: RawClient, ids: string[]): Promise<void> {
    const messages = ids.map((id) => ({ event: "do", payload: { id } }));
    const [, , , , { status, response }] = await member.ask(["1", String(++this.#ref), "lab:one", "batch", { messages }]);
    if (status === "ok") return void this.acknowledged.items.push(...ids);
    assertEquals(response.reason, "unavailable");
    this.unknown.batches.push(ids);
  }

  /** All that was acknowledged is there, whole and once, and nothing that nobody asked for. */
  check(dataDir: string): void {
    readDisk(dataDir, (log, all) => {
      const [documents, items] = [idsOf(log, "document:uploaded"), idsOf(log, "kept")];
      assertEquals(new Set([...documents, ...items]).size, documents.length + items.length);
      assertEquals(this.acknowledged.documents.filter((id) => !documents.includes(id)), []);
      assertEquals(this.acknowledged.items.filter((id) => !items.includes(id)), []);
      const asked = [...this.acknowledged.documents, ...this.acknowledged.items, ...this.unknown.requests.flat(), ...this.unknown.batches.flat()];
      assertEquals([...documents, ...items].filter((id) => !asked.includes(id)), []);
      for (const ids of [...this.unknown.requests, ...this.unknown.batches]) {
        assert([0, ids.length].includes(ids.filter((id) => documents.includes(id) || items.includes(id)).length), `half of ${ids}`);
      }
      // The rooms' tables say the same, and each document was told whose it is, or will be.
      assertEquals(all("select id from lab_item").map(({ id }) => id).toSorted(), items.toSorted());
      assertEquals(all("select id from case_document").map(({ id }) => id).toSorted(), documents.toSorted());
      const told = [...all("select room as name from document_registered"), ...all("select target as name from outbox where failed is null")];
      assertEquals([...new Set(told.map(({ name }) => name))].toSorted(), documents.map((id) => `document/${id}`).toSorted());
    });
  }
}

/** Budgets and slow readers have their own tests. */
const SETTINGS = { LIMIT_BATCHES: "1000000", LIMIT_BATCHED_MESSAGES: "1000000", LIMIT_OUTBOX_BYTES: "100000000" };

/** Resolves when the server has printed it. */
async function printed(server: Running, text: string): Promise<void> {
  for (const end = Date.now() + 10_000; !server.output().includes(text) && Date.now() < end;) await new Promise((resolve) => setTimeout(resolve, 20));
  assertStringIncludes(server.output(), text);
}

/** Writes until nothing can be kept any more, and looks who notices; then kills the server and goes on with a sound disk. */
async function fail(start: Failing, cause: string, width: number, size: number): Promise<void> {
  using dir = tempDir();
  const env = { DATA_DIR: dir.path, ...SETTINGS };
  const writing = new Writing(width, size);
  const cursors: string[] = [];
  {
    await using server = await start(env);
    const { client: reader } = await enter(server, "reader", "case:one", { aliases: false });
    const { client: writer } = await enter(server, "writer", "lab:one", { aliases: false });
    const { client: neighbour } = await enter(server, "neighbour", "lab:one", { aliases: false });
    for (let count = 0; writing.unknown.requests.length < 3 || writing.unknown.batches.length < 3; count++) {
      assertGreater(1000, count);
      await writing.once(server, writer);
    }
    const { documents, items } = writing.acknowledged;
    assertGreater(documents.length, 5);
    // They saw what was acknowledged, and nothing else.
    const heard = await reader.heard();
    assertEquals(heardIds(heard, "document:uploaded"), documents);
    assertEquals(heardIds(await neighbour.heard(), "kept"), items);
    cursors.push(...eventsOf(heard, "document:uploaded").map(([, , , , { cursor }]) => cursor));
    // Whoever only reads does not notice: who comes anew, who comes back, who reads the record.
    const late = await enter(server, "late", "case:one", {});
    assertEquals([late.status, late.response.cursor], ["ok", cursors.at(-1)]);
    assertEquals(late.response.documents.filter(({ id }: { id: string }) => !documents.includes(id)), []);
    const back = await enter(server, "back", "case:one", { since: cursors.at(-4), aliases: false });
    assertEquals([back.status, back.response.recovered], ["ok", true]);
    assertEquals(heardIds(await back.client.heard(), "document:uploaded"), documents.slice(-3));
    const headers = { authorization: `Bearer ${await server.token(someone("auditor"))}` };
    const record = await (await fetch(`${server.url}/api/cases/one/log?after=${cursors.at(-4)}`, { headers })).json();
    assertEquals(record.events.map(({ cursor }: { cursor: string }) => cursor), cursors.slice(-3));
    // Whoever runs it is told why.
    await printed(server, cause);
    await server.stop("SIGKILL");
  }
  writing.check(dir.path);
  await using server = await startServer(env, LAB);
  const { client: reader, response } = await enter(server, "reader", "case:one", { since: cursors.at(-1), aliases: false });
  assertEquals(response.recovered, true);
  const { client: writer } = await enter(server, "writer", "lab:one", { aliases: false });
  await writing.again(server, writer);
  await writing.once(server, writer);
  assertEquals(writing.lacking, 0);
  // He has seen all of it now: what was not known to be kept either when he came or when it was sent again.
  assertEquals(heardIds(await reader.heard(), "document:uploaded").toSorted(), writing.acknowledged.documents.slice(cursors.length).toSorted());
  await server.stop("SIGKILL");
  writing.check(dir.path);
}

for (
  const [what, start, cause, width, size, ignore] of [
    ["the write-ahead log may not grow (EFBIG)", limited(1024), "disk I/O error", 1, 500, false],
    ["the database may not grow at a checkpoint, nor then the write-ahead log", limited(4608), "disk I/O error", 1, 60_000, false],
    ["no space is left (ENOSPC, SQLITE_FULL)", injected("pwrite64:error=ENOSPC:when=400+"), "database or disk is full", 1, 500, !traces],
    // More than SQLite's cache holds is written before the commit.
    [
      "no space is left in the midst of a large request",
      injected("pwrite64:error=ENOSPC:when=4000+"),
      '"Cannot commit: the tick is lost","database or disk is full"',
      50,
      60_000,
      !traces,
    ],
    ["fsync fails (EIO)", injected("fsync,fdatasync:error=EIO:when=100+"), "disk I/O error", 1, 500, !traces],
  ] as const
) {
  const name = `disk: ${what}: unavailable, nothing acknowledged is lost, readers are served, and after kill -9 it goes on [promise 2]`;
  Deno.test({ name, ignore, fn: () => fail(start, cause, width, size) });
}

for (
  const [what, fault] of [
    ["one that fails for a while", "fsync,fdatasync:error=EIO:when=60..80"],
    ["one that fails now and then, at whatever write", "pwrite64:error=ENOSPC:when=150+61"],
  ]
) {
  Deno.test({ name: `disk: ${what}: what was unavailable is kept when it is asked for again, without a restart [promise 2]`, ignore: !traces }, async () => {
    using dir = tempDir();
    await using server = await injected(fault)({ DATA_DIR: dir.path, ...SETTINGS });
    const writing = new Writing();
    const { client: reader } = await enter(server, "reader", "case:one", { aliases: false });
    const { client: writer } = await enter(server, "writer", "lab:one", { aliases: false });
    let lacking = 0;
    for (let count = 0; count < 60; count++) {
      await writing.once(server, writer);
      lacking = Math.max(lacking, writing.lacking);
    }
    assertGreater(lacking, 2);
    for (let count = 0; writing.lacking > 0; count++) {
      assertGreater(100, count);
      await writing.again(server, writer);
    }
    const { documents, items } = writing.acknowledged;
    assertEquals(heardIds(await reader.heard(), "document:uploaded"), documents);
    assertEquals(heardIds(await writer.heard(), "kept"), []);
    const { client: late } = await enter(server, "late", "lab:one", { since: "0", aliases: false });
    assertEquals(heardIds(await late.heard(), "kept"), items);
    await server.stop("SIGKILL");
    writing.check(dir.path);
  });
}

/** A frame of the write-ahead log is a page behind 24 bytes; a header of 32 bytes precedes them (sqlite.org/fileformat2.html section 4). */
const [HEADER, FRAME] = [32, 24 + 4096];
/** SQLite moves the write-ahead log into the database when it has so many frames; a cut after that is none that a crash makes. */
const CHECKPOINT = 1000;

type Damage = (log: Uint8Array, below: (most: number) => number) => Uint8Array;

const joined = (...parts: Uint8Array[]) => Uint8Array.from(parts.flatMap((part) => [...part]));

const seed = Date.now() % 100_000;

Deno.test(`disk: a write-ahead log cut anywhere: what is left is a beginning of the record, and lost cursors are not recovered, seed ${seed} [promise 2, 4]`, async (t) => {
  const next = random(seed);
  using dir = tempDir();
  const told: { id: string; cursor: string }[] = [];
  // What the first life kept is in the database, for it ended in peace; what the second kept is in the write-ahead log.
  let sound = 0;
  for (const [signal, count] of [["SIGTERM", 6], ["SIGKILL", 30]] as const) {
    sound = told.length;
    await using server = await startServer({ DATA_DIR: dir.path });
    for (let index = 0; index < count; index++) {
      const id = `document_${told.length}`;
      const { body } = await publish(server, "case:one", [uploaded(id)]);
      told.push({ id, cursor: body.events[0].cursor });
    }
    await server.stop(signal);
  }
  const log = Deno.readFileSync(`${dir.path}/caseroom.db-wal`);
  assertGreater(CHECKPOINT, (log.length - HEADER) / FRAME);

  /** A copy of the disk with another write-ahead log, and how much of the record is left. */
  function damaged(damage: Uint8Array) {
    const copy = tempDir();
    copyDisk(dir.path, copy.path);
    Deno.writeFileSync(`${copy.path}/caseroom.db-wal`, damage);
    const cursors = readDisk(copy.path, (log) => log.map(({ cursor }) => cursor));
    assertEquals(cursors, told.slice(0, cursors.length).map(({ cursor }) => cursor));
    assert(cursors.length >= sound);
    return { path: copy.path, left: cursors.length, [Symbol.dispose]: () => copy[Symbol.dispose]() };
  }

  await t.step("disk: the more of it is left, the more of the record is", () => {
    let before = sound;
    for (const length of Array.from({ length: 40 }, () => next(log.length + 1)).toSorted((a, b) => a - b)) {
      using copy = damaged(log.slice(0, length));
      assert(copy.left >= before, `${copy.left} of ${length} bytes`);
      before = copy.left;
    }
  });

  for (
    const [what, damage, whole] of [
      ["cut at any byte", (log, below) => log.slice(0, HEADER + below(log.length - HEADER)), false],
      ["cut between two frames", (log, below) => log.slice(0, HEADER + FRAME * below((log.length - HEADER) / FRAME)), false],
      ["cut in its header", (log, below) => log.slice(0, below(HEADER)), false],
      ["gone", () => new Uint8Array(), false],
      ["zeros from some byte on", (log, below) => log.slice().fill(0, HEADER + below(log.length - HEADER)), false],
      ["one byte is another", (log, below) => log.with(HEADER + below(log.length - HEADER), 0xa5), false],
      ["garbage behind it", (log, below) => joined(log, Uint8Array.from({ length: 10_000 }, () => below(256))), true],
      ["frames of its own behind it", (log) => joined(log, log.slice(HEADER, HEADER + 20 * FRAME)), true],
    ] satisfies [string, Damage, boolean][]
  ) {
    await t.step(`disk: ${what}`, async () => {
      using copy = damaged(damage(log, next));
      const { left } = copy;
      if (whole) assertEquals(left, told.length);
      await using server = await startServer({ DATA_DIR: copy.path });
      const since = async (cursor: string) => {
        const { client, response } = await enter(server, "member", "case:one", { since: cursor, aliases: false });
        const heard = heardIds(await client.heard(), "document:uploaded");
        await client.close();
        return { recovered: response.recovered, cursor: response.cursor, heard, documents: response.documents?.length };
      };
      const ids = told.map(({ id }) => id);
      const kept = [0, sound - 1, next(left), left - 1];
      const lost = left === told.length ? [] : [left, left + next(told.length - left), told.length - 1];
      const head = told[left - 1].cursor;
      for (const at of kept) {
        assertEquals(await since(told[at].cursor), { recovered: true, cursor: head, heard: ids.slice(at + 1, left), documents: undefined });
      }
      for (const at of lost) assertEquals(await since(told[at].cursor), { recovered: false, cursor: head, heard: [], documents: left });
      // The back end sends all of it again: what is there is not kept twice, and what is new has other cursors.
      const { body } = await publish(server, "case:one", ids.map((id) => uploaded(id)));
      const again: string[] = body.events.map(({ cursor }: { cursor: string }) => cursor);
      again.forEach((cursor, at) => (at < left ? assertEquals : assertNotEquals)(cursor, told[at].cursor, ids[at]));
      for (const at of kept) assertEquals((await since(told[at].cursor)).heard, ids.slice(at + 1));
      for (const at of lost) assertEquals((await since(told[at].cursor)).recovered, false);
      await server.stop("SIGKILL");
      assertEquals(readDisk(copy.path, (log) => log.map(({ cursor }) => cursor)), again);
    });
  }
});
