/** What members say, on its way to the behaviour: checked by limits and contract, cleaned, one message or a batch of them. */
import type { ZodType } from "zod";
import { Batch, type Channel, check, CommonJoin, own, type PushSpec, Sealed } from "../protocol/contract.ts";
import { cleanFields } from "../protocol/html.ts";
import { Refusal } from "../protocol/reason.ts";
import type { User } from "./host.ts";
import { checkPayload, type Limits } from "./limits.ts";
import { type Behaviour, Later } from "./room.ts";
import type { Turn } from "./turn.ts";

/** A payload as it came. `size`: what it took on the wire. */
interface Said {
  readonly payload: unknown;
  readonly size: number;
}

/** A join's parameters: those that every channel takes, and the channel's own. Throws Refusal. */
export function takeJoin(contract: Channel, said: Said & { readonly user: User }, limits: Limits) {
  checkPayload(said.payload, limits, said.size);
  if (contract.loose) return { common: {}, own: said.payload };
  checkObject(said.payload);
  const common = check(CommonJoin, said.payload);
  // The token alone says who somebody is.
  if (common.user_id !== undefined && common.user_id !== said.user.id) throw new Refusal("user_mismatch");
  return { common, own: takePayload(contract.join.payload, said.payload, limits) };
}

/** Runs what a member pushed and returns the reply. Throws what went wrong. */
export function say(turn: Turn, { contract, behaviour }: { contract: Channel; behaviour: Behaviour }, event: string, said: Said, limits: Limits): unknown {
  const { payload } = said;
  if (event === "batch" && !contract.loose) {
    checkPayload(payload, limits, said.size);
    return sayAll(turn, { contract, behaviour }, payload, limits);
  }
  const spec = own<PushSpec>(contract.pushes, event);
  if (!spec) throw contract.loose ? new TypeError(`Cannot find a clause for ${event}`) : new Refusal("unknown_event");
  checkPayload(payload, limits, said.size);
  return behaviour.on[event](turn, contract.loose ? payload : takePush(spec, payload, limits));
}

/** All messages in their order, or none: the first one that is refused takes the turn with it. */
function sayAll(turn: Turn, { contract, behaviour }: { contract: Channel; behaviour: Behaviour }, payload: unknown, limits: Limits): unknown {
  const limit = limits.batch_messages;
  checkObject(payload);
  if (Object.hasOwn(payload, "encrypted")) throw new Refusal("encrypted_not_supported");
  const { messages } = check(Batch, payload);
  if (messages.length > limit) throw new Refusal("batch_rejected", { message: `a batch of ${messages.length} messages`, limit });
  const results = messages.map(({ event, payload }, index) => {
    try {
      const spec = own<PushSpec>(contract.pushes, event);
      if (event === "batch") throw new Refusal("invalid_payload", { message: "a batch in a batch" });
      if (!spec) throw new Refusal("unknown_event");
      const response = behaviour.on[event](turn, takePush(spec, payload, limits));
      if (response instanceof Later) throw new Refusal("invalid_payload", { message: `${event} takes its time: it cannot stand in a batch` });
      return { status: "ok", response: response ?? {} };
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      const detail = { message: `messages.${index}: ${error.message}`, index, refused: error.response() };
      throw new Refusal("batch_rejected", detail, { ofAuthority: error.ofAuthority });
    }
  });
  return { results };
}

function takePush(spec: PushSpec, payload: unknown, limits: Limits): unknown {
  if (payload instanceof Uint8Array) {
    if (!spec.binary) throw new Refusal("binary_not_supported");
    return payload;
  }
  checkObject(payload);
  if (Object.hasOwn(payload, "encrypted")) {
    if (!spec.encrypted) throw new Refusal("encrypted_not_supported");
    const { iv, data, ...more } = check(Sealed, payload).encrypted;
    // What the client says beside it (a key's id) is not encrypted, and read by others as it stands.
    cleanFields(more);
    return { encrypted: { iv, data, ...more } };
  }
  return takePayload(spec.payload, payload, limits);
}

function takePayload(schema: ZodType, payload: object, limits: Limits): unknown {
  // Signs that are escaped take more room than before.
  if (cleanFields(payload)) checkPayload(payload, limits);
  return check(schema, payload);
}

function checkObject(payload: unknown): asserts payload is object {
  if (payload instanceof Uint8Array) throw new Refusal("binary_not_supported");
  if (typeof payload !== "object" || payload === null || Array.isArray(payload)) throw new Refusal("invalid_frame", { message: "the payload is no object" });
}
