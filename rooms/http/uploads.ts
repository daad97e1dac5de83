/** How files come in: many at once as a form, or one for a ticket. They go to disk as they come, and are in the case all together or not at all. */
import { Busboy, type BusboyFileStream, type BusboyInstance } from "@fastify/busboy";
import { type Context, Hono } from "hono";
import { Metadata } from "../../protocol/channels/case.ts";
import { WORKFLOWS } from "../../protocol/channels/processing.ts";
import { check } from "../../protocol/contract.ts";
import { Refusal } from "../../protocol/reason.ts";
import type { CaseQuestion, Kept, Uploaded, Workflow } from "../channels/messages.ts";
import type { Gateway } from "../gateway.ts";
import type { Blobs, Upload, User } from "../host.ts";
import type { Limits } from "../limits.ts";
import type { Registry } from "../registry.ts";
import type { Verify } from "../token.ts";
import { bearer, checkName, nameIn, pathPart } from "./bearer.ts";
import type { HostBindings } from "./upgrade.ts";

export interface DocumentRoutes {
  readonly registry: Registry;
  readonly gateway: Gateway;
  readonly verify: Verify;
  readonly limits: Limits;
  readonly blobs: Blobs;
}

type Env = { Bindings: HostBindings };

/** Text fields of a form: how many, and the bytes of one. */
const [FIELDS, FIELD_BYTES] = [20, 32_768];

/**
 * `POST /api/cases/:id/documents`: a multipart form. Each file is a document; the field `metadata` (JSON) holds for all of
 * them, `workflow` says what is done with them. → 201 `{upload_id, documents, processing_job_id}`.
 *
 * `PUT /api/uploads/:ticket`: the content of one file that `add:document` announced, by the same user. → the same.
 */
export function uploads({ registry, gateway, verify, limits, blobs }: DocumentRoutes): Hono<Env> {
  const app = new Hono<Env>();

  /** Who sends, once nothing speaks against it. Nothing is read of a body before that. */
  async function sender(c: Context<Env>): Promise<User> {
    if (gateway.draining) throw new Refusal("draining");
    const user = await bearer(c.req.header("authorization"), verify);
    gateway.spend(user, "requests");
    return user;
  }

  const ask = <T>(user: User, caseId: string, question: CaseQuestion) => registry.ask<T>(`case/${caseId}`, question, user);

  app.post("/api/cases/:id/documents", async (c) => {
    const user = await sender(c);
    const caseId = nameIn(c.req.url, 3, "case", limits);
    await ask(user, caseId, { ask: "upload", user });
    c.env.allow?.(limits.upload_ms);
    const { files, metadata, workflow } = await readForm(c.req.raw, blobs, limits);
    const received = files.map(({ upload }) => upload);
    try {
      await blobs.keepAll(received);
      const kept: Kept[] = files.map(({ filename, content_type, upload: { hash, size } }) => ({ filename, content_type, size, hash, metadata }));
      return c.json(await ask<Uploaded>(user, caseId, { ask: "register", user, files: kept, workflow }), 201);
    } finally {
      await dropAll(received);
    }
  });

  app.put("/api/uploads/:ticket", async (c) => {
    const user = await sender(c);
    const name = pathPart(c.req.url, 3) ?? "";
    const dot = name.lastIndexOf(".");
    const [caseId, ticket] = [checkName(name.slice(0, Math.max(0, dot)), "case", limits), name.slice(dot + 1)];
    const described = await ask<Omit<Kept, "size" | "hash">>(user, caseId, { ask: "ticket", user, ticket });
    c.env.allow?.(limits.upload_ms);
    const upload = await blobs.receive(c.req.raw.body ?? [] as unknown as ReadableStream<Uint8Array>, limits.upload_bytes);
    try {
      // A form has a last line; of this, nothing but the host knows where it ends.
      if (c.env.whole?.() === false) throw new Refusal("invalid_payload", { message: "the content is cut off" });
      await blobs.keepAll([upload]);
      const { hash, size } = upload;
      return c.json(await ask<Uploaded>(user, caseId, { ask: "register", user, files: [{ ...described, size, hash }], workflow: "processing", ticket }), 201);
    } finally {
      await upload.drop();
    }
  });
  return app;
}

