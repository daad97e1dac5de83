/** Outlook's mail (MSG): headers, body, attachments; mails within come out as MSG again. */
import type { FieldsData } from "@kenjiuno/msgreader";
import { charsetOf, pieces } from "./charset.ts";
import { Compound } from "./compound.ts";
import { type Attach, Exception, type Extracted, filename, iso, line, mailbox, MAX_ATTACHMENTS, plain } from "./extracted.ts";
import { textOfHtml } from "./html.ts";

const TYPE = "application/vnd.ms-outlook";

/** `compound` is the same file. Throws Exception `damaged`, `too_deep`, `too_large`. */
export async function readOutlook(bytes: Uint8Array, compound: Compound, attach: Attach): Promise<Extracted> {
  compound.check();
  const { reader, mail } = await parse(bytes);
  const attachments = mail.attachments ?? [];
  if (attachments.length > MAX_ATTACHMENTS) throw new Exception("too_large", `The mail has more than ${MAX_ATTACHMENTS} attachments`);
  const read = await bodyOf(mail);
  attachments.forEach((attachment, index) => {
    const inner = attachment.innerMsgContent === true;
    const given = inner
      ? named(attachment.name ?? attachment.innerMsgContentFields?.subject)
      : attachment.fileName ?? attachment.fileNameShort ?? attachment.name;
    attach({
      kind: "attachment",
      filename: filename(given, `attachment-${index + 1}${inner ? ".msg" : attachment.extension ?? ""}`),
      content_type: inner ? TYPE : line(attachment.attachMimeTag) ?? "application/octet-stream",
      bytes: contentOf(reader, attachment),
    });
  });
  return { kind: "email", content_type: TYPE, ...read, ...headersOf(mail) };
}

/** A subject may have slashes, which divide no path here. */
const named = (subject: string | undefined) => subject && `${subject.replace(/[/\\\0]/g, " ").trim()}.msg`;

type Reader = Awaited<ReturnType<typeof parse>>["reader"];

async function parse(bytes: Uint8Array) {
  // A CommonJS module: what is loaded as its default is all that it exports.
  const { default: { default: MsgReader } } = await import("@kenjiuno/msgreader");
  // It wants a buffer of its own, and never writes to it.
  const whole = bytes.byteOffset === 0 && bytes.byteLength === bytes.buffer.byteLength ? bytes.buffer as ArrayBuffer : bytes.slice().buffer as ArrayBuffer;
  const parseAs = (ansiEncoding?: string) => {
    const reader = new MsgReader(whole);
    reader.parserConfig = { ansiEncoding };
    return { reader, mail: reader.getFileData() };
  };
  try {
    const parsed = parseAs("windows-1252");
    const codepage = parsed.mail.messageCodepage ?? parsed.mail.internetCodepage;
    return codepage && OTHER_CODEPAGES.has(codepage) ? parseAs(codepage === 65001 ? "utf8" : `cp${codepage}`) : parsed;
  } catch (error) {
    throw new Exception(isStack(error) ? "too_deep" : "damaged", "The mail cannot be read");
  }
}

/** Those of strings that are not Unicode, by which it must be read again. */
const OTHER_CODEPAGES = new Set([874, 932, 936, 949, 950, 1250, 1251, 1253, 1254, 1255, 1256, 1257, 1258, 65001]);

const isStack = (error: unknown) => error instanceof RangeError && /call stack/.test(error.message);

/** Nothing when it cannot be read: the document that comes of it then says so itself. */
function contentOf(reader: Reader, attachment: FieldsData): Uint8Array {
  try {
    return reader.getAttachment(attachment).content;
  } catch {
    return new Uint8Array();
  }
}

async function bodyOf(mail: FieldsData): Promise<Pick<Extracted, "text" | "truncated">> {
  if (mail.body && /\S/.test(mail.body)) return plain(mail.body);
  const html = mail.bodyHtml ? [mail.bodyHtml] : mail.html ? pieces(mail.html, await charsetOf(mail.html, "html")) : [];
  const { text, truncated } = textOfHtml(html);
  return { text, truncated };
}

function headersOf(mail: FieldsData): Partial<Extracted> {
  const of = (type: string) => {
    const found = (mail.recipients ?? []).filter(({ recipType }) => recipType === type);
    return found.flatMap(({ name, smtpAddress, email }) => mailbox(name, smtpAddress ?? internet(email)) ?? []);
  };
  const [to, cc, bcc] = ["to", "cc", "bcc"].map(of);
  const from = mailbox(mail.senderName, mail.senderSmtpAddress ?? mail.sentRepresentingSmtpAddress ?? internet(mail.senderEmail));
  const date = iso(mail.clientSubmitTime ?? mail.messageDeliveryTime ?? mail.creationTime);
  const [subject, message_id] = [line(mail.subject), line(mail.messageId)];
  return {
    ...(from && { from }),
    ...(to.length > 0 && { to }),
    ...(cc.length > 0 && { cc }),
    ...(bcc.length > 0 && { bcc }),
    ...(subject && { subject, title: subject }),
    ...(date && { date }),
    ...(message_id && { message_id }),
  };
}

/** Exchange's own addresses ("/O=…/CN=…") say nothing to people. */
const internet = (address: string | undefined) => address?.includes("@") ? address : undefined;
