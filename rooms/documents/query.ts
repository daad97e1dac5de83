/**
 * The query language of search: text to a tree, or a refusal that says what is wrong and where. Pure, so that a query is
 * checked before anything runs.
 *
 *     merger                     the word, in the text, title, subject, sender, recipients or file name; case and accents do not matter
 *     o'brien@acme.com           several words typed as one are a phrase
 *     "breach of contract"       a phrase
 *     contr*                     words that begin so; at least three letters or digits before the star
 *     a b   a AND b              both. AND, OR and NOT are upper case; `and` is a word
 *     a OR b   NOT a   ( … )     NOT binds tightest, then AND, then OR
 *     a w/5 b                    b is at most the fifth word after a, or a after b: w/1 are neighbours. Each side is a word, a phrase,
 *                                or an OR of these in parentheses
 *     "a b c"~10                 these words in any order, at most 10 others between the first and the last of them
 *     from: to: subject: title: filename: type: tag: custodian:     with a word, a phrase or a group: subject:(merger OR "due diligence")
 *     date:2024  date:2024-01  date:2024-01-05  date:2024-01-01..2024-03-31     both days included
 *     after:2024-01-31  before:2024-01                              the named day, month or year not included
 *
 * A word has a letter or a digit; anything without one is refused, for it would silently find nothing. Every Han or kana
 * character is a word, and counts as one for `w/` and for the limits. As with FTS5's NEAR, one word may stand for both
 * sides of `a w/5 a`.
 */
import { Refusal } from "../../protocol/reason.ts";
import { clean, wordsOf } from "./words.ts";

/** Fields of words. */
export type Field = "from" | "to" | "subject" | "title" | "filename" | "type" | "tag" | "custodian";

/** A word, or several in a row. `prefix`: the last is a word's beginning. */
export interface Phrase {
  readonly kind: "phrase";
  readonly field: Field | null;
  readonly text: string;
  readonly prefix: boolean;
}

/** One of each side's, with at most so many words between them. */
export interface Near {
  readonly kind: "near";
  readonly field: Field | null;
  readonly between: number;
  readonly sides: readonly (readonly Phrase[])[];
}

/** Inclusive days, YYYY-MM-DD. */
export interface Days {
  readonly kind: "days";
  readonly start: string | null;
  readonly end: string | null;
}

/** Plain data: it may go to another process as JSON. */
export type Query =
  | Phrase
  | Near
  | Days
  | { readonly kind: "and" | "or"; readonly parts: readonly Query[] }
  | { readonly kind: "not"; readonly part: Query };

const MAX_UNITS = 1000;
const MAX_WORDS = 64;
const MAX_DEPTH = 16;
/** In how many ways the sides of all `w/` of a query may be combined. */
const MAX_COMBINATIONS = 64;

