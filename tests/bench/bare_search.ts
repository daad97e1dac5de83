/** What `search` is compared with, in a process of its own: one FTS5 table with the same texts. */
import { DatabaseSync } from "node:sqlite";
import { mailOf } from "./mails.ts";
import { stand } from "./serving.ts";

const [folder, documents] = [Deno.args[0], Number(Deno.args[1])];
const AT_ONCE = 500;
const db = new DatabaseSync(`${folder}/bare.db`);
db.exec("pragma journal_mode = wal; pragma synchronous = normal");
db.exec("create virtual table fts using fts5 (text, subject, sender, recipients, tokenize='unicode61 remove_diacritics 2')");
const insert = db.prepare("insert into fts (text, subject, sender, recipients) values (?, ?, ?, ?)");
for (let at = 0; at < documents; at += AT_ONCE) {
  db.exec("begin");
  for (let number = at; number < Math.min(at + AT_ONCE, documents); number++) {
    const { text, subject, from, to } = mailOf(number);
    insert.run(text, subject, from, to);
  }
  db.exec("commit");
}
const select = db.prepare("select rowid from fts where fts match ? order by rank limit 20");

await stand("ready", {
  /** Milliseconds. */
  search(query: string) {
    const begun = performance.now();
    const found = select.all(query).length;
    return { took: performance.now() - begun, found };
  },
});
