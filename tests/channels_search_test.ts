/** Search: what is asked for, what is found, and who hears of it. [S01-S13, DESIGN §4, §8] */
import { assert, assertEquals } from "@std/assert";
import type { Heard } from "./support/raw.ts";
import { CASE, Desk } from "./support/desk.ts";
import { PRIVILEGED } from "./support/labour.ts";
import { someone, type StageClient } from "./support/stage.ts";

const LIVE = "search:live";
const named = (client: StageClient, ...names: string[]): Heard[] => client.take().filter((frame: Heard) => names.includes(frame[3]));

/** A case of three documents with "word" in them, one of them privileged, and somebody who searches. */
async function setUp(options: { limits?: object } = {}) {
  const desk = new Desk(options);
  const { client: attorney } = desk.join("attorney");
  for (const content of ["word one", "word two"]) await desk.add(attorney, content);
  const { document: secret } = await desk.add(attorney, "word secret", PRIVILEGED);
  const searcher = (role: "attorney" | "viewer", params: object = {}, id: string = `searching ${role}`) => {
    const { client } = desk.join(role, LIVE, params, id);
    client.take();
    return client;
  };
  return { desk, attorney, secret, searcher };
}

Deno.test("search: the reply with its id comes first, then results counted 1, 2, 3, then the end, under both names [S01, S02, S03, S04, S11, X01]", async () => {
  const { desk, searcher } = await setUp();
  const client = searcher("attorney", { aliases: true });
  const other = searcher("attorney", {}, "another");
  client.queue(["j1", "s", LIVE, "search", { query: "word", filters: { case_ids: ["case_1"] }, stream: true }]);
  await desk.stage.settle();
  const heard = client.take().filter((frame: Heard) => frame[3] !== "update");
  assertEquals([heard[0][1], heard[0][4].status], ["s", "ok"]);
  const { search_id } = heard[0][4].response;
  assertEquals(heard.slice(1).map((frame: Heard) => frame[3]), [...Array(3).fill(["result", "search:result"]).flat(), "search:complete"]);
  const results = heard.filter((frame: Heard) => frame[3] === "result").map((frame: Heard) => frame[4]);
  assertEquals(results, heard.filter((frame: Heard) => frame[3] === "search:result").map((frame: Heard) => frame[4]));
  assertEquals(
    results.map((result: Heard) => [result.search_id, result.total_so_far, result.document.case_id]),
    [1, 2, 3].map((n) => [search_id, n, "case_1"]),
  );
  const { search_time, search_time_ms, ...complete } = heard.at(-1)[4];
  assertEquals([complete, search_time], [{ search_id, total_results: 3, total_is_exact: true }, search_time_ms]);
  // [S06]
  assertEquals(other.take(), []);
  desk.close();
});

Deno.test("search: what may not be seen is not found, and does not count; nor when it was hidden after it was found [S13]", async () => {
  const { desk, searcher, attorney } = await setUp();
  const viewer = searcher("viewer");
  const ask = async (query: string) => {
    const { response } = await desk.push(viewer, "search", { query, stream: false }, LIVE);
    return [response.total_results, response.total_is_exact, response.results.map(({ title }: Heard) => title)];
  };
  // The token names one case.
  assertEquals((await ask("word"))[0], 2);
  assertEquals(await ask("secret"), [0, true, []]);
  // The index is behind: it still says that it may be seen.
  for (const text of desk.labour.texts.values()) text.visible = true;
  assertEquals((await ask("word"))[0], 2);
  assertEquals(await ask("secret"), [0, true, []]);
  // Hidden while the search was under way: the case has the last word.
  viewer.queue(["j1", "s", LIVE, "search", { query: "one" }]);
  desk.labour.holding = true;
  await desk.stage.settle();
  const one = [...desk.labour.texts].find(([, { text }]) => text === "word one")![0];
  const room = desk.join("attorney", `document:${one}`, {}, "decider").client;
  room.queue(["j1", "p", `document:${one}`, "update_privilege", { privilege_type: "confidential" }]);
  await desk.stage.settle();
  desk.labour.holding = false;
  desk.labour.release();
  await desk.stage.settle();
  assertEquals(named(viewer, "result", "search:complete").map((frame) => frame[4].total_results), [0]);
  assert(attorney);
  desk.close();
});

Deno.test("search: a case that one may not see is an error, and without naming any only one's own are searched [S08]", async () => {
  const { desk } = await setUp();
  for (const [cases, expected] of [[["case_2"], 0], [["case_1", "case_2"], 3], ["*", 3]] as const) {
    const client = desk.stage.client(someone(`of ${cases}`, "attorney", cases));
    client.join(LIVE);
    const { response } = await desk.push(client, "search", { query: "word", stream: false }, LIVE);
    assertEquals(response.total_results, expected);
    const named = await desk.push(client, "search", { query: "word", stream: false, filters: { case_ids: ["case_1", "case_3"] } }, LIVE);
    assertEquals(named.response.reason ?? "ok", cases === "*" ? "ok" : "forbidden");
  }
  desk.close();
});

