import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import { StoreLost } from "../rooms/host.ts";
import { DenoSql } from "../rooms/hosts/deno_sql.ts";

function open(path = ":memory:") {
  const sql = new DenoSql(path);
  sql.run("create table if not exists t (id integer primary key, body text) strict", [], true);
  sql.commit();
  const put = (id: number, body = "") => sql.run("insert into t (id, body) values (?, ?)", [id, body], true);
  const ids = () => sql.run("select id from t order by id", [], false).map(({ id }) => id);
  return { sql, put, ids };
}

/** What a second connection sees: what is committed. */
function seen(path: string): unknown[] {
  const db = new DatabaseSync(path, { readOnly: true });
  const rows = db.prepare("select id from t order by id").all().map((row) => (row as { id: number }).id);
  db.close();
  return rows;
}

const abort = () => {
  throw new RangeError("ours");
};

Deno.test("deno_sql: nothing is seen by others before the commit, all of it afterwards; the file is WAL and FULL", () => {
  const dir = Deno.makeTempDirSync();
  const { sql, put } = open(`${dir}/x.db`);
  put(1);
  put(2);
  assertEquals(seen(`${dir}/x.db`), []);
  sql.commit();
  assertEquals(seen(`${dir}/x.db`), [1, 2]);
  assertEquals(sql.run("pragma journal_mode", [], false)[0].journal_mode, "wal");
  assertEquals(sql.run("pragma synchronous", [], false)[0].synchronous, 2);
  sql.commit();
  sql.close();
  Deno.removeSync(dir, { recursive: true });
});

Deno.test("deno_sql: atomic undoes what its body wrote, nests, and returns what it returns", () => {
  const { sql, put, ids } = open();
  put(1);
  assertThrows(() => sql.atomic(() => (put(2), abort())), RangeError);
  assertEquals(sql.atomic(() => (put(3), sql.atomic(() => (put(4), "value")))), "value");
  sql.atomic(() => {
    put(5);
    assertThrows(() => sql.atomic(() => (put(6), abort())), RangeError);
    put(7);
  });
  assertThrows(() =>
    sql.atomic(() => {
      sql.atomic(() => put(8));
      abort();
    }), RangeError);
  // A body that only reads, between those that write.
  sql.atomic(() => sql.atomic(() => ids()));
  sql.commit();
  assertEquals(ids(), [1, 3, 4, 5, 7]);
  sql.close();
});

Deno.test("deno_sql: an inner body that reads first and writes after its outer one is undone with it", () => {
  const { sql, put, ids } = open();
  assertThrows(() =>
    sql.atomic(() => {
      ids();
      sql.atomic(() => {
        ids();
        put(1);
      });
      put(2);
      abort();
    }), RangeError);
  sql.atomic(() => put(3));
  sql.commit();
  assertEquals(ids(), [3]);
  sql.close();
});

Deno.test("deno_sql: a constraint error undoes its statement only, and the tick goes on", () => {
  const { sql, put, ids } = open();
  put(1);
  const error = assertThrows(() => put(1));
  assert(!(error instanceof StoreLost));
  assertThrows(() => sql.run("insert into t (id) values ('text')", [], true));
  put(2);
  sql.commit();
  assertEquals(ids(), [1, 2]);
  sql.close();
});

Deno.test("deno_sql: SQLITE_FULL on a statement loses the tick: nothing more is written, commit throws, the next tick works", () => {
  const dir = Deno.makeTempDirSync();
  const { sql, put, ids } = open(`${dir}/x.db`);
  put(1);
  sql.commit();
  sql.run(`pragma max_page_count = ${Number(sql.run("pragma page_count", [], false)[0].page_count) + 1}`, [], false);
  put(2);
  assertThrows(() => sql.atomic(() => put(3, "x".repeat(100_000))), StoreLost);
  assertThrows(() => put(4), StoreLost);
  assertThrows(() => sql.atomic(() => put(5)), StoreLost);
  // A body that swallows the error and one that only reads.
  assertEquals(
    sql.atomic(() => {
      try {
        put(6);
      } catch {
        return "swallowed";
      }
    }),
    "swallowed",
  );
  assertThrows(() => sql.commit(), StoreLost);
  assertEquals([ids(), seen(`${dir}/x.db`)], [[1], [1]]);
  sql.run("pragma max_page_count = 100000", [], false);
  put(7);
  sql.commit();
  assertEquals([ids(), seen(`${dir}/x.db`)], [[1, 7], [1, 7]]);
  sql.close();
  Deno.removeSync(dir, { recursive: true });
});

Deno.test("deno_sql: SQLITE_FULL outside of any body loses the tick too, also what was written before it", () => {
  const { sql, put, ids } = open();
  sql.run(`pragma max_page_count = ${Number(sql.run("pragma page_count", [], false)[0].page_count) + 1}`, [], false);
  put(1);
  assertThrows(() => put(2, "x".repeat(100_000)), StoreLost);
  assertThrows(() => put(3), StoreLost);
  assertThrows(() => sql.commit(), StoreLost);
  assertEquals(ids(), []);
  sql.close();
});

