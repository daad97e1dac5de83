/** Markup that members and back ends send: nothing of it may run, and what is harmless stays. [V04] */
import { assert, assertEquals, assertLessOrEqual } from "@std/assert";
import { cleanFields, cleanHtml } from "../protocol/html.ts";
import { rooms } from "../rooms/channels/mod.ts";
import { random } from "./support/random.ts";
import { lab, someone, Stage } from "./support/stage.ts";

const BARE = "b|i|em|strong|u|s|mark|sub|sup|code|pre|blockquote|p|br|hr|div|span|ul|ol|li|h[1-6]|table|thead|tbody|tr|th|td";
/** A tag as it may stand in what was cleaned, letter for letter: a stricter reader than any browser, so that none can read it otherwise. */
const TAG = new RegExp(`<(?:/(?:a|${BARE})|(?:${BARE})(?: /)?|a(?: (?:href="(?:https?://|mailto:)[^"<>]*"|title="[^"<>]*"|href|title))*(?: /)?)>`, "gi");

/** Whether nothing but text and such tags is left: every sign that could begin or end another one is escaped. */
const isHarmless = (html: string) => !/[<>]/.test(html.replace(TAG, "\n"));

function harmless(input: string, what = ""): string {
  const clean = cleanHtml(input);
  assert(isHarmless(clean), `${what} ${JSON.stringify(input)} became ${JSON.stringify(clean)}`);
  return clean;
}

Deno.test("html: the reader of these tests knows what runs", () => {
  for (const html of ["", "x", "<b>x</b>", '<a href="https://x/?a&amp;b" title="y">z</a>', "<br /><a href>x</a>", "1 &lt; 2"]) assert(isHarmless(html), html);
  for (
    const html of [
      "<script>",
      "<b onclick=x>",
      '<a href="javascript:x">',
      '<a href="https://x" onclick="y">',
      "<b",
      "a > b",
      "<!-- -->",
      "<svg>",
      "<b/>",
      '<a href="https://x"y">',
      "<B x>",
      "<scr<b>ipt>",
    ]
  ) assert(!isHarmless(html), html);
});

