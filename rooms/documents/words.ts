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
const WORD = new RegExp(`[${HAN}]|(?:(?![${HAN}])[\\p{L}\\p{N}\\p{Co}\\u0300-\\u036f])+`, "gu");
const DIACRITICS = /[\u0300-\u036f]/g;
// deno-lint-ignore no-control-regex -- what is not of these letters needs folding
const NOT_ASCII = /[^\u0000-\u007f]/;

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
  for (const { 0: found, index } of text.matchAll(WORD)) words.push({ word: fold(found), start: index, end: index + found.length });
  return words;
}

function fold(word: string): string {
  return (NOT_ASCII.test(word) ? word.normalize("NFD").replace(DIACRITICS, "") : word).toLowerCase();
}
