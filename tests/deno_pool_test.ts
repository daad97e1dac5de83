/** The pool over real child processes; what they do is in support/pool_child.ts. */
import { assert, assertEquals, assertNotEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { Pool, type PoolOptions, TaskFailed, type TaskOptions } from "../rooms/hosts/deno_pool.ts";

const ROOT = new URL("..", import.meta.url).pathname;
const RIGHTS = ["--no-prompt", "--cached-only", "--frozen", "--deny-import", "--ignore-env"];
const READS = `--allow-read=${ROOT}rooms/hosts,${ROOT}rooms/documents,${ROOT}tests/support`;
const ARGS = [...RIGHTS, "--v8-flags=--max-old-space-size=64", READS, `${ROOT}tests/support/pool_child.ts`];

const PATIENT = 30_000;
const pause = () => new Promise<void>((resolve) => void setTimeout(resolve, 5));

/** A pool with a lane of one, closed in the end; and what it reported. */
class Trial implements AsyncDisposable {
  readonly reports: string[] = [];
  readonly pool: Pool;

  constructor(options: Partial<PoolOptions> = {}) {
    const report = (error: unknown, where: string) => void this.reports.push(`${where}: ${error instanceof Error ? error.message : error}`);
    this.pool = new Pool({ args: ARGS, lanes: { one: 1 }, memoryBytes: 300 << 20, report, ...options });
  }
  run(task: Record<string, unknown>, options: Partial<TaskOptions> = {}, lane = "one"): Promise<unknown> {
    return this.pool.run(lane, task, { deadlineMs: PATIENT, ...options });
  }
  /** A task that never ends, once it has begun. */
  async begin(how: "wait" | "hang", options: Partial<TaskOptions> = {}, lane = "one"): Promise<{ result: Promise<unknown> }> {
    const { promise, resolve } = Promise.withResolvers<unknown>();
    const result = this.run({ do: how }, { ...options, note: resolve }, lane);
    result.catch(() => {});
    await Promise.race([promise, result]);
    return { result };
  }
  async [Symbol.asyncDispose](): Promise<void> {
    await this.pool.close();
    assertEquals(this.pool.pids, []);
  }
}

async function fails(result: Promise<unknown>, code: string): Promise<TaskFailed> {
  const error = await assertRejects(() => result, TaskFailed);
  assertEquals(error.code, code, error.message);
  return error;
}

async function until(holds: () => boolean | Promise<boolean>): Promise<void> {
  for (const latest = Date.now() + PATIENT; !await holds();) {
    assert(Date.now() < latest, "it does not come to that");
    await pause();
  }
}

Deno.test("deno_pool: a task is answered, by the same child as long as it behaves; what it says in between is heard in order", async () => {
  await using trial = new Trial();
  assertEquals(trial.pool.pids, []);
  const value = { text: "ü→😀\0", list: [1, null, { deep: true }] };
  assertEquals(await trial.run({ do: "echo", value }), value);
  const [pid] = trial.pool.pids;
  assertEquals(await trial.run({ do: "nothing" }), null);
  const notes: unknown[] = [];
  assertEquals(await trial.run({ do: "notes", count: 3 }, { note: (note) => notes.push(note) }), "noted");
  assertEquals(notes, [{ number: 1 }, { number: 2 }, { number: 3 }]);
  assertEquals(await trial.run({ do: "lateNote" }, { note: (note) => notes.push(note) }), "in time");
  assertEquals((await fails(trial.run({ do: "fail", value: "a reason" }), "failed")).message, "a reason");
  assertEquals(await trial.run({ do: "forgets" }), "went on");
  assertEquals(await trial.run({ do: "talks" }), "talked");
  assertEquals(await trial.run({ do: "screams", count: 4096 }), "screamed");
  assertEquals([notes.length, trial.pool.pids, trial.reports], [3, [pid], []]);
});

Deno.test("deno_pool: an answer may be large, but not too large; a task that cannot be told is refused at once", async () => {
  await using trial = new Trial({ memoryBytes: 2 ** 31, args: ARGS.map((arg) => arg.replace("=64", "=1000")) });
  assertEquals((await trial.run({ do: "large", count: 20 << 20 }) as string).length, 20 << 20);
  assertStringIncludes((await fails(trial.run({ do: "large", count: 64 << 20 }), "failed")).message, "Cannot frame more than");
  await assertRejects(() => trial.run({ do: "echo", value: 1n }), TypeError);
  await assertRejects(() => trial.run({ do: "echo", value: "x".repeat(64 << 20) }), RangeError);
  await assertRejects(() => trial.run({ do: "echo" }, {}, "another"), TypeError, "no lane another");
  assertEquals(trial.reports, []);
});

const BAD_ENDS: Record<string, { code: string; deadlineMs?: number; words?: string }> = {
  hang: { code: "timeout", deadlineMs: 200 },
  wait: { code: "timeout", deadlineMs: 200 },
  heap: { code: "memory" },
  buffers: { code: "memory" },
  crash: { code: "crashed", words: "my last words" },
  garbage: { code: "crashed", words: "no answer" },
  noJson: { code: "crashed", words: "no answer" },
  unknown: { code: "crashed", words: "no answer" },
  list: { code: "crashed", words: "no answer" },
  tooLong: { code: "crashed", words: "no answer" },
};
for (const [deed, { code, deadlineMs = PATIENT, words }] of Object.entries(BAD_ENDS)) {
  Deno.test(`deno_pool: a child that does '${deed}' fails its task as '${code}' and is replaced`, async () => {
    await using trial = new Trial();
    await trial.run({ do: "nothing" });
    const [pid] = trial.pool.pids;
    await fails(trial.run({ do: deed }, { deadlineMs }), code);
    assertEquals(await trial.run({ do: "echo", value: "after" }), "after");
    assertNotEquals(trial.pool.pids, [pid]);
    assertEquals(trial.reports.length, words ? 1 : 0, trial.reports[0]);
    if (words) assertStringIncludes(trial.reports[0], words);
    assert(trial.reports.every((report) => report.length < 5000));
  });
}

Deno.test("deno_pool: who answers twice is ended; the second answer is not taken for that of another task", async () => {
  await using trial = new Trial();
  // The first task's number is 1.
  const [first, next] = [trial.run({ do: "twice", value: "second", count: 1 }), trial.run({ do: "echo", value: "of the next" })];
  assertEquals(await first, "first");
  // Either it was told already, and goes down with him, or somebody else does it.
  assertNotEquals(await next.catch(({ code }) => code), "second");
  await until(() => trial.reports.length > 0);
  assertStringIncludes(trial.reports[0], "it was not asked");
  assertEquals(await trial.run({ do: "echo", value: "after" }), "after");
});

Deno.test("deno_pool: who is killed from outside, busy or idle, is replaced", async () => {
  await using trial = new Trial();
  const { result } = await trial.begin("wait");
  Deno.kill(trial.pool.pids[0], "SIGKILL");
  assertStringIncludes((await fails(result, "crashed")).message, "SIGKILL");
  await trial.run({ do: "nothing" });
  const [pid] = trial.pool.pids;
  Deno.kill(pid, "SIGKILL");
  await until(() => trial.pool.pids.length === 0);
  assertEquals(await trial.run({ do: "echo", value: 2 }), 2);
});

Deno.test("deno_pool: who has grown beyond half of what he may take answers, and is replaced before the next task", async () => {
  await using trial = new Trial();
  await trial.run({ do: "nothing" });
  const [pid] = trial.pool.pids;
  assertEquals(await trial.run({ do: "keep", count: 160 << 20 }), "kept");
  assertEquals(await trial.run({ do: "keep", count: 160 << 20 }), "kept");
  assertEquals([trial.pool.pids.includes(pid), trial.reports], [false, []]);
});

Deno.test("deno_pool: owners take turns; one owner's tasks are done as they came", async () => {
  await using trial = new Trial();
  const order: string[] = [];
  const run = async (owner: string, value: number) => void order.push(owner + await trial.run({ do: "echo", value }, { owner }));
  await Promise.all([...[1, 2, 3, 4].map((value) => run("a", value)), ...[1, 2].map((value) => run("b", value)), run("c", 1)]);
  assertEquals(order.join(" "), "a1 b1 c1 a2 b2 a3 a4");
});

Deno.test("deno_pool: lanes do not wait for each other, and have as many children as they may", async () => {
  await using trial = new Trial({ lanes: { one: 1, two: 2 } });
  await trial.begin("hang");
  await trial.begin("wait", {}, "two");
  assertEquals(await Promise.all([1, 2, 3].map((value) => trial.run({ do: "echo", value }, {}, "two"))), [1, 2, 3]);
  assertEquals(trial.pool.pids.length, 3);
});

Deno.test("deno_pool: a deadline counts from when the task is begun", async () => {
  await using trial = new Trial();
  const hung = trial.run({ do: "hang" }, { deadlineMs: 1500 });
  const [first] = await Promise.allSettled([hung, trial.run({ do: "echo", value: 1 }, { deadlineMs: 1000 }).then((value) => assertEquals(value, 1))]);
  assertEquals(first.status === "rejected" && first.reason.code, "timeout");
});

Deno.test("deno_pool: what is called off is not begun, or its child is ended", async () => {
  await using trial = new Trial();
  const [running, waiting] = [new AbortController(), new AbortController()];
  const { result } = await trial.begin("hang", { signal: running.signal });
  const [pid] = trial.pool.pids;
  const never = trial.run({ do: "fail", value: "it was begun" }, { signal: waiting.signal });
  const after = trial.run({ do: "echo", value: "after" });
  waiting.abort();
  await fails(never, "aborted");
  assertEquals(trial.pool.pids, [pid]);
  running.abort();
  await fails(result, "aborted");
  assertEquals(await after, "after");
  await fails(trial.run({ do: "nothing" }, { signal: AbortSignal.abort() }), "aborted");
  // Too late: it changes nothing.
  const late = new AbortController();
  await trial.run({ do: "nothing" }, { signal: late.signal });
  const { pids } = trial.pool;
  late.abort();
  await trial.run({ do: "nothing" });
  assertEquals([trial.pool.pids, trial.reports], [pids, []]);
});

Deno.test("deno_pool: closed, it ends all and answers whoever waits", async () => {
  const trial = new Trial({ lanes: { one: 1, two: 2 } });
  const { result } = await trial.begin("hang");
  const waiting = ["one", "two", "two", "two"].map((lane) => trial.run({ do: "wait" }, {}, lane));
  const failing = Promise.all([result, ...waiting].map((task) => fails(task, "aborted")));
  await trial.pool.close();
  await failing;
  assertEquals(trial.pool.pids, []);
  await fails(trial.run({ do: "nothing" }), "aborted");
  await trial.pool.close();
  assertEquals(trial.reports, []);
});

Deno.test("deno_pool: idle children end, but one of each lane stays", async () => {
  await using trial = new Trial({ lanes: { one: 3 }, idleMs: 50 });
  const off = new AbortController();
  await trial.begin("wait", { signal: off.signal });
  await Promise.all([1, 2, 3, 4].map(() => trial.run({ do: "nothing" })));
  await until(() => trial.pool.pids.length === 2);
  off.abort();
  await until(() => trial.pool.pids.length === 1);
  const { pids } = trial.pool;
  assertEquals(await trial.run({ do: "echo", value: 1 }), 1);
  assertEquals([trial.pool.pids, trial.reports], [pids, []]);
});

Deno.test("deno_pool: where no child can start, nobody waits, three are tried at a time, and it goes on when one can", async () => {
  const dir = Deno.makeTempDirSync();
  const [program, starts] = [`${dir}/program.ts`, `${dir}/starts`];
  Deno.writeTextFileSync(program, `Deno.writeTextFileSync(${JSON.stringify(starts)}, "x", { append: true }); Deno.exit(3);`);
  {
    await using trial = new Trial({ args: ["--no-prompt", "--no-lock", `${READS},${dir}`, `--allow-write=${dir}`, program], pauseMs: 100 });
    const tasks = [1, 2, 3].map(() => trial.run({ do: "nothing" }));
    for (const task of tasks) assertStringIncludes((await fails(task, "crashed")).message, "can be started");
    assertEquals([Deno.readTextFileSync(starts), trial.reports.length], ["xxx", 1]);
    assertStringIncludes(trial.reports[0], "ended with 3");
    await fails(trial.run({ do: "nothing" }), "crashed");
    assertEquals([Deno.readTextFileSync(starts), trial.reports.length], ["xxxxxx", 2]);
    Deno.writeTextFileSync(program, `import { frame } from "${ROOT}rooms/documents/framing.ts"; Deno.stdout.writeSync(frame({ id: 7, answer: "unasked" }));`);
    await fails(trial.run({ do: "nothing" }), "crashed");
    assertStringIncludes(trial.reports[2], "it was not asked");
    Deno.writeTextFileSync(program, `import "${ROOT}tests/support/pool_child.ts";`);
    assertEquals(await trial.run({ do: "echo", value: "at last" }), "at last");
  }
  Deno.removeSync(dir, { recursive: true });
});

Deno.test("deno_pool: a child has no right but the one to read its own program, and its libraries work without", async () => {
  await using trial = new Trial({ env: { SECRET: "in the environment" } });
  const rights = await trial.run({ do: "rights" }) as Record<string, string>;
  assertEquals(Object.entries(rights).filter(([, state]) => state === "granted"), []);
  assertEquals(Object.keys(rights).length, 8);
  assertEquals(await trial.run({ do: "reaches", value: `${ROOT}deno.json` }), []);
  assertEquals(await trial.run({ do: "libraries" }), ["function", "object", ["John Smith", "Mary Jones."]]);
});

Deno.test({
  name: "deno_pool: children give way to the server, and a server that is killed leaves none behind, whatever they are at",
  // /proc says who lives and how polite he is.
  ignore: Deno.build.os !== "linux",
  async fn() {
    const server = new Deno.Command(Deno.execPath(), {
      args: [
        "eval",
        `import { Pool } from "${ROOT}rooms/hosts/deno_pool.ts";
        const pool = new Pool({ args: ${JSON.stringify(ARGS)}, lanes: { a: 2 }, memoryBytes: 2 ** 30, report() {} });
        let begun = 0;
        const note = () => ++begun === 2 && console.log(JSON.stringify(pool.pids));
        for (const deed of ["hang", "wait"]) pool.run("a", { do: deed }, { deadlineMs: 60_000, note }).catch(() => {});`,
      ],
      cwd: ROOT,
      stdout: "piped",
    }).spawn();
    let line = "";
    for await (const chunk of server.stdout.pipeThrough(new TextDecoderStream())) {
      if ((line += chunk).includes("\n")) break;
    }
    const pids: number[] = JSON.parse(line);
    assertEquals(pids.length, 2);
    for (const pid of pids) assertEquals(Deno.readTextFileSync(`/proc/${pid}/stat`).split(" ")[18], "10");
    server.kill("SIGKILL");
    await server.status;
    const lives = (pid: number) => {
      try {
        return !/^State:\s+[ZX]/m.test(Deno.readTextFileSync(`/proc/${pid}/status`));
      } catch {
        return false;
      }
    };
    await until(() => !pids.some(lives));
  },
});
