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
const path = `${readConfig(Deno.env.toObject()).DATA_DIR}/caseroom.db`;
let db: DatabaseSync;
try {
  db = new DatabaseSync(path, { readOnly: true });
  db.exec("begin");
} catch (error) {
  console.error(`Cannot read ${path}: ${error instanceof Error ? error.message : error}`);
  Deno.exit(2);
}
const rows = db.prepare("select * from log order by seq").iterate() as Iterable<SqlRow>;
const heads = db.prepare("select * from log_head").iterate() as Iterable<SqlRow>;
const { rooms, entries, broken } = verifyLog(sha256, rows, heads);
if (broken) {
  console.log(`BROKEN: entry ${broken.seq} of ${broken.room}: ${broken.why}`);
  Deno.exit(1);
}
console.log(`${entries} entries in ${rooms} rooms: every chain holds`);
