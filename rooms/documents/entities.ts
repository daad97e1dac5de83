/** Who, where, when and how much: out of a mail's headers, by written form, and by `compromise` in the beginning of the text. */
import nlp from "compromise";
import { type Mailbox, mailboxes, quotedMailboxes } from "./mailbox.ts";
import { addresses, dates, money } from "./patterns.ts";
import { prose } from "./prose.ts";
import { BOUNDS, type Entity, type EntityType, type Facts, type KeyDate, type MonetaryAmount, plain, quote } from "./results.ts";

/** Patterns are looked for in so much of the text, names in so much of its prose. */
const READ = 200_000;
const NAMED = 20_000;
/** `compromise` takes more than linear time for a sentence of many words: it is given pieces of so many units and words. */
const PIECE = 400;

const ORGANIZATION =
  /\b(?:inc|corp(?:oration)?|llp|llc|ltd|gmbh|plc|company|bank|university|institute|committee|foundation|association|agency|department)\b\.?$/i;
const SUFFIXED = /(?<![\w&])(?:[A-Z][\w&'’-]{0,30},?[ \t]){1,5}(?:Inc|Corp|Corporation|LLP|LLC|Ltd|GmbH|AG|PLC|plc|L\.L\.P|L\.L\.C|N\.A|S\.A)\b\.?/g;
/** What speaks in the name of nobody. */
const NOBODY = /^(?:no-?reply|do-?not-?reply|mailer-daemon|postmaster|bounces?|listserv|undisclosed|unknown|majordomo|root|webmaster|abuse)\b/i;
/** A mailbox of many. */
const OF_MANY =
  /\b(?:team|support|service|services|sales|info|news|newsletter|list|lists|group|users|announce|alerts?|billing|customer|admin|office|department|dept|talk|workers|inc|corp|llp|llc|ltd|gmbh)\b|\w\.(?:com|net|org)$/i;

/** Grows while a text is read: the same name in other case or spacing is the same entity. */
class Found {
  readonly #entities = new Map<string, Entity>();

  add(type: EntityType, written: string, confidence: number, normalized?: string): void {
    const text = plain(written, BOUNDS.name);
    if (text === "") return;
    const name = text.toLowerCase();
    const other = type === "PERSON" || type === "ORGANIZATION" || type === "LOCATION"
      ? (["PERSON", "ORGANIZATION", "LOCATION"] as const).map((kind) => this.#entities.get(`${kind} ${name}`)).find((known) => known !== undefined)
      : this.#entities.get(`${type} ${name}`);
    // Whatever a name was taken for first and more surely, that it is.
    const known = other && other.confidence >= confidence ? other : this.#entities.get(`${type} ${name}`);
    if (known) {
      known.count++;
      known.confidence = Math.max(known.confidence, confidence);
      known.normalized ??= normalized;
    } else this.#entities.set(`${type} ${name}`, { text, type, confidence, count: 1, ...(normalized !== undefined && { normalized }) });
  }

  /** The most frequent and surest first. */
  all(): Entity[] {
    const weight = ({ confidence, count }: Entity) => confidence * (1 + Math.log(count));
    return [...this.#entities.values()].toSorted((a, b) => weight(b) - weight(a) || (a.text < b.text ? -1 : a.text > b.text ? 1 : 0)).slice(0, BOUNDS.entities);
  }
}

/** At most 200 entities, 50 dates and 50 amounts. */
export function findEntities(facts: Facts): { entities: Entity[]; key_dates: KeyDate[]; monetary_amounts: MonetaryAmount[] } {
  const found = new Found();
  const text = facts.text.slice(0, READ).toWellFormed();
  for (const box of [facts.from, facts.author, ...lists(facts)].flatMap((written) => mailboxes(written ?? ""))) addMailbox(found, box, 0.98);
  const quoted = quotedMailboxes(text);
  for (const box of [...quoted.from, ...quoted.to]) addMailbox(found, box, 0.9);
  const [days, sums] = [dates(text), money(text)];
  for (const day of days) found.add("DATE", day.text, day.confidence, day.date);
  for (const sum of sums) found.add("MONEY", sum.text, sum.confidence, sum.currency === "XXX" ? undefined : `${sum.currency} ${sum.amount}`);
  for (const address of addresses(text)) found.add("LOCATION", address.text, address.confidence);
  try {
    addNames(found, text);
  } catch {
    // A text that breaks `compromise` still has what is found without it.
  }
  return {
    entities: found.all(),
    key_dates: once(days, ({ date }) => date).slice(0, BOUNDS.dates).map((day) => ({
      text: plain(day.text, BOUNDS.name),
      date: day.date!,
      context: quote(text, day.at, day.text.length),
    })),
    monetary_amounts: once(sums, ({ amount, currency }) => `${currency} ${amount}`).slice(0, BOUNDS.amounts).map((sum) => ({
      text: plain(sum.text, BOUNDS.name),
      amount: sum.amount,
      currency: sum.currency,
      context: quote(text, sum.at, sum.text.length),
    })),
  };
}

const lists = ({ to, cc, bcc }: Facts) => [...(to ?? []), ...(cc ?? []), ...(bcc ?? [])].slice(0, 1000);

/** The first of each; those without a key are left out. */
function once<T>(all: readonly T[], keyOf: (entry: T) => string | undefined): T[] {
  const seen = new Set<string>();
  return all.filter((entry) => {
    const key = keyOf(entry);
    if (key === undefined || seen.has(key)) return false;
    seen.add(key);
    return true;
  });
}

function addMailbox(found: Found, { name, address }: Mailbox, confidence: number): void {
  const local = address.slice(0, address.indexOf("@"));
  const named = name !== "" && !name.includes("@") && /\p{L}/u.test(name);
  if (NOBODY.test(local) || NOBODY.test(name)) return;
  if (named) found.add(OF_MANY.test(name) || ORGANIZATION.test(name) ? "ORGANIZATION" : "PERSON", name, confidence, address || undefined);
  else if (/^[\w.+-]+$/.test(local) && !OF_MANY.test(local.replace(/[._+-]/g, " ")) && !/@(?:lists?|newsletters?|groups)\./.test(address)) {
    found.add("PERSON", address, confidence - 0.15, address);
  }
}

function addNames(found: Found, text: string): void {
  const read = prose(text, NAMED * 3, "with quotes").slice(0, NAMED);
  for (const match of read.matchAll(SUFFIXED).take(500)) found.add("ORGANIZATION", match[0], 0.9);
  const document = nlp(pieces(read));
  const written = (view: { out(as: "array"): unknown }) => (view.out("array") as string[]).map(nameOf).filter((name) => name !== undefined);
  for (const name of written(document.people())) found.add("PERSON", name, name.includes(" ") ? 0.75 : 0.5);
  for (const name of written(document.organizations())) found.add("ORGANIZATION", name, ORGANIZATION.test(name) ? 0.85 : 0.55);
  for (const name of written(document.places())) found.add("LOCATION", name, 0.65);
}

/** Lines of bounded length: `compromise` ends a sentence at each. */
function pieces(read: string): string {
  return read.replace(new RegExp(`[^\\n]{1,${PIECE}}(?:\\s|$)`, "g"), "$&\n");
}

const NO_NAME =
  /^(?:re|fwd?|hi|hello|dear|thanks|thank|regards|best|cheers|sent|inc|corp|llp|llc|ltd|subject|from|to|cc|date|mr|mrs|ms|dr|sir|madam|the|today|tomorrow|monday|tuesday|wednesday|thursday|friday|saturday|sunday|january|february|march|april|may|june|july|august|september|october|november|december|attorney|counsel|lawyer|plaintiff|defendant)$/i;

/** A name as it is written, without what stands around it; undefined when it is none. */
function nameOf(written: string): string | undefined {
  const name = written.replace(/^[^\p{L}]+|[^\p{L}.)]+$/gu, "").replace(/['’]s$|[.,;:!?)]+$/g, "").replace(/^(?:hi|hello|dear|thanks)\s/i, "");
  const words = name.split(/\s+/);
  const proper = /^\p{Lu}/u.test(name) && !/[\d@\/\\<>=_*|{}#~\[\]]/.test(name) && name.length >= 2 && name.length <= 60 && words.length <= 6;
  return proper && !NO_NAME.test(name) && words.every((word) => word.length <= 25) ? name : undefined;
}
