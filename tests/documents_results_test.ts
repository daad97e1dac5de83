import { assert, assertEquals, assertLessOrEqual, assertStringIncludes } from "@std/assert";
import { bounded, BOUNDS, cut, plain, quote } from "../rooms/documents/results.ts";

Deno.test("results: a text is cut between characters", () => {
  assertEquals(["ab", "a😀", "a😀b"].map((text) => cut(text, 2)), ["ab", "a", "a"]);
  assertEquals(cut("a😀b", 3), "a😀");
});

Deno.test("results: a string is one well-formed line without signs that are no text", () => {
  const cases: [string, string][] = [
    [" a\r\n\tb\u2028c ", "a b c"],
    ["a\u0000b\u009fc", "a b c"],
    ["\u202eevil\u2066", "evil"],
    ["\ud800x", "\ufffdx"],
    ["👩\u200d🚀", "👩\u200d🚀"],
    ["\u05e9\u05dc\u05d5\u05dd", "\u05e9\u05dc\u05d5\u05dd"],
  ];
  for (const [text, expected] of cases) assertEquals(plain(text, 50), expected);
  assertLessOrEqual(plain("\n".repeat(1_000_000) + "a", 50).length, 50);
});

Deno.test("results: a quote is of the words around a place", () => {
  const text = `${"before ".repeat(60)}HERE ${"after ".repeat(60)}`;
  const found = quote(text, text.indexOf("HERE"), 4);
  assertStringIncludes(found, "before HERE after");
  assertLessOrEqual(found.length, 160);
  assert(/^before .* after$/.test(found), found);
  assertEquals(quote("short", 0, 5), "short");
  assertEquals(quote("x".repeat(500), 200, 3).length, 160);
});

Deno.test("results: the whole is at most 48,000 units as JSON, and the surest are kept", () => {
  const long = '"\\'.repeat(5000);
  const entities = Array.from({ length: 5000 }, (_, n) => ({ text: `${n} ${long}`, type: "PERSON" as const, confidence: 1, count: 1, normalized: long }));
  const results = bounded({
    entities,
    key_dates: Array(5000).fill({ text: long, date: "2024-01-03", context: long }),
    monetary_amounts: Array(5000).fill({ text: long, amount: 1, currency: "USD", context: long }),
    summary: long,
    privilege_analysis: {
      is_privileged: true,
      privilege_type: "confidential",
      confidence: 1,
      factors: Array(5000).fill({ factor: long, weight: 1, evidence: long }),
      recommended_action: long,
      review_required: true,
    },
  });
  assertLessOrEqual(JSON.stringify(results).length, BOUNDS.whole);
  assert(results.entities!.length > 15);
  assertEquals(results.entities![0].text.startsWith("0 "), true);
  assertEquals([results.key_dates!.length > 15, results.privilege_analysis!.factors.length, results.summary!.length], [true, 20, 1500]);
});

Deno.test("results: what is within the bounds stays as it is, and what is absent stays absent", () => {
  const results = { entities: [{ text: "Ann", type: "PERSON" as const, confidence: 1, count: 1 }], summary: "A sentence." };
  assertEquals(bounded(results), results);
  assertEquals(bounded({}), {});
});
