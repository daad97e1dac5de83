import { assertEquals } from "@std/assert";
import { prose, sentences } from "../rooms/documents/prose.ts";

const ORIGINAL = "-----Original Message-----\nFrom: Ann <ann@x.example>\nSubject: pumps\n\nWhere are they?";

Deno.test("prose: what the author did not write is left out", () => {
  const cases: Record<string, [string, string]> = {
    "quoted lines": ["They came.\n\n> Where are\n> they?\n\nToday.", "They came.\nToday."],
    "the line that names who is quoted": ["On Monday, Ann Lee <ann@x.example> wrote:\n> Where?\n\nHere.", "Here."],
    "that line, wrapped": ["On Monday, Ann Lee\n<ann@x.example> wrote:\n> Where?\n\nHere.", "Here."],
    "another's mail below": [`They came.\n\n${ORIGINAL}`, "They came."],
    "a signature": ["They came.\n\n-- \nAnn Lee\nHead of pumps", "They came."],
    "a farewell and what follows": ["They came.\n\nBest regards,\nAnn\nHead of pumps", "They came."],
    "encoded data": [`They came.\n${"QUJD".repeat(19)}\nToday.`, "They came.\nToday."],
    "links and addresses": ["See https://x.example/a?b=c or ask ann@x.example about it.", "See or ask about it."],
    "headers": ["Message-ID: <a@b>\nReceived: from x\n  by y; <z>\nThey came.", "They came."],
    "tables and rules": ["They came.\n=========\n| 1 | 2 | 3 |\nToday.", "They came.\nToday."],
  };
  for (const [name, [text, expected]] of Object.entries(cases)) assertEquals(prose(text, 10_000, "without quotes"), expected, name);
});

Deno.test("prose: a rule or a farewell in the middle of a long text ends nothing", () => {
  const lines = Array.from({ length: 30 }, (_, n) => `Paragraph ${"abcdefghijklmnopqrstuvwxyzABCD"[n]} of the text.`).join("\n\n");
  for (const sign of ["--", "Thanks!", "____________________________"]) {
    assertEquals(prose(`First.\n\n${sign}\n\n${lines}`, 10_000, "without quotes").split("\n").at(-1), "Paragraph D of the text.", sign);
  }
});

Deno.test("prose: with quotes, the words of all are kept without their signs", () => {
  assertEquals(prose(`> > They came.\n${ORIGINAL}`, 10_000, "with quotes"), "They came.\nWhere are they?");
});

Deno.test("prose: wrapped lines are joined, short ones stay apart", () => {
  const text = "This line was wrapped by a mail program because it\nwas full.\nApples\nPears\r\nand plums";
  assertEquals(prose(text, 10_000, "with quotes"), "This line was wrapped by a mail program because it was full.\nApples\nPears and plums");
});

Deno.test("prose: sentences end where they do, disclaimers are none", () => {
  assertEquals(sentences("Mr. Stone v. Acme Corp. was heard. Dr. Lee spoke!\nTitle\nIs it over?", 100), [
    "Mr. Stone v. Acme Corp. was heard.",
    "Dr. Lee spoke!",
    "Title",
    "Is it over?",
  ]);
  assertEquals(sentences("It is done. If you are not the intended recipient, delete it. This e-mail may contain confidential information.", 100), [
    "It is done.",
  ]);
  assertEquals(sentences("A b. ".repeat(1000), 7).length, 7);
  assertEquals(sentences("Mr. ".repeat(100_000), 200).every((sentence) => sentence.length <= 800), true);
});
