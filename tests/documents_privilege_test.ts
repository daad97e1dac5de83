/** A privileged document, asked for by every route there is by those who may not see it: nobody can tell it from one that does not exist. [DESIGN §4] */
import { assert, assertEquals } from "@std/assert";
import type { User } from "../rooms/host.ts";
import { eml } from "./support/files.ts";
import { CASE, Office, type Watched } from "./support/office.ts";
import type { Heard, RawClient } from "./support/raw.ts";
import { someone } from "./support/stage.ts";

const ann = someone("ann", "attorney", [CASE]);
const BLIND = (["paralegal", "client", "viewer"] as const).map((role) => someone(role, role, [CASE]));
const NONE = "doc_0000000000000000";
const clear = (number: number) =>
  eml(
    { From: "ann@example.com", To: "bo@example.com", Subject: `Harbour ${number}` },
    `The harbour is open on day ${number}, says the office of the port. Ships may come in.`,
  );
const SECRET = eml(
  { From: "Jane Roe <jane@roe-law.com>", To: "ann@example.com", Subject: "PRIVILEGED & CONFIDENTIAL: Attorney-Client Communication" },
  "You asked for my legal advice on zebras. As your attorney I advise you to settle. Protected by attorney-client privilege.",
  [{ name: "zebra.eml", type: "text/plain", bytes: new TextEncoder().encode(clear(77).replaceAll("harbour", "zebra")) }],
);

/** What an answer says beside times and what is made for each anew. */
function plain(answer: unknown, ids: readonly string[]): string {
  let text = JSON.stringify(answer);
  ids.forEach((id) => text = text.replaceAll(id, NONE));
  return text.replaceAll(/\d{4}-\d\d-\d\dT[\d:.]+Z/g, "(time)").replaceAll(/"(search_time|search_time_ms|duration_ms)":\d+/g, '"$1":0')
    .replaceAll(/\b(job|search|upload|doc)_[\w-]{16}/g, "$1_x");
}

/** A case in which something is hidden, and who has listened to it from the start. */
class Matter {
  secrets: string[] = [];
  open: string[] = [];
  mixed = "";
  /** Of one clear document, and nothing else. */
  pure = "";
  since = "";
  readonly listening = new Map<string, RawClient[]>();

  constructor(readonly office: Office) {}

  async fill(): Promise<void> {
    const { office } = this;
    const first = await office.take(ann, { "one.eml": clear(1) });
    this.pure = first.job;
    for (const user of BLIND) {
      const { client, reply } = await office.enter(user, `case:${CASE}`);
      assertEquals(reply.response.documents.length, 1);
      const search = (await office.enter(user, "search:live")).client;
      await office.push(search, "search:live", "search", { query: "zebra OR advice", live: true });
      this.listening.set(user.id, [client, search]);
    }
    this.since = (await office.get(ann, `/api/cases/${CASE}/log?limit=1000`)).body.events.at(-1).cursor;
    const { job } = await office.take(ann, { "secret.eml": SECRET, "two.eml": clear(2) });
    this.mixed = job;
    const all = await office.documents(ann);
    this.secrets = all.filter(({ filename }) => /secret|zebra/.test(filename)).map(({ id }) => id);
    this.open = all.filter(({ filename }) => /one|two/.test(filename)).map(({ id }) => id);
    assertEquals([all.length, this.secrets.length, this.open.length], [4, 2, 2]);
  }
  /** Nothing that somebody was told speaks of it. */
  silent(said: unknown, what: string): void {
    const text = JSON.stringify(said);
    for (const word of [...this.secrets, "zebra", "secret.eml", "legal advice", "roe-law"]) assert(!text.includes(word), `${what}: ${word} in ${text}`);
  }
  /** The same question about what is hidden, what is attached to that, and what does not exist: one answer. */
  async alike(what: string, question: (id: string) => Promise<unknown>): Promise<string> {
    const [none, ...answers] = await Promise.all([NONE, ...this.secrets].map(async (id) => plain(await question(id), [id])));
    for (const answer of answers) assertEquals(answer, none, what);
    return none;
  }
}

