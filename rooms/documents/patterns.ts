/** Dates, amounts of money and postal addresses by their written form. Every pattern has bounded repetitions: time is linear in the text. */

export interface Found {
  readonly text: string;
  readonly at: number;
  readonly confidence: number;
}
/** `date`: YYYY-MM-DD; absent when day and month cannot be told apart. */
export interface FoundDate extends Found {
  readonly date?: string;
}
/** `currency`: ISO 4217; XXX when none is named. */
export interface FoundMoney extends Found {
  readonly amount: number;
  readonly currency: string;
}

/** So many of a kind are looked at. */
const MOST = 2000;

const MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const MONTH =
  "(?<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\\.?";
const DAY = "(?<day>\\d{1,2})(?:st|nd|rd|th)?";
const DATES = [
  /(?<![\d-])(?<year>\d{4})-(?<month>\d{2})-(?<day>\d{2})(?![\d-])/g,
  new RegExp(`(?<![\\d.,/-])${DAY}\\s{1,2}(?:of\\s)?${MONTH},?\\s{1,2}(?<year>\\d{4})(?!\\d)`, "gi"),
  new RegExp(`\\b${MONTH}\\s{1,2}${DAY},?\\s{1,2}(?<year>\\d{4})(?!\\d)`, "gi"),
];
const NUMERIC = /(?<![\d./-])(\d{1,2})(?:\/(\d{1,2})\/(\d{4}|\d{2})|-(\d{1,2})-(\d{4})|\.(\d{1,2})\.(\d{4}))(?![\d/-]|\.\d)/g;

function isoDate(year: number, month: number, day: number): string | undefined {
  const time = new Date(Date.UTC(year, month - 1, day));
  if (year < 1000 || year > 2999 || time.getUTCMonth() !== month - 1 || time.getUTCDate() !== day) return undefined;
  return time.toISOString().slice(0, 10);
}

function limited(text: string, pattern: RegExp): RegExpExecArray[] {
  return [...text.matchAll(pattern).take(MOST)];
}

export function dates(text: string): FoundDate[] {
  const found: FoundDate[] = [];
  for (const pattern of DATES) {
    for (const match of limited(text, pattern)) {
      const { year, month, day } = match.groups!;
      const date = isoDate(Number(year), /^\d/.test(month) ? Number(month) : MONTHS.indexOf(month.slice(0, 3).toLowerCase()) + 1, Number(day));
      if (date) found.push({ text: match[0], at: match.index, confidence: 0.95, date });
    }
  }
  return [...found, ...numericDates(text)].toSorted((a, b) => a.at - b.at);
}

/** 13/01/2024 tells how its author writes them all; without such a one 01/03/2024 may be either day. */
function numericDates(text: string): FoundDate[] {
  const all = limited(text, NUMERIC).map((match) => {
    const [first, second] = [Number(match[1]), Number(match[2] ?? match[4] ?? match[6])];
    const year = Number(match[3] ?? match[5] ?? match[7]);
    return { match, first, second, year: year < 100 ? year + (year < 70 ? 2000 : 1900) : year, dotted: match[6] !== undefined };
  });
  const told = all.filter(({ dotted }) => !dotted);
  const dayFirst = told.some(({ first, second }) => first > 12 && second <= 12);
  const monthFirst = told.some(({ first, second }) => second > 12 && first <= 12);
  return all.flatMap(({ match, first, second, year, dotted }): FoundDate[] => {
    const [inDays, inMonths] = [isoDate(year, second, first), isoDate(year, first, second)];
    const sure = dotted || first === second || first > 12 || second > 12;
    const found = { text: match[0], at: match.index };
    if (sure) {
      const date = dotted ? inDays : inDays ?? inMonths;
      return date ? [{ ...found, date, confidence: match[3]?.length === 2 ? 0.75 : 0.9 }] : [];
    }
    if (!inDays || !inMonths) return [];
    return [dayFirst === monthFirst ? { ...found, confidence: 0.5 } : { ...found, date: dayFirst ? inDays : inMonths, confidence: 0.75 }];
  });
}

