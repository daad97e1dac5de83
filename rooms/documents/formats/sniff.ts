/** What a file really is. Its bytes say most; its name and type, as declared, decide only between kinds of text. */
import { markOf } from "./charset.ts";
import type { Source } from "./extracted.ts";
import { isMbox } from "./mbox.ts";

export type Format = "pdf" | "zip" | "compound" | "email" | "archive" | "html" | "text" | "binary";

/** Of the name, in lower case, without its dot; "" when there is none. */
export function extensionOf(filename: string): string {
  return /\.([^./\\]{1,15})$/.exec(filename.slice(-300))?.[1].toLowerCase() ?? "";
}

/** Bytes that are looked at. */
const HEAD = 8192;

const MAGIC: readonly (readonly [Format, string])[] = [
  ["pdf", "%PDF-"],
  ["zip", "PK\x03\x04"],
  ["zip", "PK\x05\x06"],
  ["compound", "\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"],
  // RTF and PostScript are text to the eye, and not to a reader.
  ["binary", "{\\rtf"],
  ["binary", "%!PS"],
];

/** A mail is declared one: its first line tells whether it is. */
const FIRST_HEADER = /^\s{0,1000}(?:>?From [^\n]{0,1000}\n)?[!-9;-~]{1,100}[ \t]{0,10}:/;

/** Not quite: 0x80 to 0x9f are signs of windows-1252. */
const latin1 = new TextDecoder("latin1");

/** `bytes` are not empty. */
export function formatOf({ bytes, filename, content_type }: Source): Format {
  const first = latin1.decode(bytes.subarray(0, 1024));
  for (const [format, magic] of MAGIC) if (first.startsWith(magic)) return format;
  const [extension, type] = [extensionOf(filename), content_type.slice(0, 100).toLowerCase()];
  const declared = extension === "eml" || type.startsWith("message/rfc822");
  if (declared && FIRST_HEADER.test(first)) return "email";
  const start = bytes.subarray(0, HEAD);
  const mark = markOf(start);
  const binary = !mark && isBinary(start);
  // Mail gateways and printers leave lines in front of it. [PDF 32000-1, H.3.4.1]
  if ((binary || extension === "pdf") && first.includes("%PDF-")) return "pdf";
  if (binary) return "binary";
  if (!declared && isMbox(bytes)) return "archive";
  const text = mark ? new TextDecoder(mark).decode(start) : latin1.decode(start);
  if (isMail(text, extension, type)) return "email";
  return isHtml(text, extension, type) ? "html" : "text";
}

function isBinary(bytes: Uint8Array): boolean {
  let controls = 0;
  for (const byte of bytes) if (byte < 9 || (byte > 13 && byte < 27) || (byte > 27 && byte < 32)) controls++;
  return controls > 1 + bytes.length / 100;
}

/** They come from the machines that carry mail, and are seldom copied into other texts. */
const CARRIED = new Set(["received", "return-path", "delivered-to", "message-id", "mime-version", "dkim-signature", "x-mailer", "envelope-to"]);
const WRITTEN = new Set(["from", "to", "cc", "bcc", "subject", "date", "reply-to", "sender", "content-type", "in-reply-to", "references"]);
const TEXTS = new Set(["txt", "text", "log", "md", "csv", "tsv", "json", "xml", "yaml", "yml", "ini", "html", "htm", "xhtml"]);

function isMail(head: string, extension: string, type: string): boolean {
  const names = headersOf(head);
  const carried = names.filter((name) => CARRIED.has(name)).length;
  const known = carried + names.filter((name) => WRITTEN.has(name)).length;
  // A text that quotes a few headers is a text.
  if (TEXTS.has(extension) || type.startsWith("text/")) return carried >= 1 && known >= 4;
  return known >= 2 && (carried > 0 || names.includes("from"));
}

/** Names of the headers that it begins with; none when other lines stand among them. */
function headersOf(head: string): string[] {
  const names: string[] = [];
  const lines = head.trimStart().split("\n");
  if (lines.length > 1 && head.length >= HEAD) lines.pop();
  for (const [index, raw] of lines.entries()) {
    const text = raw.replace(/\r$/, "");
    if (text === "") break;
    if (/^>?From /.test(text) || (index > 0 && /^[ \t]/.test(text))) continue;
    const name = /^([!-9;-~]{1,100})[ \t]{0,10}:/.exec(text)?.[1];
    if (!name) return [];
    names.push(name.toLowerCase());
  }
  return names;
}

function isHtml(head: string, extension: string, type: string): boolean {
  if (["html", "htm", "xhtml"].includes(extension) || /^(?:text\/html|application\/xhtml)/.test(type)) return /<[a-z!?/]/i.test(head);
  let rest = head.replace(/^\ufeff|^\xef\xbb\xbf/, "").trimStart();
  if (rest.startsWith("<?xml")) rest = rest.slice(rest.indexOf(">") + 1).trimStart();
  while (rest.startsWith("<!--") && rest.includes("-->")) rest = rest.slice(rest.indexOf("-->") + 3).trimStart();
  return /^<(?:!doctype\s{1,10}html|html|head|body)\b/i.test(rest);
}
