/**
 * What leaves the process, seen from below: strace tells every write and every fsync of a server under load. Nothing that
 * speaks of a row may be on its way to anybody before an fsync that began after that row had been written. [promise 2]
 */
import { assertEquals, assertGreater } from "@std/assert";
import { enter, LAB, publish, STRACE, tempDir, traced, traces, uploaded } from "./support/lives.ts";
import { type Running, START, startServer } from "./support/process.ts";
import type { RawClient } from "./support/raw.ts";
import { someone } from "./support/stage.ts";

/** All that could write, and all that makes it last. */
const WATCHED = ["write", "writev", "pwrite64", "pwritev", "pwritev2", "sendto", "sendmsg", "sendmmsg", "fsync", "fdatasync"];

/** A system call, with the numbers of the lines where it began and ended. */
interface Call {
  readonly name: string;
  /** What its first argument stands for: a path, or `TCP:[…]`. */
  readonly target: string;
  readonly text: string;
  readonly began: number;
  ended: number;
  ok: boolean;
}

/** Reads what `strace -f -yy` wrote. Lines of other threads may stand between the beginning and the end of a call. */
function parse(trace: string): Call[] {
  const calls: Call[] = [];
  const unfinished = new Map<string, Call>();
  trace.split("\n").forEach((line, at) => {
    const ok = /\) += \d+$/.test(line);
    const [, thread, name, target, text] = /^(\d+) +(\w+)\(\d+<(TCP\w*:\[.*?\]|[^>]*)>(.*)$/.exec(line) ?? [];
    if (thread !== undefined) {
      const call = { name, target, text, began: at, ended: at, ok };
      calls.push(call);
      if (line.endsWith("<unfinished ...>")) unfinished.set(thread, Object.assign(call, { ended: Infinity }));
      return;
    }
    const [, resumed] = /^(\d+) +<\.\.\. \w+ resumed>/.exec(line) ?? [];
    const call = unfinished.get(resumed);
    if (call) Object.assign(call, { ended: at, ok });
    unfinished.delete(resumed);
  });
  return calls;
}