const CURRENCIES: Readonly<Record<string, string>> = {
  "us$": "USD",
  "a$": "AUD",
  "c$": "CAD",
  "$": "USD",
  "€": "EUR",
  "£": "GBP",
  "¥": "JPY",
  "₹": "INR",
  dollar: "USD",
  dollars: "USD",
  euro: "EUR",
  euros: "EUR",
  "pounds sterling": "GBP",
};
const CODE = "(?:USD|EUR|GBP|CHF|JPY|CAD|AUD|INR|CNY|SEK|NOK|DKK)";
const SIGN = "(?:US\\$|[AC]\\$|[$€£¥₹])";
const NUMBER = "\\d{1,15}(?:[.,]\\d{1,3}){0,6}";
const SCALE = "(?:thousand|million|billion|trillion|mio|mrd|bn|mn|mm|tn|[kmb])\\b";
const MONEY = new RegExp(
  `(?<![\\w$€£])(?<before>${SIGN}|${CODE})\\s?(?<n1>${NUMBER})(?!\\d)(?:\\s?-?(?<s1>${SCALE}))?(?:\\s?(?<code>${CODE})\\b)?` +
    `|(?<![\\w.,])(?<n2>${NUMBER})(?!\\d)(?:\\s?(?<s2>${SCALE}))?\\s?(?<after>${CODE}\\b|[€£]|(?:US )?dollars?\\b|euros?\\b|pounds sterling\\b)` +
    `|(?<![\\w.,])(?<n3>${NUMBER})(?<s3>bn)\\b`,
  "gi",
);
const SCALES: readonly (readonly [RegExp, number])[] = [[/^(?:thousand|k)/i, 1e3], [/^(?:million|mio|mn|mm|m$)/i, 1e6], [/^(?:billion|bn|mrd|b$)/i, 1e9], [
  /^t/i,
  1e12,
]];

/** 1,234.56 and 1.234,56: the last sign parts the decimals, unless it comes twice or three digits follow; 1.234 million has decimals all the same. */
function amountOf(written: string, scaled: boolean): number {
  const last = Math.max(written.lastIndexOf("."), written.lastIndexOf(","));
  if (last < 0) return Number(written);
  const sign = written[last];
  const decimals = written.slice(last + 1);
  const alone = !written.includes(sign === "." ? "," : ".");
  const thousands = written.indexOf(sign) !== last || (alone && decimals.length === 3 && !(scaled && sign === "."));
  return thousands ? Number(written.replace(/[.,]/g, "")) : Number(`${written.slice(0, last).replace(/[.,]/g, "")}.${decimals}`);
}

export function money(text: string): FoundMoney[] {
  return limited(text, MONEY).flatMap((match): FoundMoney[] => {
    const { before, n1, s1, code, n2, s2, after, n3, s3 } = match.groups!;
    const scale = s1 ?? s2 ?? s3;
    const factor = scale ? SCALES.find(([pattern]) => pattern.test(scale))![1] : 1;
    const amount = Math.round(amountOf(n1 ?? n2 ?? n3, scale !== undefined) * factor * 100) / 100;
    const named = (code ?? before ?? after)?.toLowerCase().replace(/^us (?=d)/, "");
    const currency = named === undefined ? "XXX" : CURRENCIES[named] ?? named.toUpperCase();
    if (!Number.isSafeInteger(Math.round(amount))) return [];
    return [{ text: match[0].trim(), at: match.index, amount, currency, confidence: named === undefined ? 0.5 : 0.95 }];
  });
}

const WORD = "(?:[A-Z][\\w'’.-]{0,24}|\\d{1,3}(?:st|nd|rd|th))";
const STREET = "(?:Street|St|Avenue|Ave|Road|Rd|Boulevard|Blvd|Drive|Dr|Lane|Ln|Court|Ct|Plaza|Square|Sq|Way|Parkway|Pkwy|Highway|Hwy|Terrace|Place|Pl)";
const REST = "(?:,?\\s(?:Suite|Ste\\.?|Floor|Fl\\.?|Apt\\.?|Unit|#)\\s?[\\w-]{1,8})?" +
  `(?:,?\\s{1,3}[A-Z][A-Za-z.'-]{1,24}(?: [A-Z][A-Za-z.'-]{1,24}){0,2},?\\s{1,2}[A-Z]{2}\\.?\\s{1,2}\\d{5}(?:-\\d{4})?)?`;
const ADDRESSES = [
  new RegExp(`(?<![\\w$€£.,/-])\\d{1,6}[A-Z]?\\s(?:[NSEW]\\.?\\s)?(?:${WORD}\\s){1,4}${STREET}\\b\\.?${REST}`, "g"),
  new RegExp(`\\bP\\.?\\s?O\\.?\\sBox\\s\\d{1,8}${REST}`, "g"),
  /(?<![\p{L}\d])\p{Lu}[\p{L}-]{2,30}(?:straße|strasse|str\.|platz|weg|allee|gasse)\s\d{1,4}[a-z]?\b(?:,?\s{1,2}\d{5}\s\p{Lu}\p{L}{2,24})?/gu,
];

export function addresses(text: string): Found[] {
  return ADDRESSES.flatMap((pattern) => limited(text, pattern).map((match) => ({ text: match[0], at: match.index, confidence: 0.8 })));
}
