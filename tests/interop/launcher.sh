#!/bin/sh
# Runs the bridge for a client and records how it ended: launcher.sh FOLDER COMMAND...
#
# FOLDER/pid is there once the bridge runs, FOLDER/status once it has exited by itself. A client that has to signal the
# bridge signals this script first, which then dies without writing a status. A client may launch a first bridge to ask
# for the protocol and a second one to use it; what the files tell is about the last.
folder=$1
shift
rm -f "$folder/status"
sh -c 'echo $$ >"$0/pid"; exec "$@"' "$folder" "$@"
echo $? >"$folder/status"
