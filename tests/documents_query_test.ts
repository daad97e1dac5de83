import { assert, assertEquals, assertThrows } from "@std/assert";
import { Refusal } from "../protocol/reason.ts";
import { parseQuery, type Query } from "../rooms/documents/query.ts";

/** The tree as text: what binds to what. */
function shown(query: Query): string {
  switch (query.kind) {
    case "phrase":
      return `${query.field ? `${query.field}=` : ""}${query.text}${query.prefix ? "…" : ""}`;
    case "near":
      return `${query.field ? `${query.field}=` : ""}near${query.between}[${
        query.sides.map((side) => side.map(({ text, prefix }) => text + (prefix ? "…" : "")).join("|")).join(" ")
      }]`;
    case "days":
      return `${query.start ?? ""}..${query.end ?? ""}`;
    case "not":
      return `!${shown(query.part)}`;
    default:
      return `(${query.parts.map(shown).join(query.kind === "and" ? " & " : " | ")})`;
  }
}

const read: Record<string, string> = {
  merger: "merger",
  "merger agreement": "(merger & agreement)",
  "a AND b OR c d": "((a & b) | (c & d))",
  "a OR b AND NOT c": "(a | (b & !c))",
  "(a OR b) c": "((a | b) & c)",
  "a and b or not c": "(a & and & b & or & not & c)",
  "And OR Or": "(And | Or)",
  "NOT NOT a": "a",
  "NOT a": "!a",
  "NOT (a b)": "!(a & b)",
  '"breach of contract" AND from:smith': "(breach of contract & from=smith)",
  "“breach of contract”": "breach of contract",
  'a"b c"d': "(a & b c & d)",
  "o'brien@acme.com": "o'brien@acme.com",
  "http://acme.com": "http://acme.com",
  "re:merger": "re:merger",
  "contr*": "contr…",
  "o'brien*": "o'brien…",
  "a w/5 b": "near4[a b]",
  "a W/1 b c": "(near0[a b] & c)",
  "NOT a w/5 b": "!near4[a b]",
  '(a OR "b c") w/3 contr*': "near2[a|b c contr…]",
  "((a OR b) OR c) w/3 d": "near2[a|b|c d]",
  '"a b c"~10': "near11[a b c]",
  '"a"~10': "a",
  '"a b"~0': "near0[a b]",
  'subject:(merger OR "due diligence")': "(subject=merger | subject=due diligence)",
  "subject:(a w/5 b)": "subject=near4[a b]",
  "subject:a w/5 subject:b": "subject=near4[a b]",
  "From: smith": "from=smith",
  'tag:"hot doc" custodian:x type:pdf title:t filename:f to:b': "(tag=hot doc & custodian=x & type=pdf & title=t & filename=f & to=b)",
  "from:AND": "from=AND",
  "to:to:x": "to=to:x",
  "w/out": "w/out",
  "constructor __proto__:x": "(constructor & __proto__:x)",
  "date:2024-01-05": "2024-01-05..2024-01-05",
  "date:2024-02": "2024-02-01..2024-02-29",
  "date:2023": "2023-01-01..2023-12-31",
  "date:2024-01-01..2024-03-31": "2024-01-01..2024-03-31",
  "date:2023..2024-02": "2023-01-01..2024-02-29",
  "after:2024-02": "2024-03-01..",
  "after:2024-12-31": "2025-01-01..",
  "after:9999": "9999-12-32..",
  "before:2024-03-01": "..2024-02-29",
  "date:(2023 OR 2024-01)": "(2023-01-01..2023-12-31 | 2024-01-01..2024-01-31)",
  "契約 w/2 書": "near1[契約 書]",
};
Deno.test("query: what is read as what", () => {
  for (const [text, tree] of Object.entries(read)) assertEquals(shown(parseQuery(text)), tree, text);
});

const refused: Record<string, RegExp> = {
  "": /empty/,
  " \t\n": /empty/,
  "(": /ends where a word is missing/,
  "(a": /character 1: .*never closed/,
  "a)": /character 2: .*closes nothing/,
  "()": /missing before \)/,
  'a "b': /character 3: .*never closed/,
  '""': /no letter/,
  "a AND": /word is missing/,
  "AND a": /missing before AND/,
  "a OR OR b": /missing before OR/,
  "NOT": /word is missing/,
  "w/5 a": /missing before w\/5/,
  "a w/5": /word is missing/,
  "a w/0 b": /from 1 to 999/,
  "a w/1000 b": /from 1 to 999/,
  "a w/5 b w/5 c": /two sides/,
  "a w/5 (b c)": /each side/,
  "a w/5 (NOT b)": /each side/,
  "a w/5 (b w/2 c)": /each side/,
  "date:2024 w/5 b": /each side/,
  "subject:a w/5 b": /one field/,
  "subject:": /nothing to look for/,
  "subject: AND a": /nothing to look for/,
  "subject:(from:a)": /within the parentheses of subject/,
  "co*": /three letters/,
  "*": /no letter/,
  "*abc": /end of a word only/,
  "con*t": /end of a word only/,
  "abc**": /end of a word only/,
  "&": /no letter/,
  "😀": /no letter/,
  "\0": /empty/,
  "\ud800": /no letter/,
  "date:yesterday": /day of the calendar/,
  "date:2024-02-30": /day of the calendar/,
  "date:2024-13": /day of the calendar/,
  "date:2024..2023": /end before they begin/,
  "date:2024..": /day of the calendar/,
  "date:2022..2023..2024": /day of the calendar/,
  'date:"2024"~3': /takes no ~/,
  "after:2023..2024": /one date/,
  [`${"(".repeat(17)}a${")".repeat(17)}`]: /nested deeper than 16/,
  ["a ".repeat(65)]: /more than 64 words/,
  [`"${"a ".repeat(65)}"`]: /more than 64 words/,
  [`(${"a OR ".repeat(8)}a) w/5 (${"b OR ".repeat(7)}b)`]: /more than 64 ways/,
  ["a".repeat(1001)]: /longer than 1000/,
};
Deno.test("query: what cannot be read is refused, with what is wrong and where", () => {
  for (const [text, why] of Object.entries(refused)) {
    const { reason, detail } = assertThrows(() => parseQuery(text), Refusal, undefined, text);
    assertEquals(reason, "invalid_query");
    assert(why.test(detail.message!), `${text}: ${detail.message}`);
  }
});

Deno.test("query: at the limits it is read", () => {
  for (
    const text of [
      `${"(".repeat(16)}a${")".repeat(16)}`,
      "(a) ".repeat(30),
      "a ".repeat(64),
      "a".repeat(1000),
      `(${"a OR ".repeat(7)}a) w/5 (${"b OR ".repeat(7)}b)`,
      `${"NOT ".repeat(249)}a`,
    ]
  ) parseQuery(text);
});

Deno.test("query: a tree is plain data", () => {
  const query = parseQuery('subject:(a w/5 b) OR NOT date:2024 "c d"~3');
  assertEquals(JSON.parse(JSON.stringify(query)), query);
});
