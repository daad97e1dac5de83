import { DatabaseSync } from "node:sqlite";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { Refusal } from "../protocol/reason.ts";
import type { Indexed } from "../rooms/documents/indexed.ts";
import { parseQuery } from "../rooms/documents/query.ts";
import { SearchIndex } from "../rooms/documents/search_index.ts";
import { random } from "./support/random.ts";

const document = (id: string, text: string, more: Partial<Indexed> = {}): Indexed => ({
  id,
  text,
  title: "",
  subject: "",
  from: "",
  to: "",
  type: "email",
  date: null,
  tags: [],
  custodian: "",
  filename: "",
  ...more,
});

const SAMPLE = [
  document("breach", "A breach of contract, said O'Brien <o'brien@acme.com>.", {
    subject: "Merger & due diligence",
    from: "Jane Smith <smith@acme.com>",
    to: "bob@x.org, carol@y.org",
    date: "2024-01-05",
    tags: ["hot", "privileged"],
    custodian: "Jane Smith",
    filename: "breach.eml",
  }),
  document("resume", "Résumé: the contract has no breach. One two three four five six.", {
    type: "pdf",
    title: "Smith's CV",
    date: "2024-03-31",
    tags: ["inbox"],
  }),
  document("han", "この契約書は秘密です。𠀋 Übergröße", { date: "2023-12-31", type: "word" }),
  document("markup", "<script>alert('merger')</script> \ue000\ufdd0 private", { tags: ["hot"] }),
];

function filled(documents: readonly Indexed[] = SAMPLE): SearchIndex {
  const index = SearchIndex.open(":memory:", {});
  index.put(documents);
  return index;
}
const found = (index: SearchIndex, text: string, options: Partial<Parameters<SearchIndex["search"]>[1]> = {}) =>
  index.search(parseQuery(text), { all: true, limit: 100, candidates: 100, ...options });
const ids = (...of: Parameters<typeof found>) => found(...of).results.map(({ id }) => id).toSorted().join(" ");

const matches: Record<string, string> = {
  breach: "breach resume",
  "breach NOT hot": "breach resume",
  '"breach of contract"': "breach",
  '"contract of breach"': "",
  "breach contract NOT resume": "breach",
  "resume OR ubergroße": "han resume",
  "o'brien@acme.com": "breach",
  "O’BRIEN": "breach",
  "brien@acme.org": "",
  "contr*": "breach resume",
  "merger AND (private OR diligence)": "breach markup",
  "one w/5 six": "resume",
  "six w/5 one": "resume",
  "one w/4 six": "",
  "one w/1 two": "resume",
  '(nothing OR "one two") w/2 (four OR absent)': "resume",
  '(nothing OR "one two") w/1 (four OR absent)': "",
  "thr* w/2 fiv*": "resume",
  '"one six"~4': "resume",
  '"one six"~3': "",
  '"six three one"~3': "resume",
  '"six three one"~2': "",
  "smith": "breach resume",
  "from:smith": "breach",
  "title:smith": "resume",
  "to:carol": "breach",
  "to:smith": "",
  'subject:(sale OR "due diligence")': "breach",
  "subject:(merger w/3 diligence)": "breach",
  "subject:merger NOT from:smith": "",
  "filename:breach.eml": "breach",
  "type:pdf": "resume",
  "type:(pdf OR word)": "han resume",
  "tag:hot": "breach markup",
  'tag:"hot privileged"': "",
  "tag:(hot w/5 privileged)": "breach",
  'custodian:"jane smith"': "breach",
  "hot": "",
  "NOT tag:hot": "han resume",
  "NOT breach": "han markup",
  "NOT (NOT breach)": "breach resume",
  "NOT breach NOT tag:hot": "han",
  "breach tag:hot": "breach",
  "breach OR tag:hot": "breach markup resume",
  "merger (tag:privileged OR script)": "breach markup",
  "NOT (breach OR tag:hot)": "han",
  "(breach tag:hot) OR (private NOT tag:inbox)": "breach markup",
  "date:2024": "breach resume",
  "date:2024-01": "breach",
  "date:2023-12-31": "han",
  "date:2023-12-31..2024-01-05": "breach han",
  "after:2024-01-05": "resume",
  "before:2024-01-05": "han",
  "NOT date:2024": "han markup",
  "breach after:2024-01": "resume",
  "breach OR date:2023": "breach han resume",
  契約: "han",
  契約書: "han",
  書契: "",
  "契約 w/3 秘密": "han",
  "契約書*": "han",
  𠀋: "han",
  constructor: "",
};
Deno.test("search index: what a query finds", () => {
  const index = filled();
  for (const [text, expected] of Object.entries(matches)) assertEquals(ids(index, text), expected, text);
  index.close();
});

