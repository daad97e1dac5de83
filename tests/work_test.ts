/** What rooms have done outside of turns: tasks that survive the process and are taken once; slow work with many results. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { Refusal } from "../protocol/reason.ts";
import type { Host, Work } from "../rooms/host.ts";
import { type Context, Later, Stream } from "../rooms/room.ts";
import type { Heard } from "./support/raw.ts";
import { BreakableSql, lab, type LabContract, labContract, someone, Stage, type StageOptions } from "./support/stage.ts";

const contract = labContract("lab");
const TOPIC = "lab:1";

/** A host whose work is done by hand. */
class Hands {
  readonly asked: { task: unknown; options: Work; done: (result: unknown) => void; failed: (error: unknown) => void }[] = [];
  readonly host: Partial<Host> = {
    work: (task, options) => new Promise((done, failed) => void this.asked.push({ task, options, done, failed })),
  };
}

/** A push hands out `payload.task`; what comes of it is told as `kept`. */
const working = lab({ on: { do: (ctx, { task }) => (ctx.work(task), {}) } }, {
  worked: (ctx, task, result) => {
    if (result === "refuse") throw new Refusal("forbidden");
    if (result === "crash") throw new Error("ours");
    ctx.announce(contract, "kept", { task, result });
  },
  noted: (ctx, task, note) => ctx.announce(contract, "told", { task, note }),
});

function setUp(hands: Hands, options: StageOptions = {}) {
  const stage = new Stage([working], { ...options, host: hands.host });
  const client = stage.client();
  client.join(TOPIC);
  client.take();
  const push = (task: unknown): Heard => client.send(["j1", "p", TOPIC, "do", { task }]).find((frame) => frame[1] === "p")![4];
  const told = (name = "kept"): Heard[] => client.take().filter((frame) => frame[3] === name).map(({ 4: { cursor: _, ...payload } }) => payload);
  const rows = () => stage.host.sql.run("select task, failed from work", [], false);
  return { stage, client, push, told, rows };
}

Deno.test("work: a task is handed out once its turn is kept, and what comes of it is a turn that takes it off the list", async () => {
  const hands = new Hands();
  const { stage, push, told, rows } = setUp(hands);
  assertEquals(push({ n: 1 }).status, "ok");
  assertEquals([hands.asked.map(({ task, options }) => [task, options.owner]), rows().length], [[[{ n: 1 }, "lab/1"]], 1]);
  hands.asked[0].options.note!({ half: true });
  await stage.settle();
  assertEquals(told("told"), [{ task: { n: 1 }, note: { half: true } }]);
  hands.asked[0].done("result");
  await stage.settle();
  assertEquals([told(), rows()], [[{ task: { n: 1 }, result: "result" }], []]);
  stage.close();
});

Deno.test("work: a turn that is refused or lost hands nothing out", () => {
  const hands = new Hands();
  const sql = new BreakableSql();
  const { stage, push, rows } = setUp(hands, { sql });
  sql.failCommits = 1;
  assertEquals(push({}).response.reason, "unavailable");
  assertEquals([hands.asked, rows()], [[], []]);
  stage.close();
});

Deno.test("work: what was handed out and not taken is handed out again at the next start; what was taken is not", async () => {
  const hands = new Hands();
  const sql = new BreakableSql();
  const { stage, push } = setUp(hands, { sql });
  for (const n of [1, 2, 3]) push({ n });
  hands.asked[1].done("done");
  await stage.settle();
  const again = new Hands();
  const { told } = setUp(again, { sql: sql });
  assertEquals(again.asked.map(({ task }) => task), [{ n: 1 }, { n: 3 }]);
  assertEquals(told(), []);
  stage.close();
});

