import { assertEquals, assertThrows } from "@std/assert";
import { DatabaseSync } from "node:sqlite";
import { denoHost } from "../rooms/hosts/deno.ts";
import { DenoSql } from "../rooms/hosts/deno_sql.ts";
import { migrate, Storage } from "../rooms/storage.ts";

const open = (path = ":memory:") => {
  const host = denoHost(path, { report: () => {} });
  return { host, sql: host.sql, storage: new Storage(host, new Map()) };
};
const versions = (sql: DenoSql) => sql.run("select owner, version from migration order by owner", [], false).map((row) => Object.values(row));

Deno.test("storage: migrations run once, each from its version on, for each owner", () => {
  const sql = new DenoSql(":memory:");
  migrate(sql, "a", ["create table a_one (x text) strict"]);
  migrate(sql, "b", []);
  migrate(sql, "a", ["this would fail", "create table a_two (x text) strict; insert into a_two values ('x')"]);
  migrate(sql, "a", ["this would fail", "and this"]);
  sql.commit();
  assertEquals(sql.run("select x from a_two", [], false).length, 1);
  assertEquals(versions(sql), [["a", 2], ["b", 0]]);
  sql.close();
});

Deno.test("storage: data of a newer version is not opened", () => {
  const sql = new DenoSql(":memory:");
  migrate(sql, "a", ["create table a_one (x text) strict", "create table a_two (x text) strict"]);
  assertThrows(() => migrate(sql, "a", ["create table a_one (x text) strict"]), TypeError, "a is at 2, this program knows 1");
  sql.close();
});

Deno.test("storage: a migration that fails leaves the file as it was, of every owner", () => {
  const dir = Deno.makeTempDirSync();
  const path = `${dir}/x.db`;
  assertThrows(() =>
    new Storage(denoHost(path), new Map([["a", ["create table a_one (x text) strict"]], ["b", ["create table b_one (x text) strict; rubbish"]]]))
  );
  // As the next process would find it.
  const db = new DatabaseSync(path, { readOnly: true });
  assertEquals(db.prepare("select name from sqlite_master").all(), []);
  db.close();
  Deno.removeSync(dir, { recursive: true });
});

Deno.test("storage: a named timer of a room is one row, a second setting moves it", () => {
  const { sql, storage } = open();
  storage.setTimer("r/1", "a", 300);
  storage.setTimer("r/1", "b", 100);
  storage.setTimer("r/2", "a", 200);
  storage.setTimer("r/1", "a", 50);
  assertEquals(storage.nextTimer(), 50);
  assertEquals(storage.dueTimers(199), [{ room: "r/1", name: "a", due: 50 }, { room: "r/1", name: "b", due: 100 }]);
  storage.clearTimer("r/1", "a");
  storage.clearTimer("r/1", "nope");
  assertEquals([storage.nextTimer(), storage.dueTimers(1000).length], [100, 2]);
  for (const { room, name } of storage.dueTimers(1000)) storage.clearTimer(room, name);
  assertEquals(storage.nextTimer(), null);
  sql.close();
});

Deno.test("storage: calls wait in order, are known once taken, and stand aside when parked", () => {
  const { sql, storage } = open();
  const calls = [1, 2, 3].map((n) => storage.addCall("r/1", n === 2 ? "s/2" : "s/1", `{"n":${n}}`));
  assertEquals(storage.waitingCalls(), calls);
  assertEquals(calls.map((call) => storage.wasCalled(call)), [false, false, false]);
  storage.markCalled(calls[0]);
  assertEquals(calls.map((call) => storage.wasCalled(call)), [true, false, false]);
  storage.removeCall(calls[0].id);
  storage.parkCall(calls[1].id, "RangeError");
  assertEquals(storage.waitingCalls(), [calls[2]]);
  assertEquals(sql.run("select failed from outbox where id = ?", [calls[1].id], false)[0].failed, "RangeError");
  sql.close();
});

Deno.test("storage: the id of a call is never used again, also when its row is gone", () => {
  const { sql, storage } = open();
  const first = storage.addCall("r/1", "s/1", "{}");
  storage.removeCall(first.id);
  const second = storage.addCall("r/1", "s/1", "{}");
  assertEquals([second.id > first.id, storage.wasCalled(second)], [true, false]);
  sql.close();
});

Deno.test("storage: a commit that fails says so and why; after recover the next one is kept", () => {
  const { sql, storage } = open();
  storage.setTimer("r/1", "a", 1);
  sql.lose(new Error("because"));
  assertEquals(storage.commit().how, "lost");
  assertEquals(String((storage.lostBecause as Error).cause), "Error: because");
  storage.recover();
  assertEquals(storage.nextTimer(), null);
  storage.setTimer("r/1", "b", 2);
  assertEquals([storage.commit().how, storage.nextTimer()], ["kept", 2]);
  sql.close();
});