const ATTACKS: readonly (readonly [string, string])[] = [
  ["a script", "<script>alert(1)</script>"],
  ["a script, in capitals and with attributes", '<ScRiPt type="text/javascript" src=//evil.example>alert(1)</sCrIpT >'],
  ["a script without an end", "<script>alert(1)"],
  ["a script without a bracket", "<script src=//evil.example/x.js"],
  ["a script with a slash", "<script/x>alert(1)</script/x>"],
  ["a script with a line break", "<script\n>alert(1)</script\n>"],
  ["a script with a form feed", "<script\f>alert(1)</script>"],
  ["a script in a script", "<scr<script>ipt>alert(1)</scr</script>ipt>"],
  ["a script in a script, thrice", "<scr<scr<script>ipt>ipt>alert(1)</script>"],
  ["a script around a comment", "<scr<!-- -->ipt>alert(1)</scr<!-- -->ipt>"],
  ["a script behind a NUL", "<\0script>alert(1)</script>"],
  ["a script with a NUL inside", "<scr\0ipt>alert(1)</script>"],
  ["two brackets", "<<script>alert(1);//<</script>"],
  ["full-width brackets", "＜script＞alert(1)＜/script＞"],
  ["a long s, a small k", "<ſcript>alert(1)</ſcript>"],
  ["a handler", '<b onclick="alert(1)">x</b>'],
  ["a handler, unquoted, in capitals", "<B ONMOUSEOVER=alert(1)>x</B>"],
  ["a handler after slashes", '<p/onclick="alert(1)"/>x'],
  ["a handler after a quote", '<b x="y"onclick="alert(1)">x</b>'],
  ["a handler after a line break", "<div\nonclick\n=\nalert(1)\n>x"],
  ["a handler after an odd quote", `<a title='"' onclick='alert(1)' x='">`],
  ["a handler in an open quote", `<b title="x onclick=alert(1)>y`],
  ["a handler behind a broken quote", `<a href="https://x"" onclick="alert(1)">y</a>`],
  ["a handler that a title breaks out to", `<a title='x" onmouseover="alert(1)'>y</a>`],
  ["a handler that a title breaks out to, as an entity", `<a title="x&quot; onmouseover=&quot;alert(1)">y</a>`],
  ["a handler that a title breaks out to, as a number", `<a title="x&#34; onmouseover=&#x22;alert(1)">y</a>`],
  ["a handler that a link breaks out to", `<a href='https://x" onmouseover="alert(1)'>y</a>`],
  ["a bracket in a title", `<a title="><img src=x onerror=alert(1)>">y</a>`],
  ["a bracket in a title, as an entity", `<a title="&gt;&lt;img src=x onerror=alert(1)&gt;">y</a>`],
  ["a bracket in a title, as a number", `<a title="&#62;&#60;img src=x onerror=alert(1)&#62;">y</a>`],
  ["a number that only looks like another", `<a title="&#x1003c;img src=x onerror=alert(1)&#x1003e;">y</a>`],
  ["an image", "<img src=x onerror=alert(1)>"],
  ["an image without an end", "<img src=x onerror=alert(1)//"],
  ["an image with slashes", "<img/src=x/onerror=alert(1)>"],
  ["an image with back quotes", "<img src=`x`onerror=alert(1)>"],
  ["an image, by another name", "<image src=x onerror=alert(1)>"],
  ["an image of many sizes", '<img srcset="x 1x, y 2x" onerror=alert(1)>'],
  ["a javascript link", '<a href="javascript:alert(1)">x</a>'],
  ["a javascript link, unquoted", "<a href=javascript:alert(1)>x</a>"],
  ["a javascript link, in capitals and with spaces", '<a href="  JaVaScRiPt:alert(1)">x</a>'],
  ["a javascript link with a tab", '<a href="java\tscript:alert(1)">x</a>'],
  ["a javascript link with a line break", '<a href="java\nscript\r:alert(1)">x</a>'],
  ["a javascript link with a tab, as an entity", '<a href="java&Tab;script&colon;alert(1)">x</a>'],
  ["a javascript link with a line break, as an entity", '<a href="java&NewLine;script:alert(1)">x</a>'],
  ["a javascript link as numbers", '<a href="&#106;&#97;&#118;&#97;&#115;&#99;&#114;&#105;&#112;&#116;&#58;alert(1)">x</a>'],
  [
    "a javascript link as long numbers without an end",
    '<a href="&#0000106&#0000097&#0000118&#0000097&#0000115&#0000099&#0000114&#0000105&#0000112&#0000116&#0000058alert(1)">x</a>',
  ],
  ["a javascript link as hexadecimal numbers", '<a href="&#x6A;&#X61;&#x76;&#x61;script&#x3A;alert(1)">x</a>'],
  ["a javascript link, escaped twice", '<a href="&#38;#106;avascript:alert(1)">x</a>'],
  ["a javascript link behind a control character", '<a href="\u0001javascript:alert(1)">x</a>'],
  ["a javascript link behind a space of Unicode", '<a href="\u00a0\u2003\ufeffjavascript:alert(1)">x</a>'],
  ["a javascript link with a NUL", '<a href="java\0script:alert(1)">x</a>'],
  ["a javascript link in two attributes", '<a href="https://x" href="javascript:alert(1)">x</a>'],
  ["a javascript link in two attributes, the other way", '<a href="javascript:alert(1)" HREF="https://x">x</a>'],
  ["a javascript link behind a good one", '<a href="javascript:alert(1)//https://x">x</a>'],
  ["a javascript link with a host", '<a href="javascript://https://x/%0aalert(1)">x</a>'],
  ["a javascript link of SVG", '<a xlink:href="javascript:alert(1)">x</a>'],
  ["a vbscript link", '<a href="vbscript:msgbox(1)">x</a>'],
  ["a data link", '<a href="data:text/html,<script>alert(1)</script>">x</a>'],
  ["a data link in base64", '<a href=" data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==">x</a>'],
  ["a blob link", '<a href="blob:https://x/1">x</a>'],
  ["a file link", '<a href="file:///etc/passwd">x</a>'],
  ["a link without a scheme", '<a href="//evil.example">x</a>'],
  ["a link that tells where to go", '<a href="https://x" ping="https://evil.example" target="_blank" download>x</a>'],
  ["svg", "<svg onload=alert(1)>"],
  ["svg with a slash", "<svg/onload=alert(1)//"],
  ["a script in svg", "<svg><script>alert&#40;1)</script></svg>"],
  ["a script in svg, by its entity", "<svg><script>&#97;lert(1)</script>"],
  ["an animation", "<svg><animate onbegin=alert(1) attributeName=x dur=1s></svg>"],
  ["an animated link", "<svg><a><animate attributeName=href values=javascript:alert(1) /><text>x</text></a></svg>"],
  ["a foreign object", "<svg><foreignObject><iframe srcdoc='&lt;script>alert(1)&lt;/script>'></foreignObject></svg>"],
  ["a use", '<svg><use href="data:image/svg+xml;base64,AAAA#x"/></svg>'],
  ["math", "<math><mtext><table><mglyph><style><img src=x onerror=alert(1)></style></mglyph></table></mtext></math>"],
  ["a style", "<style>@import 'https://evil.example';</style>"],
  ["a style that ends early", '<style><img src="</style><img src=x onerror=alert(1)//">'],
  ["a style without an end", "<style>*{background:url(javascript:alert(1))}"],
  ["an attribute of style", '<div style="background:url(javascript:alert(1));width:expression(alert(1))">x</div>'],
  ["a link to a style", "<link rel=stylesheet href=https://evil.example>"],
  ["a frame", '<iframe src="javascript:alert(1)"></iframe>'],
  ["a frame with a page", '<iframe srcdoc="<script>alert(1)</script>"></iframe>'],
  ["a frame with a page, as entities", '<iframe srcdoc="&lt;script&gt;alert(1)&lt;/script&gt;">'],
  ["a set of frames", "<frameset onload=alert(1)><frame src=x></frameset>"],
  ["an object", '<object data="javascript:alert(1)"></object><embed src="javascript:alert(1)">'],
  ["an applet", "<applet code=x></applet>"],
  ["a form", '<form action="javascript:alert(1)"><input type=submit formaction="javascript:alert(1)" autofocus onfocus=alert(1)><button>x</button></form>'],
  ["a choice", "<select onchange=alert(1)><option>x</select><keygen autofocus onfocus=alert(1)><textarea autofocus onfocus=alert(1)>"],
  ["media", "<video><source onerror=alert(1)></video><audio src=x onerror=alert(1)>"],
  ["details", "<details open ontoggle=alert(1)>x</details>"],
  ["a marquee", "<marquee onstart=alert(1)>x</marquee>"],
  ["a base", '<base href="javascript:alert(1)//">'],
  ["a meta", '<meta http-equiv="refresh" content="0;url=javascript:alert(1)">'],
  ["a body", "<body onload=alert(1)><html onclick=alert(1)><head>"],
  ["a template", "<template><script>alert(1)</script></template>"],
  ["an element of one's own", "<x-y onclick=alert(1)>x</x-y><xss autofocus tabindex=1 onfocus=alert(1)></xss>"],
  ["an element of every object", "<constructor onclick=alert(1)>x</constructor><__proto__>y</__proto__><tostring>z</tostring>"],
  ["a comment", "<!-- <script>alert(1)</script> -->"],
  ["a comment that ends early", "<!--><script>alert(1)</script>-->"],
  ["a comment that ends oddly", "<!-- --!><img src=x onerror=alert(1)> -->"],
  ["a comment made by taking out a comment", "<!<!-- x -->-- <img src=x onerror=alert(1)> -->"],
  ["a comment without an end", "x<!-- <img src=x onerror=alert(1)>"],
  ["a comment of one browser", "<!--[if gte IE 4]><script>alert(1)</script><![endif]-->"],
  ["CDATA", "<![CDATA[<script>alert(1)</script>]]>"],
  ["an instruction", '<?xml version="1.0"?><?php alert(1) ?>'],
  ["a doctype", "<!DOCTYPE html [<!ENTITY x '<script>alert(1)</script>'>]>"],
  ["a bogus comment", "</ <img src=x onerror=alert(1)>>"],
  ["an end with attributes", "</b onclick=alert(1)>"],
  ["two slashes", "<//b onclick=alert(1)>"],
  ["what a second parser would turn around: noscript", '<noscript><p title="</noscript><img src=x onerror=alert(1)>">'],
  ["what a second parser would turn around: xmp", "<xmp><p title='</xmp><img src=x onerror=alert(1)>'>"],
  ["what a second parser would turn around: plaintext", "<plaintext><img src=x onerror=alert(1)>"],
  ["what a second parser would turn around: textarea", '<textarea><a title="</textarea><img src=x onerror=alert(1)>">'],
  ["what a second parser would turn around: title", '<title><a title="</title><img src=x onerror=alert(1)>"></title>'],
  ["what a second parser would turn around: a table", "<table><tr><td><b><table><a title='</table><img src=x onerror=alert(1)>'>"],
  ["what a second parser would turn around: a form in a form", "<form><math><mtext></form><form><mglyph><style></math><img src=x onerror=alert(1)>"],
  ["what a second parser would turn around: back quotes", '<a title="``onmouseover=alert(1)">x</a>'],
  ["text that looks escaped", "&lt;script&gt;alert(1)&lt;/script&gt;"],
  ["text that looks escaped, without its ends", "&ltscript&gtalert(1)&lt/script&gt"],
  ["an end before its beginning", "</script><script>alert(1)"],
  ["a lone surrogate", "<b>\ud800<script\udc00>alert(1)</script></b>"],
  ["a mirrored text", "<b>\u202e<script>alert(1)</script></b>"],
];

