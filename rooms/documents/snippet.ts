/**
 * Where a text fits a query: short pieces of it, escaped, with `<mark>` around what fits. Made here and not by FTS5: its
 * snippet() takes the square of how often a word occurs, and its highlight() the square of the text's length.
 */
import type { Field, Near, Phrase, Query } from "./query.ts";
import { positives } from "./translation.ts";
import { type Word, wordsOf } from "./words.ts";

/** Units of one snippet, its tags and entities among them. */
const SNIPPET_UNITS = 300;
const SNIPPETS = 3;
/** What stands before the first mark, as escaped. */
const LEAD_UNITS = 80;
/** How near marks are to share a snippet. */
const SPAN_UNITS = 160;
/** Read at a time; the first piece with a mark is the one that is shown of. */
const PIECE_UNITS = 100_000;
/** Read for one search in all: some thousand mails, or one very long text. */
export const READ_UNITS = 4_000_000;
/** Looked at in a piece: as many as one word can occur in it, for what stands near it may be anywhere. */
const OCCURRENCES = PIECE_UNITS / 2;
/** Marks that snippets are chosen from. */
const MARKS = 500;

interface Pattern {
  readonly words: readonly string[];
  readonly prefix: boolean;
}
/** One leaf of the query: any of each side's. */
interface Leaf {
  readonly field: Field | null;
  readonly between: number;
  readonly sides: readonly (readonly Pattern[])[];
}
/** Indexes of the first word and behind the last. */
interface Occurrence {
  readonly first: number;
  readonly behind: number;
}
/** Units of the text. `of`: which leaf's. */
interface Mark {
  readonly start: number;
  readonly end: number;
  readonly of: number;
}

/** Makes the snippets of one search. */
export class Snippets {
  readonly #leaves: readonly Leaf[];
  #left = READ_UNITS;

  constructor(query: Query) {
    this.#leaves = positives(query).map(leafOf);
  }

  /** At most three of the first text that has any; of the others where the first has none. Each of at most 300 units, well-formed HTML. */
  of(texts: readonly { readonly text: string; readonly field: Field | null }[]): string[] {
    for (const { text, field } of texts) {
      const leaves = this.#leaves.filter((leaf) => leaf.field === null || leaf.field === field);
      if (leaves.length === 0) continue;
      for (let at = 0; at < text.length && this.#left > 0; at += PIECE_UNITS) {
        const piece = text.slice(at, at + PIECE_UNITS).toWellFormed();
        this.#left -= piece.length;
        const marks = marksIn(piece, leaves);
        if (marks.length > 0) return choose(marks).map((mark) => render(piece, marks, mark));
      }
    }
    return [];
  }
}

function leafOf(leaf: Phrase | Near): Leaf {
  const sides = (leaf.kind === "phrase" ? [[leaf]] : leaf.sides).map((side) =>
    side.map(({ text, prefix }): Pattern => ({ words: wordsOf(text).map(({ word }) => word), prefix }))
  );
  return { field: leaf.field, between: leaf.kind === "near" ? leaf.between : 0, sides };
}

/** In the order of the text; none begins within another. */
function marksIn(text: string, leaves: readonly Leaf[]): Mark[] {
  const words = wordsOf(text);
  const places = placesOf(words, leaves.flatMap(({ sides }) => sides.flat()));
  const marks = leaves.flatMap((leaf, of) =>
    occurrences(leaf, places).map(({ first, behind }): Mark => ({ start: words[first].start, end: words[behind - 1].end, of }))
  );
  let end = 0;
  return marks.toSorted((a, b) => a.start - b.start || b.end - a.end).filter((mark) => {
    const free = mark.start >= end;
    if (free) end = mark.end;
    return free;
  }).slice(0, MARKS);
}

/** Where each pattern occurs. */
function placesOf(words: readonly Word[], patterns: readonly Pattern[]): Map<Pattern, Occurrence[]> {
  const places = new Map<Pattern, Occurrence[]>(patterns.map((pattern) => [pattern, []]));
  const byFirst = new Map<string, Pattern[]>();
  const prefixes = patterns.filter(({ words, prefix }) => prefix && words.length === 1);
  for (const pattern of patterns) byFirst.set(pattern.words[0], [...byFirst.get(pattern.words[0]) ?? [], pattern]);
  let found = 0;
  for (let first = 0; first < words.length && found < OCCURRENCES; first++) {
    for (const pattern of [...byFirst.get(words[first].word) ?? [], ...prefixes]) {
      if (!fits(words, first, pattern)) continue;
      places.get(pattern)!.push({ first, behind: first + pattern.words.length });
      found++;
    }
  }
  return places;
}

