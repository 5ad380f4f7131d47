"""Checks wheels before they are released: audit.py WHEEL...

Runs in the environment of scripts/package-wheels (requirements.lock). Fails at the first fault.

Rule: what a wheel's tag promises holds for both programs in it, the module and the command. auditwheel answers for the
libraries and symbols of both, but passes over files for another processor or C library, so this checks those itself.
"""

import json
import re
import struct
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

ELF_MACHINES = {"x86_64": "EM_X86_64", "aarch64": "EM_AARCH64"}
PE_MACHINES = {"win_amd64": 0x8664, "win_arm64": 0xAA64}
MACHO_CPUS = {"x86_64": 0x01000007, "arm64": 0x0100000C}
# Libraries of the compiler that Windows does not have.
FOREIGN_DLLS = re.compile(rb"\b(?:libgcc_s\w*-\d|libwinpthread-\d|libstdc\+\+-\d)\.dll\b", re.IGNORECASE)


class Fault(Exception):
    """What is wrong with a wheel."""


def audit(wheel: Path) -> None:
    """Raises a Fault unless the wheel is right."""
    _, _, python, abi, platforms = wheel.stem.split("-")
    if (python, abi) != ("cp310", "abi3"):
        raise Fault(f"the tag is {python}-{abi}, not cp310-abi3")
    windows = platforms.startswith("win")
    command_name = "mcp-gangway.exe" if windows else "mcp-gangway"
    module_name = "_native.pyd" if windows else "_native.abi3.so"
    with zipfile.ZipFile(wheel) as archive:
        entries = {entry.filename: entry for entry in archive.infolist() if not entry.is_dir()}
        commands = [name for name in entries if ".data/" in name]
        if [name.partition(".data/")[2] for name in commands] != [f"scripts/{command_name}"]:
            raise Fault(f"the commands must be {command_name} only, and are {commands}")
        if entries[commands[0]].external_attr >> 16 & 0o777 != 0o755:
            raise Fault("the command is not executable")
        modules = [name for name in entries if name.endswith((".so", ".pyd", ".dll", ".dylib"))]
        if modules != [f"mcp_gangway/{module_name}"]:
            raise Fault(f"the native modules must be {module_name} only, and are {modules}")
        for name in (*commands, *modules):
            data = archive.read(name)
            # A wheel may have several tags, all for the same system and processor.
            for tag in platforms.replace("manylinux2014", "manylinux_2_17").split("."):
                if fault := program_fault(data, tag):
                    raise Fault(f"{name}: {fault}")
    if "linux" in platforms:
        [tag] = [tag for tag in platforms.split(".") if not tag.startswith("manylinux2014")]
        audit_libraries(wheel, tag)


def program_fault(data: bytes, tag: str) -> str | None:
    """Returns why a program or library does not run on the platform of a tag, or None."""
    if tag.startswith("win"):
        return pe_fault(data, PE_MACHINES[tag])
    if tag.startswith("macosx"):
        kind, cpu = struct.unpack_from("<II", data)
        right = (kind, cpu) == (0xFEEDFACF, MACHO_CPUS[tag.split("_", 3)[3]])
        return None if right else f"not a Mach-O file for {tag}"
    if not data.startswith(b"\x7fELF"):
        return f"not an ELF file, so not for {tag}"
    elf = ELFFile(BytesIO(data))
    [machine] = [machine for cpu, machine in ELF_MACHINES.items() if tag.endswith(cpu)]
    if elf["e_machine"] != machine:
        return f"for {elf['e_machine']}, not for {tag}"
    # musl has no versions, so nothing that needs one runs with it.
    limit = None if tag.startswith("musllinux") else version(tag)
    for library, need in needed_versions(elf):
        if limit is None:
            return f"needs {need} of {library}, so it is not for musl"
        if need.startswith("GLIBC_") and number(need.removeprefix("GLIBC_")) > limit:
            return f"needs {need} of {library}, newer than {tag}"
    return None


def pe_fault(data: bytes, machine: int) -> str | None:
    """Returns why this is not a program of Windows for a processor, or None."""
    start = struct.unpack_from("<I", data, 0x3C)[0] if data.startswith(b"MZ") else len(data)
    if data[start : start + 6] != b"PE\0\0" + struct.pack("<H", machine):
        return f"not a PE file for machine {machine:#x}"
    if foreign := FOREIGN_DLLS.search(data):
        return f"needs {foreign.group().decode()}, which Windows does not have"
    return None


def needed_versions(elf: ELFFile) -> list[tuple[str, str]]:
    """Returns the libraries and versions of symbols that a program needs."""
    return [
        (str(library.name), str(needed.name))
        for section in elf.iter_sections()
        if isinstance(section, GNUVerNeedSection)
        for library, versions in section.iter_versions()
        for needed in versions
    ]


def audit_libraries(wheel: Path, tag: str) -> None:
    """Has auditwheel say which policy a wheel fulfils. It must be that of the tag, or one for older systems."""
    # Without folders of libraries: the result must not depend on what this machine has.
    command = [sys.executable, "-m", "auditwheel", "show", "--json", "--ldpaths=", str(wheel)]
    shown = subprocess.run(command, check=True, stdout=subprocess.PIPE, encoding="utf-8")
    result = json.loads(shown.stdout)
    found, upgrades = result["overall_tag"], result["policy_upgrades"]
    # zig names musl libc.so, as musl itself does, and Alpine libc.musl-x86_64.so.1, which is all that auditwheel knows.
    # The dynamic linker of musl takes both for itself.
    if result["sym_tag"] == tag and upgrades.get(tag) == {"libs_to_eliminate": ["libc.so"]} and "musl" in tag:
        return
    if found.split("_")[0] == tag.split("_")[0] and version(found) <= version(tag):
        return
    raise Fault(f"auditwheel says {found}: {json.dumps(upgrades)}")


def version(tag: str) -> tuple[int, ...]:
    """Returns the version of the C library in a tag: (2, 17) for manylinux_2_17_x86_64."""
    return tuple(int(part) for part in tag.split("_")[1:3])


def number(need: str) -> tuple[int, ...]:
    """Returns the parts of a version. Names in its place, such as PRIVATE, are only in the newest libraries."""
    return tuple(int(part) for part in need.split(".")) if need[0].isdigit() else (sys.maxsize,)


def main() -> int:
    for name in sys.argv[1:]:
        try:
            audit(Path(name))
        except Fault as fault:
            print(f"audit: {name}: {fault}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
