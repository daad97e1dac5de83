/** Who is there: the same on every channel that shows it. */
import type { Channel } from "../../protocol/contract.ts";
import type { Activity, Meta } from "../../protocol/channels/common.ts";
import type { z } from "zod";
import type { User } from "../host.ts";
import type { Context } from "../room.ts";

/** What others are told of a user. */
export const shown = ({ id, name, role }: User) => ({ id, name, role });

type Shows = Channel & { presence: typeof Meta };

/** The joiner is shown under his own name, whatever he says. */
export function appear<C extends Shows>(ctx: Context<C>): void {
  const meta: z.input<typeof Meta> = { name: ctx.user.name, status: "online", activity: "", location: "", online_at: new Date(ctx.now()).toISOString() };
  (ctx as Context<Shows>).presence.track(meta);
}

/** `presence:update`: merges into what he shows. */
export function updatePresence<C extends Shows>(ctx: Context<C>, change: z.output<typeof Activity>): void {
  if (Object.keys(change).length > 0) (ctx as Context<Shows>).presence.update(change);
}
