"""The default redaction: what looks like a secret is masked before it leaves.

It knows secrets by their place (`password=…`, `Authorization: …`, `--token …`, `https://user:…@host`, an attribute
named `api_key`) and by their form (keys of well-known services, JSON Web Tokens, private keys). It guesses nothing from
randomness, as ids and hashes look random too: a secret of unknown form in plain text is not found.
"""

from __future__ import annotations

import functools
import importlib
import re
import threading
from collections.abc import Callable
from typing import Final, TypeAlias

from otel_progress.model.origin import of_the_job

Redact: TypeAlias = Callable[[str, str], str]
"""Gets what a text is (`message`, `stack`, … or the key of an attribute) and the text; returns what may leave of it."""

_compiled = functools.cache(re.compile)
"""At the first use, as that takes longer than to import all of this package."""

MASK: Final = "[redacted]"
"""What stands in the place of a secret."""

WORD: Final = 16
"""From so many letters on, what follows `token: ` is a secret rather than a word."""

_NAMES: Final = (
    r"password|passwd|passphrase|pwd|secret|token|credentials?|authorization|signature|"
    r"api[_-]?key|access[_-]?key|account[_-]?key|private[_-]?key|signing[_-]?key|encryption[_-]?key|auth[_-]?key"
)
"""In lower case, as all that is looked for by name: the text is lowered once, which is faster than to ignore case."""
_NAMED: Final = rf"(?:{_NAMES})(?:[_-]?(?:key|value|hash|base))?(?![a-z])"
_SCHEMES: Final = r"(?:bearer|basic|digest|token|negotiate)\s{1,3}"
_QUOTED: Final = r'\\?"(?:[^"\\]|\\[^"])*(?:\\?"|\Z)|' + r"'(?:[^'\\]|\\.)*(?:'|\Z)"
_VALUE: Final = rf"(?P<value>\[redacted\]|{_SCHEMES}[^\s\"',]+|{_QUOTED}|[^\s,;&\"'<>()\[\]{{}}]+)"
_KEYED: Final = rf"(?P<name>{_NAMED})\\?[\"']?\s{{0,3}}(?:[:=]|=>)\s{{0,3}}(?:[bru]{{1,2}}(?=[\"']))?{_VALUE}"
_OPTION: Final = rf"(?<!-)--(?=[a-z])(?P<name>[a-z0-9_-]{{0,40}}?{_NAMED})\\?[\"']?,?\s{{1,3}}(?!-){_VALUE}"
_COOKIE: Final = r"cookie(?P<name>)\\?[\"']?\s{0,3}[:=]\s{0,3}\\?[\"']?(?!\s*\[redacted)(?P<value>[^\s\"'][^\r\n\"']*)"
_SCHEME: Final = r"(?P<name>bearer|basic)\s{1,3}(?P<value>[\w.~+/=-]{8,})"
_BY_NAME: Final = (_COOKIE, _KEYED, _OPTION, _SCHEME)
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

_USER: Final = r"(://[^/\s:@]{0,200}:)[^/\s@]{1,200}(?=@)|(\s-u\s{1,3}[^\s:]{1,200}:)\S{1,200}"
_QUERY: Final = r"([?&](?:key|sig|code|auth|[Xx]-[Aa]mz-[\w-]{1,30})=)[^\s&\"'<>]+"
_RUN: Final = r"[\w-]{16}"
"""What each known form holds."""
_FORMS: Final = r"""(?x:
    AKIA[0-9A-Z]{16} | ASIA[0-9A-Z]{16}                            # Amazon Web Services
    |gh[opusr]_[A-Za-z0-9]{20,} | github_pat_\w{20,}               # GitHub
    |glpat-[\w-]{16,} | gl(?:dt|rt|cbt|ptt|ft|agent)-[\w-]{16,}    # GitLab
    |xox[abeoprs]-[\w-]{11,} | xapp-[\w-]{11,}                     # Slack
    |sk-[\w-]{16,}                                                 # OpenAI, Anthropic and others
    |(?:sk|rk|pk)_(?:live|test)_\w{10,} | whsec_[\w+/=]{16,}       # Stripe
    |AIza[\w-]{30,} | ya29\.[\w-]{20,} | GOCSPX-[\w-]{20,}         # Google
    |hf_[A-Za-z0-9]{20,} | npm_[A-Za-z0-9]{30,} | pypi-[\w-]{30,}  # registries of models and packages
    |dckr_pat_[\w-]{20,} | dop_v1_[0-9a-f]{40,} | shp(?:at|ca|pa|ss)_[0-9a-fA-F]{20,}
    |SG\.[\w-]{16,}\.[\w-]{16,} | key-[0-9a-f]{32}                 # mail services
    |hv[sb]\.[\w-]{20,} | lsv2_(?:pt|sk)_\w{20,} | pplx-\w{20,} | gsk_\w{20,} | tvly-[\w-]{16,}
    |eyJ(?<!\weyJ)[\w-]{13,}\.[\w-]{8,}(?:\.[\w-]*)?              # a JSON Web Token
    )"""
_BOT: Final = r"(?<!\w)\d{8,10}:[A-Za-z0-9_-]{35}(?!\w)"  # Telegram
_HOOK: Final = r"(hooks\.slack\.com/(?:services|workflows)/|discord(?:app)?\.com/api/webhooks/)[\w/-]+"
_BEGUN: Final = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_ENDED: Final = r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
_PRIVATE: Final = rf"(?s:{_BEGUN}.*?(?:{_ENDED}|\Z))"
_PRIVATE_REST: Final = rf"(?s:\A.*?{_ENDED})"
_SUSPECT: Final = r"[=:]|--|-u |[Bb]earer |[Bb]asic |[\w+/.-]{16}"
"""What every text with a secret that is known here holds; most texts do not, and are done with."""

