import { assert, assertEquals, assertLess, assertRejects, assertThrows } from "@std/assert";
import { createHash } from "node:crypto";
import { Refusal } from "../protocol/reason.ts";
import { DenoBlobs, type Disk } from "../rooms/hosts/deno_blobs.ts";

const MIB = 1 << 20;
const DENO: Disk = {
  open: Deno.open,
  rename: Deno.rename,
  remove: Deno.remove,
  chmod: Deno.chmod,
  stat: Deno.stat,
  lstat: Deno.lstat,
  realPath: Deno.realPath,
};
const bytes = (text: string) => new TextEncoder().encode(text);
const hashOf = (content: Uint8Array) => createHash("sha256").update(content).digest("hex");
async function* stream(...chunks: Uint8Array[]): AsyncGenerator<Uint8Array> {
  for (const chunk of chunks) yield await Promise.resolve(chunk);
}
async function textOf(blobs: DenoBlobs, hash: string): Promise<string | undefined> {
  const found = await blobs.open(hash);
  return found && new Response(found.stream).text();
}

/** A folder for the test, and what is in its two folders. */
class Trial implements Disposable {
  readonly dir = Deno.realPathSync(Deno.makeTempDirSync());
  blobs: DenoBlobs;

  constructor(disk: Partial<Disk> = {}) {
    this.blobs = new DenoBlobs(this.dir, { ...DENO, ...disk });
  }
  names(folder: "blobs" | "uploads"): string[] {
    return [...Deno.readDirSync(`${this.dir}/${folder}`)].map(({ name }) => name).toSorted();
  }
  /** As a child writes it. */
  wrote(name: string, content: string): string {
    const path = `${this.blobs.uploads}/${name}`;
    Deno.writeTextFileSync(path, content, { mode: 0o644 });
    return path;
  }
  [Symbol.dispose](): void {
    Deno.removeSync(this.dir, { recursive: true });
  }
}

async function refused(result: Promise<unknown>, reason: string): Promise<Refusal> {
  const refusal = await assertRejects(() => result, Refusal);
  assertEquals(refusal.reason, reason);
  return refusal;
}

Deno.test("deno_blobs: what is kept stands under its hash, readable by its owner alone; what is dropped is gone", async () => {
  using trial = new Trial();
  const upload = await trial.blobs.receive(stream(bytes("one "), bytes(""), bytes("two")), 7);
  assertEquals([upload.hash, upload.size], [hashOf(bytes("one two")), 7]);
  assertEquals([trial.names("blobs"), trial.names("uploads").length], [[], 1]);
  assertEquals(await textOf(trial.blobs, upload.hash), undefined);
  await upload.keep();
  assertEquals([trial.names("blobs"), trial.names("uploads")], [[upload.hash], []]);
  assertEquals(await textOf(trial.blobs, upload.hash), "one two");
  assertEquals((await trial.blobs.open(upload.hash).then(async (found) => (await found!.stream.cancel(), found)))?.size, 7);
  const modes = [trial.blobs.path(upload.hash), `${trial.dir}/blobs`, `${trial.dir}/uploads`].map((path) => Deno.statSync(path).mode! & 0o777);
  assertEquals(modes, [0o600, 0o700, 0o700]);
  const other = await trial.blobs.receive(stream(bytes("other")), 100);
  await other.drop();
  await other.drop();
  assertEquals([trial.names("blobs").length, trial.names("uploads")], [1, []]);
  await assertRejects(() => other.keep(), TypeError);
  await assertRejects(() => upload.keep(), TypeError);
  await upload.drop();
  assertEquals(await textOf(trial.blobs, upload.hash), "one two");
});

