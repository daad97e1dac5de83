/** Payloads that only clients can read: relayed as they came where a channel says so, refused everywhere else. [V07 to V10] */
import { assertEquals, assertNotEquals } from "@std/assert";
import { z } from "zod";
import { channel, Encrypted, lasting } from "../protocol/contract.ts";
import { channels } from "../protocol/channels/mod.ts";
import { rooms } from "../rooms/channels/mod.ts";
import { behave, room } from "../rooms/room.ts";
import { oneOfEach } from "./support/desk.ts";
import { encryptedChannel, Notes, Phone } from "./support/page.ts";
import { Outside } from "./support/outside.ts";
import { someone, Stage, type StageClient } from "./support/stage.ts";

const bytes = (length: number) => Array.from({ length }, (_, n) => (n * 37 + 11) % 256);
const sealed = { iv: bytes(16), data: bytes(40) };

/** Two members of `collaboration:1`, a document of `case:1`. */
async function setUp() {
  const stage = new Stage(rooms, { limits: { idle_ms: 1e9 } });
  const topics = await oneOfEach(stage);
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  for (const client of [a, b]) assertEquals(client.join("collaboration:1").heard[0][4].status, "ok");
  a.take();
  /** The reply to a push; a second passes first, so that nothing is coalesced. */
  const push = (event: string, payload: unknown, topic = "collaboration:1") => {
    stage.advance(1000);
    const heard = a.send([null, "9", topic, event, payload]);
    // He hears his reply, and nothing of what the others are told.
    assertEquals(heard.map((frame) => frame[1]), ["9"], event);
    return heard[0][4];
  };
  return { stage, a, b, push, topics };
}

const told = (client: StageClient) => client.take().map((frame) => [frame[3], frame[4]]);

const RELAYED = [["cursor:move", "cursor:position"], ["selection:share", "selection:shared"]] as const;

for (const [event, heard] of RELAYED) {
  Deno.test(`encrypted: ${event} is relayed to the others with the sender's user_id, what stands beside it is not; he himself hears nothing [V07, K02, K03]`, async () => {
    const { stage, b, push } = await setUp();
    assertEquals(push(event, { encrypted: sealed, user_id: "somebody else", id: 7, x: 1, y: 2, text: "in the clear", html: "<script>x</script>" }), {
      status: "ok",
      response: {},
    });
    assertEquals(told(b), [[heard, { user_id: "a", encrypted: sealed }]]);
    // In a batch too.
    assertEquals(push("batch", { messages: [{ event, payload: { encrypted: sealed } }] }).response, { results: [{ status: "ok", response: {} }] });
    assertEquals(told(b), [[heard, { user_id: "a", encrypted: sealed }]]);
    stage.close();
  });
}

const EQUAL: readonly (readonly [string, unknown])[] = [
  ["an iv of 16 bytes, as the page makes it [V10]", { iv: bytes(16), data: bytes(1) }],
  ["an iv of 12 bytes, as is usual [V10]", { iv: bytes(12), data: bytes(100) }],
  ["every byte", { iv: bytes(16), data: Array.from({ length: 256 }, (_, n) => n) }],
  ["no data", { iv: bytes(12), data: [] }],
  ["14,000 bytes", { iv: bytes(16), data: bytes(14_000) }],
  ["fields of the client's own, whatever they are", {
    data: bytes(3),
    alg: "A256GCM",
    iv: bytes(12),
    key: { id: "k1", versions: [1, null, true, 0.5, "é\u2028😀"] },
    constructor: { prototype: 1 },
  }],
];

for (const [what, encrypted] of EQUAL) {
  Deno.test(`encrypted: ${what}: others parse what the sender wrote [V07]`, async () => {
    const { stage, b, push } = await setUp();
    assertEquals(push("cursor:move", { encrypted }).status, "ok");
    assertEquals(told(b), [["cursor:position", { user_id: "a", encrypted }]]);
    stage.close();
  });
}

Deno.test("encrypted: what stands beside the bytes is read by others as it is, so that `html` is cleaned there as well [V04]", async () => {
  const { stage, b, push } = await setUp();
  const sealed = { iv: bytes(12), data: bytes(3) };
  const attack = "<img src=x onerror=alert(1)><b>x</b>";
  assertEquals(push("cursor:move", { encrypted: { ...sealed, html: attack, deep: { html: [attack] } } }).status, "ok");
  assertEquals(told(b), [["cursor:position", { user_id: "a", encrypted: { ...sealed, html: "<b>x</b>", deep: { html: ["<b>x</b>"] } } }]]);
  stage.close();
});

