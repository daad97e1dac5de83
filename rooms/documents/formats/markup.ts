/**
 * HTML and XML as a stream of texts and tags. It keeps no stack, so nesting costs nothing however deep it is; htmlparser2's
 * own Parser searches its stack at every closing tag, which a hostile page turns into hours.
 */
import { Tokenizer } from "htmlparser2";

export interface Markup {
  text(text: string): void;
  /** In lower case for HTML. `name` is without its prefix for XML. */
  open(name: string): void;
  close(name: string): void;
}

/** Longer names are no names of ours. */
const MAX_NAME = 64;

/** Reads to the end, or until `done` says that it is enough. */
export function scan(chunks: Iterable<string>, language: "html" | "xml", markup: Markup, done: () => boolean): void {
  const pieces = new Pieces();
  const xml = language === "xml";
  let opened = "";
  const nameAt = (start: number, end: number) => {
    const name = pieces.slice(start, Math.min(end, start + MAX_NAME));
    return xml ? name.slice(name.indexOf(":") + 1) : name.toLowerCase();
  };
  const ignore = () => {};
  const tokenizer = new Tokenizer({ xmlMode: xml }, {
    ontext: (start, end) => markup.text(pieces.slice(start, end)),
    ontextentity: (codepoint) => markup.text(String.fromCodePoint(codepoint)),
    oncdata: (start, end, offset) => markup.text(pieces.slice(start, end - offset)),
    onopentagname: (start, end) => markup.open(opened = nameAt(start, end)),
    onselfclosingtag: () => markup.close(opened),
    onclosetag: (start, end) => markup.close(nameAt(start, end)),
    onopentagend: ignore,
    onattribdata: ignore,
    onattribentity: ignore,
    onattribend: ignore,
    onattribname: ignore,
    oncomment: ignore,
    ondeclaration: ignore,
    onprocessinginstruction: ignore,
    onend: ignore,
  });
  for (const chunk of chunks) {
    if (done()) return;
    pieces.push(chunk);
    tokenizer.write(chunk);
  }
  tokenizer.end();
}

/** What was read so far, by position; positions are asked for in rising order. */
class Pieces {
  readonly #pieces: string[] = [];
  /** Where the first of them begins. */
  #start = 0;

  push(piece: string): void {
    this.#pieces.push(piece);
  }

  slice(start: number, end: number): string {
    while (this.#pieces.length > 1 && start - this.#start >= this.#pieces[0].length) this.#start += this.#pieces.shift()!.length;
    let slice = this.#pieces[0].slice(start - this.#start, end - this.#start);
    let at = this.#start + this.#pieces[0].length;
    for (let next = 1; at < end && next < this.#pieces.length; next++) {
      slice += this.#pieces[next].slice(0, end - at);
      at += this.#pieces[next].length;
    }
    return slice;
  }
}