Deno.test("search: after the reply to cancel_search nothing more of it is told; another one goes on [S05, S07]", async () => {
  const { desk, searcher } = await setUp();
  const client = searcher("attorney");
  desk.labour.holding = true;
  const first = (await desk.push(client, "search", { query: "one" }, LIVE)).response.search_id;
  const second = (await desk.push(client, "search", { query: "two" }, LIVE)).response.search_id;
  assertEquals((await desk.push(client, "cancel_search", { search_id: first }, LIVE)).status, "ok");
  assertEquals((await desk.push(client, "cancel_search", { search_id: first }, LIVE)).response.reason, "not_found");
  client.take();
  desk.labour.holding = false;
  desk.labour.release();
  await desk.stage.settle();
  assertEquals(named(client, "result", "search:complete").map((frame) => [frame[3], frame[4].search_id]), [["result", second], ["search:complete", second]]);
  assertEquals((await desk.push(client, "cancel_search", { search_id: second }, LIVE)).response.reason, "not_found");
  desk.close();
});

Deno.test("search: four at once for one user, over all his sockets; those that ended or whose socket is gone do not count [DESIGN §8]", async () => {
  const { desk, searcher } = await setUp();
  const [client, other] = [searcher("attorney"), searcher("attorney")];
  desk.labour.holding = true;
  const ask = async (at: StageClient) => (await desk.push(at, "search", { query: "word" }, LIVE)).response;
  for (let at = 0; at < 4; at++) assert((await ask(at % 2 ? client : other)).search_id);
  assertEquals(await ask(client), { reason: "search_limit", limit: 4 });
  other.drop(true);
  assert((await ask(client)).search_id);
  desk.labour.holding = false;
  desk.labour.release();
  await desk.stage.settle();
  assert((await ask(client)).search_id);
  desk.close();
});

Deno.test("search: a live one tells what is processed later, and what is released, once each, until it is cancelled [issue 4]", async () => {
  const { desk, searcher, attorney, secret } = await setUp();
  const viewer = searcher("viewer");
  const { search_id } = (await desk.push(viewer, "search", { query: "word", live: true }, LIVE)).response;
  const wait = async () => {
    for (let step = 0; step < 4; step++) {
      await desk.stage.settle();
      desk.stage.advance(600);
    }
    await desk.stage.settle();
    return named(viewer, "result").map((frame) => [frame[4].document.snippets[0], frame[4].total_so_far]);
  };
  assertEquals(await wait(), [["word one", 1], ["word two", 2]]);
  await desk.add(attorney, "word three");
  await desk.add(attorney, "other");
  await desk.add(attorney, "word hidden", PRIVILEGED);
  assertEquals(await wait(), [["word three", 3]]);
  const room = desk.join("attorney", `document:${secret.id}`, {}, "decider").client;
  await desk.push(room, "update_privilege", { privilege_type: "none", reason: "r" }, `document:${secret.id}`);
  assertEquals(await wait(), [["word secret", 4]]);
  await desk.push(viewer, "cancel_search", { search_id }, LIVE);
  await desk.add(attorney, "word four");
  assertEquals(await wait(), []);
  desk.close();
});

Deno.test("search: what cannot be read is refused, and costs nothing [S12]", async () => {
  const { desk, searcher } = await setUp();
  const client = searcher("attorney");
  desk.labour.asked.length = 0;
  for (const query of ["", '"open', "(a", "a AND", "w/5 b", "a*", "?!", "\u{1f600}", "x".repeat(1001)]) {
    assertEquals((await desk.push(client, "search", { query }, LIVE)).response.reason, "invalid_query", query);
  }
  assertEquals(desk.labour.asked, []);
  desk.close();
});

Deno.test("search: every search stands in the record of each case it went through, for moderators to read", async () => {
  const { desk, searcher } = await setUp();
  const client = searcher("viewer");
  const { search_id } = (await desk.push(client, "search", { query: "word", filters: { date_range: { start: "2024-01-01" } } }, LIVE)).response;
  const read = async (role: "attorney" | "viewer") => {
    const page = desk.stage.registry.read(CASE, someone(role, role), null, 1000);
    await desk.stage.settle();
    return (await page).events.filter(({ event }) => event === "searched").map(({ user, payload }) => ({ user, payload }));
  };
  assertEquals(await read("attorney"), [
    { user: "searching viewer", payload: { search_id, query: "word", filters: { date_range: { start: "2024-01-01" } } } },
  ]);
  assertEquals(await read("viewer"), []);
  desk.close();
});

Deno.test("search: an index that was lost is made again from the originals, with what may be seen of it", async () => {
  const { desk, searcher } = await setUp();
  const client = searcher("viewer");
  desk.labour.texts.clear();
  const ask = async () => (await desk.push(client, "search", { query: "word", stream: false }, LIVE)).response.total_results;
  assertEquals(await ask(), 0);
  await desk.stage.settle();
  await desk.stage.settle();
  assertEquals(await ask(), 2);
  desk.close();
});
