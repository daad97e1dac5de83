/** The suggested privilege call: what it says of mails and letters as people write them, and that doubt is never `none`. */
import { assert, assertEquals, assertGreater, assertLess, assertLessOrEqual, assertStringIncludes } from "@std/assert";
import { PrivilegeAnalysis } from "../protocol/channels/privilege.ts";
import type { Facts } from "../rooms/documents/results.ts";
import { isLawyers } from "../rooms/documents/signals.ts";
import { suggestPrivilege } from "../rooms/documents/suggestion.ts";

const DISCLAIMER = `

This e-mail and any attachments may contain confidential and privileged information. If you are not the intended recipient, please notify the sender
immediately, delete this e-mail and destroy any copies. Any dissemination or use of this information by a person other than the intended recipient is
unauthorized and may be illegal.`;
const inside = { from: "Alice Reed <alice@northwind.example>", to: ["Bob Stone <bob@northwind.example>"] };

const calls: Record<string, { facts: Facts; type: "none" | "attorney-client" | "work-product" | "confidential" }> = {
  "counsel's memo with a legend": {
    facts: { text: "PRIVILEGED AND CONFIDENTIAL\nATTORNEY-CLIENT COMMUNICATION\n\nAlice,\n\nHere is my view of the supplier's claim. It has no merit." },
    type: "attorney-client",
  },
  "a law firm writes to its client": {
    facts: {
      from: "Dana Cole <dcole@colehartlaw.com>",
      to: ["alice@northwind.example"],
      subject: "Supply agreement",
      text: "Alice, I went through the draft last night. Section 9 gives them a way out that we should close. Call me when you can.",
    },
    type: "attorney-client",
  },
  "somebody asks the law firm": {
    facts: { from: "alice@northwind.example", to: ["dcole@cole-legal.com"], text: "Dana, they have stopped paying us. What can we do about it?" },
    type: "attorney-client",
  },
  "the legal department is asked": {
    facts: { from: "alice@northwind.example", to: ["legal@northwind.example"], text: "Can you look at the attached vendor form before Friday?" },
    type: "attorney-client",
  },
  "a lawyer is copied": {
    facts: { ...inside, cc: ["Tom Esq <tom@hartllp.com>"], text: "Bob, numbers for the meeting as discussed." },
    type: "attorney-client",
  },
  "advice in plain words, no lawyer named": {
    facts: {
      ...inside,
      text:
        "I read the lease again. In my view they cannot terminate before June, and if they went to court they would lose. Don't put anything in writing yet.",
    },
    type: "attorney-client",
  },
  "advice is passed on": {
    facts: { ...inside, text: "Spoke to our lawyers this morning. They told us to hold the shipment until the dispute with Fabrikam is resolved." },
    type: "attorney-client",
  },
  "counsel's advice in one line": {
    facts: { ...inside, text: "Per outside counsel's advice, please delete the second paragraph before it goes out." },
    type: "attorney-client",
  },
  "whether they can be sued": {
    facts: { ...inside, text: "If we ship the units with the old label, are we liable if somebody gets hurt? Could we be sued?" },
    type: "attorney-client",
  },
  "whether it has to be disclosed": {
    facts: { ...inside, text: "Do we have to disclose the leak to the regulator before the quarter ends?" },
    type: "attorney-client",
  },
  "whether it is allowed": { facts: { ...inside, text: "Is it legal to record the calls without telling the customers?" }, type: "attorney-client" },
  "the strength of a case": { facts: { ...inside, text: "Honestly, we have a weak case against Contoso. I'd rather talk to them." }, type: "attorney-client" },
  "legal must sign it off": { facts: { ...inside, text: "Please run this by legal before you send it to the press." }, type: "attorney-client" },
  "legal has signed it off": { facts: { ...inside, text: "Legal has signed off on the wording, so go ahead with the letter." }, type: "attorney-client" },
  "signed by the general counsel": {
    facts: { ...inside, text: "Bob,\n\nplease come by my office about the Fabrikam matter.\n\nAlice Reed\nGeneral Counsel, Northwind" },
    type: "attorney-client",
  },
  "signed Esq.": {
    facts: { text: "Dear Mr. Stone,\n\nenclosed please find the executed copies.\n\nVery truly yours,\nMartin Hale, Esq." },
    type: "attorney-client",
  },
  "an answer that quotes the lawyer's mail": {
    facts: {
      ...inside,
      text:
        "See below.\n\n-----Original Message-----\nFrom: Dana Cole <dcole@colehartlaw.com>\nSent: Monday\nTo: Alice Reed <alice@northwind.example>\n\nAll fine.",
    },
    type: "attorney-client",
  },
  "a legend within what is quoted": {
    facts: { ...inside, text: "FYI\n\n> PRIVILEGED & CONFIDENTIAL\n>\n> Bob, the audit found three problems." },
    type: "attorney-client",
  },
  "a legend with the lines of quoting between its words": {
    facts: { ...inside, text: "FYI\n> Attorney-\n> client communication: the audit found three problems." },
    type: "attorney-client",
  },
  "a legend in full width and with invisible signs": {
    facts: {
      ...inside,
      text: "ＰＲＩＶＩＬＥＧＥＤ ＡＮＤ ＣＯＮＦＩＤＥＮＴＩＡＬ\n\nThe audit found three problems. Att\u00adorney\u200b-client communication.",
    },
    type: "attorney-client",
  },
  "a legend in the file's name": {
    facts: { filename: "2024_Privileged-and-Confidential_memo.docx", text: "The audit found three problems." },
    type: "attorney-client",
  },
  "a legend and somebody outside": {
    facts: {
      from: "alice@northwind.example",
      to: ["press@daily.example", "bob@contoso.example"],
      text: "Privileged and confidential.\n\nThe audit found three problems.",
    },
    type: "attorney-client",
  },
  "a legend on a mailing list": {
    facts: { text: "Privileged & Confidential\n\nThe audit is done.\n\nTo unsubscribe from this list click here" },
    type: "attorney-client",
  },
  "work product": {
    facts: { text: "ATTORNEY WORK PRODUCT\nPrepared in anticipation of litigation\n\nChronology of the Fabrikam deliveries, 2021 to 2023." },
    type: "work-product",
  },
  "made at counsel's direction": {
    facts: { ...inside, text: "At the direction of counsel I have collected the failure reports of the last three years. The list is attached." },
    type: "work-product",
  },
  "litigation strategy": {
    facts: { ...inside, text: "Notes on trial strategy: lead with the delivery dates. Keep the expert witness for the end." },
    type: "work-product",
  },
  "a draft of a pleading": { facts: { ...inside, text: "Comments on the draft complaint are due on Monday. I changed paragraph 12." }, type: "work-product" },
  "strictly confidential, no lawyer": {
    facts: { ...inside, subject: "STRICTLY CONFIDENTIAL: project Alder", text: "The offer is 40 a share. The board meets on Friday." },
    type: "confidential",
  },
  "not to be passed on": { facts: { ...inside, text: "Headcount goes down by a fifth in May. Please do not forward this." }, type: "confidential" },
  "empty": { facts: { ...inside, text: "" }, type: "confidential" },
  "nothing but numbers": { facts: { ...inside, text: "12 17 3.5 1,200\n\t14 19" }, type: "confidential" },
  "in a language that nobody here reads": {
    facts: {
      text:
        "Sehr geehrte Frau Reed, anbei erhalten Sie unsere Einschätzung der Ansprüche gegen den Lieferanten. Wir raten von einer Klage ab, solange die Gutachten fehlen.",
    },
    type: "confidential",
  },
  "in letters that nobody here reads": { facts: { text: "弁護士の意見を添付します。訴訟のリスクは高いと考えます。" }, type: "confidential" },

  "a question about a newsletter that is passed on": {
    facts: {
      ...inside,
      text: "Could we be sued under this?\n\n-----Original Message-----\nFrom: News <news@paper.example>\n\nNew rules for shops. Unsubscribe here.",
    },
    type: "attorney-client",
  },
  "a question on a project's list, with somebody outside, and a link": {
    facts: { ...inside, cc: ["c@vendor.example"], subject: "[Alder] the lease", text: "Click here for the lease. Are we liable if the roof comes down?" },
    type: "attorney-client",
  },
  "a law firm's mail from outside, with a disclaimer and a link": {
    facts: {
      from: "dcole@colehartlaw.com",
      to: ["alice@northwind.example", "bob@contoso.example"],
      subject: "[EXTERNAL] data room",
      text: `Click here to see the drafts.${DISCLAIMER} If you have received this message in error, delete it.`,
    },
    type: "attorney-client",
  },
  "a scan of which only the stamp of the court was read": {
    facts: { text: Array.from({ length: 40 }, (_, n) => `Appeal: 17-2231 Doc: 17 Filed: 10/31/2017 Pg: ${n + 1} of 40`).join("\n\n") },
    type: "confidential",
  },

  "lunch": { facts: { ...inside, text: "Lunch at twelve? The new place on the corner has a good soup." }, type: "none" },
  "see attached": { facts: { ...inside, text: "See attached." }, type: "none" },
  "ordinary business": {
    facts: { ...inside, text: "The pump was delivered on 3 May and installed the next day. The invoice is attached, payment is due in thirty days." },
    type: "none",
  },
  "ordinary business under a disclaimer": {
    facts: { ...inside, text: `Bob, the meeting has moved to room 4, and Carol will bring the figures of the third quarter.${DISCLAIMER}` },
    type: "none",
  },
  "a contract is signed": {
    facts: { ...inside, text: "Great news: Fabrikam signed the contract today. Thanks to everybody who worked on the offer!" },
    type: "none",
  },
  "a joke list": {
    facts: {
      from: "jokes@laughs.example",
      to: ["jokes@laughs.example"],
      subject: "[jokes] lawyer of the day",
      text: "A lawyer and an engineer were fishing in the Caribbean. The lawyer said: my house burned down and the insurance paid for everything.\n" +
        "How do you start a flood? asked the lawyer.\n_______\nTo unsubscribe write to jokes-request@laughs.example",
    },
    type: "none",
  },
  "a law firm's newsletter": {
    facts: {
      from: "Hart LLP <news@hartllp.com>",
      to: ["bob@northwind.example"],
      text: "This week's issue: what the new privacy rules mean for shops. You are receiving this newsletter because you signed up. Unsubscribe here.",
    },
    type: "none",
  },
  "an advertisement": {
    facts: {
      from: "deals@cheap.example",
      text: "Save up to 70% on your car insurance! Click here to get a quote. To be removed from our list reply with REMOVE.",
    },
    type: "none",
  },
  "news among friends": {
    facts: { ...inside, text: "Did you see that the court decided against the phone makers? The paper says they will appeal." },
    type: "none",
  },
  "a friend who became a lawyer": {
    facts: { ...inside, text: "My sister passed the exam and is going to be a lawyer! We are having a party on Saturday." },
    type: "none",
  },
  "an opinion of a court": {
    facts: {
      text:
        "In the Missouri Court of Appeals, Eastern District. In order to prevail on a claim of ineffective assistance of counsel, a movant must show that his " +
        "attorney failed to exercise the skill of a reasonably competent attorney. We find no error and affirm the judgment of the motion court.",
    },
    type: "none",
  },
  "the word privilege in its other sense": {
    facts: { ...inside, text: "It was a privilege to work with you all these years. I will miss the coffee." },
    type: "none",
  },
};

