import { assertEquals } from "@std/assert";
import { parseQuery } from "../rooms/documents/query.ts";
import { translate } from "../rooms/documents/translation.ts";

const within = (table: string) => `(d.key in (select rowid from ${table} where ${table} match ?))`;
const table: Record<string, { match: string | null; sql: string; parameters: string[]; ranked: boolean }> = {
  "a b": { match: `(("a") AND ("b"))`, sql: "1", parameters: [], ranked: true },
  "a NOT b": { match: `((("a")) NOT (("b")))`, sql: "1", parameters: [], ranked: true },
  "a OR NOT b": { match: null, sql: `((${within("words")} or not ${within("words")}))`, parameters: [`(("a"))`, `("b")`], ranked: false },
  "NOT a": { match: null, sql: `(not ${within("words")})`, parameters: [`("a")`], ranked: false },
  "a tag:t": { match: `(("a"))`, sql: `(${within("labels")})`, parameters: [`(({tags} : "t"))`], ranked: true },
  "a NOT tag:t": { match: `(("a"))`, sql: `(not ${within("labels")})`, parameters: [`({tags} : "t")`], ranked: true },
  "a (b OR tag:t)": {
    match: `(("a"))`,
    sql: `((${within("words")} or ${within("labels")}))`,
    parameters: [`(("b"))`, `(({tags} : "t"))`],
    ranked: false,
  },
  "(a OR b) w/3 c": { match: `((NEAR( "a" "c", 2) OR NEAR( "b" "c", 2)))`, sql: "1", parameters: [], ranked: true },
  "subject:(a w/3 abc*)": { match: `(({subject} : NEAR( "a" "abc" *, 2)))`, sql: "1", parameters: [], ranked: true },
  "date:2024": { match: null, sql: "(ifnull(d.date between ? and ?, 0))", parameters: ["2024-01-01", "2024-12-31"], ranked: false },
  "契約": { match: `(("\u200b契\u200b\u200b約\u200b"))`, sql: "1", parameters: [], ranked: true },
};

Deno.test("translation: as much as can be is one FTS5 expression of quoted words; the rest are conditions", () => {
  for (const [text, expected] of Object.entries(table)) {
    const { match, condition, ranked } = translate(parseQuery(text));
    assertEquals({ match, ...condition, ranked }, expected, text);
  }
});

Deno.test("translation: what ranks is all that is looked for in words, and nothing under NOT", () => {
  assertEquals(translate(parseQuery("(a OR tag:t) NOT b (NOT date:2024 OR c)")).rank, `("a") OR ("c")`);
  assertEquals(translate(parseQuery("tag:t OR date:2024 NOT b")).rank, null);
});

Deno.test("translation: quotes of a query that came otherwise than by parsing are doubled", () => {
  assertEquals(translate({ kind: "phrase", field: null, text: `a" OR "b`, prefix: false }).match, `(("a"" OR ""b"))`);
});
