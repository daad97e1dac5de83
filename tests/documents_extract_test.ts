import { assert, assertEquals, assertRejects } from "@std/assert";
import { zipSync } from "fflate";
import { type Attachment, Exception, extract, type Extracted, MAX_TEXT } from "../rooms/documents/extract.ts";
import { bytesOf, compound, docx, fixed, latin1, msg, pdf, SECTOR, type Storage } from "./support/files.ts";

async function read(filename: string, file: string | Uint8Array, content_type = "") {
  const attached: Attachment[] = [];
  const extracted: Extracted = await extract({ bytes: typeof file === "string" ? bytesOf(file) : file, filename, content_type }, (one) => attached.push(one));
  return { ...extracted, attached };
}

/** "kind" of what was read, or the code of why not. */
async function outcome(filename: string, file: string | Uint8Array, content_type = ""): Promise<string> {
  try {
    return (await read(filename, file, content_type)).kind;
  } catch (error) {
    if (!(error instanceof Exception)) throw error;
    assert(error.message.length > 10);
    return error.code;
  }
}

const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);

const MAIL = `From: "Smith, Ann" <ann@example.com>
To: Bo <bo@example.com>, Team: c@example.com, d@example.com;
Cc: e@example.com
Bcc: Eve <eve@example.com>
Subject: =?utf-8?q?Caf=C3=A9?= talks
Date: Thu, 22 Aug 2002 12:36:23 +0200
Message-ID: <1@example.com>
MIME-Version: 1.0
Content-Type: multipart/mixed; boundary=b

--b
Content-Type: text/plain; charset=iso-8859-1
Content-Transfer-Encoding: quoted-printable

Privileged =E4nd c=
onfidential
--b
Content-Type: application/pdf; name="../../etc/\u202epasswd.pdf"
Content-Transfer-Encoding: base64

JVBERi0=
--b
Content-Type: message/rfc822

From: f@example.com
Subject: within

Inner words
--b--
`;

Deno.test("extract: a mail is its headers, its text, and its attachments in order", async () => {
  const { attached, text: body, ...mail } = await read("a.eml", MAIL);
  assertEquals(body.trim(), "Privileged änd confidential");
  assertEquals(mail, {
    kind: "email",
    content_type: "message/rfc822",
    truncated: false,
    from: "Smith, Ann <ann@example.com>",
    to: ["Bo <bo@example.com>", "c@example.com", "d@example.com"],
    cc: ["e@example.com"],
    bcc: ["Eve <eve@example.com>"],
    subject: "Café talks",
    title: "Café talks",
    date: "2002-08-22T10:36:23.000Z",
    message_id: "<1@example.com>",
  });
  assertEquals(attached.map(({ filename, content_type, kind }) => [filename, content_type, kind]), [
    ["passwd.pdf", "application/pdf", "attachment"],
    ["attachment-2.eml", "message/rfc822", "attachment"],
  ]);
  assertEquals(text(attached[0].bytes), "%PDF-");
  assertEquals((await read(attached[1].filename, attached[1].bytes)).text.trim(), "Inner words");
});

Deno.test("extract: a mail that is only HTML, or whose text is blank, is read by its HTML", async () => {
  const html = "Content-Type: text/html\n\n<style>x</style><p>One<br>two &amp; three<script>four</script>";
  assertEquals((await read("a.eml", `From: a@b.c\n${html}`)).text, "One\ntwo & three");
  const both = `From: a@b.c\nContent-Type: multipart/alternative; boundary=b\n\n--b\n\n \n--b\n${html}\n--b--\n`;
  assertEquals((await read("a.eml", both)).text, "One\ntwo & three");
});

