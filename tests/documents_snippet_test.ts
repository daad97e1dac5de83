import { assert, assertEquals } from "@std/assert";
import { parseQuery } from "../rooms/documents/query.ts";
import { Snippets } from "../rooms/documents/snippet.ts";
import { random } from "./support/random.ts";

const of = (query: string, text: string) => new Snippets(parseQuery(query)).of([{ text, field: null }]);

const marked: [query: string, text: string, snippets: string[]][] = [
  ["merger", "The Merger of A and B", ["The <mark>Merger</mark> of A and B"]],
  ["acme", "no such word", []],
  ["smith", "<b>smith & \"sons\"</b> 'x'", ["&lt;b&gt;<mark>smith</mark> &amp; &quot;sons&quot;&lt;/b&gt; &#39;x&#39;"]],
  ["script", "<script>alert(1)</script>", ["&lt;<mark>script</mark>&gt;alert(1)&lt;/<mark>script</mark>&gt;"]],
  ["mark", "<mark>\ue000\ue001\ufdd0</mark>", ["&lt;<mark>mark</mark>&gt;\ue000\ue001\ufdd0&lt;/<mark>mark</mark>&gt;"]],
  ['"breach of contract"', "a contract, breach  of\ncontract of", ["a contract, <mark>breach of contract</mark> of"]],
  ["o'brien@acme.com", "from O’Brien@Acme.com: x", ["from <mark>O’Brien@Acme.com</mark>: x"]],
  ["resume", "his Résumé and re\u0301sume\u0301", ["his <mark>Résumé</mark> and <mark>re\u0301sume\u0301</mark>"]],
  ["contr*", "contract contrary con", ["<mark>contract</mark> <mark>contrary</mark> con"]],
  ["契約", "この契約書は", ["この<mark>契約</mark>書は"]],
  // The second a is too far away from any b.
  ["a w/2 b", "a x b x x x x a", ["<mark>a</mark> x <mark>b</mark> x x x x a"]],
  ["a NOT b", "a or b", ["<mark>a</mark> or b"]],
  ["subject:a", "a", []],
  ["a OR abc*", "a abc", ["<mark>a</mark> <mark>abc</mark>"]],
];
Deno.test("snippet: what fits is marked, and everything is escaped", () => {
  for (const [query, text, snippets] of marked) assertEquals(of(query, text), snippets, `${query} in ${text}`);
});

Deno.test("snippet: of another field only where the text has none, and only of that field", () => {
  const texts = [{ text: "about b", field: null }, { text: "a subject", field: "subject" as const }, { text: "a name", field: "filename" as const }];
  const first = (query: string) => new Snippets(parseQuery(query)).of(texts);
  assertEquals(first("b"), ["about <mark>b</mark>"]);
  assertEquals(first("a"), ["<mark>a</mark> subject"]);
  assertEquals(first("filename:a"), ["<mark>a</mark> name"]);
  assertEquals(first("tag:a"), []);
});

Deno.test("snippet: at most three, where most of the query is in one place", () => {
  const filler = " lorem".repeat(100);
  const text = `alpha${filler} alpha${filler} beta${filler} alpha beta${filler} beta${filler}`;
  const snippets = of("alpha beta", text);
  assertEquals(snippets.length, 3);
  assert(snippets.some((snippet) => snippet.includes("<mark>alpha</mark> <mark>beta</mark>")), snippets.join("\n"));
  assert(snippets[1].startsWith("…") && snippets[1].endsWith("…"));
});

Deno.test("snippet: a match far behind in a long text is found", () => {
  const [snippet] = of("zanzibar", `${"lorem ipsum ".repeat(100_000)}zanzibar end`);
  assert(snippet.endsWith("<mark>zanzibar</mark> end"), snippet);
});

Deno.test("snippet: the rare word near a common one is found among thousands of these", () => {
  const [snippet, ...more] = of("the w/2 zanzibar", `${"the other ".repeat(5000)}the zanzibar end`);
  assert(
    snippet.endsWith("<mark>the</mark> other <mark>the</mark> <mark>zanzibar</mark> end") ||
      snippet.endsWith("other <mark>the</mark> <mark>zanzibar</mark> end"),
    snippet,
  );
  assertEquals(more, []);
});

Deno.test("snippet: whatever the text, at most 300 units of well-formed HTML with nothing but marks in it", () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  const below = random(seed);
  const parts = [
    "a",
    "b",
    "ab",
    " ",
    "\n",
    "<",
    ">",
    "&",
    '"',
    "'",
    "<mark>",
    "</mark>",
    "😀",
    "é",
    "契",
    "\ud83d",
    "\udc00",
    "\0",
    "\u200b",
    "\ue000",
    "xxxxxxxxx",
    "&amp;",
  ];
  const query = parseQuery('a OR "b a" OR 契 OR xxxxxx* OR "a b"~3');
  for (let round = 0; round < 3000; round++) {
    const text = Array.from({ length: below(400) }, () => parts[below(parts.length)].repeat(below(20) === 0 ? 40 : 1)).join("");
    for (const snippet of new Snippets(query).of([{ text, field: null }])) {
      const why = `seed ${seed}, round ${round}: ${JSON.stringify(snippet)}`;
      assert(snippet.length <= 300 && snippet.isWellFormed(), why);
      // Marks are not nested and not empty, all else is text.
      assert(/^(?:[^<>&"']|&(?:amp|lt|gt|quot|#39);|<mark>(?:[^<>&"']|&(?:amp|lt|gt|quot|#39);)+<\/mark>)*$/.test(snippet), why);
      assert(snippet.includes("<mark>"), why);
    }
  }
});
