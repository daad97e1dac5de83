/** The privilege log of a case: every document that was ever called privileged, and how the call on it came about. */
import type { Privilege } from "../../protocol/channels/privilege.ts";
import type { User } from "../host.ts";
import type { RoomContext } from "../room.ts";
import { require } from "../token.ts";
import type { DocumentShown } from "./messages.ts";

/** A document of the log, with all calls on it, oldest first. */
export interface Withheld {
  readonly document: DocumentShown;
  readonly privilege: Privilege;
  readonly history: readonly Privilege[];
  /** What analysis named as its reasons. */
  readonly factors: readonly string[];
}

/** A page of it, in the order in which the documents came. `next`: where the next one begins, null at the end. */
export function privilegeLog(ctx: RoomContext, user: User, after: number, limit: number): { rows: Withheld[]; next: number | null } {
  require(user, "privilege");
  const rows = ctx
    .sql`select rowid as place, id, body, privilege, results from case_document where room = ${ctx.room} and rowid > ${after} and privilege is not null
    and exists (select version from case_privilege where room = ${ctx.room} and document = case_document.id and body ->> '$.is_privileged') order by rowid limit ${limit}`;
  const withheld = rows.map(({ id, body, privilege, results }) => ({
    document: JSON.parse(String(body)),
    privilege: JSON.parse(String(privilege)),
    factors: (JSON.parse(String(results ?? "{}")).privilege_analysis?.factors ?? []).map(({ factor }: { factor: string }) => factor),
    history: ctx.sql`select body from case_privilege where room = ${ctx.room} and document = ${id} order by version`.map((call) =>
      JSON.parse(String(call.body))
    ),
  }));
  return { rows: withheld, next: rows.length < limit ? null : Number(rows.at(-1)!.place) };
}