/** The same where it might be read otherwise. */
const placed = (html: string) => [
  ["alone", html],
  ["in a paragraph", `<p>before ${html} after</p>`],
  ["after an open tag", `<b ${html}`],
  ["in an attribute", `<a title="${html}">x</a>`],
  ["in a link", `<a href='https://x/${html}'>x</a>`],
  ["after a script", `<script>1</script>${html}`],
  ["twice", html + html],
  ["in capitals", html.toUpperCase()],
  ["cut short", html.slice(0, -1)],
];

for (const [what, html] of ATTACKS) {
  Deno.test(`html: ${what}: nothing of it can run [V04]`, () => {
    for (const [where, text] of placed(html)) harmless(text, where);
  });
}

const KEPT: readonly (readonly [string, string, string?])[] = [
  ["plain text", "Lease agreement, page 3"],
  ["nothing", ""],
  ["text in every script", "Übereinkunft 契約 عقد 😀 \u2028"],
  ["line breaks and blanks", " a\n\tb\r\n  c "],
  ["bold, slanted, marked", "<b>a</b> <i>b</i> <em>c</em> <strong>d</strong> <u>e</u> <s>f</s> <mark>g</mark> <sub>h</sub><sup>i</sup>"],
  ["headings", "<h1>a</h1><h2>b</h2><h6>c</h6>"],
  ["lists", "<ul><li>a</li></ul><ol><li>b</li></ol>"],
  ["a table", "<table><thead><tr><th>a</th></tr></thead><tbody><tr><td>b</td></tr></tbody></table>"],
  ["blocks", "<div><p>a</p><blockquote>b</blockquote><pre><code>c</code></pre><span>d</span></div>"],
  ["breaks", "a<br>b<hr>c", "a<br>b<hr>c"],
  ["a link", '<a href="https://example.com/a?b=1&amp;c=2#d">x</a>'],
  ["a link with a title", '<a href="http://example.com" title="see there">x</a>'],
  ["a link to write to", '<a href="mailto:a@example.com">x</a>'],
  ["capitals", "<B>x</B><A HREF='HTTPS://example.com'>y</A>", '<b>x</b><a href="HTTPS://example.com">y</a>'],
  ["a number in a title", '<a href="https://example.com/?&#8220;" title="&#8220;a&#8221; &amp;lt; &#128512;">x</a>'],
  ["what is open stays open", "<p>a<p>b<li>c"],
  ["entities", "a &lt; b &amp; c &nbsp; &copy; &#169; &quot;"],
  ["an ampersand", "Smith & Sons, AT&T"],
  ["quotes", `he said "no", 'never'`],
  ["a script that is only spoken of", "javascript: onclick= alert(1)"],
];

