/**
 * A query as the index runs it. Words are FTS5's matter, dates and labels (type, tags, custodian, which change) are SQL's. As
 * much of a query as can be is one FTS5 expression; the rest are conditions on `document d`. Every word is quoted for FTS5,
 * and bound, never spliced into SQL.
 */
import type { Field, Near, Phrase, Query } from "./query.ts";
import { spread } from "./words.ts";

/** Columns of the two FTS5 tables. */
const COLUMNS: Record<Field, { table: Table; column: string }> = {
  subject: { table: "words", column: "subject" },
  title: { table: "words", column: "title" },
  from: { table: "words", column: "sender" },
  to: { table: "words", column: "recipients" },
  filename: { table: "words", column: "filename" },
  type: { table: "labels", column: "type" },
  tag: { table: "labels", column: "tags" },
  custodian: { table: "labels", column: "custodian" },
};
type Table = "words" | "labels";

export interface Condition {
  readonly sql: string;
  readonly parameters: readonly string[];
}

export interface Translation {
  /** FTS5 expression on `words` that every match fits; null: there is none, every document must be looked at. */
  readonly match: string | null;
  /** What else a match fits. */
  readonly condition: Condition;
  /** FTS5 expression on `words` that ranks: whatever of the query can be found in them; null: nothing can. */
  readonly rank: string | null;
  /** Whether `match` ranks as well. */
  readonly ranked: boolean;
}

/** Never throws for what parseQuery returned. */
export function translate(query: Query): Translation {
  const { matches, rest } = split(query.kind === "and" ? query.parts : [query]);
  const conditions = rest.map(conditionOf);
  const positive = ranking(query).map(leafExpression);
  return {
    match: matches.words ?? null,
    condition: all([...conditions, ...(matches.labels === undefined ? [] : [within("labels", matches.labels)])]),
    rank: positive.length === 0 ? null : positive.join(" OR "),
    ranked: matches.words !== undefined && rest.every((part) => ranking(part).length === 0),
  };
}

function ranking(query: Query): (Phrase | Near)[] {
  return positives(query).filter((leaf) => tableOf(leaf) === "words");
}

/** The words and `w/` that a match may owe its place to: those under no NOT. */
export function positives(query: Query): (Phrase | Near)[] {
  if (query.kind === "phrase" || query.kind === "near") return [query];
  return query.kind === "and" || query.kind === "or" ? query.parts.flatMap(positives) : [];
}

/** Parts that must all hold: one expression per table, and what no expression can say. */
function split(parts: readonly Query[]): { matches: Partial<Record<Table, string>>; rest: Query[] } {
  const matches: Partial<Record<Table, string>> = {};
  const rest = new Set(parts);
  for (const table of ["words", "labels"] as const) {
    const found = parts.filter((part) => expression(part, table) !== null);
    if (found.length === 0) continue;
    const without = parts.filter((part) => part.kind === "not" && expression(part.part, table) !== null);
    matches[table] = expression({ kind: "and", parts: [...found, ...without] }, table)!;
    for (const part of [...found, ...without]) rest.delete(part);
  }
  return { matches, rest: [...rest] };
}

function conditionOf(query: Query): Condition {
  switch (query.kind) {
    case "days":
      return daysCondition(query);
    case "not": {
      const { sql, parameters } = conditionOf(query.part);
      return { sql: `not ${sql}`, parameters };
    }
    case "and": {
      const { matches, rest } = split(query.parts);
      return all([...rest.map(conditionOf), ...Object.entries(matches).map(([table, match]) => within(table as Table, match))]);
    }
    case "or": {
      const rest = new Set(query.parts);
      const found = (["words", "labels"] as const).flatMap((table) => {
        const parts = query.parts.filter((part) => expression(part, table) !== null);
        for (const part of parts) rest.delete(part);
        return parts.length === 0 ? [] : [within(table, expression({ kind: "or", parts }, table)!)];
      });
      return joined([...found, ...[...rest].map(conditionOf)], "or");
    }
    default:
      return within(tableOf(query), leafExpression(query));
  }
}

/** True or false, never null: a document without a date is not of these days, and NOT these days is true of it. */
export function daysCondition({ start, end }: { start?: string | null; end?: string | null }): Condition {
  return { sql: `ifnull(d.date between ? and ?, 0)`, parameters: [start ?? "", end ?? "9999-12-32"] };
}

/** Not correlated: SQLite lists what matches once, whatever it is compared with. */
function within(table: Table, match: string): Condition {
  return { sql: `(d.key in (select rowid from ${table} where ${table} match ?))`, parameters: [match] };
}

export function all(conditions: readonly Condition[]): Condition {
  return conditions.length === 0 ? { sql: "1", parameters: [] } : joined(conditions, "and");
}
function joined(conditions: readonly Condition[], by: "and" | "or"): Condition {
  return { sql: `(${conditions.map(({ sql }) => sql).join(` ${by} `)})`, parameters: conditions.flatMap(({ parameters }) => parameters) };
}

/** An FTS5 expression for the whole of it, or null where the table cannot say it. FTS5 knows NOT only as `this NOT that`. */
function expression(query: Query, table: Table): string | null {
  switch (query.kind) {
    case "phrase":
    case "near":
      return tableOf(query) === table ? leafExpression(query) : null;
    case "or":
      return group(query.parts.map((part) => expression(part, table)), "OR");
    case "and": {
      const without = query.parts.filter((part) => part.kind === "not");
      const those = group(query.parts.filter((part) => part.kind !== "not").map((part) => expression(part, table)), "AND");
      if (those === null || without.length === 0) return those;
      const these = group(without.map(({ part }) => expression(part, table)), "OR");
      return these === null ? null : `(${those} NOT ${these})`;
    }
    default:
      return null;
  }
}
function group(parts: readonly (string | null)[], by: "AND" | "OR"): string | null {
  return parts.length === 0 || parts.includes(null) ? null : `(${parts.join(` ${by} `)})`;
}

function tableOf({ field }: Phrase | Near): Table {
  return field === null ? "words" : COLUMNS[field].table;
}

function leafExpression(leaf: Phrase | Near): string {
  const filter = leaf.field === null ? "" : `{${COLUMNS[leaf.field].column}} : `;
  if (leaf.kind === "phrase") return `(${filter}${quoted(leaf)})`;
  let rows: string[] = [""];
  for (const side of leaf.sides) rows = rows.flatMap((row) => side.map((phrase) => `${row} ${quoted(phrase)}`));
  return `(${rows.map((row) => `${filter}NEAR(${row}, ${leaf.between})`).join(" OR ")})`;
}

function quoted({ text, prefix }: Phrase): string {
  return `"${spread(text).replaceAll('"', '""')}"${prefix ? " *" : ""}`;
}
