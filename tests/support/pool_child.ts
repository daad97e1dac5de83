/** A child of the pool for tests: it does what its task says, and what no child should. */
import { frame } from "../../rooms/documents/framing.ts";
import { serveTasks } from "../../rooms/hosts/deno_tasks.ts";

type Task = { do: string; value?: unknown; count?: number };

const kept: unknown[] = [];
const raw = (bytes: Uint8Array) => void Deno.stdout.writeSync(bytes);

const deeds: Record<string, (task: Task, note: (note: unknown) => void) => unknown> = {
  echo: ({ value }) => value,
  nothing: () => undefined,
  large: ({ count }) => "x".repeat(count!),
  fail: ({ value }) => {
    throw new Error(String(value));
  },
  notes({ count }, note) {
    for (let number = 1; number <= count!; number++) note({ number });
    return "noted";
  },
  lateNote(_, note) {
    setTimeout(() => note("late"), 0);
    return "in time";
  },
  // Waits for ever, or loops for ever: nothing of it ends by itself.
  wait: (_, note) => (note("waiting"), new Promise(() => {})),
  hang(_, note) {
    note("hanging");
    for (;;);
  },
  heap() {
    for (let number = 0;; number++) kept.push({ number, text: `text ${number}` });
  },
  buffers() {
    for (;;) kept.push(new Uint8Array(8 << 20).fill(1));
  },
  keep({ count }) {
    kept.push(new Uint8Array(count!).fill(1));
    return "kept";
  },
  crash() {
    console.error("my last words");
    setTimeout(() => {
      throw new Error("nobody catches this");
    });
    return new Promise(() => {});
  },
  forgets() {
    Promise.reject(new Error("nobody waits for this"));
    return new Promise((resolve) => setTimeout(() => resolve("went on"), 5));
  },
  talks() {
    console.log("log");
    console.table([{ a: 1 }]);
    console.dir({ a: 1 });
    return "talked";
  },
  screams({ count }) {
    const line = new TextEncoder().encode("x".repeat(1023) + "\n");
    for (let kib = 0; kib < count!; kib++) Deno.stderr.writeSync(line);
    return "screamed";
  },
  garbage: () => (raw(new TextEncoder().encode("Hello! This is not a message.")), new Promise(() => {})),
  noJson: () => (raw(new Uint8Array([0, 0, 0, 2, 0xff, 0xfe])), new Promise(() => {})),
  unknown: () => (raw(frame({ something: "else" })), new Promise(() => {})),
  list: () => (raw(frame([])), new Promise(() => {})),
  tooLong: () => (raw(new Uint8Array([0x7f, 0, 0, 0])), new Promise(() => {})),
  twice({ value, count }) {
    raw(frame({ id: count, answer: "first", resident: 0 }));
    return value;
  },
  async rights() {
    const states = await Promise.all((["read", "write", "net", "env", "run", "sys", "ffi", "import"] as const).map(async (name) => {
      const { state } = await Deno.permissions.query({ name } as Deno.PermissionDescriptor);
      return [name, state];
    }));
    return Object.fromEntries(states);
  },
  async reaches({ value }) {
    const ways: Record<string, () => unknown> = {
      read: () => Deno.readTextFileSync(String(value)),
      write: () => Deno.writeTextFileSync(String(value), ""),
      net: () => fetch("http://127.0.0.1:4000/"),
      run: () => new Deno.Command(Deno.execPath()).outputSync(),
      env: () => Deno.env.get("SECRET") ?? "",
      sys: () => Deno.hostname(),
    };
    const reached: string[] = [];
    for (const [name, way] of Object.entries(ways)) {
      try {
        if (await way() !== "") reached.push(name);
      } catch {
        // As it should be.
      }
    }
    return reached;
  },
  async libraries() {
    const { extractText } = await import("unpdf");
    const { default: MsgReader } = await import("@kenjiuno/msgreader");
    const { default: nlp } = await import("compromise");
    const { DatabaseSync } = await import("node:sqlite");
    const db = new DatabaseSync(":memory:");
    db.exec("create virtual table t using fts5 (body)");
    db.close();
    return [typeof extractText, typeof MsgReader, nlp("John Smith met Mary Jones.").people().out("array")];
  },
};

await serveTasks(import.meta.url, (task, note) => deeds[(task as Task).do](task as Task, note));