Deno.test("work: a result that meets a lost tick is taken once, later", async () => {
  const hands = new Hands();
  const sql = new BreakableSql();
  const { stage, push, told, rows } = setUp(hands, { sql });
  push({ n: 1 });
  sql.failCommits = 1;
  hands.asked[0].done("result");
  await stage.settle();
  assertEquals([told(), rows().length], [[], 1]);
  stage.advance(200);
  await stage.settle();
  assertEquals([told(), rows()], [[{ task: { n: 1 }, result: "result" }], []]);
  stage.close();
});

Deno.test("work: what cannot be done is tried again, later and later, and in the end the room hears so", async () => {
  const hands = new Hands();
  const { stage, push, told } = setUp(hands, { limits: { idle_ms: 1e9 } });
  push({ n: 1 });
  for (let attempt = 0; attempt < 8; attempt++) {
    assertEquals(hands.asked.length, attempt + 1);
    assertEquals(told(), []);
    hands.asked[attempt].failed(new TypeError("not now"));
    await stage.settle();
    stage.advance(100 * 4 ** attempt - 1);
    assertEquals(hands.asked.length, attempt + 1);
    stage.advance(1);
  }
  assertEquals(told(), [{ task: { n: 1 }, result: { failed: "TypeError" } }]);
  assertEquals(stage.reported.length, 8);
  stage.close();
});

for (const [result, name] of [["refuse", "Refusal"], ["crash", "Error"]]) {
  Deno.test(`work: a result that its room cannot take is one that could not be had: ${result}`, async () => {
    const hands = new Hands();
    const { stage, push, told, rows } = setUp(hands);
    push({ n: 1 });
    hands.asked[0].done(result);
    await stage.settle();
    assertEquals([told(), rows()], [[{ task: { n: 1 }, result: { failed: name } }], []]);
    stage.close();
  });
}

Deno.test("work: what its room can take in no way is set aside, with the error's name", async () => {
  const hands = new Hands();
  const stubborn = lab({ on: { do: (ctx, { task }) => (ctx.work(task), {}) } }, {
    worked: () => {
      throw new RangeError("ours");
    },
  });
  const stage = new Stage([stubborn], { host: hands.host });
  const client = stage.client();
  client.join(TOPIC);
  client.send(["j1", "p", TOPIC, "do", { task: 1 }]);
  hands.asked[0].done({});
  await stage.settle();
  assertEquals(stage.host.sql.run("select failed from work", [], false), [{ failed: "RangeError" }]);
  stage.close();
});

// Slow work with many results.

type Ctx = Context<LabContract>;

class Source {
  readonly signals: AbortSignal[] = [];
  #next = Promise.withResolvers<unknown>();

  async *run(signal: AbortSignal): AsyncGenerator<unknown> {
    this.signals.push(signal);
    for (;;) {
      const item = await this.#next.promise;
      if (item === "end") return;
      yield item;
    }
  }
  give(item: unknown): void {
    const { resolve, reject } = this.#next;
    this.#next = Promise.withResolvers();
    if (item instanceof Error) reject(item);
    else resolve(item);
  }
}

function streaming(source: Source) {
  const stream = () =>
    new Stream(
      (signal) => source.run(signal),
      (ctx: Ctx, item) => {
        if (item === "refuse") throw new Refusal("forbidden");
        ctx.push("told", { item });
      },
      (ctx: Ctx, refusal) => ctx.push("told", { end: refusal?.reason ?? null }),
    );
  const room = lab({
    on: {
      do(ctx, { name }) {
        ctx.start(String(name), stream());
        return { started: ctx.started() };
      },
      also(ctx, { name, refuse }) {
        const stopped = ctx.stop(String(name));
        if (refuse) throw new Refusal("forbidden");
        return { stopped, started: ctx.started() };
      },
    },
  });
  const stage = new Stage([room]);
  const client = stage.client();
  client.join(TOPIC);
  client.take();
  const push = (event: string, payload: object): Heard => client.send(["j1", "p", TOPIC, event, payload]).find((frame) => frame[1] === "p")?.[4].response;
  const give = async (item: unknown): Promise<Heard[]> => {
    source.give(item);
    await stage.settle();
    return client.take().filter((frame) => frame[3] === "told").map((frame) => frame[4].item ?? frame[4]);
  };
  return { stage, client, push, give };
}

