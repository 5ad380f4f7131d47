"""Tests what a release depends on besides its packages: the versions, the workflows and the settings of other tools."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from conftest import REPOSITORY

sys.path.insert(0, str(REPOSITORY / "packaging"))
import common

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))


def release(*arguments: str, root: Path = REPOSITORY) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, root / "scripts" / "release", *arguments], capture_output=True, text=True)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the files that scripts/release reads for `--check`, to change them."""
    for name in ("Cargo.toml", "CHANGELOG.md", "scripts/release", "packaging/common.py", "packaging/platforms"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(REPOSITORY / name, tmp_path / name)
    changelog = tmp_path / "CHANGELOG.md"
    text = re.sub("^## .*$", f"## {common.version()} (2026-12-01)", changelog.read_text(), count=1, flags=re.MULTILINE)
    changelog.write_text(text)
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    author = ["-c", "user.name=test", "-c", "user.email=test@example.com"]
    subprocess.run(["git", "-C", tmp_path, *author, "commit", "--quiet", "--allow-empty", "-m", "test"], check=True)
    return tmp_path


def test_the_tag_of_the_version_is_accepted(copy: Path) -> None:
    done = release("--check", f"v{common.version()}", root=copy)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "tag", [common.version(), f"v{common.version()}.1", f"v{common.version()}-rc.1", "v999.0.0", "main", ""]
)
def test_other_tags_are_refused(copy: Path, tag: str) -> None:
    done = release("--check", tag, root=copy)
    assert done.returncode == 1 and common.version() in done.stderr


@pytest.mark.parametrize(
    "heading", [common.version(), f"{common.version()} (unreleased)", "Unreleased", "0.0.1 (2026-01-01)"]
)
def test_a_changelog_without_the_version_and_its_date_is_refused(copy: Path, heading: str) -> None:
    changelog = copy / "CHANGELOG.md"
    changelog.write_text(re.sub("^## .*$", f"## {heading}", changelog.read_text(), count=1, flags=re.MULTILINE))
    done = release("--check", f"v{common.version()}", root=copy)
    assert done.returncode == 1 and re.search("CHANGELOG.md (must begin|begins) with", done.stderr), done.stderr


def test_a_dependency_with_another_version_is_refused(copy: Path) -> None:
    manifest = copy / "Cargo.toml"
    text = manifest.read_text()
    old = f'path = "crates/core", version = "{common.version()}"'
    assert old in text
    manifest.write_text(text.replace(old, 'path = "crates/core", version = "999.0.0"'))
    done = release("--check", f"v{common.version()}", root=copy)
    assert done.returncode == 1 and "has another version than the workspace" in done.stderr


def test_a_release_is_not_packed_without_its_key() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MINISIGN_KEY"}
    command = [sys.executable, REPOSITORY / "scripts" / "release", "--pack", "--signed"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "MINISIGN_KEY is not set" in done.stderr


def test_the_changelog_is_about_this_version() -> None:
    notes = release("--notes")
    assert notes.returncode == 0 and notes.stdout.strip()
    heading = re.search("^## (.*)$", (REPOSITORY / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert heading and heading[1].split()[0] == common.version()


def test_each_platform_has_a_runner() -> None:
    matrix = json.loads(release("--matrix").stdout)
    assert [one["platform"] for one in matrix] == [one.name for one in common.all_platforms()]
    assert all(one["runner"] for one in matrix)


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_the_workflows_are_valid(workflow: Path) -> None:
    checker = Path(sys.executable).with_name("jactionlint")
    if not checker.exists():
        pytest.skip("there is no jactionlint for this system; Linux runs it")
    done = subprocess.run([checker, workflow], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_each_job_has_a_limit_and_each_action_a_hash(workflow: Path) -> None:
    content = yaml.safe_load(workflow.read_text())
    assert content["permissions"] == {"contents": "read"}
    for name, job in content["jobs"].items():
        assert job["timeout-minutes"], name
        for step in job["steps"]:
            assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", step.get("uses", f"a@{'0' * 40}")), step


def test_nothing_is_published_without_the_check_of_the_tag() -> None:
    jobs = yaml.safe_load((REPOSITORY / ".github" / "workflows" / "release.yml").read_text())["jobs"]

    def needs(name: str) -> set[str]:
        direct = jobs[name].get("needs", [])
        direct = [direct] if isinstance(direct, str) else direct
        return set(direct).union(*(needs(one) for one in direct))

    def writes(job: dict) -> bool:
        return any(value == "write" for value in job.get("permissions", {}).values())

    publishing = [name for name, job in jobs.items() if writes(job)]
    assert publishing
    for name in publishing:
        assert {"check", "test"} <= needs(name), name
        guards = [jobs[one].get("if", "") for one in {name, *needs(name)}]
        assert any("startsWith(github.ref, 'refs/tags/v')" in guard for guard in guards), name
        assert jobs[name]["environment"] == "release"


def test_cargo_binstall_finds_the_archives() -> None:
    manifest = tomllib.loads((REPOSITORY / "crates/cli/Cargo.toml").read_text())
    settings = manifest["package"]["metadata"]["binstall"]
    kinds = {"tgz": "tar.gz", "zip": "zip"}
    for platform in common.all_platforms():
        own = settings | settings["overrides"].get(platform.target, {})
        values = {
            "repo": common.manifest()["repository"],
            "name": "mcp-gangway",
            "version": common.version(),
            "bin": "mcp-gangway",
            "binary-ext": ".exe" if platform.os == "win32" else "",
        }

        def filled(template: str) -> str:
            return re.sub(r"\{ ([a-z-]+) \}", lambda match: values[match[1]], template)  # noqa: B023

        address = filled(own["pkg-url"])
        expected = f"{platform.archive}.{platform.extension}"
        assert platform.extension == kinds[own["pkg-fmt"]]
        assert address == f"{common.manifest()['repository']}/releases/download/v{common.version()}/{expected}"
        assert filled(own["bin-dir"]) == f"{platform.archive}/{platform.command}"
