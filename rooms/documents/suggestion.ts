/**
 * A suggested privilege call, by rules: a list of what speaks for it and against it, with weights and quotes. It is no finding of law and no decision: a
 * person decides. It fails closed. Doubt is called privileged, and so is what could not be read; only clear absence is `none`.
 */
import { domainOf, type Mailbox, mailboxes, quotedMailboxes } from "./mailbox.ts";
import { BOILERPLATE, LINK } from "./prose.ts";
import { type Analysis, BOUNDS, type Facts, plain, quote } from "./results.ts";
import { isLawyers, OWN, type Signal, SIGNALS, TERMS } from "./signals.ts";

/** So many units are judged; nobody knows what stands behind them. */
const READ = 1_000_000;
/** From so many hundredths on it is called privileged. */
const DOUBT = 30;
/** At the top of a text a legend is meant, unless it says itself that it may not be. */
const TOP = 400;
const UNSURE = /\b(?:may|might|could)\b/i;
/** A letter or a file with less than this beside what repeats on each page may be a scan under a stamp; a mail may be short. */
const LETTERS = 200;
/** Behind it stands what others wrote: that it was sent to subscribers says nothing of this mail. */
const FORWARDED = /^[ \t]*(?:-{2,}\s?(?:original message|forwarded)|begin forwarded message)/im;

interface Weighed extends Omit<Signal, "pattern" | "legend"> {
  readonly evidence: string;
}

const ACTIONS = {
  privileged: "Withhold until an attorney has reviewed it; if the call is confirmed, enter it in the privilege log.",
  doubtful: "Withhold until an attorney has reviewed it: the signs are uncertain.",
  unread: "Withhold until a person has looked at the document itself: its text could not be judged.",
  none: "No sign of a privilege was found; review it in the ordinary course before it is produced.",
} as const;

/** At most 20 factors, the weightiest first. */
export function suggestPrivilege(facts: Facts): Analysis {
  const text = readable(facts.text.slice(0, READ));
  const heading = headingOf(facts);
  const unread = whyUnread(facts, text);
  const own = readable(facts.text.slice(0, READ).replace(/^[ \t]{0,20}>.*$/gm, "").split(FORWARDED, 1)[0]);
  const weighed = [...parties(facts, text), ...spoken(heading, text, own), ...vocabulary(text), ...unread];
  return callOf(weighed, unread.length > 0);
}

/** Spelling that hides nothing: compatibility forms and invisible signs resolved, quote marks of mail taken off. */
function readable(text: string): string {
  const resolved = text.toWellFormed().normalize("NFKC").slice(0, READ);
  return resolved.replace(/[\p{Cf}]/gu, "").replace(/\r\n?/g, "\n").replace(/[^\S\n]/g, " ").replace(/^[> |]{1,40}/gm, "");
}

function headingOf({ subject, title, filename }: Facts): string {
  const name = readable((filename ?? "").slice(0, 1024)).replace(/[_.-]+/g, " ");
  return `Subject: ${readable((subject ?? "").slice(0, 2000))}\n${readable((title ?? "").slice(0, 2000))}\n${name}`;
}

function parties(facts: Facts, text: string): Weighed[] {
  const boxes = (written: readonly (string | undefined)[]) => written.slice(0, 1000).flatMap((one) => mailboxes(one ?? ""));
  const quoted = quotedMailboxes(text);
  const from = boxes([facts.from, facts.author]);
  const to = boxes([...(facts.to ?? []), ...(facts.cc ?? []), ...(facts.bcc ?? [])]);
  const shown = ({ name, address }: Mailbox) => plain(name ? `${name} <${address}>` : address, BOUNDS.quote);
  const found: Weighed[] = [];
  const lawyer = (among: Mailbox[], factor: string, weight: number) => {
    const one = among.find(isLawyers);
    if (one) found.push({ factor, weight, type: "attorney-client", evidence: shown(one) });
    return one !== undefined;
  };
  const named = [lawyer(from, "From a lawyer or a law firm", 55), lawyer(to, "To a lawyer or a law firm", 55)].includes(true);
  if (!named) lawyer([...quoted.from, ...quoted.to], "A lawyer or a law firm in the mail that it quotes", 55);
  const others = new Set([...from, ...to].filter((box) => box.address !== "" && !isLawyers(box)).map(domainOf));
  if (others.size > 1) found.push({ factor: "Shared with somebody outside", weight: -10, evidence: plain([...others].slice(0, 6).join(", "), BOUNDS.quote) });
  return found;
}

