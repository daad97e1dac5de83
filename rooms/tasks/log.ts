/**
 * `deno task log heads`: where each room's chain ends, one JSON line each, to be kept elsewhere. `deno task log verify [FILE]`:
 * walks every chain and names the first entry that does not hold; with a file of such lines, also whether each of those
 * ends is still there: a chain alone can be recomputed by whoever owns the file.
 */
import { DatabaseSync } from "node:sqlite";
import { readConfig } from "../config.ts";
import { sha256 } from "../hosts/deno.ts";
import { missingHead, verifyLog } from "../log.ts";
import type { SqlRow } from "../host.ts";

function open(folder: string): DatabaseSync {
  try {
    return new DatabaseSync(`${folder}/caseroom.db`, { readOnly: true });
  } catch (error) {
    throw new Error(`${(error as Error).message} (DATA_DIR is ${folder})`);
  }
}

function headsOf(file: string): unknown[] {
  try {
    return Deno.readTextFileSync(file).split("\n").filter(Boolean).map((line) => JSON.parse(line));
  } catch (error) {
    throw new Error(`${file} is not what \`heads\` printed: ${(error as Error).message}`);
  }
}

const [command, file, ...more] = Deno.args;
if (more.length > 0 || !(command === "verify" || (command === "heads" && file === undefined))) {
  console.error("deno task log heads\ndeno task log verify [a file with what `heads` printed]");
  Deno.exit(2);
}
try {
  const { DATA_DIR } = readConfig(Deno.env.toObject());
  const db = open(DATA_DIR);
  db.exec("begin");
  const rows = (sql: string) => db.prepare(sql).iterate() as Iterable<SqlRow>;
  if (command === "heads") {
    for (const { room, seq, hash } of rows("select room, seq, hash from log_head order by room")) console.log(JSON.stringify({ room, seq, hash }));
  } else {
    const kept = file === undefined ? [] : headsOf(file);
    const { rooms, entries, broken } = verifyLog(sha256, rows("select * from log order by seq"), rows("select * from log_head"));
    const found = broken ??
      (file === undefined ? null : missingHead(kept, (seq) => db.prepare("select room, hash from log where seq = ?").get(seq) as SqlRow | undefined));
    if (found) {
      console.log(`BROKEN: entry ${found.seq} of ${found.room}: ${found.why}`);
      Deno.exit(1);
    }
    console.log(`${entries} entries in ${rooms} rooms: every chain holds${file === undefined ? "" : `, and has the ${kept.length} ends of ${file}`}`);
  }
} catch (error) {
  // Nothing was verified: that is neither a broken chain nor one that holds.
  console.error(`Cannot read the log: ${error instanceof Error ? error.message : error}`);
  Deno.exit(2);
}