Deno.test("search index: the better match comes first; snippets are marked, escaped, and of what was searched", () => {
  const index = filled([
    document("once", `merger ${"filler ".repeat(50)}`),
    document("thrice", "merger merger merger"),
    document("title", "x", { title: "merger" }),
  ]);
  const { results } = found(index, "merger");
  assertEquals(results.map(({ id }) => id).at(-1), "once");
  assert(results[0].score > results[1].score && results[1].score > results[2].score);
  assertEquals(results.find(({ id }) => id === "title")!.snippets, ["<mark>merger</mark>"]);
  index.put([SAMPLE[3]]);
  assertEquals(found(index, "script").results[0].snippets, [
    "&lt;<mark>script</mark>&gt;alert(&#39;merger&#39;)&lt;/<mark>script</mark>&gt; \ue000\ufdd0 private",
  ]);
  index.close();
});

Deno.test("search index: words rank also where labels stand between them", () => {
  const index = filled([
    document("much", "alpha alpha alpha", { tags: ["t"] }),
    document("some", `alpha ${"filler ".repeat(50)}`),
    document("none", "beta", { tags: ["t"] }),
  ]);
  const { results } = found(index, "alpha OR tag:t");
  assertEquals(results.map(({ id }) => id), ["much", "some", "none"]);
  assertEquals(results[2].score, 0);
  index.close();
});

Deno.test("search index: bounds of dates are inclusive days; no date is in none [S09]", () => {
  const index = filled();
  const within = (start?: string, end?: string) => ids(index, "breach OR merger OR 契約", { dates: { start, end } });
  assertEquals(within("2024-01-05", "2024-03-31"), "breach resume");
  assertEquals(within("2024-01-06", "2024-03-30"), "");
  assertEquals(within("2024-01-06"), "resume");
  assertEquals(within(undefined, "2023-12-31"), "han");
  assertEquals(within(), "breach han markup resume");
  index.put([document("bad", "breach", { date: "soon" })]);
  assertEquals(within("0000-01-01"), "breach han resume");
  index.close();
});

Deno.test("search index: without all, what is not marked visible is neither found nor counted [S13]", () => {
  const index = filled();
  const open = (text: string) => found(index, text, { all: false });
  for (const text of ["breach", "NOT nothing", "tag:hot", "date:2024", "breach OR tag:hot"]) assertEquals(open(text).total, 0, text);
  index.mark([{ id: "resume", revision: 1, visible: true }, { id: "not there yet", revision: 1, visible: true }]);
  assertEquals([ids(index, "breach OR tag:hot", { all: false }), open("breach").total, open("NOT nothing").total], ["resume", 1, 1]);
  index.put([document("not there yet", "breach")]);
  assertEquals([ids(index, "breach", { all: false }), found(index, "a").documents], ["not there yet resume", 5]);
  index.mark([{ id: "resume", revision: 2, visible: false }]);
  index.put([SAMPLE[1]]);
  assertEquals([ids(index, "breach", { all: false }), found(index, "a").documents], ["not there yet", 5]);
  index.close();
});

Deno.test("search index: what came or changed since an earlier search is found alone, also what may be seen only since", () => {
  const index = filled();
  const { change } = found(index, "breach");
  assertEquals([ids(index, "breach", { after: change }), ids(index, "NOT nothing", { after: change })], ["", ""]);
  index.put([document("later", "breach")]);
  const next = found(index, "breach", { after: change });
  assertEquals([next.results.map(({ id }) => id), next.total], [["later"], 1]);
  index.mark([{ id: "resume", revision: 1, visible: true }]);
  assertEquals([ids(index, "breach", { after: next.change, all: false }), ids(index, "NOT nothing", { after: next.change, all: false })], ["resume", "resume"]);
  index.close();
});

