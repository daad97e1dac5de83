/** An mbox is cut into its mails; nothing of it is copied but mails with a quoted "From ". */
import { type Attach, Exception, type Extracted } from "./extracted.ts";

const MAX_MEMBERS = 200_000;
const [LF, CR, QUOTE] = [0x0a, 0x0d, 0x3e];
const FROM = [0x46, 0x72, 0x6f, 0x6d, 0x20];

/** "From somebody Thu Aug 22 12:36:23 2002": what follows may be a zone. */
const ENVELOPE = /^From .{0,400}\b(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun),? (?:[A-Z][a-z]{2} +\d{1,2}|\d{1,2} +[A-Z][a-z]{2}) /;
/** What a mail begins with. */
const HEADER = /^(?:>*From |[!-9;-~]+[ \t]*:|\r?$)/;

const latin1 = new TextDecoder("latin1");

/** Whether an mbox begins here. */
export function isMbox(bytes: Uint8Array): boolean {
  return isFrom(bytes, 0) && isEnvelope(bytes, 0);
}

/** Throws Exception `too_large`. */
export function readMbox(bytes: Uint8Array, attach: Attach): Extracted {
  const starts = startsOf(bytes);
  starts.forEach((start, index) => {
    const next = starts[index + 1];
    const mail = unquoted(bytes.subarray(afterLine(bytes, start), next === undefined ? bytes.length : withoutBlank(bytes, next)));
    attach({ kind: "member", filename: `mail-${index + 1}.eml`, content_type: "message/rfc822", bytes: mail });
  });
  return { kind: "archive", content_type: "application/mbox", text: "", truncated: false };
}

function startsOf(bytes: Uint8Array): number[] {
  const starts = [0];
  for (let at = afterLine(bytes, 0); at < bytes.length; at = afterLine(bytes, at)) {
    if (!isFrom(bytes, at) || !isEnvelope(bytes, at)) continue;
    if (starts.push(at) > MAX_MEMBERS) throw new Exception("too_large", `The archive has more than ${MAX_MEMBERS} mails`);
  }
  return starts;
}

function afterLine(bytes: Uint8Array, at: number): number {
  const end = bytes.indexOf(LF, at);
  return end < 0 ? bytes.length : end + 1;
}

function isFrom(bytes: Uint8Array, at: number): boolean {
  for (let index = 0; index < FROM.length; index++) if (bytes[at + index] !== FROM[index]) return false;
  return true;
}

/** People begin lines with "From " too; an envelope has a date, and headers come after it. */
function isEnvelope(bytes: Uint8Array, at: number): boolean {
  const after = afterLine(bytes, at);
  const text = (start: number, end: number) => latin1.decode(bytes.subarray(start, Math.min(end, start + 500)));
  return ENVELOPE.test(text(at, after)) && HEADER.test(text(after, afterLine(bytes, after)).replace(/\n$/, ""));
}

/** The blank line in front of an envelope is the archive's. */
function withoutBlank(bytes: Uint8Array, end: number): number {
  const before = bytes[end - 2] === CR ? end - 2 : end - 1;
  return bytes[before - 1] === LF ? before : end;
}

/** ">From " was "From ", ">>From " was ">From ". [mboxrd] */
function unquoted(mail: Uint8Array): Uint8Array {
  const quotes: number[] = [];
  for (let at = 0; at < mail.length; at = afterLine(mail, at)) {
    if (mail[at] !== QUOTE) continue;
    let from = at;
    while (mail[from] === QUOTE) from++;
    if (isFrom(mail, from)) quotes.push(at);
  }
  if (quotes.length === 0) return mail;
  const copy = new Uint8Array(mail.length - quotes.length);
  let [read, written] = [0, 0];
  for (const at of [...quotes, mail.length]) {
    copy.set(mail.subarray(read, at), written);
    written += at - read;
    read = at + 1;
  }
  return copy;
}
