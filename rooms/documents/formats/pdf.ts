/**
 * PDF, page by page: a page that is damaged loses its own text only. A font can make the parser fill all memory that there is;
 * nothing but the limits of the process that it runs in holds it back.
 */
import { Exception, type Extracted, Gathered, iso, line, plain } from "./extracted.ts";

const MAX_PAGES = 20_000;

type Document = Awaited<ReturnType<typeof import("unpdf").getDocumentProxy>>;
type Page = Awaited<ReturnType<Document["getPage"]>>;

/** Throws Exception `encrypted`, `damaged`, `no_text` (a scan), `too_large`. */
export async function readPdf(bytes: Uint8Array): Promise<Extracted> {
  const pdf = await open(bytes);
  try {
    if (pdf.numPages > MAX_PAGES) throw new Exception("too_large", `The PDF has more than ${MAX_PAGES} pages`);
    const { text, damaged } = await textOf(pdf);
    const read = plain(text);
    if (!/[^\s\f]/.test(read.text)) {
      throw damaged > 0
        ? new Exception("damaged", `${damaged} of ${pdf.numPages} pages cannot be read`)
        : new Exception("no_text", "The PDF has no text: it may be a scan");
    }
    return { kind: "pdf", content_type: "application/pdf", ...read, pages: pdf.numPages, ...await propertiesOf(pdf) };
  } finally {
    await pdf.loadingTask.destroy().catch(() => {});
  }
}

let loading: Promise<typeof import("unpdf")> | undefined;

async function load(): Promise<typeof import("unpdf")> {
  // What is wrong with an object is also said by promises that nobody in there waits for; one of them would end the process.
  globalThis.addEventListener("unhandledrejection", (event) => {
    if (event.reason instanceof Error && /\bunpdf\b/.test(event.reason.stack ?? "")) event.preventDefault();
  });
  return await import("unpdf");
}

async function open(bytes: Uint8Array): Promise<Document> {
  const { getDocumentProxy } = await (loading ??= load());
  try {
    // It takes the buffer for itself. Nothing is fetched, drawn, or compiled; it speaks of errors only by throwing them.
    return await getDocumentProxy(bytes.slice(), {
      verbosity: 0,
      useSystemFonts: false,
      disableFontFace: true,
      useWasm: false,
      stopAtErrors: false,
    });
  } catch (error) {
    if (error instanceof Error && error.name === "PasswordException") throw new Exception("encrypted", "The PDF needs a password");
    throw new Exception("damaged", "The PDF cannot be read");
  }
}

async function textOf(pdf: Document): Promise<{ text: string; damaged: number }> {
  const gathered = new Gathered();
  let damaged = 0;
  for (let number = 1; number <= pdf.numPages && !gathered.full; number++) {
    if (number > 1) gathered.add("\f");
    try {
      const page = await pdf.getPage(number);
      await readPage(page, gathered);
      page.cleanup();
    } catch {
      damaged++;
    }
  }
  return { text: gathered.text, damaged };
}

async function readPage(page: Page, gathered: Gathered): Promise<void> {
  const reader = page.streamTextContent().getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    for (const item of value.items) {
      if ("str" in item) gathered.add(item.str.replaceAll("\f", " ") + (item.hasEOL ? "\n" : ""));
    }
    if (gathered.full) return await reader.cancel();
  }
}

async function propertiesOf(pdf: Document): Promise<Pick<Extracted, "title" | "author" | "date">> {
  const { info } = await pdf.getMetadata().catch(() => ({ info: {} })) as { info: Record<string, unknown> };
  const [title, author, date] = [line(info.Title), line(info.Author), dateOf(info.CreationDate)];
  return { ...(title && { title }), ...(author && { author }), ...(date && { date }) };
}

/** D:YYYYMMDDHHmmSSOHH'mm': all after the year may be missing. [PDF 32000-1, 7.9.4] */
function dateOf(text: unknown): string | undefined {
  const found = typeof text === "string" && /^\s*(?:D:)?(\d{4})(\d\d)?(\d\d)?(\d\d)?(\d\d)?(\d\d)?(?:Z|([+-])(\d\d)'?(\d\d)?)?/.exec(text);
  if (!found) return undefined;
  const [, year, month = "01", day = "01", hour = "00", minute = "00", second = "00", sign = "+", offset = "00", minutes = "00"] = found;
  return iso(`${year}-${month}-${day}T${hour}:${minute}:${second}${sign}${offset}:${minutes}`);
}