Deno.test({
  name: "privilege: by no route is a hidden document anything else than one that does not exist [DESIGN §4]",
  async fn(t) {
    await using office = await Office.start();
    const matter = new Matter(office);
    await matter.fill();
    const caseTopic = `case:${CASE}`;
    for (const user of BLIND) {
      const asked = async (user: User, topic: string, event: string, payload: object) => {
        const { client } = await office.enter(user, topic);
        await using _ = client;
        return await office.push(client, topic, event, payload);
      };
      const over = async (method: string, path: string, body?: BodyInit) => {
        const { status, headers, text } = await office.ask(user, method, path, body);
        return [status, headers.get("content-type"), text];
      };

      await t.step(`${user.role}: what came of itself`, async () => {
        const [client, search] = matter.listening.get(user.id)!;
        const told = await client.heard();
        matter.silent(told, "case events");
        assertEquals(told.filter((frame) => frame[3] === "document:uploaded").map((frame) => frame[4].document.id), matter.open.slice(1));
        matter.silent(await search.heard(), "a live search");
        await Promise.all([client.close(), search.close()]);
      });

      await t.step(`${user.role}: joins, replay and record`, async () => {
        const ways = ["document", "collaboration"].flatMap((topic) =>
          [{}, { since: matter.since }, { capabilities: ["privilege"] }].map((params) => ({ topic, params }))
        );
        // Side by side: each waits a second for what may be on its way.
        const answers = ways.map(({ topic, params }) =>
          matter.alike(`join of ${topic}`, async (id) => {
            const { client, reply } = await office.enter(user, `${topic}:${id}`, params);
            await using _ = client;
            return [reply, await client.heard()];
          })
        );
        for (const answer of await Promise.all(answers)) assert(answer.includes("not_found"), answer);
        for (const params of [{}, { since: matter.since }]) {
          const { client, reply } = await office.enter(user, caseTopic, params);
          await using _ = client;
          matter.silent([reply, await client.heard()], "join of the case");
          if (!("since" in params)) assertEquals(reply.response.documents.map(({ id }: Heard) => id), matter.open.toReversed());
        }
        matter.silent((await office.get(user, `/api/cases/${CASE}/log`)).body, "the record");
        assertEquals((await office.get(user, `/api/cases/${CASE}/log`)).status, 200);
      });

      await t.step(`${user.role}: jobs`, async () => {
        // A job with something hidden in it, and one without: only their names and times differ.
        const told = async (job: string) => {
          const { state: { name: _, ...state }, summary, frames } = await office.watch(user, job) as Watched;
          matter.silent([state, frames], "a job");
          return plain({ ...state, summary }, [job]);
        };
        assertEquals(await told(matter.mixed), await told(matter.pure));
        const again = (id: string) => asked(user, `processing:${matter.mixed}`, "retry_exceptions", { document_ids: [id] });
        await matter.alike("retry_exceptions", again);
      });

      await t.step(`${user.role}: searches`, async () => {
        for (const word of ["zebra", "advice", "from:roe", '"attorney-client privilege"', "zeb*", "subject:privileged"]) {
          const { response } = await asked(user, "search:live", "search", { query: word, stream: false });
          const nothing = await asked(user, "search:live", "search", { query: "nosuchword", stream: false });
          assertEquals(plain(response, []), plain(nothing.response, []), word);
          const { client } = await office.enter(user, "search:other");
          await using _ = client;
          await office.push(client, "search:other", "search", { query: word });
          const complete = await client.next();
          assertEquals([complete[3], complete[4].total_results, complete[4].total_is_exact], ["search:complete", 0, true], word);
        }
        const both = (await asked(user, "search:live", "search", { query: "NOT nosuchword AND office OR zebra", stream: false })).response;
        matter.silent(both, "a search for more");
        assertEquals([both.total_results, both.total_is_exact, both.results.length], [2, true, 2]);
      });

      await t.step(`${user.role}: pushes`, async () => {
        await matter.alike("request:summary", (document_id) => asked(user, caseTopic, "request:summary", { document_id }));
        await matter.alike("start_workflow", (id) => asked(user, caseTopic, "start_workflow", { document_ids: [id] }));
        await matter.alike("start_workflow with another", (id) => asked(user, caseTopic, "start_workflow", { document_ids: [matter.open[0], id] }));
        await matter.alike("update_privilege", (id) => asked(user, `document:${id}`, "update_privilege", { privilege_type: "none", reason: "r" }));
        const mine = await asked(user, `document:${matter.open[0]}`, "update_privilege", { privilege_type: "none", reason: "r" });
        assertEquals([mine.status, mine.response.reason], ["error", "forbidden"]);
      });

      await t.step(`${user.role}: HTTP`, async () => {
        for (const path of ["", "/content", "/text"]) {
          assert((await matter.alike(`GET ${path}`, (id) => over("GET", `/api/documents/${id}${path}`))).startsWith("[404"));
        }
        const list = await office.get(user, `/api/cases/${CASE}/documents`);
        assertEquals(list.body.documents.map(({ id }: Heard) => id), matter.open);
        matter.silent(list.body, "the list");
        await matter.alike("a page after it", (id) => over("GET", `/api/cases/${CASE}/documents?after=${id}`));
        await matter.alike("a workflow", (id) => over("POST", `/api/cases/${CASE}/workflows`, JSON.stringify({ document_ids: [id] })));
        assertEquals((await office.get(user, `/api/cases/${CASE}/privilege-log.csv`)).status, 403);
      });
    }

    await t.step("paralegal: the same file again is answered and worked on as one that is new", async () => {
      const [paralegal] = BLIND;
      const fresh = SECRET.replaceAll("zebra", "camel");
      const shown = [];
      for (const file of [SECRET, fresh]) {
        const { status, body } = await office.send(paralegal, { "mine.eml": file });
        await office.watch(paralegal, body.processing_job_id);
        // How long it took is another matter: nothing is read a second time.
        const { state, summary } = await office.watch(paralegal, body.processing_job_id);
        const { id } = body.documents[0];
        const after = (await office.ask(paralegal, "GET", `/api/documents/${id}`)).text;
        const { hash: _1, ...document } = body.documents[0];
        shown.push(plain({ status, ...body, documents: [document], state, summary, after }, [id, body.processing_job_id]));
      }
      assertEquals(shown[0], shown[1]);
      assertEquals((await office.documents(paralegal)).map(({ id }) => id), matter.open);
    });
    assertEquals(/"level":"error"/.test(office.server.output()), false, office.server.output());
    assertEquals(await office.server.stop(), 0);
  },
});
