/**
 * The log: one append-only table, every row chained to its room's previous one by hash.
 *
 * There is no index: each row names the row before it in its room, a small table holds each room's head, and replay
 * walks back from there. Appending is then a pure append, whatever the number of rooms. The rows of a refused authority
 * stand in the same chain as the events.
 */
import { type Host, type SqlRow, type SqlValue, StoreLost } from "./host.ts";
import { Refusal } from "../protocol/reason.ts";

export const LOG_SCHEMA = [
  `create table log (
     seq integer primary key, room text not null, previous integer not null, at integer not null, user text not null,
     topic text not null, event text not null, payload text not null, dedupe text, previous_hash text not null, hash text not null
   ) strict;
   create table log_head (room text primary key, seq integer not null, hash text not null) strict, without rowid;
   create table log_dedupe (room text not null, user text not null, id text not null, cursor text not null, digest text not null,
     primary key (room, user, id)) strict, without rowid`,
];

export const LOG_MARKS = `create table log_mark (room text not null, seq integer not null, primary key (room, seq)) strict, without rowid;
   alter table log_head add column unmarked integer not null default 0`;

/** Every so many entries of a room one is marked, so that any place of a long log is found without walking all of it. */
const MARK_EVERY = 256;

/** A room counts its own entries. Cursors that were given before are of another log: who has one starts from the state. */
export const LOG_NUMBERS = `create table log_key (key text not null) strict;
   insert into log_key (key) values (hex(randomblob(16)));
   drop table log_mark;
   create table log_mark (room text not null, number integer not null, seq integer not null, primary key (room, number)) strict, without rowid;
   insert into log_mark (room, number, seq)
     select room, number, seq from (select room, seq, row_number() over (partition by room order by seq) as number from log) where number % ${MARK_EVERY} = 0;
   alter table log_head rename column unmarked to number;
   alter table log_dedupe rename column cursor to hash;
   alter table log_dedupe add column number integer not null default 0;
   update log_dedupe set hash = substr(hash, instr(hash, '-') + 1), number = counted.number
     from (select room, user, dedupe, row_number() over (partition by room order by seq) as number from log) as counted
     where counted.dedupe = log_dedupe.id and counted.room = log_dedupe.room and counted.user = log_dedupe.user;
   update log_head set number = counted.number from (select room, count(*) as number from log group by room) as counted where counted.room = log_head.room`;

/** Where a room's chain ends: the last row's place in the log, its number in the room, and its hash; all zero and empty before the first. */
export interface Head {
  readonly seq: number;
  readonly number: number;
  readonly hash: string;
}

const NOTHING: Head = { seq: 0, number: 0, hash: "" };

/** One thing worth keeping. `payload` is JSON text; `user` is an id; `id` is the sender's own, for deduplication. */
export interface Entry {
  readonly at: number;
  readonly user: string;
  readonly topic: string;
  readonly event: string;
  readonly payload: string;
  readonly id?: string;
}

/** An entry as it is read back. */
export interface Kept extends Entry {
  readonly cursor: string;
}

/** Where every log begins. */
const START = "0";

/**
 * A cursor is opaque to clients: position and hash, so that a restored backup with other content does not match. The
 * position is masked with the log's own key: nobody counts by it what he may not see, here or elsewhere.
 */
export function cursorOf(sha256: Host["sha256"], key: string, { number, hash }: Pick<Head, "number" | "hash">): string {
  if (number === 0) return START;
  const shown = hash.slice(0, 16);
  return `${masked(sha256, key, number, shown).toString(36)}-${shown}`;
}

/** Its own inverse, for the same hash. */
function masked(sha256: Host["sha256"], key: string, number: number, shown: string): number {
  return (number ^ parseInt(sha256(key + shown).slice(0, 8), 16)) >>> 0;
}

/** The hash of a row covers the payload's digest, so that a payload can be attested without being shown. */
export function chainHash(sha256: Host["sha256"], room: string, entry: Entry, digest: string, previousHash: string): string {
  return sha256(JSON.stringify([previousHash, room, entry.at, entry.user, entry.topic, entry.event, digest, entry.id ?? null]));
}

