/**
 * The room `search/{user}`: one for each user, so that nobody hears what another one looks for. A search goes through its
 * cases one by one; each checks, in a turn of its own, what of it the asker may see now.
 */
import { searchChannel } from "../../protocol/channels/search.ts";
import type { EventPayload } from "../../protocol/contract.ts";
import { Refusal } from "../../protocol/reason.ts";
import { parseQuery } from "../documents/query.ts";
import type { User } from "../host.ts";
import type { Limits } from "../limits.ts";
import { behave, type Context, Later, type Outside, room, Stream } from "../room.ts";
import { may, mayEnter } from "../token.ts";
import type { CaseQuestion, DocumentShown, Labour, Searched } from "./messages.ts";

type Contract = typeof searchChannel;
type Ctx = Context<Contract>;
type Found = EventPayload<Contract, "result">["document"];
type Complete = EventPayload<Contract, "search:complete">;

/** How often a live search looks again, at most, in milliseconds. */
const LIVE_MS = 500;
/** So many results are told in one turn. */
const AT_ONCE = 20;

interface Asked {
  readonly query: string;
  readonly filters: { readonly case_ids?: readonly string[]; readonly date_range?: { readonly start?: string; readonly end?: string } };
  readonly live: boolean;
  readonly limit: number;
}

/** What comes of a search, bit by bit. */
type Bit = { readonly search_id: string; readonly case_id: string; readonly all: boolean; readonly documents: readonly Found[]; readonly before: number } | {
  readonly complete: Complete;
};

class Search {
  #told = 0;
  #total = 0;
  #isExact = true;
  readonly #seen = new Set<string>();
  readonly #incomplete: { case_id: string; reason: string }[] = [];
  /** How far the index of each case was when it was searched. */
  readonly #changes = new Map<string, number>();

  constructor(
    private readonly id: string,
    private readonly asked: Asked,
    private readonly user: User,
    private readonly limits: Limits,
  ) {}

