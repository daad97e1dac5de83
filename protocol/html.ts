/** Markup that users send to each other: what is not on this list does not survive. npm `xss` walks it: parsing HTML is no craft of ours. */
import { escapeAttrValue, escapeHtml, FilterXSS } from "xss";

const BARE = ["b", "i", "em", "strong", "u", "s", "mark", "sub", "sup", "code", "pre", "blockquote", "p", "br", "hr", "div", "span", "ul", "ol", "li"];
const HEADINGS = ["h1", "h2", "h3", "h4", "h5", "h6"];
const TABLE = ["table", "thead", "tbody", "tr", "th", "td"];

/** Where a link may lead: no script, no data. As it is written: no way of decoding it makes something else of these letters. */
const LINK = /^(?:https?:\/\/|mailto:)/i;

/** A link with more than this loses its attributes: the walk over them takes the square of it. */
const LINK_CHARACTERS = 2048;
const LINK_BLANKS = 64;

const filter = new FilterXSS({
  whiteList: { ...Object.fromEntries([...BARE, ...HEADINGS, ...TABLE].map((tag) => [tag, []])), a: ["href", "title"] },
  // Only links have attributes; undefined leaves it to the rules below.
  onTag: (tag, html, { isWhite, isClosing }) => {
    if (!isWhite) return undefined;
    if (isClosing) return `</${tag}>`;
    return tag !== "a" || html.length > LINK_CHARACTERS || html.split(/\s/, LINK_BLANKS + 1).length > LINK_BLANKS ? `<${tag}>` : undefined;
  },
  // A sign that begins no tag is text, and stays.
  onIgnoreTag: (_tag, html) => /^<[/!?]?[a-z]/i.test(html) || html.startsWith("<!") ? "" : escapeHtml(html),
  css: false,
  safeAttrValue: (_tag, name, value) => name === "href" && !LINK.test(value) ? "" : escapeAttrValue(value),
});

/** The text with harmless markup left and everything else taken out. */
export function cleanHtml(html: string): string {
  // With all that stands in them, which nobody meant to be read.
  return filter.process(html.replaceAll(/<(script|style)\b[^<>]*>[\s\S]*?(?:<\/\1\s*>|$)/gi, ""));
}

/** Cleans, in place, every text called `html`, at whatever depth, and lists of such. [V04] */
export function cleanFields(value: object, all = false): void {
  for (const key in value) {
    const inner = (value as Record<string, unknown>)[key];
    const clean = all || key === "html";
    if (typeof inner === "string") { if (clean) (value as Record<string, unknown>)[key] = cleanHtml(inner); }
    else if (typeof inner === "object" && inner !== null) cleanFields(inner, clean && Array.isArray(inner));
  }
}
