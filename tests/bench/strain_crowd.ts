/** Measures crowds that come back: `recover` and `redial`. */
import type { Came, Coming, CrowdJob } from "./crowd.ts";
import { BUSY, type CrowdLoad, PAIRS, RECOVER, REDIAL, SHARED } from "./figures.ts";
import { sleep } from "./machine.ts";
import type { Row } from "./measure.ts";
import type { Child, Server } from "./server.ts";
import { ending, generatorOf, inTurns, ms, rowOf, serverOf, type StrainGround, token } from "./strain.ts";

/** Publishes what will have been missed to every case, as a back end does. Returns the cursors before it. */
async function publishMissed({ ready }: Server, { clients, perTopic, missed }: CrowdLoad): Promise<string[]> {
  const authorization = `Bearer ${await token("backend", "service")}`;
  const event = (index: number) => ({
    event: "document:processed",
    payload: {
      document_id: `doc_${index}`,
      status: "completed",
      results: {
        summary: "Lease agreement between the parties, with a rent review clause.",
        entities: [{ text: "Acme Ltd", type: "ORG", confidence: 0.97 }],
      },
    },
  });
  const publish = async (topic: string, events: unknown[]): Promise<{ cursor: string }[]> => {
    const response = await fetch(`http://127.0.0.1:${ready.port}/api/topics/${topic}/events`, {
      method: "POST",
      headers: { authorization, "content-type": "application/json" },
      body: JSON.stringify({ events }),
    });
    if (!response.ok) throw new Error(`Publishing was refused: ${await response.text()}`);
    return (await response.json()).events;
  };
  const cursors: string[] = [];
  for (let index = 0; index < clients / perTopic; index++) {
    const topic = `case:${index}`;
    cursors.push((await publish(topic, [event(0)]))[0].cursor);
    for (let from = 1; from <= missed; from += 100) await publish(topic, Array.from({ length: Math.min(100, missed + 1 - from) }, (_, at) => event(from + at)));
  }
  return cursors;
}

async function come(crowd: Child, server: Server, recover: boolean): Promise<Came> {
  const coming: Coming = { port: server.ready.port, pid: server.pid, core: server.core, recover };
  return await crowd.ask("come", coming) as Came;
}

function tellCame(name: string, how: string, clients: number, { seconds, server, generator, others, p50, p99, max, again }: Came): void {
  console.error(
    `${name} ${how}: ${Math.round(clients / seconds)}/s, ${Math.round(clients / server)} per CPU-s; p50 ${ms(p50)}, p99 ${ms(p99)}, max ${ms(max)}; ` +
      `server ${(server / seconds).toFixed(2)} of its core (others ${(others / seconds).toFixed(2)}), generator ${
        (generator / seconds).toFixed(2)
      }; ${again} dialled again`,
  );
}

export async function measureRecover(ground: StrainGround): Promise<Row[]> {
  const { name, what, load, asked } = RECOVER;
  const server = await serverOf(ground);
  const cursors = await publishMissed(server, load);
  const job: CrowdJob = { ...load, tokens: ground.tokens, cursors };
  const crowd = await generatorOf(ground, "crowd.ts", job);
  return await ending([server, crowd], async () => {
    const wave = async (recover: boolean) => {
      const came = await come(crowd, server, recover);
      await crowd.ask("go");
      // What was read for one wave is not kept for the next.
      await sleep(1500);
      tellCame(name, recover ? "recovered" : "plain", load.clients, came);
      return came;
    };
    // Both ways once before, so that hot code is compiled.
    await wave(false);
    await wave(true);
    const pairs = await inTurns(() => wave(false), () => wave(true));
    const all = pairs.flatMap(({ without, within }) => [without, within]);
    const perCpu = all.some(({ generator, others, seconds }) => generator / seconds > BUSY || others / seconds > SHARED);
    const rate = (came: Came) => load.clients / (perCpu ? came.server : came.seconds);
    const rates = pairs.map(({ without, within }) => ({ without: rate(without), within: rate(within) }));
    return [rowOf(what, rates, (value) => `${Math.round(value).toLocaleString("en")} joins/${perCpu ? "CPU-s" : "s"}`, { least: asked })];
  });
}

/** The clients of a plain wave are closed by the drain, and dial again when the next server stands. */
export async function measureRedial(ground: StrainGround): Promise<Row[]> {
  const { name, what, load, asked } = REDIAL;
  let server = await serverOf(ground);
  const cursors = await publishMissed(server, load);
  const job: CrowdJob = { ...load, tokens: ground.tokens, cursors };
  const crowd = await generatorOf(ground, "crowd.ts", job);
  return await ending([{ end: () => server.end() }, crowd], async () => {
    const wave = async (recover: boolean) => {
      const came = await come(crowd, server, recover);
      tellCame(name, recover ? "redialled" : "plain", load.clients, came);
      return came;
    };
    await wave(false);
    await crowd.ask("go");
    const pairs: { without: number; within: number }[] = [];
    for (let index = 0; index < PAIRS; index++) {
      const { p99: without } = await wave(false);
      await server.drain();
      const codes = await crowd.ask("gone") as number[];
      if (codes.join() !== "1012") throw new Error(`${name}: the sockets were closed with ${codes}, not with 1012`);
      await server.end();
      server = await serverOf(ground, server.folder);
      const { p99: within } = await wave(true);
      pairs.push({ without, within });
      await crowd.ask("go");
    }
    return [rowOf(what, pairs, ms, { most: asked })];
  });
}
