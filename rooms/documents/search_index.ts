/**
 * The search index of one case: one SQLite file, derived data, rebuilt when lost. Several processes may have it open.
 *
 * `document` is small, for every match looks into it: whether it may be seen, its day. `words` and `labels` (what changes
 * without the text) are FTS5 without content; texts are kept once, in `body`. All four share `key`, which only grows, so
 * that descending keys are newest first. Candidates are the first matches in that order, and only they are ranked: bm25 of
 * 90,000 matches takes longer than anybody waits.
 */
import { DatabaseSync, type StatementSync } from "node:sqlite";
import type { Change, Found, Hit, Indexed, SearchOptions } from "./indexed.ts";
import type { Field, Query } from "./query.ts";
import { READ_UNITS, Snippets } from "./snippet.ts";
import { all, type Condition, daysCondition, translate } from "./translation.ts";
import { clean, spread } from "./words.ts";

/** Of the file. Another one's is thrown away and made again by whoever owns it. */
const VERSION = 1;
const MAX_TOTAL = 10_000;
/** What a match is worth in text, title, subject, sender, recipients, filename. */
const WEIGHTS = "1, 2, 2, 2, 2, 2";
/** Between tags, so that no phrase spans two. A word of private use to the tokenizer. */
const BETWEEN_TAGS = " \ue000 ";
const DAY = /^\d{4}-\d\d-\d\d$/;

const SCHEMA = `
  create table document (key integer primary key, id text not null unique, puts integer not null default 0, visible integer not null default 0,
    date text, revision integer not null default -1, coding integer not null default -1, type text not null default '',
    custodian text not null default '', tags text not null default '[]', marked_custodian text, marked_tags text, coded text not null default '[]',
    change integer not null default 0) strict;
  create index document_change on document (change);
  create table tally (documents integer not null, change integer not null) strict;
  insert into tally values (0, 0);
  create table body (key integer primary key, text text not null, title text not null, subject text not null, sender text not null,
    recipients text not null, filename text not null) strict;
  create virtual table words using fts5 (text, title, subject, sender, recipients, filename, content='', contentless_delete=1, tokenize='unicode61 remove_diacritics 2');
  create virtual table labels using fts5 (type, tags, custodian, content='', contentless_delete=1, tokenize='unicode61 remove_diacritics 2');
  pragma user_version = ${VERSION}`;

const ENTER = `insert into document (id, date, type, custodian, tags, puts) values (?, ?, ?, ?, ?, 1) on conflict (id) do update
  set date = excluded.date, type = excluded.type, custodian = excluded.custodian, tags = excluded.tags, puts = puts + 1
  returning key, puts, visible, marked_custodian, marked_tags, coded`;

const MARK = "update document set revision = ?, coding = ?, visible = ?, marked_custodian = ?, marked_tags = ?, coded = ? where key = ?";

/** No more of a text than snippets are looked for in. */
const HIT = `select id, substr(text, 1, ${READ_UNITS}) as text, title, subject, sender, recipients, filename from body join document using (key) where key = ?`;

/** As much of a row of `document` as its labels and the tally need. */
interface Entered {
  key: number;
  /** How often its text was put: 0 is one of which only marks are known. */
  puts: number;
  visible: number;
  type: string;
  custodian: string;
  tags: string;
  marked_custodian: string | null;
  marked_tags: string | null;
  coded: string;
}
interface Row extends Entered {
  revision: number;
  coding: number;
}

export class SearchIndex {
  readonly #statements = new Map<string, StatementSync>();

  private constructor(private readonly db: DatabaseSync) {}