Deno.test("extract: an mbox is cut into its mails, each as it was before it was quoted", async () => {
  const envelope = "From somebody Thu Aug 22 12:36:23 2002\n";
  const first = "From: a@b.c\n\nHello\n>From here\n>>From there\nFrom now on, at 12:30 in 2002\n";
  const { attached, ...archive } = await read("old", `${envelope}${first}\n${envelope}To: d@e.f\r\n\r\nBye\r\n\r\n${envelope}`);
  assertEquals(archive, { kind: "archive", content_type: "application/mbox", text: "", truncated: false });
  assertEquals(attached.map(({ filename, kind, bytes }) => [filename, kind, text(bytes)]), [
    ["mail-1.eml", "member", first.replace(">From", "From").replace(">>From", ">From")],
    ["mail-2.eml", "member", "To: d@e.f\r\n\r\nBye\r\n"],
    ["mail-3.eml", "member", ""],
  ]);
  // One mail is an archive of one, unless it is named a mail.
  assertEquals((await read("one.mbox", envelope + first)).attached.length, 1);
  assertEquals(await outcome("one.eml", envelope + first), "email");
});

Deno.test("extract: Outlook's mail has its headers, its text, and mails within as such", async () => {
  const inner = msg({ "0037": "Within", "1000": "Inner words" });
  const file = compound(msg({ "0037": "Re: talks", "0C1A": "Ann Smith", "5D01": "ann@example.com", "1000": "Outer\r\nwords", "1035": "<1@x>" }, {
    "__recip_version1.0_#00000000": {
      "__properties_version1.0": fixed([0x0c150003, 1]),
      "__substg1.0_3001001F": latin1("B\0o\0"),
      "__substg1.0_39FE001F": latin1("b\0@\0x\0"),
    },
    "__attach_version1.0_#00000000": {
      "__properties_version1.0": fixed(),
      "__substg1.0_3707001F": latin1("a\0.\0t\0x\0t\0"),
      "__substg1.0_37010102": latin1("noted"),
    },
    "__attach_version1.0_#00000001": { "__properties_version1.0": fixed(), "__substg1.0_3701000D": inner },
  }));
  const { attached, ...mail } = await read("a.msg", file);
  assertEquals(mail, {
    kind: "email",
    content_type: "application/vnd.ms-outlook",
    text: "Outer\nwords",
    truncated: false,
    from: "Ann Smith <ann@example.com>",
    to: ["Bo <b@x>"],
    subject: "Re: talks",
    title: "Re: talks",
    message_id: "<1@x>",
  });
  assertEquals(attached.map(({ filename, kind }) => [filename, kind]), [["a.txt", "attachment"], ["Within.msg", "attachment"]]);
  assertEquals(text(attached[0].bytes).slice(0, 5), "noted");
  const { subject, text: body } = await read(attached[1].filename, attached[1].bytes);
  assertEquals([subject, body], ["Within", "Inner words"]);
});

Deno.test("extract: chains of sectors and trees that run in circles are damage, not work for ever", async () => {
  const file = compound(msg({ "0037": "Subject", "1000": "Words" }));
  const changed = (at: number, value: number) => {
    const copy = file.slice();
    new DataView(copy.buffer).setInt32(at, value, true);
    return copy;
  };
  const table = (sector: number) => SECTOR + 4 * sector;
  const entry = (index: number) => 2 * SECTOR + 128 * index;
  const cases: [string, Uint8Array][] = [
    ["the directory's own chain", changed(table(1), 1)],
    ["a stream's chain", changed(table(3), 3)],
    ["a chain that ends early", changed(entry(2) + 0x78, 0x7fffffff)],
    ["a length below nothing", changed(entry(2) + 0x78, -5)],
    ["a tree in a circle", changed(entry(3) + 0x48, 1)],
  ];
  for (const [name, bytes] of cases) assertEquals(await outcome("a.msg", bytes), "damaged", name);
  assertEquals(await outcome("a.msg", file), "email");
  let deep: Storage = {};
  for (let depth = 0; depth < 70; depth++) deep = { deep };
  assertEquals(await outcome("a.msg", compound(msg({}, deep))), "too_deep");
});

