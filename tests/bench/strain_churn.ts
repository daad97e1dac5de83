/** Measures what topics leave behind that came and went: `churn`. */
import type { ChurnJob } from "./churn.ts";
import { CHURN } from "./figures.ts";
import type { Row } from "./measure.ts";
import { ending, generatorOf, serverOf, type StrainGround } from "./strain.ts";

export async function measureChurn(ground: StrainGround): Promise<Row[]> {
  const { name, warm, warmMs, million, step, asked } = CHURN;
  const server = await serverOf(ground);
  const job: ChurnJob = { port: server.ready.port, tokens: ground.tokens };
  const churn = await generatorOf(ground, "churn.ts", job);
  return await ending([server, churn], async () => {
    const begun = Date.now();
    const joins = async () => (await server.counts()).joins;
    const first = await joins();
    // What is loaded and compiled once, and the rooms that are kept warm, do not count.
    let warmed = 0;
    for (; Date.now() < begun + warmMs; warmed += warm) await churn.ask("topics", warm);
    const before = await server.memory();
    const points: { millions: number; rss: number }[] = [];
    let after = before;
    for (let topics: number = step; topics <= 3 * million; topics += step) {
      await churn.ask("topics", step);
      const memory = await server.memory();
      if (topics === million) after = memory;
      if (topics >= million) points.push({ millions: topics / million, rss: memory.rss });
      console.error(`${name} ${topics.toLocaleString("en")}: ${JSON.stringify(memory)}, ${Math.round((Date.now() - begun) / 1000)} s`);
    }
    const joined = await joins() - first;
    if (joined !== warmed + 3 * million) throw new Error(`${name}: ${joined} joins were answered ok`);
    const seconds = Math.round((Date.now() - begun) / 1000);
    const slope = slopeOf(points);
    const rise = 2 * slope / points[0].rss;
    const growth = after.heapUsed / before.heapUsed;
    const mb = (bytes: number) => `${(bytes / 2 ** 20).toFixed(2)} MB`;
    return [
      {
        what: `heap after 1,000,000 cases joined and left, beside before (3,000,000 in ${seconds} s)`,
        base: mb(before.heapUsed),
        ours: mb(after.heapUsed),
        ratio: growth.toFixed(3),
        asked: `at most ${1 + asked}`,
        met: growth <= 1 + asked,
      },
      {
        what: "slope of RSS over the second and third million, and its rise over both",
        base: mb(points[0].rss),
        ours: `${mb(slope)} per million`,
        ratio: (1 + rise).toFixed(3),
        asked: `at most ${1 + asked}`,
        met: rise <= asked,
      },
    ];
  });
}

/** Bytes per million, by least squares. */
function slopeOf(points: readonly { millions: number; rss: number }[]): number {
  const mean = (key: "millions" | "rss") => points.reduce((sum, point) => sum + point[key], 0) / points.length;
  const [x, y] = [mean("millions"), mean("rss")];
  const sum = (of: (dx: number, dy: number) => number) => points.reduce((sum, { millions, rss }) => sum + of(millions - x, rss - y), 0);
  return sum((dx, dy) => dx * dy) / sum((dx) => dx * dx);
}