Deno.test("suggestion: mails and letters as people write them", async (t) => {
  for (const [name, { facts, type }] of Object.entries(calls)) {
    await t.step(name, () => {
      const analysis = suggestPrivilege(facts);
      assertEquals(analysis.privilege_type, type, JSON.stringify(analysis.factors));
      assertEquals(analysis.is_privileged, type !== "none");
      PrivilegeAnalysis.parse(analysis);
      for (const { evidence } of analysis.factors) assertLessOrEqual(evidence.length, 160);
      if (analysis.is_privileged && analysis.confidence < 0.85) assert(analysis.review_required);
      if (!analysis.is_privileged) assert(!analysis.review_required);
    });
  }
});

Deno.test("suggestion: without text there is doubt, little confidence, and a factor that says so", () => {
  for (const text of ["", " \n\t", "\u200b\ufeff", "12 ... 3"]) {
    const { is_privileged, privilege_type, confidence, review_required, factors } = suggestPrivilege({ text });
    assertEquals([is_privileged, privilege_type, review_required], [true, "confidential", true]);
    assertLess(confidence, 0.3);
    assertStringIncludes(factors[0].factor, "no text");
  }
});

Deno.test("suggestion: what stands behind the part that is judged is doubt", () => {
  const lines = "We had soup for lunch and it was good.\n";
  assertEquals(suggestPrivilege({ ...inside, text: lines.repeat(1000) }).privilege_type, "none");
  const long = suggestPrivilege({ ...inside, text: lines.repeat(30_000) });
  assertEquals([long.is_privileged, long.privilege_type, long.review_required], [true, "confidential", true]);
  const growing = suggestPrivilege({ ...inside, text: `${lines.repeat(1000)}${"ﷺ".repeat(60_000)} privileged and confidential` });
  assertEquals([growing.is_privileged, growing.review_required], [true, true]);
});

