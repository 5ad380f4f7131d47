#!/bin/sh
# Installs mcp-gangway on Linux or macOS, for the current user, without sudo:
#
#   curl -fsSL https://github.com/mcp-gangway/mcp-gangway/releases/latest/download/install.sh | sh
#
# PREFIX    where to: PREFIX/bin and PREFIX/share. Default: ~/.local
# VERSION   which version. Default: that of the release which this script is from
# BASE_URL  where the archives are. Default: the release's downloads on GitHub
#
# The archive must have the hash that SHA256SUMS has for it. If minisign is installed, the signature of SHA256SUMS must
# be the project's. Nothing is installed before both were checked.
set -eu

version=${VERSION:-@VERSION@}
key='@MINISIGN_KEY@'
prefix=${PREFIX:-$HOME/.local}
base=${BASE_URL:-https://github.com/mcp-gangway/mcp-gangway/releases/download/v$version}

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# Prints the platform whose archive runs here.
platform() {
    case $(uname -m) in
        x86_64 | amd64) cpu=x64 loader=/lib64/ld-linux-x86-64.so.2 ;;
        aarch64 | arm64) cpu=arm64 loader=/lib/ld-linux-aarch64.so.1 ;;
        *) fail "there is no archive for $(uname -m); build it with \`cargo install mcp-gangway\`" ;;
    esac
    case $(uname -s) in
        Darwin)
            # A shell that Rosetta translates says x86_64 on an arm64 machine.
            if [ "$(sysctl -n sysctl.proc_translated 2>/dev/null || true)" = 1 ]; then cpu=arm64; fi
            echo "darwin-$cpu"
            ;;
        Linux)
            # The static binary runs everywhere. The other one needs glibc 2.17 at its usual place.
            libc=-musl
            if [ -e "$loader" ]; then
                case $(getconf GNU_LIBC_VERSION 2>/dev/null || true) in
                    'glibc 2.'[0-9] | 'glibc 2.'[0-9].* | 'glibc 2.1'[0-6] | 'glibc 2.1'[0-6].*) ;;
                    'glibc '*) libc= ;;
                esac
            fi
            echo "linux-$cpu$libc"
            ;;
        *) fail "this script is for Linux and macOS; for Windows there is install.ps1" ;;
    esac
}

# Fetches the file $1 of the release to $2.
fetch() {
    echo "Fetching $base/$1" >&2
    if has curl; then
        # Redirects must not leave https, unless BASE_URL is of another kind.
        case $base in
            https:*) curl -fsSL --proto '=https' --tlsv1.2 -o "$2" "$base/$1" ;;
            *) curl -fsSL -o "$2" "$base/$1" ;;
        esac
    elif has wget; then
        wget -q -O "$2" "$base/$1"
    else
        fail "curl or wget is needed"
    fi || fail "cannot fetch $base/$1"
}

# Prints the SHA-256 of the file $1.
sha256() {
    if has sha256sum; then
        sha256sum "$1"
    elif has shasum; then
        shasum -a 256 "$1"
    elif has openssl; then
        openssl dgst -sha256 -r "$1"
    else
        fail "sha256sum, shasum or openssl is needed"
    fi | cut -d ' ' -f 1
}

# Puts the file $1 at $2 with the mode $3. A program that runs from there keeps its file.
put() {
    mkdir -p "${2%/*}"
    cp "$1" "$2.new"
    chmod "$3" "$2.new"
    mv "$2.new" "$2"
}

# A function, so that a script that arrives in part does nothing.
main() {
    case $version$key in
        *@*) fail "take this script from a release, where its version and key are filled in" ;;
    esac
    name=mcp-gangway-$version-$(platform)
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    trap 'exit 1' HUP INT TERM

    fetch SHA256SUMS "$work/SHA256SUMS"
    if has minisign; then
        fetch SHA256SUMS.minisig "$work/SHA256SUMS.minisig"
        minisign -V -q -P "$key" -m "$work/SHA256SUMS" || fail "the signature of SHA256SUMS is not the project's"
    else
        echo "The signature is not checked, because minisign is not installed; the hash is" >&2
    fi
    fetch "$name.tar.gz" "$work/archive"
    expected=$(awk -v name="$name.tar.gz" '$2 == name { print $1 }' "$work/SHA256SUMS")
    [ -n "$expected" ] || fail "SHA256SUMS has no $name.tar.gz"
    [ "$(sha256 "$work/archive")" = "$expected" ] || fail "$name.tar.gz does not have the hash that SHA256SUMS has for it"

    tar -xzf "$work/archive" -C "$work"
    from=$work/$name
    share=$prefix/share
    "$from/mcp-gangway" --version >/dev/null || fail "the command of $name does not run here"
    put "$from/mcp-gangway" "$prefix/bin/mcp-gangway" 755
    put "$from/mcp-gangway.1" "$share/man/man1/mcp-gangway.1" 644
    put "$from/completions/mcp-gangway.bash" "$share/bash-completion/completions/mcp-gangway" 644
    put "$from/completions/_mcp-gangway" "$share/zsh/site-functions/_mcp-gangway" 644
    put "$from/completions/mcp-gangway.fish" "$share/fish/vendor_completions.d/mcp-gangway.fish" 644
    for text in LICENSE THIRD-PARTY-LICENSES.txt; do
        put "$from/$text" "$share/doc/mcp-gangway/$text" 644
    done

    echo "Installed $("$prefix/bin/mcp-gangway" --version) as $prefix/bin/mcp-gangway" >&2
    case :$PATH: in
        *":$prefix/bin:"*) ;;
        *) echo "$prefix/bin is not in PATH: add it, or use the whole path in the client's settings" >&2 ;;
    esac
}

main
