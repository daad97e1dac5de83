/** Word documents (DOCX): the text of the body, then notes, comments, headers and footers, as it stands with all changes accepted. */
import { Exception, type Extracted, Gathered, iso, line, plain } from "./extracted.ts";
import { type Markup, scan } from "./markup.ts";
import { type Budget, inflated, type Member, membersOf } from "./zip.ts";

/** Bytes that all parts may inflate to. */
const MAX_INFLATED = 256 * 1024 * 1024;

const PARTS = [
  /^word\/document\d*\.xml$/,
  /^word\/footnotes\.xml$/,
  /^word\/endnotes\.xml$/,
  /^word\/comments\.xml$/,
  /^word\/header\d*\.xml$/,
  /^word\/footer\d*\.xml$/,
];
const CORE = "docProps/core.xml";

/** What was deleted or moved away; what stands there a second time for old readers; where tabs are, not tabs. */
const UNREAD = new Set(["del", "moveFrom", "Fallback", "tabs", "instrText", "delText"]);
const SIGNS: Readonly<Record<string, string>> = { tab: "\t", ptab: "\t", br: "\n", cr: "\n", noBreakHyphen: "-" };

/** Throws Exception `damaged`, `encrypted`, `no_text`, `too_large` (a bomb), `unsupported` (an archive that is no document). */
export function readWord(bytes: Uint8Array): Extracted {
  const members = membersOf(bytes);
  const parts = PARTS.flatMap((pattern) => members.filter(({ name }) => pattern.test(name)));
  if (!members.some(({ name }) => PARTS[0].test(name))) throw new Exception("unsupported", "The archive is no Word document");
  const core = members.find(({ name }) => name === CORE);
  const declared = [...parts, ...core ? [core] : []].reduce((sum, { size }) => sum + size, 0);
  if (declared > MAX_INFLATED) throw new Exception("too_large", "The document inflates to more than can be read");
  const budget: Budget = { left: MAX_INFLATED };
  const body = new Body();
  for (const part of parts) scan(xmlOf(bytes, part, budget), "xml", body, () => body.gathered.full);
  const read = plain(body.gathered.text.replace(/\n+$/, ""));
  if (!/\S/.test(read.text)) throw new Exception("no_text", "The document has no text");
  const content_type = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";
  return { kind: "word", content_type, ...read, ...(core && propertiesOf(xmlOf(bytes, core, budget))) };
}

function* xmlOf(bytes: Uint8Array, member: Member, budget: Budget): Generator<string> {
  let decoder: TextDecoder | undefined;
  for (const piece of inflated(bytes, member, budget)) {
    // XML without a BOM of UTF-16 is UTF-8, whatever else it could be: Word writes no other.
    const wide = piece[0] === 0xff && piece[1] === 0xfe ? "utf-16le" : piece[0] === 0xfe && piece[1] === 0xff ? "utf-16be" : "utf-8";
    decoder ??= new TextDecoder(wide);
    yield decoder.decode(piece, { stream: true });
  }
}

class Body implements Markup {
  readonly gathered = new Gathered();
  #unread = 0;
  /** Only what stands in a text element is text; the rest lays out the XML. */
  #inText = 0;

  text(text: string): void {
    if (this.#inText > 0 && this.#unread === 0) this.gathered.add(text);
  }

  open(name: string): void {
    if (UNREAD.has(name)) this.#unread++;
    else if (name === "t") this.#inText++;
    else if (this.#unread === 0 && Object.hasOwn(SIGNS, name)) this.gathered.add(SIGNS[name]);
  }

  close(name: string): void {
    if (UNREAD.has(name)) this.#unread = Math.max(0, this.#unread - 1);
    else if (name === "t") this.#inText = Math.max(0, this.#inText - 1);
    else if (name === "p" && this.#unread === 0 && !this.gathered.empty) this.gathered.add("\n");
  }
}

function propertiesOf(xml: Iterable<string>): Pick<Extracted, "title" | "author" | "date"> {
  const found: Record<"title" | "creator" | "created", string> = { title: "", creator: "", created: "" };
  let within: keyof typeof found | undefined;
  try {
    scan(
      xml,
      "xml",
      {
        text: (text) => void (within && (found[within] = (found[within] + text).slice(0, 10_000))),
        open: (name) => within = name === "title" || name === "creator" || name === "created" ? name : undefined,
        close: () => within = undefined,
      },
      () => false,
    );
  } catch (error) {
    // They are worth less than the text that was read.
    if (!(error instanceof Exception)) throw error;
  }
  const [title, author, date] = [line(found.title), line(found.creator), iso(found.created)];
  return { ...(title && { title }), ...(author && { author }), ...(date && { date }) };
}