Deno.test("search index: marks may come in any order and before the text", () => {
  const changes = [
    { id: "d", revision: 1, visible: false, tags: ["one"], custodian: "first" },
    { id: "d", revision: 2, visible: true, tags: ["two"], custodian: "second" },
    { id: "d", coding: 4, coded: ["early"] },
    { id: "d", coding: 5, coded: ["late"] },
  ];
  const orders = [[0, 1, 2, 3], [3, 2, 1, 0], [1, 3, 0, 2], [2, 1, 3, 0]];
  for (const order of orders) {
    for (const putAt of [0, 2, 4]) {
      const index = SearchIndex.open(":memory:", {});
      const put = () => index.put([document("d", "text", { tags: ["own"], custodian: "own" })]);
      order.forEach((which, at) => {
        if (at === putAt) put();
        index.mark([changes[which]]);
      });
      if (putAt === 4) put();
      const has = (text: string) => found(index, text, { all: false }).total;
      assertEquals(["tag:two", "tag:late", "custodian:second"].map(has), [1, 1, 1], `${order} ${putAt}`);
      assertEquals(["tag:one", "tag:early", "tag:own", "custodian:own", "custodian:first"].map(has), [0, 0, 0, 0, 0], `${order} ${putAt}`);
      index.close();
    }
  }
});

Deno.test("search index: a mark without its revision, or with the same one again, changes nothing", () => {
  const index = filled();
  index.mark([{ id: "han", revision: 0, visible: true }, { id: "han", visible: false }, { id: "han", revision: 0, visible: false }, {
    id: "han",
    coded: ["x"],
  }]);
  assertEquals([ids(index, "契約", { all: false }), ids(index, "tag:x")], ["han", ""]);
  // What the mark does not name stays as it came with the text.
  index.mark([{ id: "breach", revision: 1, visible: true }]);
  assertEquals(ids(index, "tag:privileged custodian:jane"), "breach");
  index.close();
});

Deno.test("search index: putting again replaces, within one call too", () => {
  const index = filled();
  index.put([document("breach", "old"), document("new", "first"), document("new", "second"), document("breach", "another text", { tags: ["cold"] })]);
  assertEquals(["breach", "old", "another", "first", "second", "tag:hot", "tag:cold"].map((text) => ids(index, text)), [
    "resume",
    "",
    "breach",
    "",
    "new",
    "markup",
    "breach",
  ]);
  assertEquals([found(index, "a").documents, index.has(["breach", "nobody", "new", "__proto__"])], [5, ["breach", "new"]]);
  index.mark([{ id: "nobody", revision: 1 }]);
  assertEquals(index.has(["nobody"]), []);
  index.close();
});

Deno.test("search index: a put that fails leaves nothing of it", () => {
  const index = filled();
  assertThrows(() => index.put([document("fine", "breach"), { ...document("bad", "breach"), text: null as unknown as string }]));
  assertEquals([ids(index, "breach"), found(index, "a").documents], ["breach resume", 4]);
  index.close();
});

Deno.test("search index: text is read in pages that cut no character in two", () => {
  const index = filled([document("d", "ab😀cd\0\ud800e")]);
  const clean = "ab😀cd \ufffde";
  assertEquals(index.text("d", 0, 100), { text: clean, total: 9 });
  for (const size of [2, 3, 4, 5]) {
    let read = "";
    for (let at = 0; at < 9; at += size) {
      const { text } = index.text("d", at, size)!;
      assert(text.isWellFormed());
      read += text;
    }
    assertEquals(read, clean, String(size));
  }
  assertEquals([index.text("d", 50, 5), index.text("nobody", 0, 1)], [{ text: "", total: 9 }, undefined]);
  index.close();
});

Deno.test("search index: only so many are ranked, the newest; the total is counted up to 10,000", () => {
  const index = SearchIndex.open(":memory:", {});
  index.put(Array.from({ length: 10_001 }, (_, n) => document(`d${n}`, n === 0 ? "word word word" : n % 2 ? "word other" : "word")));
  const { results, total, exact } = found(index, "word", { candidates: 100, limit: 3 });
  assertEquals([results.map(({ id }) => id), total, exact], [["d10000", "d9998", "d9996"], 10_000, false]);
  const half = found(index, "other", { candidates: 100, limit: 3 });
  assertEquals([half.results.length, half.total, half.exact], [3, 5000, true]);
  assertEquals([found(index, "date:2024 OR NOT nothing").total, found(index, "word other*").total], [10_000, 5000]);
  index.close();
});

Deno.test("search index: the file is made once, kept, and open to readers and writers at the same time", () => {
  const dir = Deno.makeTempDirSync();
  const path = `${dir}/case.db`;
  assertThrows(() => SearchIndex.open(path, { readOnly: true }));
  const [one, two] = [SearchIndex.open(path, {}), SearchIndex.open(path, {})];
  const reader = SearchIndex.open(path, { readOnly: true });
  one.put([SAMPLE[0]]);
  two.put([SAMPLE[1]]);
  assertEquals(ids(reader, "breach"), "breach resume");
  assertThrows(() => reader.put([SAMPLE[2]]));
  for (const index of [one, two, reader]) index.close();
  for (const readOnly of [true, false]) {
    const again = SearchIndex.open(path, { readOnly });
    assertEquals(ids(again, "breach"), "breach resume");
    again.close();
  }
  Deno.removeSync(dir, { recursive: true });
});

