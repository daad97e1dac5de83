/** What extraction takes and gives: the shapes that all formats share, and how their text is kept clean and bounded. */

/** Told to users: why a document has no text. */
export type ExceptionCode = "empty" | "unsupported" | "encrypted" | "damaged" | "no_text" | "too_large" | "too_deep" | "wrong_type";

/** Why a document has no text; `code` is told to users. */
export class Exception extends Error {
  override readonly name = "Exception";

  constructor(readonly code: ExceptionCode, message: string) {
    super(message);
  }
}

export interface Source {
  readonly bytes: Uint8Array;
  readonly filename: string;
  /** As declared by the uploader; not trusted. */
  readonly content_type: string;
}

export interface Attachment {
  /** No path, no control characters; at most 255 UTF-16 units. */
  readonly filename: string;
  readonly content_type: string;
  readonly bytes: Uint8Array;
  /** "attachment": belongs to a mail, and inherits its privilege. "member": one of an archive's (a mail of an mbox). */
  readonly kind: "attachment" | "member";
}

export type Attach = (attachment: Attachment) => void;

export interface Extracted {
  readonly kind: "email" | "archive" | "pdf" | "word" | "html" | "text";
  /** What it really is, by its bytes. */
  readonly content_type: string;
  /** Plain text, well-formed Unicode, no NUL, newlines "\n"; pages of a PDF are divided by "\f". At most MAX_TEXT UTF-16 units. */
  readonly text: string;
  readonly truncated: boolean;
  readonly pages?: number;
  readonly title?: string;
  readonly author?: string;
  /** ISO 8601. */
  readonly date?: string;
  /** Of mail: "Name <address>". */
  readonly from?: string;
  readonly to?: readonly string[];
  readonly cc?: readonly string[];
  readonly bcc?: readonly string[];
  readonly subject?: string;
  readonly message_id?: string;
}

/** UTF-16 units. */
export const MAX_TEXT = 10_000_000;
/** Of one mail. */
export const MAX_ATTACHMENTS = 1000;
/** UTF-16 units of a title, a name, a subject. */
const MAX_LINE = 2000;
const MAX_FILENAME = 255;

/** Text of unknown origin, made plain and no longer than MAX_TEXT. */
export function plain(text: string): Pick<Extracted, "text" | "truncated"> {
  const truncated = text.length > MAX_TEXT;
  const kept = truncated ? text.slice(0, MAX_TEXT) : text;
  const clean = /[\r\0]/.test(kept) ? kept.replaceAll("\r\n", "\n").replaceAll("\r", "\n").replaceAll("\0", "") : kept;
  // A pair of surrogates that was cut in two would be one unit that no encoding knows.
  return { text: clean.toWellFormed(), truncated };
}

// deno-lint-ignore no-control-regex -- they are what it is about.
const CONTROL = /[\x00-\x1f\x7f-\x9f\u2028\u2029]+/g;

/** One line of a header or of metadata; undefined when nothing is there. */
export function line(text: unknown): string | undefined {
  if (typeof text !== "string") return undefined;
  return text.slice(0, MAX_LINE).replace(CONTROL, " ").trim().toWellFormed() || undefined;
}

/** ISO 8601; undefined for what is no date of our era. */
export function iso(date: string | undefined): string | undefined {
  const time = date ? new Date(date.slice(0, 100)) : undefined;
  if (!time || Number.isNaN(time.getTime())) return undefined;
  const year = time.getUTCFullYear();
  return year >= 1 && year <= 9999 ? time.toISOString() : undefined;
}

/** "Name <address>", or what there is of it: an address without a name stands bare. */
export function mailbox(name: string | undefined, address: string | undefined): string | undefined {
  const [known, at] = [line(name), line(address)];
  return known && at && known !== at ? `${known} <${at}>` : at ?? known;
}

// Right-to-left marks make "exe.fdp" of "pdf.exe"; what has no width hides.
const UNSEEN = /[\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff]+/g;

/** A name that is only a name: no path, nothing unseen; `fallback` when nothing is left of it. */
export function filename(given: string | null | undefined, fallback: string): string {
  const name = (given ?? "").slice(-10 * MAX_FILENAME).replace(/^.*[/\\]/s, "").replace(CONTROL, "").replace(UNSEEN, "").toWellFormed().trim();
  if (!name || /^\.+$/.test(name)) return fallback;
  if (name.length <= MAX_FILENAME) return name;
  const extension = /\.[^.]{1,15}$/.exec(name)?.[0] ?? "";
  return (name.slice(0, MAX_FILENAME - extension.length) + extension).toWellFormed();
}

/** Text that is gathered piece by piece, up to MAX_TEXT; many small pieces cost no more than their length. */
export class Gathered {
  readonly #chunks: string[] = [];
  #pieces: string[] = [];
  #length = 0;

  get full(): boolean {
    return this.#length > MAX_TEXT;
  }

  get empty(): boolean {
    return this.#length === 0;
  }

  add(piece: string): void {
    if (this.full || !piece) return;
    this.#length += piece.length;
    this.#pieces.push(piece);
    if (this.#pieces.length < 4096) return;
    this.#chunks.push(this.#pieces.join(""));
    this.#pieces = [];
  }

  get text(): string {
    return this.#chunks.join("") + this.#pieces.join("");
  }
}
