/** Proof that both servers kept the same thing: the rows that they wrote stand in chains that Caseroom's own check accepts. */
import { DatabaseSync } from "node:sqlite";
import type { SqlRow } from "../../rooms/host.ts";
import { sha256 } from "../../rooms/hosts/deno.ts";
import { verifyLog } from "../../rooms/log.ts";

/** Walks every chain from end to end, and returns how many rows were looked at. Throws at the first that does not hold. */
export function checkChains(path: string): number {
  const db = new DatabaseSync(path);
  try {
    const heads = db.prepare("select * from log_head").all() as SqlRow[];
    const rows = db.prepare("select * from log order by seq").iterate();
    const { rooms, entries, broken } = verifyLog(sha256, rows as Iterable<SqlRow>, heads);
    if (broken || rooms < 2) throw new Error(`The log in ${path} does not hold: ${JSON.stringify(broken ?? { rooms })}`);
    return entries;
  } finally {
    db.close();
  }
}