/** `heading`: what is known besides the text. `own`: the text without what it quotes; only that can speak against. */
function spoken(heading: string, whole: string, own: string): Weighed[] {
  const found: Weighed[] = [];
  const body = heading.length + 2;
  const [speaking, against] = [whole, own].map((part) => `${heading}\n\n${part}`);
  for (const signal of SIGNALS) {
    const text = signal.weight > 0 ? speaking : against;
    let foot: RegExpExecArray | undefined;
    let meant: RegExpExecArray | undefined;
    for (const match of text.matchAll(signal.pattern).take(1000)) {
      const around = sentenceAt(text, match.index, match[0].length);
      if (!signal.legend || !BOILERPLATE.test(around) || (match.index < body + TOP && !UNSURE.test(around))) {
        meant = match;
        break;
      }
      foot ??= match;
    }
    const { factor, weight, type, strong } = signal;
    if (meant) found.push({ factor, weight, type, strong, evidence: quote(text, meant.index, meant[0].length) });
    else if (foot) {
      // Under a mail that says nothing else of law it is the mail program's word, not the author's.
      const evidence = quote(text, foot.index, foot[0].length);
      found.push({ factor: `In the disclaimer only: ${factor.toLowerCase()}`, weight: type === "confidential" ? 5 : 10, type, evidence });
    }
  }
  return found;
}

function sentenceAt(text: string, at: number, length: number): string {
  const before = text.slice(Math.max(0, at - 300), at).split(/[.!?:]\s|\n\s*\n/).at(-1)!;
  const after = text.slice(at + length, at + length + 300).split(/[.!?]\s|\n\s*\n/)[0];
  return before + text.slice(at, at + length) + after;
}

function vocabulary(text: string): Weighed[] {
  if (!OWN.test(text)) return [];
  const terms = new Set<string>();
  for (const [term] of text.matchAll(TERMS).take(5000)) terms.add(term.toLowerCase().slice(0, 6));
  if (terms.size < 3) return [];
  const first = text.search(TERMS);
  return [{
    factor: "Writes of own affairs in terms of law",
    // A long text has a few of them in any case.
    weight: terms.size >= (text.length > 20_000 ? 8 : 5) ? 30 : 15,
    type: "attorney-client",
    evidence: quote(text, first, 10),
  }];
}

const COMMON = new Set(
  "the a an and or of to in is are was for on with that this it you we be as at by from have has not will can your our i if no all any please re".split(" "),
);

/** The rules read English letters and words: of what is not made of these they know nothing. */
function whyUnread({ text: whole, from, to }: Facts, text: string): Weighed[] {
  const found: Weighed[] = [];
  const because = (factor: string, evidence = "") => found.push({ factor, weight: DOUBT, type: "confidential", strong: true, evidence });
  const sample = text.slice(0, 20_000).replace(LINK, " ");
  const letters = sample.replace(/\P{L}/gu, "").length;
  const words: string[] = sample.toLowerCase().match(/[\p{L}\p{M}'’]{1,30}/gu) ?? [];
  const common = words.filter((word) => COMMON.has(word)).length;
  const lines = new Set(sample.split("\n").map((line) => line.replace(/\P{L}/gu, "")));
  const distinct = [...lines].reduce((sum, line) => sum + line.length, 0);
  if (letters === 0) because("There is no text to judge");
  else if (from === undefined && to === undefined && distinct < LETTERS) because("There is hardly any text to judge", quote(text, 0, BOUNDS.quote));
  else if (sample.replace(/[^a-z]/gi, "").length * 2 < letters || (letters > 120 && common * 20 < words.length)) {
    because("The text is not in English, which these rules read", quote(text, 0, BOUNDS.quote));
  }
  // Compatibility forms are up to eighteen times as long when they are resolved.
  if (whole.length > READ || whole.normalize("NFKC").length > READ) because(`Only the first ${READ} characters were judged`);
  return found;
}

function callOf(weighed: readonly Weighed[], unread: boolean): Analysis {
  const sum = (some: readonly Weighed[]) => some.reduce((total, { weight }) => total + weight, 0);
  const speaking = weighed.filter(({ weight }) => weight > 0);
  const against = weighed.length > speaking.length;
  const score = Math.max(sum(weighed), weighed.some(({ strong }) => strong) ? DOUBT : -100);
  const privileged = score >= DOUBT;
  const of = (type: string) => sum(speaking.filter((one) => one.type === type));
  const [client, work] = [of("attorney-client"), of("work-product")];
  const type = work > client ? "work-product" : client > 0 && client >= (unread ? of("confidential") : 20) ? "attorney-client" : "confidential";
  const sure = privileged ? Math.min(95, 30 + Math.round(Math.max(0, score) / 2)) : Math.min(95, Math.max(55, 90 - sum(speaking)));
  const confidence = (unread ? Math.min(20, sure) : sure) / 100;
  const review = privileged && (unread || against || confidence < 0.85);
  return {
    is_privileged: privileged,
    privilege_type: privileged ? type : "none",
    confidence,
    factors: weighed.toSorted((a, b) => Math.abs(b.weight) - Math.abs(a.weight)).slice(0, BOUNDS.factors)
      .map(({ factor, weight, evidence }) => ({ factor, weight: weight / 100, evidence })),
    recommended_action: ACTIONS[unread ? "unread" : !privileged ? "none" : review ? "doubtful" : "privileged"],
    review_required: review,
  };
}