  async *run(signal: AbortSignal, outside: Outside): AsyncGenerator<Bit> {
    const begun = outside.elapsed();
    const cases = await this.#cases(outside);
    for (const case_id of cases) yield* this.#one(case_id, signal, outside);
    const time = Math.round(outside.elapsed() - begun);
    const complete = { search_id: this.id, total_results: this.#total, total_is_exact: this.#isExact, search_time: time, search_time_ms: time };
    yield { complete: this.#incomplete.length > 0 ? { ...complete, incomplete: this.#incomplete } : complete };
    if (this.asked.live) yield* this.#goOn(cases, signal, outside);
  }

  async #cases(outside: Outside): Promise<readonly string[]> {
    const { case_ids } = this.asked.filters;
    if (case_ids) return [...new Set(case_ids)];
    if (this.user.cases !== "*") return this.user.cases;
    return await outside.rooms("case");
  }

  /** A case that cannot be searched does not hold up the others. */
  async *#one(case_id: string, signal: AbortSignal, outside: Outside): AsyncGenerator<Bit> {
    const { id: search_id, user, asked: { query, filters } } = this;
    const question: CaseQuestion = { ask: "search", user, search_id, query, filters };
    try {
      // The first time, the case writes down that it was searched.
      if (!this.#changes.has(case_id)) await outside.ask(`case/${case_id}`, question);
      yield* this.#look(case_id, signal, outside);
    } catch (error) {
      if (!(error instanceof Refusal) || signal.aborted) throw error;
      this.#isExact = false;
      this.#incomplete.push({ case_id, reason: error.reason });
    }
  }

  async *#look(case_id: string, signal: AbortSignal, outside: Outside): AsyncGenerator<Bit> {
    const { user, limits, asked: { query, filters, limit } } = this;
    const all = may(user, "privilege");
    const room = Math.max(0, limits.search_results - this.#told);
    const labour: Labour = {
      do: "search",
      case_id,
      query,
      all,
      dates: filters.date_range ?? {},
      limit: Math.max(1, Math.min(limit, room)),
      candidates: limits.search_candidates,
      deadline_ms: limits.search_ms,
      after: this.#changes.get(case_id),
    };
    const { results, total, exact, documents: indexed, change } = await outside.work<Searched>(labour, signal);
    const fresh = results.filter(({ id }) => !this.#seen.has(key(case_id, id)));
    const question: CaseQuestion = { ask: "found", user, ids: fresh.map(({ id }) => id), indexed };
    const known = new Map((await outside.ask<ReturnType<typeof shownOf>[]>(`case/${case_id}`, question)).map((document) => [document.id, document]));
    // How well a document fits depends on all that there are: whoever may not see all is told its place only.
    const found = fresh.filter(({ id }) => known.has(id)).map((hit, place) =>
      foundOf(case_id, all ? hit : { ...hit, score: 1 / (1 + place) }, known.get(hit.id)!)
    );
    this.#changes.set(case_id, change);
    // What an index counts may be hidden since: whoever may not see all is told of what he may see, and of nothing else.
    this.#total += all ? Math.max(total, found.length) : found.length;
    if (!(exact && (all || total <= results.length))) this.#isExact = false;
    for (let at = 0; at < Math.min(found.length, room); at += AT_ONCE) {
      const documents = found.slice(at, Math.min(at + AT_ONCE, room));
      const before = this.#told;
      this.#told += documents.length;
      for (const { id } of documents) this.#seen.add(key(case_id, id));
      yield { search_id: this.id, case_id, all, documents, before };
    }
  }

  /** Looks again whenever something was kept in one of the cases. */
  async *#goOn(cases: readonly string[], signal: AbortSignal, outside: Outside): AsyncGenerator<Bit> {
    const stirred = new Set<string>(cases);
    while (!signal.aborted) {
      const round = new AbortController();
      const either = AbortSignal.any([signal, round.signal]);
      const some = cases.map((case_id) => outside.stirred(`case/${case_id}`, either).then(() => void (round.signal.aborted || stirred.add(case_id))));
      for (const case_id of [...stirred]) {
        stirred.delete(case_id);
        yield* this.#one(case_id, signal, outside);
      }
      await Promise.race(some);
      await outside.pause(LIVE_MS, signal);
      round.abort();
    }
  }
}

const key = (case_id: string, id: string) => JSON.stringify([case_id, id]);

function shownOf(document: Pick<DocumentShown, "id" | "title" | "filename" | "content_type" | "author" | "date_created"> & { kind?: unknown }) {
  return document;
}

function foundOf(case_id: string, { id, score, snippets }: Searched["results"][number], document: ReturnType<typeof shownOf>): Found {
  const { title, filename, content_type, author, date_created, kind } = document;
  const metadata = { date: date_created, author, document_type: typeof kind === "string" ? kind : undefined };
  return { id, document_id: id, case_id, title: title ?? filename ?? id, filename, content_type, score, snippets: [...snippets], metadata };
}

function search(ctx: Ctx, asked: Asked & { readonly stream: boolean }) {
  parseQuery(asked.query);
  for (const case_id of asked.filters.case_ids ?? []) {
    if (!mayEnter(ctx.user, case_id)) throw new Refusal("forbidden", { message: "filters.case_ids: the token does not name this case" });
  }
  const { searches } = ctx.limits;
  if (ctx.started() >= searches) throw new Refusal("search_limit", { limit: searches });
  const search_id = ctx.newId("search");
  // What takes its time is a stream.
  const running = new Search(search_id, { ...asked, live: asked.live && asked.stream }, ctx.user, ctx.limits);
  if (!asked.stream) return new Later((signal, outside) => collect(running.run(signal, outside)), (ctx: Ctx, bits: Bit[]) => inOne(ctx, search_id, bits));
  ctx.start(search_id, new Stream((signal, outside) => running.run(signal, outside), tell, (ctx, refusal) => end(ctx, search_id, refusal)));
  return { search_id };
}

/** His rights may be other ones by now than when it was searched. */
function isFor(user: User, { case_id, all }: { readonly case_id: string; readonly all: boolean }): boolean {
  return mayEnter(user, case_id) && (!all || may(user, "privilege"));
}

function tell(ctx: Ctx, bit: Bit): void {
  if ("complete" in bit) return ctx.push("search:complete", bit.complete);
  if (!isFor(ctx.user, bit)) throw new Refusal("forbidden");
  bit.documents.forEach((document, index) => ctx.push("result", { search_id: bit.search_id, document, total_so_far: bit.before + index + 1 }));
}

/** What went wrong ends it: nobody waits for ever. */
function end(ctx: Ctx, search_id: string, refusal: Refusal | null): void {
  if (!refusal) return;
  const incomplete = [{ case_id: "*", reason: refusal.reason }];
  ctx.push("search:complete", { search_id, total_results: 0, total_is_exact: false, search_time: 0, search_time_ms: 0, incomplete });
}

async function collect(bits: AsyncIterable<Bit>): Promise<Bit[]> {
  const collected: Bit[] = [];
  for await (const bit of bits) collected.push(bit);
  return collected;
}

function inOne(ctx: Ctx, search_id: string, bits: readonly Bit[]) {
  const results = bits.flatMap((bit) => "documents" in bit && isFor(ctx.user, bit) ? bit.documents : []);
  const complete = bits.find((bit) => "complete" in bit)!.complete;
  return { ...complete, search_id, results };
}

export const searchRoom = room("search/{user}", {
  migrations: [],
  topics: [
    behave(searchChannel, {
      // Whoever has a user may search; what he finds is for each case to say.
      admit() {},
      join: () => ({}),
      on: {
        search,
        cancel_search(ctx, { search_id }) {
          if (!ctx.stop(search_id)) throw new Refusal("not_found", { message: "search_id: there is no such search under way" });
        },
      },
    }),
  ],
});
