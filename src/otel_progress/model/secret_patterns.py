"""Regular expressions of the default redaction: where a secret may begin, and what one looks like.

They are texts: `secrets.py` compiles each at its first use.
"""

from __future__ import annotations

from typing import Final

WORD: Final = 16
"""Number of letters from which a value counts as a secret rather than a word."""

_NAMES: Final = (
    r"pass(?:word|wd|phrase|code|(?<![a-z]pass))|pwd|secret(?:[_-]?id)?|token|credential|authorization|signature|"
    r"api[_-]?key|(?:access|account|auth)[_-]?key|private[_-]?key|s(?:igning|ession)[_-]?key|encryption[_-]?key"
)
"""In lower case, like all names: lowering the text once is faster than matching without case."""
_SUFFIX: Final = (
    r"key|value|hash|base|token|prod(?:uction)?|dev|test|stag(?:e|ing)|live|old|new|current|main|master|root|admin|"
    r"user|db|default|plain|text|string|env|\d{1,4}"
)
NAMED: Final = rf"(?:{_NAMES})s?(?:[_-]?(?:{_SUFFIX})){{0,2}}(?![a-z])"
WEAK: Final = r"token|credential|authorization|signature"
"""Words that also occur in prose and in programs: the value after them must look like a secret."""
OF_A_LOGIN: Final = (
    r"(?:--|(?<![a-z])(?:db|database|sql|mysql|pg|postgres|mongo|redis|mq|rabbit|amqp|smtp|imap|e?mail|ftp|ssh|ldap|bind|"
    r"http|proxy|vpn|wifi|user|login|admin|root|sudo|app|auth|my|store|key)[_-])\Z"
)
"""Prefixes that make `pass` mean a password; otherwise it is one of several passes."""

_GAP: Final = r"(?:\s|\x1b\[[\d;]{0,12}m){0,4}"
_TYPE: Final = r":\s{0,2}[a-z.\[]{0,24}(?:str|bytes|any|final)[a-z\[\] |.]{0,16}=\s{0,2}(?=[bruf]{0,2}[\"'])"
_OPENING: Final = r"(?:[bruf]{1,2}(?=\\{0,8}[\"']))?"
KEYED: Final = (
    rf"(?P<name>{NAMED})(?P<quote>\\{{0,8}}[\"'])?\]?"
    rf"(?P<by>{_GAP}(?:{_TYPE}|:=|[:!]?={{1,3}}>?|:|>(?=[^\s<>]{{1,200}}</)){_GAP}){_OPENING}"
)
PAIR: Final = rf"(?P<name>authorization|x-api-key|cookie)(?P<quote>\\{{0,8}}[\"'])(?P<by>\s{{0,2}},\s{{0,2}}){_OPENING}"
OPTION: Final = r"(?<!-)--(?P<name>[a-z][a-z0-9_-]{0,60})(?P<quote>)(?P<by>\\{0,8}[\"']?,?\s{1,3}(?!-))?"
COOKIE: Final = rf"(?P<name>cookies?)(?P<quote>\\{{0,8}}[\"'])?\]?(?P<by>{_GAP}[:=]{{1,2}}{_GAP}){_OPENING}"
LOGIN: Final = r"(?P<name>(?<![a-z])auth)(?P<quote>\\{0,8}[\"'])?(?P<by>\s?[=:]\s?)(?!\[redacted\])(?=[\w.]{0,60}[(\[])"
SCHEME: Final = r"(?P<name>bearer|basic)(?P<quote>)(?P<by>\s{1,3})(?=[\w.~+/=-]{8})"
BY_NAME: Final = (COOKIE, KEYED, PAIR, OPTION, LOGIN, SCHEME)
WORDS: Final = (
    "pass",
    "pwd",
    "secret",
    "token",
    "credential",
    "auth",
    "signature",
    "key",
    "cookie",
    "bearer",
    "basic",
)

QUOTE: Final = r"(\\{0,8})(\"{3}|'{3}|\"|')"
PLAIN: Final = r"[^\s,;&\"'<>()\[\]{}]*(?:[,;&]+(?!\w[\w.-]{0,40}\s?[=:])[^\s,;&\"'<>()\[\]{}]+)*"
"""A value without quotes continues after a comma unless `key=` or `key:` follows."""
MORE: Final = r"[,;&]+(?!\w[\w.-]{0,40}\s?[=:])(?=[^\s,;&\"'<>)\]}])"
NESTED: Final = r"""\\.|"[^"\\]*(?:\\.[^"\\]*)*"|'[^'\\]*(?:\\.[^'\\]*)*'|[()\[\]{}]"""
_PARAMETER: Final = r"[\w-]{1,40}=(?:\\{0,3}\"[^\"\n]*\"|[^\s\"',]+)"
SCHEMED: Final = (
    r"(?P<scheme>[A-Za-z][\w-]{0,40})[ \t]{1,3}"
    rf"(?P<rest>{_PARAMETER}(?:,?[ \t]{{0,2}}{_PARAMETER})*|[^\s\"',]+)"
)
"""The credentials of a header: a scheme with a word or parameters."""

KNOWN_SCHEMED: Final = r"(?i:bearer|basic|negotiate)[ \t]{1,3}[^\s\"',]+"

TOKEN: Final = r"(?=[^a-zA-Z]*[a-zA-Z])(?=\D*\d)[\w.~+/=:-]{8,}|[\w.~+/=:-]{20,}|\d{12,}"
PLAIN_WORD: Final = rf"[a-z]{{1,{WORD - 1}}}(?:[_-][a-z]{{1,{WORD - 1}}}){{0,5}}"
NUMBERED: Final = r"[a-z]{1,15}[_-]\d{1,6}"
AMOUNT: Final = r"[-+]?(?!\d{12})[\d.,_]+(?:e[-+]?\d+|[kmgt]?b?|%)|true|false|none|null|\*+"
FLAG: Final = r"true|false|none|null|\*+"
ANY_AMOUNT: Final = r"pass|pwd|secret|credential"
DIRECTORY: Final = r"(?:~|[a-z]:\\|/)[\w./\\~ -]*"