  /** Makes the file when it is not there and not read-only. Throws when it is damaged, of another version, or something else. */
  static open(path: string, { readOnly = false }: { readOnly?: boolean } = {}): SearchIndex {
    const db = new DatabaseSync(path, { readOnly });
    try {
      // Writers of other processes are waited for.
      db.exec("pragma busy_timeout = 5000");
      if (!readOnly) {
        // SQLite waits for nobody here, and says so at once when two processes make the same file.
        insist(() => db.exec("pragma journal_mode = wal"));
        db.exec("pragma synchronous = normal");
      }
      const index = new SearchIndex(db);
      if (!readOnly) index.#atomic("immediate", () => index.#make());
      index.#probe();
      return index;
    } catch (error) {
      db.close();
      throw error;
    }
  }

  #make(): void {
    const version = this.#version();
    const { n } = this.db.prepare("select count(*) as n from sqlite_schema").get() as { n: number };
    if (version === 0 && n === 0) this.db.exec(SCHEMA);
  }

  /** Looks into every table: what a cut or overwritten file lacks is noticed here, most of the time. */
  #probe(): void {
    const version = this.#version();
    if (version !== VERSION) throw new TypeError(`Cannot read a search index of version ${version}`);
    const { key } = this.db.prepare("select ifnull(max(key), 0) as key from document").get() as { key: number };
    this.db.prepare("select length(text) from body where key <= ? order by key desc limit 1").get(key);
    for (const table of ["words", "labels"]) this.db.prepare(`select rowid from ${table} where ${table} match '"a"' limit 1`).get();
  }

  #version(): number {
    return (this.db.prepare("pragma user_version").get() as { user_version: number }).user_version;
  }

  /**
   * Puts documents in one transaction: replaces what was there of the same ids. Table by table, for FTS5 writes out what it has
   * gathered whenever a statement on another table could be taken back, and document by document that is for each.
   */
  put(documents: readonly Indexed[]): void {
    const latest = new Map(documents.map((document) => [clean(document.id), document])).values();
    this.#atomic("immediate", () => {
      const entered = Array.from(latest, (document) => this.#enter(document));
      const again = entered.filter(({ row }) => row.puts > 1).map(({ row }) => row.key);
      for (const table of ["words", "labels"]) for (const key of again) this.#run(`delete from ${table} where rowid = ?`, key);
      for (const { row, texts } of entered) {
        this.#run("insert into words (rowid, text, title, subject, sender, recipients, filename) values (?, ?, ?, ?, ?, ?, ?)", row.key, ...texts.map(spread));
      }
      for (const { row } of entered) this.#label(row);
      this.#tally(entered.map(({ row }) => row.key), entered.filter(({ row }) => row.puts === 1).length);
    });
  }

  /** Counting takes as long as finding. What changed carries the number of the change, so that who has seen all before it finds just that. */
  #tally(changed: Iterable<number>, added: number): void {
    this.#run("update tally set documents = documents + ?, change = change + 1", added);
    for (const key of changed) this.#run("update document set change = (select change from tally) where key = ?", key);
  }

  #enter(document: Indexed): { row: Entered; texts: string[] } {
    const { id, text, title, subject, from, to, filename, type, custodian, tags } = document;
    const texts = [text, title, subject, from, to, filename].map(clean);
    const date = document.date !== null && DAY.test(document.date) ? document.date : null;
    const labels = { type: clean(type), custodian: clean(custodian), tags: clean(JSON.stringify(tags)) };
    const row = { ...labels, ...this.#prepared(ENTER).get(clean(id), date, labels.type, labels.custodian, labels.tags) } as Entered;
    this.#run("insert or replace into body (key, text, title, subject, sender, recipients, filename) values (?, ?, ?, ?, ?, ?, ?)", row.key, ...texts);
    return { row, texts };
  }

  /**
   * Two sources with revisions of their own, so that updates may arrive in any order: only a higher revision changes
   * anything, and a part without its revision is left as it is. An id that has no text yet is remembered; until it is marked
   * visible it is not. Custodian and tags of here win over those that came with the text; the reviewers' tags are added.
   */
  mark(changes: readonly Change[]): void {
    this.#atomic("immediate", () => {
      // The last state of each; its labels are written once.
      const relabelled = new Map<number, Row>();
      const touched = new Set<number>();
      for (const change of changes) {
        const row = this.#row(change.id);
        const next = changed(row, change);
        this.#run(MARK, next.revision, next.coding, next.visible, next.marked_custodian, next.marked_tags, next.coded, row.key);
        if (row.puts === 0) continue;
        touched.add(row.key);
        const [before, after] = [row, next].map(({ marked_custodian, marked_tags, coded }) => JSON.stringify([marked_custodian, marked_tags, coded]));
        if (before !== after) relabelled.set(row.key, next);
      }
      this.#tally(touched, 0);
      for (const key of relabelled.keys()) this.#run("delete from labels where rowid = ?", key);
      for (const row of relabelled.values()) this.#label(row);
    });
  }

  #label({ key, type, custodian, tags, marked_custodian, marked_tags, coded }: Entered): void {
    const words = [...JSON.parse(marked_tags ?? tags), ...JSON.parse(coded)].join(BETWEEN_TAGS);
    this.#run("insert into labels (rowid, type, tags, custodian) values (?, ?, ?, ?)", key, ...[type, words, marked_custodian ?? custodian].map(spread));
  }

  #row(id: string): Row {
    const known = this.#prepared("select * from document where id = ?").get(clean(id));
    return (known ?? this.#prepared("insert into document (id) values (?) returning *").get(clean(id))) as unknown as Row;
  }

  /** Those of the ids whose text is here. */
  has(ids: readonly string[]): string[] {
    const statement = this.#prepared("select 1 from document where id = ? and puts > 0");
    return ids.filter((id) => statement.get(clean(id)) !== undefined);
  }

  /** UTF-16 units. No character is cut in two: what would end within one ends before it, so that pages follow each other without a gap. */
  text(id: string, from: number, length: number): { text: string; total: number } | undefined {
    const row = this.#prepared("select text from body join document using (key) where id = ?").get(clean(id)) as { text: string } | undefined;
    if (!row) return undefined;
    const { text } = row;
    const whole = (at: number) => /[\udc00-\udfff]/.test(text.charAt(at)) ? at - 1 : at;
    return { text: text.slice(whole(from), whole(from + length)), total: text.length };
  }

  /** Newest matches first up to `candidates`, the best of these. Bounded by the number of documents, whatever the query. */
  search(query: Query, { limit, candidates, ...options }: SearchOptions): Found {
    return this.#atomic("deferred", () => {
      const plan = planOf(query, options);
      const ranked = this.#candidates(plan, candidates);
      const best = ranked.toSorted((a, b) => b.score - a.score || b.key - a.key).slice(0, limit);
      const seen = ranked.length < candidates ? ranked.length : this.#total(plan);
      const snippets = new Snippets(query);
      const tally = this.#prepared("select documents, change from tally").get() as { documents: number; change: number };
      return {
        results: best.map(({ key, score }) => this.#hit(key, score, snippets)),
        total: Math.min(seen, MAX_TOTAL),
        exact: seen <= MAX_TOTAL,
        ...tally,
      };
    });
  }

  #candidates({ from, where, key, ranked, rank }: Plan, candidates: number): { key: number; score: number }[] {
    const score = ranked ? `bm25(words, ${WEIGHTS})` : "0";
    const rows = this.#all(
      `select ${key} as key, -${score} as score from ${from} where ${where.sql} order by ${key} desc limit ?`,
      ...where.parameters,
      candidates,
    );
    if (ranked || rank === null || rows.length === 0) return rows;
    const keys = rows.map(({ key }) => key);
    const scores = this.#all(
      // The plus keeps FTS5 from running the expression once for every key.
      `select rowid as key, -bm25(words, ${WEIGHTS}) as score from words where words match ? and rowid between ? and ? and +rowid in (select value from json_each(?))`,
      rank,
      keys.at(-1)!,
      keys[0],
      JSON.stringify(keys),
    );
    const scoreOf = new Map(scores.map(({ key, score }) => [key, score]));
    return keys.map((key) => ({ key, score: scoreOf.get(key) ?? 0 }));
  }

  #total({ from, where }: Plan): number {
    const counted = this.db.prepare(`select count(*) as n from (select 1 from ${from} where ${where.sql} limit ?)`);
    return (counted.get(...where.parameters, MAX_TOTAL + 1) as { n: number }).n;
  }

  #hit(key: number, score: number, snippets: Snippets): Hit {
    const row = this.#prepared(HIT).get(key) as Record<string, string>;
    const texts: [Field | null, string][] = [
      [null, row.text],
      ["subject", row.subject],
      ["title", row.title],
      ["from", row.sender],
      ["to", row.recipients],
      ["filename", row.filename],
    ];
    return { id: row.id, score, snippets: snippets.of(texts.map(([field, text]) => ({ field, text }))) };
  }

  close(): void {
    this.db.close();
  }

  #atomic<Result>(kind: "immediate" | "deferred", body: () => Result): Result {
    this.db.exec(`begin ${kind}`);
    try {
      const result = body();
      this.db.exec("commit");
      return result;
    } catch (error) {
      if (this.db.isTransaction) this.db.exec("rollback");
      throw error;
    }
  }

  /** For the few statements that are always the same. */
  #prepared(sql: string): StatementSync {
    let statement = this.#statements.get(sql);
    if (!statement) this.#statements.set(sql, statement = this.db.prepare(sql));
    return statement;
  }
  #run(sql: string, ...parameters: (string | number | null)[]): void {
    this.#prepared(sql).run(...parameters);
  }
  #all(sql: string, ...parameters: (string | number)[]): { key: number; score: number }[] {
    return this.db.prepare(sql).all(...parameters) as { key: number; score: number }[];
  }
}