Deno.test("deno_blobs: an empty file is one too, and one of many pieces has the hash of the whole", async () => {
  using trial = new Trial();
  const large = crypto.getRandomValues(new Uint8Array(65_536));
  const uploads = [await trial.blobs.receive(stream(), 0), await trial.blobs.receive(stream(...Array(20).fill(large)), 2 * MIB)];
  const whole = new Uint8Array(20 * large.length);
  for (let at = 0; at < whole.length; at += large.length) whole.set(large, at);
  uploads.push(await trial.blobs.receive(stream(whole), whole.length));
  assertEquals(uploads.map(({ hash }) => hash), [hashOf(new Uint8Array()), hashOf(whole), hashOf(whole)]);
  await trial.blobs.keepAll(uploads);
  assertEquals(Deno.readFileSync(trial.blobs.path(hashOf(whole))).length, whole.length);
  assertEquals(trial.names("uploads"), []);
});

Deno.test("deno_blobs: the same content may come twice, at once and later, and is written once", async () => {
  using trial = new Trial();
  const uploads = await Promise.all([1, 2, 3].map(() => trial.blobs.receive(stream(bytes("same")), 100)));
  await Promise.all(uploads.map((upload) => upload.keep()));
  const { ino } = Deno.statSync(trial.blobs.path(uploads[0].hash));
  await (await trial.blobs.receive(stream(bytes("same")), 100)).keep();
  assertEquals([trial.names("blobs"), trial.names("uploads")], [[uploads[0].hash], []]);
  assertEquals(Deno.statSync(trial.blobs.path(uploads[0].hash)).ino, ino);
  await trial.blobs.keepAll([]);
});

Deno.test("deno_blobs: a file that a failing disk cut short is written anew", async () => {
  using trial = new Trial();
  const hash = hashOf(bytes("whole"));
  Deno.writeTextFileSync(trial.blobs.path(hash), "who");
  await (await trial.blobs.receive(stream(bytes("whole")), 100)).keep();
  assertEquals(await textOf(trial.blobs, hash), "whole");
});

Deno.test("deno_blobs: more than the limit is refused as soon as it is more, and the sender hears it", async () => {
  using trial = new Trial();
  let pulled = 0;
  let returned = false;
  async function* endless() {
    try {
      for (;; pulled++) yield await Promise.resolve(new Uint8Array(10));
    } finally {
      returned = true;
    }
  }
  assertEquals((await refused(trial.blobs.receive(endless(), 100), "payload_too_large")).detail.limit, 100);
  assertEquals([pulled, returned, trial.names("uploads")], [10, true, []]);
});

Deno.test("deno_blobs: a stream that breaks off leaves nothing, and its error is its own", async () => {
  using trial = new Trial();
  async function* broken() {
    yield await Promise.resolve(bytes("half"));
    throw new RangeError("the connection was cut");
  }
  await assertRejects(() => trial.blobs.receive(broken(), 100), RangeError, "was cut");
  assertEquals([trial.names("blobs"), trial.names("uploads")], [[], []]);
});

/** Its file is as Deno opens it, but for what is given. */
const opening = (parts: (file: Deno.FsFile, path: string) => Partial<Deno.FsFile>): Partial<Disk> => ({
  open: async (path, options) => {
    const file = await Deno.open(path, options);
    return Object.assign(file, parts(file, String(path)));
  },
});
const full = () => Promise.reject(new Error("ENOSPC"));
const isFolder = (path: string) => path.endsWith("/blobs");

const DISKS: Record<string, { disk: Partial<Disk>; at: "receive" | "keep" }> = {
  "opens nothing": { disk: { open: full }, at: "receive" },
  "is full": { disk: opening(() => ({ write: full })), at: "receive" },
  "is full after a few bytes": {
    disk: opening((file) => {
      const write = file.write.bind(file);
      let room = 5;
      return { write: (piece) => room <= 0 ? full() : write(piece.subarray(0, room)).then((written) => (room -= written, written)) };
    }),
    at: "receive",
  },
  "cannot sync": { disk: opening((_, path) => isFolder(path) ? {} : { syncData: full }), at: "keep" },
  "cannot rename": { disk: { rename: full }, at: "keep" },
  "cannot sync the folder": { disk: opening((_, path) => isFolder(path) ? { sync: full } : {}), at: "keep" },
};
for (const [name, { disk, at }] of Object.entries(DISKS)) {
  Deno.test(`deno_blobs: a disk that ${name} is unavailable, and nothing is left half done`, async () => {
    using trial = new Trial(disk);
    const receiving = trial.blobs.receive(stream(bytes("more than five bytes")), 100);
    const refusal = at === "receive" ? await refused(receiving, "unavailable") : await refused((await receiving).keep(), "unavailable");
    assertEquals((refusal.cause as Error).message, "ENOSPC");
    assertEquals(trial.names("uploads"), []);
    // A name, if it has one, is that of its whole content.
    for (const hash of trial.names("blobs")) assertEquals(hashOf(Deno.readFileSync(trial.blobs.path(hash))), hash);
    // A sound disk is all that it takes.
    trial.blobs = new DenoBlobs(trial.dir);
    await (await trial.blobs.receive(stream(bytes("more than five bytes")), 100)).keep();
  });
}

