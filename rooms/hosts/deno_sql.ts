/** `node:sqlite` as the rooms want it: one transaction per tick, savepoints only where a turn writes. */
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { type SqlHost, type SqlRow, type SqlValue, StoreLost } from "../host.ts";

/** Statements kept compiled; rooms have few, so this is a bound and no tuning. */
const COMPILED = 500;

/**
 * SQLite's primary result codes that say something of the disk, the memory or the file, and cost the whole tick: BUSY,
 * LOCKED, NOMEM, READONLY, INTERRUPT, IOERR, CORRUPT, FULL, CANTOPEN, PROTOCOL, NOTADB (sqlite.org/rescode.html). All others
 * are a wrong statement or value, and cost their turn only.
 */
const HOST_ERRORS = new Set([5, 6, 7, 8, 9, 10, 11, 13, 14, 15, 26]);

/** SQLite's authorizer, which Deno's node:sqlite has and its types do not know yet (sqlite.org/c3ref/c_alter_table.html). */
interface Authorizing {
  setAuthorizer(allow: (action: number, first: string | null, second: string | null) => number): void;
}
const [OK, DENY] = [0, 1];
const [DELETE, INSERT, READ, SELECT, UPDATE, FUNCTION] = [9, 18, 20, 21, 23, 31];

export class DenoSql implements SqlHost {
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  /** Open `atomic` bodies, outermost first: whether each has its savepoint yet. */
  readonly #open: boolean[] = [];
  #lost: unknown = null;
  /** The prefix of the tables that the statement being vetted may use. */
  #vetting: string | null = null;

  /** `path` is a file, or `:memory:`. Readers of other processes (a backup, `deno task log`) may come at any time. "off" is for the test that must notice it. */
  constructor(path: string, synchronous: "full" | "off" = "full") {
    this.#db = new DatabaseSync(path);
    this.#db.exec(`pragma busy_timeout = 250; pragma journal_mode = wal; pragma synchronous = ${synchronous}`);
    (this.#db as unknown as Authorizing).setAuthorizer((action, first, second) =>
      this.#vetting === null || allowed(this.#vetting, action, first, second) ? OK : DENY
    );
  }

  run(statement: string, parameters: readonly SqlValue[], writes: boolean): SqlRow[] {
    // node:sqlite stores such a text whole and reads it back only to there.
    for (const parameter of parameters) if (typeof parameter === "string" && parameter.includes("\0")) throw new TypeError("Cannot store a NUL in text");
    const compiled = this.#compile(statement);
    if (writes) this.#begin();
    const inTransaction = this.#db.isTransaction;
    try {
      return compiled.all(...parameters) as SqlRow[];
    } catch (error) {
      // SQLITE_FULL on a statement silently rolls the whole transaction back, and a later RELEASE would commit alone.
      const { errcode } = error as { errcode?: number };
      if (inTransaction !== this.#db.isTransaction || (errcode !== undefined && HOST_ERRORS.has(errcode & 255))) this.#lose(error);
      throw error;
    }
  }

  #compile(statement: string): StatementSync {
    let compiled = this.#statements.get(statement);
    if (!compiled) {
      compiled = this.#db.prepare(statement);
      if (this.#statements.size >= COMPILED) this.#statements.delete(this.#statements.keys().next().value!);
      this.#statements.set(statement, compiled);
    }
    return compiled;
  }

  vet(statement: string, prefix: string): void {
    this.#vetting = prefix;
    try {
      this.#db.prepare(statement);
    } catch (cause) {
      throw new TypeError(`Cannot run this statement: ${statement}`, { cause });
    } finally {
      this.#vetting = null;
    }
  }

  /** BEGIN at the tick's first write, and a savepoint for every open body that has none. */
  #begin(): void {
    if (this.#lost) throw new StoreLost("Cannot write: the tick is lost", { cause: this.#lost });
    try {
      if (!this.#db.isTransaction) this.#compile("begin immediate").run();
      for (let depth = 0; depth < this.#open.length; depth++) {
        if (this.#open[depth]) continue;
        this.#compile(`savepoint turn_${depth}`).run();
        this.#open[depth] = true;
      }
    } catch (error) {
      this.#lose(error);
    }
  }

  lose(cause: unknown): void {
    this.#lost ??= cause ?? new Error("declared lost");
  }

  #lose(cause: unknown): never {
    this.lose(cause);
    throw new StoreLost("Cannot write: the tick is lost", { cause });
  }

  atomic<T>(body: () => T): T {
    const depth = this.#open.push(false) - 1;
    try {
      const result = body();
      if (this.#open[depth]) this.#end(`release turn_${depth}`);
      return result;
    } catch (error) {
      if (this.#open[depth] && !this.#lost) {
        this.#end(`rollback to turn_${depth}`);
        this.#end(`release turn_${depth}`);
      }
      throw error;
    } finally {
      this.#open.length = depth;
    }
  }

  #end(statement: string): void {
    // Nothing may be written any more: a RELEASE outside a transaction would be a commit of its own.
    if (this.#lost) throw new StoreLost("Cannot write: the tick is lost", { cause: this.#lost });
    try {
      this.#compile(statement).run();
    } catch (error) {
      this.#lose(error);
    }
  }

  commit(): boolean {
    const lost = this.#lost;
    this.#lost = null;
    if (lost) {
      this.#abandon();
      throw new StoreLost("Cannot commit: the tick is lost", { cause: lost });
    }
    if (!this.#db.isTransaction) return false;
    try {
      this.#compile("commit").run();
      return true;
    } catch (cause) {
      this.#abandon();
      throw new StoreLost("Cannot commit", { cause });
    }
  }

  /** A failed COMMIT leaves the transaction open or closed, depending on the cause. */
  #abandon(): void {
    try {
      if (this.#db.isTransaction) this.#db.exec("rollback");
    } catch {
      // It is closed now, or the next BEGIN will say what is wrong.
    }
  }

  close(): void {
    this.#statements.clear();
    this.#db.close();
  }
}

/** What a room's statement may do. Names of a `with` are read with an empty column, and hold no rows of their own. */
function allowed(prefix: string, action: number, first: string | null, second: string | null): boolean {
  switch (action) {
    case SELECT:
    case FUNCTION:
      return true;
    case READ:
      return first!.startsWith(prefix) || first === "json_each" || second === "";
    case INSERT:
    case DELETE:
      return first!.startsWith(prefix);
    case UPDATE:
      return first!.startsWith(prefix) && second !== "room";
    default:
      return false;
  }
}