/** What names a row: an id that is used once, or the part of its cursor that is the beginning of its hash. */
const NAMES = /row\d+z|(?<=\\"cursor\\":\\"[0-9a-z]{1,10}-)[0-9a-f]{16}/g;

/** Everything that was said of rows on the network, and what of it was said too early: before an fsync had made the row last. */
function judge(calls: readonly Call[]): { said: Set<string>; early: string[] } {
  const log = calls.filter(({ target }) => target.endsWith("-wal"));
  const written = log.filter(({ name }) => name.includes("write"));
  const synced = log.filter(({ name, ok }) => ok && name.includes("sync"));
  const said = new Set<string>();
  const early: string[] = [];
  for (const { began, text } of calls.filter(({ target }) => target.startsWith("TCP"))) {
    for (const [name] of text.matchAll(NAMES)) {
      if (said.has(name)) continue;
      said.add(name);
      const sync = synced.findLast(({ ended }) => ended < began);
      const lasts = sync && written.findLast((write) => write.ended < sync.began && write.text.includes(name));
      if (!lasts) early.push(`${name} left in line ${began + 1}`);
    }
  }
  return { said, early };
}

const WAL = "/data/caseroom.db-wal";
const PEER = "TCP:[127.0.0.1:4000->127.0.0.1:5000]";
const CURSOR = String.raw`{\"cursor\":\"1a-0123456789abcdef\"}`;
const wrote = `7 pwrite64(3<${WAL}>, "...row1z...0123456789abcdef01234567..."..., 4096, 152) = 4096`;
const synced = `7 fsync(3<${WAL}>) = 0`;
const told = `7 write(9<${PEER}>, "..row1z..", 9) = 9`;
const answered = `7 writev(9<${PEER}>, [{iov_base="HTTP/1.1 200 OK\\r\\n", iov_len=17}, {iov_base="${CURSOR}", iov_len=35}], 2) = 52`;

for (
  const [what, lines, early] of [
    ["written, synced, told", [wrote, synced, told, answered], []],
    ["told first", [told, wrote, synced], ["row1z left in line 1"]],
    ["never synced", [wrote, told], ["row1z left in line 2"]],
    ["synced before it was written", [synced, wrote, told], ["row1z left in line 3"]],
    ["answered before it was synced", [wrote, answered, synced, told], ["0123456789abcdef left in line 2"]],
    ["another file was synced", [wrote, synced.replace("-wal", ""), told], ["row1z left in line 3"]],
    ["the sync failed", [wrote, synced.replace("= 0", "= -1 EIO (Input/output error) (INJECTED)"), told], ["row1z left in line 3"]],
    ["told by another thread while the sync was under way", [
      wrote,
      `7 fsync(3<${WAL}> <unfinished ...>`,
      told.replace("7", "8"),
      "7 <... fsync resumed>) = 0",
      told,
    ], ["row1z left in line 3"]],
    ["written by another thread while the sync was under way", [
      `7 fsync(3<${WAL}> <unfinished ...>`,
      wrote.replace("7", "8"),
      "7 <... fsync resumed>) = 0",
      told,
    ], ["row1z left in line 4"]],
    ["all of it in pieces", [
      `7 pwrite64(3<${WAL}>, "row1z", 5, 0 <unfinished ...>`,
      "8 <... futex resumed>) = 0",
      "7 <... pwrite64 resumed>) = 5",
      `7 fsync(3<${WAL}> <unfinished ...>`,
      "7 <... fsync resumed>) = 0",
      told,
    ], []],
  ] satisfies [string, string[], string[]][]
) {
  Deno.test(`syscalls: what the judge says of a trace: ${what}`, () => assertEquals(judge(parse(lines.join("\n"))).early, early));
}

/** Publishes from several back ends at once, pushes batches where there is a lab, and has all of it heard. Returns the ids of the rows. */
async function load(server: Running, withBatches: boolean): Promise<string[]> {
  let rows = 0;
  const acknowledged: string[] = [];
  const token = await server.token(someone("back end", "service", []));
  const members: RawClient[] = [];
  for (const topic of ["case:one", "case:two", ...withBatches ? ["lab:one"] : []]) {
    for (const user of ["member_1", "member_2"]) members.push((await enter(server, user, topic, {})).client);
  }
  const backEnds = [0, 1, 2, 3].map(async (number) => {
    for (let count = 0; count < 15; count++) {
      const ids = Array.from({ length: 1 + count % 3 }, () => `row${++rows}z`);
      const { status } = await publish(server, ["case:one", "case:two"][number % 2], ids.map((id) => uploaded(id)), token);
      assertEquals(status, 200);
      acknowledged.push(...ids);
    }
  });
  const batches = (withBatches ? [1, 2] : []).map(async (number) => {
    const { client } = await enter(server, `batcher_${number}`, "lab:one", {});
    for (let ref = 2; ref < 12; ref++) {
      const ids = Array.from({ length: 5 }, () => `row${++rows}z`);
      const messages = ids.map((id) => ({ event: "do", payload: { id } }));
      const [, , , , { status }] = await client.ask(["1", String(ref), "lab:one", "batch", { messages }]);
      assertEquals(status, "ok");
      acknowledged.push(...ids);
    }
    await client.close();
  });
  await Promise.all([...backEnds, ...batches]);
  for (const member of members) {
    await member.heard();
    await member.close();
  }
  return acknowledged;
}

for (
  const [what, script, env, lasts] of [
    ["a server under load says nothing of a row before the fsync that makes it last", START, {}, true],
    ["batches of members neither", LAB, {}, true],
    ["control: with synchronous=OFF the same look finds that all of it leaves too early", LAB, { LAB_SYNCHRONOUS: "off" }, false],
  ] as const
) {
  Deno.test({ name: `syscalls: ${what} [promise 2]`, ignore: !traces }, async () => {
    using dir = tempDir();
    const trace = `${dir.path}/trace`;
    Deno.mkdirSync(`${dir.path}/data`);
    const looked = traced(["-yy", "-s", "100000", "-o", trace, "-e", `trace=${WATCHED}`], script);
    await using server = await startServer({ DATA_DIR: `${dir.path}/data`, DRAIN_MS: "0", ...env }, looked, STRACE);
    const acknowledged = await load(server, script === LAB);
    // strace itself hears no SIGTERM while it runs something; it ends with it.
    const [child] = Deno.readTextFileSync(`/proc/${server.pid}/task/${server.pid}/children`).split(" ");
    Deno.kill(Number(child), "SIGTERM");
    assertEquals(await server.stop("SIGTERM"), 0, server.output());

    const { said, early } = judge(parse(Deno.readTextFileSync(trace)));
    // The look sees all that was said: what clients know of came by here.
    assertGreater(acknowledged.length, 100);
    assertEquals(acknowledged.filter((id) => !said.has(id)), []);
    assertGreater([...said].filter((name) => !name.startsWith("row")).length, 100);
    if (lasts) assertEquals(early, []);
    else assertEquals(early.length, said.size);
  });
}
