/** The sentences of a text that say the most of it: TextRank, the sentences being linked by the words that they share. */
import { prose, sentences } from "./prose.ts";
import { BOUNDS, cut } from "./results.ts";

/** So much is read, and so many sentences of it are compared. */
const READ = 60_000;
const SENTENCES = 200;
const CHOSEN = 5;
const LENGTH = 1000;
/** A text that is no longer is its own summary. */
const SHORT = 400;
/** With less of his own the author speaks through what he quotes or passes on. */
const NOTHING = 40;
const DAMPING = 0.85;
const ROUNDS = 30;
const COMMON = new Set(
  ("the a an and or but if of to in on at by for with from as is are was were be been being it its this that these those i you he she we they me him her us " +
    "them my your his our their not no so do does did have has had will would can could should may might there here what which who when where how all any " +
    "some just also than then more most very about into over out up down only").split(" "),
);

/** Extractive: sentences of the text in their order; at most 1,500 units. Empty when there is nothing to say. */
export function summarize(text: string): string {
  let written = prose(text, READ, "without quotes");
  if (written.length < NOTHING) written = prose(text, READ, "with quotes");
  const all = sentences(written, SENTENCES);
  const whole = all.join(" ");
  if (whole.length <= SHORT) return whole;
  const ranks = rank(all);
  const best = all.map((_, at) => at).toSorted((a, b) => ranks[b] - ranks[a] || a - b);
  const chosen: number[] = [];
  let length = 0;
  for (const at of best) {
    if (chosen.length === CHOSEN || (chosen.length > 0 && length + all[at].length > LENGTH)) break;
    chosen.push(at);
    length += all[at].length + 1;
  }
  return cut(chosen.toSorted((a, b) => a - b).map((at) => all[at]).join(" "), BOUNDS.summary);
}

const wordsOf = (sentence: string) => new Set((sentence.toLowerCase().match(/[\p{L}\p{N}]{2,40}/gu) ?? []).filter((word) => !COMMON.has(word)));

function rank(all: readonly string[]): number[] {
  const words = all.map(wordsOf);
  const links = words.map((own, from) => words.map((others, to) => from === to ? 0 : likeness(own, others)));
  const sums = links.map((row) => row.reduce((sum, link) => sum + link, 0));
  let ranks = all.map(() => 1);
  for (let round = 0; round < ROUNDS; round++) {
    ranks = ranks.map((_, to) =>
      1 - DAMPING + DAMPING * links[to].reduce((sum, link, from) => sums[from] > 0 ? sum + link / sums[from] * ranks[from] : sum, 0)
    );
  }
  // Who writes to somebody says first what it is about.
  return ranks.map((value, at) => value * (1 + 0.3 / (1 + at)));
}

function likeness(one: ReadonlySet<string>, other: ReadonlySet<string>): number {
  // A sentence of one or two words is like everything that has them.
  if (one.size < 3 || other.size < 3) return 0;
  const [few, many] = one.size < other.size ? [one, other] : [other, one];
  let shared = 0;
  for (const word of few) if (many.has(word)) shared++;
  return shared / (Math.log(one.size) + Math.log(other.size));
}
