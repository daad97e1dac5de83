/** Measures how long cursors take to others while another case is busy, beside idle: `busy`. */
import { RawClient } from "../support/raw.ts";
import { someone } from "../support/stage.ts";
import { Casework, formOf, range } from "./casework.ts";
import type { CursorsJob, Moved } from "./cursors.ts";
import { BUSY_CASE } from "./figures.ts";
import { WORDS } from "./mails.ts";
import type { Row } from "./measure.ts";
import type { Child } from "./server.ts";
import { ending, generatorOf, inTurns, ms, rowOf, type StrainGround } from "./strain.ts";

/** Searches at once, each for another user. */
const SEARCHERS = 2;

/** Terms near each other, of words that are in most documents. */
const near = (at: number) => `${WORDS[at % 20]} w/5 ${WORDS[(at + 7) % 40]} AND (${WORDS[(at + 3) % 30]} w/20 ${WORDS[(at + 11) % 60]})`;

/** Searches one after another until it is told to stop. Returns how many. */
async function searching(casework: Casework, user: string, caseId: string, isOver: () => boolean): Promise<number> {
  const { client } = await casework.join("search:live", someone(user));
  let count = 0;
  for (; !isOver(); count++) await search(client, near(count), caseId);
  client.ws.close();
  await client.closed;
  return count;
}

async function search(client: RawClient, query: string, caseId: string): Promise<void> {
  const reply = await client.ask(["1", "2", "search:live", "search", { query, filters: { case_ids: [caseId] }, limit: 20 }]);
  if (reply[4].status !== "ok") throw new Error(`A search was refused: ${JSON.stringify(reply)}`);
  for (;;) if ((await client.next(20_000))[3] === "search:complete") return;
}

export async function measureBusy(ground: StrainGround): Promise<Row[]> {
  const { name, what, mails, members, everyMs, windowMs, asked } = BUSY_CASE;
  // Who searches so much is more than one person.
  const casework = await Casework.start({ LIMIT_REQUESTS: "100000" });
  ground.raised.add("requests");
  const parts: { end(): Promise<void> }[] = [casework];
  return await ending(parts, async () => {
    const { documents: [{ id }] } = await casework.ingest("quiet", formOf([0], "text_extraction"));
    await casework.ingest("searched", formOf(range(1_000_000, mails), "text_extraction"));
    const tokens = await Promise.all(range(0, members).map((index) => casework.server.token(someone(`member_${index}`), 3600)));
    const job: CursorsJob = { port: casework.server.port, topic: `collaboration:${id}`, tokens, everyMs };
    const cursors: Child = await generatorOf(ground, "cursors.ts", job);
    parts.push(cursors);
    const move = async (how: string) => {
      const moved = await cursors.ask("move", windowMs) as Moved;
      console.error(`${name} ${how}: p50 ${ms(moved.p50)}, p99 ${ms(moved.p99)}, max ${ms(moved.max)}, ${moved.moves} moves`);
      return moved.p99;
    };
    let rounds = 0;
    const within = async () => {
      rounds++;
      const form = new Blob(formOf(range(rounds * mails, mails), "processing"));
      let over = false;
      const searches = range(0, SEARCHERS).map((index) => searching(casework, `searcher_${index}`, "searched", () => over));
      // Its files come, and are registered, within a window of their own.
      const begun = performance.now();
      const sent = casework.send(`/api/cases/busy_${rounds}/documents`, form);
      const working = async () => {
        const { processing_job_id } = await sent;
        await casework.completed(processing_job_id);
        return performance.now() - begun;
      };
      const moving = async () => {
        try {
          const [uploaded] = await Promise.all([move("upload"), sent]);
          return { uploaded, worked: await move("job") };
        } finally {
          over = true;
        }
      };
      const [p99, all, ...counts] = await Promise.all([moving(), working(), ...searches]);
      if (all < 2 * windowMs) throw new Error(`${name}: the job was over before the cursors were`);
      console.error(`${name}: ${counts.join(" + ")} searches meanwhile; the job took ${Math.round(all)} ms`);
      return p99;
    };
    await move("first");
    const idle = async () => {
      const p99 = await move("idle");
      return { uploaded: p99, worked: p99 };
    };
    const pairs = await inTurns(idle, within);
    const row = (what: string, which: "uploaded" | "worked") =>
      rowOf(what, pairs.map(({ without, within }) => ({ without: without[which], within: within[which] })), ms, { most: asked });
    return [row(what, "worked"), row("the same, while the mails are uploaded and registered and the job begins", "uploaded")];
  });
}
