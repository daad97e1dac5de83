/**
 * What in a document speaks for a privilege or against one: the rules of the suggestion as data. They read English. Every repetition in a pattern is
 * bounded, so time is linear in the text.
 */
import type { PrivilegeType } from "../../protocol/channels/privilege.ts";
import { domainOf, type Mailbox } from "./mailbox.ts";

export interface Signal {
  readonly factor: string;
  /** Hundredths; above zero for a privilege, below against. */
  readonly weight: number;
  readonly type?: Exclude<PrivilegeType, "none">;
  /** Enough alone: nothing that speaks against undoes it. */
  readonly strong?: true;
  /** Words that mail programs put under every mail, too: there they count little. */
  readonly legend?: true;
  readonly pattern: RegExp;
}

const LAWYER =
  "(?:lawyers?|attorneys?|counsel|solicitors?|barristers?|law firm|legal (?:department|dept\\.?|team|counsel|group|people|folks)|(?:in-house|outside) (?:lawyers?|attorneys?|counsel))";
const OURS = "(?:our|my|your|their|the company'?s|company|outside|in-?house|general|external|corporate|defen[cs]e|local)";
const SPOKE =
  "(?:advis(?:es?|ed|ing)|recommend\\w{0,2}|suggest\\w{0,2}|says?|said|told|tells?|thinks?|confirm\\w{0,2}|approv\\w{1,2}|caution\\w{0,2}|warn\\w{0,2}|opine[sd]?|believes?|wants?|view|opinion|advice|concluded?|signed off|cleared|reviewed|feels?)";
/** What a question or an answer is about when it is one of law. */
const MATTER =
  "(?:liab|legal|laws?\\b|court|su(?:e|ed|ing)\\b|lawsuit|litigat|breach|contract|agreement|clause|indemn|disclos|terminat|settle|damages|regulat|complian|statut|patent|infring|subpoena|obligat|non-?compete|evidence|expos|penalt|fire (?:him|her|them)|dismiss)";

/** `~`: anything within a sentence. */
const rule = (...sources: string[]) => new RegExp(sources.map((source) => source.replaceAll("~", "[^.!?]")).join("|"), "gi");