const APPEND = "insert into log (seq, room, previous, at, user, topic, event, payload, dedupe, previous_hash, hash) values (?,?,?,?,?,?,?,?,?,?,?)";

const PUT_HEAD = "insert into log_head (room, seq, hash, number) values (?,?,?,?)" +
  " on conflict (room) do update set seq = excluded.seq, hash = excluded.hash, number = excluded.number";

/** So many entries back from one of them: places and sizes only, newest first. */
const WALK = `with recursive back (seq, previous, bytes, refused, step) as (
  select seq, previous, octet_length(payload), event = 'refused', 1 from log where seq = ? and room = ?
  union all
  select log.seq, log.previous, octet_length(log.payload), log.event = 'refused', step + 1 from back join log on log.seq = back.previous where step < ?
) select seq, bytes, refused from back`;

/** An entry that a walk found. */
interface Found {
  readonly seq: number;
  readonly number: number;
  readonly bytes: number;
  readonly refused: boolean;
}

export class Log {
  readonly #host: Host;
  readonly #key: string;
  #next = 0;
  #appended = 0;
  // Heads of rooms that wrote in this tick, and of living actors: a cache of the disk, replaced and never changed.
  readonly #heads = new Map<string, Head>();
  readonly #dirty = new Set<string>();

  constructor(host: Host) {
    this.#host = host;
    this.#key = String(host.sql.run("select key from log_key", [], false)[0].key);
    this.#reload();
  }

