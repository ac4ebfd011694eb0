"""How a connection is encrypted, by the options of its URL."""

import ssl
from base64 import b64decode

from mqkit.backends.rabbitmq.options import RabbitUrl
from mqkit.errors import ConfigurationError


def context(url: RabbitUrl) -> ssl.SSLContext | None:
    """None for amqp://. Reads the files that the URL names.

    Raises:
        ConfigurationError: they, or `cadata`, are not what they should be.
    """
    if url.scheme != "amqps":
        return None
    options = dict(url.tls)
    try:
        found = ssl.create_default_context(
            cafile=options.get("cafile"),
            capath=options.get("capath"),
            cadata=b64decode(options["cadata"]) if options.get("cadata") else None,
        )
        if "certfile" in options:
            found.load_cert_chain(options["certfile"], options.get("keyfile"))
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"the TLS options for RabbitMQ at {url.where} do not fit: {error}") from error
    if options.get("no_verify_ssl", "0") != "0":
        found.check_hostname = False
        found.verify_mode = ssl.CERT_NONE
    return found