for (const [what, html, expected = html] of KEPT) {
  Deno.test(`html: ${what} stays`, () => assertEquals(harmless(html), expected));
}

const TEXT: readonly (readonly [string, string])[] = [
  ["1 < 2", "1 &lt; 2"],
  ["a < b and c > d", "a &lt; b and c &gt; d"],
  ["x <3 y", "x &lt;3 y"],
  ["5<6", "5&lt;6"],
  ["<", "&lt;"],
  ["a<", "a&lt;"],
  [">", "&gt;"],
  ["<>", "&lt;&gt;"],
  ["<<<", "&lt;&lt;&lt;"],
  ["<- see -> and <= or >=", "&lt;- see -&gt; and &lt;= or &gt;="],
  ["< b >bold?< /b >", "&lt; b &gt;bold?&lt; /b &gt;"],
  ["§ 5 <10 %", "§ 5 &lt;10 %"],
  ["<b>1 < 2</b>", "<b>1 &lt; 2</b>"],
];

for (const [text, expected] of TEXT) {
  Deno.test(`html: ${JSON.stringify(text)} is text, and stays to be read`, () => assertEquals(harmless(text), expected));
}

Deno.test("html: scripts and styles go with all that stands in them, and no word is added", () => {
  assertEquals(harmless("a<script>b</script>c<style>d</style>e"), "ace");
  assertEquals(harmless("a<SCRIPT x=y>b</SCRIPT >c"), "ac");
  assertEquals(harmless("<script>a</script><b>c</b>"), "<b>c</b>");
  // Without an end, what follows may stay as text.
  for (const html of ["a<script>b", "a<style>b", "a<script>b<script>c</script>d", "<script>b<style>c</style>d", "a</script>b"]) {
    const clean = harmless(html);
    assert(/^[abcd]*$/.test(clean), `${html} became ${clean}`);
  }
});

