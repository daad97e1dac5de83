/**
 * Presence: metas under keys, told as a state and as diffs in the form that phoenix.js syncs. [85 to 96]
 * Metas are kept as JSON text, so that a state costs a join of strings.
 */

/** One tracked meta; `json` includes its phx_ref. */
export interface Tracked {
  readonly key: string;
  readonly phx_ref: string;
  readonly json: string;
}

/** Makes the text of a meta. `phx_ref_prev` links an update to what it replaces. [90] Throws TypeError when it is no JSON. */
export function tracked(key: string, meta: object, phx_ref: string, phx_ref_prev?: string): Tracked {
  return { key, phx_ref, json: JSON.stringify({ ...meta, phx_ref, ...(phx_ref_prev && { phx_ref_prev }) }) };
}

type Metas = Map<string, Tracked[]>;

function add(metas: Metas, entry: Tracked, at = Infinity): void {
  const list = metas.get(entry.key);
  if (list) list.splice(at, 0, entry);
  else metas.set(entry.key, [entry]);
}

function remove(metas: Metas, entry: Tracked): boolean {
  const list = metas.get(entry.key);
  const index = list ? list.findIndex((other) => other.phx_ref === entry.phx_ref) : -1;
  if (index < 0) return false;
  list!.splice(index, 1);
  if (list!.length === 0) metas.delete(entry.key);
  return true;
}

function encode(metas: Metas): string {
  let json = "";
  for (const [key, list] of metas) {
    json += `${json && ","}${JSON.stringify(key)}:{"metas":[${list.map((entry) => entry.json).join(",")}]}`;
  }
  return `{${json}}`;
}

/** Who is there on one topic, and what has changed since the last diff. */
export class Presence {
  readonly #metas: Metas = new Map();
  #joins: Metas = new Map();
  #leaves: Metas = new Map();
  /** The phx_refs of joins that no diff has told yet, but a state has shown. */
  readonly #shown = new Set<string>();

  /** The oldest meta of a key comes first [89]; `at` puts one back where it was. */
  add(entry: Tracked, at?: number): void {
    add(this.#metas, entry, at);
    // Taken back before anybody was told (an undone turn): nothing has changed.
    if (!remove(this.#leaves, entry)) add(this.#joins, entry);
  }

  /** Returns where it stood among the metas of its key; -1 when it was not there. */
  remove(entry: Tracked): number {
    const at = this.#metas.get(entry.key)?.findIndex((other) => other.phx_ref === entry.phx_ref) ?? -1;
    if (at < 0) return at;
    remove(this.#metas, entry);
    // A join and a leave of one phx_ref in one diff net to nothing [94], unless a state has shown the join:
    // then both are told, joins are applied first [111].
    if (this.#shown.has(entry.phx_ref) || !remove(this.#joins, entry)) add(this.#leaves, entry);
    return at;
  }

  /** `{key: {metas: [...]}}`, complete up to this moment. */
  state(): string {
    for (const list of this.#joins.values()) for (const entry of list) this.#shown.add(entry.phx_ref);
    return encode(this.#metas);
  }

  /** `{joins, leaves}` since the last call; null when nothing changed. */
  diff(): string | null {
    this.#shown.clear();
    if (this.#joins.size === 0 && this.#leaves.size === 0) return null;
    const json = `{"joins":${encode(this.#joins)},"leaves":${encode(this.#leaves)}}`;
    this.#joins = new Map();
    this.#leaves = new Map();
    return json;
  }

  /** Forgets what has changed: it was loaded, or never left. */
  settle(): void {
    this.diff();
  }
}
