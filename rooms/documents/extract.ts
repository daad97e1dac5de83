/**
 * From a file to its text: mail, archives of mail, PDF, Word, HTML, text. Input is hostile: whatever the bytes, the outcome is
 * text or an Exception. Time and memory are the business of the process that it runs in.
 */
import { Compound } from "./formats/compound.ts";
import { readEmail } from "./formats/email.ts";
import { type Attach, type Attachment, Exception, type Extracted, type Source } from "./formats/extracted.ts";
import { readHtml } from "./formats/html.ts";
import { readMbox } from "./formats/mbox.ts";
import { readOutlook } from "./formats/outlook.ts";
import { readPdf } from "./formats/pdf.ts";
import { extensionOf, formatOf } from "./formats/sniff.ts";
import { readText } from "./formats/text.ts";
import { readWord } from "./formats/word.ts";

export { type Attachment, Exception, type ExceptionCode, type Extracted, MAX_TEXT, type Source } from "./formats/extracted.ts";

/** Extensions of what can be read. */
const OURS = new Set(["pdf", "docx", "msg", "eml", "mbox", "html", "htm", "txt"]);

/**
 * Calls `attach` for each attachment or member, one at a time, in order. Throws Exception, and nothing else whatever the
 * bytes; what `attach` throws ends it and comes out as it is.
 */
export async function extract(source: Source, attach: (attachment: Attachment) => void): Promise<Extracted> {
  let theirs: { readonly error: unknown } | undefined;
  const guarded: Attach = (attachment) => {
    try {
      attach(attachment);
    } catch (error) {
      theirs = { error };
      throw error;
    }
  };
  try {
    return await read(source, guarded);
  } catch (error) {
    if (theirs) throw theirs.error;
    throw exceptionOf(error, source);
  }
}

async function read(source: Source, attach: Attach): Promise<Extracted> {
  const { bytes, filename } = source;
  if (bytes.length === 0) throw new Exception("empty", "The file has no bytes");
  switch (formatOf(source)) {
    case "pdf":
      return await readPdf(bytes);
    case "zip":
      return readWord(bytes);
    case "compound":
      return await readCompound(bytes, attach);
    case "archive":
      return readMbox(bytes, attach);
    case "email":
      return await readEmail(bytes, attach);
    case "html":
      return await readHtml(bytes);
    case "text":
      return await readText(bytes, extensionOf(filename));
    case "binary":
      throw new Exception("unsupported", "The file is of a kind that cannot be read");
  }
}

async function readCompound(bytes: Uint8Array, attach: Attach): Promise<Extracted> {
  const compound = new Compound(bytes);
  const { names } = compound;
  if (names.has("EncryptedPackage")) throw new Exception("encrypted", "The document needs a password");
  if (!names.has("__properties_version1.0")) throw new Exception("unsupported", "The file is of an old kind of Office that cannot be read");
  return await readOutlook(bytes, compound, attach);
}

function exceptionOf(error: unknown, { filename }: Source): Exception {
  if (!(error instanceof Exception)) {
    const deep = error instanceof RangeError && /call stack/.test(error.message);
    return deep ? new Exception("too_deep", "The file is nested too deep") : new Exception("damaged", "The file cannot be read");
  }
  const extension = extensionOf(filename);
  if (error.code !== "unsupported" || !OURS.has(extension)) return error;
  return new Exception("wrong_type", `The file is named .${extension}, and is something else`);
}
