import { assert, assertEquals, assertGreater, assertLessOrEqual } from "@std/assert";
import { findEntities } from "../rooms/documents/entities.ts";
import type { Facts } from "../rooms/documents/results.ts";

const named = (facts: Facts) => findEntities(facts).entities.map(({ type, text }) => `${type} ${text}`);
const one = (facts: Facts, text: string) => findEntities(facts).entities.find((entity) => entity.text === text)!;

Deno.test("entities: who a mail is from and to, surest of all", () => {
  const facts = {
    from: "Ann Lee <Ann@X.example>",
    to: ["bob@x.example", "Acme Support Team <help@acme.example>", "no-reply@x.example", "Mailer-Daemon <mailer-daemon@x.example>"],
    cc: ["list-users@lists.x.example"],
    bcc: ["Cy Dean <cy@x.example>"],
    text: "See attached.",
  };
  assertEquals(findEntities(facts).entities, [
    { text: "Acme Support Team", type: "ORGANIZATION", confidence: 0.98, count: 1, normalized: "help@acme.example" },
    { text: "Ann Lee", type: "PERSON", confidence: 0.98, count: 1, normalized: "ann@x.example" },
    { text: "Cy Dean", type: "PERSON", confidence: 0.98, count: 1, normalized: "cy@x.example" },
    { text: "bob@x.example", type: "PERSON", confidence: 0.83, count: 1, normalized: "bob@x.example" },
  ]);
});

Deno.test("entities: people, organizations and places in the text", () => {
  const text =
    "Yesterday John Smith of Fabrikam Corp. met Mary Jones in Chicago. She works for Northwind Trading LLC, near 350 Fifth Avenue, New York, NY 10118.";
  const found = named({ text });
  for (
    const expected of [
      "PERSON John Smith",
      "PERSON Mary Jones",
      "ORGANIZATION Fabrikam Corp.",
      "ORGANIZATION Northwind Trading LLC",
      "LOCATION Chicago",
      "LOCATION 350 Fifth Avenue, New York, NY 10118",
    ]
  ) assert(found.includes(expected), `${expected} in ${found.join(", ")}`);
});

Deno.test("entities: the same name in other case and spacing is the same entity", () => {
  const facts = { from: '"Ann  Lee" <ann@x.example>', to: ["ANN LEE <ann@x.example>"], text: "Then Ann  Lee called. We met Ann Lee in Paris." };
  const ann = one(facts, "Ann Lee");
  assertEquals([ann.type, ann.normalized, ann.confidence], ["PERSON", "ann@x.example", 0.98]);
  assertGreater(ann.count, 2);
  assertEquals(findEntities(facts).entities.filter(({ text }) => /ann/i.test(text)).length, 1);
});

Deno.test("entities: dates and amounts with what they mean, the first of each with its context", () => {
  const text = "The rent of $1,200 is due on January 3, 2024. Again: $1,200, on 2024-01-03. Perhaps on 02/03/2024; it cost the owner 1.5bn.";
  const { entities, key_dates, monetary_amounts } = findEntities({ text });
  assertEquals(entities.filter(({ type }) => type === "DATE" || type === "MONEY").map(({ text, count, normalized }) => [text, count, normalized]), [
    ["$1,200", 2, "USD 1200"],
    ["2024-01-03", 1, "2024-01-03"],
    ["January 3, 2024", 1, "2024-01-03"],
    ["02/03/2024", 1, undefined],
    ["1.5bn", 1, undefined],
  ]);
  assertEquals(key_dates.map(({ text, date }) => [text, date]), [["January 3, 2024", "2024-01-03"]]);
  assertEquals(key_dates[0].context, text);
  assertEquals(monetary_amounts.map(({ amount, currency }) => [amount, currency]), [[1200, "USD"], [1.5e9, "XXX"]]);
});

Deno.test("entities: headers that are quoted name people, and their noise nobody", () => {
  const text = `Received: from Mail.Example.Com by Relay.Example.Net
Message-ID: <John.Smith.123@example.com>
X-Mailer: Microsoft Outlook Express

> From: Ann Lee <ann@x.example>
> Message-ID: <Peter.Pan@x.example>

See https://www.Example.com/George/Washington?Paris=London
${"TmV3IFlvcmsgSm9obiBTbWl0aCBQYXJpcyBMb25kb24gR29vZ2xlIE1pY3Jvc29m".repeat(1)}
Content-Type: text/plain`;
  assertEquals(named({ text }), ["PERSON Ann Lee"]);
});

Deno.test("entities: no more than 200, the most frequent and surest of them", () => {
  const text = "$7 $7 $7 " + Array.from({ length: 3000 }, (_, n) => `$${n + 1}`).join(" ");
  const { entities, monetary_amounts } = findEntities({ text, to: Array.from({ length: 5000 }, (_, n) => `Ann Lee ${n} <a${n}@x.example>`) });
  assertEquals([entities.length, monetary_amounts.length], [200, 50]);
  assertEquals(entities[0].text, "$7");
  for (const { confidence } of entities) assert(confidence > 0 && confidence <= 1);
  assertLessOrEqual(Math.max(...entities.map(({ text }) => text.length)), 120);
});
