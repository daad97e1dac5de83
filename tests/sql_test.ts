import { assert, assertEquals, assertThrows } from "@std/assert";
import { DenoSql } from "../rooms/hosts/deno_sql.ts";
import { RoomSql } from "../rooms/sql.ts";
import { lab, someone, Stage } from "./support/stage.ts";

const strings = (text: TemplateStringsArray, ..._values: unknown[]) => text;
const [room, x, y] = ["lab/1", "x", "y"];

/** A database with rows of two rooms and a table that is not the rooms'; what `statement` of room lab/1 leaves of them. */
function attempt(statement: TemplateStringsArray, values: readonly (string | null)[] = [room, x, y]) {
  const host = new DenoSql(":memory:");
  for (
    const ddl of [
      "create table lab_item (room text not null, id text not null, body text, primary key (room, id)) strict",
      "create table lab_other (room text not null, id text not null, body text) strict",
      "create table log (room text not null, id text not null) strict",
      "insert into lab_item values ('lab/1', 'a', 'mine'), ('lab/2', 'a', 'secret')",
      "insert into lab_other values ('lab/1', 'a', 'mine'), ('lab/2', 'a', 'secret')",
      "insert into log values ('lab/2', 'secret')",
    ]
  ) host.run(ddl, [], true);
  const theirs = () => JSON.stringify(["lab_item", "lab_other", "log"].map((table) => host.run(`select * from "${table}" where room <> 'lab/1'`, [], false)));
  const before = theirs();
  const sql = new RoomSql(host, "lab_");
  let refused = false;
  let rows: unknown[] = [];
  try {
    rows = sql.run(sql.statement(statement), room, values.slice(0, statement.length - 1));
  } catch (error) {
    assert(error instanceof TypeError, String(error));
    refused = true;
  }
  const broken = theirs() !== before || JSON.stringify(rows).includes("secret");
  host.commit();
  host.close();
  return { refused, broken, rows };
}

/** Refused, by the check or by SQLite. */
function refuses(name: string, statements: Record<string, TemplateStringsArray>) {
  for (const [what, statement] of Object.entries(statements)) {
    Deno.test(`sql: ${name}: ${what} is refused`, () => {
      const { refused, broken } = attempt(statement);
      assertEquals({ refused, broken }, { refused: true, broken: false }, statement.join("?"));
    });
  }
}

refuses("a statement that does not bind its room", {
  "a select": strings`select * from lab_item`,
  "a select of a literal room": strings`select * from lab_item where room = 'lab/1'`,
  "an update": strings`update lab_item set body = ${x} where id = ${y}`,
  "a delete": strings`delete from lab_item`,
  "an insert whose room is not first": strings`insert into lab_item (id, room) values (${x}, ${room})`,
  "an insert without columns": strings`insert into lab_item values (${room}, ${x}, ${y})`,
  "an insert of a literal room": strings`insert into lab_item (room, id) values ('lab/2', ${x})`,
  "an insert of another table's rows": strings`insert into lab_item (room, id) select room, id from lab_other where room = ${room}`,
  "a bound value of another name": strings`select * from lab_item where other_room = ${room}`,
  "not equal": strings`select * from lab_item where room <> ${room}`,
  "not equal, the other way": strings`select * from lab_item where room != ${room}`,
  "greater or equal": strings`select * from lab_item where room >= ${room}`,
  "like": strings`select * from lab_item where room like ${room}`,
});

refuses("every table must bind it", {
  "a join": strings`select * from lab_item a join lab_other b on a.id = b.id where a.room = ${room}`,
  "a subselect": strings`select (select body from lab_other limit 1) from lab_item where room = ${room}`,
  "a subselect in exists": strings`select 1 as n from lab_item where room = ${room} and exists (select 1 from lab_other where body = ${x})`,
  "a union": strings`select body from lab_item where room = ${room} union select body from lab_other`,
  "a with clause": strings`with other as (select * from lab_other) select * from lab_item where room = ${room}`,
});

