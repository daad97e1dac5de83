/** What one Deno process lends: an embedded SQLite file, its clock, random ids, members in memory. */
import { hash, randomBytes } from "node:crypto";
import type { Clock, Host, Member, MemberStore } from "../host.ts";
import { DenoSql } from "./deno_sql.ts";

export const systemClock: Clock = {
  now: () => Date.now(),
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

/** One line per error on stderr. Stacks are ours; payloads and tokens are never part of an error here. */
export function reportToStderr(error: unknown, where: string): void {
  const what = error instanceof Error ? error.stack ?? error.message : String(error);
  console.error(JSON.stringify({ level: "error", at: new Date().toISOString(), where, error: what }));
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

/** The host over the database at `path` (a file, or `:memory:`); parts can be replaced, so that tests crank and break them. */
export function denoHost(path: string, parts: Partial<Host> = {}): Host {
  return {
    sql: parts.sql ?? new DenoSql(path),
    clock: systemClock,
    members: new MemoryMembers(),
    id: () => randomBytes(12).toString("base64url"),
    sha256,
    soon: (callback) => void setImmediate(callback),
    report: reportToStderr,
    ...parts,
  };
}

/** One JSON line on stderr per thing worth knowing; written some at a time, for a write costs more than a join. */
export class Journal {
  #lines = "";
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** `fields` are never payloads and never tokens. */
  note(event: string, fields: Record<string, unknown>): void {
    this.#lines += JSON.stringify({ level: "info", at: new Date().toISOString(), event, ...fields }) + "\n";
    this.#timer ??= setTimeout(() => this.flush(), 100);
  }

  flush(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const bytes = new TextEncoder().encode(this.#lines);
    this.#lines = "";
    for (let at = 0; at < bytes.length;) at += Deno.stderr.writeSync(bytes.subarray(at));
  }
}
