/** HTML as a reader sees it: text, with a line for each block. */
import { charsetOf, pieces } from "./charset.ts";
import { Exception, type Extracted, Gathered, line, plain } from "./extracted.ts";
import { scan } from "./markup.ts";

/** Nobody reads what is in them. */
const UNREAD = new Set(["script", "style", "template", "noframes", "iframe", "noembed", "select", "datalist"]);
const BLOCKS = new Set(
  ("address article aside blockquote body center dd details dialog div dl dt fieldset figcaption figure footer form h1 h2 h3 h4 h5 h6 head header hr html legend li " +
    "main nav ol option p pre section summary table tbody tfoot thead title tr ul").split(" "),
);

/** Throws Exception `no_text`. */
export async function readHtml(bytes: Uint8Array): Promise<Extracted> {
  const { title, ...read } = textOfHtml(pieces(bytes, await charsetOf(bytes, "html")));
  if (!read.text && !title) throw new Exception("no_text", "The page has no text");
  return { kind: "html", content_type: "text/html", ...read, ...(title && { title }) };
}

/** The text of a page, and its title. */
export function textOfHtml(html: Iterable<string>): Pick<Extracted, "text" | "truncated" | "title"> {
  const page = new Page();
  scan(html, "html", page, () => page.body.full);
  return { ...plain(page.body.text.trim()), title: line(page.title.replace(/\s+/g, " ")) };
}

class Page {
  readonly body = new Gathered();
  title = "";
  /** How many of those that are not read are open, and of those that keep their spaces. */
  #unread = 0;
  #pre = 0;
  #inTitle = false;
  /** What stands between the text so far and the next. */
  #gap: "" | " " | "\n" = "";

  text(text: string): void {
    if (this.#unread > 0) return;
    if (this.#inTitle) this.title = (this.title + text).slice(0, 10_000);
    else if (this.#pre > 0) this.#add(text);
    else this.#flow(text.replaceAll("\u00a0", " "));
  }

  open(name: string): void {
    if (UNREAD.has(name)) this.#unread++;
    else if (name === "title") this.#inTitle = this.title === "";
    else if (name === "pre") this.#pre++;
    else if (name === "br") this.#add("\n");
    else if (name === "td" || name === "th") this.#gap ||= " ";
    if (BLOCKS.has(name)) this.#gap = "\n";
  }

  close(name: string): void {
    if (UNREAD.has(name)) this.#unread = Math.max(0, this.#unread - 1);
    else if (name === "title") this.#inTitle = false;
    else if (name === "pre") this.#pre = Math.max(0, this.#pre - 1);
    if (BLOCKS.has(name)) this.#gap = "\n";
  }

  #flow(text: string): void {
    const words = text.replace(/[ \t\r\n\f]+/g, " ");
    if (words.startsWith(" ")) this.#gap ||= " ";
    const trimmed = words.trim();
    if (!trimmed) return;
    this.#add(trimmed);
    if (words.endsWith(" ")) this.#gap = " ";
  }

  #add(text: string): void {
    if (!this.body.empty && text !== "\n") this.body.add(this.#gap);
    this.body.add(text);
    this.#gap = "";
  }
}