export const SIGNALS: readonly Signal[] = [
  {
    factor: "Marked as privileged",
    weight: 70,
    type: "attorney-client",
    strong: true,
    legend: true,
    pattern: rule(
      "\\b(?:attorney|lawyer|solicitor)s?['’]?[\\s\\-–—/]{1,3}(?:and[\\s-])?client\\b[\\s-]{0,3}(?:privileged?|communications?|confidential|correspondence)",
      "\\b(?:legally|legal professional|common[ -]interest|joint[ -]defen[cs]e)[\\s-]{1,2}privileged?\\b",
      "\\bsubject to (?:a claim of )?(?:~{0,20}\\s)?privilege\\b",
      "\\bprivileged\\s{0,2}(?:and|&|/|,|-|–|—)\\s{0,2}(?:strictly |highly |company )?confidential",
      "\\bconfidential(?:ity)?\\s{0,2}(?:and|&|/|,|-|–|—)\\s{0,2}(?:legally )?privileged",
      "\\bprivileged (?:communication|material|information|document|legal)",
      "\\blegal advice privilege\\b",
      "(?<=^|\\n)[ \\t*[(]{0,20}privileged[ \\t*.\\])]{0,20}(?=\\n|$)",
    ),
  },
  {
    factor: "Marked as attorney work product",
    weight: 75,
    type: "work-product",
    strong: true,
    legend: true,
    pattern: rule(
      "\\b(?:attorney|lawyer|counsel)(?:['’]?s?['’]?)?[\\s-]{1,2}work[\\s-]{0,2}product",
      "\\bwork[\\s-]product (?:doctrine|privilege|protection|protected)",
      "\\b(?:prepared|made|created|drafted|written) (?:~{0,40}\\s)?in (?:reasonable )?(?:anticipation|contemplation) of (?:~{0,20}\\s)?(?:litigation|trial|proceedings)",
      `\\b(?:at|under|on) the (?:request|direction|instructions?) of (?:${OURS} )?${LAWYER}`,
    ),
  },
  {
    factor: "Tells what a lawyer advised",
    weight: 55,
    type: "attorney-client",
    pattern: rule(
      `\\b${OURS} ${LAWYER} (?:~{0,40}\\s)?${SPOKE}\\b`,
      `\\b(?:the |both )?(?:counsel|legal|lawyers|attorneys)(?:['’]s)? (?:(?:has|have|had|also|just|is|are) )?(?:advis(?:es|ed|ing)|cautioned|warned (?:us|me)|told (?:us|me)|wants us|signed off|cleared|opinion|advice)`,
      `\\b(?:according to|spoke (?:to|with)|talked (?:to|with)|met with|heard (?:back )?from|advice (?:of|from)) (?:${OURS} |the )?${LAWYER}\\b`,
    ),
  },
  {
    factor: "Asks for legal advice",
    weight: 55,
    type: "attorney-client",
    pattern: rule(
      "\\b(?:need|want|seek\\w{0,3}|request\\w{0,3}|ask\\w{0,3}|get\\w{0,4}|obtain\\w{0,3}|for|like|appreciate) (?:~{0,30}\\s)?legal (?:advice|opinion|guidance|review|input|assistance|help)\\b",
      `\\b(?:run|check|clear|cleared|go over|discuss|review) (?:~{0,40}\\s)?(?:by|past|with) (?:${OURS} )?(?:legal|${LAWYER})\\b`,
      `\\b(?:advise|your (?:advice|view|opinion|thoughts|take)|let (?:us|me) know|what do you think|can you (?:look|review|check)|could you (?:look|review|check)|please (?:look|review|check))\\b~{0,100}\\b${MATTER}`,
      "\\b(?:are|could|can|would|might|will) (?:we|they|he|she|i) (?:~{0,25}\\s)?(?:be (?:held )?|hold us |held )?(?:liable|sued?|obliged|obligated|in breach|on the hook|personally responsible|take us to court|legally)",
      "\\b(?:do|would|did) (?:we|they|i) (?:~{0,15}\\s)?(?:have (?:a|any|good|enough)?\\s?(?:grounds|case\\b(?! of)|claim|defen[cs]e|exposure|legal|right to (?:terminate|withhold|sue|refuse))|have to (?:disclose|report|hand over|produce|notify))",
      `\\b(?:what are|how good are) (?:our|my) (?:legal )?(?:rights|chances|options|obligations|remedies)\\b~{0,120}\\b${MATTER}`,
      "\\b(?:is|was) (?:it|this|that) (?:even )?(?:legal|lawful|legally|against the law)\\b~{0,80}\\?",
    ),
  },
  {
    factor: "Gives legal advice",
    weight: 55,
    type: "attorney-client",
    pattern: rule(
      "\\b(?:my|our) (?:legal )?(?:advice|opinion|recommendation|assessment|analysis|view) (?:is|would be|remains)\\b~{0,160}\\b" + MATTER,
      `\\b(?:i|we)(?:['’]d| would| must| do| strongly)* (?:strongly )?(?:advise|recommend|caution|counsel)\\b~{0,140}\\b${MATTER}`,
      `\\bin (?:my|our) (?:legal )?(?:view|opinion|judge?ment)\\b~{0,160}\\b${MATTER}`,
      "\\b(?:we|you|they|i) (?:~{0,15}\\s)?(?:have|had|has|'ve got) (?:~{0,12}\\s)?(?:strong|weak|good|valid|viable|decent|poor|no|arguable) (?:legal )?(?:case|claims?|defen[cs]es?|grounds|argument)\\b",
      "\\b(?:would|will|could|might|likely to|should|not|cannot) (?:~{0,12}\\s)?(?:win|lose|prevail|stand up|hold up|survive|be enforce\\w{1,4}|fail) (?:~{0,30}\\s)?(?:in court|at trial|before a (?:judge|jury)|in litigation|on appeal|the (?:case|claim|motion|lawsuit))",
      "\\b(?:not (?:legally )?(?:binding|enforceable)|unenforceable|legally (?:binding|required|obliged|obligated|entitled|permitted))\\b",
      "\\b(?:not|n['’]t|nothing|never|avoid|stop) (?:~{0,30}\\s)?(?:in writing|in e-?mails?|over e-?mail|on paper|admit\\w{0,4} (?:liability|fault|anything))\\b",
    ),
  },
  {
    factor: "Speaks of the strategy or the risk of a dispute",
    weight: 55,
    type: "work-product",
    pattern: rule(
      "\\b(?:litigation|settlement|trial|case|legal|defen[cs]e|deposition) (?:strategy|posture|authority|risks?|exposure|theory|preparation|hold|assessment|budget)\\b",
      "\\b(?:legal exposure|our (?:exposure|liability|defen[cs]e)|theory of the case|mock (?:trial|jury)|witness (?:preparation|outline|prep)|deposition (?:prep|outline|questions)|expert witness)\\b",
      "\\b(?:draft|drafts|drafted|revised|redlined?|mark-?up of|comments on) (?:~{0,30}\\s)?(?:complaint|motion|brief|pleadings?|answer to|affidavit|declaration|interrogator\\w{1,3}|settlement agreement|privilege log)\\b",
      "\\bif (?:they|we|he|she|it|this) (?:~{0,30}\\s)?(?:sues?|goes? to (?:court|trial)|ends? up in court|files? (?:suit|a (?:claim|lawsuit|complaint)))\\b",
    ),
  },
  {
    factor: "Signed or named with a lawyer's title",
    weight: 40,
    type: "attorney-client",
    pattern: rule(
      "(?:,|\\b[A-Z][a-z]{1,20})\\s{1,2}Esq(?:uire)?\\b",
      "\\battorneys?[- ]at[- ]law\\b|\\b(?:associate |deputy |assistant )?general counsel\\b|\\bchief legal officer\\b|\\b(?:senior|staff|corporate|associate|legal|litigation) counsel|(?<=,\\s{0,3})of counsel\\b",
      "\\bbarristers? (?:and|&) solicitors?\\b|\\bstaff attorney\\b|\\bparalegal\\b|\\bstate bar (?:no|number)\\b|\\b(?:counsel|attorneys?) for (?:the )?(?:plaintiff|defendant|petitioner|respondent|appell)",
    ),
  },
  {
    factor: "Speaks of own lawyers",
    weight: 20,
    type: "attorney-client",
    pattern: rule(`\\b(?:our|my|outside|in-?house|external|the company['’]s) ${LAWYER}\\b`),
  },
  {
    factor: "Mentions a lawyer",
    weight: 10,
    type: "attorney-client",
    pattern: rule("\\b(?:lawyers?|attorneys?|solicitors?|barristers?|legal counsel|law firm)\\b"),
  },
  {
    factor: "Marked as confidential",
    weight: 45,
    type: "confidential",
    legend: true,
    pattern: rule(
      "\\b(?:strictly|highly|company|commercially|private (?:and|&)|business) confidential\\b",
      "(?<=^|\\n)[ \\t*[(#=-]{0,20}confidential[ \\t*.!\\]):=-]{0,20}(?=\\n|$)",
      "(?<=subject: (?:re: ?|fwd?: ?){0,5})\\W{0,4}confidential\\b",
      "\\bconfidential\\s?(?:-|–|—|:|/)\\s?(?:do not|not for|internal|draft|attorneys?['’]? eyes)",
    ),
  },
  {
    factor: "Asks to keep it confidential",
    weight: 40,
    type: "confidential",
    legend: true,
    pattern: rule(
      "\\b(?:do not|don['’]t|please do not|must not) (?:forward|distribute|share|circulate|disclose|copy) (?:this|it|these|any)\\b",
      "\\b(?:keep|treat|hold) (?:this|it|these|that)(?: \\w{1,20})? (?:\\w{1,20} )?(?:(?:in )?(?:strict(?:est)? )?(?:confidence|confidential|secret|between us|to yourself|private|quiet)|as confidential)",
      "\\bfor your eyes only\\b|\\bnot for (?:further )?(?:distribution|circulation)\\b",
    ),
  },
  {
    factor: "Sent to the subscribers of something",
    weight: -50,
    pattern: rule(
      "\\bunsubscrib|\\(un\\)subscri|\\blistinfo\\b|\\battorney advertising\\b|\\bmanage your (?:subscription|e-?mail preferences)",
      "\\b(?:remove[d]?|taken) (?:from|off) (?:this|our|the|future) (?:mailing )?(?:list|mailings)\\b",
      "\\b(?:receiving|received|getting|sent) this (?:e-?mail|message|newsletter|mailing) (?:because|as a (?:subscriber|member|registered))",
    ),
  },
  {
    factor: "Reads like an advertisement or a newsletter",
    weight: -15,
    pattern: rule(
      "\\bthis week['’]s (?:issue|edition)\\b|\\bnewsletter\\b|\\bmailing list\\b|\\bto be removed\\b|\\b(?:limited time|special) offer\\b|\\bclick (?:here|below)\\b|\\bact now\\b|\\bmoney[- ]back guarantee",
    ),
  },
  {
    factor: "Published or filed with a court",
    weight: -40,
    pattern: rule(
      "\\bfor immediate release\\b|\\bcourt of appeals\\b|\\bunited states district court\\b|\\b(?:supreme|superior|circuit|district) court (?:of|for) the\\b|\\b(?:opinion|order) (?:of|by) the court\\b|\\ball rights reserved\\b|\\(reuters\\)|\\(ap\\)",
    ),
  },
];

