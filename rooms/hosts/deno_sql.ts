/** `node:sqlite` as the rooms want it: one transaction per tick, savepoints only where a turn writes. */
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { type SqlHost, type SqlRow, type SqlValue, StoreLost } from "../host.ts";

/** Statements kept compiled; rooms have few, so this is a bound and no tuning. */
const COMPILED = 500;

// What a wrong value from a room costs: its own turn. Everything else (FULL, IOERR, BUSY, NOMEM, …) costs the tick.
const HARMLESS = /constraint failed|cannot store \w+ value in|datatype mismatch/i;

/** SQLite's authorizer, which Deno's node:sqlite has and its types do not know yet (sqlite.org/c3ref/c_alter_table.html). */
interface Authorizing {
  setAuthorizer(allow: (action: number) => number): void;
}
const [OK, DENY] = [0, 1];
const [PRAGMA, TRANSACTION, ATTACH, DETACH, SAVEPOINT] = [19, 22, 24, 25, 32];
const DENIED = new Set([PRAGMA, TRANSACTION, ATTACH, DETACH, SAVEPOINT]);

export class DenoSql implements SqlHost {
  readonly #db: DatabaseSync;
  readonly #statements = new Map<string, StatementSync>();
  /** Open `atomic` bodies, outermost first: whether each has its savepoint yet. */
  readonly #open: boolean[] = [];
  #lost: unknown = null;
  #vetting = false;

  /** `path` is a file, or `:memory:`. Readers of other processes (a backup, `deno task log`) may come at any time. */
  constructor(path: string) {
    this.#db = new DatabaseSync(path);
    this.#db.exec("pragma journal_mode = wal; pragma synchronous = full");
    (this.#db as unknown as Authorizing).setAuthorizer((action) => this.#vetting && DENIED.has(action) ? DENY : OK);
  }

  run(statement: string, parameters: readonly SqlValue[], writes: boolean): SqlRow[] {
    const compiled = this.#compile(statement);
    if (!writes) return compiled.all(...parameters) as SqlRow[];
    this.#begin();
    try {
      return compiled.all(...parameters) as SqlRow[];
    } catch (error) {
      // SQLITE_FULL on a statement silently rolls the whole transaction back, and a later RELEASE would commit alone.
      if (!this.#db.isTransaction || !(error instanceof Error && HARMLESS.test(error.message))) this.#lose(error);
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

  vet(statement: string): void {
    this.#vetting = true;
    try {
      this.#db.prepare(statement);
    } catch (cause) {
      throw new TypeError(`Cannot run this statement: ${statement}`, { cause });
    } finally {
      this.#vetting = false;
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

  commit(): void {
    const lost = this.#lost;
    this.#lost = null;
    if (lost) {
      this.#abandon();
      throw new StoreLost("Cannot commit: the tick is lost", { cause: lost });
    }
    if (!this.#db.isTransaction) return;
    try {
      this.#compile("commit").run();
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
