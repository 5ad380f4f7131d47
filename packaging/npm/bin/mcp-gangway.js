#!/usr/bin/env node
// Starts the native program of the installed platform package with this process's arguments, environment, stdin,
// stdout and stderr.
//
// Rule: if Node.js can (from 22.15 on, not on Windows), this process becomes the program. Otherwise it stays, passes
// signals on, and ends as the program ends. It runs at each start of the bridge, so it has no dependencies, and loads
// what only some cases need in those cases.
'use strict';

const fs = require('fs');

const SCOPE = '@mcp-gangway';
const WINDOWS = process.platform === 'win32';

/** The loader of programs that are built for glibc. Where it is missing, they cannot start. */
const GLIBC_LOADER = { x64: '/lib64/ld-linux-x86-64.so.2', arm64: '/lib/ld-linux-aarch64.so.1' };

/** Returns the packages that can run here, best first. The one for musl is static: it needs no C library. */
function candidates() {
  const name = `${SCOPE}/${process.platform}-${process.arch}`;
  if (process.platform !== 'linux') return [name];
  return fs.existsSync(GLIBC_LOADER[process.arch] || '') ? [name, `${name}-musl`] : [`${name}-musl`];
}

/** Returns the path of a package's file, or undefined if the package is not installed. */
function find(name, file) {
  try {
    return require.resolve(`${name}/${file}`);
  } catch {
    return undefined;
  }
}

/** Returns why no program was found, and what to do. */
function explain(packages) {
  const { basename, dirname, join } = require('path');
  const known = Object.keys(require('../package.json').optionalDependencies);
  const wanted = packages.find((name) => known.includes(name));
  let platform = `${process.platform}-${process.arch}`;
  let glibc;
  if (process.platform === 'linux') {
    // Without this, the report looks up the names of all open connections.
    process.report.excludeNetwork = true;
    glibc = process.report.getReport().header.glibcVersionRuntime;
    platform += glibc ? ` with glibc ${glibc}` : ' with musl';
  }
  if (wanted === undefined) {
    return [
      `there is no program for ${platform}, only for ${known.join(', ')}.`,
      'What to do: install Rust from https://rustup.rs, then run: cargo install mcp-gangway',
    ];
  }
  // npm goes by the C library of Node.js. Node.js for glibc may bring a loader that other programs do not find (NixOS).
  const options = `--include=optional${glibc && wanted.endsWith('-musl') ? ' --libc=musl' : ''}`;
  const folder = join(__dirname, '../../..');
  let advice = `install mcp-gangway again, for example by: npm install --global ${options} mcp-gangway`;
  if (basename(dirname(folder)) === '_npx') {
    advice = `remove ${folder}, then run: npx ${options} mcp-gangway`;
  } else if (fs.existsSync(join(folder, 'package.json'))) {
    advice = `in ${folder}, remove node_modules and package-lock.json, then run: npm install ${options}`;
  }
  const others = known.filter((name) => find(name, 'package.json')).join(' and ');
  return [
    `the package ${wanted}, the program for ${platform}, is not installed${others && `, but ${others} is`}.`,
    'Usual causes: npm left out optional packages (--omit=optional, --no-optional, or "omit" in .npmrc), or',
    'package-lock.json or node_modules was made on another platform.',
    `What to do: ${advice}`,
  ];
}

/** Prints an error, and makes the process fail. */
function fail(lines) {
  console.error(`mcp-gangway: ${lines.join('\n  ')}`);
  process.exitCode = 1;
}

/** Runs the program as a child. */
function supervise(file, args) {
  // A Windows console sends its events to the child too. There they must only not end this process.
  const signals = WINDOWS ? ['SIGINT', 'SIGBREAK', 'SIGHUP'] : ['SIGINT', 'SIGTERM', 'SIGHUP', 'SIGQUIT'];
  for (const signal of signals) process.on(signal, () => WINDOWS || child.kill(signal));

  const child = require('child_process').spawn(file, args, { stdio: 'inherit', windowsHide: true });
  // The program ends when its parent ends, but its parent is this process. Windows ends the program with this process.
  const parent = process.ppid;
  const watch = setInterval(() => {
    if (process.ppid === parent) return;
    clearInterval(watch);
    child.kill();
  }, 2000);
  child.on('error', (error) => {
    clearInterval(watch);
    fail([`cannot start ${file}: ${error.message}`]);
  });
  child.on('exit', (code, signal) => {
    if (signal === null) process.exit(code);
    // End by the same signal. The status says the same if the signal does not end this process.
    clearInterval(watch);
    process.exitCode = 128 + require('os').constants.signals[signal];
    process.removeAllListeners(signal);
    process.kill(process.pid, signal);
  });
}

/** Returns whether execve can succeed. If it fails, Node.js aborts with a stack trace. */
function executable(file) {
  try {
    fs.accessSync(file, fs.constants.X_OK);
    return true;
  } catch {
    return false;
  }
}

const packages = candidates();
const file = packages.map((name) => find(name, WINDOWS ? 'mcp-gangway.exe' : 'mcp-gangway')).find(Boolean);
const args = process.argv.slice(2);
if (file === undefined) {
  fail(explain(packages));
} else if (process.execve && !WINDOWS && executable(file)) {
  // Node.js 22.15 passes an empty environment if none is given.
  process.execve(file, [file, ...args], process.env);
} else {
  supervise(file, args);
}
