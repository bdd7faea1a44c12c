"""The default redaction: masks what looks like a secret before it leaves the process.

It recognises secrets by their context (`password=…`, `Authorization: …`, `--token …`, `https://user:…@host`, an
attribute named `api_key`) and by their format (keys of well-known services, JSON Web Tokens, private keys). It does not
measure randomness, as ids and hashes look random too: a secret of unknown format in plain text is not found.

Small expressions find where a value may begin; functions decide whether it is a secret, and where it ends. A decision
looks at a bounded number of characters, and an end is searched only for what is masked, so the time is linear.
"""

from __future__ import annotations

import functools
import re
from typing import Final

_compiled = functools.cache(re.compile)
"""Compiles at first use: compiling all takes longer than importing the whole package."""

MASK: Final = "[redacted]"
"""Replacement for a secret."""

WORD: Final = 16
"""Number of letters from which a value counts as a secret rather than a word."""

PASSES: Final = 4
"""Maximum number of passes over a text: a mask may expose a secret that was part of another value."""

NESTED: Final = 50
"""Number of quotes and brackets that are examined to find the end of a bracket inside a word."""

PASSWORD_LENGTH: Final = 2000
"""Characters of a URL that are searched for the end of a password."""

_NAMES: Final = (
    r"pass(?:word|wd|phrase|code|(?<![a-z]pass))|pwd|secret(?:[_-]?id)?|token|credential|authorization|signature|"
    r"api[_-]?key|(?:access|account|auth)[_-]?key|private[_-]?key|s(?:igning|ession)[_-]?key|encryption[_-]?key"
)
"""In lower case, like all names: lowering the text once is faster than matching without case."""
_SUFFIX: Final = (
    r"key|value|hash|base|token|prod(?:uction)?|dev|test|stag(?:e|ing)|live|old|new|current|main|master|root|admin|"
    r"user|db|default|plain|text|string|env|\d{1,4}"
)
_NAMED: Final = rf"(?:{_NAMES})s?(?:[_-]?(?:{_SUFFIX})){{0,2}}(?![a-z])"
_WEAK: Final = r"token|credential|authorization|signature"
"""Words that also occur in prose and in programs: the value after them must look like a secret."""
_OF_A_LOGIN: Final = (
    r"(?:--|(?<![a-z])(?:db|database|sql|mysql|pg|postgres|mongo|redis|mq|rabbit|amqp|smtp|imap|e?mail|ftp|ssh|ldap|bind|"
    r"http|proxy|vpn|wifi|user|login|admin|root|sudo|app|auth|my|store|key)[_-])\Z"
)
"""Prefixes that make `pass` mean a password; otherwise it is one of several passes."""

