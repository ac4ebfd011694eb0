"""Which backend answers to a URL, and which codec to a content type. Imports a driver on first use only."""

import re
from collections.abc import Iterable
from importlib import import_module
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from mqkit.backend import Backend, BackendSpec, BlockingBackend
from mqkit.errors import ConfigurationError

SECRET = re.compile(r"([^&=]*(?:password|secret|token)[^&=]*)=[^&]*", re.IGNORECASE)
Colour: TypeAlias = Literal["asynchronous", "blocking"]


def scheme_of(url: str) -> str:
    """The scheme of a URL, in lower case.

    Raises:
        ConfigurationError: there is none.
    """
    scheme, colon, _ = url.partition(":")
    if not colon or not scheme:
        raise ConfigurationError(f"{url!r} is not a URL: it needs a scheme, as in sqlite:///mqkit.db")
    return scheme.lower()


def masked(url: str) -> str:
    """`url` with its passwords replaced, for logs and errors."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return f"{url.partition(':')[0]}://..."
    query = "..." if "@" in parts.query else SECRET.sub(r"\1=***", parts.query)
    netloc = parts.netloc
    if parts.password:
        netloc = netloc.replace(f":{parts.password}@", ":***@")
    return parts._replace(netloc=netloc, query=query).geturl() if netloc or query else url


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
