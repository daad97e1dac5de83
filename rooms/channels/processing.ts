/**
 * The room `job/{jobId}`: what is to be read, what has been, and how far that is. A document's result is kept in one turn
 * with the end of its task, so that none is done twice, whenever the process dies.
 */
import { EXCEPTIONS, type Operation, OPERATIONS, processingChannel } from "../../protocol/channels/processing.ts";
import type { EventPayload } from "../../protocol/contract.ts";
import { Refusal } from "../../protocol/reason.ts";
import type { User } from "../host.ts";
import { behave, type Context, room, type RoomContext } from "../room.ts";
import { may, mayEnter } from "../token.ts";
import type { CaseCall, CaseQuestion, JobCall, JobDocument, Labour, Processed, Trouble, Workflow } from "./messages.ts";
import { PATIENCE_MS } from "./registered.ts";

const JOB = `create table job_state (room text not null primary key, case_id text not null, name text not null, user text not null,
     started integer not null, ended integer, waits integer not null default 0) strict, without rowid;
   create table job_count (room text not null, view text not null, total integer not null default 0, completed integer not null default 0,
     failed integer not null default 0, percentage integer not null default 0, primary key (room, view)) strict, without rowid;
   create table job_document (room text not null, id text not null, body text not null, status text not null, visible integer not null,
     results text, trouble text, primary key (room, id)) strict;
   create index job_document_status on job_document (room, status)`;

/** So many documents of one job are handed out at once. */
const WINDOW = 64;
/** So many files that were found in a document are told to its case in one turn: an archive may have 100,000. */
const TOLD_AT_ONCE = 100;
/** So many of its exceptions are told with its state. */
const LISTED = 100;

type Contract = typeof processingChannel;
type Progress = EventPayload<Contract, "progress">;
type Exception = EventPayload<Contract, "error">;

interface Job {
  readonly case_id: string;
  readonly name: Workflow;
  readonly user: string;
  readonly started: number;
  readonly ended: number | undefined;
  /** How many documents have others in them of which the case has not said yet what they are. */
  readonly waits: number;
}

/**
 * What somebody may know of a job. `all`: of every document. `visible`: of those that he may see, and of no other. `own`:
 * who began it, and may not see what is privileged, knows besides how many files he sent, and how many are done with.
 */
const VIEWS = ["all", "own", "visible"] as const;
type View = (typeof VIEWS)[number];

interface Counts {
  readonly total: number;
  readonly completed: number;
  readonly failed: number;
  readonly percentage: number;
}

function jobOf(ctx: RoomContext): Job | undefined {
  const row = ctx.sql`select case_id, name, user, started, ended, waits from job_state where room = ${ctx.room}`[0];
  return row && {
    case_id: String(row.case_id),
    name: String(row.name) as Workflow,
    user: String(row.user),
    started: Number(row.started),
    ended: row.ended === null ? undefined : Number(row.ended),
    waits: Number(row.waits),
  };
}

function viewOf(job: Job, user: User): View {
  return may(user, "privilege") ? "all" : job.user === user.id ? "own" : "visible";
}

function operationsOf(name: Workflow): readonly Operation[] {
  return name === "processing" ? OPERATIONS : [name];
}

function countsOf(ctx: RoomContext, view: View): Counts {
  const row = ctx.sql`select total, completed, failed, percentage from job_count where room = ${ctx.room} and view = ${view}`[0];
  return { total: Number(row.total), completed: Number(row.completed), failed: Number(row.failed), percentage: Number(row.percentage) };
}

/** Counts so many documents more for a view, in all and of those that are done with. The bar never turns, though a job grows with what is found. */
function count(ctx: RoomContext, view: View, more: { total?: number; completed?: number; failed?: number }): void {
  const { total = 0, completed = 0, failed = 0 } = more;
  ctx
    .sql`update job_count set total = total + ${total}, completed = completed + ${completed}, failed = failed + ${failed} where room = ${ctx.room} and view = ${view}`;
  // What is not over is never told to be.
  ctx.sql`update job_count set percentage = max(percentage, min(99, 100 * (completed + failed) / max(total, 1))) where room = ${ctx.room} and view = ${view}`;
}

