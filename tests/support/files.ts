/** Small files of each kind that documents come in, made here so that tests need no others. */
import { strToU8, zipSync } from "fflate";

export const bytesOf = (text: string): Uint8Array => new TextEncoder().encode(text);
export const latin1 = (text: string): Uint8Array => Uint8Array.from(text, (unit) => unit.charCodeAt(0));

/** A PDF with one page for each of the texts; "" is a page without text, as a scan has. */
export function pdf(texts: readonly string[], more: { readonly info?: string; readonly encrypted?: boolean } = {}): Uint8Array {
  const objects = ["<< /Type /Catalog /Pages 2 0 R >>", "", "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>", `<< ${more.info ?? ""} >>`];
  const kids = texts.map((text) => {
    const content = text ? `BT /F1 12 Tf 72 700 Td (${text}) Tj ET` : "";
    objects.push(`<< /Length ${content.length} >>\nstream\n${content}\nendstream`);
    objects.push(`<< /Type /Page /Parent 2 0 R /MediaBox [0 0 612 792] /Contents ${objects.length} 0 R /Resources << /Font << /F1 3 0 R >> >> >>`);
    return `${objects.length} 0 R`;
  });
  objects[1] = `<< /Type /Pages /Kids [${kids.join(" ")}] /Count ${kids.length} >>`;
  let file = "%PDF-1.4\n";
  const offsets = objects.map((object, index) => {
    const offset = file.length;
    file += `${index + 1} 0 obj\n${object}\nendobj\n`;
    return offset;
  });
  const key = "0123456789abcdef0123456789abcdef";
  const encrypt = more.encrypted ? `/Encrypt << /Filter /Standard /V 1 /R 2 /O (${key}) /U (${key}) /P -4 >> /ID [<00> <00>]` : "";
  const table = offsets.map((offset) => `${String(offset).padStart(10, "0")} 00000 n \n`).join("");
  const trailer = `trailer\n<< /Size ${objects.length + 1} /Root 1 0 R /Info 4 0 R ${encrypt} >>\nstartxref\n${file.length}\n%%EOF\n`;
  return latin1(`${file}xref\n0 ${objects.length + 1}\n0000000000 65535 f \n${table}${trailer}`);
}

/** A Word document of such a body, and other parts by name. */
export function docx(body: string, parts: Readonly<Record<string, string>> = {}): Uint8Array {
  const wrap = (inner: string) => strToU8(`<?xml version="1.0"?><w:root xmlns:w="w">${inner}</w:root>`);
  const others = Object.entries(parts).map(([name, inner]) => [name, wrap(inner)]);
  return zipSync({ "word/document.xml": wrap(body), ...Object.fromEntries(others) });
}

/** What stands in a compound file: streams have bytes, storages have others in them. */
export interface Storage {
  readonly [name: string]: Uint8Array | Storage;
}

/** Streams that fill less than one would need sectors of another kind. */
export const SECTOR = 4096;

