/**
 * The originals: `DATA_DIR/blobs/<sha256>`, each written once and never changed. What arrives is written under `uploads/`, and
 * gets its name only when it is on disk; so a name stands for the whole of its content, whenever the process ends.
 */
import { createHash, type Hash, randomUUID } from "node:crypto";
import { Refusal } from "../../protocol/reason.ts";

/** Bytes that are hashed and written in one go: the server does nothing else while they are hashed. */
const PIECE = 1 << 18;
const HASH = /^[0-9a-f]{64}$/;

/** What is asked of the disk, so that tests can let it fail. */
export type Disk = Pick<typeof Deno, "open" | "rename" | "remove" | "chmod" | "stat" | "lstat" | "realPath">;

/** So many files are open at once for one caller: he may have thousands. */
const AT_ONCE = 64;

/** A file that is written, but has no name yet: to be kept or dropped. It is not open meanwhile: there may be thousands. */
export class Upload {
  #waits = true;

  constructor(private readonly blobs: DenoBlobs, readonly path: string, readonly hash: string, readonly size: number) {}

  /** Durable under its hash when it resolves. Rejects with Refusal `unavailable`; then nothing is left to keep. */
  keep(): Promise<void> {
    return this.blobs.keepAll([this]);
  }
  /** Nothing of it is left. Does nothing when it is being kept. */
  async drop(): Promise<void> {
    if (!this.#waits) return;
    this.take();
    await this.blobs.discard(this.path);
  }
  /** Whoever takes it sees to it. Throws TypeError when it was kept or dropped before. */
  take(): void {
    if (!this.#waits) throw new TypeError("Cannot keep an upload twice, or when it is dropped");
    this.#waits = false;
  }
}

export class DenoBlobs {
  readonly #blobs: string;
  readonly #uploads: string;
  /** The folder's sync that runs, and the one that begins after it. */
  #syncing: Promise<void> = Promise.resolve();
  #nextSync: Promise<void> | null = null;

  /** Makes `blobs/` and `uploads/`, and removes what is under uploads: its process is dead, since DATA_DIR is held by one at a time. */
  constructor(dataDir: string, private readonly disk: Disk = Deno) {
    for (const folder of ["blobs", "uploads"]) Deno.mkdirSync(`${dataDir}/${folder}`, { recursive: true, mode: 0o700 });
    this.#blobs = Deno.realPathSync(`${dataDir}/blobs`);
    this.#uploads = Deno.realPathSync(`${dataDir}/uploads`);
    for (const { name } of Deno.readDirSync(this.#uploads)) Deno.removeSync(`${this.#uploads}/${name}`, { recursive: true });
    using folder = Deno.openSync(dataDir);
    folder.syncSync();
  }

  /** Where the originals are. */
  get folder(): string {
    return this.#blobs;
  }

  /** Where children may write what is to be adopted. */
  get uploads(): string {
    return this.#uploads;
  }

  /**
   * Writes a stream to a file of its own while hashing it, piece by piece. Rejects with Refusal `payload_too_large` above
   * `limit` bytes, `unavailable` when the disk fails, or with what the stream fails with; then nothing is left of it.
   */
  async receive(stream: AsyncIterable<Uint8Array>, limit: number): Promise<Upload> {
    const path = `${this.#uploads}/${randomUUID()}`;
    const file = await onDisk(this.disk.open(path, { write: true, createNew: true, mode: 0o600 }));
    try {
      const hash = createHash("sha256");
      let size = 0;
      for await (const chunk of stream) {
        size += chunk.length;
        if (size > limit) throw tooLarge(limit);
        await this.#write(file, hash, chunk);
      }
      return new Upload(this, path, hash.digest("hex"), size);
    } catch (error) {
      await this.discard(path);
      throw error;
    } finally {
      file.close();
    }
  }

  async #write(file: Deno.FsFile, hash: Hash, chunk: Uint8Array): Promise<void> {
    for (let from = 0; from < chunk.length; from += PIECE) {
      const piece = chunk.subarray(from, from + PIECE);
      hash.update(piece);
      for (let at = 0; at < piece.length;) at += await onDisk(file.write(piece.subarray(at)));
    }
  }

  /** Keeps several at once: they are synced side by side, and the folder once. Rejects with Refusal `unavailable` when one cannot be kept; the others may be. */
  async keepAll(uploads: readonly Upload[]): Promise<void> {
    for (const upload of uploads) upload.take();
    let failed: PromiseRejectedResult | undefined;
    for (let at = 0; at < uploads.length; at += AT_ONCE) {
      const kept = await Promise.allSettled(uploads.slice(at, at + AT_ONCE).map((upload) => this.#place(upload)));
      failed ??= kept.find((result) => result.status === "rejected");
    }
    if (failed) throw failed.reason;
    if (uploads.length > 0) await this.#syncFolder();
  }

  /** Under its name, once its content is on disk. */
  async #place({ path, hash, size }: Upload): Promise<void> {
    const target = this.path(hash);
    try {
      // It got that name when it was on disk: only the folder may still have to be synced, and is.
      const known = await this.disk.stat(target).catch(() => null);
      if (known?.size === size) return await this.discard(path);
      using file = await onDisk(this.disk.open(path, { write: true }));
      await onDisk(file.syncData());
      await onDisk(this.disk.rename(path, target));
    } catch (error) {
      await this.discard(path);
      throw error;
    }
  }

  /** For all who ask while one runs there is one more: that one covers what they have renamed. */
  #syncFolder(): Promise<void> {
    return this.#nextSync ??= this.#syncing.catch(() => {}).then(() => {
      this.#nextSync = null;
      return this.#syncing = onDisk(this.#syncNow());
    });
  }

  async #syncNow(): Promise<void> {
    using folder = await this.disk.open(this.#blobs);
    await folder.sync();
  }

  /**
   * Keeps files that a child wrote under `uploads/`: they are hashed here and moved. Rejects with TypeError for what is no
   * file there, with Refusal `payload_too_large` above `limit` bytes each, or `unavailable`; then none of them is left.
   */
  async adopt(paths: readonly string[], limit: number): Promise<{ hash: string; size: number }[]> {
    const uploads: Upload[] = [];
    const own = await Promise.all(paths.map((path) => this.#isOwn(path)));
    try {
      if (own.includes(false)) throw new TypeError(`Cannot adopt what is no file of uploads: ${paths[own.indexOf(false)]}`);
      for (const path of paths) uploads.push(await this.#take(path, limit));
      await this.keepAll(uploads);
      return uploads.map(({ hash, size }) => ({ hash, size }));
    } catch (error) {
      await Promise.all(uploads.map((upload) => upload.drop()));
      await Promise.all(paths.filter((_, index) => own[index]).map((path) => this.disk.remove(path).catch(() => {})));
      throw error;
    }
  }

  /** Neither a link nor by way of one, nor a pipe that would never end. */
  async #isOwn(path: string): Promise<boolean> {
    try {
      return path.startsWith(`${this.#uploads}/`) && await this.disk.realPath(path) === path && (await this.disk.lstat(path)).isFile;
    } catch {
      return false;
    }
  }

  async #take(path: string, limit: number): Promise<Upload> {
    const file = await onDisk(this.disk.open(path, { read: true, write: true }));
    try {
      const hash = createHash("sha256");
      const piece = new Uint8Array(PIECE);
      let size = 0;
      for (let read; (read = await onDisk(file.read(piece))) !== null;) {
        size += read;
        if (size > limit) throw tooLarge(limit);
        hash.update(piece.subarray(0, read));
      }
      await onDisk(this.disk.chmod(path, 0o600));
      return new Upload(this, path, hash.digest("hex"), size);
    } finally {
      file.close();
    }
  }

  /** Its bytes, or undefined when there is none, as for what is no hash. The stream closes the file when it is read or cancelled. */
  async open(hash: string): Promise<{ size: number; stream: ReadableStream<Uint8Array> } | undefined> {
    if (!HASH.test(hash)) return;
    try {
      const file = await this.disk.open(this.path(hash));
      return { size: (await file.stat()).size, stream: file.readable };
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      throw unavailable(error);
    }
  }

  /** Where the original of that hash is, or would be. Throws TypeError for what is no hash. */
  path(hash: string): string {
    if (!HASH.test(hash)) throw new TypeError(`Cannot name a file by what is no hash: ${hash.slice(0, 80)}`);
    return `${this.#blobs}/${hash}`;
  }

  /** A name for a folder under `uploads/` that nobody else has. */
  scratch(): string {
    return `${this.#uploads}/${randomUUID()}`;
  }

  /** Removes a file that came to nothing, or a scratch folder. Never rejects: what is left is swept at the next start. */
  async discard(path: string): Promise<void> {
    await this.disk.remove(path, { recursive: true }).catch(() => {});
  }
}

async function onDisk<T>(done: Promise<T>): Promise<T> {
  try {
    return await done;
  } catch (error) {
    throw unavailable(error);
  }
}

function unavailable(cause: unknown): Refusal {
  return Object.assign(new Refusal("unavailable", { message: "the disk cannot do it now; try again" }), { cause });
}

function tooLarge(limit: number): Refusal {
  return new Refusal("payload_too_large", { message: `more than ${limit} bytes`, limit });
}
