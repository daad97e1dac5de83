/** What rooms keep besides their own tables: migrations, the log, named timers, and the outbox of calls to other rooms. */
import type { Clock, Host, SqlHost } from "./host.ts";
import { Log, LOG_MARKS, LOG_NUMBERS, LOG_SCHEMA } from "./log.ts";

const CORE_SCHEMA = [
  ...LOG_SCHEMA,
  `create table timer (room text not null, name text not null, due integer not null, primary key (room, name)) strict, without rowid;
   create index timer_due on timer (due);
   create table outbox (id integer primary key autoincrement, room text not null, target text not null, message text not null, failed text) strict;
   create table called (target text not null, room text not null, id integer not null, primary key (target, room)) strict, without rowid`,
  LOG_MARKS,
  LOG_NUMBERS,
  "create table work (id integer primary key autoincrement, room text not null, task text not null, failed text) strict",
];

/** Brings one owner's tables to its last version. `migrations[n]` leads from version n to n + 1; none is ever changed. */
export function migrate(sql: SqlHost, owner: string, migrations: readonly string[]): void {
  sql.run("create table if not exists migration (owner text primary key, version integer not null) strict, without rowid", [], true);
  const version = Number(sql.run("select version from migration where owner = ?", [owner], false)[0]?.version ?? 0);
  if (version > migrations.length) {
    throw new TypeError(`Cannot open data of a newer version: ${owner} is at ${version}, this program knows ${migrations.length}`);
  }
  for (const migration of migrations.slice(version)) {
    for (const statement of migration.split(";")) if (statement.trim()) sql.run(statement, [], true);
  }
  sql.run(
    "insert into migration (owner, version) values (?, ?) on conflict (owner) do update set version = excluded.version",
    [owner, migrations.length],
    true,
  );
}

/** Something that the host is to do for a room. */
export interface Task {
  readonly id: number;
  readonly room: string;
  /** JSON text. */
  readonly task: string;
}

/** A call on its way to another room. */
export interface Call {
  readonly id: number;
  readonly room: string;
  readonly target: string;
  /** JSON text. */
  readonly message: string;
}

export class Storage {
  readonly log: Log;
  readonly sql: SqlHost;
  /** Why the last lost tick was lost. */
  lostBecause: unknown;
  readonly #clock: Clock;
  readonly #began: number;

  /** `owners`: each kind of room with its migrations. */
  constructor(host: Host, owners: ReadonlyMap<string, readonly string[]>) {
    this.sql = host.sql;
    this.#clock = host.clock;
    this.#began = host.clock.now() - host.clock.elapsed();
    migrate(this.sql, "core", CORE_SCHEMA);
    for (const [owner, migrations] of owners) migrate(this.sql, owner, migrations);
    this.sql.commit();
    this.log = new Log(host);
  }

  /** Commits what the tick wrote, if anything; "lost" when it is not known to be kept. `entries`: of the log. */
  commit(): { how: "kept" | "nothing" | "lost"; entries: number } {
    let entries = 0;
    try {
      entries = this.log.writeHeads();
    } catch (error) {
      this.sql.lose(error);
    }
    try {
      return { how: this.sql.commit() ? "kept" : "nothing", entries };
    } catch (error) {
      this.lostBecause = error;
      return { how: "lost", entries };
    }
  }

  /** After a lost tick, once its turns are undone: nothing remembered of the disk can be trusted. */
  recover(): void {
    this.log.forgetAll();
  }

  /** Milliseconds since 1970 as the machine believed when this program started: whoever sets its clock moves no timer. */
  steadyNow(): number {
    return Math.round(this.#began + this.#clock.elapsed());
  }

  setTimer(room: string, name: string, due: number): void {
    this.sql.run("insert into timer (room, name, due) values (?,?,?) on conflict (room, name) do update set due = excluded.due", [room, name, due], true);
  }

  clearTimer(room: string, name: string): void {
    this.sql.run("delete from timer where room = ? and name = ?", [room, name], true);
  }

  dueTimers(now: number): { room: string; name: string; due: number }[] {
    const rows = this.sql.run("select room, name, due from timer where due <= ? order by due limit 1000", [now], false);
    return rows.map((row) => ({ room: String(row.room), name: String(row.name), due: Number(row.due) }));
  }

  nextTimer(): number | null {
    const due = this.sql.run("select min(due) as due from timer", [], false)[0].due;
    return due === null ? null : Number(due);
  }

  /** The row makes the call survive; its id is what the target deduplicates by. */
  addCall(room: string, target: string, message: string): Call {
    const row = this.sql.run("insert into outbox (room, target, message) values (?,?,?) returning id", [room, target, message], true)[0];
    return { id: Number(row.id), room, target, message };
  }

  /** Whether the target has taken this call, or a later one of the pair. */
  wasCalled(call: Call): boolean {
    const row = this.sql.run("select id from called where target = ? and room = ?", [call.target, call.room], false)[0];
    return row !== undefined && Number(row.id) >= call.id;
  }

  /** Written in the target's own turn. */
  markCalled(call: Call): void {
    this.sql.run("insert into called (target, room, id) values (?,?,?) on conflict (target, room) do update set id = excluded.id", [
      call.target,
      call.room,
      call.id,
    ], true);
  }

  removeCall(id: number): void {
    this.sql.run("delete from outbox where id = ?", [id], true);
  }

  /** A call that crashed its target stands aside, with the error's name, so that those behind it arrive. */
  parkCall(id: number, error: string): void {
    this.sql.run("update outbox set failed = ? where id = ?", [error, id], true);
  }

  /** The ids of all rooms of a kind that have a log. */
  roomsOf(kind: string): string[] {
    const rows = this.sql.run("select room from log_head where room > ? and room < ? order by room", [`${kind}/`, `${kind}0`], false);
    return rows.map(({ room }) => String(room).slice(kind.length + 1));
  }

  /** The row makes the task survive until what came of it has been taken. */
  addTask(room: string, task: string): Task {
    const row = this.sql.run("insert into work (room, task) values (?,?) returning id", [room, task], true)[0];
    return { id: Number(row.id), room, task };
  }

  isWaiting(task: Task): boolean {
    return this.sql.run("select id from work where id = ? and failed is null", [task.id], false).length > 0;
  }

  removeTask(id: number): void {
    this.sql.run("delete from work where id = ?", [id], true);
  }

  /** A task whose result crashed its room stands aside, with the error's name. */
  parkTask(id: number, error: string): void {
    this.sql.run("update work set failed = ? where id = ?", [error, id], true);
  }

  waitingTasks(): Task[] {
    const rows = this.sql.run("select id, room, task from work where failed is null order by id", [], false);
    return rows.map((row) => ({ id: Number(row.id), room: String(row.room), task: String(row.task) }));
  }

  waitingCalls(): Call[] {
    const rows = this.sql.run("select id, room, target, message from outbox where failed is null order by id", [], false);
    return rows.map((row) => ({ id: Number(row.id), room: String(row.room), target: String(row.target), message: String(row.message) }));
  }
}
