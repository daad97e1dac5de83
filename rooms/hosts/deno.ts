/** What one Deno process lends: an embedded SQLite file, its clock, random ids, members in memory. */
import { hash, randomBytes } from "node:crypto";
import type { Clock, Host, Member, MemberStore } from "../host.ts";
import type { Metrics } from "../metrics.ts";
import { DenoSql } from "./deno_sql.ts";

export const systemClock: Clock = {
  now: () => Date.now(),
  elapsed: () => performance.now(),
  after(ms, callback) {
    const timer = setTimeout(callback, ms);
    return () => clearTimeout(timer);
  },
};

/** Sockets end with the process, so members need not outlive it. */
export class MemoryMembers implements MemberStore {
  readonly #rooms = new Map<string, Map<string, Member>>();

  of(room: string): Iterable<Member> {
    return this.#rooms.get(room)?.values() ?? [];
  }
  put(room: string, member: Member): void {
    const members = this.#rooms.get(room);
    if (members) members.set(member.session, member);
    else this.#rooms.set(room, new Map([[member.session, member]]));
  }
  delete(room: string, session: string): void {
    const members = this.#rooms.get(room);
    if (members?.delete(session) && members.size === 0) this.#rooms.delete(room);
  }
}

/** SHA-256 as 64 hexadecimal digits. */
export function sha256(data: string | Uint8Array): string {
  return hash("sha256", data);
}

/** Lines of one second, and bytes that wait for a stuck reader, above which lines are dropped and counted. */
const LINES_PER_SECOND = 500;
const WAITING_BYTES = 1 << 20;

/**
 * One JSON line per thing worth knowing. It never throws and never waits: a full disk or a stuck pipe behind stderr loses
 * lines, not the service. Lines go out some at a time, for a write costs more than a join.
 */
export class Journal {
  #lines = "";
  #timer: ReturnType<typeof setTimeout> | undefined;
  #writing: Promise<void> | null = null;
  #second = 0;
  #count = 0;
  #dropped = 0;
  /** How many lines were dropped in all. */
  lost = 0;
  /** The last report, and when: the same one is told once a second. */
  #last = { key: "", second: 0 };

  /** `write` takes bytes and says how many it took. */
  constructor(private readonly write: (bytes: Uint8Array) => Promise<number> = (bytes) => Deno.stderr.write(bytes)) {}

  /** `fields` are never payloads and never tokens. `always`: it may not be dropped, however much else there is to say. */
  note(event: string, fields: Record<string, unknown>, always = false): void {
    this.#add("info", { event, ...fields }, always);
  }

  /** An error of ours with its causes. */
  readonly report = (error: unknown, where: string): void => {
    const { key, second } = this.#last;
    const now = Math.floor(Date.now() / 1000);
    const causes = causesOf(error);
    const again = `${where} ${causes.join(" ")}`;
    if (again === key && now === second) {
      this.#drop();
      return;
    }
    this.#last = { key: again, second: now };
    this.#add("error", { where, error: error instanceof Error ? error.stack ?? error.message : String(error), causes });
  };

  #add(level: "info" | "error", line: Record<string, unknown>, always = false): void {
    const second = Math.floor(Date.now() / 1000);
    if (second !== this.#second) [this.#second, this.#count] = [second, 0];
    if (!always && (++this.#count > LINES_PER_SECOND || this.#lines.length > WAITING_BYTES)) {
      this.#drop();
      return;
    }
    const dropped = this.#dropped > 0 ? { dropped: this.#dropped } : {};
    this.#dropped = 0;
    this.#lines += JSON.stringify({ level, at: new Date().toISOString(), ...line, ...dropped }) + "\n";
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      // A sink that is stuck has its one write, and no queue of them.
      if (!this.#writing) void this.flush();
    }, 100);
  }

  #drop(): void {
    this.#dropped++;
    this.lost++;
  }

  /** Resolves when what was waiting is written, or cannot be. */
  async flush(): Promise<void> {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    while (this.#lines !== "" || this.#writing) await (this.#writing ??= this.#write());
  }

  async #write(): Promise<void> {
    const bytes = new TextEncoder().encode(this.#lines);
    this.#lines = "";
    try {
      for (let at = 0; at < bytes.length;) at += await this.write(bytes.subarray(at));
    } catch {
      this.#drop();
    }
    this.#writing = null;
  }
}

/** The messages below an error: SQLite's own word stands at the bottom. */
function causesOf(error: unknown): string[] {
  const causes: string[] = [];
  for (let cause = error; cause instanceof Error && causes.length < 5; cause = cause.cause) causes.push(cause.message);
  return causes;
}

/** This process's journal. */
export const journal = new Journal();

/** What the process itself takes. */
export function measureProcess(metrics: Metrics): void {
  metrics.gauge("resident_bytes", "Memory of the process.", () => Deno.memoryUsage().rss);
  metrics.gauge("heap_used_bytes", "Of it, what JavaScript's heap holds.", () => Deno.memoryUsage().heapUsed);
  metrics.gauge("log_lines_dropped", "Lines of the process's own log that found no room.", () => journal.lost);
}

/** Makes `DATA_DIR`, readable by its owner alone. Throws TypeError, naming the setting, when that cannot be. */
export function makeDataDir(dataDir: string): void {
  try {
    Deno.mkdirSync(dataDir, { recursive: true, mode: 0o700 });
  } catch (error) {
    throw new TypeError(`Cannot use DATA_DIR ${dataDir}: ${error instanceof Error ? error.message : error}`);
  }
}

/** Holds `DATA_DIR` for this process: rooms are unique only as long as one process runs them. Throws TypeError when it is held. */
export function holdDataDir(dataDir: string): void {
  makeDataDir(dataDir);
  // Kept open, so kept locked, until the process ends in whatever way.
  const lock = Deno.openSync(`${dataDir}/caseroom.lock`, { create: true, write: true });
  if (!lock.tryLockSync(true)) throw new TypeError(`Cannot start: another process is serving ${dataDir}`);
}

const none = () => Promise.reject(new TypeError("Cannot work with files here: neither a folder nor processes were lent"));

/** A host without documents' content. */
export const NOTHING_LENT: Pick<Host, "blobs" | "work"> = { blobs: { receive: none, keepAll: none, open: none }, work: none };

/** The host over the database at `path` (a file, or `:memory:`); parts can be replaced, so that tests crank and break them. */
export function denoHost(path: string, parts: Partial<Host> = {}): Host {
  return {
    sql: parts.sql ?? new DenoSql(path),
    clock: systemClock,
    members: new MemoryMembers(),
    id: () => randomBytes(12).toString("base64url"),
    sha256,
    soon: (callback) => void setImmediate(callback),
    ...NOTHING_LENT,
    report: journal.report,
    ...parts,
  };
}
