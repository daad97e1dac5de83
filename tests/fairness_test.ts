/** What one user's sockets may take of the server: how many they are, and how long what they ask for may last. [V05, V06] */
import { assertEquals, assertLess, assertRejects } from "@std/assert";
import { Refusal } from "../protocol/reason.ts";
import type { Verify } from "../rooms/token.ts";
import { startServer } from "./support/process.ts";
import { HttpRefusal, RawClient } from "./support/raw.ts";
import { lab, someone, Stage, type StageClient } from "./support/stage.ts";

const TOPIC = "lab:1";
const beat = (ref: string) => [null, ref, "phoenix", "heartbeat", {}];
const refsOf = (client: StageClient) => client.take().map((frame) => frame[1]);

/** A room in which `do` takes as many milliseconds as `slow` says. */
function slowStage(verify?: Verify) {
  const stage: Stage & { takes: number } = Object.assign(
    new Stage([lab({
      on: {
        do: () => {
          stage.clock.time += stage.takes;
        },
      },
    })], { verify }),
    { takes: 0 },
  );
  return stage;
}
const work = (client: StageClient, ref: string) => client.queue(["j1", ref, TOPIC, "do", {}]);

Deno.test("fairness: whoever took 20 ms rests four times as long, on all his sockets, and nobody else does", async () => {
  const stage = slowStage();
  const [one, two, other] = [stage.client(someone("a")), stage.client(someone("a")), stage.client(someone("b"))];
  for (const client of [one, two, other]) client.join(TOPIC);
  stage.run();
  for (const client of [one, two, other]) client.take();
  stage.takes = 20;
  work(one, "1");
  stage.tick();
  assertEquals(refsOf(one), ["1"]);
  stage.takes = 0;
  for (const client of [one, two, other]) work(client, "2");
  stage.run();
  assertEquals([refsOf(one), refsOf(two), refsOf(other)], [[], [], ["2"]]);
  assertEquals([one.wire.paused, two.wire.paused, other.wire.paused], [true, true, false]);
  stage.clock.advance(79);
  await stage.settle();
  assertEquals([refsOf(one), refsOf(two)], [[], []]);
  stage.clock.advance(2);
  await stage.settle();
  assertEquals([refsOf(one), refsOf(two)], [["2"], ["2"]]);
  assertEquals([one.wire.paused, two.wire.paused], [false, false]);
  stage.close();
});

Deno.test("fairness: 8 ms are nobody's fault, nor are many messages of a millisecond that come one by one", () => {
  const stage = slowStage();
  const client = stage.client(someone("a"));
  client.join(TOPIC);
  stage.run();
  client.take();
  stage.takes = 8;
  work(client, "1");
  stage.run();
  stage.takes = 1;
  for (let n = 2; n < 30; n++) {
    work(client, String(n));
    stage.run();
  }
  assertEquals(refsOf(client), Array.from({ length: 29 }, (_, index) => String(index + 1)));
  stage.close();
});

Deno.test("fairness: sockets that say much and not who they are rest together; a short word of theirs is heard", async () => {
  const stage = slowStage(() => Promise.reject(new Refusal("token_invalid")));
  const [loud, louder, quiet, known] = [stage.client(null), stage.client(null), stage.client(null), stage.client(someone("a"))];
  const much = [null, "1", "nothing", "here", "x".repeat(2 * loud.socket.limits.token_bytes)];
  // What takes long is parsing it: here it is the look at the topic that takes 20 ms.
  const decode = loud.socket.serializer.decode.bind(loud.socket.serializer);
  Object.assign(loud.socket, {
    serializer: {
      ...loud.socket.serializer,
      decode(data: string) {
        stage.clock.time += 20;
        return decode(data);
      },
    },
  });
  loud.queue(much);
  stage.tick();
  assertEquals(refsOf(loud), ["1"]);
  louder.queue(much);
  quiet.queue(beat("q"));
  known.queue(beat("k"));
  stage.run();
  assertEquals([refsOf(louder), refsOf(quiet), refsOf(known)], [[], ["q"], ["k"]]);
  stage.clock.advance(81);
  await stage.settle();
  assertEquals(refsOf(louder), ["1"]);
  stage.close();
});

Deno.test("fairness: a user has so many sockets and no more: 429 to the next one, until one of his is closed; others are let in", async () => {
  await using server = await startServer({ LIMIT_SOCKETS_PER_USER: "3" });
  const open = async (id: string) => RawClient.open(`${server.ws}/websocket?vsn=2.0.0&token=${await server.token(someone(id))}`);
  const refused = async (id: string) => (await assertRejects(() => open(id), HttpRefusal)).status;
  const clients = [await open("a"), await open("a"), await open("a")];
  for (let n = 0; n < 3; n++) assertEquals(await refused("a"), 429);
  clients.push(await open("b"));
  // Who says afterwards who he is counts as well.
  const late = await RawClient.open(`${server.ws}/websocket?vsn=2.0.0`);
  const { reason, limit } = (await late.ask([null, "1", "auth", "authenticate", { token: await server.token(someone("a")) }]))[4].response;
  assertEquals([reason, limit, (await late.closed).code], ["rate_limited", 3, 4002]);
  await clients.shift()!.close();
  const begun = performance.now();
  for (let isIn = false; !isIn;) {
    await open("a").then((client) => void clients.push(client), () => assertLess(performance.now() - begun, 5000));
    isIn = clients.length === 4;
  }
  assertEquals(await refused("a"), 429);
  for (const client of clients) await client.close();
});
