/**
 * Mails as a case has them: any process makes the same one of the same number. Words follow Zipf's law, lengths are
 * log-normal; with `CORPUS`, a folder of .eml files, every third is a real one, marked so that no two are the same.
 */
import { random } from "../support/random.ts";

const COMMON =
  `the of and to a in for is on that by this with you it not or be are from at as your all have new more an was we will can us about if my has but our one other do no information time they up what which their out use any there see only so his when here who also now help get through been would how were me services some these its like than find back people had state just over year day into two agreement contract counsel breach privilege review document produce custodian discovery motion court filing deposition settlement invoice payment account delivery warranty liability termination notice clause schedule exhibit draft comment meeting call board audit finance merger license patent trade secret price quarter forecast budget supplier customer shipment plant engineer design defect recall safety report memo draft urgent confidential attorney client advice legal regulator compliance policy training employee dismissal bonus pension insurance claim damage loss interest arbitration tribunal witness statement affidavit subpoena archive retention backup server laptop mailbox attachment folder`
    .split(/\s+/);
const [FIRST, MIDDLE, LAST] = [
  "ab ac ad al an ar ba be bo bra ca ce co cra da de di do dra e fa fe fo ga ge gra ha he ho in ja jo ka ke la le lo ma me mo na ne no or pa pe po pra qua ra re ro sa se so sta ta te to tra un va ve vo wa we wo za"
    .split(" "),
  "bel bin cal con dar den fel for gal gen hal lan len lim man men mil nal nor pal pen ral ren sal sen tal ten ter tin val ver vin".split(" "),
  "able age al ance ant ary ate ed er ery ful ian ic ing ion ish ist ity ive ize less ly ment ness or ous ship ster ty ure ward".split(" "),
];
const NAMES = "smith jones garcia chen patel mueller kim nguyen brown silva rossi novak haddad larsen okafor dubois ivanov tanaka costa walker".split(" ");

/** The word of each rank, the most frequent first. */
export const WORDS: readonly string[] = [
  ...new Set([...COMMON, ...FIRST.flatMap((first) => MIDDLE.flatMap((middle) => LAST.map((last) => first + middle + last))).filter((_, at) => at % 3 === 0)]),
].slice(0, 20_000);

/** Drawn evenly, its entries follow Zipf's law. */
const DRAWN = (() => {
  const shares = WORDS.map((_, rank) => 1 / (rank + 2.7));
  const all = shares.reduce((sum, share) => sum + share);
  const drawn = new Uint16Array(1 << 20);
  let [at, upTo] = [0, 0];
  shares.forEach((share, rank) => {
    upTo += share / all * drawn.length;
    while (at < upTo && at < drawn.length) drawn[at++] = rank;
  });
  return drawn;
})();

export interface Mail {
  readonly from: string;
  readonly to: string;
  readonly subject: string;
  readonly date: Date;
  readonly text: string;
}

type Draw = ReturnType<typeof random>;

function words(draw: Draw, count: number): string {
  let said = "";
  for (let index = 0; index < count; index++) {
    if (index > 0) said += index % 12 === 0 ? "\r\n" : index % 17 === 0 ? ". " : " ";
    said += WORDS[DRAWN[draw(DRAWN.length)]];
  }
  return said;
}

/** About 2 to 4 KB, some of 20. */
export function mailOf(number: number): Mail {
  const draw = random(number * 2_654_435_761);
  const normal = Math.sqrt(-2 * Math.log((draw(1e6) + 1) / 1e6)) * Math.cos(2 * Math.PI * draw(1e6) / 1e6);
  const units = Math.min(20_000, 1800 * Math.exp(0.7 * normal));
  const person = () => `${NAMES[draw(NAMES.length)]}@${WORDS[150 + draw(40)]}.example`;
  return {
    from: person(),
    to: Array.from({ length: 1 + draw(4) }, person).join(", "),
    subject: `${draw(2) === 0 ? "Re: " : ""}${words(draw, 3 + draw(6))}`,
    date: new Date(Date.UTC(2001, 0, 1) + number * 60_000),
    text: words(draw, Math.max(10, Math.round(units / 6.5))),
  };
}

function rfc822(number: number): string {
  const { from, to, subject, date, text } = mailOf(number);
  const day = date.toUTCString().replace("GMT", "+0000");
  const hop = (by: string) =>
    `Received: from mx${number % 7}.example (mx${number % 7}.example [192.0.2.${number % 250}])\r\n\tby ${by}.example with ESMTP; ${day}\r\n`;
  const head = `Return-Path: <${from}>\r\n${hop("in")}${hop("out")}Date: ${day}\r\nFrom: ${from}\r\nTo: ${to}\r\nSubject: ${subject}\r\n` +
    `Message-ID: <${number}.bench@mail.example>\r\nX-Mailer: Bench 1.0\r\nMIME-Version: 1.0\r\n`;
  if (number % 4 !== 0) return `${head}Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n${text}\r\n`;
  const part = (type: string, body: string) => `--next-${number}\r\nContent-Type: ${type}; charset=utf-8\r\nContent-Transfer-Encoding: 7bit\r\n\r\n${body}\r\n`;
  const html = `<html><body><p>${text.replaceAll(". ", ".</p>\r\n<p>")}</p></body></html>`;
  return `${head}Content-Type: multipart/alternative; boundary="next-${number}"\r\n\r\n${part("text/plain", text)}${
    part("text/html", html)
  }--next-${number}--\r\n`;
}

const folder = Deno.env.get("CORPUS");
const real = folder
  ? [...Deno.readDirSync(folder)].filter(({ name }) => name.endsWith(".eml")).map(({ name }) => name).sort().map((name) =>
    Deno.readFileSync(`${folder}/${name}`)
  )
  : [];

/** The file of a mail. */
export function fileOf(number: number): Uint8Array<ArrayBuffer> {
  const mark = new TextEncoder().encode(`X-Bench: ${number}\r\n`);
  if (real.length === 0 || number % 3 !== 0) return new TextEncoder().encode(rfc822(number));
  const original = real[number / 3 % real.length];
  const file = new Uint8Array(mark.length + original.length);
  file.set(mark);
  file.set(original, mark.length);
  return file;
}