Deno.test("suggestion: a legend far down in a long text is found, and quoted with the words around it", () => {
  const lines = "We had soup for lunch and it was good.\n".repeat(20_000);
  const { factors, privilege_type } = suggestPrivilege({ text: `${lines}The attached is attorney work product, keep it so.\n${lines.slice(0, 3900)}` });
  assertEquals(privilege_type, "work-product");
  assertStringIncludes(factors[0].evidence, "The attached is attorney work product");
});

Deno.test("suggestion: a disclaimer counts little wherever it stands, a legend at the top in full", () => {
  const note = "The meeting has moved to room 4, and Carol will bring the figures of the third quarter. ".repeat(8);
  const weightOf = (text: string) => suggestPrivilege({ text }).factors.reduce((sum, { weight }) => sum + weight, 0);
  assertGreater(weightOf(`Privileged and confidential: this message is intended only for the named recipient.\n\n${note}`), 0.5);
  assertLess(weightOf(`${note}\n\nThis message may contain privileged and\nconfidential information.`), 0.3);
  assertLess(weightOf(`${note}${DISCLAIMER}\n\n${note}${DISCLAIMER}`), 0.3);
  assertGreater(weightOf(`${`${note}${DISCLAIMER}\n\n`.repeat(60)}${note}\n\nPRIVILEGED AND CONFIDENTIAL\n\n${note}`), 0.5);
});

