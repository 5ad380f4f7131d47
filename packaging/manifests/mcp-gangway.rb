# The Homebrew formula. scripts/package-manifests fills in versions, addresses and hashes; in a formula that it made
# from a part of the platforms, the others are missing.
class McpGangway < Formula
  desc "Bridge from MCP clients on stdio to MCP servers over HTTP"
  homepage "@HOMEPAGE@"
  version "@VERSION@"
  license "Apache-2.0"

  on_macos do
    on_arm do
      url "@URL darwin-arm64@"
      sha256 "@SHA256 darwin-arm64@"
    end
    on_intel do
      url "@URL darwin-x64@"
      sha256 "@SHA256 darwin-x64@"
    end
  end

  on_linux do
    on_arm do
      url "@URL linux-arm64@"
      sha256 "@SHA256 linux-arm64@"
    end
    on_intel do
      url "@URL linux-x64@"
      sha256 "@SHA256 linux-x64@"
    end
  end

  def install
    bin.install "mcp-gangway"
    man1.install "mcp-gangway.1"
    bash_completion.install "completions/mcp-gangway.bash" => "mcp-gangway"
    zsh_completion.install "completions/_mcp-gangway"
    fish_completion.install "completions/mcp-gangway.fish"
    doc.install "THIRD-PARTY-LICENSES.txt"
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/mcp-gangway --version")
  end
end