Deno.test("deno_blobs: of several of which one fails, the others are whole or not there", async () => {
  let count = 0;
  using trial = new Trial({ rename: (from, to) => ++count === 2 ? full() : Deno.rename(from, to) });
  const uploads = await Promise.all(["a", "b", "c"].map((text) => trial.blobs.receive(stream(bytes(text)), 100)));
  await refused(trial.blobs.keepAll(uploads), "unavailable");
  assertEquals([trial.names("blobs").length, trial.names("uploads")], [2, []]);
});

Deno.test("deno_blobs: a name is given after its content is on disk, and told of after the name is; one sync of the folder for all", async () => {
  const done: string[] = [];
  const noting = (name: string, call: () => Promise<void>) => async () => {
    await call();
    done.push(name);
  };
  using trial = new Trial({
    ...opening((file, path) => ({
      syncData: noting("content", file.syncData.bind(file)),
      sync: noting(isFolder(path) ? "folder" : "?", file.sync.bind(file)),
    })),
    rename: async (from, to) => (await Deno.rename(from, to), void done.push("name")),
  });
  await (await trial.blobs.receive(stream(bytes("one")), 100)).keep();
  assertEquals(done.splice(0), ["content", "name", "folder"]);
  const uploads = await Promise.all(["a", "b", "c"].map((text) => trial.blobs.receive(stream(bytes(text)), 100)));
  await trial.blobs.keepAll(uploads);
  assertEquals([done.at(-1), done.splice(0).toSorted().join(" ")], ["folder", "content content content folder name name name"]);
  // What is there already may have been renamed a moment ago.
  await (await trial.blobs.receive(stream(bytes("a")), 100)).keep();
  assertEquals(done.splice(0), ["folder"]);
});

Deno.test("deno_blobs: no more is taken from the sender than the disk has written", async () => {
  let pulled = 0;
  const whileWriting: number[][] = [];
  using trial = new Trial(opening((file) => {
    const write = file.write.bind(file);
    return {
      async write(piece) {
        const before = pulled;
        for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve));
        whileWriting.push([before, pulled]);
        return write(piece);
      },
    };
  }));
  async function* counting() {
    while (pulled < 3) {
      pulled++;
      yield await Promise.resolve(bytes("chunk"));
    }
  }
  await (await trial.blobs.receive(counting(), 100)).drop();
  assertEquals(whileWriting, [[1, 1], [2, 2], [3, 3]]);
});

Deno.test("deno_blobs: 100 MB pass without being held", async () => {
  using trial = new Trial();
  const chunk = new Uint8Array(65_536);
  let most = 0;
  async function* hundred() {
    for (let sent = 0; sent < 100 * MIB; sent += chunk.length) {
      yield await Promise.resolve(chunk.fill(sent));
      most = Math.max(most, Deno.memoryUsage().rss);
    }
  }
  const before = Deno.memoryUsage().rss;
  const upload = await trial.blobs.receive(hundred(), 100 * MIB);
  assertEquals(upload.size, 100 * MIB);
  assertLess(most - before, 20 * MIB);
  await upload.drop();
});