interface Received {
  readonly filename: string;
  readonly content_type: string;
  readonly upload: Upload;
}

async function dropAll(uploads: readonly Upload[]): Promise<void> {
  await Promise.all(uploads.map((upload) => upload.drop()));
}

/** Reads a multipart form to its end, its files to disk. When anything is wrong with it, nothing of it is left. Throws Refusal. */
async function readForm(request: Request, blobs: Blobs, limits: Limits) {
  const fields = new Map<string, string>();
  const arriving: Promise<Received>[] = [];
  try {
    await parse(request, limits, {
      field: (name, value) => void fields.set(name, value),
      file(stream, filename, content_type) {
        const received = blobs.receive(stream, limits.upload_bytes).then((upload) => ({ filename, content_type, upload }));
        arriving.push(received);
        return received;
      },
    });
    const files = await Promise.all(arriving);
    if (files.length === 0) throw new Refusal("invalid_payload", { message: "the form has no file" });
    return { files, ...described(fields) };
  } catch (error) {
    const came = await Promise.allSettled(arriving);
    await dropAll(came.flatMap((one) => one.status === "fulfilled" ? [one.value.upload] : []));
    // Whoever reads a file no further breaks its stream: that is heard before his reason is.
    const refused = came.find((one) => one.status === "rejected" && one.reason instanceof Refusal);
    throw refused?.status === "rejected" ? refused.reason : error;
  }
}

function described(fields: ReadonlyMap<string, string>): { metadata: Kept["metadata"]; workflow: Workflow } {
  const said = fields.get("workflow") ?? "processing";
  const workflow = WORKFLOWS.find((name) => name === said);
  if (!workflow) throw new Refusal("invalid_payload", { message: `workflow: it is none of ${WORKFLOWS.join(", ")}` });
  let metadata: unknown;
  try {
    metadata = JSON.parse(fields.get("metadata") ?? "{}");
  } catch {
    throw new Refusal("invalid_payload", { message: "metadata: it is no JSON" });
  }
  return { metadata: check(Metadata, metadata), workflow };
}

interface Parts {
  field(name: string, value: string): void;
  file(stream: BusboyFileStream, filename: string, type: string): Promise<unknown>;
}

/** Hands the parts of a form out as they come, no faster than they are taken. */
async function parse(request: Request, limits: Limits, parts: Parts): Promise<void> {
  const type = request.headers.get("content-type") ?? "";
  if (!/^multipart\/form-data\s*;/i.test(type) || !request.body) throw new Refusal("invalid_payload", { message: "the body is no multipart/form-data" });
  const open = new Set<BusboyFileStream>();
  const { promise: over, resolve, reject } = Promise.withResolvers<void>();
  let failed = false;
  over.catch(() => {});
  const fail = (error: unknown) => {
    failed = true;
    // Whoever reads one of them waits no longer.
    for (const stream of open) stream.destroy(new Error("the form has ended"));
    reject(error instanceof Refusal ? error : new Refusal("invalid_payload", { message: "the form is broken or cut off" }));
  };
  const tooMany = (limit: number, message: string) => () => fail(new Refusal("payload_too_large", { limit, message }));
  let form: BusboyInstance;
  try {
    form = new Busboy({ headers: { "content-type": type }, limits: { files: limits.upload_files, fields: FIELDS, fieldSize: FIELD_BYTES } });
  } catch {
    throw new Refusal("invalid_payload", { message: "the form has no boundary" });
  }
  form.on("file", (_field, stream, filename, _encoding, type) => {
    open.add(stream);
    stream.on("error", fail).on("close", () => open.delete(stream));
    parts.file(stream, filename, type).catch(fail);
  });
  form.on("field", (name, value, _nameCut, cut) => cut ? tooMany(FIELD_BYTES, `${name}: bytes of one field`)() : parts.field(name, value));
  form.on("filesLimit", tooMany(limits.upload_files, "files of one upload")).on("fieldsLimit", tooMany(FIELDS, "fields of one upload"));
  form.on("error", fail).on("finish", () => resolve());
  try {
    for await (const chunk of request.body) {
      if (failed) break;
      if (!form.write(chunk)) await Promise.race([over, new Promise<void>((go) => void form.once("drain", go))]);
    }
    form.end();
  } catch (error) {
    fail(error);
  }
  await over;
}