Deno.test("suggestion: more signs make it surer, signs against it less sure", () => {
  const text = "Privileged and confidential.\n\nHere is our legal advice on the claim.";
  const one = suggestPrivilege({ ...inside, text });
  const more = suggestPrivilege({ text, from: "dcole@colehartlaw.com", to: ["alice@northwind.example"] });
  const less = suggestPrivilege({ text: `${text}\n\nTo unsubscribe click here`, to: ["a@one.example", "b@two.example"] });
  assertGreater(more.confidence, one.confidence);
  assertLess(less.confidence, one.confidence);
  assertEquals([more.review_required, less.review_required], [false, true]);
});

Deno.test("suggestion: who is a lawyer by his mailbox", () => {
  const is = (address: string, name = "") => isLawyers({ address, name });
  for (
    const address of [
      "a@smithlaw.com",
      "a@law.example",
      "a@smith-law.co.uk",
      "a@joneslegal.com",
      "a@hartllp.com",
      "a@lawfirm.example",
      "a@skadden.com",
      "legal@x.com",
    ]
  ) {
    assert(is(address), address);
  }
  for (
    const address of [
      "a@lawn.com",
      "a@flaw.org",
      "a@outlaw.com",
      "a@lawrence.edu",
      "a@claw.net",
      "a@coleslaw.example",
      "a@delaware.gov",
      "allegal@x.com",
      "a@x.com",
    ]
  ) {
    assert(!is(address), address);
  }
  assert(is("a@x.com", "Tom Hale, Esq."));
  assert(is("a@x.com", "Reed, Alice (Legal)"));
  assert(!is("a@x.com", "Tom Lawson"));
});
