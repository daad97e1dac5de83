/** Jobs: how documents are read, what is told of that and to whom. [P01-P08, C02, C05, C06, C09, DESIGN §4] */
import { assert, assertEquals, assertGreaterOrEqual } from "@std/assert";
import { rooms } from "../rooms/channels/mod.ts";
import type { Processed } from "../rooms/channels/messages.ts";
import type { Role } from "../rooms/host.ts";
import { sha256 } from "../rooms/hosts/deno.ts";
import { CLEAR, FakeLabour, PRIVILEGED } from "./support/labour.ts";
import type { Heard } from "./support/raw.ts";
import { someone, Stage, type StageClient } from "./support/stage.ts";

const CASE = "case:case_1";

export class Desk {
  readonly labour = new FakeLabour();
  readonly stage = new Stage(rooms, { host: this.labour.host });
  #pushes = 0;

  join(role: Role, topic = CASE, params: object = {}, id: string = role): { client: StageClient; reply: Heard; heard: Heard[] } {
    const client = this.stage.client(someone(id, role, ["case_1"]));
    const { heard } = client.join(topic, { aliases: false, ...params });
    return { client, heard, reply: heard.find((frame: Heard) => frame[3] === "phx_reply")?.[4] };
  }
  /** Pushes on the client's first topic and waits for the answer; what else was heard stays to be taken. */
  async push(client: StageClient, event: string, payload: object, topic = CASE): Promise<Heard> {
    const ref = `p${++this.#pushes}`;
    client.queue(["j1", ref, topic, event, payload]);
    await this.stage.settle();
    const at = client.wire.frames.findIndex((frame: Heard) => frame[1] === ref);
    return client.wire.frames.splice(at, 1)[0]?.[4];
  }
  /** Sends a document in a push; `found` is what reading it will find. */
  async add(client: StageClient, content: string, found: Processed = CLEAR): Promise<Heard> {
    this.labour.found.set(sha256(content), found);
    return (await this.push(client, "add:document", { file: { name: `${content}.eml`, content_base64: btoa(content) } })).response;
  }
  close(): void {
    assertEquals(this.stage.reported, []);
    this.stage.close();
  }
}

const events = (client: StageClient, name: RegExp): Heard[] => client.take().filter((frame: Heard) => name.test(frame[3]));

Deno.test("processing: a document in a push is taken in, read, called and told of, on the case and on the job [C09, C01, C02, C05, C06, P08]", async () => {
  const desk = new Desk();
  const { client } = desk.join("attorney");
  client.take();
  const { document, processing_job_id, duplicate } = await desk.add(client, "hello");
  assertEquals([document.filename, document.status, document.case_id, document.hash, duplicate], [
    "hello.eml",
    "pending",
    "case_1",
    `sha256:${sha256("hello")}`,
    undefined,
  ]);
  const heard = events(client, /^(document|workflow)/);
  assertEquals(heard.map((frame) => frame[3]), ["document:uploaded", "workflow:started", "document:processed", "workflow:completed"]);
  assertEquals(heard[1][4].workflow_id, processing_job_id);
  assertEquals([heard[2][4].document_id, heard[2][4].status, heard[2][4].results.summary], [document.id, "completed", "a summary"]);
  const { reply: { response: job } } = desk.join("attorney", `processing:${processing_job_id}`, {}, "late");
  assertEquals([job.status, job.percentage, job.completed, job.failed, job.total, job.summary.total_documents, job.exceptions], [
    "completed",
    100,
    1,
    0,
    1,
    1,
    [],
  ]);
  desk.close();
});

Deno.test("processing: progress is told under both names, never turns, and ends at 100 before job:completed, once [P01, P02, P05, P06, X02, X30]", async () => {
  const desk = new Desk();
  const { client } = desk.join("attorney");
  desk.labour.holding = true;
  const inner = ["i1", "i2", "i3"].map((name) => ({ filename: name, content_type: "text/plain", size: 2, hash: sha256(name), kind: "attachment" as const }));
  client.queue(["j1", "a", CASE, "add:document", { file: { content_base64: btoa("mail") } }]);
  desk.labour.found.set(sha256("mail"), { ...CLEAR, inner });
  desk.labour.found.set(sha256("i2"), { trouble: { code: "encrypted", error: "a password" } });
  await desk.stage.settle();
  desk.labour.release();
  await desk.stage.settle();
  const { processing_job_id: job } = client.take().find((frame: Heard) => frame[1] === "a")[4].response;
  const watcher = desk.join("attorney", `processing:${job}`, { aliases: true }, "watcher");
  assertEquals([watcher.reply.response.status, watcher.reply.response.percentage, watcher.reply.response.current_operation], ["running", 0, "text_extraction"]);
  for (let step = 0; step < 8; step++) {
    desk.labour.release(1);
    await desk.stage.settle();
  }
  const heard = watcher.client.take();
  const named = (name: string) => heard.filter((frame: Heard) => frame[3] === name).map((frame: Heard) => frame[4]);
  const percentages = named("progress").map(({ percentage }: Heard) => percentage);
  assertEquals(percentages, percentages.toSorted((a: number, b: number) => a - b));
  assertEquals(percentages.at(-1), 100);
  assertEquals(named("processing:progress"), named("progress"));
  assertEquals(named("job:completed").map(({ summary }: Heard) => [summary.total_documents, summary.completed, summary.failed, summary.errors.length]), [[
    4,
    3,
    1,
    1,
  ]]);
  assertEquals(heard.at(-1)[3], "job:completed");
  assertEquals(named("error").map(({ code, error }: Heard) => [code, error]), [["encrypted", "a password"]]);
  assertGreaterOrEqual(named("document:completed").length, 3);
  const failed = named("error")[0].document_id;
  desk.labour.holding = false;
  desk.labour.found.delete(sha256("i2"));
  // Retried as a job of its own.
  const retried = await desk.push(watcher.client, "retry_exceptions", {}, `processing:${job}`);
  assertEquals([retried.status, retried.response.document_ids], ["ok", [failed]]);
  const again = desk.join("attorney", `processing:${retried.response.processing_job_id}`, {}, "later").reply.response;
  assertEquals([again.status, again.total, again.completed], ["completed", 1, 1]);
  assertEquals((await desk.push(watcher.client, "retry_exceptions", { document_ids: ["doc_none"] }, `processing:${job}`)).response.reason, "not_found");
  assert(client);
  desk.close();
});