Deno.test("html: what has been cleaned is clean: once more changes nothing", () => {
  const changed = [];
  for (const html of [...ATTACKS.flatMap(([, html]) => placed(html).map(([, text]) => text)), ...KEPT.map(([, html]) => html), ...TEXT.map(([text]) => text)]) {
    const clean = cleanHtml(html);
    if (cleanHtml(clean) !== clean) changed.push([html, clean, cleanHtml(clean)]);
  }
  assertEquals(changed, []);
});

// deno-fmt-ignore
const PIECES = [
  "<",
  ">",
  "</",
  "/>",
  "<!--",
  "-->",
  "<!",
  "<?",
  "=",
  '"',
  "'",
  "`",
  " ",
  "\n",
  "\t",
  "\0",
  "/",
  "&",
  "&#",
  "&lt;",
  "&#60;",
  "&#x3c",
  "&quot;",
  "&#34;",
  "&colon;",
  "&NewLine;",
  ";",
  "x",
  "b",
  "a",
  "p",
  "br",
  "script",
  "style",
  "SCRIPT",
  "svg",
  "img",
  "href",
  "title",
  "onclick",
  "src",
  "https://x",
  "mailto:y",
  "javascript:",
  "data:",
  "alert(1)",
  "<b>",
  "</b>",
  "<a href=",
  '<a href="https://x" ',
  "<script>",
  "</script>",
  "<style>",
  "</style>",
  "[removed]",
  "<img src=x onerror=alert(1)>",
  "😀",
  "\u2028",
  "\ufeff",
];

