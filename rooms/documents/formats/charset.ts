/** In which charset text was written, and its decoding piece by piece. */

/** Bytes that are decoded at a time. */
const PIECE = 1 << 20;
/** Bytes that a guess is made by. */
const SAMPLE = 1 << 16;

/** A label that TextDecoder knows. A BOM says most, then a page's own word, then whether it can be UTF-8, then a guess. */
export async function charsetOf(bytes: Uint8Array, language: "html" | "text"): Promise<string> {
  const marked = markOf(bytes) ?? (language === "html" ? declared(bytes) : undefined);
  if (marked) return marked;
  const ascii = asciiUntil(bytes);
  // ISO-2022-JP and its like are ASCII with escapes.
  if (isUtf8(bytes) && (ascii < bytes.length || !bytes.subarray(0, SAMPLE).includes(0x1b))) return "utf-8";
  const { detect } = await import("chardet");
  const from = ascii < bytes.length ? Math.max(0, ascii - SAMPLE / 4) : 0;
  return known(detect(bytes.subarray(from, from + SAMPLE)) ?? "") ?? "windows-1252";
}

/** What BOMs say, and zeroes in every other place. */
export function markOf(bytes: Uint8Array): "utf-8" | "utf-16le" | "utf-16be" | undefined {
  if (bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf) return "utf-8";
  if (bytes[0] === 0xff && bytes[1] === 0xfe) return "utf-16le";
  if (bytes[0] === 0xfe && bytes[1] === 0xff) return "utf-16be";
  const zeroes = [0, 0];
  const length = Math.min(bytes.length, 4096) & ~1;
  for (let at = 0; at < length; at++) if (bytes[at] === 0) zeroes[at & 1]++;
  // Latin text has hardly a character that is not half zero.
  const [even, odd] = zeroes.map((count) => count / (length / 2));
  return odd > 0.7 && even < 0.01 ? "utf-16le" : even > 0.7 && odd < 0.01 ? "utf-16be" : undefined;
}

function declared(bytes: Uint8Array): string | undefined {
  const head = new TextDecoder("latin1").decode(bytes.subarray(0, 4096));
  const label = /<meta\b[^>]{0,500}?\bcharset\s{0,20}=\s{0,20}["']?\s{0,20}([\w:.-]{2,40})/i.exec(head)?.[1] ??
    /^\s{0,100}<\?xml\b[^>]{0,200}?\bencoding\s{0,20}=\s{0,20}["']([\w:.-]{2,40})/i.exec(head)?.[1];
  const charset = label && known(label);
  // Who can be read so far in ASCII is not written in UTF-16; the HTML standard says UTF-8.
  return charset?.startsWith("utf-16") ? "utf-8" : charset;
}

function known(label: string): string | undefined {
  try {
    return new TextDecoder(label).encoding;
  } catch {
    return undefined;
  }
}

function asciiUntil(bytes: Uint8Array): number {
  for (let at = 0; at < bytes.length; at++) if (bytes[at] > 0x7f) return at;
  return bytes.length;
}

function isUtf8(bytes: Uint8Array): boolean {
  const decoder = new TextDecoder("utf-8", { fatal: true });
  try {
    for (let at = 0; at < bytes.length; at += PIECE) decoder.decode(bytes.subarray(at, at + PIECE), { stream: true });
    // A file that ends within a character is still UTF-8.
    return true;
  } catch {
    return false;
  }
}

/** The text in pieces; what is not of the charset is U+FFFD. */
export function* pieces(bytes: Uint8Array, charset: string): Generator<string> {
  const decoder = new TextDecoder(charset);
  for (let at = 0; at < bytes.length; at += PIECE) yield decoder.decode(bytes.subarray(at, at + PIECE), { stream: true });
  yield decoder.decode();
}
