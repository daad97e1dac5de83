/** A case with people at it, over work that is done by hand. */
import { assertEquals } from "@std/assert";
import { channels } from "../../protocol/channels/mod.ts";
import { rooms } from "../../rooms/channels/mod.ts";
import type { CaseQuestion, Processed, Uploaded } from "../../rooms/channels/messages.ts";
import type { Role, User } from "../../rooms/host.ts";
import { sha256 } from "../../rooms/hosts/deno.ts";
import { CLEAR, FakeLabour } from "./labour.ts";
import type { Heard } from "./raw.ts";
import { someone, Stage, type StageClient, type StageOptions } from "./stage.ts";

export const CASE = "case:case_1";

export class Desk {
  readonly labour = new FakeLabour();
  readonly stage: Stage;
  #pushes = 0;

  constructor(options: StageOptions = {}) {
    this.stage = new Stage(rooms, { ...options, host: this.labour.host });
  }

  join(role: Role, topic = CASE, params: object = {}, id: string = role): { client: StageClient; reply: Heard; heard: Heard[] } {
    const client = this.stage.client(someone(id, role, ["case_1"]));
    const { heard } = client.join(topic, { aliases: false, ...params });
    return { client, heard, reply: heard.find((frame: Heard) => frame[3] === "phx_reply")?.[4] };
  }
  /** Pushes on the client's first topic and waits for the answer; what else was heard stays to be taken. */
  async push(client: StageClient, event: string, payload: object, topic = CASE): Promise<Heard> {
    const ref = `p${++this.#pushes}`;
    client.queue(["j1", ref, topic, event, payload]);
    for (let round = 0; round < 10; round++) {
      await this.stage.settle();
      const at = client.wire.frames.findIndex((frame: Heard) => frame[1] === ref);
      if (at >= 0) return client.wire.frames.splice(at, 1)[0][4];
    }
    throw new Error(`No answer to ${event}`);
  }
  /** Sends a document in a push; `found` is what reading it will find. */
  async add(client: StageClient, content: string, found: Processed = CLEAR): Promise<Heard> {
    this.labour.found.set(sha256(content), found);
    return (await this.push(client, "add:document", { file: { name: `${content}.eml`, content_base64: btoa(content) } })).response;
  }
  /** What HTTP asks. */
  async ask(user: User, question: Omit<CaseQuestion, "user"> & object): Promise<Heard> {
    const answer = this.stage.registry.ask(CASE.replace(":", "/"), { ...question, user }, user).catch((error) => ({ refused: error.reason }));
    await this.stage.settle();
    return await answer;
  }
  close(): void {
    assertEquals(this.stage.reported, []);
    this.stage.close();
  }
}

/** A topic of each channel, by its name, that may be joined: the document `1` of the case `1`, and a job. */
export async function oneOfEach(stage: Stage): Promise<Record<string, string>> {
  const published = stage.registry.publish("case:1", someone("backend", "service"), [{ event: "document:uploaded", payload: { document: { id: "1" } } }]);
  const user = someone("uploader");
  const question: CaseQuestion = { ask: "register", user, files: [], workflow: "processing" };
  const registered = stage.registry.ask<Uploaded>("case/1", question, user);
  await stage.settle();
  await published;
  const { processing_job_id } = await registered;
  return Object.fromEntries(channels.map(({ name }) => [name, `${name}:${name === "processing" ? processing_job_id : 1}`]));
}
