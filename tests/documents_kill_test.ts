/** Children that die or hang at their work, and a server that does: what was begun is ended, and nothing is told twice. [issue 4, DESIGN promise 2] */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { eml } from "./support/files.ts";
import { tempDir } from "./support/lives.ts";
import { CASE, lives, Office, until, type Watched } from "./support/office.ts";
import { random } from "./support/random.ts";
import type { Heard } from "./support/raw.ts";
import { someone } from "./support/stage.ts";

const ann = someone("ann", "attorney", [CASE]);
const mail = (number: number) =>
  eml(
    { From: "ann@example.com", To: "bo@example.com", Subject: `Mail ${number}` },
    `The harbour ${number} is open. John Smith met Jane Roe in Boston. `.repeat(60),
  );
const mails = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, index) => [`mail ${index}.eml`, mail(index)]));

/** Every entry of the case's record. */
async function record(office: Office): Promise<Heard[]> {
  const all = [];
  for (let after = "";;) {
    const { body } = await office.get(ann, `/api/cases/${CASE}/log?limit=1000&after=${encodeURIComponent(after)}`);
    all.push(...body.events);
    if (body.next === null) return all;
    after = body.next;
  }
}

/** Each document was told once to be there, and once to be done with; the job once to begin, and once to end. */
async function toldOnce(office: Office, count: number): Promise<void> {
  const told = await record(office);
  const idsOf = (event: string) =>
    told.filter((entry) => entry.event === event).map(({ payload }) => payload.document?.id ?? payload.document_id ?? payload.workflow_id);
  const ids = (await office.documents(ann)).map(({ id }) => id);
  assertEquals(ids.length, count);
  assertEquals(idsOf("document:processed").toSorted(), ids.toSorted());
  assertEquals(told.filter(({ event, payload }) => event === "document:uploaded" && !payload.released).length, count);
  assertEquals([idsOf("workflow:started").length, idsOf("workflow:completed").length], [1, 1]);
}

function signal(pid: number, how: Deno.Signal): void {
  try {
    Deno.kill(pid, how);
  } catch {
    // It has ended by itself.
  }
}

Deno.test("children: those that are killed in mid-job are replaced, and the job completes; a signal meant for the server does not end them", async () => {
  await using office = await Office.start();
  const { body } = await office.send(ann, mails(40));
  const job = office.watch(ann, body.processing_job_id);
  const killed: number[] = [];
  const done = async () => (await office.documents(ann)).filter(({ status }) => status === "completed").length;
  for (let round = 0; round < 3; round++) {
    // Between them one must have worked: where none can, nobody is made to wait.
    const before = await done();
    await until("some more are read", async () => await done() > before);
    const [pid] = office.children();
    signal(pid, "SIGKILL");
    killed.push(pid);
    await until("it is gone", () => !office.children().includes(pid));
  }
  const { summary }: Watched = await job;
  assertEquals([summary.total_documents, summary.completed + summary.failed], [40, 40]);
  // At most the one that each was at.
  assert(summary.failed <= 3, JSON.stringify(summary.errors));
  for (const { code } of summary.errors) assertEquals(code, "crashed");
  await toldOnce(office, 40);
  assertEquals(new Set(killed).size, 3);
  // They are done when asked again.
  if (summary.failed > 0) {
    const { client } = await office.enter(ann, `processing:${body.processing_job_id}`);
    const { response } = await office.push(client, `processing:${body.processing_job_id}`, "retry_exceptions", {});
    await client.close();
    assertEquals((await office.watch(ann, response.processing_job_id)).summary.completed, summary.failed);
  }
  const before = office.children();
  for (const pid of before) for (const how of ["SIGINT", "SIGTERM"] as const) signal(pid, how);
  const { watched } = await office.take(ann, { "late.eml": mail(99) });
  assertEquals(watched.summary.completed, 1);
  assertEquals(before.filter((pid) => !office.children().includes(pid)), []);
  assertEquals(await office.server.stop(), 0);
});

Deno.test("children: a document that takes too long is an exception, its child is replaced, and the others are read", async () => {
  await using office = await Office.start({ LIMIT_DOCUMENT_MS: "1500", LIMIT_READERS: "1" });
  // It does not come to its senses by itself: a stopped process is one that hangs.
  await office.take(ann, { "first.eml": mail(1) });
  const reader = office.children();
  for (const pid of reader) signal(pid, "SIGSTOP");
  const { watched } = await office.take(ann, { "second.eml": mail(2), "third.eml": mail(3), "fourth.eml": mail(4) });
  assertEquals([watched.summary.completed, watched.summary.errors.map(({ code }: Heard) => code)], [2, ["timeout"]]);
  await until("the one that hung is gone", () => reader.some((pid) => !office.children().includes(pid)));
  for (const pid of reader) signal(pid, "SIGCONT");
  assertEquals(await office.server.stop(), 0);
});

Deno.test("server: told to end in mid-job, it leaves the rest for its next life, and nothing of it is an exception", async () => {
  using folder = tempDir();
  await using first = await Office.start({ DATA_DIR: folder.path, DRAIN_MS: "50" });
  const { body } = await first.send(ann, mails(60));
  await until("some are done", async () => (await first.documents(ann)).some(({ status }) => status === "completed"));
  assertEquals(await first.server.stop("SIGTERM"), 0);
  assertEquals(/"level":"error"/.test(first.server.output()), false, first.server.output());
  await using second = await Office.start({ DATA_DIR: folder.path });
  const { state, summary } = await second.watch(ann, body.processing_job_id);
  assertEquals([state.status, summary.completed, summary.errors], ["running", 60, []]);
  await toldOnce(second, 60);
});

Deno.test("server: killed in mid-job at random, twice, the job goes on by itself: every document once, none lost, the bar never turns, no orphans", async () => {
  const seed = Date.now() % 1_000_000;
  console.log(`seed ${seed}`);
  const next = random(seed);
  using folder = tempDir();
  const env = { DATA_DIR: folder.path };
  let job = "";
  let reached = -1;
  for (let life = 0; life < 3; life++) {
    await using office = await Office.start(env);
    if (life === 0) job = (await office.send(ann, mails(60))).body.processing_job_id;
    const { client, reply } = await office.enter(ann, `processing:${job}`);
    assertEquals(reply.status, "ok", JSON.stringify(reply));
    assert(reply.response.percentage >= reached, `${reply.response.percentage} after ${reached}`);
    reached = reply.response.percentage;
    if (life === 2) {
      await client.close();
      const { summary } = await office.watch(ann, job);
      assertEquals([summary.total_documents, summary.completed, summary.failed], [60, 60, 0]);
      await toldOnce(office, 60);
      await office.nothingWaits();
      assertEquals(await office.server.stop(), 0);
      return;
    }
    // So far it goes; then, a little later, it is over.
    const goal = Math.min(95, reached + 5 + next(30));
    while (reached < goal) {
      const frame = await client.next(30_000);
      assert(frame[3] !== "job:completed", "it was faster");
      if (frame[3] !== "progress") continue;
      assert(frame[4].percentage >= reached, `${frame[4].percentage} after ${reached}`);
      reached = frame[4].percentage;
    }
    await new Promise((resolve) => setTimeout(resolve, next(30)));
    const children = office.children();
    assertGreater(children.length, 0);
    Deno.kill(office.server.pid, "SIGKILL");
    await client.closed;
    await until("its children end with it", () => !children.some((pid) => lives(pid, folder.path)));
    await office.server.stop("SIGKILL");
  }
});