for (const seed of [Math.trunc(Math.random() * 2 ** 31), 1]) {
  Deno.test(`html: whatever is put together, nothing of it can run (seed ${seed})`, () => {
    const pick = random(seed);
    for (let step = 0; step < 10_000; step++) {
      const html = Array.from({ length: 1 + pick(14) }, () => PIECES[pick(PIECES.length)]).join("");
      const clean = cleanHtml(html);
      assert(isHarmless(clean), `seed ${seed}, step ${step}: ${JSON.stringify(html)} became ${JSON.stringify(clean)}`);
    }
  });
}

// Whoever sends 64 KiB of markup must not stop everybody's room. [promise 6]
const LONG: readonly (readonly [string, (length: number) => string])[] = [
  ["brackets", (length) => "<".repeat(length)],
  ["open tags", (length) => "<b>".repeat(length / 3)],
  ["open links", (length) => '<a href="'.repeat(length / 9)],
  ["comments", (length) => "<!---->".repeat(length / 7)],
  ["scripts", (length) => "<script>".repeat(length / 8)],
  ["scripts without a bracket", (length) => "<script ".repeat(length / 8)],
  ["ends of scripts", (length) => `<script>${"</script ".repeat(length / 9)}`],
  ["entities", (length) => `<a title="${"&#".repeat(length / 2)}">`],
  ["quotes", (length) => `<a ${"'".repeat(length)}>`],
  ["equals signs", (length) => `<a ${"=".repeat(length)}>`],
  ["words in one tag", (length) => `<a ${"x ".repeat(length / 2)}>`],
  ["long links, one after another", (length) => `<a ${"x ".repeat(1000)}>`.repeat(length / 2004)],
  ["attributes in one tag", (length) => `<a ${"t=x ".repeat(length / 4)}>`],
  ["blanks in one tag", (length) => `<b x${" ".repeat(length)}y>`],
  ["line breaks in one tag", (length) => `<b x=y${"\n".repeat(length)}z>`],
];

for (const [what, of] of LONG) {
  Deno.test(`html: 12,000 characters of ${what} are cleaned in no time [promise 6]`, () => {
    const html = of(12_000);
    const took = () => {
      const begun = performance.now();
      harmless(html);
      return performance.now() - begun;
    };
    // Some milliseconds, when it is proportional to the length; a busy machine gets a second chance.
    const first = took();
    assertLessOrEqual(first < 100 ? first : took(), 100);
  });
}

// Where it is done.

Deno.test("html: every text called html is cleaned, at whatever depth and in lists; nothing else is", () => {
  const [dirty, clean] = ["<b onclick=x>y</b><script>z</script>", "<b>y</b>"];
  const value = (html: string) => ({
    html,
    title: dirty,
    list: [{ html }, dirty, [{ html }]],
    deep: { html, "HTML ": dirty, er: { html: { html }, text: dirty } },
    n: 1,
    no: null,
  });
  const given = value(dirty);
  cleanFields(given);
  assertEquals(given, value(clean));
});

Deno.test("html: a list under html is no way around: `innerHTML = [text]` shows its text", () => {
  const value = { html: ["<img src=x onerror=alert(1)>", ["<script>x</script>"]], deep: [{ html: [["<b onclick=x>y</b>"]] }] };
  cleanFields(value);
  assert(isHarmless(String(value.html)), JSON.stringify(value.html));
  assert(isHarmless(String(value.deep[0].html)), JSON.stringify(value.deep));
});