function progressOf(ctx: RoomContext, job: Job, view: View, operation?: string): Progress {
  const { total, completed, failed, percentage } = countsOf(ctx, view);
  const done = completed + failed;
  const isOver = job.ended !== undefined;
  const left = done === 0 || isOver ? null : (ctx.now() - job.started) / done * (total - done);
  return {
    job_id: ctx.id,
    percentage: isOver ? 100 : percentage,
    current_operation: isOver ? "completed" : operation ?? operationsOf(job.name)[0],
    completed,
    failed,
    total,
    estimated_completion: left === null ? null : new Date(Math.min(ctx.now() + left, 8.64e15)).toISOString(),
  };
}

/** `about`: the document that it is about. That a hidden one goes on is not to be counted by whoever may not see it. */
function tellProgress(ctx: RoomContext, job: Job, about?: { readonly own: boolean; readonly visible: boolean }, operation?: string): void {
  const views = new Map<View, Progress>();
  ctx.tell(processingChannel, "progress", (user) => {
    const view = viewOf(job, user);
    if (about && !(view === "all" || about.visible || (view === "own" && about.own))) return undefined;
    if (!views.has(view)) views.set(view, progressOf(ctx, job, view, operation));
    return views.get(view);
  });
}

/** The first of those that could not be read, as far as they may be seen. */
function exceptionsOf(ctx: RoomContext, view: View): Exception[] {
  const least = view === "all" ? 0 : 1;
  const rows = ctx
    .sql`select id, body, trouble from job_document where room = ${ctx.room} and status = 'failed' and visible >= ${least} order by rowid limit ${LISTED}`;
  return rows.map(({ id, body, trouble }) => exceptionOf(String(id), JSON.parse(String(body)).filename, JSON.parse(String(trouble))));
}

function exceptionOf(document_id: string, filename: string, { code, error }: Trouble): Exception {
  return { document_id, filename, code, error: error || EXCEPTIONS[code] };
}

function summaryOf(ctx: RoomContext, { started, ended }: Job, view: View): EventPayload<Contract, "job:completed">["summary"] {
  const { total, completed, failed } = countsOf(ctx, view);
  return { total_documents: total, completed, failed, duration_ms: (ended ?? ctx.now()) - started, errors: exceptionsOf(ctx, view) };
}

function take(ctx: RoomContext, documents: readonly JobDocument[]): void {
  const taken = documents.filter((document) => {
    const { id, visible } = document;
    return ctx.sql`insert into job_document (room, id, body, status, visible)
      values (${ctx.room}, ${id}, ${JSON.stringify(document)}, 'pending', ${visible ? 1 : 0})
      on conflict (room, id) do nothing returning id`.length > 0;
  });
  count(ctx, "all", { total: taken.filter(({ phantom }) => !phantom).length });
  count(ctx, "own", { total: taken.filter(({ own }) => own).length });
  count(ctx, "visible", { total: taken.filter(({ visible }) => visible).length });
}

/** Hands out what waits, as far as there is room for it; a job with nothing left ends. */
function goOn(ctx: RoomContext): void {
  const job = jobOf(ctx)!;
  const [{ busy }] = ctx.sql`select count(*) as busy from job_document where room = ${ctx.room} and status = 'working'`;
  const next = ctx.sql`select id, body from job_document where room = ${ctx.room} and status = 'pending' order by rowid limit ${
    Math.max(0, WINDOW - Number(busy))
  }`;
  for (const { id, body } of next) {
    ctx.sql`update job_document set status = 'working' where room = ${ctx.room} and id = ${id}`;
    const labour: Labour = { do: "process", case_id: job.case_id, document: JSON.parse(String(body)), operations: operationsOf(job.name) };
    ctx.work(labour);
  }
  if (job.ended !== undefined || job.waits > 0 || Number(busy) + next.length > 0) return;
  const [{ read }] = ctx.sql`select count(*) as read from job_document where room = ${ctx.room} and status = 'read'`;
  if (Number(read) === 0) end(ctx, job);
}