  #reload(): void {
    this.#next = Number(this.#host.sql.run("select coalesce(max(seq), 0) + 1 as next from log", [], false)[0].next);
  }

  cursorOf(place: Pick<Head, "number" | "hash">): string {
    return cursorOf(this.#host.sha256, this.#key, place);
  }

  head(room: string): Head {
    let head = this.#heads.get(room);
    if (!head) {
      const row = this.#host.sql.run("select seq, hash, number from log_head where room = ?", [room], false)[0];
      head = row ? { seq: Number(row.seq), hash: String(row.hash), number: Number(row.number) } : NOTHING;
      this.#heads.set(room, head);
    }
    return head;
  }

  /** Appends to the room's chain, in the tick's transaction; returns the cursor. */
  append(room: string, entry: Entry): string {
    const head = this.head(room);
    const seq = this.#next;
    const digest = this.#host.sha256(entry.payload);
    const hash = chainHash(this.#host.sha256, room, entry, digest, head.hash);
    this.#write(APPEND, [seq, room, head.seq, entry.at, entry.user, entry.topic, entry.event, entry.payload, entry.id ?? null, head.hash, hash]);
    this.#next = seq + 1;
    this.#appended++;
    const next = { seq, hash, number: head.number + 1 };
    if (next.number % MARK_EVERY === 0) this.#write("insert into log_mark (room, number, seq) values (?,?,?)", [room, next.number, seq]);
    this.#heads.set(room, next);
    this.#dirty.add(room);
    const cursor = this.cursorOf(next);
    if (entry.id !== undefined) {
      const values = [room, entry.user, entry.id, next.number, hash, this.#contentDigest(entry)];
      this.#write("insert into log_dedupe (room, user, id, number, hash, digest) values (?,?,?,?,?,?)", values);
    }
    return cursor;
  }

  /** The log is written after its turn's savepoint: half an entry could not be taken back, so any failure costs the tick. */
  #write(statement: string, values: SqlValue[]): void {
    try {
      this.#host.sql.run(statement, values, true);
    } catch (cause) {
      this.#host.sql.lose(cause);
      throw new StoreLost("Cannot append to the log", { cause });
    }
  }

  /**
   * The cursor that this sender's `id` was given before; undefined for a new one. Throws Refusal `duplicate` when the
   * id stood for something else: answering with the old cursor would lose the new event without a word.
   */
  repeated(room: string, entry: Entry): string | undefined {
    const statement = "select number, hash, digest from log_dedupe where room = ? and user = ? and id = ?";
    const row = this.#host.sql.run(statement, [room, entry.user, entry.id ?? null], false)[0];
    if (!row) return undefined;
    if (row.digest !== this.#contentDigest(entry)) throw new Refusal("duplicate", { message: `id ${entry.id} was used for another event` });
    return this.cursorOf({ number: Number(row.number), hash: String(row.hash) });
  }

  #contentDigest(entry: Entry): string {
    return this.#host.sha256(JSON.stringify([entry.topic, entry.event, entry.payload]));
  }

  /** The number of the entry that a cursor names, 0 for the start; undefined when this log has none such: it is foreign, or from another life of this one. */
  positionOf(room: string, cursor: string): number | undefined {
    if (cursor === START) return 0;
    const match = /^([0-9a-z]{1,7})-([0-9a-f]{16})$/.exec(cursor);
    const number = match ? masked(this.#host.sha256, this.#key, parseInt(match[1], 36), match[2]) : 0;
    if (number < 1 || number > this.head(room).number) return undefined;
    const found = this.#walk(room, this.#above(room, number), number - 1, Infinity)[0];
    const row = this.#host.sql.run("select hash from log where seq = ?", [found?.seq ?? 0], false)[0];
    return row && this.cursorOf({ number, hash: String(row.hash) }) === cursor ? number : undefined;
  }

  /** What a room's log has after `position`, oldest first, without what was refused; null when that is more than `most.entries` or `most.bytes`. */
  since(room: string, position: number, most: { entries: number; bytes: number }): Kept[] | null {
    const head = this.head(room);
    let walked = this.#walk(room, head, position, most.entries + 1);
    // Those who were refused can be many, and do not cost others their recovery.
    if (walked.some(({ refused }) => refused)) walked = this.#walk(room, head, position, most.entries * 4 + 1);
    const found = walked.filter(({ refused }) => !refused);
    const isAll = walked.length === head.number - position;
    if (!isAll || found.length > most.entries || found.reduce((sum, { bytes }) => sum + bytes, 0) > most.bytes) return null;
    return this.#read(found);
  }

  /** The first entries after `position`, oldest first, of at most so many bytes; at least one if there is any. */
  page(room: string, position: number, most: { entries: number; bytes: number }): Kept[] {
    const found = this.#walk(room, this.#above(room, position + most.entries), position, Infinity);
    let sum = 0;
    return this.#read(found.slice(0, most.entries).filter(({ bytes }, index) => (sum += bytes) <= most.bytes || index === 0));
  }

  /** A known place at that number, or shortly after it. */
  #above(room: string, number: number): Pick<Head, "seq" | "number"> {
    const statement = "select seq, number from log_mark where room = ? and number >= ? order by number limit 1";
    const mark = this.#host.sql.run(statement, [room, number], false)[0];
    return mark ? { seq: Number(mark.seq), number: Number(mark.number) } : this.head(room);
  }

  /** Oldest first, without `to`; at most so many steps back from `from`. */
  #walk(room: string, from: Pick<Head, "seq" | "number">, to: number, steps: number): Found[] {
    if (from.number <= to) return [];
    const rows = this.#host.sql.run(WALK, [from.seq, room, Math.min(steps, from.number - to)], false);
    return rows.map((row, index) => ({ seq: Number(row.seq), number: from.number - index, bytes: Number(row.bytes), refused: row.refused === 1 })).reverse();
  }

  #read(found: readonly Found[]): Kept[] {
    if (found.length === 0) return [];
    const list = JSON.stringify(found.map(({ seq }) => seq));
    const rows = this.#host.sql.run("select * from log where seq in (select value from json_each(?)) order by seq", [list], false);
    return rows.map((row, index) => ({ ...entryOf(row), cursor: this.cursorOf({ number: found[index].number, hash: String(row.hash) }) }));
  }

  /** Before the commit: each room's head is written once per tick. Returns how many entries the tick has appended. */
  writeHeads(): number {
    const appended = this.#appended;
    this.#appended = 0;
    for (const room of this.#dirty) {
      const { seq, hash, number } = this.#heads.get(room)!;
      this.#host.sql.run(PUT_HEAD, [room, seq, hash, number], true);
    }
    this.#dirty.clear();
    return appended;
  }

  /** After a lost tick nothing remembered can be trusted. */
  forgetAll(): void {
    this.#heads.clear();
    this.#dirty.clear();
    this.#reload();
  }

  /** The actor is gone: so is its part of the cache. */
  forget(room: string): void {
    if (!this.#dirty.has(room)) this.#heads.delete(room);
  }
}

