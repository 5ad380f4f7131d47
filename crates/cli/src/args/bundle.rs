//! Defines the options of `mcp-gangway bundle`.

use std::path::PathBuf;

use clap::Parser;

const NOTES: &str = "Examples:
  mcp-gangway bundle https://example.com/mcp --display-name Example
  mcp-gangway bundle https://example.com/mcp --ask-token --deny-tool 'delete_*'
  mcp-gangway bundle https://example.com/mcp --ask-header X-Api-Key --icon example.png

A bundle holds no secrets. Its user fills in the token and the headers that it asks for; the program
gets them as environment variables. It runs on the systems that it holds a program for: this one, or
those of --binaries.";

/// Writes a bundle (.mcpb) that connects Claude Desktop to an MCP server: this program, and settings for the server.
/// Whoever opens it there has installed the server.
#[derive(Parser)]
#[command(
    name = "mcp-gangway bundle",
    override_usage = "mcp-gangway bundle [OPTIONS] [URL]",
    after_help = NOTES,
    args_override_self = true,
    max_term_width = 100
)]
#[allow(clippy::doc_markdown, rustdoc::bare_urls, reason = "the help is plain text")]
pub(crate) struct BundleArgs {
    /// Address of the MCP server [default: the user is asked for it, for a token and for headers]
    #[arg(value_name = "URL")]
    pub(crate) server: Option<String>,

    /// Short name: letters, digits, hyphens, dots, underscores [default: the server's host]
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// Name that users see [default: the short name]
    #[arg(long, value_name = "TEXT")]
    pub(crate) display_name: Option<String>,

    /// What the server is for, in a sentence [default: a sentence with the server's host]
    #[arg(long, value_name = "TEXT")]
    pub(crate) description: Option<String>,

    /// Name of whoever offers the bundle [default: the server's host]
    #[arg(long, value_name = "TEXT")]
    pub(crate) author: Option<String>,

    /// Version of the bundle [default: the version of this program]
    #[arg(long, value_name = "VERSION")]
    pub(crate) bundle_version: Option<String>,

    /// PNG file with an icon, best with 512 × 512 pixels
    #[arg(long, value_name = "FILE")]
    pub(crate) icon: Option<PathBuf>,

    /// Text file with licences to put in as LICENSE
    #[arg(long, value_name = "FILE")]
    pub(crate) license: Option<PathBuf>,

    /// File to write [default: the short name with .mcpb, in the current folder]
    #[arg(long, short, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,

    /// Folder with the programs to put in, as PLATFORM/mcp-gangway[.exe]; PLATFORM is like darwin-arm64 (darwin, linux
    /// or win32; x64 or arm64; -musl) [default: this program, for this platform]
    #[arg(long, value_name = "FOLDER")]
    pub(crate) binaries: Option<PathBuf>,

    /// Ask the user for a token, and send it as 'Authorization: Bearer TOKEN'
    #[arg(long)]
    pub(crate) ask_token: bool,

    /// Ask the user for the value of this header; repeatable
    #[arg(long, value_name = "NAME")]
    pub(crate) ask_header: Vec<String>,

    /// Header for every request; needs --public; repeatable
    #[arg(long, value_name = "NAME: VALUE")]
    pub(crate) header: Vec<String>,

    /// The values of --header and the query of the URL are no secrets: write them into the bundle
    #[arg(long)]
    pub(crate) public: bool,
}