Deno.test("streams: each result is a turn of him who began it, in order, and so is the end", async () => {
  const { stage, push, give } = streaming(new Source());
  assertEquals(push("do", { name: "a" }), { started: 1 });
  await stage.settle();
  assertEquals([await give(1), await give(2), await give("end"), await give(3)], [[1], [2], [{ end: null }], []]);
  assertEquals(push("do", { name: "a" }), { started: 1 });
  stage.close();
});

Deno.test("streams: after `stop` nothing comes, and the work is told; not so when the turn that said it is refused", async () => {
  const source = new Source();
  const { stage, push, give } = streaming(source);
  push("do", { name: "a" });
  await stage.settle();
  assertEquals(push("also", { name: "a", refuse: true }), { reason: "forbidden" });
  assertEquals(await give(1), [1]);
  assertEquals([push("also", { name: "a" }), push("also", { name: "a" })], [{ stopped: true, started: 0 }, { stopped: false, started: 0 }]);
  assertEquals([source.signals[0].aborted, await give(2)], [true, []]);
  stage.close();
});

Deno.test("streams: what goes wrong is told once, by its reason, and nothing more comes", async () => {
  for (const [item, reason] of [[new Refusal("timeout"), "timeout"], [new TypeError("ours"), "internal"], ["refuse", "forbidden"]] as const) {
    const { stage, push, give } = streaming(new Source());
    push("do", { name: "a" });
    await stage.settle();
    assertEquals([await give(item), await give(1)], [[{ end: reason }], []]);
    assertEquals(stage.reported.length, reason === "internal" ? 1 : 0);
    stage.close();
  }
});

Deno.test("streams: they end with their session, and a name is in use once", async () => {
  const source = new Source();
  const { stage, client, push, give } = streaming(source);
  push("do", { name: "a" });
  await stage.settle();
  client.send(["j1", "q", TOPIC, "do", { name: "a" }]);
  assertStringIncludes(String(stage.reported[0].error), "under way");
  await stage.settle();
  assertEquals([source.signals[0].aborted, await give(1)], [true, []]);
  stage.close();
});

Deno.test("outside: slow work asks other rooms and the host, and waits for what is kept elsewhere", async () => {
  const hands = new Hands();
  let stirred = 0;
  const room = lab({
    on: {
      do: (_ctx, { ask }) => new Later((_signal, outside) => outside.ask("far/1", ask), (_ctx, answer) => ({ answer })),
      also: () => new Later((signal, outside) => outside.stirred("far/1", signal).then(() => void stirred++), () => ({})),
    },
  });
  const far = lab({ on: { do: (ctx) => ctx.broadcast("kept", {}) } }, {
    asked: (ctx, message, from) => {
      if (message === "refuse") throw new Refusal("not_found");
      return [ctx.room, message, from];
    },
  }, "far");
  const stage = new Stage([room, far], { host: hands.host });
  const [client, other] = [stage.client(), stage.client(someone("b"))];
  client.join(TOPIC);
  other.join("far:1");
  const push = async (event: string, payload: object) => {
    client.send(["j1", "p", TOPIC, event, payload]);
    await stage.settle();
    return client.take().find((frame) => frame[1] === "p")?.[4].response;
  };
  assertEquals(await push("do", { ask: "x" }), { answer: ["far/1", "x", "lab/1"] });
  assertEquals(await push("do", { ask: "refuse" }), { reason: "not_found" });
  client.send(["j1", "w", TOPIC, "also", {}]);
  await stage.settle();
  assertEquals(stirred, 0);
  other.send(["j1", "x", "far:1", "do", {}]);
  await stage.settle();
  assertEquals(stirred, 1);
  assert(client.take().some((frame) => frame[1] === "w"));
  stage.close();
});
