/** A server of the bench as a child process on its core. */
import { linesOf, pinned } from "./machine.ts";
import type { Memory, Ready } from "./serving.ts";

export class Server {
  private constructor(
    private readonly child: Deno.ChildProcess,
    private readonly lines: AsyncGenerator<string>,
    private readonly stdin: WritableStreamDefaultWriter<Uint8Array>,
    readonly core: number,
    /** Its database is in here. */
    readonly folder: string,
    readonly ready: Ready,
  ) {}

  static async start(script: string, core: number, parent: string): Promise<Server> {
    const folder = Deno.makeTempDirSync({ dir: parent });
    const child = pinned(core, script, [folder], `${parent}/errors`, ["--v8-flags=--expose-gc"]);
    const lines = linesOf(child.stdout);
    const { value, done } = await lines.next();
    if (done) throw new Error(`${script} did not start: ${Deno.readTextFileSync(`${parent}/errors`)}`);
    return new Server(child, lines, child.stdin.getWriter(), core, folder, JSON.parse(value));
  }

  get pid(): number {
    return this.child.pid;
  }

  async memory(): Promise<Memory> {
    await this.stdin.write(new TextEncoder().encode("memory\n"));
    const { value, done } = await this.lines.next();
    if (done) throw new Error("The server ended");
    return JSON.parse(value);
  }

  /** The end of its stdin is the end of the server. */
  async end(): Promise<void> {
    await this.stdin.close().catch(() => {});
    const timer = setTimeout(() => this.child.kill("SIGKILL"), 5000);
    await this.child.status;
    clearTimeout(timer);
    await this.lines.return(undefined);
  }
}
