/**
 * Fills a case as if its mails had been uploaded and read, since that would take long: `filled_case.ts DATA_DIR CASE COUNT`, with no
 * server running. The index is made by what children use; the rows of the case are those that a search asks for.
 */
import { DatabaseSync } from "node:sqlite";
import { SearchIndex } from "../../rooms/documents/search_index.ts";
import { sha256 } from "../../rooms/hosts/deno.ts";
import { mailOf } from "./mails.ts";
import { stand } from "./serving.ts";

const [dataDir, caseId, count] = [Deno.args[0], Deno.args[1], Number(Deno.args[2])];
const AT_ONCE = 500;
const index = SearchIndex.open(`${dataDir}/search/${sha256(caseId)}.db`);
const db = new DatabaseSync(`${dataDir}/caseroom.db`);
const row = db.prepare("insert into case_document (room, id, body, visible, indexed, hash, revision) values (?, ?, ?, 1, 1, ?, 1)");
for (let at = 0; at < count; at += AT_ONCE) {
  const numbers = Array.from({ length: Math.min(AT_ONCE, count - at) }, (_, place) => at + place);
  const id = (number: number) => `doc_${String(number).padStart(12, "0")}`;
  index.put(numbers.map((number) => {
    const { from, to, subject, date, text } = mailOf(number);
    const more = { title: subject, type: "email", tags: [], custodian: "", filename: `${number}.eml` };
    return { id: id(number), text, subject, from, to, date: date.toISOString().slice(0, 10), ...more };
  }));
  index.mark(numbers.map((number) => ({ id: id(number), revision: 1, visible: true })));
  db.exec("begin");
  for (const number of numbers) {
    const { from, subject, date } = mailOf(number);
    const body = { id: id(number), case_id: caseId, filename: `${number}.eml`, content_type: "message/rfc822", status: "completed", tags: [], title: subject };
    row.run(
      `case/${caseId}`,
      id(number),
      JSON.stringify({ ...body, author: from, date_created: date.toISOString(), metadata: { kind: "email" } }),
      sha256(id(number)),
    );
  }
  db.exec("commit");
}
db.prepare("insert into case_index (room, documents) values (?, ?) on conflict (room) do update set documents = documents + excluded.documents").run(
  `case/${caseId}`,
  count,
);
db.close();
index.close();
await stand("ready", {});
