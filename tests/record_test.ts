/** `GET /api/cases/:id/log`: the whole record, in order, once, page by page, to those who may read it. */
import { assert, assertEquals, assertGreater, assertLess, assertMatch, assertRejects } from "@std/assert";
import { Refusal } from "../protocol/reason.ts";
import { rooms } from "../rooms/channels/mod.ts";
import type { SqlRow, SqlValue, User } from "../rooms/host.ts";
import { NOTHING_LENT, sha256 } from "../rooms/hosts/deno.ts";
import { type App, makeApp } from "../rooms/http/app.ts";
import { DEFAULT_LIMITS } from "../rooms/limits.ts";
import type { Page, Recorded } from "../rooms/reading.ts";
import { behave, type Room } from "../rooms/room.ts";
import { Outside } from "./support/outside.ts";
import { random } from "./support/random.ts";
import { BreakableSql, lab, labContract, someone, Stage, type StageOptions } from "./support/stage.ts";

const BACK_END = someone("back end", "service", []);
const LAWYER = someone("lawyer");

interface Event {
  readonly event: string;
  readonly payload: Record<string, unknown>;
}
const uploaded = (id: string, more: Record<string, unknown> = {}): Event => ({ event: "document:uploaded", payload: { document: { id, ...more } } });

/** Rooms with the routes around them; a user's token is his id. */
class House {
  readonly stage: Stage;
  readonly #users = new Map<string, User>();
  readonly #app: App;

  constructor(options: StageOptions = {}, kinds: readonly Room[] = rooms) {
    const verify = (token: string) => {
      const user = this.#users.get(token);
      return user ? Promise.resolve({ user, expires: Infinity }) : Promise.reject(new Refusal("token_invalid"));
    };
    this.stage = new Stage(kinds, options);
    const { registry, gateway, metrics, host } = this.stage;
    const limits = { ...DEFAULT_LIMITS, ...options.limits };
    const rest = { channels: [], allowedOrigins: [], trustProxy: false, report: host.report, note: () => {} };
    this.#app = makeApp({ registry, gateway, verify, limits, metrics, sha256, ...NOTHING_LENT, ...rest });
  }

  /** Resolves to the cursors. */
  async publish(id: string, events: readonly Event[]): Promise<string[]> {
    const cursors = this.stage.registry.publish(`case:${id}`, BACK_END, events);
    this.stage.run();
    return await cursors;
  }

  /** One page, past the routes. */
  async page(id: string, after: string | null = null, limit = 1000, user = LAWYER): Promise<Page> {
    const page = this.stage.registry.read(`case:${id}`, user, after, limit);
    this.stage.run();
    return await page;
  }

  /** All pages of that size. */
  async pages(id: string, limit = 1000, user = LAWYER, after: string | null = null): Promise<Page[]> {
    const pages = [await this.page(id, after, limit, user)];
    while (pages.at(-1)!.next !== null) {
      pages.push(await this.page(id, pages.at(-1)!.next, limit, user));
      assertLess(pages.length, 10_000);
    }
    return pages;
  }
  async all(id: string, limit = 1000, user = LAWYER): Promise<Recorded[]> {
    return (await this.pages(id, limit, user)).flatMap(({ events }) => events);
  }

