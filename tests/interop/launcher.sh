#!/bin/sh
# Runs the bridge for a client and records how it ended: launcher.sh FOLDER COMMAND...
#
# FOLDER/pid is there once the bridge runs, FOLDER/status once it has exited by itself. A client that has to signal the
# bridge signals this script first, which then dies without writing a status.
folder=$1
shift
sh -c 'echo $$ >"$0/pid"; exec "$@"' "$folder" "$@"
echo $? >"$folder/status"