function end(ctx: RoomContext, running: Job): void {
  const job = { ...running, ended: ctx.now() };
  ctx.sql`update job_state set ended = ${job.ended} where room = ${ctx.room}`;
  tellProgress(ctx, job);
  ctx.tell(processingChannel, "job:completed", (user) => ({ job_id: ctx.id, summary: summaryOf(ctx, job, viewOf(job, user)) }));
  const message: CaseCall = { tell: "ended", job_id: ctx.id, name: job.name, duration_ms: job.ended - job.started };
  ctx.call(`case/${job.case_id}`, message);
}

function hear(ctx: RoomContext, message: JobCall): void {
  switch (message.tell) {
    case "begin": {
      const { case_id, name, user_id, documents } = message;
      ctx.sql`insert into job_state (room, case_id, name, user, started) values (${ctx.room}, ${case_id}, ${name}, ${user_id}, ${ctx.now()})`;
      for (const view of VIEWS) ctx.sql`insert into job_count (room, view) values (${ctx.room}, ${view})`;
      take(ctx, documents);
      ctx.admitAgain();
      return goOn(ctx);
    }
    case "more":
      ctx.sql`update job_state set waits = waits - 1 where room = ${ctx.room}`;
      take(ctx, message.documents);
      return goOn(ctx);
    case "visible": {
      const { document_id, visible } = message;
      const row =
        ctx.sql`update job_document set visible = ${visible ? 1 : 0} where room = ${ctx.room} and id = ${document_id} and visible <> ${visible ? 1 : 0}
        returning status`[0];
      if (!row) return;
      const by = visible ? 1 : -1;
      count(ctx, "visible", { total: by, completed: row.status === "completed" ? by : 0, failed: row.status === "failed" ? by : 0 });
      return;
    }
    case "done":
      return done(ctx, message.document_id);
  }
}

/** A document has been read, in whatever way: its case hears of it first, which knows who may see it. */
function worked(ctx: RoomContext, { document: { id, phantom } }: Extract<Labour, { do: "process" }>, result: Processed | { readonly failed: string }): void {
  if (phantom) return forget(ctx, id);
  const { facts, results, trouble, inner = [] }: Processed = "failed" in result ? { trouble: { code: "failed", error: EXCEPTIONS.failed } } : result;
  const job = jobOf(ctx)!;
  const [said, why] = [JSON.stringify(results ?? {}), trouble ? JSON.stringify(trouble) : null];
  ctx.sql`update job_document set status = 'read', results = ${said}, trouble = ${why} where room = ${ctx.room} and id = ${id}`;
  const [attached, members] = [inner.filter(({ kind }) => kind === "attachment"), inner.filter(({ kind }) => kind === "member")];
  const processed: CaseCall = { tell: "processed", job_id: ctx.id, document_id: id, facts, results, trouble, inner: attached };
  ctx.call(`case/${job.case_id}`, processed);
  for (let at = 0; at < members.length; at += TOLD_AT_ONCE) {
    const found: CaseCall = { tell: "inner", job_id: ctx.id, document_id: id, files: members.slice(at, at + TOLD_AT_ONCE) };
    ctx.call(`case/${job.case_id}`, found);
  }
  const waits = Math.ceil(members.length / TOLD_AT_ONCE) + (attached.length > 0 ? 1 : 0);
  ctx.sql`update job_state set waits = waits + ${waits} where room = ${ctx.room}`;
  goOn(ctx);
}