Deno.test("html: names of every object are fields like any other", () => {
  const value = JSON.parse('{"__proto__":{"html":"<script>x</script>a"},"constructor":{"html":"<script>x</script>b"}}');
  cleanFields(value);
  assertEquals(JSON.stringify(value), '{"__proto__":{"html":"a"},"constructor":{"html":"b"}}');
});

const [DIRTY, CLEAN] = ["<p onclick=x>y <a href='https://z'>link</a></p><script>z</script>", '<p>y <a href="https://z">link</a></p>'];

Deno.test("html: what a member pushes is cleaned before the room sees it, keeps it or tells it; in a join and a batch too [V04]", () => {
  const seen: unknown[] = [];
  const stage = new Stage([lab({
    join(_ctx, { html, deep }) {
      seen.push(html, deep);
    },
    on: {
      do(ctx, payload) {
        seen.push(payload.html, payload.deep);
        ctx.broadcast("kept", payload);
        return payload;
      },
    },
  })]);
  const a = stage.client();
  const payload = { html: DIRTY, deep: [{ html: DIRTY }] };
  const expected = { html: CLEAN, deep: [{ html: CLEAN }] };
  a.join("lab:1", { ...payload, aliases: false });
  const heard = a.send([null, "1", "lab:1", "do", payload], [null, "2", "lab:1", "batch", { messages: [{ event: "do", payload }] }]);
  assertEquals(seen, Array(3).fill([CLEAN, expected.deep]).flat());
  assertEquals(heard.filter((frame) => frame[3] === "kept").map(({ 4: { html, deep } }) => ({ html, deep })), [expected, expected]);
  assertEquals(heard.find((frame) => frame[1] === "1")[4].response, expected);
  assertEquals(stage.host.sql.run("select payload from log", [], false).map(({ payload }) => JSON.parse(String(payload))), [expected, expected]);
  stage.close();
});

Deno.test("html: what a back end publishes is cleaned before it is kept, told, mirrored and replayed [V04]", async () => {
  const stage = new Stage(rooms);
  const a = stage.client(someone("a"));
  a.join("case:1", {});
  const document = (html: string) => ({ id: "1", title: "x", html, metadata: { notes: [{ html }] } });
  const publish = async (id: string) => {
    const payload = { document: document(DIRTY), html: DIRTY };
    const cursors = stage.registry.publish("case:1", someone("backend", "service"), [{ id, event: "document:uploaded", payload }]);
    await stage.settle();
    return (await cursors)[0];
  };
  const cursor = await publish("1");
  const expected = { document: document(CLEAN), html: CLEAN, cursor };
  assertEquals(a.take().map((frame) => [frame[3], frame[4]]), [["document:uploaded", expected], ["update", { event: "document:uploaded", payload: expected }]]);
  assertEquals(JSON.parse(String(stage.host.sql.run("select payload from log", [], false)[0].payload)), { document: document(CLEAN), html: CLEAN });
  // Sent again, it is still the same.
  assertEquals([await publish("1"), a.take()], [cursor, []]);
  assertEquals(stage.client(someone("b")).join("case:1", { since: "0" }).heard.find((frame) => frame[3] === "document:uploaded")[4], expected);
  stage.close();
});

Deno.test("html: what is shared of a selection is cleaned, its text is not", async () => {
  const stage = new Stage(rooms);
  const published = stage.registry.publish("case:1", someone("backend", "service"), [{ event: "document:uploaded", payload: { document: { id: "1" } } }]);
  await stage.settle();
  await published;
  const [a, b] = [stage.client(someone("a")), stage.client(someone("b"))];
  for (const client of [a, b]) client.join("collaboration:1");
  a.send([null, "1", "collaboration:1", "selection:share", { text: DIRTY, range: { html: DIRTY } }]);
  assertEquals(b.take().map((frame) => frame[4]), [{ user_id: "a", text: DIRTY, range: { html: CLEAN } }]);
  stage.close();
});