const MALFORMED: readonly (readonly [string, unknown])[] = [
  ["null", null],
  ["a text", "secret"],
  ["a list", [1, 2]],
  ["no fields", {}],
  ["no iv", { data: [1] }],
  ["no data", { iv: [1] }],
  ["an empty iv", { iv: [], data: [1] }],
  ["an iv of 65 bytes", { iv: bytes(65), data: [1] }],
  ["an iv in base64", { iv: "AAAA", data: [1] }],
  ["data in base64", { iv: [1], data: "AAAA" }],
  ["data as an object", { iv: [1], data: { 0: 1 } }],
  ...[256, -1, 1.5, 1e300, "1", null, true, [1], {}].flatMap((wrong): [string, unknown][] => [
    [`${JSON.stringify(wrong)} for a byte of the iv`, { iv: [1, wrong], data: [1] }],
    [`${JSON.stringify(wrong)} for a byte of the data`, { iv: [1], data: [1, wrong] }],
  ]),
];

Deno.test("encrypted: what is no pair of byte lists is refused invalid_payload, and nobody hears of it", async () => {
  const { stage, b, push } = await setUp();
  for (const [event] of RELAYED) {
    for (const [what, encrypted] of MALFORMED) {
      const { status, response } = push(event, { encrypted, x: 1, y: 2, text: "x" });
      assertEquals([status, response.reason], ["error", "invalid_payload"], `${event}: ${what}`);
    }
  }
  assertEquals([b.take(), stage.reported], [[], []]);
  stage.close();
});

Deno.test("encrypted: it is as large as any payload may be, and no larger [V02]", async () => {
  const { stage, b, push } = await setUp();
  const of = (units: number) => {
    const shell = JSON.stringify({ encrypted: { iv: bytes(16), data: [] } }).length;
    // Four units for a byte of three digits and its comma; the last ones are smaller, to fit.
    const data = Array(Math.floor((units - shell - 20) / 4)).fill(255);
    while (shell + JSON.stringify(data).length - 2 < units - 1) data.push(7);
    if (shell + JSON.stringify(data).length - 2 < units) data[data.length - 1] = 10;
    const encrypted = { iv: bytes(16), data };
    assertEquals(JSON.stringify({ encrypted }).length, units);
    return encrypted;
  };
  const fits = of(65_536);
  assertEquals(push("cursor:move", { encrypted: fits }).status, "ok");
  assertEquals(told(b), [["cursor:position", { user_id: "a", encrypted: fits }]]);
  for (const units of [65_537, 400_000]) {
    assertEquals(push("cursor:move", { encrypted: of(units) }).response, { reason: "payload_too_large", limit: 65_536 });
  }
  assertEquals(b.take(), []);
  stage.close();
});

Deno.test("encrypted: a push that the server must read is refused encrypted_not_supported, on every channel, alone and in a batch [V09]", async () => {
  const { stage, a, push, topics } = await setUp();
  const observer = stage.client(someone("b"));
  for (const { name, pushes } of channels) {
    const topic = topics[name];
    stage.advance(1000);
    observer.join(topic);
    a.take();
    assertEquals(a.join(topic).heard[0][4].status, "ok", topic);
    observer.take();
    const read = Object.entries(pushes).filter(([, spec]) => !spec.encrypted).map(([event]) => event);
    assertEquals(read.includes("presence:update"), "presence:update" in pushes);
    for (const event of [...read, "batch"]) {
      // Also a payload that would do without it, and one whose encrypted part is no good.
      for (const payload of [{ encrypted: sealed }, { encrypted: sealed, status: "x", messages: [] }, { encrypted: null }]) {
        assertEquals(push(event, payload, topic), { status: "error", response: { reason: "encrypted_not_supported" } }, `${topic} ${event}`);
      }
      if (event === "batch") continue;
      const { response } = push("batch", { messages: [{ event, payload: { encrypted: sealed } }] }, topic);
      assertEquals([response.reason, response.refused], ["batch_rejected", { reason: "encrypted_not_supported" }], `${topic} ${event}`);
    }
    assertEquals(observer.take(), [], topic);
  }
  stage.close();
});

