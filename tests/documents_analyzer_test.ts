/** The port to a team's own model: what it is told, what is taken from it, and every way in which it fails. */
import { assertEquals, assertLess, assertLessOrEqual, assertMatch, assertNotMatch, assertRejects } from "@std/assert";
import { outsideAnalyzer, type Question } from "../rooms/documents/analyzer.ts";
import { type Step, STEPS } from "../rooms/documents/results.ts";

const SECRET = "the merger closes on Friday";
const question: Question = { document_id: "d1", case_id: "c1", title: "Memo", from: "a@x.example", to: ["b@x.example"], text: SECRET };
const never = new AbortController().signal;
const good = {
  entities: [{ text: "Ann Lee", type: "person", confidence: 0.9, count: 2 }, { text: "E=mc2", type: "FORMULA" }],
  key_dates: [{ text: "3 May 2024", date: "2024-05-03" }],
  monetary_amounts: [{ text: "$5", amount: 5, currency: "USD" }],
  summary: "A merger.",
  privilege_analysis: { is_privileged: false, privilege_type: "not_privileged", confidence: 0.8, factors: [{ factor: "none found" }] },
};

/** A server of its own for each test; `use` is given its address. */
async function served(handler: (request: Request) => Response | Promise<Response>, use: (url: string) => Promise<void>): Promise<void> {
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, handler);
  try {
    await use(`http://127.0.0.1:${server.addr.port}/analyze`);
  } finally {
    await server.shutdown();
  }
}

async function refused(
  url: string,
  message: RegExp,
  { steps = STEPS, timeoutMs = 20_000, signal = never }: { steps?: readonly Step[]; timeoutMs?: number; signal?: AbortSignal } = {},
) {
  const error = await assertRejects(() => outsideAnalyzer(url, { timeoutMs })(question, steps, signal), Error);
  assertMatch(error.message, message);
  assertNotMatch(`${error.stack} ${error.cause}`, /merger|Friday/);
}

Deno.test("analyzer: it is told the document, its case, the steps and what else is known", async () => {
  let heard: { method: string; type: string | null; body: Record<string, unknown> } | undefined;
  await served(async (request) => {
    heard = { method: request.method, type: request.headers.get("content-type"), body: await request.json() };
    return Response.json(good);
  }, async (url) => {
    const results = await outsideAnalyzer(url, { timeoutMs: 20_000 })({ ...question, ...{ other: "not for it" } }, STEPS, never);
    assertEquals(results, {
      entities: [{ text: "Ann Lee", type: "PERSON", confidence: 0.9, count: 2 }],
      key_dates: good.key_dates,
      monetary_amounts: good.monetary_amounts,
      summary: "A merger.",
      privilege_analysis: {
        is_privileged: false,
        privilege_type: "none",
        confidence: 0.8,
        factors: [{ factor: "none found", weight: 0, evidence: "" }],
        recommended_action: "",
        review_required: true,
      },
    });
  });
  assertEquals(heard, { method: "POST", type: "application/json", body: { ...question, steps: [...STEPS] } });
});

Deno.test("analyzer: it is sent a million units of a long text, and never half a character", async () => {
  let sent = "";
  await served(async (request) => {
    sent = (await request.json()).text;
    return Response.json(good);
  }, async (url) => {
    await outsideAnalyzer(url, { timeoutMs: 20_000 })({ ...question, text: "a" + "😀".repeat(600_000) }, STEPS, never);
  });
  assertEquals([sent.length, sent.isWellFormed(), sent.includes("\ufffd")], [999_999, true, false]);
});

Deno.test("analyzer: only what was asked for is kept, and only that is looked at", async () => {
  await served(() => Response.json({ summary: "Short.", entities: "rubbish", extra: 1 }), async (url) => {
    assertEquals(await outsideAnalyzer(url, { timeoutMs: 20_000 })(question, ["summarization"], never), { summary: "Short." });
  });
});

Deno.test("analyzer: strings and lists are cut, signs that are no text are taken out", async () => {
  const entity = { text: `x\u0000\u202e\ud800${"y".repeat(3000)}`, type: "PERSON", confidence: 1, count: 1 };
  const answer = { ...good, entities: Array(300).fill(entity), summary: "z".repeat(9000) };
  await served(() => Response.json(answer), async (url) => {
    const results = await outsideAnalyzer(url, { timeoutMs: 20_000 })(question, STEPS, never);
    assertEquals(results.entities!.length <= 200, true);
    assertEquals(results.entities![0].text, `x \ufffd${"y".repeat(117)}`);
    assertEquals(results.summary!.length, 1500);
    assertLessOrEqual(JSON.stringify(results).length, 48_000);
  });
});

Deno.test("analyzer: what contradicts itself or is not understood is privileged", async () => {
  for (
    const [type, is_privileged, expected] of [["none", true, "confidential"], ["attorney_client", false, "attorney-client"], [
      "pastoral",
      false,
      "confidential",
    ]]
  ) {
    await served(() => Response.json({ privilege_analysis: { is_privileged, privilege_type: type, confidence: 1 } }), async (url) => {
      const { privilege_analysis } = await outsideAnalyzer(url, { timeoutMs: 20_000 })(question, ["privilege_detection"], never);
      assertEquals([privilege_analysis!.is_privileged, privilege_analysis!.privilege_type], [true, expected]);
    });
  }
});

