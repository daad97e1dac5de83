/**
 * The `sql` tag of rooms. All rooms share one database on the Deno host, so isolation is by construction: a statement is
 * checked once, when it is first seen. It must bind its own room for every table that it names, where nothing can widen
 * the binding again; SQLite's own authorizer then refuses tables of others, whatever they were called.
 *
 * The check knows a small part of SQL and refuses the rest: no compound selects, no comma joins, no quoted names.
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

/** The statements of one kind of room; its tables begin with `prefix`. */
export class RoomSql {
  readonly #seen = new WeakMap<TemplateStringsArray, Statement>();

  constructor(private readonly host: SqlHost, private readonly prefix: string) {}

  /** Throws TypeError when the statement is not one that a room may run. */
  statement(strings: TemplateStringsArray): Statement {
    let statement = this.#seen.get(strings);
    if (!statement) {
      statement = checkStatement(strings, this.prefix);
      this.host.vet(statement.text, this.prefix);
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

/** A word in lower case, a number, a sign, a string in quotes; a placeholder is `?` and its number. In parentheses: a group. */
type Token = string | Token[];

const CLAUSE = new Set(["where", "group", "order", "limit", "having", "returning", "set", "values", "window"]);
const JOIN = new Set(["join", "left", "right", "full", "inner", "cross", "natural", "outer"]);
/** What may stand behind a bound room without changing what it means. */
const AFTER = new Set([undefined, "and", ...CLAUSE, ...JOIN]);
/** What would widen a binding that stands beside it, or take its `and` for its own. */
const WIDENS = new Set(["or", "between", "case"]);

/**
 * Throws TypeError unless it is one statement that reads or changes rows of the room's own tables, and binds
 * `room = ${ctx.room}` for each: in `where`, in the `on` of its own join, or as the first value of an insert.
 */
export function checkStatement(strings: readonly string[], prefix: string): Statement {
  const text = strings.join("?").trim();
  const refuse = (why: string): never => {
    throw new TypeError(`Cannot allow this statement, ${why}: ${text}`);
  };
  const verb = /^(select|insert|update|delete|with)\b/i.exec(text)?.[1].toLowerCase() ?? refuse("it neither reads nor changes rows");
  if (/;|--|\/\*/.test(text)) refuse("it is more than one statement, or commented");
  if (/["`[\]]/.test(text)) refuse("it has quoted names");
  const rooms: number[] = [];
  new Check(prefix, rooms, refuse).scope(parse(text, refuse), new Set());
  return { text, writes: verb !== "select", rooms };
}

function parse(text: string, refuse: (why: string) => never): Token[] {
  let placeholders = 0;
  const stack: Token[][] = [[]];
  for (const [token] of text.matchAll(/'(?:[^']|'')*'|\w+|\?|[<>!]=|<>|\|\||\S/g)) {
    if (token === "(") {
      const group: Token[] = [];
      stack.at(-1)!.push(group);
      stack.push(group);
    } else if (token === ")") {
      if (stack.length === 1) refuse("its parentheses do not match");
      stack.pop();
    } else stack.at(-1)!.push(token === "?" ? `?${placeholders++}` : token.toLowerCase());
  }
  if (stack.length > 1) refuse("its parentheses do not match");
  return stack[0];
}

interface Source {
  /** What its columns are qualified by. */
  readonly alias: string;
  /** False for subselects and names of a `with`: they bind inside. */
  readonly table: boolean;
  bound: boolean;
}

class Check {
  constructor(private readonly prefix: string, private readonly rooms: number[], private readonly refuse: (why: string) => never) {}

  /** One level of parentheses; `named` are the names of enclosing `with` clauses. */
  scope(tokens: Token[], named: ReadonlySet<string>): void {
    if (tokens[0] === "with") named = new Set([...named, ...this.#with(tokens)]);
    for (const token of tokens) if (Array.isArray(token)) this.scope(token, named);
    for (const word of ["union", "intersect", "except"]) if (tokens.includes(word)) this.refuse("it is a compound");
    const sources = this.#sources(tokens, named);
    this.#bindings(tokens, sources);
    for (const { table, bound } of sources) if (table && !bound) this.refuse("it must bind `room = ${ctx.room}` for every table");
  }

  /** `with name as (…), name as (…)`. */
  #with(tokens: Token[]): string[] {
    const names: string[] = [];
    for (let at = 1; tokens[at + 1] === "as" && Array.isArray(tokens[at + 2]); at += 4) {
      names.push(String(tokens[at]));
      if (tokens[at + 3] !== ",") break;
    }
    return names;
  }

  #sources(tokens: Token[], named: ReadonlySet<string>): Source[] {
    const sources: Source[] = [];
    let listing = false;
    tokens.forEach((token, at) => {
      if (token === "from") listing = true;
      else if (typeof token === "string" && CLAUSE.has(token)) listing = false;
      else if (token === "," && listing) this.refuse("tables are joined by `join`");
      // `on conflict … do update set` names no table.
      if (!(token === "from" || token === "join" || token === "into" || (token === "update" && tokens[at + 1] !== "set"))) return;
      if (token === "update" && tokens[at + 1] === "or") at += 2;
      const name = tokens[at + 1];
      // The members of a list that the statement was given: nobody's table.
      if (name === "json_each") return;
      if (Array.isArray(name) && name[0] !== "select") this.refuse("tables stand in parentheses");
      if (typeof name === "string" && !named.has(name) && !name.startsWith(this.prefix)) this.refuse(`${name} is not a table of this room`);
      const next = tokens[at + 2] === "as" ? tokens[at + 3] : tokens[at + 2];
      const isAlias = typeof next === "string" && /^[a-z_]\w*$/.test(next) && next !== "on" && !CLAUSE.has(next) && !JOIN.has(next);
      const alias = isAlias ? next : String(name);
      sources.push({ alias, table: typeof name === "string" && !named.has(name), bound: false });
    });
    return sources;
  }

  #bindings(tokens: Token[], sources: Source[]): void {
    let joined = -1;
    let clause: "where" | "on" | null = null;
    let start = 0;
    tokens.forEach((token, at) => {
      if (token === "from" || token === "join") joined++;
      if (token === "where" || (token === "on" && tokens[at + 1] !== "conflict")) [clause, start] = [token as "where" | "on", at];
      else if (typeof token === "string" && (CLAUSE.has(token) || JOIN.has(token))) clause = null;
      if (!clause || !(at === start || token === "and")) return;
      const qualified = tokens[at + 2] === ".";
      const [column, equals, value, after] = tokens.slice(qualified ? at + 3 : at + 1);
      if (column !== "room" || equals !== "=" || typeof value !== "string" || value[0] !== "?" || Array.isArray(after) || !AFTER.has(after)) return;
      this.#narrow(tokens, start);
      // An outer join's `on` leaves the rows of the other side alone: it binds its own table only.
      const candidates = clause === "on" ? [sources[joined]] : sources;
      const source = qualified ? candidates.find(({ alias }) => alias === tokens[at + 1]) : sources.length === 1 ? sources[0] : undefined;
      if (!source) return;
      source.bound = true;
      this.rooms.push(Number(value.slice(1)));
    });
    const values = tokens.indexOf("values");
    if (values < 0) return;
    // insert into t (room, …) values (${ctx.room}, …): one row.
    const [columns, row] = [tokens[values - 1], tokens[values + 1]];
    if (tokens[values + 2] === ",") this.refuse("it inserts more than one row");
    if (!Array.isArray(columns) || columns[0] !== "room" || !Array.isArray(row) || typeof row[0] !== "string" || row[0][0] !== "?") return;
    if (row[1] !== undefined && row[1] !== ",") return;
    sources[0].bound = true;
    this.rooms.push(Number(row[0].slice(1)));
  }

  /** Nothing in the clause that binds may widen it. */
  #narrow(tokens: Token[], start: number): void {
    for (let at = start + 1; at < tokens.length; at++) {
      const token = tokens[at];
      if (typeof token !== "string") continue;
      if (CLAUSE.has(token) || JOIN.has(token) || token === "on") return;
      if (WIDENS.has(token)) this.refuse(`\`${token}\` stands beside the bound room: put it in parentheses`);
    }
  }
}
