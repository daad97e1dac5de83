/** What is read back of the log: where a cursor points, what stands after it, and pages that are found by marks. */
import { assert, assertEquals, assertLessOrEqual } from "@std/assert";
import type { SqlHost } from "../rooms/host.ts";
import { denoHost, sha256 } from "../rooms/hosts/deno.ts";
import { DenoSql } from "../rooms/hosts/deno_sql.ts";
import { type Entry, type Kept, LOG_NUMBERS, verifyLog } from "../rooms/log.ts";
import { Storage } from "../rooms/storage.ts";
import { random } from "./support/random.ts";

const entry = (n: number, more: Partial<Entry> = {}): Entry => ({ at: 1000 + n, user: `u${n}`, topic: "t:1", event: "e", payload: `{"n":${n}}`, ...more });

/** How many rows its recursive queries gave: each is one step back. */
class Steps extends DenoSql implements SqlHost {
  count = 0;
  override run(...query: Parameters<DenoSql["run"]>) {
    const rows = super.run(...query);
    if (query[0].startsWith("with recursive")) this.count += rows.length;
    return rows;
  }
}

/** A log, and beside it what it should hold, by room. */
class Book {
  sql: Steps;
  storage: Storage;
  readonly rooms = new Map<string, { seq: number; number: number; kept: Kept }[]>();

