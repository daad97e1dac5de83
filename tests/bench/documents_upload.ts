/** Measures what a large upload takes of the server's memory, by a ticket and as a form: `upload`. */
import { someone } from "../support/stage.ts";
import { Casework } from "./casework.ts";
import { PAIRS, UPLOAD } from "./figures.ts";
import { sleep } from "./machine.ts";
import { median, type Row } from "./measure.ts";
import { ending } from "./strain.ts";

const LOOK_MS = 5;
const PIECE = 65_536;

function residentMb(pid: number): number {
  return Number(/^VmRSS:\s*(\d+) kB/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]) / 1024;
}

/** So many bytes, never whole in memory; no two uploads are the same. */
function content(bytes: number, head: string, tail: string): ReadableStream<Uint8Array<ArrayBuffer>> {
  const piece = crypto.getRandomValues(new Uint8Array(PIECE));
  return ReadableStream.from((function* () {
    if (head) yield new TextEncoder().encode(head);
    for (let left = bytes; left > 0; left -= PIECE) yield piece.slice(0, left);
    if (tail) yield new TextEncoder().encode(tail);
  })());
}

async function byTicket(casework: Casework, bytes: number): Promise<unknown> {
  const { client } = await casework.join("case:upload", someone("user_1"));
  const [, , , , { response }] = await client.ask(["1", "2", "case:upload", "add:document", { file: { name: "large.bin" } }]);
  client.ws.close();
  await client.closed;
  return await casework.send(response.upload.url, content(bytes, "", ""), { method: "PUT", form: false });
}

async function asForm(casework: Casework, bytes: number): Promise<unknown> {
  const head = `------bench\r\nContent-Disposition: form-data; name="files"; filename="large.bin"\r\nContent-Type: application/octet-stream\r\n\r\n`;
  return await casework.send("/api/cases/upload/documents", content(bytes, head, "\r\n------bench--\r\n"));
}

export async function measureUpload(): Promise<Row[]> {
  const { name, what, bytes, askedMb } = UPLOAD;
  const rows: Row[] = [];
  for (const [how, send] of [["by a ticket", byTicket], ["as a form", asForm]] as const) {
    const casework = await Casework.start();
    rows.push(
      await ending([casework], async () => {
        // What is loaded and compiled once does not count.
        await send(casework, 1000);
        await sleep(2000);
        const idle = residentMb(casework.server.pid);
        const above: number[] = [];
        for (let round = 0; round < PAIRS; round++) {
          let [most, open] = [0, true];
          const begun = performance.now();
          const sent = send(casework, bytes).finally(() => open = false);
          while (open) {
            most = Math.max(most, residentMb(casework.server.pid));
            await Promise.race([sleep(LOOK_MS), sent]);
          }
          await sent;
          above.push(most - idle);
          console.error(`${name} ${how}: ${(most - idle).toFixed(1)} MB above ${idle.toFixed(1)}, ${Math.round(performance.now() - begun)} ms`);
          await sleep(1000);
        }
        const sorted = above.toSorted((a, b) => a - b);
        return {
          what: `${what} ${how}`,
          base: `${idle.toFixed(0)} MB`,
          ours: `${(idle + median(above)).toFixed(0)} MB`,
          ratio: `+${median(above).toFixed(1)} MB (${sorted[0].toFixed(1)} to ${sorted.at(-1)!.toFixed(1)})`,
          asked: `at most +${askedMb} MB`,
          // The most of all: memory that was taken once was taken.
          met: sorted.at(-1)! <= askedMb,
        };
      }),
    );
  }
  return rows;
}