refuses("foreign tables", {
  "a core table": strings`select * from log where room = ${room}`,
  "a core table in a subselect": strings`select (select id from log limit 1) from lab_item where room = ${room}`,
  "the schema": strings`select * from sqlite_master where room = ${room}`,
  "a table of another schema name": strings`select * from main.log where room = ${room}`,
  "a pragma as a table": strings`select * from pragma_table_info('log') where room = ${room}`,
  "an insert": strings`insert into log (room, id) values (${room}, ${x})`,
  "an update": strings`update log set id = ${x} where room = ${room}`,
  "an update or ignore": strings`update or ignore log set id = ${x} where room = ${room}`,
  "a delete": strings`delete from log where room = ${room}`,
});

refuses("it is one statement that reads or changes rows", {
  "two statements": strings`select * from lab_item where room = ${room}; select * from log`,
  "a statement and a semicolon": strings`select * from lab_item where room = ${room};`,
  "a comment": strings`select * from lab_item where room = ${room} -- or not`,
  "a block comment": strings`select * from lab_item /* where */ where room = ${room}`,
  "a pragma": strings`pragma max_page_count = 1`,
  "begin": strings`begin`,
  "commit": strings`commit`,
  "rollback": strings`rollback`,
  "savepoint": strings`savepoint turn_0`,
  "release": strings`release turn_0`,
  "attach": strings`attach ':memory:' as lab_x`,
  "detach": strings`detach main`,
  "vacuum": strings`vacuum`,
  "create": strings`create table lab_new (room text)`,
  "drop": strings`drop table lab_item`,
  "alter": strings`alter table lab_item add column y text`,
  "explain": strings`explain select * from lab_item where room = ${room}`,
  "replace": strings`replace into lab_item (room, id) values (${room}, ${x})`,
  "nothing": strings``,
  "rubbish": strings`select from where room = ${room}`,
});

refuses("comma joins", {
  "two tables": strings`select * from lab_item, lab_other where lab_item.room = ${room} and lab_other.room = ${room}`,
  "a foreign one": strings`select * from lab_item, log where lab_item.room = ${room}`,
  "with aliases": strings`select * from lab_item as a, log as b where a.room = ${room}`,
  "without as": strings`select * from lab_item a, log b where a.room = ${room}`,
  "over lines": strings`select * from lab_item
    , log where lab_item.room = ${room}`,
  "after a join": strings`select l.id from lab_item a join lab_other b on b.room = ${room}, log l where a.room = ${room}`,
  "after a subselect": strings`select l.id from (select * from lab_item where room = ${room}) a, log l`,
  "in parentheses": strings`select log.id from (lab_item, log) where lab_item.room = ${room}`,
});

refuses("names that are hidden from the check", {
  "in double quotes": strings`select * from "log"`,
  "in brackets": strings`select * from [log]`,
  "in backticks": strings`select * from \`log\``,
  "in single quotes": strings`select * from 'log'`,
  "in parentheses": strings`select * from (log)`,
  "own table in quotes": strings`select * from "lab_other"`,
  "an insert": strings`insert into "log" (room, id) values (${room}, ${x})`,
  "an update": strings`update "lab_item" set body = ${x}`,
  "a delete": strings`delete from "lab_item"`,
  "a window that is called like a with clause": strings`select id from log window log as (order by id)`,
});

// The statement binds its room, and reaches others' rows all the same: refused, or harmless.
for (
  const [what, statement, values] of [
    ["or", strings`select body from lab_item where room = ${room} or 1 = 1`, [room]],
    ["not", strings`select body from lab_item where not room = ${room}`, [room]],
    ["one table bound twice, the other not", strings`select b.body from lab_item a join lab_other b on 1 where a.room = ${room} and a.room = ${room}`, [
      room,
      room,
    ]],
    ["a second row of an insert", strings`insert into lab_item (room, id) values (${room}, ${x}), ('lab/2', ${y})`, [room, x, y]],
    ["the room set by an update", strings`update lab_item set room = ${room}, id = ${x} where body = 'secret'`, [room, x]],
    ["the room given away by an update", strings`update lab_item set room = 'lab/2', id = 'given' where room = ${room}`, [room]],
    ["the room given away by an upsert", strings`insert into lab_item (room, id) values (${room}, ${x}) on conflict (room, id) do update set room = 'lab/2'`, [
      room,
      "a",
    ]],
    ["another room in the result columns", strings`select body, room = ${room} as mine from lab_item`, [room]],
  ] as const
) {
  Deno.test(`sql: isolation by construction: ${what}`, () => {
    const { broken } = attempt(statement, values);
    assertEquals(broken, false, statement.join("?"));
  });
}