Deno.test("encrypted: `encrypted` further down, or in the prototype, is a field like any other", async () => {
  const { stage, b, push } = await setUp();
  assertEquals(push("selection:share", { text: "x", range: { encrypted: "mine" } }).status, "ok");
  assertEquals(told(b), [["selection:shared", { user_id: "a", text: "x", range: { encrypted: "mine" } }]]);
  assertEquals(push("cursor:move", JSON.parse('{"x":1,"y":2,"__proto__":{"encrypted":1}}')).status, "ok");
  assertEquals(told(b), [["cursor:position", { user_id: "a", x: 1, y: 2 }]]);
  stage.close();
});

Deno.test("encrypted: what lasts is kept as it was sent, and replayed so; its neighbours are the server's own", () => {
  const contract = channel({
    topic: "lab:{id}",
    join: { payload: z.object({}), reply: z.object({}) },
    pushes: { add: { payload: z.object({ text: z.string() }), encrypted: true } },
    events: { added: lasting(z.union([z.object({ by: z.string(), text: z.string() }), z.object({ by: z.string(), encrypted: Encrypted })])) },
  });
  const lab = room("lab/{id}", {
    migrations: [],
    topics: [behave(contract, { admit() {}, join: () => ({}), on: { add: (ctx, said) => ctx.broadcast("added", { ...said, by: ctx.user.id }) } })],
  });
  const stage = new Stage([lab]);
  const a = stage.client(someone("a"));
  a.join("lab:1");
  const encrypted = { ...sealed, alg: "mine" };
  const heard = a.send([null, "1", "lab:1", "add", { text: "in the clear", by: "b", encrypted }]);
  const { cursor } = heard[0][4];
  assertEquals(heard[0][4], { encrypted, by: "a", cursor });
  assertEquals(stage.host.sql.run("select payload from log", [], false).map(({ payload }) => JSON.parse(String(payload))), [{ encrypted, by: "a" }]);
  const later = stage.client(someone("b"));
  assertEquals(later.join("lab:1", { since: "0" }).heard.at(-1)[4], { encrypted, by: "a", cursor });
  stage.close();
});

Deno.test("encrypted: the page's EncryptedChannel over two real clients: one reads what the other sealed, the server does not [V07, L876]", async () => {
  await using at = await Outside.start();
  const uploaded = await at.publish("case:case_1", [{ event: "document:uploaded", payload: { document: { id: "doc_1" } } }]);
  assertEquals(uploaded.status, 200);
  const [alice, bob, eve] = [at.fresh(), at.fresh(), at.fresh()];
  await using first = await Phone.dial(at.server, alice);
  await using second = await Phone.dial(at.server, bob);
  await using third = await at.member("collaboration:doc_1", eve);
  const key = await crypto.subtle.generateKey({ name: "AES-GCM", length: 256 }, false, ["encrypt", "decrypt"]);
  const EncryptedChannel = encryptedChannel();
  const channelOf = async (phone: Phone) => new EncryptedChannel(await phone.enter("collaboration:doc_1"), key);
  const [a, b] = [await channelOf(first), await channelOf(second)];
  const read = new Notes<unknown>();
  for (const event of ["cursor:position", "selection:shared"]) b.on(event, (payload) => read.add([event, payload]));

  const cursor = { x: 10.5, y: 20, page: 3 };
  const selection = { text: "“privileged” – 特権 😀", range: { start: 0, end: [1, null] } };
  for (const [event, payload] of [["cursor:move", cursor], ["selection:share", selection]] as const) {
    const push = await a.push(event, payload);
    await new Promise((resolve) => push.receive("ok", resolve));
  }
  // Decrypting takes its own time: the order is not the server's.
  assertEquals(new Map(await read.first(2) as [string, unknown][]), new Map<string, unknown>([["cursor:position", cursor], ["selection:shared", selection]]));

  // Whoever has no key sees who and how much, and the same bytes as everybody.
  const heard = (await third.heard()).filter((frame) => frame[3] === "cursor:position" || frame[3] === "selection:shared");
  assertEquals(heard.map((frame) => [frame[4].user_id, Object.keys(frame[4]).sort(), frame[4].encrypted.iv.length]), [
    [alice.id, ["encrypted", "user_id"], 16],
    [alice.id, ["encrypted", "user_id"], 16],
  ]);
  assertNotEquals(heard[0][4].encrypted.iv, heard[1][4].encrypted.iv);
  // The page's class reads what comes in the clear, too.
  third.send(["1", "2", "collaboration:doc_1", "cursor:move", { x: 1, y: 2 }]);
  assertEquals((await read.first(3))[2], ["cursor:position", { user_id: eve.id, x: 1, y: 2 }]);
});
