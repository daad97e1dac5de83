/** Markup that users send to each other: what is not on this list does not survive. npm `xss` walks it: parsing HTML is no craft of ours. */
import { escapeAttrValue, escapeHtml, FilterXSS, friendlyAttrValue } from "xss";

const BARE = ["b", "i", "em", "strong", "u", "s", "mark", "sub", "sup", "code", "pre", "blockquote", "p", "br", "hr", "div", "span", "ul", "ol", "li"];
const HEADINGS = ["h1", "h2", "h3", "h4", "h5", "h6"];
const TABLE = ["table", "thead", "tbody", "tr", "th", "td"];

/** Where a link may lead: no script, no data. */
const LINK = /^(?:https?:\/\/|mailto:)/i;

const filter = new FilterXSS({
  whiteList: { ...Object.fromEntries([...BARE, ...HEADINGS, ...TABLE].map((tag) => [tag, []])), a: ["href", "title"] },
  // A sign that begins no tag is text, and stays.
  onIgnoreTag: (_tag, html) => /^<[/!?]?[a-z]/i.test(html) || html.startsWith("<!") ? "" : escapeHtml(html),
  // With all that stands in them.
  stripIgnoreTagBody: ["script", "style"],
  css: false,
  safeAttrValue: (_tag, name, value) => {
    const read = friendlyAttrValue(value).trim();
    return name === "href" && !LINK.test(read) ? "" : escapeAttrValue(read);
  },
});

/** The text with harmless markup left and everything else taken out. */
export function cleanHtml(html: string): string {
  return filter.process(html);
}

/** Cleans, in place, every text called `html`, at whatever depth. [V04] */
export function cleanFields(value: object): void {
  for (const key in value) {
    const inner = (value as Record<string, unknown>)[key];
    if (typeof inner === "string") { if (key === "html") (value as Record<string, unknown>)[key] = cleanHtml(inner); }
    else if (typeof inner === "object" && inner !== null) cleanFields(inner);
  }
}
