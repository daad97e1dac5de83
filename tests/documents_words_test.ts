import { DatabaseSync } from "node:sqlite";
import { assertEquals } from "@std/assert";
import { clean, spread, wordsOf } from "../rooms/documents/words.ts";

const texts = [
  "Two words",
  "o'brien@acme.com x_y-z 3.14 $5 A1b2",
  "Résumé Übergröße ÇA ñandú re\u0301sume\u0301 İstanbul",
  "ПРИВЕТ Ελλάδα שלום مرحبا 한국어 नमस्ते ไทย",
  "この契約書は秘密 ひらがな カタカナー 𠀋 abc契約def",
  "a\u200bb a\u00adb ﬁ ① Ⅳ ½ x²",
  "\ue000 \ufffd 😀 a😀b",
  "",
];
Deno.test("words: what is a word here is one for SQLite's tokenizer", () => {
  const db = new DatabaseSync(":memory:");
  db.exec("create virtual table t using fts5 (x, tokenize='unicode61 remove_diacritics 2'); create virtual table v using fts5vocab (t, 'instance')");
  for (const text of texts) {
    db.prepare("insert into t values (?)").run(spread(text));
    const theirs = db.prepare("select term from v order by offset").all().map(({ term }) => String(term));
    assertEquals(wordsOf(text).map(({ word }) => word), theirs, text);
    db.exec("delete from t");
  }
  db.close();
});

Deno.test("words: each stands where it was found", () => {
  const text = "A 契約b, é!";
  assertEquals(wordsOf(text).map(({ start, end }) => text.slice(start, end)), ["A", "契", "約", "b", "é"]);
});

Deno.test("words: clean text has neither NUL nor half a character, and as many units", () => {
  assertEquals([clean("a\0b\ud800c"), clean("😀")], ["a b\ufffdc", "😀"]);
});