_KEY: Final = rf"(?:{_NAMED}|cookie|dsn|connection[_-]?string)\Z"
_AMOUNT: Final = r"[-+]?[\d.,_]+(?:e[-+]?\d+)?|true|false|none|null|\*+"
_ANY_AMOUNT: Final = r"pass|pwd|secret|credential"
_LOWER: Final = {code: code + 32 for code in range(ord("A"), ord("Z") + 1)}


def mask_secrets(what: str, text: str) -> str:
    """The text with what looks like a secret masked by `[redacted]`; the default of `configure(redact=…)`.

    Call it from a redaction of your own, to mask more than it does.

    Args:
        what: what the text is: `message`, `description`, `note`, `item`, `reason`, `wait`, `step`, `exception`,
            `stack`, `command`, `stderr`, `name`, or the key of an attribute or a result.
        text: the text.
    """
    if _means_secret(what):
        return text if not text or _is_amount(_lower(what), text) else MASK
    if len(text) < 6 or _compiled(_SUSPECT).search(text) is None:
        return text
    if "PRIVATE KEY" in text:
        text = _compiled(_PRIVATE_REST).sub(MASK, _compiled(_PRIVATE).sub(MASK, text), count=1)
    lower = _lower(text)
    if any(word in lower for word in _WORDS):
        for pattern in _BY_NAME:
            text = _masked(pattern, text)
    formed = _compiled(_RUN).search(text) is not None
    if formed:
        text = _compiled(_FORMS).sub(_masked_form, text)
    if ":" in text and ("@" in text or "-u " in text or formed):
        text = _compiled(_BOT).sub(MASK, _compiled(_USER).sub(lambda found: f"{found[1] or found[2]}{MASK}", text))
    if "://" in text:
        text = _compiled(_QUERY).sub(rf"\1{MASK}", _compiled(_HOOK).sub(rf"\1{MASK}", text))
    return text


@functools.lru_cache(1024)
def _means_secret(what: str) -> bool:
    return _compiled(_KEY).search(_lower(what)) is not None


def keep_all(what: str, text: str) -> str:  # noqa: ARG001
    """The text as it is: no redaction."""
    return text


def by_name(named: str) -> Redact:
    """The redaction that `OTEL_PROGRESS_REDACT` names: `secrets`, `off`, or `module:function`.

    Raises:
        ValueError: where there is none of that name; the message says why.
    """
    known = {"secrets": mask_secrets, "off": keep_all}.get(named.lower())
    if known is not None:
        return known
    module, colon, name = named.partition(":")
    if not colon:
        raise ValueError("it must be 'secrets', 'off', or 'module:function'")
    try:
        found = functools.reduce(getattr, name.split("."), importlib.import_module(module))
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if not callable(found):
        raise ValueError(f"{name} of {module} can't be called")
    called: Redact = found
    return called


def guarded(redact: Redact, told: Callable[[str], None] = lambda _: None) -> Redact:
    """The same redaction; where it fails, or returns no text, all is masked, so that a bug in it leaks nothing.

    `told` gets what went wrong, in words.
    """
    inside = threading.local()

    def masked(what: str, text: str) -> str:
        if getattr(inside, "on", False):  # the hook itself says something
            return mask_secrets(what, text)
        inside.on = True
        try:
            found = redact(what, text)
        except BaseException as error:
            if of_the_job(error):
                raise
            told(f"the redaction hook raised {type(error).__name__}; the text is masked")
            return MASK
        finally:
            inside.on = False
        if type(found) is str:
            return found
        told(f"the redaction hook returned a {type(found).__name__}, not a text; the text is masked")
        return MASK

    return masked


def _lower(text: str) -> str:
    """The text with its ASCII letters lowered, as long as it was."""
    return text.lower() if text.isascii() else text.translate(_LOWER)


def _is_amount(name: str, text: str) -> bool:
    """Whether it is a number or a flag, which is no secret unless it is named a password."""
    return _compiled(_AMOUNT).fullmatch(text.lower()) is not None and _compiled(_ANY_AMOUNT).search(name) is None


def _is_prose(found: re.Match[str]) -> bool:
    """Whether a plain word follows, as in `token: refreshing` or `basic understanding`; behind a password none is."""
    between = found.string[found.end("name") : found.start("value")]
    word = found["value"].rstrip(".!?")
    prose = between.endswith(" ") and "=" not in between
    return prose and word.isalpha() and len(word) < WORD and _compiled(_ANY_AMOUNT).search(found["name"]) is None


def _masked(pattern: str, text: str) -> str:
    """The text with the value of each match masked."""
    parts, at = [], 0
    for found in _compiled(pattern).finditer(_lower(text)):
        start, end = found.span("value")
        if start < at or _is_amount(found["name"], found["value"].strip("\"'\\")):
            continue
        if pattern != _OPTION and _is_prose(found):
            continue
        parts += [text[at:start], _in_quotes(text[start:end])]
        at = end
    return "".join((*parts, text[at:])) if at else text


def _masked_form(found: re.Match[str]) -> str:
    """A key of a known form, unless it is the end of a longer word."""
    start = found.start()
    before = found.string[start - 1] if start else " "
    return found[0] if before.isalnum() or before == "_" else MASK


def _in_quotes(value: str) -> str:
    """The mask in the quotes that the value had, so that JSON stays JSON."""
    quote = value[:2] if value[:1] == "\\" else value[:1]
    if quote.strip("\\") not in ("'", '"'):
        return MASK
    return f"{quote}{MASK}{quote if len(value) > len(quote) and value.endswith(quote) else ''}"