Deno.test("analyzer: it is down", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  listener.close();
  await refused(`http://127.0.0.1:${port}/`, /cannot be reached/);
});

Deno.test("analyzer: it hangs up in the middle of its answer", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const answering = (async () => {
    using connection = await listener.accept();
    await connection.read(new Uint8Array(4096));
    await connection.write(new TextEncoder().encode('HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n{"summary": "th'));
  })();
  await refused(`http://127.0.0.1:${listener.addr.port}/`, /broke off/);
  await answering;
  listener.close();
});

Deno.test("analyzer: it is slow to begin, or slow to end", async () => {
  const open: ReadableStreamDefaultController<Uint8Array>[] = [];
  const held = Promise.withResolvers<Response>();
  const drip = () =>
    new Response(new ReadableStream<Uint8Array>({ start: (controller) => (open.push(controller), controller.enqueue(new TextEncoder().encode("{"))) }));
  await served(() => held.promise, async (url) => {
    await refused(url, /longer than 50 ms/, { timeoutMs: 50 });
    held.resolve(new Response());
  });
  await served(drip, (url) => refused(url, /longer than 50 ms/, { timeoutMs: 50 }));
  assertEquals(open.length, 1);
});

Deno.test("analyzer: the question is given up", async () => {
  const asked = Promise.withResolvers<void>();
  const held = Promise.withResolvers<Response>();
  const given = new AbortController();
  await served(() => (asked.resolve(), held.promise), async (url) => {
    const outcome = refused(url, /given up/, { signal: given.signal });
    await asked.promise;
    given.abort();
    await outcome;
    held.resolve(new Response());
  });
  await refused("http://127.0.0.1:9/", /given up/, { signal: AbortSignal.abort() });
});

Deno.test("analyzer: another status than 200 is no answer, and redirects are not followed", async () => {
  let followed = 0;
  for (const status of [204, 302, 307, 308, 400, 500, 503]) {
    await served((request) => {
      if (request.url.endsWith("/elsewhere")) followed++;
      return new Response(status === 204 ? null : SECRET, { status, headers: { location: "/elsewhere" } });
    }, (url) => refused(url, new RegExp(`status ${status}`)));
  }
  assertEquals(followed, 0);
});

Deno.test("analyzer: rubbish says what is wrong with it and is not repeated", async () => {
  const cases: [string | Uint8Array<ArrayBuffer>, RegExp][] = [
    ["", /not JSON/],
    [SECRET, /not JSON/],
    [`{"summary": "${SECRET}"`, /not JSON/],
    [new Uint8Array([0x22, 0xff, 0xfe, 0x22]), /not UTF-8/],
    [new Uint8Array([0x22, 0xe2, 0x82]), /not UTF-8/],
    [`"${SECRET}"`, /no object/],
    ["null", /no object/],
    ["[]", /no object/],
    ["{}", /entities/],
    [JSON.stringify({ ...good, entities: [{ text: 5, type: "PERSON" }] }), /entities\.0\.text/],
    [JSON.stringify({ ...good, entities: [{ text: "x", type: "PERSON", confidence: 2 }] }), /entities\.0\.confidence/],
    [JSON.stringify({ ...good, key_dates: [{ text: "x", date: SECRET }] }), /key_dates\.0\.date/],
    [JSON.stringify({ ...good, key_dates: [{ text: "x", date: "2024-02-30" }] }), /key_dates\.0\.date/],
    [JSON.stringify({ ...good, monetary_amounts: [{ text: "x", amount: SECRET, currency: "USD" }] }), /monetary_amounts\.0\.amount/],
    [JSON.stringify({ ...good, summary: { [SECRET]: 1 } }), /summary/],
    [JSON.stringify({ ...good, privilege_analysis: undefined }), /privilege_analysis/],
    [JSON.stringify({ ...good, privilege_analysis: { is_privileged: "no", privilege_type: "none", confidence: 1 } }), /privilege_analysis\.is_privileged/],
    ["[".repeat(500_000), /not JSON/],
    [`${"[".repeat(100_000)}${"]".repeat(100_000)}`, /shape|not JSON/],
  ];
  for (const [body, message] of cases) await served(() => new Response(body), (url) => refused(url, message));
});

Deno.test("analyzer: of 100 MB it reads one and hangs up", async () => {
  let sent = 0;
  const gone = Promise.withResolvers<void>();
  const chunk = new Uint8Array(65_536).fill(0x20);
  const endless = () =>
    new Response(
      new ReadableStream({
        pull: (controller) => void ((sent += chunk.length) > 100_000_000 ? controller.close() : controller.enqueue(chunk)),
        cancel: () => gone.resolve(),
      }),
    );
  await served(endless, async (url) => {
    await refused(url, /longer than 1048576 bytes/);
    await gone.promise;
  });
  assertLess(sent, 50_000_000);
});