const FIELD = /^(from|to|subject|title|filename|type|tag|custodian|date|before|after):/i;
const DATE_FIELDS = new Set(["date", "before", "after"]);
/** Quotes as typed, and as word processors make them. */
const QUOTES = /["\u201c\u201d\u201e]/;

type AnyField = Field | "date" | "before" | "after";
interface Token {
  readonly kind: "(" | ")" | "AND" | "OR" | "NOT" | "w/" | "word" | "phrase" | "field" | "end";
  readonly at: number;
  readonly text: string;
  /** Of `w/` and of a phrase with `~`. */
  readonly distance?: number;
}

/** Parses what a user typed. Throws Refusal `invalid_query` with what is wrong and where. At most 1,000 units, 64 words, nesting 16. */
export function parseQuery(text: string): Query {
  if (text.length > MAX_UNITS) throw new Refusal("invalid_query", { message: `the query is longer than ${MAX_UNITS} characters`, limit: MAX_UNITS });
  return new Parser(lex(clean(text))).whole();
}

function refuse(at: number, why: string): never {
  throw new Refusal("invalid_query", { message: `at character ${at + 1}: ${why}` });
}

function lex(text: string): Token[] {
  const tokens: Token[] = [];
  for (let at = 0; at < text.length;) {
    const char = text[at];
    if (/\s/.test(char)) at++;
    else if (char === "(" || char === ")") tokens.push({ kind: char, at: at++, text: char });
    else if (QUOTES.test(char)) {
      const length = text.slice(at + 1).search(QUOTES);
      if (length < 0) refuse(at, "this quote is never closed");
      const slop = /^~(\d{1,3})(?!\d)/.exec(text.slice(at + length + 2));
      tokens.push({ kind: "phrase", at, text: text.slice(at + 1, at + 1 + length), ...(slop && { distance: Number(slop[1]) }) });
      at += length + 2 + (slop?.[0].length ?? 0);
    } else {
      const run = /^[^\s()"\u201c\u201d\u201e]+/.exec(text.slice(at))![0];
      tokens.push(...tokensOf(run, at));
      at += run.length;
    }
  }
  tokens.push({ kind: "end", at: text.length, text: "" });
  return tokens;
}

function tokensOf(run: string, at: number): Token[] {
  if (run === "AND" || run === "OR" || run === "NOT") return [{ kind: run, at, text: run }];
  const near = /^w\/(\d+)$/i.exec(run);
  if (near) {
    const distance = Number(near[1]);
    if (distance < 1 || distance > 999) refuse(at, "w/ takes a number from 1 to 999");
    return [{ kind: "w/", at, text: run, distance }];
  }
  const field = FIELD.exec(run);
  if (!field) return [{ kind: "word", at, text: run }];
  const name: Token = { kind: "field", at, text: field[1].toLowerCase() };
  return field[0] === run ? [name] : [name, { kind: "word", at: at + field[0].length, text: run.slice(field[0].length) }];
}

class Parser {
  #next = 0;
  #depth = 0;
  #words = 0;
  #combinations = 0;

  constructor(private readonly tokens: readonly Token[]) {}

  whole(): Query {
    if (this.#at("end")) refuse(0, "the query is empty");
    const query = this.#or(null);
    if (!this.#at("end")) refuse(this.#token.at, "this parenthesis closes nothing");
    return query;
  }

  get #token(): Token {
    return this.tokens[this.#next];
  }

  #at(kind: Token["kind"]): boolean {
    return this.#token.kind === kind;
  }

  #or(field: AnyField | null): Query {
    const parts = [this.#and(field)];
    while (this.#at("OR")) {
      this.#next++;
      parts.push(this.#and(field));
    }
    return parts.length === 1 ? parts[0] : { kind: "or", parts };
  }

  #and(field: AnyField | null): Query {
    const parts = [this.#not(field)];
    while (!["OR", ")", "end"].includes(this.#token.kind)) {
      if (this.#at("AND")) this.#next++;
      parts.push(this.#not(field));
    }
    return parts.length === 1 ? parts[0] : { kind: "and", parts };
  }

  #not(field: AnyField | null): Query {
    let negated = false;
    for (; this.#at("NOT"); this.#next++) negated = !negated;
    const part = this.#near(field);
    return negated ? { kind: "not", part } : part;
  }

  #near(field: AnyField | null): Query {
    const left = this.#primary(field);
    const { kind, at, distance } = this.#token;
    if (kind !== "w/") return left;
    this.#next++;
    const right = this.#primary(field);
    if (this.#at("w/")) refuse(this.#token.at, "w/ joins two sides only: say `a w/5 b AND b w/5 c`");
    return this.#nearOf(at, distance! - 1, [left, right].map((side) => alternatives(side, at)));
  }

  #nearOf(at: number, between: number, sides: Phrase[][]): Near {
    this.#combinations += sides.reduce((product, side) => product * side.length, 1);
    if (this.#combinations > MAX_COMBINATIONS) refuse(at, `the sides of w/ can be combined in more than ${MAX_COMBINATIONS} ways`);
    const { field } = sides[0][0];
    if (sides.flat().some((phrase) => phrase.field !== field)) refuse(at, "both sides of w/ are of one field: say `subject:(a w/5 b)`");
    return { kind: "near", field, between, sides };
  }

  #primary(field: AnyField | null): Query {
    const token = this.#token;
    this.#next++;
    switch (token.kind) {
      case "(":
        return this.#group(token, field);
      case "word":
      case "phrase":
        return this.#leaf(token, field);
      case "field":
        if (field) refuse(token.at, `a field within the parentheses of ${field}:`);
        if (!["(", "word", "phrase"].includes(this.#token.kind)) refuse(token.at, `${token.text}: is followed by nothing to look for`);
        return this.#primary(token.text as AnyField);
      case "end":
        return refuse(token.at, "the query ends where a word is missing");
      default:
        return refuse(token.at, `a word is missing before ${token.text}`);
    }
  }

  #group(open: Token, field: AnyField | null): Query {
    if (++this.#depth > MAX_DEPTH) refuse(open.at, `parentheses are nested deeper than ${MAX_DEPTH}`);
    const query = this.#or(field);
    if (!this.#at(")")) refuse(open.at, "this parenthesis is never closed");
    this.#next++;
    this.#depth--;
    return query;
  }

  #leaf({ kind, at, text, distance }: Token, field: AnyField | null): Query {
    if (field !== null && DATE_FIELDS.has(field)) {
      this.#count(at, 1);
      return distance === undefined ? daysOf(field, text.trim(), at) : refuse(at, `${field}: takes no ~`);
    }
    const words = wordsOf(text);
    if (words.length === 0) refuse(at, "there is no letter and no digit to look for");
    this.#count(at, words.length);
    const of = { kind: "phrase", field: field as Field | null } as const;
    if (distance !== undefined) {
      const sides = words.map(({ start, end }): Phrase[] => [{ ...of, text: text.slice(start, end), prefix: false }]);
      return sides.length === 1 ? sides[0][0] : this.#nearOf(at, distance + sides.length - 2, sides);
    }
    const prefix = kind === "word" && text.endsWith("*");
    const whole = prefix ? text.slice(0, -1) : text;
    if (kind === "word" && whole.includes("*")) refuse(at, "a star stands at the end of a word only");
    if (prefix && !/[\p{L}\p{N}]{3}$/u.test(whole)) refuse(at, "at least three letters or digits stand before a star");
    return { ...of, text: whole, prefix };
  }

  #count(at: number, words: number): void {
    this.#words += words;
    if (this.#words > MAX_WORDS) refuse(at, `the query has more than ${MAX_WORDS} words`);
  }
}

/** What one side of `w/` may be. */
function alternatives(side: Query, at: number): Phrase[] {
  if (side.kind === "phrase") return [side];
  if (side.kind === "or") return side.parts.flatMap((part) => alternatives(part, at));
  return refuse(at, "each side of w/ is a word, a phrase, or an OR of these in parentheses");
}

function daysOf(field: string, text: string, at: number): Days {
  const [first, last = first, ...more] = text.split("..");
  const [from, to] = [spanOf(first), spanOf(last)];
  if (!from || !to || more.length > 0) return refuse(at, "a date is a day of the calendar, YYYY-MM-DD, or a month, YYYY-MM, or a year, YYYY");
  if (field === "date") return from.start <= to.end ? { kind: "days", start: from.start, end: to.end } : refuse(at, "these dates end before they begin");
  if (first !== text) return refuse(at, `${field}: takes one date`);
  return field === "after" ? { kind: "days", start: moved(from.end, 1), end: null } : { kind: "days", start: null, end: moved(from.start, -1) };
}

/** The first and last day of what is named. */
function spanOf(text: string): { start: string; end: string } | null {
  const [, year, month, day] = /^([1-9]\d{3})(?:-(\d\d)(?:-(\d\d))?)?$/.exec(text) ?? [];
  if (year === undefined) return null;
  const start = `${year}-${month ?? "01"}-${day ?? "01"}`;
  const at = new Date(`${start}T00:00:00Z`);
  // 30 February is another day when it is read back.
  if (Number.isNaN(at.getTime()) || at.toISOString().slice(0, 10) !== start) return null;
  if (day !== undefined) return { start, end: start };
  return { start, end: new Date(Date.UTC(Number(year), month === undefined ? 12 : Number(month), 0)).toISOString().slice(0, 10) };
}

function moved(day: string, days: number): string {
  const at = new Date(`${day}T00:00:00Z`);
  at.setUTCDate(at.getUTCDate() + days);
  // The day after the last that has four digits: later than any.
  return at.getUTCFullYear() > 9999 ? "9999-12-32" : at.toISOString().slice(0, 10);
}
