import { assert, assertEquals, assertLessOrEqual, assertStringIncludes } from "@std/assert";
import { summarize } from "../rooms/documents/summary.ts";

const STORY = [
  "The pump at the Alder plant failed during the night shift on Monday.",
  "Somebody had left the radio on.",
  "Fabrikam delivered the pump to the Alder plant only three weeks before it failed.",
  "The weather was fine all week.",
  "Engineers found that the seal of the pump had been fitted the wrong way round by Fabrikam.",
  "Carol brought a cake, which was very good.",
  "The plant stood still for two days, and the delay cost more than the pump itself.",
  "My bicycle has a flat tyre again.",
  "Fabrikam offers to replace the seal but refuses to pay for the delay at the plant.",
  "The canteen is closed on Thursday.",
];

Deno.test("summary: sentences of the text in their order, those about what it is about", () => {
  const summary = summarize(STORY.join(" "));
  const places = STORY.map((sentence) => summary.indexOf(sentence));
  const kept = places.filter((place) => place >= 0);
  assertEquals(kept, kept.toSorted((a, b) => a - b));
  assertEquals(STORY.filter((_, at) => places[at] >= 0).join(" "), summary);
  for (const aside of [1, 3, 5, 7, 9]) assertEquals(places[aside], -1, STORY[aside]);
  assert(kept.length >= 3);
});

Deno.test("summary: a short text is its own summary, nothing has none", () => {
  assertEquals(summarize("The pump came.\nIt works."), "The pump came. It works.");
  for (const text of ["", "\n \n", "====\n| 1 | 2 |", "https://x.example/"]) assertEquals(summarize(text), "", text);
});

Deno.test("summary: signatures, quotes and disclaimers are not in it; a mail that only passes on is summed up by what it passes on", () => {
  const below = `\n\nRegards,\nAnn\n\nThis e-mail may contain confidential information.\n\n-----Original Message-----\nFrom: Bob <bob@x.example>\n\n${
    STORY.join(" ")
  }`;
  assertEquals(summarize(`The new pump has come and will be fitted on Friday.${below}`), "The new pump has come and will be fitted on Friday.");
  assertStringIncludes(summarize(`FYI${below}`), "Fabrikam");
});

Deno.test("summary: at most 1,500 units, whatever the sentences", () => {
  for (
    const text of [
      "Word ".repeat(50_000),
      `${"x".repeat(59)} `.repeat(9000),
      "A very long line of words without an end ".repeat(3000),
      STORY.join(" ").repeat(500),
    ]
  ) {
    const summary = summarize(text);
    assert(summary.length > 0);
    assertLessOrEqual(summary.length, 1500);
  }
});