_GAP: Final = r"(?:\s|\x1b\[[\d;]{0,12}m){0,4}"
_TYPE: Final = r":\s{0,2}[a-z.\[]{0,24}(?:str|bytes|any|final)[a-z\[\] |.]{0,16}=\s{0,2}(?=[bruf]{0,2}[\"'])"
_OPENING: Final = r"(?:[bruf]{1,2}(?=\\{0,8}[\"']))?"
_KEYED: Final = (
    rf"(?P<name>{_NAMED})(?P<quote>\\{{0,8}}[\"'])?\]?"
    rf"(?P<by>{_GAP}(?:{_TYPE}|:=|[:!]?={{1,3}}>?|:|>(?=[^\s<>]{{1,200}}</)){_GAP}){_OPENING}"
)
_PAIR: Final = (
    rf"(?P<name>authorization|x-api-key|cookie)(?P<quote>\\{{0,8}}[\"'])(?P<by>\s{{0,2}},\s{{0,2}}){_OPENING}"
)
_OPTION: Final = r"(?<!-)--(?P<name>[a-z][a-z0-9_-]{0,60})(?P<quote>)(?P<by>\\{0,8}[\"']?,?\s{1,3}(?!-))?"
_COOKIE: Final = rf"(?P<name>cookies?)(?P<quote>\\{{0,8}}[\"'])?\]?(?P<by>{_GAP}[:=]{{1,2}}{_GAP}){_OPENING}"
_LOGIN: Final = (
    r"(?P<name>(?<![a-z])auth)(?P<quote>\\{0,8}[\"'])?(?P<by>\s?[=:]\s?)(?!\[redacted\])(?=[\w.]{0,60}[(\[])"
)
_SCHEME: Final = r"(?P<name>bearer|basic)(?P<quote>)(?P<by>\s{1,3})(?=[\w.~+/=-]{8})"
_BY_NAME: Final = (_COOKIE, _KEYED, _PAIR, _OPTION, _LOGIN, _SCHEME)
_WORDS: Final = (
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

_QUOTE: Final = r"(\\{0,8})(\"{3}|'{3}|\"|')"
_PLAIN: Final = r"[^\s,;&\"'<>()\[\]{}]*(?:[,;&]+(?!\w[\w.-]{0,40}\s?[=:])[^\s,;&\"'<>()\[\]{}]+)*"
"""A value without quotes continues after a comma unless `key=` or `key:` follows."""
_MORE: Final = r"[,;&]+(?!\w[\w.-]{0,40}\s?[=:])(?=[^\s,;&\"'<>)\]}])"
_NESTED: Final = r"""\\.|"[^"\\]*(?:\\.[^"\\]*)*"|'[^'\\]*(?:\\.[^'\\]*)*'|[()\[\]{}]"""
_PARAMETER: Final = r"[\w-]{1,40}=(?:\\{0,3}\"[^\"\n]*\"|[^\s\"',]+)"
_SCHEMED: Final = (
    r"(?P<scheme>[A-Za-z][\w-]{0,40})[ \t]{1,3}"
    rf"(?P<rest>{_PARAMETER}(?:,?[ \t]{{0,2}}{_PARAMETER})*|[^\s\"',]+)"
)
"""The credentials of a header: a scheme with a word or parameters."""

_KNOWN_SCHEMED: Final = r"(?i:bearer|basic|negotiate)[ \t]{1,3}[^\s\"',]+"

_TOKEN: Final = r"(?=[^a-zA-Z]*[a-zA-Z])(?=\D*\d)[\w.~+/=:-]{8,}|[\w.~+/=:-]{20,}|\d{12,}"
_PLAIN_WORD: Final = rf"[a-z]{{1,{WORD - 1}}}(?:[_-][a-z]{{1,{WORD - 1}}}){{0,5}}"
_NUMBERED: Final = r"[a-z]{1,15}[_-]\d{1,6}"
_AMOUNT: Final = r"[-+]?(?!\d{12})[\d.,_]+(?:e[-+]?\d+|[kmgt]?b?|%)|true|false|none|null|\*+"
_FLAG: Final = r"true|false|none|null|\*+"
_ANY_AMOUNT: Final = r"pass|pwd|secret|credential"
_DIRECTORY: Final = r"(?:~|[a-z]:\\|/)[\w./\\~ -]*"

_USER: Final = r"://[^/\s:@?#\[\]\"'<>]{0,200}:(?!\d{1,5}(?:[/?#]|@sha\d))"
_URL_END: Final = r"[\s\"'<>]|\Z"
_CURL: Final = (
    r"(?P<tool>(?<![\w.-])(?:curl|wget|https?|xh)(?=[\s\"',]))|(?P<end>[\n;|])|"
    r"(?<=[\s\"',])(?:-[A-Za-z]{0,6}[uU]|--(?:proxy-)?user)[=\s\"',]{0,4}[^\s:\"',=-][^\s:\"',]{0,200}:(?P<value>[^\s\"',]{1,2000})"
)
_LOGIN_OPTION: Final = r"-[A-Za-z]{0,6}[uU]|-user"
_QUERY: Final = r"([?&](?:key|sig|code|auth|[Xx]-[Aa]mz-[\w-]{1,30})=)([^\s&\"'<>]+)"
_PARAMETER_SECRET: Final = r"(?=[^a-zA-Z]*[a-zA-Z])(?=\D*\d).{8,}|.{16,}"
_RUN: Final = r"[\w-]{16}"
"""A run of characters that every known format contains."""
_ESCAPE: Final = (
    r"(?:(?<![A-Za-z0-9_])|(?<=\\[nrtbfv0])|(?<=[%x][0-9A-Fa-f]{2})|(?<=\\u[0-9A-Fa-f]{4})|(?<=\[\d{1}m)|(?<=\[\d{2}m))"
)
"""A known format begins after a non-letter, or after an escape such as the `\\n` of JSON or the `%20` of a URL."""
_STARTS: Final = (
    *("AKIA", "ASIA", "ABIA", "gh", "gl", "GR1348941", "xox", "xapp-", "xwfp-", "sk-", "sk_", "rk_", "pk_", "whsec_"),
    *("AIza", "ya29.", "GOCSPX-", "1//0", "hf_", "npm_", "pypi-AgE", "dckr_", "do", "shp", "SG.", "key-", "hv", "ls"),
    *("pplx-", "gsk_", "tvly-", "sess-", "github_pat_"),
)
"""Prefixes of the known formats; a text without any of them needs no further search."""
_FORMS: Final = (
    _ESCAPE
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
_JWT: Final = r"(?<![\w-])[\w-]{16,}\.[\w-]*(?:\.[\w-]*){0,3}"
_BOT: Final = _ESCAPE + r"\d{8,10}:[A-Za-z0-9_-]{35}(?!\w)"  # Telegram
_HOOK: Final = (
    r"(hooks\.slack\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/(?:v\d{1,3}/)?webhooks/)[\w/-]+"
)
_BEGUN: Final = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_ENDED: Final = r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_PRIVATE: Final = rf"(?s:{_BEGUN}.*?(?:{_ENDED}|\Z))"
_PRIVATE_REST: Final = rf"(?s:\A.*{_ENDED})"
_MARKS: Final = ("=", ":", "--", "</", '",', "',", "earer ", "asic ")
"""A text with none of these and without a long word contains no recognisable secret; most texts end here."""

_KEY: Final = rf"(?:{_NAMED}|cookies?|(?<![a-z])auth|dsn|conn(?:ection)?[_-]?str(?:ing)?)\Z"
_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def mask_secrets(what: str, text: str) -> str:
    """Replace what looks like a secret with `[redacted]`; this is the default of `configure(redact=…)`.

    To mask more, call it from a redaction of your own.

    Args:
        what: the kind of text: `message`, `description`, `note`, `item`, `reason`, `wait`, `step`, `exception`,
            `stack`, `command`, `stderr`, `name`, or the key of an attribute or a result.
        text: the text.

    Example:
        `mask_secrets("message", "password=hunter2")` returns `"password=[redacted]"`.
    """
    if _means_secret(what):
        return MASK if text and _is_meant(_lower(what), text) else text
    if len(text) < 6 or not _is_suspect(text):
        return text
    if "PRIVATE KEY" in text:
        text = _compiled(_PRIVATE_REST).sub(MASK, _compiled(_PRIVATE).sub(MASK, text), count=1)
    for _ in range(PASSES):
        found = _without_named(_without_addresses(_without_forms(text)))
        if found == text:
            break
        text = found
    return text


def _is_suspect(text: str) -> bool:
    return any(mark in text for mark in _MARKS) or max(map(len, text.split()), default=0) >= WORD


@functools.lru_cache(1024)
def _means_secret(what: str) -> bool:
    return _compiled(_KEY).search(_lower(what)) is not None


def _lower(text: str) -> str:
    """Lower the ASCII letters of the text without changing its length."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def _is_amount(text: str) -> bool:
    """Whether the text is a number or a flag."""
    return _compiled(_AMOUNT).fullmatch(text.lower()) is not None


def _is_word(text: str) -> bool:
    return _compiled(_PLAIN_WORD).fullmatch(text.lower()) is not None


def _is_token(text: str) -> bool:
    """Whether a value looks generated by a program."""
    return "://" not in text and _compiled(_TOKEN).fullmatch(text) is not None


def _is_meant(key: str, text: str) -> bool:
    """Whether the value of an attribute with this key is a secret."""
    if "token" in key and _is_amount(text):
        return False
    if _compiled(r"pwd\Z").search(key) and _compiled(_DIRECTORY).fullmatch(text.lower()):
        return False
    if key.endswith("tokens"):
        return not all(map(_is_word, text.split()))
    if key.endswith("pass") and not _compiled(_OF_A_LOGIN).search(key[:-4]):
        return _is_token(text)
    return _compiled(_ANY_AMOUNT).search(key) is not None or _compiled(_FLAG).fullmatch(text.lower()) is None


def _without_named(text: str) -> str:
    """Mask the values after names that mean a secret."""
    lower = _lower(text)
    if any(word in lower for word in _WORDS):
        for pattern in _BY_NAME:
            text = _masked(pattern, text)
    return text


def _masked(pattern: str, text: str) -> str:
    """Mask the value after each match of the pattern."""
    parts, at = [], 0
    for found in _compiled(pattern).finditer(_lower(text)):
        start = found.end()
        if found.start("name") < at or start >= len(text):
            continue
        end = _end_of_secret(pattern, found, text, start)
        if end > start:
            parts += [text[at:start], _in_quotes(text[start:end], found["quote"] or "")]
            at = end
    return "".join((*parts, text[at:])) if at else text


def _end_of_secret(pattern: str, found: re.Match[str], text: str, start: int) -> int:
    """Return the end of the secret at `start`; `start` if there is none."""
    if pattern == _COOKIE:
        return _end_of_cookies(found, text, start)
    if pattern == _LOGIN:
        return _end_of_value(text, start)
    if pattern == _SCHEME:
        return _end_of_bare_scheme(text, start)
    name = found["name"]
    if pattern == _OPTION:
        known = _compiled(rf"{_NAMED}\Z").search(name) if found["by"] else None
        if known is None:
            return start
        name = known[0]
    weak = _compiled(_WEAK).match(name) is not None
    if pattern == _PAIR or (weak and pattern != _OPTION):
        end = _end_of_weak(pattern, found, text, start)
    elif (
        name == "pass" and pattern == _KEYED and not _compiled(_OF_A_LOGIN).search(found.string[: found.start()][-12:])
    ):
        end = _end_of_word(text, start)
        return end if _is_token(text[start:end].strip("\"'")) else start
    else:
        end = _end_of_value(text, start)
        value = text[start:end].strip("\"'\\")
        if not value or (weak and _is_amount(value)) or _stays(name, value):
            return start
    return end


def _stays(name: str, value: str) -> bool:
    """Whether a value is not a secret, even after a name that means one."""
    if name == "pwd" and _compiled(_DIRECTORY).fullmatch(value.lower()):
        return True
    return _compiled(_ANY_AMOUNT).search(name) is None and _compiled(_FLAG).fullmatch(value.lower()) is not None


def _end_of_weak(pattern: str, found: re.Match[str], text: str, start: int) -> int:
    """Return the end of the value after a word that also occurs in prose; `start` if it does not look like a secret."""
    inner = start + len(_compiled(r"[\[({\s\"'\\]{0,8}").match(text, start)[0])  # type: ignore[index]
    header = found["name"].startswith("authorization")
    schemed = _compiled(_SCHEMED if header else _KNOWN_SCHEMED).match(text, inner)
    if schemed and (not header or _is_schemed(schemed)):
        quoted = inner > start and text[start] in "\"'\\[({"
        return max(_end_of_value(text, start), schemed.end()) if quoted else schemed.end()
    word = text[inner : _end_of_word(text, inner)].rstrip("\\")
    by, quoted = found["by"], inner > start
    if not any(map(str.isalnum, word)) or ("token" in found["name"] and _is_amount(word)):
        return start
    if _compiled(_FLAG).fullmatch(word.lower()):
        return start
    if pattern == _PAIR or found["quote"] or (found["name"].endswith("s") and "=" in by):
        secret = not _is_word(word)
    elif "=" not in by:
        secret = _is_token(word.rstrip(".:!?"))
    else:
        secret = not (quoted and _is_word(word))
    if text[start] in "[({" and not (_is_token(word) or (found["quote"] and not _is_word(word))):
        secret = False
    return _end_of_value(text, start) if secret else start


def _is_schemed(schemed: re.Match[str]) -> bool:
    """Whether it is the value of a header rather than prose."""
    rest = schemed["rest"].rstrip(".!?;:)")
    if _compiled(_KNOWN_SCHEMED).match(schemed[0]):
        return True
    return not _is_word(rest) and any(map(str.isalnum, rest)) and not _is_amount(rest)


def _end_of_bare_scheme(text: str, start: int) -> int:
    """Return the end of the value after `Bearer` or `Basic`."""
    found = _compiled(r"[\w.~+/=-]+").match(text, start)
    if found is None or not _is_token(found[0]) or _compiled(_NUMBERED).fullmatch(found[0].lower()):
        return start
    return found.end()


def _end_of_cookies(found: re.Match[str], text: str, start: int) -> int:
    """Return the end of cookies; after the name of a header, this is the end of the line."""
    if found["quote"] or text[start] in "\"'\\[({":
        return _end_of_value(text, start)
    before = text[max(0, found.start() - 12) : found.start()]
    quote = _compiled(r"[\"'](?=(?:[Ss]et-)?\Z)").search(before)
    line = r"[^\r\n]" if quote is None else rf"[^\r\n{quote[0]}]"
    value = _compiled(line + "{0,200}").match(text, start)[0]  # type: ignore[index]
    if "=" in value or value.startswith(MASK) or (" " not in value and _is_token(value)):
        return _compiled(line + "*").match(text, start).end()  # type: ignore[union-attr]
    if "=" in found["by"] and not _is_amount(value) and not all(map(_is_word, value.split())):
        return _end_of_value(text, start)
    return start


def _end_of_word(text: str, start: int) -> int:
    found = _compiled(r"[^\s,;&\"'<>()\[\]{}]*").match(text, start)
    return found.end() if found else start


def _end_of_value(text: str, start: int) -> int:
    """Return the end of a value: of its quotes, its brackets, or its word."""
    opened = _compiled(_QUOTE).match(text, start)
    if opened:
        return _end_of_quoted(text, opened)
    at = start
    while True:
        run = _compiled(_PLAIN).match(text, at)
        at = run.end() if run else at
        if at > start and (more := _compiled(_MORE).match(text, at)):
            at = more.end()
        if text[at : at + 1] not in ("(", "[", "{"):
            return at
        at = _end_of_bracket(text, at)


def _end_of_quoted(text: str, opened: re.Match[str]) -> int:
    """Return the end of a quoted text, after the last quote; in escaped JSON the quotes have backslashes."""
    depth, quote = len(opened[1]), opened[2]
    for found in _compiled(rf"(?<!\\)(\\*){quote}").finditer(text, opened.end()):
        slashes = len(found[1])
        if slashes < depth:
            return found.start()
        if (slashes - depth) % (2 * (depth + 1)) == 0:
            return found.end()
    return len(text)


def _end_of_bracket(text: str, start: int) -> int:
    """Return the end of a bracketed text, after the last bracket.

    If that is missing, it is the end of the text, which was cut, or of the word, if the bracket is part of one.
    """
    opening = text[start]
    closing = {"(": ")", "[": "]", "{": "}"}[opening]
    depth, part = 0, _compiled(r"[^\s\"'<>]").match(text, start + 1) is not None
    if text.find(closing, start) >= 0:
        for count, found in enumerate(_compiled(_NESTED).finditer(text, start)):
            depth += (found[0] == opening) - (found[0] == closing)
            if depth == 0 and found[0] == closing:
                return found.end()
            if part and count > NESTED:
                break
    word = _compiled(r"[^\s\"'<>]*").match(text, start)
    return word.end() if part and word else len(text)


def _in_quotes(value: str, of_name: str) -> str:
    """Quote the mask as the value was, else as its name was, so that JSON stays JSON."""
    opened = _compiled(_QUOTE).match(value)
    if opened is None:
        return MASK if value == MASK else f"{of_name}{MASK}{of_name}"
    quote = opened[0]
    slashes = len(value[len(quote) :]) - len(value[len(quote) :].rstrip("\"'\\"))
    return f"{quote}{MASK}{quote if slashes and value.endswith(quote) and len(value) >= 2 * len(quote) else ''}"


def _without_forms(text: str) -> str:
    """Mask keys of known formats."""
    if _compiled(_RUN).search(text) is None:
        return text
    if any(start in text for start in _STARTS):
        text = _compiled(_FORMS).sub(MASK, text)
    if "eyJ" in text:
        text = _compiled(_JWT).sub(_masked_jwt, text)
    return _compiled(_BOT).sub(MASK, text) if ":" in text else text


def _masked_jwt(found: re.Match[str]) -> str:
    """Mask a JSON Web Token from its first character."""
    whole = found[0]
    at = _compiled(_ESCAPE.replace("A-Za-z0-9_", "A-Za-z0-9") + "eyJ").search(found.string, found.start(), found.end())
    if at is None:
        return whole
    start = at.start() - found.start()
    first, *others = whole[start:].split(".")
    return f"{whole[:start]}{MASK}" if len(first) >= 16 and max(map(len, others), default=0) >= 8 else whole


def _without_addresses(text: str) -> str:
    """Mask the secrets of URLs, and of the options of programs that fetch them."""
    if ":" not in text:
        return text
    if _compiled(_LOGIN_OPTION).search(text) and any(tool in text for tool in ("curl", "wget", "http", "xh")):
        text = _without_logins(text)
    if "://" not in text:
        return text
    if "@" in text:
        text = _without_passwords(text)
    return _compiled(_QUERY).sub(_masked_parameter, _compiled(_HOOK).sub(rf"\1{MASK}", text))


def _masked_parameter(found: re.Match[str]) -> str:
    return f"{found[1]}{MASK}" if _compiled(_PARAMETER_SECRET).fullmatch(found[2]) else found[0]


def _without_passwords(text: str) -> str:
    """Mask the passwords of URLs; a password may contain `@` and `/`."""
    parts, at, end = [], 0, 0
    for found in _compiled(_USER).finditer(text):
        start = found.end()
        if found.start() < at:
            continue
        if start > end:
            end = _compiled(_URL_END).search(text, start).start()  # type: ignore[union-attr]
        last = _last_at(text, start, min(end, start + PASSWORD_LENGTH + 1))
        if last > start:
            parts += [text[at:start], MASK]
            at = last
    return "".join((*parts, text[at:])) if at else text


def _last_at(text: str, start: int, end: int) -> int:
    """Return the index of the last `@` before the query of a URL and before the next URL; -1 if there is none."""
    for limit in ("://", "?", "#"):
        cut = text.find(limit, start, end)
        if cut >= 0 and text.find("@", start, cut) >= 0:
            end = cut
    return text.rfind("@", start, end)


def _without_logins(text: str) -> str:
    """Mask the password of `curl -u user:password`."""
    parts, at, fetching = [], 0, False
    for found in _compiled(_CURL).finditer(text):
        if found["value"] is None:
            fetching = found["tool"] is not None
        elif fetching:
            parts += [text[at : found.start("value")], MASK]
            at = found.end()
    return "".join((*parts, text[at:])) if at else text