Deno.test("extract: a PDF is read page by page, with what it says of itself", async () => {
  const file = pdf(["First page", "", "Third"], { info: "/Title (Minutes) /Author (Ann) /CreationDate (D:20200102030405+02'00')" });
  const { attached: _, ...read1 } = await read("a.pdf", file);
  assertEquals(read1, {
    kind: "pdf",
    content_type: "application/pdf",
    text: "First page\f\fThird",
    truncated: false,
    pages: 3,
    title: "Minutes",
    author: "Ann",
    date: "2020-01-02T01:04:05.000Z",
  });
  // The caller's bytes are still his.
  assertEquals(text(file.subarray(0, 5)), "%PDF-");
  assertEquals(await outcome("scan.pdf", pdf(["", ""])), "no_text");
  assertEquals(await outcome("locked.pdf", pdf(["Secret"], { encrypted: true })), "encrypted");
  assertEquals(await outcome("a.pdf", "%PDF-1.7\n"), "damaged");
});

Deno.test("extract: a Word document stands as if all its changes were accepted", async () => {
  const paragraph = (inner: string) => `<w:p><w:pPr><w:tabs><w:tab/></w:tabs></w:pPr><w:r>${inner}</w:r></w:p>`;
  const body = paragraph("<w:t>One</w:t><w:tab/><w:t xml:space='preserve'> &amp; two</w:t><w:br/><w:t>three</w:t>") + "\n  " +
    paragraph("<w:del><w:t>gone</w:t><w:delText>gone</w:delText></w:del><w:ins><w:t>kept</w:t></w:ins><w:moveFrom><w:t>moved</w:t></w:moveFrom>") +
    paragraph("<mc:Choice><w:t>box</w:t></mc:Choice><mc:Fallback><w:t>box</w:t></mc:Fallback>");
  const file = docx(body, {
    "word/comments.xml": paragraph("<w:t>a comment</w:t>"),
    "word/footnotes.xml": paragraph("<w:t>a note</w:t>"),
    "word/header1.xml": paragraph("<w:t>a header</w:t>"),
    "docProps/core.xml": "<dc:title>Deed</dc:title><dc:creator>Ann</dc:creator><dcterms:created>2020-01-02T03:04:05Z</dcterms:created>",
  });
  const { text: words, title, author, date } = await read("a.docx", file);
  assertEquals(words, "One\t & two\nthree\nkept\nbox\na note\na comment\na header");
  assertEquals({ title, author, date }, { title: "Deed", author: "Ann", date: "2020-01-02T03:04:05.000Z" });
  assertEquals(await outcome("a.docx", docx("<w:p/>")), "no_text");
});

Deno.test("extract: what an archive inflates to is counted, whatever it declares", async () => {
  const bomb = zipSync({ "word/document.xml": new Uint8Array(260 * 1024 * 1024) }, { level: 1 });
  assertEquals(await outcome("a.docx", bomb), "too_large");
  const view = new DataView(bomb.buffer);
  const central = view.getUint32(bomb.length - 6, true);
  view.setUint32(central + 24, 10, true);
  assertEquals(await outcome("a.docx", bomb), "too_large");
  const locked = docx("<w:t>x</w:t>");
  const directory = new DataView(locked.buffer).getUint32(locked.length - 6, true);
  locked[directory + 8] |= 1;
  assertEquals(await outcome("a.docx", locked), "encrypted");
  assertEquals(await outcome("a.docx", docx("<w:t>x</w:t>").subarray(0, 100)), "damaged");
});

