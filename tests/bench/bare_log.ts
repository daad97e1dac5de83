/** The bare loop's log: the rows, the chain and the durability of Caseroom's own, with nothing around them. */
import { hash } from "node:crypto";
import { DatabaseSync, type StatementSync } from "node:sqlite";
import { LOG_SCHEMA } from "../../rooms/log.ts";

interface Head {
  readonly seq: number;
  readonly hash: string;
}

export class BareLog {
  readonly #db: DatabaseSync;
  readonly #append: StatementSync;
  readonly #head: StatementSync;
  readonly #begin: StatementSync;
  readonly #commit: StatementSync;
  readonly #heads = new Map<string, Head>();
  readonly #dirty = new Set<string>();
  #next = 1;

  constructor(path: string) {
    this.#db = new DatabaseSync(path);
    this.#db.exec("pragma locking_mode = exclusive; pragma journal_mode = wal; pragma synchronous = full");
    for (const statements of LOG_SCHEMA) this.#db.exec(statements);
    this.#append = this.#db.prepare(
      "insert into log (seq, room, previous, at, user, topic, event, payload, dedupe, previous_hash, hash) values (?,?,?,?,?,?,?,?,?,?,?)",
    );
    this.#head = this.#db.prepare(
      "insert into log_head (room, seq, hash) values (?,?,?) on conflict (room) do update set seq = excluded.seq, hash = excluded.hash",
    );
    this.#begin = this.#db.prepare("begin immediate");
    this.#commit = this.#db.prepare("commit");
  }

  /** Topic and room have one name here. */
  append(room: string, payload: unknown): void {
    if (this.#dirty.size === 0) this.#begin.run();
    const before = this.#heads.get(room) ?? { seq: 0, hash: "" };
    const [seq, at, user, event, json] = [this.#next++, Date.now(), "user_1", "kept", JSON.stringify(payload)];
    const next = { seq, hash: hash("sha256", JSON.stringify([before.hash, room, at, user, room, event, hash("sha256", json), null])) };
    this.#append.run(seq, room, before.seq, at, user, room, event, json, null, before.hash, next.hash);
    this.#heads.set(room, next);
    this.#dirty.add(room);
  }

  /** What was appended since the last time is on disk when this returns. */
  commit(): void {
    if (this.#dirty.size === 0) return;
    for (const room of this.#dirty) {
      const { seq, hash } = this.#heads.get(room)!;
      this.#head.run(room, seq, hash);
    }
    this.#dirty.clear();
    this.#commit.run();
  }
}
