"""What an SSLContext holds is used or refused, never ignored."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

import httpx
import mcp_gangway
import pytest
from conftest import Authority
from http_server import serving, whole

Change = Callable[[ssl.SSLContext, Authority], Any]


def without_host_check(context: ssl.SSLContext, _: Authority) -> None:
    context.check_hostname = False


def with_certificate(context: ssl.SSLContext, authority: Authority) -> None:
    context.load_cert_chain(authority.client_certificate, authority.client_key)


def with_certificate_unchecked(context: ssl.SSLContext, authority: Authority) -> None:
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.load_cert_chain(authority.client_pem)


def only_tls_1_3(context: ssl.SSLContext, _: Authority) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_3


def only_tls_1_2(context: ssl.SSLContext, _: Authority) -> None:
    context.maximum_version = ssl.TLSVersion.TLSv1_2


def without_tls_1_2(context: ssl.SSLContext, _: Authority) -> None:
    context.options |= ssl.OP_NO_TLSv1_2


def without_tls_1_3(context: ssl.SSLContext, _: Authority) -> None:
    context.options |= ssl.OP_NO_TLSv1_3


def with_revocation(context: ssl.SSLContext, _: Authority) -> None:
    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF


def with_ciphers(context: ssl.SSLContext, _: Authority) -> None:
    context.set_ciphers("ECDHE-RSA-AES256-GCM-SHA384")


REFUSED: dict[Change, str] = {
    without_host_check: "check_hostname",
    with_certificate: "client certificate.*with cert",
    with_certificate_unchecked: "client certificate.*with cert",
    only_tls_1_3: "TLS versions",
    only_tls_1_2: "TLS versions",
    without_tls_1_2: "TLS versions",
    without_tls_1_3: "TLS versions",
    with_revocation: "CRL",
    with_ciphers: "ciphers",
}


@pytest.mark.filterwarnings("ignore:ssl.OP_NO:DeprecationWarning")
@pytest.mark.parametrize("change", REFUSED, ids=lambda change: change.__name__)
@pytest.mark.parametrize(
    "use",
    [
        lambda context: mcp_gangway.AsyncClient(verify=context),
        lambda context: mcp_gangway.Client(verify=context),
        lambda context: mcp_gangway.AsyncHTTPTransport(verify=context),
        lambda context: mcp_gangway.Bridge(mcp_gangway.BridgeSettings("https://h/", verify=context)),
    ],
    ids=["AsyncClient", "Client", "AsyncHTTPTransport", "Bridge"],
)
def test_settings_of_a_context_that_cannot_be_used_are_refused(
    authority: Authority, use: Callable[[ssl.SSLContext], Any], change: Change
) -> None:
    context = authority.client()
    change(context, authority)
    with pytest.raises(ValueError, match=f"^verify: .*{REFUSED[change]}"):
        use(context)


def test_looking_at_a_context_does_not_change_it(authority: Authority) -> None:
    """It still works with httpx, also as a second client's."""
    context = authority.client()
    before = (context.verify_mode, context.check_hostname, context.options, context.verify_flags)
    for _ in range(2):
        mcp_gangway.AsyncClient(verify=context)
    assert (context.verify_mode, context.check_hostname, context.options, context.verify_flags) == before


@pytest.mark.asyncio
@pytest.mark.parametrize("made", [ssl.create_default_context, lambda: ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)])
async def test_usual_contexts_are_used(authority: Authority, made: Callable[[], ssl.SSLContext]) -> None:
    context = made()
    context.load_verify_locations(authority.path)
    context.set_alpn_protocols(["http/1.1"])
    async with serving(whole(b"x"), tls=authority.server()) as server:
        async with mcp_gangway.AsyncClient(verify=context) as client:
            assert (await client.get(server.url)).content == b"x"
        async with httpx.AsyncClient(verify=context) as other:
            assert (await other.get(server.url)).content == b"x"


def test_a_key_with_a_password_is_refused(authority: Authority) -> None:
    files: Any = (str(authority.client_certificate), str(authority.client_key), "password")
    with pytest.raises(ValueError, match=r"cert: .*password"):
        mcp_gangway.AsyncClient(cert=files)
