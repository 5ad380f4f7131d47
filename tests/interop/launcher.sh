#!/bin/sh
# Runs the bridge for a client and records how it ended: launcher.sh FOLDER COMMAND...
#
# FOLDER/pid exists once the bridge runs, FOLDER/status once it has exited without a signal. A client that signals the
# bridge signals this script, which then dies without writing a status. A client may launch a first bridge to probe
# the protocol and a second one to use it; the files are about the last.
folder=$1
shift
rm -f "$folder/status"
sh -c 'echo $$ >"$0/pid"; exec "$@"' "$folder" "$@"
echo $? >"$folder/status"