const accepted: Record<string, { statement: TemplateStringsArray; values: (string | null)[]; rows?: unknown[] }> = {
  "a select": { statement: strings`select id, body from lab_item where room = ${room} and id = ${x}`, values: [room, "a"], rows: [{ id: "a", body: "mine" }] },
  "an alias": { statement: strings`select i.id from lab_item as i where i.room = ${room}`, values: [room], rows: [{ id: "a" }] },
  "capitals": { statement: strings`SELECT id FROM lab_item WHERE room = ${room}`, values: [room], rows: [{ id: "a" }] },
  "a join that binds both": {
    statement: strings`select b.body from lab_item a join lab_other b on b.id = a.id and b.room = ${room} where a.room = ${room} order by a.id, b.id`,
    values: [room, room],
    rows: [{ body: "mine" }],
  },
  "a subselect that binds both": {
    statement: strings`select (select count(*) from lab_other where room = ${room}) as n from lab_item where room = ${room}`,
    values: [room, room],
    rows: [{ n: 1 }],
  },
  "a with clause": {
    statement: strings`with mine as (select * from lab_item where room = ${room}) select id from mine`,
    values: [room],
    rows: [{ id: "a" }],
  },
  "an insert": { statement: strings`insert into lab_item (room, id, body) values (${room}, ${x}, ${y})`, values: [room, x, y], rows: [] },
  "an insert or ignore": { statement: strings`insert or ignore into lab_item (room, id) values (${room}, ${x})`, values: [room, "a"], rows: [] },
  "returning": { statement: strings`insert into lab_item (room, id) values (${room}, ${x}) returning id`, values: [room, x], rows: [{ id: "x" }] },
  "an upsert": {
    statement:
      strings`insert into lab_item (room, id, body) values (${room}, ${x}, ${y}) on conflict (room, id) do update set body = excluded.body returning body`,
    values: [room, "a", y],
    rows: [{ body: "y" }],
  },
  "an update": { statement: strings`update lab_item set body = ${y} where room = ${room} returning body`, values: [y, room], rows: [{ body: "y" }] },
  "a delete": { statement: strings`delete from lab_item where room = ${room} and id = ${x} returning id`, values: [room, "a"], rows: [{ id: "a" }] },
  "null for undefined": {
    statement: strings`insert into lab_item (room, id, body) values (${room}, ${x}, ${y}) returning body`,
    values: [room, x, undefined as never],
    rows: [{ body: null }],
  },
};
for (const [what, { statement, values, rows }] of Object.entries(accepted)) {
  Deno.test(`sql: ${what} is accepted`, () => {
    const { refused, broken, rows: found } = attempt(statement, values);
    assertEquals({ refused, broken, rows: found.map((row) => ({ ...row as object })) }, { refused: false, broken: false, rows: rows ?? [] });
  });
}

Deno.test("sql: the room that is bound must be one's own, in every place", () => {
  for (
    const [statement, values] of [
      [strings`select * from lab_item where room = ${room}`, ["lab/2"]],
      [strings`insert into lab_item (room, id) values (${room}, ${x})`, ["lab/2", "x"]],
      [strings`select * from lab_item a join lab_other b on b.room = ${room} where a.room = ${room}`, ["lab/1", "lab/2"]],
      [strings`select * from lab_item where room = ${room}`, [null]],
    ] as const
  ) assertEquals(attempt(statement, values).refused, true);
});

Deno.test("sql: a statement is checked and compiled once, whatever its values", () => {
  const host = new DenoSql(":memory:");
  host.run("create table lab_item (room text not null, id text not null) strict", [], true);
  let vetted = 0;
  const counting = { run: host.run.bind(host), vet: (text: string, prefix: string) => (vetted++, host.vet(text, prefix)) } as unknown as DenoSql;
  const sql = new RoomSql(counting, "lab_");
  const insert = strings`insert into lab_item (room, id) values (${room}, ${x})`;
  for (let n = 0; n < 5; n++) sql.run(sql.statement(insert), room, [room, `${n}`]);
  assertEquals([vetted, host.run("select count(*) as n from lab_item", [], false)[0].n], [1, 5]);
  host.close();
});