/** Does it again while another process has the file, for a second at most. */
function insist(body: () => void): void {
  for (let tries = 0;; tries++) {
    try {
      return body();
    } catch (error) {
      if (tries === 100 || !/\blocked\b/.test(String(error))) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
    }
  }
}

function changed(row: Row, { revision = -1, visible, custodian, tags, coding = -1, coded }: Change): Row {
  const next = { ...row };
  if (revision > row.revision) {
    next.revision = revision;
    if (visible !== undefined) next.visible = visible ? 1 : 0;
    if (custodian !== undefined) next.marked_custodian = clean(custodian);
    if (tags !== undefined) next.marked_tags = clean(JSON.stringify(tags));
  }
  if (coding > row.coding) {
    next.coding = coding;
    if (coded !== undefined) next.coded = clean(JSON.stringify(coded));
  }
  return next;
}

interface Plan {
  readonly from: string;
  readonly where: Condition;
  readonly key: string;
  readonly ranked: boolean;
  readonly rank: string | null;
}

function planOf(query: Query, { all: everything, dates, after }: Omit<SearchOptions, "limit" | "candidates">): Plan {
  const { match, condition, rank, ranked } = translate(query);
  const where = all([
    ...(after !== undefined ? [{ sql: "d.change > cast(? as integer)", parameters: [String(after)] }] : []),
    ...(match === null ? [] : [{ sql: "words match ?", parameters: [match] }]),
    { sql: "d.puts > 0", parameters: [] },
    ...(everything ? [] : [{ sql: "d.visible = 1", parameters: [] }]),
    ...(dates?.start !== undefined || dates?.end !== undefined ? [daysCondition(dates)] : []),
    condition,
  ]);
  // A cross join is run in this order. Of what changed lately there is little: there FTS5 is asked once for each.
  if (match !== null && after !== undefined) return { from: "document d cross join words on words.rowid = d.key", where, key: "words.rowid", ranked, rank };
  return match === null
    ? { from: "document d", where, key: "d.key", ranked, rank }
    : { from: "words cross join document d on d.key = words.rowid", where, key: "words.rowid", ranked, rank };
}
