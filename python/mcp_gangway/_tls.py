"""Reads the TLS settings of Python programs: what to trust, and the client's certificate.

Rule: the native core makes the connections, not Python's ``ssl``. What an ``SSLContext`` holds is used or refused, and
never ignored, because it may be what keeps a connection safe.
"""

from __future__ import annotations

import ssl
from contextlib import suppress
from os import PathLike
from pathlib import Path

#: A PEM file with a certificate and its key, or two files, one for each.
CertTypes = str | PathLike[str] | tuple[str | PathLike[str], str | PathLike[str]] | None
VerifyTypes = bool | str | PathLike[str] | ssl.SSLContext


def trust(verify: VerifyTypes) -> tuple[bool, list[bytes]]:
    """Returns whether to check certificates, and the PEM certificates to trust in addition to the system's.

    Raises:
        ValueError: An ``SSLContext`` has a setting that cannot be used.
        OSError: A file cannot be read.
    """
    if isinstance(verify, bool):
        return verify, []
    if isinstance(verify, ssl.SSLContext):
        unusable = _unusable(verify)
        if unusable:
            raise ValueError(f"verify: {unusable}")
        authorities = [ssl.DER_cert_to_PEM_cert(der).encode() for der in verify.get_ca_certs(binary_form=True)]
        return verify.verify_mode != ssl.CERT_NONE, authorities
    path = Path(verify)
    files = sorted(path.glob("*.pem")) if path.is_dir() else [path]
    return True, [file.read_bytes() for file in files]


def identity(cert: CertTypes) -> tuple[bytes, bytes] | None:
    """Returns the PEM texts of the client's certificate and of its key.

    Raises:
        ValueError: There are more than two files, such as a password.
        OSError: A file cannot be read.
    """
    if cert is None:
        return None
    if isinstance(cert, tuple):
        if len(cert) != 2:
            raise ValueError("cert: give two files, the certificate and its key; a key with a password cannot be used")
        certificates, key = cert
        return Path(certificates).read_bytes(), Path(key).read_bytes()
    both = Path(cert).read_bytes()
    return both, both


def _unusable(context: ssl.SSLContext) -> str | None:
    """Returns what the context demands that the native core does not do, and what to do instead."""
    if _has_certificate(context):
        return "the SSLContext's client certificate cannot be used: pass its files with cert"
    if context.verify_mode != ssl.CERT_NONE and not context.check_hostname:
        return "an SSLContext without check_hostname cannot be used: check it, or pass verify=False to check nothing"
    is_limited = context.minimum_version == ssl.TLSVersion.TLSv1_3 or context.maximum_version not in _HIGHEST
    if is_limited or context.options & (ssl.OP_NO_TLSv1_2 | ssl.OP_NO_TLSv1_3):
        return "the SSLContext's TLS versions cannot be used: TLS 1.2 and 1.3 are always both allowed"
    if context.verify_flags & (ssl.VERIFY_CRL_CHECK_LEAF | ssl.VERIFY_CRL_CHECK_CHAIN):
        return "the SSLContext's check for revoked certificates (CRL) cannot be used"
    if _ciphers(context) != _ciphers(ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)):
        return "the SSLContext's ciphers cannot be used: leave out set_ciphers"
    return None


_HIGHEST = (ssl.TLSVersion.MAXIMUM_SUPPORTED, ssl.TLSVersion.TLSv1_3)


def _ciphers(context: ssl.SSLContext) -> set[str]:
    return {cipher["name"] for cipher in context.get_ciphers()}


def _has_certificate(context: ssl.SSLContext) -> bool:
    """True if the context has a certificate of its own, which ``ssl`` does not tell.

    A server needs one: so this begins a handshake in memory, with a server that takes its certificate from ``context``.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    to_client, to_server = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).wrap_bio(to_server, to_client, server_side=True)
    server.context = context
    with suppress(ssl.SSLWantReadError):  # It sends its first message.
        client.wrap_bio(to_client, to_server).do_handshake()
    try:
        server.do_handshake()
    except ssl.SSLWantReadError:
        return True  # It has sent its certificate.
    except ssl.SSLError:
        return False
    return True
