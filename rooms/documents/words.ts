/**
 * What a word is, the same for texts and for queries. SQLite's `unicode61 remove_diacritics 2` decides; here is what it is
 * handed, and its rules once more for the places where JavaScript must know them (how many words were typed, what to mark).
 * Where the two tables of Unicode differ, a mark is missing, never a match.
 */

/** Han and kana have no spaces between words: each is a word, so that any part of a run is found as a phrase. */
const HAN = "\\u3005-\\u3007\\u3041-\\u3096\\u309d-\\u309f\\u30a1-\\u30fa\\u30fc-\\u30ff\\u3400-\\u4dbf\\u4e00-\\u9fff\\uf900-\\ufaff\\uff66-\\uff9f" +
  "\\u{20000}-\\u{323af}";
/** Quickly said no by most texts: any of them, or a half of one. */
const PERHAPS_HAN = /[\u3005-\uffff]/;
const EACH_HAN = new RegExp(`[${HAN}]`, "gu");
// deno-lint-ignore no-control-regex -- most texts are ASCII, and quicker to read as such
const NOT_ASCII = /[^\u0000-\u007f]/;
const ASCII_WORD = /[A-Za-z0-9]+/g;
const LETTER = "\\p{L}\\p{N}\\p{Co}\\u0300-\\u036f";
const WORD = new RegExp(`[${LETTER}]+`, "gu");
const WORD_OR_HAN = new RegExp(`[${HAN}]|(?:(?![${HAN}])[${LETTER}])+`, "gu");
const FOREIGN = /[^A-Za-z0-9]/gu;

/** Text that SQLite stores and reads back whole: well-formed, without NUL, as many units as before. */
export function clean(text: string): string {
  return text.toWellFormed().replaceAll("\0", " ");
}

/** What the tokenizer is handed: clean text with a break on both sides of every character that is a word. */
export function spread(text: string): string {
  return PERHAPS_HAN.test(text) ? text.replace(EACH_HAN, "\u200b$&\u200b") : text;
}

/** One word of a text: folded, and where it stands, in UTF-16 units. */
export interface Word {
  readonly word: string;
  readonly start: number;
  readonly end: number;
}

export function wordsOf(text: string): Word[] {
  const words: Word[] = [];
  const pattern = !NOT_ASCII.test(text) ? ASCII_WORD : PERHAPS_HAN.test(text) ? WORD_OR_HAN : WORD;
  for (const { 0: found, index } of text.matchAll(pattern)) words.push({ word: fold(found), start: index, end: index + found.length });
  return words;
}

/** Accents go from Latin letters only, as there. */
function fold(word: string): string {
  return (NOT_ASCII.test(word) ? word.replace(FOREIGN, bare) : word).toLowerCase();
}

function bare(letter: string): string {
  if (letter >= "\u0300" && letter <= "\u036f") return "";
  const [base] = letter.normalize("NFD");
  return /^[A-Za-z]$/.test(base) ? base : letter;
}
