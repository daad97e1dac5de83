/** Mail as it is sent (RFC 5322 and MIME). */
import PostalMime, { type Address, type Email } from "postal-mime";
import { type Attach, Exception, type Extracted, filename, iso, line, mailbox, MAX_ATTACHMENTS, plain } from "./extracted.ts";
import { textOfHtml } from "./html.ts";

const LIMITS = { maxNestingDepth: 64, maxHeadersSize: 1 << 20, forceRfc822Attachments: true };
/** Bytes of a mail too small to hold so many lines that they matter. */
const SMALL = 1 << 20;
/** Base64 of 100 MB has 1.4 million lines. */
const MAX_LINES = 2_000_000;
/** Shorter lines are text, for each of which the parser keeps an object of its own: they count fourfold. */
const SHORT = 60;
/** Lines that may begin a part, the parser's largest object. */
const MAX_MARKS = 100_000;

/** Throws Exception `too_deep`, `too_large`, `damaged`. */
export async function readEmail(bytes: Uint8Array, attach: Attach): Promise<Extracted> {
  if (bytes.length > SMALL) count(bytes);
  const mail = await parse(bytes);
  if (mail.attachments.length > MAX_ATTACHMENTS) throw new Exception("too_large", `The mail has more than ${MAX_ATTACHMENTS} attachments`);
  const read = bodyOf(mail);
  mail.attachments.forEach(({ filename: given, mimeType, content }, index) => {
    const isMail = mimeType === "message/rfc822";
    attach({
      kind: "attachment",
      filename: filename(isMail ? named(given) : given, `attachment-${index + 1}${isMail ? ".eml" : ""}`),
      content_type: line(mimeType) ?? "application/octet-stream",
      bytes: content instanceof ArrayBuffer ? new Uint8Array(content) : content as Uint8Array,
    });
  });
  return { kind: "email", content_type: "message/rfc822", ...read, ...headersOf(mail) };
}

const named = (given: string | null) => given && (/\.eml$/i.test(given) ? given : `${given}.eml`);

function count(bytes: Uint8Array): void {
  let [lines, marks, start] = [0, 0, 0];
  for (let at = bytes.indexOf(10); at >= 0; at = bytes.indexOf(10, start)) {
    lines += at - start < SHORT ? 4 : 1;
    start = at + 1;
    if (bytes[start] === 0x2d && bytes[start + 1] === 0x2d) marks++;
    if (lines > MAX_LINES || marks > MAX_MARKS) throw new Exception("too_large", "The mail has too many lines or parts");
  }
}

async function parse(bytes: Uint8Array): Promise<Email> {
  try {
    return await PostalMime.parse(bytes, LIMITS);
  } catch (error) {
    const message = error instanceof Error ? error.message : "";
    if (/nesting depth|call stack/.test(message)) throw new Exception("too_deep", "The mail's parts are nested too deep");
    if (/header size/.test(message)) throw new Exception("too_large", "The mail's headers are too long");
    throw new Exception("damaged", "The mail cannot be read");
  }
}

function bodyOf({ text, html }: Email): Pick<Extracted, "text" | "truncated"> {
  if (!html || (text && /\S/.test(text))) return plain(text ?? "");
  const read = textOfHtml([html]);
  return { text: read.text, truncated: read.truncated };
}

function headersOf(mail: Email): Partial<Extracted> {
  const from = mail.from ?? mail.sender;
  const sender = from && mailboxes([from])[0];
  const [to, cc, bcc] = [mail.to, mail.cc, mail.bcc].map((addresses) => addresses ? mailboxes(addresses) : []);
  const [subject, message_id, date] = [line(mail.subject), line(mail.messageId), iso(mail.date)];
  return {
    ...(sender && { from: sender }),
    ...(to.length > 0 && { to }),
    ...(cc.length > 0 && { cc }),
    ...(bcc.length > 0 && { bcc }),
    ...(subject && { subject, title: subject }),
    ...(date && { date }),
    ...(message_id && { message_id }),
  };
}

function mailboxes(addresses: readonly Address[]): string[] {
  return addresses.flatMap(({ name, address, group }) => group ? group.flatMap((one) => mailbox(one.name, one.address) ?? []) : mailbox(name, address) ?? []);
}
