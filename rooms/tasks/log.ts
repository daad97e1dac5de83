/** `deno task log verify`: walks every chain of the log and names the first entry that does not hold. */
import { DatabaseSync } from "node:sqlite";
import { readConfig } from "../config.ts";
import { sha256 } from "../hosts/deno.ts";
import { verifyLog } from "../log.ts";
import type { SqlRow } from "../host.ts";

if (Deno.args[0] !== "verify" || Deno.args.length > 1) {
  console.error("deno task log verify");
  Deno.exit(2);
}
try {
  const path = `${readConfig(Deno.env.toObject()).DATA_DIR}/caseroom.db`;
  const db = new DatabaseSync(path, { readOnly: true });
  db.exec("begin");
  const rows = db.prepare("select * from log order by seq").iterate() as Iterable<SqlRow>;
  const heads = db.prepare("select * from log_head").iterate() as Iterable<SqlRow>;
  const { rooms, entries, broken } = verifyLog(sha256, rows, heads);
  if (broken) {
    console.log(`BROKEN: entry ${broken.seq} of ${broken.room}: ${broken.why}`);
    Deno.exit(1);
  }
  console.log(`${entries} entries in ${rooms} rooms: every chain holds`);
} catch (error) {
  // Nothing was verified: that is neither a broken chain nor one that holds.
  console.error(`Cannot read the log: ${error instanceof Error ? error.message : error}`);
  Deno.exit(2);
}