  /** As over HTTP; `path` stands as it is in the URL. */
  // deno-lint-ignore no-explicit-any
  async get(path: string, user: User | null = LAWYER): Promise<{ status: number; body: any }> {
    if (user) this.#users.set(encodeURIComponent(user.id), user);
    const headers = user ? { authorization: `Bearer ${encodeURIComponent(user.id)}` } : undefined;
    const answer = Promise.resolve(this.#app.request(`http://localhost${path}`, { headers }));
    await this.stage.settle();
    const response = await answer;
    return { status: response.status, body: await response.json() };
  }
  [Symbol.dispose](): void {
    this.stage.close();
  }
}

/** What stands in a record, without times. */
const said = (events: readonly Recorded[]) => events.map(({ cursor, user, event, payload }) => ({ cursor, user, event, payload }));

// All of it, in order, once.

Deno.test("record: pages of every size give the whole record in order, once, whatever other rooms wrote in between and whichever ticks were lost", async () => {
  const seed = 20260728;
  const below = random(seed);
  const sql = new BreakableSql();
  using house = new House({ sql });
  const kept: Record<string, unknown[]> = { a: [], b: [], c: [] };
  for (let total = 0; total < 1700;) {
    const [id, length] = ["aabbc"[below(5)], 1 + below(20)];
    const events = Array.from({ length }, (_, n) => uploaded(`${id}${total + n}`, { title: "t".repeat(below(50)) }));
    sql.failCommits = below(6) === 0 ? 1 : 0;
    const cursors = await house.publish(id, events).catch((error) => {
      assertEquals(error.reason, "unavailable");
      return [];
    });
    cursors.forEach((cursor, n) => kept[id].push({ cursor, user: "back end", ...events[n] }));
    total += cursors.length;
  }
  for (const [id, entries] of Object.entries(kept)) {
    assertGreater(entries.length, 256);
    for (const limit of [1, 2, 7, 100, 255, 256, 257, 512, 999, 1000]) {
      const pages = await house.pages(id, limit);
      assertEquals(pages.length, Math.ceil(entries.length / limit), `${id} by ${limit}, seed ${seed}`);
      for (const page of pages.slice(0, -1)) assertEquals([page.events.length, page.next], [limit, page.events.at(-1)!.cursor]);
      assertEquals(said(pages.flatMap(({ events }) => events)), entries, `${id} by ${limit}, seed ${seed}`);
    }
    // From anywhere.
    for (let turn = 0; turn < 100; turn++) {
      const [from, limit] = [below(entries.length), 1 + below(600)];
      const page = await house.page(id, (entries[from] as Recorded).cursor, limit);
      assertEquals(said(page.events), entries.slice(from + 1, from + 1 + limit), `${id} from ${from} by ${limit}, seed ${seed}`);
      assertEquals(page.next === null, from + 1 + limit >= entries.length);
    }
  }
});

Deno.test("record: a log that an older version wrote, without its marks, is read whole; and by another life of the server", async () => {
  const sql = new BreakableSql();
  const house = new House({ sql });
  for (let n = 0; n < 9; n++) await house.publish("1", Array.from({ length: 100 }, (_, m) => uploaded(`d${n * 100 + m}`)));
  const whole = await house.all("1");
  assertEquals(whole.length, 900);
  sql.run("delete from log_mark where seq < 500", [], true);
  sql.commit();
  const other = new House({ sql });
  await other.publish("1", [uploaded("last")]);
  for (const limit of [50, 256, 1000]) assertEquals((await other.all("1", limit)).slice(0, -1), whole);
  other.stage.close();
});

/** Counts the entries that are walked over. */
class WalkedSql extends BreakableSql {
  walked = 0;
  override run(statement: string, parameters: readonly SqlValue[], writes: boolean): SqlRow[] {
    const rows = super.run(statement, parameters, writes);
    if (statement.startsWith("with recursive")) this.walked += rows.length;
    return rows;
  }
}

Deno.test("record: a page of a long record costs what a page costs, wherever it stands", async () => {
  const sql = new WalkedSql();
  using house = new House({ sql });
  for (let n = 0; n < 30; n++) await house.publish("1", Array.from({ length: 100 }, (_, m) => uploaded(`d${n * 100 + m}`)));
  for (const limit of [10, 300]) {
    let after: string | null = null;
    do {
      sql.walked = 0;
      after = (await house.page("1", after, limit)).next;
      assertLess(sql.walked, limit + 3 * 256);
    } while (after !== null);
  }
});

Deno.test("record: an entry has its cursor, time, user, event and payload, and nothing else; a hundred come unless said otherwise", async () => {
  using house = new House();
  const [first] = await house.publish("1", [uploaded("d0")]);
  house.stage.advance(1500);
  await house.publish("1", Array.from({ length: 150 }, (_, n) => uploaded(`d${n + 1}`)));
  const { status, body } = await house.get("/api/cases/1/log");
  assertEquals([status, body.events.length, body.next], [200, 100, body.events[99].cursor]);
  assertEquals(body.events[0], { cursor: first, at: "2026-01-01T00:00:00.000Z", user: "back end", ...uploaded("d0") });
  assertEquals(body.events[1].at, "2026-01-01T00:00:01.500Z");
  assertEquals((await house.get("/api/cases/1/log?limit=1000")).body.events.length, 151);
  assertEquals((await house.get("/api/cases/1/log?limit=1")).body, { events: [body.events[0]], next: first });
  assertEquals((await house.get("/api/cases/another/log")).body, { events: [], next: null });
});

Deno.test("record: `after` goes on where one was, and finds what is new", async () => {
  using house = new House();
  const cursors = await house.publish("1", [uploaded("a"), uploaded("b"), uploaded("c")]);
  const after = async (cursor: string) => {
    const { events, next } = (await house.get(`/api/cases/1/log?after=${cursor}`)).body;
    return [events.map(({ payload }: Recorded) => (payload as { document: { id: string } }).document.id).join(""), next];
  };
  assertEquals(await after("0"), ["abc", null]);
  assertEquals(await after(""), ["abc", null]);
  assertEquals(await after(cursors[0]), ["bc", null]);
  assertEquals(await after(cursors[2]), ["", null]);
  const [fourth] = await house.publish("1", [uploaded("d"), uploaded("e")]);
  assertEquals(await after(cursors[2]), ["de", null]);
  assertEquals(await after(fourth), ["e", null]);
});

Deno.test("record: a limit that is no number from 1 to 1,000 is refused, and so is a cursor that is not of this record", async () => {
  using house = new House();
  const [mine] = await house.publish("1", [uploaded("d")]);
  const [other] = await house.publish("2", [uploaded("d2")]);
  const limits = ["0", "-1", "1001", "10000", "abc", "", "1.5", "1e2", "0x10", "01", "+5", "%205", "5%20", "5%0A", "Infinity", "null"];
  const cursors = [
    "x",
    "-1",
    "1",
    "null",
    other,
    mine.toUpperCase() + "x",
    mine.replace(/-.*/, "-0123456789abcdef"),
    `2${mine.slice(1)}`,
    "zzzzzzzzzz-0123456789abcdef",
  ];
  cursors.push(mine + "0", mine.slice(0, -1), "0-0123456789abcdef", "%00", "x".repeat(3000));
  for (const query of [...limits.map((limit) => `limit=${limit}`), ...cursors.map((cursor) => `after=${cursor}`)]) {
    const { status, body } = await house.get(`/api/cases/1/log?${query}`);
    assertEquals([query, status, body.reason], [query, 422, "invalid_payload"]);
    assertMatch(body.message, query.startsWith("limit") ? /limit/ : /after/);
  }
  for (const query of ["limit=1", "limit=1000", `after=${mine}`, "other=1"]) assertEquals((await house.get(`/api/cases/1/log?${query}`)).status, 200);
  assertEquals(house.stage.reported, []);
});

Deno.test("record: one page has at most 4 MiB of payloads in bytes, and at least one entry", async () => {
  using house = new House({ limits: { payload_units: 6_000_000 } });
  const sizes: number[] = [];
  // Three bytes to a character.
  for (let n = 0; n < 60; n++) {
    const event = uploaded(`d${n}`, { summary: "中".repeat(50_000 + n) });
    sizes.push(new TextEncoder().encode(JSON.stringify(event.payload)).length);
    await house.publish("1", [event]);
  }
  const large = uploaded("large", { summary: "x".repeat(5_000_000) });
  await house.publish("1", [large, uploaded("small"), uploaded("last")]);
  const pages = (await house.pages("1")).map(({ events }) => events);
  assertEquals(pages.flat().map(({ payload }) => (payload as { document: { id: string } }).document.id), [
    ...sizes.map((_, n) => `d${n}`),
    "large",
    "small",
    "last",
  ]);
  const bytes = pages.map((events) => events.reduce((sum, { payload }) => sum + new TextEncoder().encode(JSON.stringify(payload)).length, 0));
  for (const [index, events] of pages.entries()) {
    assert(bytes[index] <= 4_194_304 || events.length === 1, `${bytes[index]} bytes`);
    // Each is as full as it can be.
    if (pages[index + 1]) assertGreater(bytes[index] + new TextEncoder().encode(JSON.stringify(pages[index + 1][0].payload)).length, 4_194_304);
  }
  assertEquals(pages.map(({ length }) => length), [27, 27, 6, 1, 2]);
});

// Who may read what.

Deno.test("record: without a good token 401; without the case 403, alike whether it exists, whatever the role", async () => {
  using house = new House();
  await house.publish("1", [uploaded("d")]);
  const unknown = await house.get("/api/cases/1/log", null);
  assertEquals([unknown.status, unknown.body.reason], [401, "unauthenticated"]);
  assertEquals((await house.get("/api/cases/1/log?limit=0", null)).status, 401);
  for (const role of ["admin", "attorney", "paralegal", "client", "viewer", "service"] as const) {
    const [out, within] = [someone(`${role} out`, role, ["2"]), someone(`${role} in`, role, ["1"])];
    const refused = await house.get("/api/cases/1/log", out);
    assertEquals([refused.status, refused.body.reason, "events" in refused.body], [403, "forbidden", false]);
    assertEquals(await house.get("/api/cases/none/log", out), refused);
    assertEquals((await house.get("/api/cases/1/log", within)).status, 200);
    assertEquals((await house.get("/api/cases/2/log", out)).body, { events: [], next: null });
  }
});

Deno.test("record: who asked for it and may not stands in it, a few times; a case without a record stays without", async () => {
  using house = new House({ limits: { refusals_logged: 3 } });
  const intruder = someone("intruder", "admin", []);
  for (let n = 0; n < 2; n++) assertEquals((await house.get("/api/cases/1/log", intruder)).status, 403);
  assertEquals(await house.all("1"), []);
  house.stage.advance(60_001);
  await house.publish("1", [uploaded("d")]);
  for (let n = 0; n < 5; n++) assertEquals((await house.get("/api/cases/1/log", intruder)).status, 403);
  const refused = (await house.all("1")).slice(1);
  assertEquals(refused.map(({ user, event, payload }) => [user, event, payload]), Array(3).fill(["intruder", "refused", { reason: "forbidden" }]));
});

Deno.test("record: refused attempts are shown to moderators alone; pages without them lead on, and through all the rest", async () => {
  using house = new House();
  await house.publish("1", [uploaded("a")]);
  const intruder = house.stage.client(someone("intruder", "attorney", []));
  for (let n = 0; n < 4; n++) intruder.join("case:1");
  intruder.join("case:1", { user_id: "somebody else" });
  await assertRejects(async () => {
    const publishing = house.stage.registry.publish("case:1", someone("paralegal", "paralegal"), []);
    house.stage.run();
    await publishing;
  }, Refusal);
  await house.publish("1", [uploaded("b")]);
  const events = async (role: User["role"], limit: number) =>
    (await house.all("1", limit, someone(`a ${role}`, role))).map(({ user, event }) => `${user} ${event}`);
  const [seen, refused] = ["back end document:uploaded", "intruder refused"];
  for (const limit of [1, 2, 100]) {
    // Nobody has said yet that the documents are not privileged.
    for (const role of ["paralegal", "client", "viewer"] as const) assertEquals(await events(role, limit), [], `${role} by ${limit}`);
    for (const role of ["admin", "attorney"] as const) {
      assertEquals(await events(role, limit), [seen, refused, refused, refused, refused, refused, "paralegal refused", seen]);
    }
    assertEquals(await events("service", limit), [seen, seen], `by ${limit}`);
  }
  const reasons = (await house.all("1")).filter(({ event }) => event === "refused").map(({ payload }) => (payload as { reason: string }).reason);
  assertEquals(reasons, [...Array(4).fill("forbidden"), "user_mismatch", "forbidden"]);
  // It ends, even if nothing of its end is shown.
  house.stage.client(someone("late", "attorney", [])).join("case:1");
  assertEquals((await house.pages("1", 100, someone("v", "service"))).map(({ events }) => events.length), [2]);
});

/** Cases where a payload says who may see it, and notes that are kept in the same room. */
const seeing = lab({}, {
  topics: [
    behave(labContract("case"), {
      admit() {},
      join: () => ({}),
      sees: (_ctx, role, event, { only }) => event !== "posted" || only === undefined || only === role,
      on: { do: (ctx) => (ctx.broadcast("kept", { n: 1 }), ctx.broadcast("told", {}), ctx.broadcast("seen", {})), also() {}, bytes() {}, hush() {} },
    }),
    behave(labContract("notes"), { admit() {}, join: () => ({}), on: { do() {}, also() {}, bytes() {}, hush() {} } }),
  ],
}, "case");

Deno.test("record: only what the asker may see today, only lasting events, and only of the case's own topic", async () => {
  using house = new House({}, [seeing]);
  const post = (n: number, only?: string): Event => ({ event: "posted", payload: { n, ...(only && { only }) } });
  await house.publish("1", [post(1), post(2, "viewer"), post(3, "attorney")]);
  const notes = house.stage.registry.publish("notes:1", BACK_END, [post(4)]);
  house.stage.run();
  assertEquals((await notes).length, 1);
  const member = house.stage.client();
  member.join("case:1");
  member.send([null, "1", "case:1", "do", {}]);
  await house.publish("1", [post(5, "viewer")]);
  const numbers = async (role: User["role"], limit: number) =>
    (await house.all("1", limit, someone(role, role))).map(({ event, payload }) => [event, (payload as { n: number }).n]);
  for (const limit of [1, 2, 1000]) {
    assertEquals(await numbers("attorney", limit), [["posted", 1], ["posted", 3], ["kept", 1]]);
    assertEquals(await numbers("viewer", limit), [["posted", 1], ["posted", 2], ["kept", 1], ["posted", 5]]);
    assertEquals(await numbers("client", limit), [["posted", 1], ["kept", 1]]);
  }
});

Deno.test("record: it costs one of the user's requests, over sockets and HTTP together; 429 says when to come again", async () => {
  using house = new House({ limits: { requests: 4 } });
  await house.publish("1", [uploaded("d")]);
  const socket = house.stage.client(LAWYER);
  socket.join("case:1");
  const push = () => socket.send([null, "p", "case:1", "presence:update", {}]).find((frame) => frame[3] === "phx_reply")[4].status;
  assertEquals(push(), "ok");
  assertEquals((await house.get("/api/cases/1/log")).status, 200);
  house.stage.advance(10_000);
  // A request that was wrong is one.
  assertEquals((await house.get("/api/cases/1/log?limit=0")).status, 422);
  assertEquals((await house.get("/api/cases/1/log")).status, 200);
  for (let n = 0; n < 3; n++) {
    const { status, body } = await house.get("/api/cases/1/log");
    assertEquals([status, body.reason, body.limit, body.retry_after_ms], [429, "rate_limited", 4, 50_000]);
  }
  assertEquals(push(), "error");
  assertEquals((await house.get("/api/cases/1/log", someone("another"))).status, 200);
  house.stage.advance(50_000);
  assertEquals([push(), (await house.get("/api/cases/1/log")).status], ["ok", 200]);
  assertEquals((await house.get("/api/cases/1/log")).status, 429);
});

// What is not kept is not shown.

Deno.test("record: a page that was read in a lost tick is not answered, and shows nothing of it afterwards", async () => {
  const sql = new BreakableSql();
  using house = new House({ sql });
  const { registry } = house.stage;
  await house.publish("1", [uploaded("kept")]);
  await house.publish("2", [uploaded("other")]);
  const before = await house.page("1");
  for (const [what, failing] of [["commit", null], ["append", /^insert into log \(/], ["heads", /^insert into log_head/]] as const) {
    const early = registry.read("case:1", LAWYER, null, 10);
    const publication = registry.publish("case:1", BACK_END, [uploaded("lost")]);
    const late = registry.read("case:1", LAWYER, null, 10);
    const elsewhere = registry.read("case:2", LAWYER, null, 10);
    if (failing) sql.failing = failing;
    else sql.failCommits = 1;
    house.stage.tick();
    sql.failing = null;
    for (const promise of [early, publication, late]) assertEquals((await assertRejects(() => promise, Refusal)).reason, "unavailable", what);
    assertEquals((await elsewhere).events.length, 1);
    assertEquals(await house.page("1"), before);
  }
  // Over HTTP: 503, send it again.
  const publication = registry.publish("case:1", BACK_END, [uploaded("lost")]).catch(() => {});
  sql.failCommits = 1;
  const answer = await house.get("/api/cases/1/log");
  await publication;
  assertEquals([answer.status, answer.body.reason], [503, "unavailable"]);
  assertEquals((await house.publish("1", [uploaded("next")])).length, 1);
  assertEquals((await house.all("1")).map(({ payload }) => payload), [uploaded("kept").payload, uploaded("next").payload]);
});

Deno.test("record: whoever reads it can tell what every member heard, word for word", async () => {
  using house = new House();
  const members = [house.stage.client(someone("a")), house.stage.client(someone("b", "admin"))];
  for (const member of members) member.join("case:1");
  const odd = { html: "<b onclick=x()>bold</b><script>1</script>", "": null, __proto__x: [1.5, -0, 1e21], "\u2028 é 中 👍": { deep: [[{ cursor: "mine" }]] } };
  await house.publish("1", [uploaded("d1", { title: "“Lease” \u0000 \\ \n" }), uploaded("d2", { metadata: odd })]);
  await house.publish("1", [{ event: "document:processed", payload: { document_id: "d1", status: "completed", results: { summary: "s", ...odd } } }]);
  await house.publish("1", [
    { event: "workflow:started", payload: { workflow_id: "w", case_id: "1", at: 1, cursor: "mine", ...odd } },
    { event: "workflow:completed", payload: { workflow_id: "w", duration_ms: 0.5 } },
  ]);
  const told = (await house.all("1", 2)).map(({ event, payload, cursor }) => [event, { ...payload as object, cursor }]);
  assertEquals(told.length, 5);
  for (const member of members) {
    assertEquals(member.take().filter((frame) => /^(?:document|workflow):/.test(frame[3])).map((frame) => [frame[3], frame[4]]), told);
  }
  // A member who comes back hears the same.
  const returning = house.stage.client(someone("c"));
  const { heard } = returning.join("case:1", { since: "0", aliases: false });
  assertEquals(heard.filter((frame) => /^(?:document|workflow):/.test(frame[3])).map((frame) => [frame[3], frame[4]]), told);
});

// Ids in the path.

Deno.test("record: an id stands in the path percent-encoded, and is any name that a topic may have", async () => {
  using house = new House();
  const ids = [
    "a:b",
    "a/b",
    "a%2Fb",
    "100%",
    " ",
    "a b",
    "a+b",
    "?x=1",
    "#x",
    "é",
    "中文",
    "👍",
    "__proto__",
    "constructor",
    "undefined",
    "*",
    "{id}",
    "a\\b",
    "'\"`",
    "&amp;",
    "x".repeat(250),
  ];
  for (const id of ids) await house.publish(id, [uploaded(`of ${id}`.slice(0, 200))]);
  for (const id of ids) {
    const { status, body } = await house.get(`/api/cases/${encodeURIComponent(id)}/log`);
    assertEquals([id, status, body.events?.[0]?.payload], [id, 200, uploaded(`of ${id}`.slice(0, 200)).payload]);
  }
  const only = someone("only", "client", ["a/b"]);
  assertEquals((await house.get("/api/cases/a%2Fb/log", only)).status, 200);
  assertEquals((await house.get("/api/cases/a%252Fb/log", only)).status, 403);
});

Deno.test("record: a path that names no case is 404, also where a case `undefined` exists", async () => {
  using house = new House();
  await house.publish("undefined", [uploaded("d")]);
  const paths = ["%ff", "%E0%A4%A", "%", "%zz", "a%00b", "%0a", "%7f", "x".repeat(251), "%F0%9F%91%8D".repeat(63), ""];
  for (const path of paths) {
    const { status, body } = await house.get(`/api/cases/${path}/log`);
    assertEquals([path, status, body.reason], [path, 404, "not_found"]);
  }
});

// Of a server.

Deno.test("record: over HTTP from a server, while it is published to, page after page without gap or repetition", async () => {
  await using at = await Outside.start({ LIMIT_REQUESTS: "60" });
  const backEnd = await at.token(BACK_END);
  const reader = await at.token(LAWYER);
  let published = 0;
  const publishing = (async () => {
    for (; published < 600; published += 20) {
      const events = Array.from({ length: 20 }, (_, n) => uploaded(`d${published + n}`));
      assertEquals((await at.publish("case:a b", events, backEnd)).status, 200);
    }
  })();
  const seen: string[] = [];
  let after = "0";
  for (let request = 0; seen.length < 600; request++) {
    assertLess(request, 60);
    const { status, body } = await at.post(`/api/cases/a%20b/log?limit=33&after=${after}`, "", reader, "GET");
    assertEquals(status, 200);
    seen.push(...body.events.map(({ payload }: { payload: { document: { id: string } } }) => payload.document.id));
    after = body.events.at(-1)?.cursor ?? after;
    if (body.next === null) await publishing;
  }
  assertEquals(seen, Array.from({ length: 600 }, (_, n) => `d${n}`));
  const statuses = await Promise.all(
    [null, "wrong", await at.token(someone("x", "admin", []))].map((token) => at.post("/api/cases/a%20b/log", "", token, "GET")),
  );
  assertEquals(statuses.map(({ status, body }) => [status, body.reason]), [[401, "unauthenticated"], [401, "token_invalid"], [403, "forbidden"]]);
  let last;
  for (let n = 0; n <= 60 && last?.status !== 429; n++) last = await at.post("/api/cases/a%20b/log?limit=1", "", reader, "GET");
  assertEquals([last?.status, last?.body.reason, last?.body.limit], [429, "rate_limited", 60]);
  assert(last?.body.retry_after_ms > 0 && last?.body.retry_after_ms <= 60_000);
  assertEquals(await at.server.stop(), 0);
});