Deno.test("sql: values are bound and never spliced", () => {
  const evil = "x'); delete from lab_item; --";
  const stage = new Stage([lab({ on: { do: (ctx, { id }) => void ctx.sql`insert into lab_item (room, id, body) values (${ctx.room}, ${String(id)}, '')` } })]);
  const client = stage.client(someone("a"));
  client.join("lab:1");
  client.send([null, "1", "lab:1", "do", { id: evil }]);
  assertEquals(stage.host.sql.run("select id from lab_item", [], false).map(({ id }) => id), [evil]);
  stage.close();
});

// What a wrong statement or value costs.

const costs: Record<string, (sql: (text: TemplateStringsArray, ...values: never[]) => unknown, room: string) => unknown> = {
  "a row that is there already": (sql, room) => sql`insert into lab_item (room, id, body) values (${room as never}, 'there', '')`,
  "a null where none may be": (sql, room) => sql`insert into lab_item (room, id, body) values (${room as never}, null, '')`,
  "a value of the wrong type": (sql, room) => sql`insert into lab_item (room, id, body) values (${room as never}, 'b', ${new Uint8Array(1) as never})`,
  "a value that cannot be bound": (sql, room) => sql`insert into lab_item (room, id, body) values (${room as never}, 'b', ${{} as never})`,
  "a boolean, which SQLite has not": (sql, room) => sql`insert into lab_item (room, id, body) values (${room as never}, 'b', ${true as never})`,
  "text that is no JSON in a JSON function": (sql, room) => sql`update lab_item set body = json_extract(${"{" as never}, '$.a') where room = ${room as never}`,
  "a pattern that is too long": (sql, room) => sql`delete from lab_item where room = ${room as never} and body like ${"%".repeat(60_000) as never}`,
  "an integer that overflows": (sql, room) => sql`update lab_item set body = abs(${-9223372036854775808n as never}) where room = ${room as never}`,
  "a statement that SQLite cannot compile": (sql, room) => sql`select nope from lab_item where room = ${room as never}`,
  "a statement of another room": (sql) => sql`select * from lab_item where room = ${"lab/2" as never}`,
};
for (const [what, act] of Object.entries(costs)) {
  Deno.test(`sql: ${what} costs its turn, not the tick`, () => {
    const stage = new Stage([lab({
      on: {
        do(ctx) {
          ctx.sql`insert into lab_item (room, id, body) values (${ctx.room}, 'undone', '')`;
          act((text, ...values) => ctx.sql(text, ...values), ctx.room);
        },
        also: (ctx, { id }) => void ctx.sql`insert into lab_item (room, id, body) values (${ctx.room}, ${String(id)}, '')`,
      },
    })]);
    const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
    a.join("lab:1");
    b.join("lab:1");
    b.send([null, "0", "lab:1", "also", { id: "there" }]);
    b.queue([null, "1", "lab:1", "also", { id: "before" }]);
    a.queue([null, "2", "lab:1", "do", {}]);
    b.queue([null, "3", "lab:1", "also", { id: "after" }]);
    stage.run();
    assertEquals(b.take().map((frame) => frame[4].status), ["ok", "ok"]);
    assertEquals(stage.host.sql.run("select id from lab_item order by id", [], false).map(({ id }) => id), ["after", "before", "there"]);
    assertEquals(a.take().at(-1)[3], "phx_error");
    stage.close();
  });
}

Deno.test("sql: a constraint error that the handler catches costs nothing but its statement", () => {
  const stage = new Stage([lab({
    on: {
      do(ctx) {
        const put = (id: string) => ctx.sql`insert into lab_item (room, id, body) values (${ctx.room}, ${id}, '')`;
        put("x");
        assertThrows(() => put("x"));
        put("y");
      },
    },
  })]);
  const a = stage.client();
  a.join("lab:1");
  assertEquals(a.send([null, "1", "lab:1", "do", {}])[0][4].status, "ok");
  assertEquals(stage.host.sql.run("select id from lab_item order by id", [], false).map(({ id }) => id), ["x", "y"]);
  stage.close();
});