Deno.test("extract: a page is its words, with a line for each block", async () => {
  const page =
    `<!doctype html><title>The  title</title><template>no</template><p>One <b>two</b>\n three<div>four&nbsp;&eacute;</div><ul><li>five<li>six</ul><pre>a\n  b</pre>
    <table><tr><td>7<td>8</table><!-- no --><script>"<p>no"</script>`;
  const { text: words, title, content_type } = await read("x", page);
  assertEquals(words, "One two three\nfour é\nfive\nsix\na\n  b\n7 8");
  assertEquals([title, content_type], ["The title", "text/html"]);
  assertEquals((await read("a.html", latin1("<meta charset=windows-1251><p>\xcf\xf0\xe8\xe2\xe5\xf2"))).text, "Привет");
});

Deno.test("extract: text is decoded by its BOM, as UTF-8, or by a guess", async () => {
  const wide = (words: string) => new Uint8Array(Uint16Array.from(words, (unit) => unit.charCodeAt(0)).buffer);
  const cases: [Uint8Array, string][] = [
    [bytesOf("\ufeffa\r\nb\rc\0"), "a\nb\nc"],
    [bytesOf("naïve 日本"), "naïve 日本"],
    [wide("\ufeffÄ 日本\r\n"), "Ä 日本\n"],
    [wide("plain and wide"), "plain and wide"],
    [latin1("d\xe9j\xe0 vu, une fois de plus"), "déjà vu, une fois de plus"],
    [latin1("\xf0\xd2\xc9\xd7\xc5\xd4 \xcd\xc9\xd2, \xcb\xc1\xcb \xc4\xc5\xcc\xc1?"), "Привет мир, как дела?"],
  ];
  for (const [bytes, words] of cases) assertEquals((await read("a.txt", bytes)).text, words);
  assertEquals((await read("a.csv", "a,b\n")).content_type, "text/csv");
  const long = await read("a.txt", "a".repeat(MAX_TEXT - 1) + "😀😀");
  assertEquals([long.truncated, long.text.length, long.text.isWellFormed()], [true, MAX_TEXT, true]);
});

Deno.test("extract: the bytes say what a file is; names decide between kinds of text only", async () => {
  const noise = Uint8Array.from({ length: 5000 }, (_, index) => (index * index * 7 + index) % 251);
  const cases: [string, string | Uint8Array, string][] = [
    ["a.pdf", "", "empty"],
    ["a.txt", " \n", "empty"],
    ["a.bin", noise, "unsupported"],
    ["a.pdf", noise, "wrong_type"],
    ["a.docx", zipSync({ "a.txt": bytesOf("x") }), "wrong_type"],
    ["a.zip", zipSync({ "a.txt": bytesOf("x") }), "unsupported"],
    ["a.rtf", "{\\rtf1 words}", "unsupported"],
    ["a.png", latin1("\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x01\0\0\0\x01\b\x02\0\0\0"), "unsupported"],
    ["a.doc", compound({ WordDocument: latin1("x") }), "unsupported"],
    ["a.docx", compound({ EncryptedPackage: latin1("x") }), "encrypted"],
    ["a.txt", pdf(["Words"]), "pdf"],
    ["a.pdf", docx("<w:t>x</w:t>"), "word"],
    ["a.pdf", "<!DOCTYPE html><html>Not found", "html"],
    ["a", "From: a@b.c\nSubject: x\n\nHello", "email"],
    // Somebody's note is not a mail for all that he quotes.
    ["a.txt", "From: Ann\nTo: Bo\nSubject: lunch\n\nHello", "text"],
    ["a.txt", "Note: one\nFrom: two\n", "text"],
    ["a.eml", "No header at all", "text"],
    ["a.log", "a <html> in a line", "text"],
  ];
  for (const [name, file, expected] of cases) assertEquals(await outcome(name, file), expected, `${name} ${String(file).slice(0, 30)}`);
  assertEquals(await outcome("a", "Subject: x\n\nHello", "message/rfc822"), "email");
});

