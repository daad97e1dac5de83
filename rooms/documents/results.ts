/** What analysis is given and what it says: the shape of its results, and the bounds that they keep whoever made them. */
import type { PrivilegeType } from "../../protocol/channels/privilege.ts";
import type { Extracted } from "./formats/extracted.ts";

export const STEPS = ["entity_extraction", "privilege_detection", "summarization"] as const;
export type Step = (typeof STEPS)[number];

/** A document's text, and what else is known of it. */
export type Facts = Pick<Extracted, "text" | "title" | "author" | "date" | "from" | "to" | "cc" | "bcc" | "subject"> & { readonly filename?: string };

export const ENTITY_TYPES = ["PERSON", "ORGANIZATION", "LOCATION", "DATE", "MONEY"] as const;
export type EntityType = (typeof ENTITY_TYPES)[number];

/** `normalized`: a person's mail address, a date as YYYY-MM-DD, money as `USD 1234.56`. */
export interface Entity {
  text: string;
  type: EntityType;
  confidence: number;
  count: number;
  normalized?: string;
}

/** `date`: YYYY-MM-DD. `context`: the words around it. */
export interface KeyDate {
  text: string;
  date: string;
  context?: string;
}

/** `currency`: ISO 4217; XXX when the text names none. */
export interface MonetaryAmount {
  text: string;
  amount: number;
  currency: string;
  context?: string;
}

/** `weight`: above zero it speaks for privilege, below against. `evidence`: a short quote. */
export type Factor = {
  factor: string;
  weight: number;
  evidence: string;
};

export type Analysis = {
  is_privileged: boolean;
  privilege_type: PrivilegeType;
  confidence: number;
  factors: Factor[];
  recommended_action: string;
  review_required: boolean;
};

/** As JSON at most 48,000 UTF-16 units; every string is one line of well-formed Unicode without control characters. */
export type Results = {
  entities?: Entity[];
  key_dates?: KeyDate[];
  monetary_amounts?: MonetaryAmount[];
  summary?: string;
  privilege_analysis?: Analysis;
};

/** How many entries a list may have, and how many UTF-16 units a string and the whole as JSON. */
export const BOUNDS = { entities: 200, dates: 50, amounts: 50, factors: 20, summary: 1500, name: 120, quote: 160, whole: 48_000 } as const;

/** The first units of a text; never half a character. */
export function cut(text: string, most: number): string {
  if (text.length <= most) return text;
  const last = text.charCodeAt(most - 1);
  return text.slice(0, last >= 0xd800 && last <= 0xdbff ? most - 1 : most);
}

/** One line of well-formed Unicode, without control characters and without marks that turn the reading order round. */
export function plain(text: string, most: number): string {
  // Cut before it is cleaned too: it may be millions of units of nothing.
  const line = cut(text, most * 4).toWellFormed().replace(/[\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff]/g, "").replace(/[\p{Cc}\s]+/gu, " ");
  return cut(line.trim(), most).trim();
}

/** At most so many units of the words around a place of the text. */
export function quote(text: string, at: number, length: number): string {
  const spare = Math.max(0, BOUNDS.quote - length);
  const start = Math.max(0, at - Math.floor(spare / 2));
  const around = text.slice(start, start + BOUNDS.quote);
  // A word that is cut in two is left out, unless the quote would be nothing then.
  const whole = (start > 0 ? around.replace(/^\S{0,30}\s/, "") : around).replace(start + BOUNDS.quote < text.length ? /\s\S{0,30}$/ : /$/, "");
  return plain(whole, BOUNDS.quote);
}

/** The same results within the bounds: strings cleaned and cut, lists cut at their ends, the longest first. */
export function bounded(results: Results): Results {
  const { name, quote } = BOUNDS;
  const context = (entry: { context?: string }) => entry.context === undefined ? {} : { context: plain(entry.context, quote) };
  const analysis = results.privilege_analysis;
  const fitting: Results = {
    ...(results.entities && {
      entities: results.entities.slice(0, BOUNDS.entities).map(({ normalized, ...entity }) => ({
        ...entity,
        text: plain(entity.text, name),
        ...(normalized !== undefined && { normalized: plain(normalized, name) }),
      })).filter(({ text }) => text !== ""),
    }),
    ...(results.key_dates && {
      key_dates: results.key_dates.slice(0, BOUNDS.dates).map((entry) => ({ ...entry, text: plain(entry.text, name), ...context(entry) })),
    }),
    ...(results.monetary_amounts && {
      monetary_amounts: results.monetary_amounts.slice(0, BOUNDS.amounts).map((entry) => ({ ...entry, text: plain(entry.text, name), ...context(entry) })),
    }),
    ...(results.summary !== undefined && { summary: plain(results.summary, BOUNDS.summary) }),
    ...(analysis && {
      privilege_analysis: {
        ...analysis,
        factors: analysis.factors.slice(0, BOUNDS.factors).map((one) => ({ ...one, factor: plain(one.factor, name), evidence: plain(one.evidence, quote) })),
        recommended_action: plain(analysis.recommended_action, 400),
      },
    }),
  };
  return shortened(fitting);
}

function shortened(results: Results): Results {
  const lists = [results.entities, results.key_dates, results.monetary_amounts].filter((list) => list !== undefined);
  const size = (value: unknown) => JSON.stringify(value).length;
  while (size(results) > BOUNDS.whole) {
    const longest = lists.reduce<unknown[]>((most, list) => size(list) > size(most) ? list : most, []);
    longest.length -= Math.ceil(longest.length / 10);
  }
  return results;
}