Deno.test("deno_sql: a body that swallows the loss of its own savepoint does not commit on its own", () => {
  const dir = Deno.makeTempDirSync();
  const { sql, put, ids } = open(`${dir}/x.db`);
  sql.run(`pragma max_page_count = ${Number(sql.run("pragma page_count", [], false)[0].page_count) + 1}`, [], false);
  assertThrows(() =>
    sql.atomic(() => {
      put(1);
      try {
        put(2, "x".repeat(100_000));
      } catch { /* as a careless handler would */ }
    }), StoreLost);
  assertThrows(() => sql.commit(), StoreLost);
  assertEquals([ids(), seen(`${dir}/x.db`)], [[], []]);
  sql.close();
  Deno.removeSync(dir, { recursive: true });
});

Deno.test("deno_sql: a tick that was declared lost is rolled back, with the reason", () => {
  const { sql, put, ids } = open();
  put(1);
  sql.lose(new Error("because"));
  assertThrows(() => put(2), StoreLost);
  const error = assertThrows(() => sql.commit(), StoreLost);
  assertStringIncludes(String(error.cause), "because");
  assertEquals(ids(), []);
  sql.lose(undefined);
  assertThrows(() => sql.commit(), StoreLost);
  put(3);
  sql.commit();
  assertEquals(ids(), [3]);
  sql.close();
});

Deno.test("deno_sql: a COMMIT that another connection's lock stops is lost, and the next tick works", () => {
  const dir = Deno.makeTempDirSync();
  const path = `${dir}/x.db`;
  const { sql, put, ids } = open(path);
  const other = new DatabaseSync(path);
  other.exec("begin immediate; insert into t (id) values (100)");
  const error = assertThrows(() => put(1), StoreLost);
  assertStringIncludes(String(error.cause), "locked");
  assertThrows(() => sql.commit(), StoreLost);
  other.exec("rollback");
  other.close();
  put(2);
  sql.commit();
  assertEquals(ids(), [2]);
  sql.close();
  Deno.removeSync(dir, { recursive: true });
});

Deno.test("deno_sql: a COMMIT that fails leaves nothing open (deferred constraint)", () => {
  const { sql, ids } = open();
  sql.run("pragma foreign_keys = on", [], false);
  sql.run("create table c (p integer references t (id) deferrable initially deferred) strict", [], true);
  sql.commit();
  sql.run("insert into c (p) values (9)", [], true);
  sql.run("insert into t (id) values (1)", [], true);
  assertThrows(() => sql.commit(), StoreLost);
  assertEquals(ids(), []);
  sql.commit();
  sql.run("insert into t (id) values (2)", [], true);
  sql.commit();
  assertEquals(ids(), [2]);
  sql.close();
});

Deno.test("deno_sql: vet refuses transaction control, pragmas and attached files, and what does not compile; it runs nothing", () => {
  const { sql, ids } = open();
  const refused = [
    "begin",
    "commit",
    "end",
    "rollback",
    "savepoint x",
    "release x",
    "pragma user_version",
    "attach ':memory:' as x",
    "detach main",
    "select nope from t",
  ];
  for (const statement of refused) {
    assertThrows(() => sql.vet(statement, "t"), TypeError, "Cannot run this statement", statement);
  }
  sql.vet("insert into t (id) values (1)", "t");
  sql.vet("select * from t where id = ?", "t");
  assertEquals(ids(), []);
  // The host itself may still.
  sql.run("insert into t (id) values (1)", [], true);
  sql.commit();
  assertEquals(ids(), [1]);
  sql.close();
});

Deno.test("deno_sql: more statements than are kept compiled still run, transaction control among them", () => {
  const { sql, put } = open();
  for (let n = 0; n < 1200; n++) {
    sql.atomic(() => put(n));
    assertEquals(sql.run(`select ${n} as n`, [], false), [Object.assign(Object.create(null), { n })]);
    if (n % 100 === 0) sql.commit();
  }
  sql.commit();
  assertEquals(sql.run("select count(*) as n from t", [], false)[0].n, 1200);
  sql.close();
});

Deno.test("deno_sql: text, numbers, null and bytes come back as they went in", () => {
  const { sql } = open();
  sql.run("create table v (a any) strict", [], true);
  const values = ["", "𝒳\u2028", 0, -1, 2 ** 53 - 1, 1.5, null, new Uint8Array([0, 255])];
  for (const value of values) sql.run("insert into v (a) values (?)", [value], true);
  assertEquals(sql.run("select a from v order by rowid", [], false).map(({ a }) => a), values);
  sql.close();
});

Deno.test("deno_sql: a NUL in a text is kept or refused, never a reason to cut the text short [24]", () => {
  const { sql } = open();
  let kept: unknown;
  try {
    sql.run("insert into t (id, body) values (1, ?)", ["a\u0000b"], true);
    kept = sql.run("select body from t", [], false)[0].body;
  } catch (error) {
    assert(!(error instanceof StoreLost));
    kept = "a\u0000b";
  }
  assertEquals(kept, "a\u0000b");
  sql.close();
});
