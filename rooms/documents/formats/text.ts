/** Plain text in whatever charset: notes, tables, logs, source. */
import { charsetOf, pieces } from "./charset.ts";
import { Exception, type Extracted, Gathered, plain } from "./extracted.ts";

const TYPES: Readonly<Record<string, string>> = {
  csv: "text/csv",
  tsv: "text/tab-separated-values",
  md: "text/markdown",
  json: "application/json",
  ics: "text/calendar",
};

/** Throws Exception `empty`. */
export async function readText(bytes: Uint8Array, extension: string): Promise<Extracted> {
  const gathered = new Gathered();
  for (const piece of pieces(bytes, await charsetOf(bytes, "text"))) {
    gathered.add(piece);
    if (gathered.full) break;
  }
  const read = plain(gathered.text);
  if (!/\S/.test(read.text)) throw new Exception("empty", "The file has no characters but spaces");
  return { kind: "text", content_type: Object.hasOwn(TYPES, extension) ? TYPES[extension] : "text/plain", ...read };
}
