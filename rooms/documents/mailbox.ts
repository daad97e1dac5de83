/** Mailboxes as headers write them: `Name <address>`, `"Smith, John" <address>`, `address`, or a name alone. */

export interface Mailbox {
  readonly name: string;
  /** Lower case; empty when there is none. */
  readonly address: string;
}

const ADDRESS = String.raw`[\w.!#$%&'*+/=?^{|}~-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,6}`;
const LISTED = new RegExp(String.raw`(?:"([^"]{1,100})"|([^<>;"@]{1,100}?))?\s{0,3}<\s?(?:mailto:)?(${ADDRESS})\s?>|(?<![\w.@-])(${ADDRESS})`, "gi");
/** A header as mail programs quote it: `From: …`, `To: …`. */
const QUOTED = /^[ \t>*]{0,20}(from|to|cc|bcc)\*?:\*?[ \t]{0,8}([^\n]{3,1000})$/gim;
const MOST = 200;

/** At most 200 of them, out of the first 4,000 units. */
export function mailboxes(written: string): Mailbox[] {
  const boxes = new Map<string, Mailbox>();
  const line = written.slice(0, 4000);
  for (const [, inQuotes, bare, angled, alone] of line.matchAll(LISTED)) {
    const address = (angled ?? alone).toLowerCase().replace(/\.+$/, "");
    const name = (inQuotes ?? bare ?? "").replace(/^[\s,;'"]+|[\s,;'"]+$/g, "");
    if (!boxes.get(address)?.name) boxes.set(address, { name, address });
    if (boxes.size >= MOST) break;
  }
  const name = line.replace(/["<>]/g, "").trim();
  return boxes.size > 0 || name === "" || name.includes("@") ? [...boxes.values()] : [{ name, address: "" }];
}

/** Who is named by headers that are quoted within a text: at most 200 lines of them. */
export function quotedMailboxes(text: string): { from: Mailbox[]; to: Mailbox[] } {
  const found: { from: Mailbox[]; to: Mailbox[] } = { from: [], to: [] };
  let lines = 0;
  for (const [, field, written] of text.matchAll(QUOTED)) {
    const boxes = mailboxes(written);
    // `From: the beginning` is a sentence, not a header.
    found[field.toLowerCase() === "from" ? "from" : "to"].push(...boxes.filter(({ address }) => address !== ""));
    if (++lines >= MOST) break;
  }
  return found;
}

export const domainOf = ({ address }: Mailbox): string => address.slice(address.indexOf("@") + 1);