USER: Final = r"://[^/\s:@?#\[\]\"'<>]{0,200}:(?!\d{1,5}(?:[/?#]|@sha\d))"
URL_END: Final = r"[\s\"'<>]|\Z"
CURL: Final = (
    r"(?P<tool>(?<![\w.-])(?:curl|wget|https?|xh)(?=[\s\"',]))|(?P<end>[\n;|])|"
    r"(?<=[\s\"',])(?:-[A-Za-z]{0,6}[uU]|--(?:proxy-)?user)[=\s\"',]{0,4}[^\s:\"',=-][^\s:\"',]{0,200}:(?P<value>[^\s\"',]{1,2000})"
)
LOGIN_OPTION: Final = r"-[A-Za-z]{0,6}[uU]|-user"
QUERY: Final = r"([?&](?:key|sig|code|auth|[Xx]-[Aa]mz-[\w-]{1,30})=)([^\s&\"'<>]+)"
PARAMETER_SECRET: Final = r"(?=[^a-zA-Z]*[a-zA-Z])(?=\D*\d).{8,}|.{16,}"
RUN: Final = r"[\w-]{16}"
"""A run of characters that every known format contains."""
ESCAPE: Final = (
    r"(?:(?<![A-Za-z0-9_])|(?<=\\[nrtbfv0])|(?<=[%x][0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4})|(?<=\[\d{1}m)|(?<=\[\d{2}m))"
)
"""A known format begins after a non-letter, or after an escape such as the `\\n` of JSON or the `%20` of a URL."""
STARTS: Final = (
    *("AKIA", "ASIA", "ABIA", "gh", "gl", "GR1348941", "xox", "xapp-", "xwfp-", "sk-", "sk_", "rk_", "pk_", "whsec_"),
    *("AIza", "ya29.", "GOCSPX-", "1//0", "hf_", "npm_", "pypi-AgE", "dckr_", "do", "shp", "SG.", "key-", "hv", "ls"),
    *("pplx-", "gsk_", "tvly-", "sess-", "github_pat_"),
)
"""Prefixes of the known formats; a text without any of them needs no further search."""
FORMS: Final = (
    ESCAPE
    + r"""(?x:
    A[KSB]IA[0-9A-Z]{16}                                           # Amazon Web Services
    |gh[opusr]_[A-Za-z0-9]{20,} | github_pat_\w{20,}               # GitHub
    |gl[a-z]{2,8}-(?:(?=[\w-]{0,60}\d)|(?=[A-Za-z0-9]{16}))[\w.-]{16,} | GR1348941[\w-]{16,}
    |xox[a-z](?:\.xox[a-z])?-(?=[\w-]{0,60}\d)[\w-]{11,} | (?:xapp|xwfp)-(?=[\w-]{0,60}\d)[\w-]{11,}   # Slack
    |sk-(?:(?=[\w-]{0,60}\d)|(?=[A-Za-z0-9]{16})|(?=(?:proj|ant|svcacct|admin)-))[\w-]{16,}
    |sess-(?:(?=[\w-]{0,60}\d)|(?=[A-Za-z0-9]{16}))[\w-]{20,}      # OpenAI, Anthropic and others
    |(?:sk|rk|pk)_(?:live|test)_\w{10,} | whsec_[\w+/=]{16,}       # Stripe
    |AIza[\w-]{30,} | ya29\.(?:[a-z]\.)?[\w-]{20,} | GOCSPX-[\w-]{20,} | 1//0[\w-]{20,}   # Google
    |hf_[A-Za-z0-9]{20,} | npm_[A-Za-z0-9]{30,} | pypi-AgE[\w-]{27,}  # registries of models and packages
    |dckr_[po]at_[\w-]{20,} | do[por]_v1_[0-9a-f]{40,} | shp(?:at|ca|pa|ss|tka)_[0-9a-fA-F]{20,}
    |SG\.[\w-]{16,}\.[\w-]{16,} | key-[0-9a-f]{32}                 # mail services
    |hv[sbr]\.[\w-]{20,} | lsv2_(?:pt|sk)_\w{20,} | ls__\w{20,} | pplx-\w{20,} | gsk_\w{20,} | tvly-[\w-]{16,}
    )"""
)
JWT_START: Final = ESCAPE.replace("A-Za-z0-9_", "A-Za-z0-9") + "eyJ"
JWT: Final = r"(?<![\w-])[\w-]{16,}\.[\w-]*(?:\.[\w-]*){0,3}"
BOT: Final = ESCAPE + r"\d{8,10}:[A-Za-z0-9_-]{35}(?!\w)"  # Telegram
HOOK: Final = (
    r"(hooks\.slack\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/(?:v\d{1,3}/)?webhooks/)[\w/-]+"
)
_BEGUN: Final = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_ENDED: Final = r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
PRIVATE: Final = rf"(?s:{_BEGUN}.*?(?:{_ENDED}|\Z))"
PRIVATE_REST: Final = rf"(?s:\A.*{_ENDED})"
MARKS: Final = ("=", ":", "--", "</", '",', "',", "earer ", "asic ")
"""A text with none of these and without a long word contains no recognisable secret; most texts end here."""

KEY: Final = rf"(?:{NAMED}|cookies?|(?<![a-z])auth|dsn|conn(?:ection)?[_-]?str(?:ing)?)\Z"