  constructor(private readonly path = ":memory:") {
    ({ sql: this.sql, storage: this.storage } = this.#open());
  }
  #open() {
    const sql = new Steps(this.path);
    return { sql, storage: new Storage(denoHost(this.path, { sql, report: () => {} }), new Map()) };
  }
  get log() {
    return this.storage.log;
  }
  of(room: string): { seq: number; number: number; kept: Kept }[] {
    return this.rooms.get(room) ?? [];
  }
  append(room: string, said: Entry): string {
    const cursor = this.log.append(room, said);
    const { seq, number } = this.log.head(room);
    this.rooms.set(room, [...this.of(room), { seq, number, kept: { id: undefined, ...said, cursor } }]);
    return cursor;
  }
  fill(room: string, count: number, first = 1): void {
    for (let n = first; n < first + count; n++) this.append(room, entry(n));
  }
  commit(): void {
    assertEquals(this.storage.commit().how, "kept");
  }
  /** The process ends, and another one opens the same file. */
  reopen(): void {
    this.sql.close();
    ({ sql: this.sql, storage: this.storage } = this.#open());
  }
  marks(room: string): number[] {
    return this.sql.run("select seq from log_mark where room = ? order by seq", [room], false).map(({ seq }) => Number(seq));
  }
  /** The entries' numbers of every 256th entry of the room. */
  marksWanted(room: string): number[] {
    return this.of(room).filter((_, index) => (index + 1) % 256 === 0).map(({ seq }) => seq);
  }
  /** All of a room's log by pages of so many entries; what each step costs is bounded. */
  paged(room: string, entries: number, bytes = Infinity, position = 0): Kept[] {
    const all: Kept[] = [];
    for (;;) {
      const page = this.log.page(room, position, { entries, bytes });
      if (page.length === 0) return all;
      assertLessOrEqual(page.length, entries);
      all.push(...page);
      position = this.log.positionOf(room, page.at(-1)!.cursor)!;
    }
  }
}

const NO_END = { entries: 1e6, bytes: Infinity };

Deno.test("log pages: a cursor names its entry's number in its own room, 0 names the start, before the commit too", () => {
  const book = new Book();
  for (let n = 1; n <= 6; n++) book.append(n % 2 ? "a" : "b", entry(n));
  for (const committed of [false, true]) {
    if (committed) book.commit();
    for (const room of ["a", "b"]) for (const { number, kept } of book.of(room)) assertEquals(book.log.positionOf(room, kept.cursor), number);
    for (const room of ["a", "b", "nobody"]) assertEquals(book.log.positionOf(room, "0"), 0);
  }
  assertEquals(book.log.cursorOf(book.log.head("b")), book.of("b").at(-1)!.kept.cursor);
  book.sql.close();
});

Deno.test("log pages: what is no cursor of this room's log has no position: foreign, tampered with, not canonical, or no cursor at all", () => {
  const book = new Book();
  for (let n = 1; n <= 40; n++) book.append(n % 2 ? "a" : "b", entry(n));
  book.commit();
  const { seq, number: place, kept: { cursor } } = book.of("a").at(-1)!;
  const [number, hash] = cursor.split("-");
  assertEquals([seq, place], [39, 20]);
  const other = new Book();
  other.fill("a", 20, 100);
  const wrong: Record<string, string> = {
    "another room's": book.of("b")[3].kept.cursor,
    "another server's, same number": other.of("a")[19].kept.cursor,
    "the hash of another entry": `${number}-${book.of("a")[0].kept.cursor.split("-")[1]}`,
    "the number of another entry": `3-${hash}`,
    "a number to come": `zzz-${hash}`,
    "the largest number": `zzzzzzzzzz-${hash}`,
    "a number too long": `11111111111-${hash}`,
    "number 0": `0-${hash}`,
    "number 0 without a hash": "0-0000000000000000",
    "two zeros": "00",
    "a leading zero": `0${number}-${hash}`,
    "upper case": cursor.toUpperCase(),
    "decimal": `${place}-${hash}`,
    "a sign": `+${number}-${hash}`,
    "negative": `-${number}-${hash}`,
    "a shorter hash": `${number}-${hash.slice(0, 15)}`,
    "a longer hash": `${number}-${String(book.log.head("a").hash).slice(0, 17)}`,
    "wildcards": `${number}-________________`,
    "no hash": number,
    "only a hash": `-${hash}`,
    "blanks around": ` ${cursor}`,
    "a newline after it": `${cursor}\n`,
    "a NUL after it": `${cursor}\0`,
    "two of them": `${cursor},${cursor}`,
    "empty": "",
    "words": "constructor",
    "null": "null",
    "a lone surrogate": "\ud800",
  };
  for (const [what, text] of Object.entries(wrong)) assertEquals(book.log.positionOf("a", text), undefined, what);
  assertEquals(book.log.positionOf("b", cursor), undefined);
  assertEquals(book.log.positionOf("nobody", cursor), undefined);
  book.sql.close();
  other.sql.close();
});

Deno.test("log pages: the cursor of a lost tick has no position, also when its number is taken by another entry", () => {
  const book = new Book();
  book.fill("a", 2);
  book.commit();
  const lost = book.log.append("a", entry(3));
  assertEquals(book.log.positionOf("a", lost), 3);
  book.sql.lose(new Error("disk"));
  assertEquals(book.storage.commit().how, "lost");
  book.storage.recover();
  assertEquals(book.log.positionOf("a", lost), undefined);
  book.append("a", entry(4));
  assertEquals([book.of("a")[2].seq, book.log.positionOf("a", lost)], [3, undefined]);
  assertEquals(book.log.since("a", 2, NO_END), [book.of("a")[2].kept]);
  book.sql.close();
});

Deno.test("log pages: since gives the room's own entries after a position, oldest first, as they were appended, before the commit too", () => {
  const book = new Book();
  book.append("a", entry(1, { payload: '{"text":"Müller \\ud83d\\ude00 \u2028","n":1e21}', id: "mine", user: "" }));
  for (let n = 2; n <= 9; n++) book.append(n % 3 ? "b" : "a", entry(n, { topic: `t:${n}`, event: `e${n}` }));
  for (const committed of [false, true]) {
    if (committed) book.commit();
    for (const room of ["a", "b"]) {
      const all = book.of(room);
      for (const index of [0, ...all.keys(), all.length]) assertEquals(book.log.since(room, index, NO_END), all.slice(index).map(({ kept }) => kept));
    }
    assertEquals(book.log.since("nobody", 0, NO_END), []);
  }
  book.sql.close();
});

Deno.test("log pages: since says null for one entry or one byte more than the most, and counts bytes as UTF-8", () => {
  const book = new Book();
  // Each of 10 UTF-16 units, but of 10, 12 and 12 bytes.
  for (const payload of ['{"a":"xx"}', '{"a":"\u00e4\u00e4"}', '{"a":"\u20ac"}x']) book.append("a", entry(1, { payload }));
  const most = (entries: number, bytes: number, position = 0) => book.log.since("a", position, { entries, bytes })?.length ?? null;
  const sizes = book.of("a").map(({ kept }) => new TextEncoder().encode(kept.payload).length);
  assertEquals(sizes, [10, 12, 12]);
  assertEquals([most(3, 34), most(2, 34), most(3, 33)], [3, null, null]);
  assertEquals([most(2, 24, 1), most(1, 24, 1), most(2, 23, 1)], [2, null, null]);
  assertEquals([most(1, 12, 2), most(1, 11, 2), most(0, 0, 3)], [1, null, 0]);
  book.sql.close();
});

Deno.test("log pages: since walks no further than one entry past the most, however long the log", () => {
  const book = new Book();
  book.fill("a", 700);
  for (const [most, steps] of [[0, 1], [5, 6], [699, 700], [700, 700]]) {
    book.sql.count = 0;
    assertEquals(book.log.since("a", 0, { entries: most, bytes: Infinity })?.length, most === 700 ? 700 : undefined);
    assertEquals(book.sql.count, steps);
  }
  book.sql.close();
});

Deno.test("log pages: every 256th entry of a room is marked, each room by itself", () => {
  const book = new Book();
  book.fill("a", 255);
  book.fill("b", 3);
  book.commit();
  assertEquals([book.marks("a"), book.log.head("a").number], [[], 255]);
  book.fill("b", 252, 4);
  book.fill("a", 1, 256);
  // The 256th of a is the 511th of all.
  assertEquals([book.marks("a"), book.log.head("a").number, book.marks("b"), book.log.head("b").number], [[511], 256, [], 255]);
  book.fill("b", 600, 256);
  book.fill("a", 300, 257);
  book.commit();
  for (const room of ["a", "b"]) assertEquals([book.marks(room), book.marks(room).length], [book.marksWanted(room), room === "a" ? 2 : 3]);
  book.sql.close();
});

Deno.test("log pages: marks go on where they stood: after a restart, after an eviction, after a lost tick", () => {
  const dir = Deno.makeTempDirSync({ prefix: "caseroom-marks-" });
  const book = new Book(`${dir}/x.db`);
  book.fill("a", 200);
  book.fill("b", 200);
  book.commit();
  book.reopen();
  book.fill("a", 55, 201);
  book.commit();
  book.log.forget("a");
  // A tick with the 256th entry in it is lost, and its mark with it.
  for (let n = 0; n < 3; n++) book.log.append("a", entry(900 + n));
  assertEquals(book.marks("a").length, 1);
  book.sql.lose(new Error("disk"));
  assertEquals(book.storage.commit().how, "lost");
  book.storage.recover();
  assertEquals([book.marks("a"), book.log.head("a").number], [[], 255]);
  book.fill("a", 2, 256);
  book.fill("b", 400, 201);
  book.commit();
  for (const room of ["a", "b"]) assertEquals(book.marks(room), book.marksWanted(room));
  assertEquals([book.marks("a").length, book.marks("b").length, book.log.head("a").number], [1, 2, 257]);
  book.sql.close();
  Deno.removeSync(dir, { recursive: true });
});

Deno.test("log pages: a page has the first entries after a position, and never less than there are to give", () => {
  const book = new Book();
  const rooms = [0, 1, 2, 255, 256, 257, 511, 512, 513, 1100].map((count) => [`r${count}`, count] as const);
  // Appended in turns, so that no room's numbers stand together.
  for (let n = 1; n <= 1100; n++) for (const [room, count] of rooms) if (n <= count) book.append(room, entry(n));
  book.commit();
  for (const [room, count] of rooms) {
    const all = book.of(room);
    const positions = [0, 1, 2, 254, 255, 256, 257, 258, 511, 512, 513, 514, count - 1, count].filter((index) => index >= 0 && index <= count);
    for (const index of new Set(positions)) {
      for (const entries of [1, 2, 100, 255, 256, 257, 512, 513, 1000]) {
        const page = book.log.page(room, index, { entries, bytes: Infinity });
        assertEquals(page.map(({ cursor }) => cursor), all.slice(index, index + entries).map(({ kept }) => kept.cursor), `${room} after ${index}, ${entries}`);
      }
    }
  }
  assertEquals(book.paged("r1100", 97), book.of("r1100").map(({ kept }) => kept));
  book.sql.close();
});

Deno.test("log pages: a page ends before the entry that makes it too large, and always has one", () => {
  const book = new Book();
  // 11, 32, 12, 12, 12 bytes.
  const sizes = [1, 22, 2, 2, 2];
  for (const size of sizes) book.append("a", entry(1, { payload: JSON.stringify({ p: "x".repeat(size + 2) }) }));
  const bytes = book.of("a").map(({ kept }) => kept.payload.length);
  assertEquals(bytes, [11, 32, 12, 12, 12]);
  const page = (most: number, after: number) => book.log.page("a", after, { entries: 10, bytes: most }).map(({ cursor }) => book.log.positionOf("a", cursor));
  assertEquals([page(43, 0), page(42, 0), page(11, 0), page(1, 0)], [[1, 2], [1], [1], [1]]);
  // The second is too large for any page of 30 bytes: it stands alone, and nothing behind it slips in before its turn.
  assertEquals([page(30, 1), page(24, 2), page(23, 2), page(36, 2)], [[2], [3, 4], [3], [3, 4, 5]]);
  assertEquals(book.paged("a", 10, 30), book.of("a").map(({ kept }) => kept));
  book.sql.close();
});

Deno.test("log pages: a page of a long log costs no walk through all of it", () => {
  const book = new Book();
  book.fill("a", 10_000);
  book.commit();
  const cost = (entries: number, position: number) => {
    book.sql.count = 0;
    assertEquals(book.log.page("a", position, { entries, bytes: Infinity }).length, Math.min(entries, 10_000 - position));
    return book.sql.count;
  };
  for (const position of [0, 1, 255, 256, 257, 5000, 9700, 9999]) {
    for (const entries of [1, 100, 256, 1000]) assertLessOrEqual(cost(entries, position), entries + 2 * 256, `${entries} after ${position}`);
  }
  book.sql.close();
});

Deno.test("log pages: a log from before rooms counted their entries is counted and marked when it is opened", () => {
  const book = new Book();
  for (let n = 1; n <= 600; n++) for (const room of n <= 10 ? ["a", "b"] : ["a"]) book.append(room, entry(n));
  book.commit();
  const heads = () => book.sql.run("select * from log_head order by room", [], false);
  const named = entry(601, { id: "mine" });
  const repeated = book.append("a", named);
  book.commit();
  const [marks, before] = [book.marks("a"), heads()];
  // The migration taken back: in the version before it, marks named no numbers, and heads counted from the last one.
  const old =
    `drop table log_key; drop table log_mark; create table log_mark (room text not null, seq integer not null, primary key (room, seq)) strict, without rowid;
    insert into log_mark values ('a', 7), ('b', 8); update log_head set number = 3; alter table log_head rename column number to unmarked;
    update log_dedupe set hash = 'k1-' || substr(hash, 1, 16); alter table log_dedupe rename column hash to cursor; alter table log_dedupe drop column number`;
  for (const statement of `${old};${LOG_NUMBERS}`.split(";")) book.sql.run(statement, [], true);
  book.sql.commit();
  book.storage.recover();
  assertEquals([book.marks("a"), book.marks("b"), heads()], [marks, [], before]);
  // An id that comes again is answered with the cursor that its entry has now.
  assertEquals(book.log.repeated("a", named), repeated);
  book.fill("a", 300, 602);
  book.commit();
  assertEquals(book.marks("a"), book.marksWanted("a"));
  for (const room of ["a", "b"]) assertEquals(book.paged(room, 250), book.of(room).map(({ kept }) => kept));
  const rows = book.sql.run("select * from log order by seq", [], false);
  assertEquals(verifyLog(sha256, rows, heads()).broken, null);
  assertEquals(verifyLog(sha256, rows, heads().map((head) => ({ ...head, number: 3 }))).broken?.why, "its head counts 3 entries, but there are 901");
  book.sql.close();
});

Deno.test("log pages: refused attempts cost nobody his recovery, unless they are three times as many as all that it may have", () => {
  const book = new Book();
  const refuse = (count: number) => {
    for (let n = 0; n < count; n++) book.append("a", entry(n, { event: "refused" }));
  };
  book.fill("a", 10);
  refuse(20);
  book.fill("a", 10, 11);
  refuse(10);
  const told = book.of("a").filter(({ kept }) => kept.event !== "refused").map(({ kept }) => kept);
  assertEquals(book.log.since("a", 0, { entries: 20, bytes: Infinity }), told);
  assertEquals(book.log.since("a", 0, { entries: 19, bytes: Infinity }), null);
  refuse(40);
  assertEquals(book.log.since("a", 0, { entries: 20, bytes: Infinity }), null);
  book.sql.close();
});

for (const seed of [Math.trunc(Math.random() * 2 ** 31), 1]) {
  Deno.test(`log pages: whatever rooms, ticks, losses and restarts, since and page are what was kept, seed ${seed}`, () => {
    const pick = random(seed);
    const dir = Deno.makeTempDirSync({ prefix: "caseroom-pages-" });
    const book = new Book(`${dir}/x.db`);
    const rooms = ["a", "b", "c", "d/e"];
    for (let tick = 0, n = 0; tick < 60; tick++) {
      const before = new Map(book.rooms);
      for (let count = pick(80); count > 0; count--) {
        book.append(rooms[Math.min(pick(4), pick(4))], entry(++n, { payload: JSON.stringify({ n, text: "\u00fc".repeat(pick(20)) }) }));
      }
      if (pick(5) === 0) {
        book.sql.lose(new Error("disk"));
        assertEquals(book.storage.commit().how, "lost");
        book.storage.recover();
        for (const room of rooms) book.rooms.set(room, before.get(room) ?? []);
      } else {
        book.storage.commit();
        if (pick(10) === 0) book.reopen();
      }
      const room = rooms[pick(4)];
      const all = book.of(room);
      const index = pick(all.length + 1);
      const position = index === 0 ? 0 : book.log.positionOf(room, all[index - 1].kept.cursor)!;
      const rest = all.slice(index).map(({ kept }) => kept);
      const size = (list: Kept[]) => list.reduce((sum, { payload }) => sum + new TextEncoder().encode(payload).length, 0);
      const [entries, bytes] = [1 + pick(300), pick(4000)];
      assertEquals(book.log.since(room, position, { entries, bytes }), rest.length > entries || size(rest) > bytes ? null : rest);
      const page = book.log.page(room, position, { entries, bytes });
      assertEquals(page, rest.slice(0, page.length));
      assert(page.length <= entries && (page.length <= 1 || size(page) <= bytes));
      assert(page.length === Math.min(entries, rest.length) || size(rest.slice(0, page.length + 1)) > bytes, "the page could have had more");
      assertEquals(page.length === 0, rest.length === 0);
    }
    for (const room of rooms) {
      assertEquals(book.marks(room), book.marksWanted(room));
      assertEquals(book.paged(room, 1 + pick(300)), book.of(room).map(({ kept }) => kept));
    }
    book.sql.close();
    Deno.removeSync(dir, { recursive: true });
  });
}