Deno.test("search index: what is no index of this version is not opened, and not touched", () => {
  const dir = Deno.makeTempDirSync();
  const path = `${dir}/case.db`;
  filledFile(path);
  const whole = Deno.readFileSync(path);
  const spoiled: Record<string, (bytes: Uint8Array<ArrayBuffer>) => Uint8Array<ArrayBuffer>> = {
    "no database": () => new TextEncoder().encode("not a database at all".repeat(100)),
    "an overwritten header": (bytes) => bytes.fill(0xff, 0, 64),
    "cut after the first page": (bytes) => bytes.slice(0, 4096),
    "cut in half": (bytes) => bytes.slice(0, bytes.length >> 1),
    "another version": (bytes) => bytes.fill(9, 63, 64),
  };
  for (const [what, spoil] of Object.entries(spoiled)) {
    const bytes = spoil(whole.slice());
    Deno.writeFileSync(path, bytes);
    for (const readOnly of [false, true]) assertThrows(() => SearchIndex.open(path, { readOnly }), Error, undefined, what);
    assertEquals(Deno.readFileSync(path), bytes, what);
  }
  Deno.removeSync(path);
  const other = new DatabaseSync(path);
  other.exec("create table something (x)");
  other.close();
  assertThrows(() => SearchIndex.open(path, {}), TypeError, "version 0");
  Deno.removeSync(dir, { recursive: true });
});

function filledFile(path: string): void {
  const index = SearchIndex.open(path, {});
  index.put(SAMPLE);
  index.close();
}

/** Pieces of the language, and of what SQL and FTS5 make something of. */
const PIECES = [
  ..."abc".split(""),
  "the",
  "breach",
  "contr*",
  "con*",
  "AND",
  "OR",
  "NOT",
  "NEAR",
  "NEAR(",
  "and",
  "w/5",
  "w/0",
  "W/1",
  "(",
  ")",
  "(",
  ")",
  '"',
  '"',
  '"~3',
  "~10",
  "“",
  "”",
  "*",
  "^a",
  "from:",
  "subject:",
  "tag:",
  "type:pdf",
  "custodian:",
  "date:",
  "date:2024",
  "date:2024-01..2024-02",
  "after:2024-02-30",
  "before:2023",
  "{text} :",
  "text:",
  "rowid:",
  "-a",
  "+",
  "'",
  "''",
  ";",
  "--",
  "/*",
  "%",
  "?",
  "?1",
  ":x",
  "@y",
  "$z",
  "\\",
  "\0",
  "\n",
  "\u00a0",
  "\u200b",
  "\ufeff",
  "\ud800",
  "\udc00",
  "😀",
  "契約",
  "é",
  "e\u0301",
  "\u0e01\u0e34",
  "\ue000",
  "\ufffd",
  "\u{10ffff}",
  "o'brien@acme.com",
  "__proto__",
];

Deno.test("search index: of 30,000 random queries each is refused invalid_query or runs", () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  console.log(`      seed ${seed}`);
  const below = random(seed);
  const typed = (round: number): string => {
    const length = below(30);
    if (round % 4 === 0) return String.fromCharCode(...Array.from({ length: below(40) }, () => below(below(2) ? 128 : 65_536)));
    // Without spaces, things meet that are not meant to.
    return Array.from({ length }, () => PIECES[below(PIECES.length)]).join(round % 4 === 1 ? "" : " ");
  };
  const index = filled();
  let ran = 0;
  let slowest = 0;
  for (let round = 0; round < 30_000; round++) {
    // Balanced and with something on both sides, so that more than beginnings run.
    const text = round % 8 === 7 ? sentence(below, 4) : typed(round);
    const before = performance.now();
    try {
      const query = parseQuery(text);
      ran++;
      const { results } = index.search(JSON.parse(JSON.stringify(query)), {
        all: round % 2 === 0,
        dates: round % 3 ? undefined : { start: "2024-01-01" },
        limit: 5,
        candidates: 10,
      });
      assert(results.every(({ snippets }) => snippets.every((snippet) => snippet.length <= 300 && snippet.isWellFormed())));
    } catch (error) {
      if (!(error instanceof Refusal && error.reason === "invalid_query")) {
        throw new Error(`seed ${seed}, round ${round}: ${JSON.stringify(text)}`, { cause: error });
      }
      assert(error.detail.message!.isWellFormed());
    }
    slowest = Math.max(slowest, performance.now() - before);
  }
  assert(ran > 5000, `only ${ran} ran, seed ${seed}`);
  assert(slowest < 2000, `${slowest} ms, seed ${seed}`);
  index.close();
});

