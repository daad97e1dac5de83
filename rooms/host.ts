/** What a runtime lends to the rooms. Time, ids and disks are passed in, so that tests can crank, count and break them. */

export type SqlValue = string | number | null | Uint8Array;
export type SqlRow = Record<string, SqlValue>;

/** SQLite, with one commit for all that a tick wrote. */
export interface SqlHost {
  /** Runs one statement. `writes` opens the tick's transaction, and a savepoint inside `atomic`. */
  run(statement: string, parameters: readonly SqlValue[], writes: boolean): SqlRow[];
  /**
   * Compiles a statement that a room wrote: only tables that begin with `prefix`, no change of a `room` column, no
   * transaction control, pragma or attached file. Throws TypeError.
   */
  vet(statement: string, prefix: string): void;
  /** Runs `body`; when it throws, what it wrote is undone. Nests. */
  atomic<T>(body: () => T): T;
  /** Declares the tick lost: what was written in it must not be kept. */
  lose(cause: unknown): void;
  /** Makes durable what was written since the last commit: on return it is on disk. False when there was nothing. Throws StoreLost when it is not known to be. */
  commit(): boolean;
  close(): void;
}

/** The tick's writes are lost, or not known to be kept; nothing more may be written in it. */
export class StoreLost extends Error {
  override readonly name = "StoreLost";
}

export interface Clock {
  /** Milliseconds since 1970, as the machine believes: it may jump. */
  now(): number;
  /** Milliseconds since some moment, which pass whatever happens to `now`: for what lasts so long, or happens so often. */
  elapsed(): number;
  /** Calls back once, after at least so many milliseconds; returns how to cancel it. */
  after(ms: number, callback: () => void): () => void;
}

/** A member as it is kept: plain data that outlives the actor. */
export interface Member {
  /** `gateway.n`: one join. */
  readonly session: string;
  readonly topic: string;
  /** Replaced when the token is renewed. */
  user: User;
  /** The rights that it asked for, when it asked for some. */
  granted?: readonly string[];
  /** The metas it shows; replaced, never changed in place. */
  presence: readonly { readonly key: string; readonly phx_ref: string; readonly json: string }[];
  /** Set while its connection is gone and its presence is held: when that ends, in milliseconds since 1970. */
  heldUntil?: number;
}

/** The members of each room: memory in one process, storage where rooms hibernate. */
export interface MemberStore {
  of(room: string): Iterable<Member>;
  put(room: string, member: Member): void;
  delete(room: string, session: string): void;
}

/** Who is on the other end, read off a token. Plain data: it crosses from gateway to room. */
export interface User {
  readonly id: string;
  readonly name: string;
  readonly role: Role;
  /** The ids of the cases that the token names, or every case. */
  readonly cases: readonly string[] | "*";
}

export const ROLES = ["admin", "attorney", "paralegal", "client", "viewer", "service"] as const;
export type Role = (typeof ROLES)[number];

/** A file that has come whole, and is not kept yet. */
export interface Upload {
  /** SHA-256, 64 hexadecimal digits. */
  readonly hash: string;
  /** Bytes. */
  readonly size: number;
  /** Nothing of it is left behind. */
  drop(): Promise<void>;
}

/** Originals, each kept once under its hash and never changed. */
export interface Blobs {
  /** Takes a stream, never whole in memory. Rejects with Refusal `payload_too_large` above `limit` bytes; whatever goes wrong leaves nothing behind. */
  receive(stream: AsyncIterable<Uint8Array>, limit: number): Promise<Upload>;
  /** Durable when it resolves. */
  keepAll(uploads: readonly Upload[]): Promise<void>;
  open(hash: string): Promise<{ readonly size: number; readonly stream: ReadableStream<Uint8Array> } | undefined>;
}

/** Work that takes its time: plain JSON in and out, outside of any turn. */
export interface Work {
  readonly signal?: AbortSignal;
  /** Who it is for: nobody's many tasks hold up another's. */
  readonly owner: string;
  /** Hears how far it is. */
  note?(note: unknown): void;
}

export interface Host {
  readonly sql: SqlHost;
  readonly clock: Clock;
  readonly members: MemberStore;
  /** 16 url-safe characters (96 random bits). */
  id(): string;
  /** SHA-256, as 64 hexadecimal digits. */
  sha256(data: string | Uint8Array): string;
  /** Runs `callback` once what has arrived so far has been queued. */
  soon(callback: () => void): void;
  /** Reads, analyses, searches documents. What is wrong with a document is a result; rejects when the work was not done. */
  work(task: unknown, options: Work): Promise<unknown>;
  readonly blobs: Blobs;
  /** An error of ours, with where it happened; never a payload or a token. */
  report(error: unknown, where: string): void;
}
