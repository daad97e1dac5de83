/**
 * The `sql` tag of rooms. All rooms share one database on the Deno host, so isolation is by construction: a statement is
 * checked once, when it is first seen, and must bind its own room in every table that it names.
 */
import type { SqlHost, SqlRow, SqlValue } from "./host.ts";

/** Tagged template: values are bound, never spliced. Returns the rows. */
export type Sql = (strings: TemplateStringsArray, ...values: (SqlValue | undefined)[]) => SqlRow[];

/** A statement that passed the check. */
export interface Statement {
  readonly text: string;
  readonly writes: boolean;
  /** Which values must be the room's name. */
  readonly rooms: readonly number[];
}

const ROOM_EQUALS = /\b(?:\w+\.)?room\s*=\s*$/i;
const TABLE = /\b(?:from|join|into|update)\s+([a-z_]\w*)/gi;

/** The statements of one kind of room; its tables begin with `prefix`. */
export class RoomSql {
  readonly #seen = new WeakMap<TemplateStringsArray, Statement>();

  constructor(private readonly host: SqlHost, private readonly prefix: string) {}

  /** Throws TypeError when the statement is not one that a room may run. */
  statement(strings: TemplateStringsArray): Statement {
    let statement = this.#seen.get(strings);
    if (!statement) {
      statement = checkStatement(strings, this.prefix);
      this.host.vet(statement.text);
      this.#seen.set(strings, statement);
    }
    return statement;
  }

  run(statement: Statement, room: string, values: readonly (SqlValue | undefined)[]): SqlRow[] {
    for (const index of statement.rooms) {
      if (values[index] !== room) throw new TypeError(`Cannot run a statement on another room: ${statement.text}`);
    }
    return this.host.run(statement.text, values.map((value) => value === undefined ? null : value), statement.writes);
  }
}

/**
 * Throws TypeError unless `${ctx.room}` follows `room =`, or is the first value of an insert whose first column is
 * `room`, once for every table named; the tables are the room's own, and it is one statement that reads or changes rows.
 */
export function checkStatement(strings: readonly string[], prefix: string): Statement {
  const text = strings.join("?").trim();
  const refuse = (why: string): never => {
    throw new TypeError(`Cannot allow this statement, ${why}: ${text}`);
  };
  const verb = /^(select|insert|update|delete|with)\b/i.exec(text)?.[1].toLowerCase();
  if (!verb) refuse("it neither reads nor changes rows");
  if (text.includes(";") || text.includes("--") || text.includes("/*")) refuse("it is more than one statement, or commented");
  const tables = [...text.matchAll(TABLE)].map((match) => match[1].toLowerCase());
  const named = [...text.matchAll(/\b([a-z_]\w*)\s+as\s*\(/gi)].map((match) => match[1].toLowerCase());
  for (const table of tables) {
    if (!table.startsWith(prefix) && !named.includes(table)) refuse(`${table} is not a table of this room`);
  }
  // A comma join would name tables that the pattern above does not see.
  if (/\bfrom\s+\w+(?:\s+(?:as\s+)?\w+)?\s*,/i.test(text)) refuse("tables are joined by `join`");
  const rooms: number[] = [];
  strings.slice(0, -1).forEach((before, index) => {
    if (ROOM_EQUALS.test(before)) rooms.push(index);
  });
  if (/^\s*insert\s+(?:or\s+\w+\s+)?into\s+\w+\s*\(\s*room\b[^)]*\)\s*values\s*\(\s*$/i.test(strings[0])) rooms.push(0);
  if (rooms.length < tables.filter((table) => !named.includes(table)).length) refuse("it must bind `room = ${ctx.room}` for every table");
  return { text, writes: verb !== "select", rooms };
}
