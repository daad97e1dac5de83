/** What goes into the search index of a case, and what comes out of it. */

/** A document as it is found. `to`: all recipients. `type`: email, pdf, word… `date`: YYYY-MM-DD. */
export interface Indexed {
  id: string;
  text: string;
  title: string;
  subject: string;
  from: string;
  to: string;
  type: string;
  date: string | null;
  tags: string[];
  custodian: string;
  filename: string;
}

/** What is not of the text. `revision` is that of `visible`, `custodian` and `tags`; `coding` that of `coded`, the reviewers' tags. */
export interface Change {
  readonly id: string;
  readonly revision?: number;
  readonly visible?: boolean;
  readonly custodian?: string;
  readonly tags?: readonly string[];
  readonly coding?: number;
  readonly coded?: readonly string[];
}

export interface SearchOptions {
  /** False: only documents marked visible, as if there were no others. */
  readonly all: boolean;
  /** Inclusive days, YYYY-MM-DD. */
  readonly dates?: { readonly start?: string; readonly end?: string };
  /** Only what came or changed after that, as an earlier search was told. */
  readonly after?: number;
  /** How many results. */
  readonly limit: number;
  /** How many matches are ranked, the newest. */
  readonly candidates: number;
}

/** `score`: higher is better; it tells how common the words are in all documents, so it is not shown to those who may not see all. `snippets`: at most 3 pieces of HTML, of at most 300 units each, escaped, with `<mark>` around what fits. */
export interface Hit {
  id: string;
  score: number;
  snippets: string[];
}

/** `total` is exact up to 10,000 matches. `documents`: how many there are in the index, hidden ones too: not to be told. `change`: how far it is. */
export interface Found {
  results: Hit[];
  total: number;
  exact: boolean;
  documents: number;
  change: number;
}
