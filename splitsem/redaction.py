"""Redaction: passwords, tokens and keys are replaced by ``REDACTED`` in all that a run prints, logs or leaves on disk.

A secret is known by its place (the user and password of a URI, a query parameter, a setting's name), or by its value
once ``learn`` has met it, e.g. in the environment. What refers to the environment, ``${oc.env:X}``, is no secret.
"""

import logging
import os
import re
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO
from urllib.parse import quote, unquote

HIDDEN = "REDACTED"  # a plain word in YAML, JSON and shells, too
_SHORTEST = 6  # characters of a value that is hidden wherever it stands: shorter ones stand in other words, too
_WORDS = r"token|password|passwd|passphrase|pwd|secret|credentials?|apikey|sslkey|sslpassword|signature"
_NAME = re.compile(rf"(?:^|[^a-z])(?:{_WORDS}|key)$")
_KEY = re.compile(r"key$")
_TEXTS = {".yaml", ".toml", ".txt", ".log"}
_FILE = re.compile(r"\.(?:pem|key|crt|pub)$")
_REFERENCE = re.compile(r"\$\{[^}]*\}")
_URI = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*://)(?!/)([^\s'\"<>]*)@")
_QUOTED = r"'[^'\n]*'|\"[^\"\n]*\""
_PAIR = re.compile(
    rf"(?i)((?<![a-z])(?:{_WORDS}|(?:api|access|private|secret|account|signing)[_-]?key)['\"]?\s*[=:]\s*)"
    rf"({_QUOTED}|\$\{{[^}}]*\}}|[^\s,&;'\"{{}}\]#]+)"
)
_BEARER = re.compile(r"(?i)\b(bearer|basic) [\w.~+/=-]{8,}")
_known: set[str] = set()


def text(said: str) -> str:
    """``said`` without the secrets in it.

    >>> text("cannot reach postgresql://ann:pa55@db/runs?sslkey=abc")
    'cannot reach postgresql://REDACTED@db/runs?sslkey=REDACTED'
    >>> text("model.hub_token=abc model.token_file=t.txt uri=http://${oc.env:WHO}@host")
    'model.hub_token=REDACTED model.token_file=t.txt uri=http://${oc.env:WHO}@host'
    """
    for value in sorted(_known, key=len, reverse=True):
        said = said.replace(value, HIDDEN)
    said = _URI.sub(lambda found: found[0] if _refers(found[2]) else f"{found[1]}{HIDDEN}@", said)
    said = _PAIR.sub(lambda found: found[0] if _is_plain(found[2]) else f"{found[1]}{HIDDEN}", said)
    return _BEARER.sub(rf"\1 {HIDDEN}", said)


def settings(value: Any, name: str = "") -> Any:
    """Settings (nested, or flat with dotted names) without the secrets in them; interpolations stay.

    Args:
        value: a dict, a list or a plain value.
        name: the setting's own name.
    """
    if isinstance(value, Mapping):
        return {key: settings(inner, str(key)) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [settings(inner, name) for inner in value]
    if _is_secret(name, value):
        return HIDDEN
    return text(value) if isinstance(value, str) else value


def learn(value: Any, name: str = "") -> None:
    """Remember the secrets in settings, so that ``text`` finds them anywhere."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            learn(inner, str(key))
    elif isinstance(value, list | tuple):
        for inner in value:
            learn(inner, name)
    elif _is_secret(name, value) and name.lower() != "key":  # which may be a word of a user's own settings
        _remember(str(value))
    elif isinstance(value, str):
        for _, who in _URI.findall(value):
            if not _refers(who):
                _remember(who.partition(":")[2] or who)
        for _, secret in _PAIR.findall(value):
            if not _is_plain(secret):
                _remember(secret.strip("'\""))


def known() -> frozenset[str]:
    """The secrets that were learned."""
    return frozenset(_known)


def remember(secrets: Iterable[str]) -> None:
    """Learn what another process has learned."""
    _known.update(secrets)


def install() -> None:
    """Keep secrets out of this process's log records, stdout and stderr; those of the environment are learned."""
    learn({name: value for name, value in os.environ.items() if name not in ("PWD", "OLDPWD")})
    if not isinstance(sys.stdout, _Redacted):
        for name in ("stdout", "stderr"):
            if (stream := getattr(sys, name)) is not None:  # None: closed when the program began
                setattr(sys, name, _Redacted(stream))
    if (make := logging.getLogRecordFactory()) is not _record:
        _factories[:] = [make]
        logging.setLogRecordFactory(_record)


def clean(folder: Path) -> None:
    """Take the secrets out of the settings, logs and notes below a folder."""
    for path in folder.rglob("*"):
        if path.suffix in _TEXTS and path.is_file():
            said = path.read_text(encoding="utf-8", errors="surrogateescape")
            if (clean := text(said)) != said:
                path.write_text(clean, encoding="utf-8", errors="surrogateescape")


_factories: list[Any] = [logging.LogRecord]


def _record(*args: Any, **options: Any) -> logging.LogRecord:
    made: logging.LogRecord = _factories[0](*args, **options)
    try:
        said = made.getMessage()
    except (TypeError, ValueError):  # logging itself tells of arguments that do not fit
        return made
    if (clean := text(said)) != said:
        made.msg, made.args = clean, ()
    if made.exc_info and made.exc_info[0] is not None:
        made.exc_text = text("".join(traceback.format_exception(*made.exc_info)).rstrip("\n"))
    return made


class _Redacted:
    """A text stream that writes everything without secrets."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, said: str) -> int:
        """See TextIO."""
        self._stream.write(text(said))
        return len(said)

    def writelines(self, lines: list[str]) -> None:
        """See TextIO."""
        for line in lines:
            self.write(line)


def _remember(value: str) -> None:
    if len(value) >= _SHORTEST and value != HIDDEN:
        _known.update({value, unquote(value), quote(value, safe="")})


def _is_secret(name: str, value: Any) -> bool:
    """Whether a setting of this name holds a secret; a ``key`` may be a file's name, too."""
    last = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.rpartition(".")[2]).lower()
    if value is None or isinstance(value, bool) or not _NAME.search(last):
        return False
    said = str(value)
    return not (_is_plain(said) or (_KEY.search(last) and (_FILE.search(said) or os.path.isfile(said))))


def _is_plain(value: str) -> bool:
    return _REFERENCE.sub("", value).strip("'\"").lower() in ("", "null", "none", "true", "false", HIDDEN.lower())


def _refers(who: str) -> bool:
    """Whether a URI's password (or user, where it is alone) is hidden already, or comes from the environment."""
    user, colon, password = _REFERENCE.sub("", who).partition(":")
    return "@" not in user and _is_plain(password if colon else user)
