import { assertEquals, assertLess } from "@std/assert";
import { addresses, dates, money } from "../rooms/documents/patterns.ts";

Deno.test("patterns: dates as they are written", () => {
  const cases: [string, string[]][] = [
    ["on 2024-01-03 and 2024-01-03T10:00Z", ["2024-01-03", "2024-01-03"]],
    ["3 January 2024, 3rd of January 2024, 3 Jan. 2024", ["2024-01-03", "2024-01-03", "2024-01-03"]],
    ["January 3, 2024; January 3rd, 2024; Sept 9 2023", ["2024-01-03", "2024-01-03", "2023-09-09"]],
    ["3.1.2024 and 24.12.2023", ["2024-01-03", "2023-12-24"]],
    ["25/12/2023 and 12/25/2023 and 12/25/23 and 5/5/1999", ["2023-12-25", "2023-12-25", "2023-12-25", "1999-05-05"]],
    ["2024-02-30, 31 June 2024, 2024-13-01, 30/02/2024, 99/99/2024, 0/0/2024", []],
    ["10.1.1.2002, 1.2.3, 12/2024, 1-800-555-1234, 123/45/67, 12024-01-03, 7/8", []],
    ["may 2024, March to 5 stores 2024, 15 marchers 2020", []],
  ];
  for (const [text, expected] of cases) assertEquals(dates(text).map(({ date }) => date), expected, text);
});

Deno.test("patterns: day and month that could be either are not guessed, unless another date of the text tells", () => {
  assertEquals(dates("01/03/2024").map(({ date, confidence }) => [date, confidence]), [[undefined, 0.5]]);
  assertEquals(dates("01/03/2024 and 13/03/2024").map(({ date }) => date), ["2024-03-01", "2024-03-13"]);
  assertEquals(dates("01/03/2024 and 03/13/2024").map(({ date }) => date), ["2024-01-03", "2024-03-13"]);
  assertEquals(dates("01/03/2024, 03/13/2024, 13/03/2024").map(({ date }) => date), [undefined, "2024-03-13", "2024-03-13"]);
  assertLess(dates("01/03/2024")[0].confidence, dates("2024-03-01")[0].confidence);
});

Deno.test("patterns: money as it is written", () => {
  const cases: [string, string[]][] = [
    ["$1,234.56 or $5 or US$ 7", ["USD 1234.56", "USD 5", "USD 7"]],
    ["USD 5 million, EUR 3.5 bn, GBP 20k", ["USD 5000000", "EUR 3500000000", "GBP 20000"]],
    ["€1.234,56 and €1.234 and €12,50 and 300 € and 15 euros", ["EUR 1234.56", "EUR 1234", "EUR 12.5", "EUR 300", "EUR 15"]],
    ["£2m and £1.2bn", ["GBP 2000000", "GBP 1200000000"]],
    ["$1.234 million, $1,234 million, $1,234,567, $1.234.567,89", ["USD 1234000", "USD 1234000000", "USD 1234567", "USD 1234567.89"]],
    ["$5 million CAD and 40 dollars and 3 million US dollars", ["CAD 5000000", "USD 40", "USD 3000000"]],
    ["a loss of 1.2bn", ["XXX 1200000000"]],
    ["$ and 5 and 5 million people and section 1.2 and $x, 100 users, USDA 5", []],
    ["$999999999999999999", []],
  ];
  for (const [text, expected] of cases) assertEquals(money(text).map(({ amount, currency }) => `${currency} ${amount}`), expected, text);
});

Deno.test("patterns: postal addresses as they are written", () => {
  const cases: [string, string[]][] = [
    ["at 350 Fifth Avenue, Suite 400, New York, NY 10118 today", ["350 Fifth Avenue, Suite 400, New York, NY 10118"]],
    ["1400 N. Smith Street,\nHouston, TX 77002-1234.", ["1400 N. Smith Street,\nHouston, TX 77002-1234"]],
    ["P.O. Box 1188, Houston, TX 77251", ["P.O. Box 1188, Houston, TX 77251"]],
    ["Hauptstraße 5, 10115 Berlin", ["Hauptstraße 5, 10115 Berlin"]],
    ["5 people went down the street; 2024 Was A Good Year", []],
  ];
  for (const [text, expected] of cases) assertEquals(addresses(text).map(({ text }) => text), expected, text);
});

Deno.test("patterns: no more than 2,000 of a form are looked at", () => {
  assertEquals(money("$1 ".repeat(50_000)).length, 2000);
  assertEquals(dates("2024-01-03 ".repeat(50_000)).length, 2000);
});