Deno.test("extract: what is nested, repeated or endless costs its own document only", async () => {
  const part = (index: number) => `Content-Type: multipart/mixed; boundary=b${index}\n\n--b${index}\n`;
  const parts = "From: a@b.c\n" + Array.from({ length: 50_000 }, (_, index) => part(index)).join("");
  const mixed = "From: a@b.c\nContent-Type: multipart/mixed; boundary=b\n\n";
  const cases: [string, string, string][] = [
    ["parts within parts", parts, "too_deep"],
    ["headers", "From: a@b.c\n" + "X: y\n".repeat(500_000), "too_large"],
    ["lines", "From: a@b.c\n\n" + "a\n".repeat(1_000_000), "too_large"],
    ["parts", mixed + "--b\n\n".repeat(300_000), "too_large"],
    ["attachments", mixed + "--b\nContent-Type: image/png\n\nx\n".repeat(1001), "too_large"],
    ["mails in mails", "From: a@b.c\nContent-Type: message/rfc822\n\n".repeat(5000), "email"],
  ];
  for (const [name, file, expected] of cases) assertEquals(await outcome("a.eml", file), expected, name);
  assertEquals(await outcome("a.mbox", "From a Thu Aug 22 12:36:23 2002\nTo: x\n\n".repeat(200_001)), "too_large");
  assertEquals((await read("a.html", "<div><b>".repeat(50_000) + "</i>".repeat(50_000) + "words")).text, "words");
  assertEquals((await read("a.html", "<p>" + "&lt;&#65;".repeat(100_000))).text, "<A".repeat(100_000));
  assertEquals((await read("a.docx", docx("<w:p>".repeat(50_000) + "<w:t>words</w:t>" + "</w:x>".repeat(50_000)))).text, "words");
});

Deno.test("extract: names of attachments are names, and short", async () => {
  const cases: [string, string][] = [
    ["C:\\\\Users\\\\me\\\\deed.docx", "deed.docx"],
    ["a/b/../c.txt", "c.txt"],
    ["..", "attachment-1"],
    ["a\u0007b\u200bc.txt", "abc.txt"],
    ["x".repeat(400) + ".pdf", "x".repeat(251) + ".pdf"],
  ];
  for (const [given, expected] of cases) {
    const file = `From: a@b.c\nContent-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: image/png; name="${given}"\n\nx\n--b--\n`;
    assertEquals((await read("a.eml", file)).attached[0].filename, expected);
  }
});

Deno.test("extract: nothing but an Exception comes of bytes that are cut off or changed", async () => {
  const seed = 20261123;
  let state = seed;
  const below = (limit: number) => (state = Math.imul(state, 1664525) + 1013904223 >>> 0) % limit;
  const files: [string, Uint8Array][] = [
    ["a.eml", bytesOf(MAIL)],
    ["a.docx", docx("<w:p><w:t>words</w:t></w:p>".repeat(50))],
    ["a.msg", compound(msg({ "0037": "Subject", "1000": "Words" }))],
    ["a.pdf", pdf(["First", "Second"])],
    ["a.mbox", bytesOf("From a Thu Aug 22 12:36:23 2002\n" + MAIL)],
  ];
  const seen = new Set<string>();
  for (const [name, file] of files) {
    for (let round = 0; round < 60; round++) {
      const bytes = file.slice(0, round % 3 === 0 ? 1 + below(file.length) : file.length);
      for (let flips = 1 + below(10); flips > 0; flips--) bytes[below(bytes.length)] = below(256);
      seen.add(await outcome(name, bytes));
    }
  }
  assert(seen.has("damaged") && seen.has("email") && seen.has("pdf"), `seed ${seed}: ${[...seen]}`);
});

Deno.test("extract: what `attach` throws ends it and comes out as it is", async () => {
  const ours = new TypeError("Cannot write");
  const thrown = await assertRejects(() =>
    extract({ bytes: bytesOf(MAIL), filename: "a.eml", content_type: "" }, () => {
      throw ours;
    })
  );
  assertEquals(thrown, ours);
});
