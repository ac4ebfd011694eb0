"""Which backend answers to a URL, and which codec to a content type. Imports a driver on first use only."""

import re
from collections.abc import Iterable
from importlib import import_module
from typing import Literal, TypeAlias
from urllib.parse import SplitResult, unquote, urlsplit

from mqkit.backend import Backend, BackendSpec, BlockingBackend
from mqkit.errors import ConfigurationError

SECRET = re.compile(r"pass|pwd|secret|token|credential|jaas|oauthbearer\.config|key\.pem", re.IGNORECASE)
"""Names of options whose values nobody shall read."""
Colour: TypeAlias = Literal["asynchronous", "blocking"]


def scheme_of(url: str) -> str:
    """The scheme of a URL, in lower case.

    Raises:
        ConfigurationError: there is none.
    """
    scheme, colon, _ = url.partition(":")
    if not colon or not scheme:
        shown = "..." if "@" in url else url
        raise ConfigurationError(f"{shown!r} is not a URL: it needs a scheme, as in sqlite:///mqkit.db")
    return scheme.lower()


def split_url(url: str) -> SplitResult:
    """`url` in its parts.

    Raises:
        ConfigurationError: it cannot be told where its parts end, as when a password holds a slash: the text says how
            to write it, and shows nothing of what stands behind the scheme.
    """
    try:
        parts = urlsplit(url)
        if not parts.netloc or not _cut_wrongly(parts):
            return parts
    except ValueError:
        pass  # said below, without the text of that error, which shows a part of the password
    scheme = url.partition(":")[0]
    raise ConfigurationError(
        f"the {scheme} URL cannot be read: write the characters / ? # [ ] @ % of user, password and virtual host as "
        f"%2F %3F %23 %5B %5D %40 %25, as in {scheme}://user:p%2Fss@host/, and a port as a number"
    ) from None


def _cut_wrongly(parts: SplitResult) -> bool:
    """Whether a user or password, with characters that end the place where they may stand, would read like this."""
    if "@" in parts.path or "@" in parts.fragment:
        return True
    if any("@" in option and "://" not in unquote(option) for option in parts.query.split("&")):
        return True
    hosts = parts.netloc.rpartition("@")[2].split(",")
    ports = (host.rpartition("]")[2].partition(":") for host in hosts)
    return any(colon and not port.isdecimal() for _, colon, port in ports)


def masked(url: str) -> str:
    """`url` with its passwords replaced, for logs and errors."""
    scheme = url.partition(":")[0]
    try:
        parts = split_url(url)
    except ConfigurationError:
        return f"{scheme}://..."
    bare = not parts.netloc
    if bare and "@" in url and not url.startswith(f"{scheme}:///"):  # a URL with a slash too few, and no file
        return f"{scheme}:..."
    credentials, at, hosts = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    netloc = f"{user}:***@{hosts}" if colon else f"{credentials}{at}{hosts}"
    query = "&".join(map(_masked_option, parts.query.split("&")))
    if bare:
        return f"{url.partition('?')[0]}?{query}" if query else url
    return parts._replace(netloc=netloc, query=query).geturl()


def _masked_option(option: str) -> str:
    name, equals, value = option.partition("=")
    secret = SECRET.search(unquote(name)) or "@" in unquote(value)
    return f"{name}=***" if equals and secret else option


class Backends:
    """The backends that were registered, by URL scheme."""

    def __init__(self, specs: Iterable[BackendSpec]) -> None:
        self.specs: dict[str, BackendSpec] = {}
        for spec in specs:
            if not (spec.asynchronous or spec.blocking):
                raise ConfigurationError(f"backend {spec.name!r} names neither an async nor a blocking class")
            for scheme in spec.schemes:
                if scheme in self.specs:
                    raise ConfigurationError(
                        f"the URL scheme {scheme!r} is claimed by two backends: {self.specs[scheme].name!r} "
                        f"and {spec.name!r}; uninstall or disable one of their plugins"
                    )
                self.specs[scheme] = spec

    def spec(self, url: str) -> BackendSpec:
        """Of the backend that answers to `url`.

        Raises:
            ConfigurationError: none does; the text lists those that are there.
        """
        scheme = scheme_of(url)
        if scheme not in self.specs:
            if scheme.startswith(("'", '"')):
                raise ConfigurationError(
                    "the URL begins with a quotation mark: write it without any, and special characters of the "
                    "password as %2F for a slash, %23 for #, %3F for ?, %40 for @"
                )
            known = ", ".join(f"{name}://" for name in sorted(self.specs))
            raise ConfigurationError(f"no backend answers to {scheme!r} URLs; there is {known}, or install a plugin")
        return self.specs[scheme]

    def open(self, url: str, prefer: Colour) -> tuple[Colour, Backend | BlockingBackend]:
        """The backend for `url`, in the colour preferred if it has that, and which colour it is. No I/O.

        Raises:
            ConfigurationError: no such backend, its driver is not installed, or the URL makes no sense to it.
        """
        spec = self.spec(url)
        colour: Colour = prefer
        path = getattr(spec, prefer)
        if path is None:
            colour = "blocking" if prefer == "asynchronous" else "asynchronous"
            path = getattr(spec, colour)
        module, _, name = path.partition(":")
        try:
            backend_class = getattr(import_module(module), name)
        except ImportError as error:
            own = module.partition(".")[0] == (error.name or "").partition(".")[0]
            if spec.extra is not None and not own:
                raise ConfigurationError(
                    f"{spec.name} needs its driver, {error.name or error}: pip install '{spec.extra}'"
                ) from error
            raise ConfigurationError(f"backend {spec.name!r} cannot be imported from {path}: {error}") from error
        except AttributeError as error:
            raise ConfigurationError(f"backend {spec.name!r}: there is no {path}") from error
        except Exception as error:
            raise ConfigurationError(
                f"backend {spec.name!r} cannot be imported from {path}: {type(error).__name__}: {error}"
            ) from error
        backend: Backend | BlockingBackend = backend_class(url)
        return colour, backend
