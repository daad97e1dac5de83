/** What of a text its author wrote in sentences: without headers, code, links, signatures, disclaimers and, where asked, what he quotes. */

/** What a disclaimer says, wherever it stands. It is boilerplate: nobody meant this message by it. */
export const BOILERPLATE =
  /intended (?:only |solely |exclusively )?(?:for|to be)\b.{0,40}\b(?:use|recipient|addressee|person|individual|named)|(?:not|other than) (?:an? |the )?(?:intended|named) (?:recipient|addressee)|in error,? (?:please|kindly|you)|(?:received|sent to you) (?:this |the )?(?:e-?mail|message|communication|transmission)? ?in error|this (?:e-?mail|message|communication|transmission|facsimile)\b.{0,80}\b(?:may|might|is|are|contains?)\b.{0,60}\b(?:confidential|privileged|proprietary)|(?:privileged|confidential)\b.{0,60}\bmay be contained in this|any (?:unauthori[sz]ed )?(?:review|use|disclosure|dissemination|distribution|copying)\b.{0,120}\b(?:prohibited|unlawful|forbidden)|views expressed .{0,60}those of the (?:author|sender|individual)|(?:checked|scanned) (?:for|by) .{0,30}(?:virus|malware)|notify the sender|confidentiality notice|legal disclaimer/is;

/** What a mailing list or a free mail provider adds. */
const FOOTER =
  /\bunsubscri|\(un\)subscri|subscription options|mailing list\s*$|list maintainer|e-?mail is sponsored by|do you yahoo|get your free .{0,40}e-?mail|sent from my \w/i;

const NOISE_HEADER =
  /^[ \t>]{0,10}(?:received|return-path|message-id|delivered-to|content-[\w-]{1,40}|mime-version|references|in-reply-to|dkim-signature|authentication-results|precedence|user-agent|errors-to|reply-to|importance|thread-[\w-]{1,20}|list-[\w-]{1,20}|x-[\w-]{1,60}|from|to|cc|bcc|sent|date|subject|attachments?):\s/i;
const CONTINUED = /^[ \t]+\S.{0,200}[=;<@]/;
const QUOTED = /^\s{0,3}(?:>|\|\s)/;
const ATTRIBUTION = /^[ \t]{0,3}(?:on|am|le)\b.{5,200}\b(?:wrote|writes|schrieb|écrit)\s?:\s*$|^.{2,120}\b(?:wrote|writes|said)\s?:\s*$/i;
const QUOTE_BEGINS = /^[ \t]*(?:-{2,}\s?(?:original message|forwarded (?:message|by)|begin forwarded)|_{20,}\s*$|begin forwarded message:)/i;
const FAREWELL =
  /^[ \t]*(?:(?:best|kind|warm|many)\s+)?(?:regards|wishes|thanks|thank you|sincerely|cheers|yours (?:truly|sincerely|faithfully)|sincerely yours|best)[,.!]?\s*$/i;
const SIGNATURE = /^--\s?$/;
/** A signature is no longer than this. */
const SIGNATURE_LINES = 12;
/** A line of letters without a space is data. */
const DATA = /^\s*[A-Za-z0-9+/=_-]{40,}\s*$/;
export const LINK = /\b(?:https?|ftp):\/\/\S{1,2000}|\bwww\.\S{1,2000}|<mailto:\S{1,300}|[\w.+-]{1,64}@[\w.-]{1,255}/gi;
const LONGEST_WORD = 60;

/** Paragraphs, parted by line breaks; the lines of one are joined. Looks at `most` units of the text. */
export function prose(text: string, most: number, quotes: "with quotes" | "without quotes"): string {
  const lines = text.slice(0, most).toWellFormed().replace(/\r\n?|[\u2028\u2029\f\v]/g, "\n").split("\n");
  const kept = quotes === "without quotes" ? own(lines) : lines.map((line) => QUOTE_BEGINS.test(line) ? "" : line.replace(/^[\s>|]{1,40}/, ""));
  return joined(dataless(kept));
}

function own(lines: readonly string[]): string[] {
  const kept: string[] = [];
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at];
    const left = lines.length - at - 1;
    // What follows is another's mail, unless it is only parted by a rule.
    if (QUOTE_BEGINS.test(line) && (!line.includes("____") || /^\s*from:/i.test(lines.slice(at + 1, at + 3).join("\n").trim()))) break;
    if ((SIGNATURE.test(line) || FAREWELL.test(line)) && signs(lines, at)) {
      // What stands below a signature is quoted or boilerplate.
      break;
    }
    // An attribution may be wrapped.
    const wrapped = ATTRIBUTION.test(`${line} ${lines[at + 1] ?? ""}`) && /^\s{0,3}on\b/i.test(line);
    if (QUOTED.test(line) || (ATTRIBUTION.test(line) && left > 0 && QUOTED.test(lines.slice(at + 1, at + 3).find((next) => next.trim() !== "") ?? ""))) {
      continue;
    }
    if (wrapped) at++;
    else kept.push(line);
  }
  return kept;
}

/** Whether few enough lines of the author's own follow. */
function signs(lines: readonly string[], at: number): boolean {
  let own = 0;
  for (let next = at + 1; next < lines.length; next++) {
    const line = lines[next];
    if (QUOTE_BEGINS.test(line)) return true;
    if (line.trim() === "" || QUOTED.test(line) || BOILERPLATE.test(line.slice(0, 400))) continue;
    if (++own > SIGNATURE_LINES) return false;
  }
  return true;
}

function dataless(lines: readonly string[]): string[] {
  let header = false;
  return lines.map((line) => {
    header = NOISE_HEADER.test(line) || (header && CONTINUED.test(line));
    if (header || DATA.test(line)) return "";
    const words = line.replace(LINK, " ").split(/\s+/).filter((word) => word.length <= LONGEST_WORD).join(" ").trim();
    const signs = words.replace(/[\p{L}\p{M}\s]/gu, "").length;
    // A table, a rule, code.
    return signs * 3 > words.length ? "" : words;
  });
}

/** A line goes on in the next one when it is nearly full, or when the next one begins small. */
function joined(lines: readonly string[]): string {
  const parts: string[] = [];
  let before = "";
  for (const line of lines) {
    if (line === "") {
      before = "";
      continue;
    }
    const goesOn = before !== "" && (before.length >= 45 || /^\p{Ll}/u.test(line));
    parts.push(parts.length === 0 ? "" : goesOn ? " " : "\n", line);
    before = line;
  }
  return parts.join("");
}

const SENTENCES = new Intl.Segmenter("en", { granularity: "sentence" });
/** The segmenter takes their dot for a full stop. */
const ABBREVIATED = /(?:^|[\s(])(?:mr|mrs|ms|dr|prof|vs?|no|nos|inc|corp|co|ltd|st|jr|sr|esq|dept|approx|e\.g|i\.e|u\.s|[a-z])\.\s*$/i;

/** The first `most` sentences, disclaimers left out; one that is longer than 800 units is cut there. */
export function sentences(text: string, most: number): string[] {
  const found: string[] = [];
  let open = "";
  for (const { segment } of SENTENCES.segment(text)) {
    open += segment;
    if (open.length < 800 && !segment.endsWith("\n") && ABBREVIATED.test(segment.slice(-20))) continue;
    const sentence = open.slice(0, 800).trim();
    open = "";
    if (sentence !== "" && !BOILERPLATE.test(sentence) && !FOOTER.test(sentence)) found.push(sentence);
    if (found.length >= most) return found;
  }
  if (open.trim() !== "") found.push(open.slice(0, 800).trim());
  return found;
}
