/** The bare loop of `ingest`, one process of several: `PostalMime.parse` and FTS5 inserts of its share, 500 in a transaction. */
import { DatabaseSync } from "node:sqlite";
import PostalMime from "postal-mime";
import { fileOf } from "./mails.ts";
import { fail, stand } from "./serving.ts";

const AT_ONCE = 500;
const folder = Deno.args[0];
let files: Uint8Array[] = [];

async function run(name: string): Promise<number> {
  const db = new DatabaseSync(`${folder}/${name}.db`);
  db.exec("pragma journal_mode = wal; pragma synchronous = normal");
  db.exec("create virtual table mail using fts5 (text, subject, sender, recipients, tokenize='unicode61 remove_diacritics 2')");
  const insert = db.prepare("insert into mail (text, subject, sender, recipients) values (?, ?, ?, ?)");
  const begun = performance.now();
  for (let at = 0; at < files.length; at += AT_ONCE) {
    db.exec("begin");
    for (const file of files.slice(at, at + AT_ONCE)) {
      const { text, html, subject, from, to } = await PostalMime.parse(file);
      insert.run(text ?? html ?? "", subject ?? "", from?.address ?? "", (to ?? []).map(({ address }) => address).join(", "));
    }
    db.exec("commit");
  }
  const took = performance.now() - begun;
  db.close();
  return took;
}

await stand("ready", {
  /** Makes them, which does not count. */
  load(numbers: number[]) {
    files = numbers.map(fileOf);
  },
  run: (name: string) => run(name).catch(fail),
});