/** A compound file (OLE): its header, its table, its directory, its streams, which are filled up with zeroes. */
export function compound(root: Storage): Uint8Array {
  const entries: { name: string; type: number; child: number; right: number; bytes?: Uint8Array; start: number }[] = [];
  const add = (name: string, type: number, inner: Uint8Array | Storage): number => {
    const index = entries.push({ name, type, child: -1, right: -1, start: 0 }) - 1;
    if (inner instanceof Uint8Array) {
      entries[index].bytes = new Uint8Array(Math.max(1, Math.ceil(inner.length / SECTOR)) * SECTOR);
      entries[index].bytes.set(inner);
    } else {
      const children = Object.entries(inner).map(([name, one]) => add(name, one instanceof Uint8Array ? 2 : 1, one));
      entries[index].child = children[0] ?? -1;
      children.forEach((child, at) => entries[child].right = children[at + 1] ?? -1);
    }
    return index;
  };
  add("Root Entry", 5, root);
  const directory = Math.ceil(entries.length * 128 / SECTOR);
  // Sector 0 is the table, then comes the directory.
  const next: number[] = [-3, ...chain(1, directory)];
  for (const entry of entries) {
    entry.start = entry.bytes ? next.length : -2;
    if (entry.bytes) next.push(...chain(next.length, entry.bytes.length / SECTOR));
  }
  if (next.length > SECTOR / 4) throw new TypeError("Cannot make a compound file of more than one table");
  const file = new Uint8Array((next.length + 1) * SECTOR);
  const view = new DataView(file.buffer);
  file.set([0xd0, 0xcf, 0x11, 0xe0, 0xa1, 0xb1, 0x1a, 0xe1]);
  view.setUint16(0x1a, 3, true);
  view.setUint16(0x1e, 12, true);
  for (const [at, value] of [[0x2c, 1], [0x30, 1], [0x3c, -2], [0x44, -2], [0x4c, 0]]) view.setInt32(at, value, true);
  for (let index = 0; index < SECTOR / 4; index++) view.setInt32(SECTOR + 4 * index, next[index] ?? -1, true);
  entries.forEach(({ name, type, child, right, bytes, start }, index) => {
    const at = 2 * SECTOR + 128 * index;
    [...name].forEach((unit, position) => view.setUint16(at + 2 * position, unit.charCodeAt(0), true));
    view.setUint16(at + 0x40, 2 * name.length + 2, true);
    view.setUint8(at + 0x42, type);
    for (const [offset, value] of [[0x44, -1], [0x48, right], [0x4c, child], [0x74, start], [0x78, bytes?.length ?? 0]]) {
      view.setInt32(at + offset, value, true);
    }
    if (bytes) file.set(bytes, (start + 1) * SECTOR);
  });
  return file;
}

function chain(start: number, length: number): number[] {
  return Array.from({ length }, (_, index) => index === length - 1 ? -2 : start + index + 1);
}

const wide = (text: string) => new Uint8Array(Uint16Array.from(text, (unit) => unit.charCodeAt(0)).buffer);

/** Outlook's mail: `properties` are strings by their tags, such as 0037 for the subject. */
export function msg(properties: Readonly<Record<string, string>>, more: Storage = {}): Storage {
  const streams = Object.entries(properties).map(([tag, text]) => [`__substg1.0_${tag}001F`, wide(text)]);
  return { "__properties_version1.0": new Uint8Array(64), ...Object.fromEntries(streams), ...more };
}

/** Properties of fixed length, as a recipient or an attachment has them: tag and value. */
export function fixed(...properties: readonly (readonly [number, number])[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(8 + 16 * properties.length));
  properties.forEach(([tag, value], index) => {
    view.setUint32(8 + 16 * index, tag, true);
    view.setUint32(16 + 16 * index, value, true);
  });
  return new Uint8Array(view.buffer);
}

/** A file in a mail. */
export interface Attached {
  readonly name: string;
  readonly type?: string;
  readonly bytes: Uint8Array;
}

/** A mail as it is sent: headers by name, a text, and what is attached to it. */
export function eml(headers: Readonly<Record<string, string>>, text: string, attached: readonly Attached[] = []): string {
  const head = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`).join("") + "MIME-Version: 1.0\r\n";
  const plain = `Content-Type: text/plain; charset=utf-8\r\n\r\n${text}\r\n`;
  if (attached.length === 0) return head + plain;
  const parts = attached.map(({ name, type = "application/octet-stream", bytes }) =>
    `--part\r\nContent-Type: ${type}\r\nContent-Disposition: attachment; filename="${name}"\r\nContent-Transfer-Encoding: base64\r\n\r\n${base64(bytes)}\r\n`
  );
  return `${head}Content-Type: multipart/mixed; boundary=part\r\n\r\n--part\r\n${plain}${parts.join("")}--part--\r\n`;
}

/** Mails in one file, as mail programs export a folder. */
export function mbox(mails: readonly string[]): string {
  return mails.map((mail) => `From export Thu Aug 22 12:36:23 2002\n${mail.replaceAll("\r\n", "\n")}\n`).join("");
}

export function base64(bytes: Uint8Array): string {
  return btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join("")).replace(/.{76}/g, "$&\r\n");
}