function fits(words: readonly Word[], first: number, { words: wanted, prefix }: Pattern): boolean {
  return wanted.every((word, index) => {
    const there = words[first + index]?.word;
    return there === word || (prefix && index === wanted.length - 1 && there !== undefined && there.startsWith(word));
  });
}

/** Of a leaf with sides: only those that are near enough to one of every other side. */
function occurrences({ sides, between }: Leaf, places: Map<Pattern, Occurrence[]>): Occurrence[] {
  const of = sides.map((side) => side.flatMap((pattern) => places.get(pattern)!).toSorted((a, b) => a.first - b.first));
  const longest = Math.max(...sides.flat().map(({ words }) => words.length));
  return of.flatMap((side, index) => side.filter((one) => of.every((others, at) => at === index || hasNear(others, one, between, longest))));
}

function hasNear(others: readonly Occurrence[], { first, behind }: Occurrence, between: number, longest: number): boolean {
  let [low, high] = [0, others.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (others[middle].first < first - between - longest) low = middle + 1;
    else high = middle;
  }
  for (let at = low; at < others.length && others[at].first - behind <= between; at++) if (first - others[at].behind <= between) return true;
  return false;
}

/** The marks that snippets begin with: where most of the query is found in one place; in the order of the text. */
function choose(marks: readonly Mark[]): Mark[] {
  const scored = marks.map((mark, index) => {
    const near = new Set<number>();
    for (let at = index; at < marks.length && marks[at].end <= mark.start + SPAN_UNITS; at++) near.add(marks[at].of);
    return { mark, score: near.size };
  });
  const chosen: Mark[] = [];
  for (const { mark } of scored.toSorted((a, b) => b.score - a.score || a.mark.start - b.mark.start)) {
    if (chosen.length === SNIPPETS) break;
    if (chosen.every(({ start }) => Math.abs(start - mark.start) > SNIPPET_UNITS)) chosen.push(mark);
  }
  return chosen.toSorted((a, b) => a.start - b.start);
}

const ESCAPES: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
const escaped = (char: string) => ESCAPES[char] ?? char;
const isSpace = (char: string) => /\s/.test(char);

function render(text: string, marks: readonly Mark[], first: Mark): string {
  const start = leadOf(text, first.start);
  let next = marks.findIndex((mark) => mark.start >= start);
  let out = start > 0 ? "…" : "";
  let open = false;
  let breakAt = 0;
  for (let at = start; at < text.length;) {
    const char = String.fromCodePoint(text.codePointAt(at)!);
    const opens = marks[next]?.start === at;
    const shown = isSpace(char) ? (isSpace(out.at(-1) ?? " ") ? "" : " ") : escaped(char);
    const closing = open || opens ? "</mark>".length : 0;
    if (out.length + (opens ? "<mark>".length : 0) + shown.length + closing + 1 > SNIPPET_UNITS) {
      return (open ? `${out}</mark>` : out.slice(0, breakAt || out.length)) + "…";
    }
    if (opens) [open, out] = [true, `${out}<mark>`];
    else if (!open && shown === " ") breakAt = out.length;
    out += shown;
    at += char.length;
    if (open && at >= marks[next].end) [open, out, next, breakAt] = [false, `${out}</mark>`, next + 1, out.length + "</mark>".length];
  }
  return out.trimEnd();
}

/** Where a snippet begins: some words before its first mark. */
function leadOf(text: string, mark: number): number {
  let start = mark;
  for (let units = 0; start > 0; start--) {
    units += escaped(text[start - 1]).length;
    if (units > LEAD_UNITS) break;
  }
  if (start === 0) return 0;
  const space = text.slice(start, mark).search(/\s/);
  if (space >= 0) return start + space + 1;
  return /[\udc00-\udfff]/.test(text[start]) && start < mark ? start + 1 : start;
}
