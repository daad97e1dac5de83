/**
 * Compound files (OLE: MSG, DOC, encrypted Office), looked over before anybody reads them: the reader of MSG follows chains and
 * trees for ever when they run in circles, and takes any length for granted.
 */
import { Exception } from "./extracted.ts";

const END_OF_CHAIN = -2;
const NOTHING = -1;
const STORAGE = 1;
const STREAM = 2;
const ENTRY = 128;
const MINI = 64;
/** Streams below this are kept in small sectors. */
const CUTOFF = 4096;
/** Storages within storages; a mail within a mail takes two. */
const MAX_DEPTH = 64;

const damaged = (what: string) => new Exception("damaged", `The file is damaged or cut off: ${what}`);

export class Compound {
  readonly #view: DataView;
  readonly #sector: number;
  readonly #sectors: number;
  readonly #table: number[];
  readonly #directory: number[];
  /** Each sector belongs to one chain. */
  readonly #seen: Uint8Array;

  /** Throws Exception `damaged`. */
  constructor(bytes: Uint8Array) {
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    const shift = bytes.length < 512 ? 0 : this.#view.getUint16(30, true);
    if (shift !== 9 && shift !== 12) throw damaged("its header");
    this.#sector = 1 << shift;
    this.#sectors = Math.max(0, Math.ceil(bytes.length / this.#sector) - 1);
    this.#seen = new Uint8Array(this.#sectors);
    this.#table = this.#readTable();
    this.#directory = this.#chain(this.#int(0x30));
    if (this.#directory.length === 0) throw damaged("its directory");
  }

  /** Names of what stands at the top. */
  get names(): ReadonlySet<string> {
    const names = new Set<string>();
    for (const { at } of this.#walk(false)) names.add(this.#name(at));
    return names;
  }

  /** Throws Exception `damaged` or `too_deep` unless every storage and stream can be read to its end. */
  check(): void {
    const count = this.#int(0x40);
    const mini = count === 0 ? [] : this.#chain(this.#int(0x3c));
    const root = this.#entry(0);
    const small = new Small(mini, this.#sector, root.start >= 0 ? this.#chain(root.start).length * this.#sector : 0, (at) => this.#int(at));
    for (const { at } of this.#walk(true)) {
      const { type, start, size } = this.#entry(at);
      if (type !== STREAM || size === 0) continue;
      const length = size < 0 ? NOTHING : size < CUTOFF ? small.length(start) : this.#chain(start).length * this.#sector;
      if (length < size || size < 0) throw damaged("a stream ends early");
    }
  }

  #int(at: number): number {
    if (at < 0 || at + 4 > this.#view.byteLength) throw damaged("it points beyond its end");
    return this.#view.getInt32(at, true);
  }

  #readTable(): number[] {
    const count = this.#int(0x2c);
    if (count < 0 || count > this.#sectors || this.#int(0x48) > this.#sectors) throw damaged("its header");
    const table: number[] = [];
    for (let index = 0; index < Math.min(count, 109); index++) table.push(this.#int(0x4c + 4 * index));
    let at = this.#int(0x44);
    const each = this.#sector / 4 - 1;
    for (let left = this.#int(0x48); left > 0 && at >= 0; left--) {
      const start = (this.#take(at) + 1) * this.#sector;
      for (let index = 0; index < each && table.length < count; index++) table.push(this.#int(start + 4 * index));
      at = this.#int(start + 4 * each);
    }
    return table;
  }

  #take(sector: number): number {
    if (sector < 0 || sector >= this.#sectors || this.#seen[sector]) throw damaged("a chain of sectors");
    this.#seen[sector] = 1;
    return sector;
  }

  #chain(start: number): number[] {
    const chain: number[] = [];
    const each = this.#sector / 4;
    for (let at = start; at !== END_OF_CHAIN;) {
      chain.push(this.#take(at));
      const table = this.#table[Math.floor(at / each)];
      if (table === undefined) throw damaged("its table of sectors");
      at = this.#int((table + 1) * this.#sector + 4 * (at % each));
    }
    return chain;
  }

  #at(index: number): number {
    const each = this.#sector / ENTRY;
    const sector = this.#directory[Math.floor(index / each)];
    if (index < 0 || sector === undefined) throw damaged("its directory");
    return (sector + 1) * this.#sector + ENTRY * (index % each);
  }

  #entry(index: number) {
    const at = this.#at(index);
    if (at + ENTRY > this.#view.byteLength) throw damaged("its directory");
    const [left, right, child, start, size] = [0x44, 0x48, 0x4c, 0x74, 0x78].map((offset) => this.#int(at + offset));
    return { type: this.#view.getUint8(at + 0x42), left, right, child, start, size };
  }

  #name(index: number): string {
    const at = this.#at(index);
    const length = Math.min(32, this.#view.getUint16(at + 0x40, true) >> 1);
    let name = "";
    for (let unit = 0; unit < length - 1; unit++) name += String.fromCharCode(this.#view.getUint16(at + 2 * unit, true));
    return name;
  }

  /** Every entry once: of the top, or of all storages. */
  *#walk(deep: boolean): Generator<{ at: number }> {
    const seen = new Uint8Array(this.#directory.length * this.#sector / ENTRY);
    const waiting = [{ at: this.#entry(0).child, depth: 0 }];
    for (let next = waiting.pop(); next; next = waiting.pop()) {
      const { at, depth } = next;
      if (at === NOTHING) continue;
      const { type, left, right, child } = this.#entry(at);
      if (seen[at]) throw damaged("its directory runs in circles");
      if (depth > MAX_DEPTH) throw new Exception("too_deep", "Mails within mails are nested too deep");
      seen[at] = 1;
      yield { at };
      waiting.push({ at: left, depth }, { at: right, depth });
      if (deep && type === STORAGE) waiting.push({ at: child, depth: depth + 1 });
    }
  }
}

/** The small sectors, which are kept in a stream of their own. */
class Small {
  readonly #seen: Uint8Array;

  constructor(private readonly table: readonly number[], private readonly sector: number, bytes: number, private readonly int: (at: number) => number) {
    this.#seen = new Uint8Array(Math.floor(bytes / MINI));
  }

  /** In bytes. */
  length(start: number): number {
    let length = 0;
    const each = this.sector / 4;
    for (let at = start; at !== END_OF_CHAIN; length += MINI) {
      const table = this.table[Math.floor(at / each)];
      if (table === undefined || at < 0 || at >= this.#seen.length || this.#seen[at]) throw damaged("a chain of small sectors");
      this.#seen[at] = 1;
      at = this.int((table + 1) * this.sector + 4 * (at % each));
    }
    return length;
  }
}