/** What was read for nothing is done with. */
function forget(ctx: RoomContext, id: string): void {
  ctx.sql`update job_document set status = 'completed' where room = ${ctx.room} and id = ${id}`;
  count(ctx, "own", { completed: 1 });
  tellProgress(ctx, jobOf(ctx)!);
  goOn(ctx);
}

/** The case has taken what was read: whoever may see the document hears of it. */
function done(ctx: RoomContext, id: string): void {
  const job = jobOf(ctx)!;
  const [row] = ctx.sql`select body, results, trouble, visible from job_document where room = ${ctx.room} and id = ${id}`;
  const { filename, own }: JobDocument = JSON.parse(String(row.body));
  const trouble: Trouble | null = row.trouble === null ? null : JSON.parse(String(row.trouble));
  ctx.sql`update job_document set status = ${trouble ? "failed" : "completed"}, results = ${null} where room = ${ctx.room} and id = ${id}`;
  const more = trouble ? { failed: 1 } : { completed: 1 };
  count(ctx, "all", more);
  // Whether a file of his could be read is for those to know who may see it.
  if (own) count(ctx, "own", { completed: 1 });
  if (row.visible === 1) count(ctx, "visible", more);
  const sees = (user: User) => row.visible === 1 || may(user, "privilege");
  const results = JSON.parse(String(row.results));
  if (trouble) ctx.tell(processingChannel, "error", (user) => sees(user) ? exceptionOf(id, filename, trouble) : undefined);
  else ctx.tell(processingChannel, "document:completed", (user) => sees(user) ? { document_id: id, results } : undefined);
  tellProgress(ctx, job, { own, visible: row.visible === 1 });
  goOn(ctx);
}

/** Whoever may not see a job's case finds no such job. */
function admitted(ctx: Context<Contract>): Job {
  const job = jobOf(ctx);
  if (!job || !mayEnter(ctx.user, job.case_id)) throw new Refusal("not_found", {}, { ofAuthority: true });
  return job;
}

const processing = behave(processingChannel, {
  admit: (ctx) => void admitted(ctx),
  patienceMs: PATIENCE_MS,
  join(ctx) {
    const job = admitted(ctx);
    const view = viewOf(job, ctx.user);
    return {
      ...progressOf(ctx, job, view),
      case_id: job.case_id,
      name: job.name,
      status: job.ended === undefined ? "running" as const : "completed" as const,
      started_at: new Date(job.started).toISOString(),
      exceptions: exceptionsOf(ctx, view),
      ...(job.ended !== undefined && { summary: summaryOf(ctx, job, view) }),
    };
  },
  on: {
    retry_exceptions(ctx, { document_ids }) {
      ctx.require("upload");
      const job = admitted(ctx);
      const least = may(ctx.user, "privilege") ? 0 : 1;
      const rows = ctx.sql`select id from job_document where room = ${ctx.room} and status = 'failed' and visible >= ${least} order by rowid limit 1000`;
      const failed = rows.map(({ id }) => String(id)).filter((id) => document_ids?.includes(id) ?? true);
      if (failed.length === 0) throw new Refusal("not_found", { message: "document_ids: there is none that could not be read" });
      const question: CaseQuestion = { ask: "workflow", user: ctx.user, name: job.name, document_ids: failed };
      return ctx.ask(`case/${job.case_id}`, question, (_ctx, processing_job_id: string) => ({ processing_job_id, document_ids: failed }));
    },
  },
});

export const jobRoom = room("job/{jobId}", {
  migrations: [JOB],
  topics: [processing],
  called: hear,
  worked,
  noted(ctx, { document: { id, own } }: Extract<Labour, { do: "process" }>, { operation }: { operation: Operation }) {
    const job = jobOf(ctx);
    if (!job || job.ended !== undefined) return;
    const [row] = ctx.sql`select visible from job_document where room = ${ctx.room} and id = ${id}`;
    tellProgress(ctx, job, { own, visible: row?.visible === 1 }, operation);
  },
});
