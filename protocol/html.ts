/** Markup that users send to each other: what is not on this list does not survive. npm `xss` walks it: parsing HTML is no craft of ours. */
import { escapeAttrValue, escapeHtml, FilterXSS } from "xss";

const BARE = ["b", "i", "em", "strong", "u", "s", "mark", "sub", "sup", "code", "pre", "blockquote", "p", "br", "hr", "div", "span", "ul", "ol", "li"];
const HEADINGS = ["h1", "h2", "h3", "h4", "h5", "h6"];
const TABLE = ["table", "thead", "tbody", "tr", "th", "td"];

/** Where a link may lead: no script, no data. As it is written: no way of decoding it makes something else of these letters. */
const LINK = /^(?:https?:\/\/|mailto:)/i;

/** An attribute as it is written. Read here, for the package's own walk over a tag takes the square of its length. */
const ATTRIBUTE = /(?<![a-z-])(href|title)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s"'<>]+))/gi;

function link(html: string): string {
  const attributes = new Map<string, string>();
  for (const [, name, ...values] of html.matchAll(ATTRIBUTE)) {
    const value = values.find((value) => value !== undefined)!.trim();
    const key = name.toLowerCase();
    if (!attributes.has(key) && (key === "title" || LINK.test(value))) attributes.set(key, escapeAttrValue(value));
  }
  return `<a${[...attributes].map(([name, value]) => ` ${name}="${value}"`).join("")}>`;
}

const filter = new FilterXSS({
  whiteList: Object.fromEntries([...BARE, ...HEADINGS, ...TABLE, "a"].map((tag) => [tag, []])),
  // Only links have attributes.
  onTag: (tag, html, { isWhite, isClosing }) => {
    if (!isWhite) return undefined;
    if (isClosing) return `</${tag}>`;
    return tag === "a" ? link(html) : `<${tag}>`;
  },
  // A sign that begins no tag is text, and stays.
  onIgnoreTag: (_tag, html) => /^<[/!?]?[a-z]/i.test(html) || html.startsWith("<!") ? "" : escapeHtml(html),
  css: false,
});

/** The text with harmless markup left and everything else taken out. */
export function cleanHtml(html: string): string {
  // With all that stands in them, which nobody meant to be read.
  return filter.process(html.replaceAll(/<(script|style)\b[^<>]*>[\s\S]*?(?:<\/\1\s*>|$)/gi, ""));
}

/** Cleans, in place, every text called `html`, at whatever depth, and lists of such. [V04] Returns whether there was any. */
export function cleanFields(value: object): boolean {
  if (Array.isArray(value)) return cleanList(value, false);
  let any = false;
  for (const key in value) {
    const inner = (value as Record<string, unknown>)[key];
    if (typeof inner === "string") {
      if (key !== "html") continue;
      (value as Record<string, unknown>)[key] = cleanHtml(inner);
      any = true;
    } else if (typeof inner === "object" && inner !== null) {
      any = (Array.isArray(inner) ? cleanList(inner, key === "html") : cleanFields(inner)) || any;
    }
  }
  return any;
}

/** `texts`: the list's own texts are to be cleaned. (`for … in` over a long list takes many times as long.) */
function cleanList(list: unknown[], texts: boolean): boolean {
  let any = false;
  list.forEach((inner, index) => {
    if (typeof inner === "string" && texts) {
      list[index] = cleanHtml(inner);
      any = true;
    } else if (typeof inner === "object" && inner !== null) {
      any = (Array.isArray(inner) ? cleanList(inner, texts) : cleanFields(inner)) || any;
    }
  });
  return any;
}