function entryOf(row: SqlRow): Entry {
  return {
    at: Number(row.at),
    user: String(row.user),
    topic: String(row.topic),
    event: String(row.event),
    payload: String(row.payload),
    id: row.dedupe === null ? undefined : String(row.dedupe),
  };
}

/** The first place where a chain does not hold. */
export interface Broken {
  readonly room: string;
  readonly seq: number;
  readonly why: string;
}

/**
 * Walks every chain from its first row to its head; memory grows with the rooms, not with the rows.
 * `rows` are the log's rows in order of seq, `heads` those of log_head.
 */
export function verifyLog(
  sha256: Host["sha256"],
  rows: Iterable<SqlRow>,
  heads: Iterable<SqlRow>,
): { rooms: number; entries: number; broken: Broken | null } {
  const ends = new Map<string, Head>();
  let entries = 0;
  let last = 0;
  // Numbers run through all rooms: a gap that no chain shows is a whole room that is gone.
  let gap = 0;
  for (const row of rows) {
    entries++;
    const [room, seq] = [String(row.room), Number(row.seq)];
    const end = ends.get(room) ?? NOTHING;
    const broken = (why: string) => ({ rooms: ends.size, entries, broken: { room, seq, why } });
    if (row.previous !== end.seq) return broken(`it follows entry ${row.previous}, but the entry before it is ${end.seq}: one is missing or was put in`);
    if (row.previous_hash !== end.hash) return broken("it does not carry the hash of the entry before it");
    const entry = entryOf(row);
    if (chainHash(sha256, room, entry, sha256(entry.payload), end.hash) !== row.hash) return broken("its content does not match its hash");
    ends.set(room, { seq, hash: String(row.hash), number: end.number + 1 });
    if (seq !== last + 1) gap ||= last + 1;
    last = seq;
  }
  const rooms = ends.size;
  for (const head of heads) {
    const room = String(head.room);
    const end = ends.get(room) ?? NOTHING;
    if (head.seq !== end.seq || head.hash !== end.hash) {
      return { rooms, entries, broken: { room, seq: Number(head.seq), why: `the chain should end here, but ends at ${end.seq}: entries are missing` } };
    }
    // Logs of older versions count nothing.
    if (head.number !== undefined && head.number !== end.number) {
      return { rooms, entries, broken: { room, seq: end.seq, why: `its head counts ${head.number} entries, but there are ${end.number}` } };
    }
    ends.delete(room);
  }
  for (const [room, end] of ends) return { rooms, entries, broken: { room, seq: end.seq, why: "the room has entries but no head" } };
  if (gap) return { rooms, entries, broken: { room: "a room that is gone", seq: gap, why: "the entry is missing, and the room's head with it" } };
  return { rooms, entries, broken: null };
}

/** The first of the ends that were kept elsewhere which the log has not, or not any more. Throws TypeError when that is no list of ends. */
export function missingHead(kept: readonly unknown[], find: (seq: number) => SqlRow | undefined): Broken | null {
  if (kept.length === 0) throw new TypeError("the file has no ends of chains");
  for (const line of kept) {
    const { room, seq, hash } = line as { room: unknown; seq: unknown; hash: unknown };
    if (typeof room !== "string" || !Number.isInteger(seq) || typeof hash !== "string") throw new TypeError("a line of the file is no end of a chain");
    const row = find(Number(seq));
    if (row?.room === room && row.hash === hash) continue;
    const why = row ? "the chain ended here once, with another hash: it was rewritten" : "the chain ended here once, but there is no such entry: it is missing";
    return { room, seq: Number(seq), why };
  }
  return null;
}
