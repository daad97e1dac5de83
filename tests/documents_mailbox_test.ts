import { assertEquals, assertLessOrEqual } from "@std/assert";
import { domainOf, mailboxes, quotedMailboxes } from "../rooms/documents/mailbox.ts";

Deno.test("mailbox: headers as they are written", () => {
  const cases: [string, [string, string][]][] = [
    ["Ann Lee <Ann.Lee@X.example>", [["Ann Lee", "ann.lee@x.example"]]],
    ["ann@x.example", [["", "ann@x.example"]]],
    ["<ann@x.example>", [["", "ann@x.example"]]],
    ['"Lee, Ann" <ann@x.example>, Bob <bob@x.example>', [["Lee, Ann", "ann@x.example"], ["Bob", "bob@x.example"]]],
    ["Lee, Ann <ann@x.example>; Stone, Bob <bob@x.example>", [["Lee, Ann", "ann@x.example"], ["Stone, Bob", "bob@x.example"]]],
    ["ann@x.example, Bob <bob@x.example>", [["", "ann@x.example"], ["Bob", "bob@x.example"]]],
    ["ann@x.example <ann@x.example>", [["", "ann@x.example"]]],
    ["Bob [mailto:bob@x.example]", [["", "bob@x.example"]]],
    ["'Bob' <mailto:bob@x.example>", [["Bob", "bob@x.example"]]],
    ["Ann Lee", [["Ann Lee", ""]]],
    ["", []],
    ["@@@", []],
    ["<>", []],
  ];
  for (const [written, expected] of cases) assertEquals(mailboxes(written).map(({ name, address }) => [name, address]), expected, written);
  assertEquals(domainOf({ name: "", address: "a@b.example" }), "b.example");
});

Deno.test("mailbox: headers within a text, quoted or not, and nothing that only looks like one", () => {
  const text = "Hi\nFrom: the beginning\n> From: Ann <ann@x.example>\n> Sent: Monday\n>> To: bob@x.example; Cy <cy@x.example>\n*From:* Dee <dee@x.example>";
  const { from, to } = quotedMailboxes(text);
  assertEquals([from, to].map((boxes) => boxes.map(({ address }) => address)), [["ann@x.example", "dee@x.example"], ["bob@x.example", "cy@x.example"]]);
});

Deno.test("mailbox: no more than 200, however many there are", () => {
  assertLessOrEqual(mailboxes("a@b.c,".repeat(100_000)).length, 200);
  assertLessOrEqual(mailboxes(Array.from({ length: 900 }, (_, n) => `a${n}@b.c`).join(",")).length, 200);
  assertLessOrEqual(quotedMailboxes("From: a@b.c\n".repeat(100_000)).from.length, 200);
});
