"""Tests the container image of scripts/package-oci: skopeo and umoci read and unpack it, and its root runs by chroot.

Rule: the image that is in target/dist/oci is tested, and no other is made. Its root is changed only to add the test's
own certificate authority. chroot needs root.
"""

from __future__ import annotations

import json
import shutil
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import LIMIT, PROTOCOL, REPOSITORY, Bridge, Server, converse, this_platform, without_proxies

sys.path.insert(0, str(REPOSITORY / "packaging"))
import common

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the image is for Linux only")
IMAGE = common.DIST / "oci" / f"mcp-gangway-{common.version()}-oci.tar"
NAMES = {"x64": "amd64", "arm64": "arm64"}
QEMU = {"amd64": "qemu-x86_64-static", "arm64": "qemu-aarch64-static"}


def needed(program: str) -> str:
    """Returns the path of a program that packaging/setup-tests installs."""
    path = shutil.which(program)
    assert path, f"{program} is missing: run packaging/setup-tests as root, or install it"
    return path


def inspect(*arguments: str) -> dict:
    said = subprocess.run(
        [needed("skopeo"), "inspect", *arguments, f"oci-archive:{IMAGE}:{common.version()}"],
        capture_output=True,
        text=True,
    )
    assert said.returncode == 0, said.stderr
    return json.loads(said.stdout)


def architectures() -> list[str]:
    return [one["platform"]["architecture"] for one in inspect("--raw")["manifests"]]


HERE = NAMES["arm64" if "arm64" in this_platform() else "x64"]


@pytest.fixture(scope="module", params=list(NAMES.values()))
def root(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """The unpacked root of an architecture's image, and the command that runs the image in it."""
    if request.param not in architectures():
        pytest.skip(f"the image has no part for {request.param}")
    folder = tmp_path_factory.mktemp(request.param)
    source, target = f"oci-archive:{IMAGE}:{common.version()}", f"oci:{folder / 'layout'}:one"
    copied = subprocess.run(
        [
            needed("skopeo"),
            "copy",
            "--quiet",
            "--override-arch",
            request.param,
            "--override-os",
            "linux",
            source,
            target,
        ],
        capture_output=True,
        text=True,
    )
    assert copied.returncode == 0, copied.stderr
    unpacked = subprocess.run(
        [needed("umoci"), "unpack", "--image", f"{folder / 'layout'}:one", folder / "bundle"],
        capture_output=True,
        text=True,
    )
    assert unpacked.returncode == 0, unpacked.stderr
    process = json.loads((folder / "bundle/config.json").read_text())["process"]
    place = folder / "bundle/rootfs"
    user = process["user"]
    environment = [part for part in process["env"] if not part.startswith("TERM=")]
    command = [needed("chroot"), f"--userspec={user['uid']}:{user['gid']}", str(place), *process["args"]]
    if request.param != HERE:
        emulator = needed(QEMU[request.param])
        shutil.copy(emulator, place / "emulator")
        command = [*command[:3], "/emulator", *process["args"]]
    return place, ["env", "-i", *environment, *command]


def test_the_image_is_for_the_static_binaries_that_are_here() -> None:
    assert IMAGE.is_file(), "run scripts/package-oci first"
    static = [NAMES[one.cpu] for one in common.all_platforms() if one.libc == "musl" and one.binary.is_file()]
    assert architectures() == static


def test_the_image_says_what_it_is() -> None:
    labels = inspect()["Labels"]
    assert labels["org.opencontainers.image.version"] == common.version()
    assert labels["org.opencontainers.image.licenses"] == common.manifest()["license"]
    configuration = inspect("--config")
    assert configuration["config"]["Entrypoint"] == ["/usr/bin/mcp-gangway"]
    assert configuration["config"]["User"] != "0:0"


def test_the_root_has_what_the_bridge_needs_and_no_more(root: tuple[Path, list[str]]) -> None:
    place, _ = root
    files = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()} - {"emulator"}
    assert files == {
        "etc/group",
        "etc/passwd",
        "etc/ssl/certs/ca-certificates.crt",
        "usr/bin/mcp-gangway",
        "usr/share/doc/ca-certificates/LICENSE",
        "usr/share/doc/mcp-gangway/LICENSE",
        "usr/share/doc/mcp-gangway/THIRD-PARTY-LICENSES.txt",
    }
    assert (place / "tmp").stat().st_mode & 0o7777 == 0o1777
    home = (place / "home/nonroot").stat()
    assert home.st_mode & 0o7777 == 0o700 and home.st_uid != 0
    assert (
        ssl.create_default_context(cafile=str(place / "etc/ssl/certs/ca-certificates.crt")).cert_store_stats()[
            "x509_ca"
        ]
        > 0
    )


def test_the_command_of_the_image_runs_without_a_c_library(root: tuple[Path, list[str]], server: Server) -> None:
    _, command = root
    converse([*command, server.url], server)


def test_a_large_message_goes_through_the_images_folder_for_temporary_files(
    root: tuple[Path, list[str]], server: Server
) -> None:
    _, command = root
    with Bridge([*command, server.url], without_proxies()) as bridge:
        bridge.initialize()
        bridge.call(1, "echo", text="x" * (3 << 20))
        text = bridge.receive()["result"]["content"][0]["text"]
        assert len(json.loads(text)["text"]) == 3 << 20


def test_the_bridge_trusts_exactly_the_images_authorities(
    root: tuple[Path, list[str]], server: Server, tmp_path: Path
) -> None:
    place, command = root
    authority, certificate, key = certificates(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    url = server.url.replace("http:", "https:")

    bundle = place / "etc/ssl/certs/ca-certificates.crt"
    usual = bundle.read_bytes()
    with Bridge([*command, url], without_proxies()) as bridge:
        client = {"name": "test", "version": "1"}
        bridge.send(
            id=0, method="initialize", params={"protocolVersion": PROTOCOL, "capabilities": {}, "clientInfo": client}
        )
        error = bridge.receive()["error"]
        assert "authority" in error["message"], error
    try:
        bundle.write_bytes(usual + authority.read_bytes())
        converse([*command, url], server)
    finally:
        bundle.write_bytes(usual)


def certificates(folder: Path) -> tuple[Path, Path, Path]:
    """Makes an authority, and a certificate of it for 127.0.0.1 with its key."""
    settings = folder / "settings"
    settings.write_text(
        "[req]\ndistinguished_name = name\n[name]\n[authority]\nbasicConstraints = critical, CA:TRUE\n"
        "keyUsage = critical, keyCertSign\n"
        "[server]\nbasicConstraints = critical, CA:FALSE\nsubjectAltName = IP:127.0.0.1\n"
    )
    new = [
        "openssl",
        "req",
        "-x509",
        "-config",
        settings,
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    for name, options in [
        ("authority", []),
        ("server", ["-CA", folder / "authority.pem", "-CAkey", folder / "authority.key"]),
    ]:
        files = ["-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"]
        command = [*new, "-days", "2", "-subj", f"/CN=test {name}", "-extensions", name, *options, *files]
        subprocess.run(command, check=True, capture_output=True, timeout=LIMIT)
    return folder / "authority.pem", folder / "server.pem", folder / "server.key"
