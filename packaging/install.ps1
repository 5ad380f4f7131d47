# Installs mcp-gangway on Windows, for the current user, without administrator rights:
#
#   irm https://github.com/mcp-gangway/mcp-gangway/releases/latest/download/install.ps1 | iex
#
# Environment variables:
#   PREFIX    where to: PREFIX\bin. Default: %LOCALAPPDATA%\Programs\mcp-gangway
#   VERSION   which version. Default: that of the release which this script is from
#   BASE_URL  where the archives are. Default: the release's downloads on GitHub
#
# The archive must have the hash that SHA256SUMS has for it. If minisign is installed, the signature of SHA256SUMS must
# be the project's. Nothing is installed before both were checked.

# A function, so that a script that arrives in part does nothing, and that the settings below end with it.
function Install-McpGangway {
    $ErrorActionPreference = 'Stop'
    # Windows PowerShell 5 draws a bar for each block, which takes longer than the download.
    $ProgressPreference = 'SilentlyContinue'
    [Net.ServicePointManager]::SecurityProtocol = [Net.ServicePointManager]::SecurityProtocol -bor [Net.SecurityProtocolType]::Tls12

    $version = if ($env:VERSION) { $env:VERSION } else { '@VERSION@' }
    $key = '@MINISIGN_KEY@'
    if ("$version$key".Contains('@')) {
        throw 'Take this script from a release, where its version and key are filled in.'
    }
    $prefix = if ($env:PREFIX) { $env:PREFIX } else { Join-Path $env:LOCALAPPDATA 'Programs\mcp-gangway' }
    $base = if ($env:BASE_URL) { $env:BASE_URL } else { "https://github.com/mcp-gangway/mcp-gangway/releases/download/v$version" }

    # An emulated shell has the machine's own processor in the second variable.
    $machine = if ($env:PROCESSOR_ARCHITEW6432) { $env:PROCESSOR_ARCHITEW6432 } else { $env:PROCESSOR_ARCHITECTURE }
    $cpu = switch ($machine) {
        'AMD64' { 'x64' }
        'ARM64' { 'arm64' }
        default { throw "There is no archive for $machine; build it with ``cargo install mcp-gangway``." }
    }
    $name = "mcp-gangway-$version-win32-$cpu"

    $work = Join-Path ([IO.Path]::GetTempPath()) ([IO.Path]::GetRandomFileName())
    New-Item -ItemType Directory $work | Out-Null
    try {
        $sums = Join-Path $work 'SHA256SUMS'
        $archive = Join-Path $work "$name.zip"
        Invoke-WebRequest -UseBasicParsing "$base/SHA256SUMS" -OutFile $sums
        if (Get-Command minisign -ErrorAction SilentlyContinue) {
            Invoke-WebRequest -UseBasicParsing "$base/SHA256SUMS.minisig" -OutFile "$sums.minisig"
            minisign -V -q -P $key -m $sums
            if ($LASTEXITCODE -ne 0) { throw "The signature of SHA256SUMS is not the project's." }
        } else {
            Write-Host 'The signature is not checked, because minisign is not installed; the hash is.'
        }
        Invoke-WebRequest -UseBasicParsing "$base/$name.zip" -OutFile $archive
        $line = Get-Content $sums | Where-Object { $_.EndsWith("  $name.zip") }
        if (-not $line) { throw "SHA256SUMS has no $name.zip." }
        $hash = (Get-FileHash -Algorithm SHA256 $archive).Hash
        if ($hash -ne $line.Split(' ')[0]) { throw "$name.zip does not have the hash that SHA256SUMS has for it." }

        Expand-Archive $archive -DestinationPath $work
        $bin = Join-Path $prefix 'bin'
        New-Item -ItemType Directory -Force $bin | Out-Null
        $command = Join-Path $bin 'mcp-gangway.exe'
        # A program that runs cannot be overwritten, but it can be renamed.
        if (Test-Path $command) {
            Remove-Item -Force "$command.old" -ErrorAction SilentlyContinue
            Move-Item -Force $command "$command.old"
        }
        Copy-Item (Join-Path $work "$name\mcp-gangway.exe") $command
        foreach ($text in 'LICENSE', 'THIRD-PARTY-LICENSES.txt') {
            Copy-Item -Force (Join-Path $work "$name\$text") (Join-Path $prefix $text)
        }
        Remove-Item -Force "$command.old" -ErrorAction SilentlyContinue
        $installed = & $command --version
        if ($LASTEXITCODE -ne 0) { throw "$command does not run here." }
        Write-Host "Installed $installed as $command"
        if (($env:PATH -split ';') -notcontains $bin) {
            Write-Host "$bin is not in PATH: add it, or use the whole path in the client's settings."
        }
    } finally {
        Remove-Item -Recurse -Force $work
    }
}

Install-McpGangway