/** Terms of disputes and contracts: who uses several of them of his own affairs writes about law, whether he names a lawyer or not. */
export const TERMS =
  /\b(?:lawsuits?|litigation|sued?|suing|liab(?:le|ility|ilities)|breach(?:ed)?|indemni\w{2,6}|subpoenas?|depositions?|plaintiffs?|defendants?|arbitration|settlement|damages|injunction|statutes?|statutory|infring\w{2,6}|non-?compete|cease and desist|court|judge|jury|trial|claims?|clause|termination|negligen\w{2,3}|warrant(?:y|ies)|compliance|regulators?|investigat\w{2,4}|unlawful|illegal|privilege|disclosures?|discovery|contract(?:ual)?)\b/gi;
export const OWN = /\b(?:we|our|us)\b/i;

const FIRMS =
  /(?:^|[.-])(?:law|laws|legal|llp|attorneys?|counsel|lawyers?|solicitors?|barristers?|advocates?|avocats?|abogados?|rechtsanwa?e?lte?|kanzlei|esq)(?:[.-]|$)|(?:^|[.-])law(?:firm|office|group|yers?|partners)|(?:^|[.-])\w{0,40}(?:(?<!\b(?:out|f|c|s|coles|in|by))law|lawfirm|lawgroup|lawoffices?|legal|llp|lawyers|attorneys|solicitors|counsel)(?:[.-]|$)|(?:^|[.-])(?:skadden|cravath|kirkland|sullcrom|davispolk|wlrk|weil|gibsondunn|jonesday|akingump|paulweiss|cliffordchance|linklaters|allenovery|freshfields|slaughterandmay|whitecase|dlapiper|bakermckenzie|hoganlovells|sidley|mofo|wilmerhale|quinnemanuel|clearygottlieb|milbank|ropesgray|velaw|bracepatt)\.\w/;
const LOCAL = /^(?:(?:general|corporate|outside)?[._-]?counsel|legal|attorneys?|lawyers?|paralegal)(?:[._-]|\d|$)|[._-](?:esq|legal|counsel|attorney)$/;
const NAMED =
  /\b(?:esq(?:uire)?|attorneys?|counsel|lawyers?|solicitors?|barristers?|llp|law (?:firm|offices?|group)|legal (?:department|dept|team|affairs)|paralegal)\b|\blegal\)?$/i;

/** Whether a mailbox is one of a lawyer, by its domain, its address or its name. */
export function isLawyers(box: Mailbox): boolean {
  return FIRMS.test(domainOf(box)) || LOCAL.test(box.address.split("@")[0]) || NAMED.test(box.name);
}