/** A query that is mostly well-formed. */
function sentence(below: (n: number) => number, depth: number): string {
  const inner = () => sentence(below, depth - 1);
  const word = () => ["a", "breach", "contr*", '"of contract"', "o'brien", "契約", "é", "x.y", '"one six"~4', "\ud800a", "\u0e34x"][below(11)];
  if (depth === 0) return word();
  switch (below(8)) {
    case 0:
      return `${inner()} AND ${inner()}`;
    case 1:
      return `(${inner()} OR ${inner()})`;
    case 2:
      return `NOT (${inner()})`;
    case 3:
      return `(${word()} OR ${word()}) w/${1 + below(9)} ${word()}`;
    case 4:
      return `${["subject", "from", "tag", "type"][below(4)]}:(${word()} OR NOT ${word()})`;
    case 5:
      return `date:2024 ${inner()}`;
    case 6:
      return `${inner()} NOT tag:hot`;
    default:
      return word();
  }
}

Deno.test("search index: AND, OR, NOT of words, labels and days mean what they mean", () => {
  const seed = Math.floor(Math.random() * 2 ** 31);
  const below = random(seed);
  const letters = ["a", "b", "c", "d"];
  const some = (from: readonly string[]) => from.filter(() => below(2));
  const documents = Array.from(
    { length: 40 },
    (_, n) => document(`d${n}`, some(letters).join(" "), { tags: some(letters), date: [null, "2023-05-05", "2024-05-05"][below(3)] }),
  );
  const index = filled(documents);
  /** A query, and which documents it is true of. */
  const tree = (depth: number): [string, (of: Indexed) => boolean] => {
    const letter = letters[below(4)];
    const choice = below(depth === 0 ? 3 : 7);
    if (choice === 0) return [`tag:${letter}`, ({ tags }) => tags.includes(letter)];
    if (choice === 1) return [letter, ({ text }) => text.includes(letter)];
    if (choice === 2) return below(2) ? [letter, ({ text }) => text.includes(letter)] : ["date:2024", ({ date }) => date?.startsWith("2024") ?? false];
    const [[left, ofLeft], [right, ofRight]] = [tree(depth - 1), tree(depth - 1)];
    if (choice === 3) return [`(${left} OR ${right})`, (of) => ofLeft(of) || ofRight(of)];
    if (choice === 4) return [`(${left} AND NOT ${right})`, (of) => ofLeft(of) && !ofRight(of)];
    if (choice === 5) return [`NOT (${left})`, (of) => !ofLeft(of)];
    return [`(${left} ${right})`, (of) => ofLeft(of) && ofRight(of)];
  };
  for (let round = 0; round < 2000; round++) {
    const [text, holds] = tree(4);
    const expected = documents.filter(holds).map(({ id }) => id).toSorted().join(" ");
    assertEquals(ids(index, text), expected, `seed ${seed}: ${text}`);
    assertEquals(found(index, text, { candidates: 1, limit: 1 }).total, documents.filter(holds).length, `seed ${seed}: ${text}`);
  }
  index.close();
});

Deno.test("search index: the largest queries that can be typed run", () => {
  const index = filled();
  const sixteen = (inner: string) => "(".repeat(16) + inner + ")".repeat(16);
  const queries = [
    Array(64).fill("a").join(" OR "),
    Array(64).fill("abc*").join(" "),
    Array(15).fill("(a OR tag:b)").join(" "),
    `"${Array(64).fill("a").join(" ")}"`,
    `"${Array(64).fill("a").join(" ")}"~999`,
    `(${Array(8).fill("a").join(" OR ")}) w/999 (${Array(8).fill("b").join(" OR ")})`,
    sixteen("NOT a OR tag:b"),
    `${"NOT (".repeat(16)}a OR tag:b${")".repeat(16)}`,
    `${"(a OR tag:b NOT ".repeat(16)}c${")".repeat(16)}`,
    Array(64).fill("契").join(""),
    "a".repeat(1000),
    Array(64).fill("date:2024").join(" OR "),
  ];
  for (const text of queries) found(index, text);
  index.close();
});
