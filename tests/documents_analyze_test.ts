/** Analysis as a whole: its shape, its order, and what no text may do to it. */
import { assert, assertEquals, assertLess, assertLessOrEqual } from "@std/assert";
import { caseChannel } from "../protocol/channels/case.ts";
import { analyze, type Facts, type Results, STEPS } from "../rooms/documents/analyze.ts";

const MAIL: Facts = {
  from: "Dana Cole <dcole@colehartlaw.com>",
  to: ["Alice Reed <alice@northwind.example>"],
  subject: "Supply agreement",
  date: "2024-01-05T10:00:00Z",
  text:
    "Alice,\n\nI met John Smith of Fabrikam Corp. in Chicago on January 3, 2024. They ask for $1,250,000 by 2024-02-01. My advice is to settle the claim.\n\nDana",
};

/** Every string within. */
function* strings(value: unknown): Generator<string> {
  if (typeof value === "string") yield value;
  else if (value !== null && typeof value === "object") { for (const inner of Object.values(value)) yield* strings(inner); }
}

/** Throws unless the results are what others rely on. */
function sound(results: Results): void {
  caseChannel.events["document:processed"].payload.parse({ document_id: "d1", status: "completed", results });
  assertLessOrEqual(JSON.stringify(results).length, 48_000);
  assertLessOrEqual(results.entities!.length, 200);
  assertLessOrEqual(results.summary!.length, 1500);
  // deno-lint-ignore no-control-regex -- It looks for them.
  for (const text of strings(results)) assert(text.isWellFormed() && !/[\u0000-\u001f\u007f-\u009f\u2028\u2029\u202a-\u202e]/.test(text), JSON.stringify(text));
}

Deno.test("analyze: the results of all steps are as the contract of the case has them", () => {
  const results = analyze(MAIL, STEPS);
  sound(results);
  const has = (type: string, text: string) => assert(results.entities!.some((entity) => entity.type === type && entity.text === text), `${type} ${text}`);
  has("PERSON", "Dana Cole");
  has("PERSON", "John Smith");
  has("ORGANIZATION", "Fabrikam Corp.");
  has("LOCATION", "Chicago");
  has("DATE", "January 3, 2024");
  has("MONEY", "$1,250,000");
  assertEquals(results.key_dates!.map(({ date }) => date), ["2024-01-03", "2024-02-01"]);
  assertEquals(results.monetary_amounts!.map(({ amount, currency }) => [amount, currency]), [[1_250_000, "USD"]]);
  assert(results.summary!.includes("My advice is to settle the claim."));
  assertEquals([results.privilege_analysis!.is_privileged, results.privilege_analysis!.privilege_type], [true, "attorney-client"]);
});

Deno.test("analyze: it runs the steps that it is told, in their order, and says which one begins", () => {
  const heard: string[] = [];
  const results = analyze(MAIL, ["summarization", "privilege_detection"], (step) => heard.push(step));
  assertEquals(heard, ["summarization", "privilege_detection"]);
  assertEquals(Object.keys(results).toSorted(), ["privilege_analysis", "summary"]);
  assertEquals(analyze(MAIL, []), {});
});

Deno.test("analyze: the same document has the same results, whatever was analysed before", () => {
  const first = analyze(MAIL, STEPS);
  analyze({ text: "Mary Jones went to London. ".repeat(100) }, STEPS);
  assertEquals(analyze(MAIL, STEPS), first);
});

Deno.test("analyze: an empty document has results, and is suggested", () => {
  const results = analyze({ text: "" }, STEPS);
  sound(results);
  assertEquals([results.entities, results.summary, results.privilege_analysis!.is_privileged], [[], "", true]);
});

Deno.test("analyze: in a process that may nothing it finds names, too", async () => {
  const dir = Deno.makeTempDirSync();
  const source = `import { analyze } from ${JSON.stringify(new URL("../rooms/documents/analyze.ts", import.meta.url).href)};
    const found = analyze({ text: "John Smith lives in Chicago." }, ["entity_extraction"]);
    console.log(JSON.stringify(found.entities?.map(({ text }) => text)));`;
  Deno.writeTextFileSync(`${dir}/child.ts`, source);
  // `compromise` looks for DEBUG_TAGS in the environment: it is to be told that there is none.
  const args = ["run", "--no-prompt", "--no-check", "--ignore-env", "--config", new URL("../deno.json", import.meta.url).pathname, `${dir}/child.ts`];
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
  assertEquals(new TextDecoder().decode(stdout).trim(), '["John Smith","Chicago"]', new TextDecoder().decode(stderr));
  Deno.removeSync(dir, { recursive: true });
});

const UNITS = {
  "one word": "a",
  "money": "$1",
  "line breaks": "\n",
  "emoji": "😀",
  "quotes of quotes": ">>>>",
  "quoted lines": "> > a\n",
  "high surrogates": "\ud800",
  "low surrogates": "\udc00",
  "right to left": "שלום \u202e",
  "titles": "Mr. ",
  "initials": "A. ",
  "short lines": "A\n",
  "names": "Alice Smith and Bob Jones met Acme Corp. in Paris. ",
  "beginnings of mailboxes": "<a@b",
  "headers": "From: a@b.c\n",
  "beginnings of advice": "our counsel will ",
  "disclaimers": "this e-mail may be confidential ",
  "beginnings of rules": "are we do we have is it legal in my view ",
  "what grows when it is normalised": "ﷺ",
  "accents": "e\u0301\u0301",
  "controls": "\u0000\u0007\u009f",
  "dates": "1/2/2024 ",
  "quotes and backslashes": "\"\\' ",
};

Deno.test("analyze: ten million units of anything take no more than a few times as long as one of ordinary text", async (t) => {
  const took = (text: string) => {
    const began = performance.now();
    sound(analyze({ text, subject: text, title: text, filename: text, author: text, from: text, to: [text], cc: [text], date: text }, STEPS));
    return performance.now() - began;
  };
  const ordinary = "We met John Smith of Fabrikam Corp. in Chicago on January 3, 2024, and he told our lawyers that $5 million would do. ";
  took(ordinary);
  const usual = took(ordinary.repeat(1_000_000 / ordinary.length));
  for (const [name, unit] of Object.entries(UNITS)) {
    await t.step(name, () => assertLess(took(unit.repeat(10_000_000 / unit.length)), usual * 8));
  }
});

Deno.test("analyze: what is set together of hostile pieces is sound", () => {
  const pieces = [...Object.values(UNITS), " ", "\r\n", "privileged and confidential ", "Ann Lee <ann@x.example> ", "EUR 5 ", "-----Original Message-----\n"];
  let state = 7;
  const next = (below: number) => (state = (state * 48_271) % 2_147_483_647) % below;
  for (let round = 0; round < 150; round++) {
    const text = Array.from({ length: 1 + next(80) }, () => pieces[next(pieces.length)]).join("");
    sound(analyze({ text, subject: text, from: text, to: [text], author: text }, STEPS));
  }
});
