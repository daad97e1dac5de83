/** What figures about documents have in common: a server as a user starts it, forms that are sent to it, and jobs that are waited for. */
import type { User } from "../../rooms/host.ts";
import { type Running, startServer } from "../support/process.ts";
import { type Heard, RawClient } from "../support/raw.ts";
import { someone } from "../support/stage.ts";
import { fileOf } from "./mails.ts";

const BOUNDARY = "----bench";
/** A job may take so long. */
const PATIENCE_MS = 120_000;

/** A multipart form of mails, ready to be sent. */
export function formOf(numbers: readonly number[], workflow: string): Uint8Array<ArrayBuffer>[] {
  const text = (said: string) => new TextEncoder().encode(said);
  const part = (head: string, body: Uint8Array<ArrayBuffer>) => [text(`--${BOUNDARY}\r\nContent-Disposition: form-data; ${head}\r\n\r\n`), body, text("\r\n")];
  const files = numbers.flatMap((number) => part(`name="files"; filename="${number}.eml"\r\nContent-Type: message/rfc822`, fileOf(number)));
  return [...part('name="workflow"', text(workflow)), ...files, text(`--${BOUNDARY}--\r\n`)];
}

export const range = (from: number, count: number): number[] => Array.from({ length: count }, (_, index) => from + index);

export class Casework {
  private constructor(readonly server: Running) {}

  static async start(env: Record<string, string> = {}): Promise<Casework> {
    return new Casework(await startServer(env));
  }

  async join(topic: string, user: User = someone("user_1")): Promise<{ client: RawClient; reply: Heard }> {
    const client = await RawClient.open(`${this.server.ws}/websocket?vsn=2.0.0&token=${await this.server.token(user, 3600)}`);
    const [, , , , reply] = await client.ask(["1", "1", topic, "phx_join", {}]);
    if (reply.status !== "ok") throw new Error(`The join of ${topic} was refused: ${JSON.stringify(reply)}`);
    return { client, reply: reply.response };
  }

  /** Sends a form, or content for a ticket. */
  async send(path: string, body: BodyInit, init: { method?: string; form?: boolean } = {}): Promise<Heard> {
    const { method = "POST", form = true } = init;
    const type = form ? `multipart/form-data; boundary=${BOUNDARY}` : "application/octet-stream";
    const headers = { authorization: `Bearer ${await this.server.token(undefined, 3600)}`, "content-type": type };
    const response = await fetch(this.server.url + path, { method, headers, body });
    if (response.status !== 201) throw new Error(`An upload was answered ${response.status}: ${await response.text()}`);
    return await response.json();
  }

  /** Resolves when the job is completed, to its summary. */
  async completed(job: string): Promise<Heard> {
    const { client, reply } = await this.join(`processing:${job}`);
    try {
      if (reply.status === "completed") return reply.summary;
      const deadline = Date.now() + PATIENCE_MS;
      for (;;) {
        const [, , , event, payload] = await client.next(deadline - Date.now());
        if (event === "job:completed") return payload.summary;
      }
    } finally {
      client.ws.close();
      await client.closed;
    }
  }

  /** Sends the form and waits for its job. Returns milliseconds. Throws when a document could not be read. */
  async ingest(caseId: string, form: readonly Uint8Array<ArrayBuffer>[]): Promise<{ sent: number; all: number; documents: Heard[] }> {
    const body = new Blob([...form]);
    const begun = performance.now();
    const { processing_job_id, documents } = await this.send(`/api/cases/${caseId}/documents`, body);
    const sent = performance.now() - begun;
    const summary = await this.completed(processing_job_id);
    const all = performance.now() - begun;
    if (summary.failed > 0) throw new Error(`${summary.failed} documents could not be read: ${JSON.stringify(summary.errors.slice(0, 3))}`);
    return { sent, all, documents };
  }

  async end(): Promise<void> {
    const code = await this.server.stop();
    const errors = this.server.output().split("\n").filter((line) => line.includes('"level":"error"'));
    await this.server[Symbol.asyncDispose]();
    if (code !== 0 || errors.length > 0) console.error(`The server ended with ${code}, errors: ${errors.slice(0, 5).join("\n")}`);
  }
}
