/** Members of a ZIP archive, inflated piece by piece under one budget for all of them: what a bomb declares is not believed. */
import { Inflate } from "fflate";
import { Exception } from "./extracted.ts";

export interface Member {
  readonly name: string;
  /** As declared. */
  readonly size: number;
  readonly compressed: number;
  readonly method: number;
  readonly encrypted: boolean;
  /** Of its own header. */
  readonly offset: number;
}

/** Bytes that may still be inflated. */
export interface Budget {
  left: number;
}

const END = 0x06054b50;
const CENTRAL = 0x02014b50;
const LOCAL = 0x04034b50;
/** Deflate makes a thousandfold of its input at most, so this bounds what one step makes. */
const STEP = 16 * 1024;

/** By the central directory. Throws Exception `damaged`. */
export function membersOf(bytes: Uint8Array): Member[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const end = endOf(view);
  const members: Member[] = [];
  let at = view.getUint32(end + 16, true);
  for (let count = view.getUint16(end + 10, true); count > 0; count--) {
    if (at + 46 > end || view.getUint32(at, true) !== CENTRAL) throw new Exception("damaged", "The archive's directory is damaged");
    const length = view.getUint16(at + 28, true);
    members.push({
      name: new TextDecoder().decode(bytes.subarray(at + 46, at + 46 + length)),
      size: view.getUint32(at + 24, true),
      compressed: view.getUint32(at + 20, true),
      method: view.getUint16(at + 10, true),
      encrypted: (view.getUint16(at + 8, true) & 1) === 1,
      offset: view.getUint32(at + 42, true),
    });
    at += 46 + length + view.getUint16(at + 30, true) + view.getUint16(at + 32, true);
  }
  return members;
}

function endOf(view: DataView): number {
  // A comment of 65,535 bytes may follow it.
  for (let at = view.byteLength - 22; at >= 0 && at >= view.byteLength - 22 - 0xffff; at--) {
    if (view.getUint32(at, true) === END) return at;
  }
  throw new Exception("damaged", "The archive has no end: it is cut off");
}

/** Throws Exception `encrypted`, `damaged`, `unsupported` (another compression), or `too_large` when the budget is spent. */
export function* inflated(bytes: Uint8Array, member: Member, budget: Budget): Generator<Uint8Array> {
  if (member.encrypted) throw new Exception("encrypted", "The archive needs a password");
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (member.offset + 30 > bytes.length || view.getUint32(member.offset, true) !== LOCAL) throw new Exception("damaged", "A member of the archive is missing");
  const start = member.offset + 30 + view.getUint16(member.offset + 26, true) + view.getUint16(member.offset + 28, true);
  if (start + member.compressed > bytes.length) throw new Exception("damaged", "A member of the archive is cut off");
  const packed = bytes.subarray(start, start + member.compressed);
  if (member.method !== 0 && member.method !== 8) throw new Exception("unsupported", "The archive is compressed in an unusual way");
  for (const piece of member.method === 0 ? [packed] : inflate(packed)) {
    budget.left -= piece.length;
    if (budget.left < 0) throw new Exception("too_large", "The archive inflates to more than can be read");
    yield piece;
  }
}

function* inflate(packed: Uint8Array): Generator<Uint8Array> {
  let made: Uint8Array | undefined;
  const inflate = new Inflate((piece) => made = piece);
  for (let at = 0; at < packed.length; at += STEP) {
    made = undefined;
    try {
      inflate.push(packed.subarray(at, at + STEP), at + STEP >= packed.length);
    } catch {
      throw new Exception("damaged", "A member of the archive cannot be inflated");
    }
    if (made) yield made;
  }
}