Deno.test("deno_blobs: what a dead process left under uploads is swept, and what was kept stays", async () => {
  using trial = new Trial();
  await (await trial.blobs.receive(stream(bytes("kept")), 100)).keep();
  trial.wrote("left", "half a file");
  Deno.mkdirSync(`${trial.dir}/uploads/folder/of/a/child`, { recursive: true });
  const again = new DenoBlobs(trial.dir);
  assertEquals([trial.names("uploads"), await textOf(again, hashOf(bytes("kept")))], [[], "kept"]);
});

Deno.test("deno_blobs: what a child wrote is moved, in the order it is named, and no longer readable by others", async () => {
  using trial = new Trial();
  Deno.mkdirSync(`${trial.blobs.uploads}/task`);
  const paths = [trial.wrote("task/b", "content b"), trial.wrote("a", "content a"), trial.wrote("task/empty", ""), trial.wrote("task/same", "content a")];
  const [a, b, empty] = ["content a", "content b", ""].map((text) => ({ hash: hashOf(bytes(text)), size: text.length }));
  assertEquals(await trial.blobs.adopt(paths, 9), [b, a, empty, a]);
  assertEquals([trial.names("uploads"), trial.names("blobs")], [["task"], [a.hash, b.hash, empty.hash].toSorted()]);
  assertEquals(Deno.statSync(trial.blobs.path(b.hash)).mode! & 0o777, 0o600);
  assertEquals(await trial.blobs.adopt([], 9), []);
});

Deno.test("deno_blobs: nothing but files of uploads is adopted, whatever way leads there", async () => {
  using trial = new Trial();
  const secret = `${trial.dir}/caseroom.db`;
  Deno.writeTextFileSync(secret, "secret");
  Deno.mkdirSync(`${trial.blobs.uploads}/folder`);
  Deno.symlinkSync(secret, `${trial.blobs.uploads}/link`);
  Deno.symlinkSync(trial.dir, `${trial.blobs.uploads}/way`);
  const inside = (path: string) => `${trial.blobs.uploads}/${path}`;
  const ways = [
    secret,
    inside("../caseroom.db"),
    inside("link"),
    inside("way/caseroom.db"),
    inside("folder"),
    inside("nothing"),
    inside(""),
    inside("a\0b"),
    "",
    ".",
  ];
  for (const way of ways) {
    const good = trial.wrote("good", "good");
    await assertRejects(() => trial.blobs.adopt([good, way], 100), TypeError, "Cannot adopt", way);
    assertEquals(trial.names("uploads").includes("good"), false, way);
  }
  assertEquals([Deno.readTextFileSync(secret), trial.names("blobs")], ["secret", []]);
});

Deno.test("deno_blobs: an attachment above the limit, or a disk that fails, leaves none of them", async () => {
  let sound = true;
  using trial = new Trial(opening((file) => ({ read: (piece) => sound ? Deno.FsFile.prototype.read.call(file, piece) : full() })));
  const refusal = await refused(trial.blobs.adopt([trial.wrote("small", "1234"), trial.wrote("large", "12345")], 4), "payload_too_large");
  assertEquals([refusal.detail.limit, trial.names("uploads"), trial.names("blobs")], [4, [], []]);
  sound = false;
  await refused(trial.blobs.adopt([trial.wrote("small", "1234")], 4), "unavailable");
  assertEquals(trial.names("uploads"), []);
});

Deno.test("deno_blobs: only a hash names a file", async () => {
  using trial = new Trial();
  const { hash } = await trial.blobs.receive(stream(bytes("x")), 1).then(async (upload) => (await upload.keep(), upload));
  for (const name of ["", ".", "..", "../caseroom.lock", hash.toUpperCase(), hash.slice(1), `${hash}0`, `${hash}\n`, `./${hash}`, "0".repeat(63) + "/"]) {
    assertEquals(await trial.blobs.open(name), undefined, name);
    assertThrows(() => trial.blobs.path(name), TypeError);
  }
  assertEquals(await trial.blobs.open("0".repeat(64)), undefined);
  assert(trial.blobs.path(hash).endsWith(`/blobs/${hash}`));
  await refused(new DenoBlobs(trial.dir, { ...DENO, open: full }).open(hash), "unavailable");
});
